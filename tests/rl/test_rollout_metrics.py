import dataclasses

import numpy as np
import pytest

from jaxrl_reason.rl.collect import Collected, rollout_metrics
from jaxrl_reason.rl.iteration import probability_metrics
from jaxrl_reason.rl.method import Experience
from tests.rl.helpers import fake_rollouts


def collected(fresh, surplus=None, accepted=1):
    batch = fresh.select(slice(0, 1))
    return Collected(batch, fresh, surplus, rounds=3, accepted=accepted)


def test_rollout_metrics_by_hand():
    fresh = fake_rollouts(
        [[1, 0], [1, 1], [0, 0], [0, 0]],
        lengths=[[2, 6], [3, 1], [4, 6], [5, 5]],
        truncated=[[0, 1], [0, 0], [0, 1], [0, 0]],
    )
    fresh = dataclasses.replace(
        fresh,
        rewards=np.array([[1, -2], [1, 1], [-1, -2], [-1, -1]], np.float32),
        format_ok=np.array([[1, 0], [1, 1], [1, 0], [1, 0]], bool),
        failed=np.array([[0, 0], [0, 0], [0, 0], [0, 1]], bool),
        unchecked=np.array([[0, 1], [0, 0], [1, 0], [0, 0]], bool),
    )
    row = rollout_metrics(collected(fresh, surplus=fresh.select(slice(1, 3))))
    assert row == pytest.approx(
        {
            "reward/mean": -0.5,
            "reward/accuracy": 3 / 7,
            "reward/format_fraction": 5 / 8,
            "reward/grader_failed_fraction": 1 / 8,
            "reward/unchecked_fraction": 2 / 8,
            "rollout/length_mean": 4,
            "rollout/length_max": 6,
            "rollout/length_correct": 2,
            "rollout/length_wrong": 21 / 4,
            "rollout/truncated_fraction": 1 / 4,
            "groups/all_correct_fraction": 1 / 4,
            "groups/all_wrong_fraction": 1 / 2,
            "groups/equal_rewards_fraction": 1 / 2,
            "groups/sampled": 4,
            "groups/accepted": 1,
            "groups/accepted_fraction": 1 / 4,
            "groups/surplus": 2,
            "groups/rounds": 3,
        }
    )
    assert all(type(value) is float for value in row.values())


@pytest.mark.parametrize(("grade", "absent"), [(1, "wrong"), (0, "correct")])
def test_what_did_not_occur_is_left_out(grade, absent):
    row = rollout_metrics(collected(fake_rollouts([[grade] * 4])))
    assert f"length_{absent}" not in row
    assert row["groups/surplus"] == 0


def sampler_metrics(old, sampler, mask, *, step=0):
    """What a step's row says of the sampler of groups of one, sampled in step 0."""
    n = len(mask)
    x = Experience(
        rewards=np.zeros(n),
        lengths=mask.sum(axis=1),
        truncated=np.zeros(n, bool),
        mask=mask,
        group_ids=np.arange(n),
        old_logprobs=old,
        num_groups=n,
        inputs={"sampler_logprobs": sampler},
    )
    row = probability_metrics(x, fake_rollouts([[1]] * n), step, mismatch=True)
    assert row["rollout/policy_lag"] == step
    return {name: x for name, x in row.items() if name.startswith("sampler/")}


def test_mismatch_by_hand():
    sampler = np.array([[-1.0, -2.0, 99.0]], np.float32)
    trainer = np.array([[-1.5, -1.0, -99.0]], np.float32)
    mask = np.array([[True, True, False]])
    row = sampler_metrics(trainer, sampler, mask)
    d = np.array([0.5, -1.0])
    u = np.exp(-d)
    assert row == pytest.approx(
        {
            "sampler/logprob_diff_mean": 0.75,
            "sampler/logprob_diff_max": 1.0,
            "sampler/kl_k1": -0.25,
            "sampler/kl_k3": np.mean(u - 1 + d),
            "sampler/ess_fraction": u.sum() ** 2 / (u**2).sum() / 2,
        }
    )


def test_agreement_and_disagreement_have_their_ends():
    x = -np.ones((2, 3), np.float32)
    mask = np.ones((2, 3), bool)
    same = sampler_metrics(x, x, mask)
    assert (
        same["sampler/logprob_diff_max"],
        same["sampler/kl_k3"],
        same["sampler/ess_fraction"],
    ) == (
        0,
        0,
        1,
    )
    far = sampler_metrics(x - 1000, x, mask)
    assert all(np.isfinite(value) for value in far.values())
    assert sampler_metrics(x, x, mask, step=1) == {}
