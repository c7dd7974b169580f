"""Log-probs that are the same bits in any batch, drawn or given.

What a product, a sum or an attention rounds to depends on its shape: on the number of
rows, the width of a cache and the column where a sequence stands
(`experiments/conformance/strict_numbers.py` prints by how much). Inside one compiled
program of one shape it does not depend on the row. So here every response goes through
the same program, a fixed number of responses at a time, whether its tokens are drawn or
already known: the log-probs of a rollout and those that a trainer computes of its
tokens are equal to the bit.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxrl_reason.models import Params, Transformer
from jaxrl_reason.sampler.sample_loop import check_sampling, sample
from jaxrl_reason.sampler.settings import Completions, SamplingSettings
from jaxrl_reason.sharding import Constrainer

ROWS = 8
"""Responses that go through the program together."""


class StrictSampler:
    """Draws as the plain sampler does, with the same bits in batches of any size.

    A prompt is read once for each of its responses, and nothing is shared between
    them: the price is a prefill and a decoding of `rows` responses at a time.

    Args:
      model: the policy.
      settings: how to draw.
      num_samples: G.
      rows: responses that go through the program together; another number is another
        program, with other last digits.

    Raises:
      ValueError: the model is split over devices, or settings, model and num_samples do
        not fit together.
    """

    def __init__(
        self,
        model: Transformer,
        settings: SamplingSettings,
        num_samples: int,
        rows: int = ROWS,
    ) -> None:
        check_sampling(model, settings, num_samples)
        if rows < 1:
            raise ValueError(f"rows must be >= 1, got {rows}")
        constrain = model.constrain
        if isinstance(constrain, Constrainer) and constrain.mesh.size > 1:
            raise ValueError(
                "strict log-probs need a model on one device (mesh data=1), got "
                f"{constrain.mesh.size}"
            )
        self.settings, self.num_samples, self.rows = settings, num_samples, rows
        self._program = jax.jit(
            partial(sample, model, settings=settings, num_samples=1)
        )

    def __call__(
        self,
        params: Params,
        prompt_tokens: ArrayLike,
        prompt_lengths: ArrayLike,
        keys: jax.Array,
    ) -> Completions:
        """Draws G responses to each of P prompts.

        Args:
          params: of the model.
          prompt_tokens: [P, Tp] ids, right-padded; Tp is part of the shape.
          prompt_lengths: [P].
          keys: [P*G] from `sampling_keys`.

        Returns:
          Completions of B = P*G rows, NumPy arrays.
        """
        rows = len(np.asarray(prompt_lengths)) * self.num_samples
        shape = (rows, self.settings.max_new_tokens)
        drawn = np.full(shape, -1, np.int32)
        return self._run(params, prompt_tokens, prompt_lengths, keys, drawn)

    def score(
        self,
        params: Params,
        prompt_tokens: ArrayLike,
        prompt_lengths: ArrayLike,
        tokens: np.ndarray,
        lengths: np.ndarray,
    ) -> np.ndarray:
        """The log-probs of responses, as they would be drawn.

        Args:
          params: of the model.
          prompt_tokens: [P, Tp], as wide as where they were drawn.
          prompt_lengths: [P].
          tokens: [P*G, T] of the responses, T the settings' max_new_tokens.
          lengths: [P*G] tokens of each, the EOS token included.

        Returns:
          [P*G, T] float32, 0 after the end of a response.
        """
        inside = np.arange(tokens.shape[1]) < np.asarray(lengths)[:, None]
        given = np.where(inside, tokens, -1).astype(np.int32)
        keys = jnp.repeat(jax.random.key(0)[None], len(given))  # nothing is drawn
        found = self._run(params, prompt_tokens, prompt_lengths, keys, given)
        return np.where(inside, found.logprobs, np.float32(0))

    def _run(
        self,
        params: Params,
        prompt_tokens: ArrayLike,
        prompt_lengths: ArrayLike,
        keys: jax.Array,
        given: np.ndarray,
    ) -> Completions:
        count = len(given)
        prompts = np.repeat(np.asarray(prompt_tokens), self.num_samples, axis=0)
        lengths = np.repeat(np.asarray(prompt_lengths), self.num_samples)
        # The last program is filled up with copies of the last response.
        rows = np.minimum(np.arange(-(-count // self.rows) * self.rows), count - 1)
        parts = [
            self._program(params, prompts[i], lengths[i], keys[i], None, given[i])
            for i in rows.reshape(-1, self.rows)
        ]
        return jax.tree.map(
            lambda *xs: np.concatenate(xs)[:count], *jax.device_get(parts)
        )
