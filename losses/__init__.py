"""Losses for reinforcement learning of reasoning: arrays in, arrays out.

Three kinds of plain functions that do not know each other: advantages, per-token
objectives and reductions. A published method joins one of each. Nothing here knows a
model, a tokenizer, a mesh or a configuration; only jax and chex are imported.

What many methods share is sorted by kind: `reductions`, `logprobs`, `advantages`,
`returns`, `turns`, `objectives`, `kl`, `correction`, `masks`, `rewards`, `repetition`,
`controllers`, `metrics`, `evaluation`. What belongs to one published method is in a
module of its name: policy losses in `policy`, losses on pairs in `preference`, process
rewards in `process`, several objectives in `multi_objective`, teachers in
`distillation`, and `prover_verifier`.
Every name is importable from here. The arguments of the policy losses are described at
`ppo_loss`.

Shapes: B sequences, T response tokens, V vocabulary, D width. `mask` [B, T] is bool or
0/1, True on tokens that the policy produced. Everything takes bfloat16 and computes in
float32; advantages, old and reference log-probs and weights are constants to the
gradient; what arrays hold outside the mask does not matter.
"""

if __name__ == "losses":
    raise ImportError("import this package as jaxrl_reason.losses, not as losses")

from jaxrl_reason.losses._math import Counts
from jaxrl_reason.losses.advantages import (
    batch_std_advantages,
    dr_grpo_advantages,
    group_signal,
    grpo_advantages,
    rloo_advantages,
    whiten,
)
from jaxrl_reason.losses.controllers import adaptive_entropy_update, adaptive_kl_update
from jaxrl_reason.losses.correction import (
    importance_weights,
    masked_importance_weights,
    normalize_weights,
    rejection_mask,
)
from jaxrl_reason.losses.distillation.divergence import (
    chunked_jsd,
    generalized_jsd,
    top_k_jsd,
)
from jaxrl_reason.losses.distillation.gkd import gkd_loss
from jaxrl_reason.losses.distillation.opd import (
    distillation_advantages,
    opd_loss,
    select_teacher,
)
from jaxrl_reason.losses.distillation.sdpo import sdpo_loss
from jaxrl_reason.losses.evaluation import (
    asp,
    avg_at_k,
    majority_answer,
    majority_at_k,
    pass_at_k,
    pdr,
)
from jaxrl_reason.losses.kl import (
    kl_abs,
    kl_in_reward,
    kl_k1,
    kl_k2,
    kl_k3,
    kl_penalty,
)
from jaxrl_reason.losses.logprobs import chunked_logprobs, token_entropy, token_logprobs
from jaxrl_reason.losses.masks import (
    high_entropy_mask,
    off_policy_sequence_mask,
    overlong_mask,
)
from jaxrl_reason.losses.metrics import (
    effective_sample_size,
    explained_variance,
    lost_group_ratio,
    masked_total,
    mean_probability,
    mismatch_metrics,
    mismatch_peaks,
    policy_metrics,
    zero_advantage_ratio,
)
from jaxrl_reason.losses.multi_objective.gdpo import gdpo_advantages
from jaxrl_reason.losses.multi_objective.gradients import (
    combine_gradients,
    mgda_weights,
    pcgrad,
    pcgrad_coefficients,
)
from jaxrl_reason.losses.multi_objective.scalarisation import (
    dwa_weights,
    smooth_tchebycheff,
    tchebycheff,
    uncertainty_weighting,
    weighted_sum,
)
from jaxrl_reason.losses.objectives import (
    clipped_surrogate,
    dft,
    nll,
    policy_gradient,
    value_loss,
)
from jaxrl_reason.losses.policy.cispo import cispo, cispo_loss
from jaxrl_reason.losses.policy.clip_cov import clip_cov, clip_cov_loss, clip_cov_tokens
from jaxrl_reason.losses.policy.dapo import dapo_loss, soft_overlong_penalty
from jaxrl_reason.losses.policy.decoupled_ppo import decoupled_ppo_loss
from jaxrl_reason.losses.policy.dppo import (
    binary_kl,
    binary_tv,
    dppo,
    dppo_loss,
    dppo_mask,
)
from jaxrl_reason.losses.policy.dr_grpo import dr_grpo_loss
from jaxrl_reason.losses.policy.gigpo import gigpo_advantages
from jaxrl_reason.losses.policy.gmpo import gmpo, gmpo_loss
from jaxrl_reason.losses.policy.gpg import gpg_advantages, gpg_loss, signal_fraction
from jaxrl_reason.losses.policy.grpo import grpo_loss
from jaxrl_reason.losses.policy.gspo import gspo, gspo_loss
from jaxrl_reason.losses.policy.kimi_k2_5 import kimi_k2_5_loss, log_ratio_pull
from jaxrl_reason.losses.policy.kl_cov import (
    kl_cov,
    kl_cov_loss,
    kl_cov_tokens,
    token_covariance,
)
from jaxrl_reason.losses.policy.luspo import luspo_loss
from jaxrl_reason.losses.policy.maxrl import maxrl_advantages
from jaxrl_reason.losses.policy.opo import opo_advantages
from jaxrl_reason.losses.policy.otb import otb_advantages, sum_squared_probs
from jaxrl_reason.losses.policy.pass_at_k import pass_at_k_advantages
from jaxrl_reason.losses.policy.ppo import ppo_loss
from jaxrl_reason.losses.policy.reinforce import reinforce_loss
from jaxrl_reason.losses.policy.reinforce_pp import (
    reinforce_pp_advantages,
    reinforce_pp_baseline_advantages,
)
from jaxrl_reason.losses.policy.remax import remax_advantages
from jaxrl_reason.losses.policy.rloo import rloo_loss
from jaxrl_reason.losses.policy.sapo import sapo, sapo_loss
from jaxrl_reason.losses.policy.vapo import length_adaptive_lambda, vapo_loss
from jaxrl_reason.losses.policy.vespo import vespo, vespo_loss
from jaxrl_reason.losses.preference.dpo import (
    dpo_loss,
    irpo_loss,
    length_normalised_dpo_loss,
    robust_dpo_loss,
)
from jaxrl_reason.losses.preference.hinge import hinge_loss
from jaxrl_reason.losses.preference.ipo import ipo_loss
from jaxrl_reason.losses.preference.nca import nca_loss
from jaxrl_reason.losses.preference.orpo import orpo_loss
from jaxrl_reason.losses.preference.pairs import (
    average_logprobs,
    count_pairs,
    sequence_logprobs,
)
from jaxrl_reason.losses.preference.simpo import simpo_loss
from jaxrl_reason.losses.process.ppm import count_steps, pairwise_ranking_loss
from jaxrl_reason.losses.process.prime import (
    implicit_prm_loss,
    implicit_process_rewards,
    prime_advantages,
)
from jaxrl_reason.losses.process.steps import (
    min_future_step_scores,
    process_supervision_advantages,
    rewards_at_steps,
    step_score_gains,
)
from jaxrl_reason.losses.prover_verifier import prover_rewards, verifier_loss
from jaxrl_reason.losses.reductions import (
    batch_counts,
    fixed_length_mean,
    prompt_mean,
    sequence_mean,
    sequence_sum_mean,
    token_mean,
)
from jaxrl_reason.losses.repetition import repetition_penalty, token_repetition_penalty
from jaxrl_reason.losses.returns import discounted_returns, gae, rewards_at_end
from jaxrl_reason.losses.rewards import (
    cosine_length_reward,
    difficulty_levels,
    difficulty_reward,
    kimi_length_reward,
)
from jaxrl_reason.losses.turns import turn_gae, turn_starts

