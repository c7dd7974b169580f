"""One random key per response, from what it is and never from where it lies."""

import jax
import jax.numpy as jnp


def sampling_keys(
    seed: int, step: int | jax.Array, prompt_ids: jax.Array, num_samples: int
) -> jax.Array:
    """Keys that depend on seed, step, prompt id and sample id only.

    So a prompt gets the same responses in any batch, at any place, on any mesh; the
    same prompt id twice in one step gets the same responses twice.

    Args:
      seed: the run's seed.
      step: the rollout's number in the run.
      prompt_ids: [P] whole numbers, one per prompt of the data set.
      num_samples: G.

    Returns:
      [P*G] keys, prompts then samples.

    >>> sampling_keys(0, 3, jax.numpy.array([7, 5]), 4).shape
    (8,)
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be >= 1, got {num_samples}")
    key = jax.random.fold_in(jax.random.key(seed), step)
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    prompts = fold(key, jnp.asarray(prompt_ids))  # [P]
    keys = jax.vmap(fold, in_axes=(0, None))(prompts, jnp.arange(num_samples))  # [P, G]
    return keys.reshape(-1)
