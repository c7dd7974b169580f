"""What a batch of rollouts says about the run (host side, NumPy)."""

import numpy as np

from jaxrl_reason.losses import mismatch_metrics, mismatch_peaks
from jaxrl_reason.rl.collect import Collected
from jaxrl_reason.rl.method import Experience
from jaxrl_reason.rl.rollouts import Rollouts
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


def probability_metrics(
    experience: Experience, rollouts: Rollouts, step: int, *, mismatch: bool
) -> Row:
    """What the old log-probs say of the policy, and of the sampler.

    `entropy_sampled` is the mean of -log p over the tokens of the batch, an estimate of
    the entropy that needs no pass over the vocabulary; `reference_kl_k1` the mean of
    old minus reference log-prob. The sampler's mismatch is of the groups sampled in
    this step: those of an earlier one were sampled with other parameters.
    """
    mask, old = np.asarray(experience.mask), np.asarray(experience.old_logprobs)
    row = {
        "policy/entropy_sampled": float(-old[mask].mean()),
        "rollout/policy_lag": float((step - rollouts.policy_step).mean()),
    }
    if "ref_logprobs" in experience.inputs:
        minus_ref = (old - experience["ref_logprobs"])[mask]
        row["policy/reference_kl_k1"] = float(minus_ref.mean())
    if mismatch:
        fresh = np.repeat(rollouts.policy_step == step, rollouts.group_size)[:, None]
        sampler = np.asarray(experience["sampler_logprobs"])
        row |= sampler_metrics(old, sampler, mask & fresh)
    return row


def sampler_metrics(
    old_logprobs: np.ndarray, sampler_logprobs: np.ndarray, mask: np.ndarray
) -> Row:
    """How far the sampler's log-probs are from the trainer's, [N, T] each.

    The means of `losses.mismatch_metrics` and the largest difference; the effective
    sample size mean(u)^2 / mean(u^2) of the weights u = old / sampler, 1 when they
    agree.
    """
    if not mask.any():
        return {}
    pairs = mismatch_metrics(old_logprobs, sampler_logprobs, mask)
    mean = {name: float(total / count) for name, (total, count) in pairs.items()}
    peaks = mismatch_peaks(old_logprobs, sampler_logprobs, mask)
    return {
        "sampler/logprob_diff_mean": mean["sampler_diff"],
        "sampler/logprob_diff_max": float(peaks["sampler_diff_max"]),
        "sampler/kl_k1": mean["sampler_k1"],
        "sampler/kl_k3": mean["sampler_k3"],
        "sampler/ess_fraction": mean["sampler_weight"] ** 2
        / mean["sampler_weight_square"],
    }
