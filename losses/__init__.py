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

from jaxrl_reason.losses._assembly import OptionalTerms
from jaxrl_reason.losses.adaptive_lambda import length_adaptive_lambda
from jaxrl_reason.losses.advantages import (
    dr_grpo_advantages,
    group_signal,
    grpo_advantages,
    rloo_advantages,
)
from jaxrl_reason.losses.baselines import opo_advantages, remax_advantages
from jaxrl_reason.losses.batch_std import batch_std_advantages
from jaxrl_reason.losses.chunked import chunked_logprobs
from jaxrl_reason.losses.compositions import (
    dapo_loss,
    dr_grpo_loss,
    grpo_loss,
    ppo_loss,
)
from jaxrl_reason.losses.controllers import adaptive_entropy_update, adaptive_kl_update
from jaxrl_reason.losses.correction import (
    importance_weights,
    masked_importance_weights,
    normalize_weights,
    rejection_mask,
)
from jaxrl_reason.losses.covariance import clip_cov, kl_cov
from jaxrl_reason.losses.covariance_compositions import clip_cov_loss, kl_cov_loss
from jaxrl_reason.losses.covariance_tokens import (
    clip_cov_tokens,
    kl_cov_tokens,
    token_covariance,
)
from jaxrl_reason.losses.difficulty_rewards import difficulty_levels, difficulty_reward
from jaxrl_reason.losses.dynamics import (
    explained_variance,
    mean_probability,
    zero_advantage_ratio,
)
from jaxrl_reason.losses.evaluation import (
    asp,
    avg_at_k,
    majority_answer,
    majority_at_k,
    pass_at_k,
    pdr,
)
from jaxrl_reason.losses.fine_tuning import dft
from jaxrl_reason.losses.gdpo import gdpo_advantages
from jaxrl_reason.losses.gpg import gpg_advantages, signal_fraction
from jaxrl_reason.losses.gradient_compositions import (
    gpg_loss,
    reinforce_loss,
    rloo_loss,
)
from jaxrl_reason.losses.gradient_conflicts import (
    combine_gradients,
    mgda_weights,
    pcgrad,
    pcgrad_coefficients,
)
from jaxrl_reason.losses.kl import kl_in_reward, kl_k1, kl_k2, kl_k3, kl_penalty
from jaxrl_reason.losses.length_rewards import cosine_length_reward, kimi_length_reward
from jaxrl_reason.losses.likelihood import nll
from jaxrl_reason.losses.logprobs import token_entropy, token_logprobs
from jaxrl_reason.losses.mismatch import (
    effective_sample_size,
    mismatch_metrics,
    mismatch_peaks,
)
from jaxrl_reason.losses.pairs import average_logprobs, count_pairs, sequence_logprobs
from jaxrl_reason.losses.preference import (
    dpo_loss,
    hinge_loss,
    ipo_loss,
    nca_loss,
    robust_dpo_loss,
)
from jaxrl_reason.losses.preference_lengths import irpo_loss, length_normalised_dpo_loss
from jaxrl_reason.losses.process_rewards import (
    count_steps,
    implicit_prm_loss,
    implicit_process_rewards,
    pairwise_ranking_loss,
    prime_advantages,
)
from jaxrl_reason.losses.prover_verifier import prover_rewards, verifier_loss
from jaxrl_reason.losses.reductions import (
    Counts,
    batch_counts,
    fixed_length_mean,
    prompt_mean,
    sequence_mean,
    sequence_sum_mean,
    token_mean,
)
from jaxrl_reason.losses.reference_free import orpo_loss, simpo_loss
from jaxrl_reason.losses.reinforce_pp import (
    reinforce_pp_advantages,
    reinforce_pp_baseline_advantages,
    whiten,
)
from jaxrl_reason.losses.repetition import repetition_penalty, token_repetition_penalty
from jaxrl_reason.losses.returns import discounted_returns, gae, rewards_at_end
from jaxrl_reason.losses.sequence_compositions import gmpo_loss, gspo_loss
from jaxrl_reason.losses.sequence_ratio import gmpo, gspo
from jaxrl_reason.losses.several_objectives import (
    dwa_weights,
    smooth_tchebycheff,
    tchebycheff,
    uncertainty_weighting,
    weighted_sum,
)
from jaxrl_reason.losses.shaping import overlong_mask, soft_overlong_penalty
from jaxrl_reason.losses.soft_compositions import cispo_loss, sapo_loss
from jaxrl_reason.losses.soft_objectives import cispo, sapo
from jaxrl_reason.losses.step_advantages import (
    min_future_step_scores,
    process_supervision_advantages,
    rewards_at_steps,
    step_score_gains,
)
from jaxrl_reason.losses.surrogates import (
    clipped_surrogate,
    masked_total,
    policy_gradient,
    policy_metrics,
)
from jaxrl_reason.losses.token_selection import (
    high_entropy_mask,
    off_policy_sequence_mask,
)
from jaxrl_reason.losses.value import value_loss
from jaxrl_reason.losses.vapo import vapo_loss

