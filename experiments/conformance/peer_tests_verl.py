"""verl's unit tests with the functions of `jaxrl_reason.losses`."""

import importlib
from collections.abc import Callable
from typing import Any

import torch

from experiments.conformance.bridge import counts, groups, ours

PPO = "tests/trainer/ppo"
TESTS = (
    f"{PPO}/test_core_algos_on_cpu.py",
    f"{PPO}/test_loss_aggregation_on_cpu.py",
    f"{PPO}/test_value_loss_normalization_on_cpu.py",
    f"{PPO}/test_reinforce_pp_multiturn_on_cpu.py",
    f"{PPO}/test_dynamic_policy_losses_on_cpu.py",
    f"{PPO}/test_rollout_corr.py",
    f"{PPO}/test_rollout_corr_integration.py",
    "tests/trainer/test_multi_trajectories_advantage_on_cpu.py",
    "tests/utils/test_torch_functional.py",
)
STAND_INS = (
    "accelerate",
    "aiohttp",
    "codetiming",
    "datasets",
    "fastapi",
    "hf_transfer",
    "liger_kernel",
    "orjson",
    "pandas",
    "peft",
    "psutil",
    "ray",
    "regex",
    "torchdata",
    "tqdm",
    "transfer_queue",
    "transformers",
    "uvicorn",
    "vllm",
    "zmq",
)
NOT_RUN: tuple[str, ...] = ("test_distributed",)
ON_CPU = False
OTHERS = {
    "TestRegisterAdvEst": "a registry of functions",
    "TestRolloutCorrectionConfigNormalization": "the parsing of settings",
    "test_distributed": "several processes",
    "test_expand_as_nested": "nested tensors",
    "test_bool_rollout_is_threshold": "a setting of the wrong type",
    "test_seq_fraction_high": "a figure for their log",
}
MISSING: dict[str, str] = {}
ALGOS = "verl.trainer.ppo.core_algos"
CORRECTION = "verl.trainer.ppo.rollout_corr_helper"
TORCH = "verl.utils.torch_functional"


def adapters() -> dict[str, Callable[..., Any]]:
    """By the place of the function that each stands for.

    Of two that their tests compare with each other, as with the vectorised advantages,
    one is ours and the other theirs.
    """
    return {
        f"{ALGOS}:compute_gae_advantage_return": gae,
        f"{ALGOS}:compute_grpo_outcome_advantage": grpo,
        f"{ALGOS}:compute_rloo_outcome_advantage": rloo,
        f"{ALGOS}:compute_reinforce_plus_plus_outcome_advantage": reinforce_pp,
        f"{ALGOS}:kl_penalty": kl,
        f"{ALGOS}:agg_loss": agg_loss,
        f"{ALGOS}:compute_value_loss": value_loss,
        f"{ALGOS}:compute_policy_loss_vanilla": ppo,
        f"{ALGOS}:compute_policy_loss_dro": dro,
        f"{CORRECTION}:compute_rollout_correction_weights": weights,
        f"{CORRECTION}:compute_rollout_rejection_mask": rejection,
        f"{CORRECTION}:compute_offpolicy_metrics": mismatch,
        f"{TORCH}:masked_mean": masked_mean,
        f"{TORCH}:calculate_sum_pi_squared_from_logits": squares,
    }


# Advantages


def gae(
    token_level_rewards: Any, values: Any, response_mask: Any, gamma: Any, lam: Any
) -> Any:
    """Whitened."""
    arrays = token_level_rewards, values, response_mask
    found, returns = ours.gae(*arrays, gamma=float(gamma), lam=float(lam))
    return ours.whiten(found, response_mask), returns


def spread(advantages: Any, response_mask: Any) -> Any:
    """One number a response onto its tokens; they are the returns as well."""
    tokens = advantages[:, None] * response_mask
    return tokens, tokens


def grpo(
    token_level_rewards: Any,
    response_mask: Any,
    index: Any,
    epsilon: float = 1e-6,
    norm_adv_by_std_in_grpo: bool = True,
    config: Any = None,
) -> Any:
    """With and without the division by the standard deviation."""
    rewards, of = token_level_rewards.sum(-1), groups(index)
    if norm_adv_by_std_in_grpo:
        return spread(ours.grpo_advantages(rewards, eps=epsilon, **of), response_mask)
    return spread(ours.dr_grpo_advantages(rewards, **of), response_mask)


def rloo(token_level_rewards: Any, response_mask: Any, index: Any, **_: Any) -> Any:
    """The others' mean is the baseline."""
    found = ours.rloo_advantages(token_level_rewards.sum(-1), **groups(index))
    return spread(found, response_mask)


