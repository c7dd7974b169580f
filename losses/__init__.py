"""Losses for reinforcement learning of reasoning: arrays in, arrays out.

Three kinds of plain functions that do not know each other: advantages, per-token
objectives and reductions. A published method is a short composition of them. Nothing
here knows a model, a tokenizer, a mesh or a configuration; only jax and chex are
imported.

Shapes: B sequences, T response tokens, V vocabulary, D width. `mask` [B, T] is bool or
0/1, True on tokens that the policy produced. Everything takes bfloat16 and computes in
float32; advantages, old and reference log-probs and weights are constants to the
gradient; what arrays hold outside the mask does not matter.
"""

if __name__ == "losses":
    raise ImportError("import this package as jaxrl_reason.losses, not as losses")

from jaxrl_reason.losses.advantages import (
    dr_grpo_advantages,
    group_signal,
    grpo_advantages,
    rloo_advantages,
)
from jaxrl_reason.losses.chunked import chunked_logprobs
from jaxrl_reason.losses.compositions import (
    dapo_loss,
    dr_grpo_loss,
    grpo_loss,
    ppo_loss,
)
from jaxrl_reason.losses.kl import kl_in_reward, kl_k1, kl_k2, kl_k3, kl_penalty
from jaxrl_reason.losses.likelihood import nll
from jaxrl_reason.losses.logprobs import token_entropy, token_logprobs
from jaxrl_reason.losses.reductions import (
    Counts,
    batch_counts,
    fixed_length_mean,
    prompt_mean,
    sequence_mean,
    sequence_sum_mean,
    token_mean,
)
from jaxrl_reason.losses.returns import discounted_returns, gae, rewards_at_end
from jaxrl_reason.losses.shaping import overlong_mask, soft_overlong_penalty
from jaxrl_reason.losses.surrogates import (
    clipped_surrogate,
    masked_total,
    policy_gradient,
    policy_metrics,
)
from jaxrl_reason.losses.value import value_loss

__all__ = [
    "Counts",
    "batch_counts",
    "chunked_logprobs",
    "clipped_surrogate",
    "dapo_loss",
    "discounted_returns",
    "dr_grpo_advantages",
    "dr_grpo_loss",
    "fixed_length_mean",
    "gae",
    "group_signal",
    "grpo_advantages",
    "grpo_loss",
    "kl_in_reward",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "kl_penalty",
    "masked_total",
    "nll",
    "overlong_mask",
    "policy_gradient",
    "policy_metrics",
    "ppo_loss",
    "prompt_mean",
    "rewards_at_end",
    "rloo_advantages",
    "sequence_mean",
    "sequence_sum_mean",
    "soft_overlong_penalty",
    "token_entropy",
    "token_logprobs",
    "token_mean",
    "value_loss",
]