__all__ = [
    "Counts",
    "OptionalTerms",
    "adaptive_entropy_update",
    "adaptive_kl_update",
    "asp",
    "average_logprobs",
    "avg_at_k",
    "batch_counts",
    "batch_std_advantages",
    "chunked_logprobs",
    "cispo",
    "cispo_loss",
    "clip_cov",
    "clip_cov_loss",
    "clip_cov_tokens",
    "clipped_surrogate",
    "combine_gradients",
    "cosine_length_reward",
    "count_pairs",
    "count_steps",
    "dapo_loss",
    "dft",
    "difficulty_levels",
    "difficulty_reward",
    "discounted_returns",
    "dpo_loss",
    "dr_grpo_advantages",
    "dr_grpo_loss",
    "dwa_weights",
    "effective_sample_size",
    "explained_variance",
    "fixed_length_mean",
    "gae",
    "gdpo_advantages",
    "gmpo",
    "gmpo_loss",
    "gpg_advantages",
    "gpg_loss",
    "group_signal",
    "grpo_advantages",
    "grpo_loss",
    "gspo",
    "gspo_loss",
    "high_entropy_mask",
    "hinge_loss",
    "implicit_prm_loss",
    "implicit_process_rewards",
    "importance_weights",
    "ipo_loss",
    "irpo_loss",
    "kimi_length_reward",
    "kl_cov",
    "kl_cov_loss",
    "kl_cov_tokens",
    "kl_in_reward",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "kl_penalty",
    "length_adaptive_lambda",
    "length_normalised_dpo_loss",
    "majority_answer",
    "majority_at_k",
    "masked_importance_weights",
    "masked_total",
    "mean_probability",
    "mgda_weights",
    "min_future_step_scores",
    "mismatch_metrics",
    "mismatch_peaks",
    "nca_loss",
    "nll",
    "normalize_weights",
    "off_policy_sequence_mask",
    "opo_advantages",
    "orpo_loss",
    "overlong_mask",
    "pairwise_ranking_loss",
    "pass_at_k",
    "pcgrad",
    "pcgrad_coefficients",
    "pdr",
    "policy_gradient",
    "policy_metrics",
    "ppo_loss",
    "prime_advantages",
    "process_supervision_advantages",
    "prompt_mean",
    "prover_rewards",
    "reinforce_loss",
    "reinforce_pp_advantages",
    "reinforce_pp_baseline_advantages",
    "rejection_mask",
    "remax_advantages",
    "repetition_penalty",
    "rewards_at_end",
    "rewards_at_steps",
    "rloo_advantages",
    "rloo_loss",
    "robust_dpo_loss",
    "sapo",
    "sapo_loss",
    "sequence_logprobs",
    "sequence_mean",
    "sequence_sum_mean",
    "signal_fraction",
    "simpo_loss",
    "smooth_tchebycheff",
    "soft_overlong_penalty",
    "step_score_gains",
    "tchebycheff",
    "token_covariance",
    "token_entropy",
    "token_logprobs",
    "token_mean",
    "token_repetition_penalty",
    "uncertainty_weighting",
    "value_loss",
    "vapo_loss",
    "verifier_loss",
    "weighted_sum",
    "whiten",
    "zero_advantage_ratio",
]