def reinforce_pp(token_level_rewards: Any, response_mask: Any, config: Any) -> Any:
    """The advantages are the whitened returns."""
    arrays, gamma = (token_level_rewards, response_mask), {"gamma": config.gamma}
    returns = ours.discounted_returns(*arrays, **gamma)
    return ours.reinforce_pp_advantages(*arrays, **gamma), returns


# Losses

KINDS = {"kl": "k1", "mse": "k2", "low_var_kl": "k3"}


def kl(logprob: Any, ref_logprob: Any, kl_penalty: str) -> Any:
    """A "+" is the gradient of k2."""
    name = kl_penalty.removesuffix("+")
    return ours.kl_penalty(
        logprob,
        ref_logprob,
        torch.ones_like(logprob),
        estimator=KINDS.get(name, name),
        gradient="k2" if kl_penalty.endswith("+") else None,
    )


def agg_loss(
    loss_mat: Any,
    loss_mask: Any,
    loss_agg_mode: str,
    dp_size: int = 1,
    batch_num_tokens: Any = None,
    global_batch_size: Any = None,
    loss_scale_factor: Any = None,
) -> Any:
    """Without totals theirs counts the rows at hand; ranks are averaged afterwards."""
    own = ours.batch_counts(loss_mask)
    total = counts(
        own.tokens if batch_num_tokens is None else batch_num_tokens,
        own.sequences if global_batch_size is None else global_batch_size,
    )
    given = loss_mat, loss_mask, total
    if loss_agg_mode == "token-mean":
        value = ours.token_mean(*given)
    elif loss_agg_mode == "token-sum":  # a mean over one
        value = ours.token_mean(loss_mat, loss_mask, counts())
    elif loss_agg_mode == "seq-mean-token-sum":
        value = ours.sequence_sum_mean(*given)
    elif loss_agg_mode == "seq-mean-token-sum-norm":
        length = loss_scale_factor or loss_mask.shape[-1]
        value = ours.fixed_length_mean(*given, length=length)
    else:
        value = ours.sequence_mean(*given)
    return value * dp_size


def value_loss(
    vpreds: Any,
    returns: Any,
    values: Any,
    response_mask: Any,
    cliprange_value: float,
    loss_agg_mode: str = "token-mean",
    **totals: Any,
) -> Any:
    """And the share of tokens where the clipped term is the larger."""
    arrays = vpreds, values, returns, response_mask
    tokens = ours.value_loss(*arrays, clip=cliprange_value)
    more = tokens > ours.value_loss(*arrays)
    share = masked_mean(more.float(), response_mask)
    return agg_loss(tokens, response_mask, loss_agg_mode, **totals), share


def ppo(
    old_log_prob: Any,
    log_prob: Any,
    advantages: Any,
    response_mask: Any,
    loss_agg_mode: str,
    config: Any,
    rollout_is_weights: Any = None,
) -> Any:
    """Two bounds and the dual clip."""
    tokens = ours.clipped_surrogate(
        log_prob,
        old_log_prob,
        advantages,
        response_mask,
        clip_low=config.clip_ratio_low,
        clip_high=config.clip_ratio_high,
        dual_clip=config.clip_ratio_c,
    )
    if rollout_is_weights is not None:
        tokens = tokens * rollout_is_weights
    totals = config.global_batch_info
    return agg_loss(tokens, response_mask, loss_agg_mode, **totals), {}


def dro(
    old_log_prob: Any,
    log_prob: Any,
    advantages: Any,
    response_mask: Any,
    loss_agg_mode: str,
    config: Any,
    rollout_is_weights: Any = None,
) -> Any:
    """A policy gradient and a pull to the old policy."""
    beta = config.policy_loss.dro_beta
    if beta is None:
        raise ValueError("dro_beta must be given, got None")
    tokens = ours.policy_gradient(log_prob, advantages, response_mask)
    pull = ours.log_ratio_pull(log_prob, old_log_prob, response_mask)
    totals = config.global_batch_info
    value = agg_loss(tokens + 0.5 * beta * pull, response_mask, loss_agg_mode, **totals)
    return value, {}


# Rollout correction


def masked_mean(values: Any, mask: Any, axis: Any = None) -> Any:
    """Over everything, or over the tokens of each row."""
    if axis is None:
        x, mask = values.reshape(1, -1), mask.reshape(1, -1)
        return ours.token_mean(x, mask, ours.batch_counts(mask))
    return ours.average_logprobs(values, mask)


def both(log_ratio: Any) -> Any:
    """Log-probs of trainer and sampler with this log-ratio."""
    return log_ratio, torch.zeros_like(log_ratio)