__all__ = [
    "Counts",
    "adaptive_entropy_update",
    "adaptive_kl_update",
    "asp",
    "average_logprobs",
    "avg_at_k",
    "batch_counts",
    "batch_std_advantages",
    "binary_kl",
    "binary_tv",
    "chunked_jsd",
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
    "decoupled_ppo_loss",
    "dft",
    "difficulty_levels",
    "difficulty_reward",
    "discounted_returns",
    "distillation_advantages",
    "dpo_loss",
    "dppo",
    "dppo_loss",
    "dppo_mask",
    "dr_grpo_advantages",
    "dr_grpo_loss",
    "dwa_weights",
    "effective_sample_size",
    "explained_variance",
    "fixed_length_mean",
    "gae",
    "gdpo_advantages",
    "generalized_jsd",
    "gigpo_advantages",
    "gkd_loss",
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
    "kimi_k2_5_loss",
    "kimi_length_reward",
    "kl_abs",
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
    "log_ratio_pull",
    "lost_group_ratio",
    "luspo_loss",
    "majority_answer",
    "majority_at_k",
    "masked_importance_weights",
    "masked_total",
    "maxrl_advantages",
    "mean_probability",
    "mgda_weights",
    "min_future_step_scores",
    "mismatch_metrics",
    "mismatch_peaks",
    "nca_loss",
    "nll",
    "normalize_weights",
    "off_policy_sequence_mask",
    "opd_loss",
    "opo_advantages",
    "orpo_loss",
    "otb_advantages",
    "overlong_mask",
    "pairwise_ranking_loss",
    "pass_at_k",
    "pass_at_k_advantages",
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
    "sdpo_loss",
    "select_teacher",
    "sequence_logprobs",
    "sequence_mean",
    "sequence_sum_mean",
    "signal_fraction",
    "simpo_loss",
    "smooth_tchebycheff",
    "soft_overlong_penalty",
    "step_score_gains",
    "sum_squared_probs",
    "tchebycheff",
    "token_covariance",
    "token_entropy",
    "token_logprobs",
    "token_mean",
    "token_repetition_penalty",
    "top_k_jsd",
    "turn_gae",
    "turn_starts",
    "uncertainty_weighting",
    "value_loss",
    "vapo_loss",
    "verifier_loss",
    "vespo",
    "vespo_loss",
    "weighted_sum",
    "whiten",
    "zero_advantage_ratio",
]
