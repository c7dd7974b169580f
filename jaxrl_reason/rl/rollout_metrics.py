"""What a batch of rollouts says about the run (host side, NumPy)."""

import numpy as np

from jaxrl_reason.rl.collect import Collected
from jaxrl_reason.runs.metrics import Row


def rollout_metrics(collected: Collected) -> Row:
    """Rewards, lengths and group shares over all fresh samples, before the filter.

    Right and wrong are shares of the responses that could be judged.
    """
    fresh = collected.fresh
    wrong = ~fresh.correct & ~fresh.failed
    judged = ~fresh.failed.all(axis=1)
    row = {
        "reward_mean": fresh.rewards.mean(),
        "accuracy": fresh.correct.sum() / max(1, (~fresh.failed).sum()),
        "format_rate": fresh.format_ok.mean(),
        "grader_failed_share": fresh.failed.mean(),
        "length_mean": fresh.lengths.mean(),
        "length_max": fresh.lengths.max(),
        "truncated_share": fresh.truncated.mean(),
        "groups_all_right": (~wrong.any(axis=1) & judged).mean(),
        "groups_all_wrong": (~fresh.correct.any(axis=1) & judged).mean(),
        "groups_generated": fresh.num_prompts,
        "groups_accepted": collected.accepted,
        "accepted_share": collected.accepted / fresh.num_prompts,
        "groups_surplus": collected.surplus.num_prompts if collected.surplus else 0,
        "rounds": collected.rounds,
    }
    for name, kind in (
        ("length_correct", fresh.correct),
        ("length_wrong", wrong),
    ):
        if kind.any():
            row[name] = fresh.lengths[kind].mean()
    return {name: float(value) for name, value in row.items()}


def mismatch_metrics(
    sampler_logprobs: np.ndarray, old_logprobs: np.ndarray, mask: np.ndarray
) -> Row:
    """How far the sampler's log-probs are from the trainer's, [N, T] each.

    With d = sampler - trainer on the tokens sampled: mean and largest |d|; k1 = mean d
    and k3 = mean(exp(-d) - 1 + d), which estimate KL(sampler, trainer); the effective
    sample size 1 / mean((u / mean u)^2) of the weights u = exp(-d), 1 when they agree.
    """
    if not mask.any():
        return {}
    d = (sampler_logprobs - old_logprobs)[mask].astype(np.float64)
    u = np.exp(np.clip(-d, -20, 20))
    return {
        "sampler_diff_mean": float(np.abs(d).mean()),
        "sampler_diff_max": float(np.abs(d).max()),
        "sampler_k1": float(d.mean()),
        "sampler_k3": float((np.expm1(np.clip(-d, -20, 20)) + d).mean()),
        "sampler_ess": float(1.0 / ((u / u.mean()) ** 2).mean()),
    }