def weights(
    log_ratio: Any,
    response_mask: Any,
    rollout_is: str = "token",
    rollout_is_threshold: Any = 2.0,
    rollout_is_batch_normalize: bool = False,
) -> Any:
    """One number truncates, a pair of them sets to 0; the log's figures are theirs."""
    theirs = importlib.import_module(CORRECTION)
    high, low = theirs._parse_rollout_is_threshold(rollout_is_threshold)
    arrays, kind = (*both(log_ratio), response_mask), {"kind": rollout_is}
    raw = ours.importance_weights(*arrays, **kind, cap=1e30)
    if low is None:
        found = ours.importance_weights(*arrays, **kind, cap=high)
    else:
        found = ours.masked_importance_weights(*arrays, **kind, low=low, high=high)
    one = log_ratio
    if rollout_is == "sequence":
        one = ours.sequence_logprobs(log_ratio, response_mask)[:, None]
    metrics = theirs.compute_is_metrics(
        found, raw, one, response_mask, rollout_is, high, low
    )
    size = ours.effective_sample_size(found.clamp(max=high), response_mask)
    metrics["rollout_is_eff_sample_size"] = size.item()
    if low is not None:
        outside = ((raw < low) | (raw > high)).float()
        metrics["rollout_is_oob_ratio"] = masked_mean(outside, response_mask).item()
    return found, metrics


LEVELS = {
    "token": "token",
    "seq_sum": "sequence",
    "seq_mean": "geometric",
    "seq_max": "worst",
}


def rejection(
    log_ratio: Any, response_mask: Any, rollout_rs: str, rollout_rs_threshold: Any
) -> Any:
    """Every option has a say; the bounds of k1 are of mu / pi there, and turn round."""
    theirs = importlib.import_module(CORRECTION)
    options = [x.strip() for x in rollout_rs.split(",")]
    bounds = theirs._parse_rollout_rs_thresholds(options, rollout_rs_threshold)
    kept, metrics = response_mask > 0, {}
    for option in options:
        level, _, estimator = option.rpartition("_")
        low, high = bounds[option]["lower"], bounds[option]["upper"]
        if estimator == "k1":
            low, high = 1 / high, 1 / low
        passed = ours.rejection_mask(
            *both(log_ratio),
            response_mask,
            kind=LEVELS[level],
            estimator=estimator,
            low=low,
            high=high,
        )
        kept = kept & (passed if level == "token" else passed[:, None])
        tokens = ours.kl_penalty(*both(-log_ratio), response_mask, estimator=estimator)
        mean = masked_mean(tokens, response_mask)
        metrics[f"rollout_rs_{option}_mean"] = mean.item()
    lost = 1 - kept.float()
    metrics["rollout_rs_masked_fraction"] = masked_mean(lost, response_mask).item()
    return response_mask * kept, metrics


def mismatch(old_log_prob: Any, rollout_log_prob: Any, response_mask: Any) -> Any:
    """Theirs of each row are averages of log-probs; the rest is in our metrics."""

    def perplexities(logprobs: Any) -> Any:
        return -ours.average_logprobs(logprobs, response_mask)

    logs = perplexities(old_log_prob)
    found = {"training_log_ppl": logs.mean(), "training_ppl": logs.exp().mean()}
    if rollout_log_prob is not None:
        sampled = perplexities(rollout_log_prob)
        arrays = old_log_prob, rollout_log_prob, response_mask
        pairs = ours.mismatch_metrics(*arrays)
        means = {name: total / count for name, (total, count) in pairs.items()}
        product = ours.importance_weights(*arrays, kind="sequence", cap=1e30)
        gap = logs - sampled
        found |= {
            "kl": means["sampler_k1"],
            "k3_kl": means["sampler_k3"],
            "rollout_ppl": sampled.exp().mean(),
            "rollout_log_ppl": sampled.mean(),
            "log_ppl_diff": gap.mean(),
            "log_ppl_abs_diff": gap.abs().mean(),
            "log_ppl_diff_max": gap.max(),
            "log_ppl_diff_min": gap.min(),
            "ppl_ratio": means["sampler_perplexity_ratio"],
            "chi2_token": means["sampler_chi2"],
            "chi2_seq": product.amax(1).square().mean() - 1,
        }
    return {name: x.item() for name, x in found.items()}


def squares(logits: Any) -> Any:
    """Any number of axes; ours has three."""
    found = ours.sum_squared_probs(logits.reshape(1, -1, logits.shape[-1]))
    return found.reshape(logits.shape[:-1])
