"""Published policy losses, one module per method, each beside its paper.

Each loss is `f(logprobs, old_logprobs, advantages, mask, counts, *, ...)` and returns
`(scalar, metrics)` for `jax.value_and_grad(f, has_aux=True)`. The arguments that all
share are described at `ppo_loss`. Advantages are the other half of a method; those that
several methods use are in `jaxrl_reason.losses.advantages` and `returns`.
"""
