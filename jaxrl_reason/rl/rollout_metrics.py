"""What a batch of rollouts says about the run (host side, NumPy)."""

import numpy as np

from jaxrl_reason.rl.collect import Collected
from jaxrl_reason.runs.metrics import Row


def rollout_metrics(collected: Collected) -> Row:
    """Rewards, lengths and group fractions over all fresh samples, before the filter.

    Right and wrong are fractions of the responses that could be judged.
    """
    fresh = collected.fresh
    wrong = ~fresh.correct & ~fresh.failed
    judged = ~fresh.failed.all(axis=1)
    row = {
        "reward/mean": fresh.rewards.mean(),
        "reward/accuracy": fresh.correct.sum() / max(1, (~fresh.failed).sum()),
        "reward/format_fraction": fresh.format_ok.mean(),
        "reward/grader_failed_fraction": fresh.failed.mean(),
        "rollout/length_mean": fresh.lengths.mean(),
        "rollout/length_max": fresh.lengths.max(),
        "rollout/truncated_fraction": fresh.truncated.mean(),
        "groups/all_correct_fraction": (~wrong.any(axis=1) & judged).mean(),
        "groups/all_wrong_fraction": (~fresh.correct.any(axis=1) & judged).mean(),
        "groups/sampled": fresh.num_prompts,
        "groups/accepted": collected.accepted,
        "groups/accepted_fraction": collected.accepted / fresh.num_prompts,
        "groups/surplus": collected.surplus.num_prompts if collected.surplus else 0,
        "groups/rounds": collected.rounds,
    }
    for name, kind in (
        ("rollout/length_correct", fresh.correct),
        ("rollout/length_wrong", wrong),
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
        "sampler/logprob_diff_mean": float(np.abs(d).mean()),
        "sampler/logprob_diff_max": float(np.abs(d).max()),
        "sampler/kl_k1": float(d.mean()),
        "sampler/kl_k3": float((np.expm1(np.clip(-d, -20, 20)) + d).mean()),
        "sampler/ess_fraction": float(1.0 / ((u / u.mean()) ** 2).mean()),
    }
