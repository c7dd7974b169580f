"""What each switch of each method changes, and that it changes nothing else."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import batch_counts
from jaxrl_reason.rl.method import Experience, Method, grouped, groups_with_signal
from jaxrl_reason.rl.recipes.dapo import DapoSettings, dapo
from jaxrl_reason.rl.recipes.dr_grpo import dr_grpo
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.recipes.ppo import ppo
from jaxrl_reason.rl.rollouts import (
    binary_accuracy,
    signed_accuracy,
    with_format_reward,
)
from tests.rl.helpers import fake_rollouts

MAX = 20
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)


def build(**switches):
    return dapo(DapoSettings(**switches), max_new_tokens=MAX)


def loss_of(method, ratios, advantages, mask=MASK, **extra):
    """Value and gradient of a method's loss at given ratios [B, T]."""
    old = jnp.full(mask.shape, -1.0)
    logprobs = old + jnp.log(jnp.asarray(ratios))
    counts = batch_counts(mask)
    if "entropy" in method.loss_inputs:
        extra["entropy"] = jnp.ones(mask.shape)
    return jax.value_and_grad(
        lambda x: method.loss(x, old, jnp.asarray(advantages), mask, counts, **extra)[0]
    )(logprobs)


@pytest.mark.parametrize(
    ("switches", "high", "low"),
    [
        ({}, 1.28, 0.8),
        ({"clip_high": 0.2}, 1.2, 0.8),
        ({"clip_low": 0.4}, 1.28, 0.6),
    ],
)
def test_the_clip_bounds_reach_the_loss_and_its_gradient(switches, high, low):
    ratios = np.array([[1.25, 1.5, 0.7, 0.5], [1.25, 0.7, 1.0, 1.0]], np.float32)
    advantages = np.array([[1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 9.0, 9.0]], np.float32)
    value, grads = loss_of(build(**switches), ratios, advantages)
    up, down = advantages > 0, advantages < 0
    clipped = np.where(up, np.minimum(ratios, high), np.maximum(ratios, low))
    np.testing.assert_allclose(value, np.mean((-advantages * clipped)[MASK]), rtol=1e-6)
    acts = (up & (ratios > high)) | (down & (ratios < low))
    wanted = np.where(MASK & ~acts, -advantages * ratios / MASK.sum(), 0.0)
    np.testing.assert_allclose(grads, wanted, rtol=1e-5, atol=1e-7)


def test_token_level_loss_switches_the_reduction():
    advantages = np.array([[1.0] * 4, [-3.0] * 4], np.float32)
    ones = np.ones((2, 4), np.float32)
    by_token, grad = loss_of(build(), ones, advantages)
    by_sequence, other = loss_of(build(token_level_loss=False), ones, advantages)
    # Tokens: (4 * -1 + 2 * 3) / 6. Sequences: (-1 + 3) / 2.
    np.testing.assert_allclose([by_token, by_sequence], [1 / 3, 1.0], rtol=1e-6)
    np.testing.assert_allclose(grad[:, 0], [-1 / 6, 3 / 6], rtol=1e-6)
    np.testing.assert_allclose(other[:, 0], [-1 / 8, 3 / 4], rtol=1e-6)


def test_without_the_token_level_loss_the_clip_stays_decoupled():
    ratios = np.full((2, 4), 1.25, np.float32)
    _, grads = loss_of(build(token_level_loss=False), ratios, np.ones((2, 4)))
    assert (np.asarray(grads)[MASK] != 0).all()
    plain = build(token_level_loss=False, clip_high=0.2)
    _, grads = loss_of(plain, ratios, np.ones((2, 4)))
    assert not np.asarray(grads).any()


def test_the_soft_penalty_counts_tokens_and_ends_at_minus_one():
    lengths = np.array([[16, 17, 18, 20]])
    rollouts = fake_rollouts([[1, 1, 0, 0]], lengths=lengths, width=MAX)
    rewards = build(overlong_cache=4).rewards(rollouts)
    np.testing.assert_allclose(rewards, [[1.0, 0.75, -1.5, -2.0]], rtol=1e-6)
    # Beyond the limit there is nothing, but the floor holds there too (trap 25).
    far = dataclasses.replace(rollouts, lengths=lengths + 100)
    rewards = build(overlong_cache=4).rewards(far)
    np.testing.assert_allclose(rewards, [[0.0, 0.0, -2.0, -2.0]], rtol=1e-6)


def test_lengths_in_characters_would_punish_other_responses():
    # Trap 25, kept as a mutant: the text of 10 tokens may have 40 characters.
    rollouts = fake_rollouts([[1, 1]], lengths=[[10, 10]], width=MAX)
    text = " ".join(["123"] * 10)
    method = build(overlong_cache=4)
    assert method.rewards(rollouts).tolist() == [[1, 1]]
    mutant = dataclasses.replace(rollouts, lengths=np.full((1, 2), len(text)))
    assert method.rewards(mutant).tolist() == [[0, 0]]


def test_without_the_soft_penalty_rewards_are_the_accuracy():
    rollouts = fake_rollouts([[1, 0]], lengths=[[MAX, MAX]], width=MAX)
    assert build(soft_overlong=False).rewards(rollouts).tolist() == [[1, -1]]
    assert signed_accuracy(rollouts).dtype == np.float32
    assert binary_accuracy(rollouts).tolist() == [[1, 0]]


def test_the_format_reward_is_added_to_any_other():
    rollouts = fake_rollouts([[1, 0]])
    rollouts = dataclasses.replace(rollouts, format_ok=np.array([[True, False]]))
    rewards = with_format_reward(binary_accuracy, 0.25)(rollouts)
    assert rewards.tolist() == [[1.25, 0]]
    assert rewards.dtype == np.float32


@pytest.mark.parametrize("name", ["dynamic_sampling", "overlong_filtering"])
def test_switches_of_the_loop_stand_on_the_method(name):
    field = {"overlong_filtering": "loss_rows"}.get(name, name)
    for on in (True, False):
        assert (getattr(build(**{name: on}), field) is not None) is on
    assert build().dynamic_sampling
    assert build().loss_rows is None
    rollouts = fake_rollouts([[1, 0]], truncated=[[True, False]])
    kept = build(overlong_filtering=True).loss_rows(rollouts)
    assert kept.tolist() == [[False, True]]


def test_dapo_needs_no_reference_and_no_critic():
    assert not build().uses_reference
    assert build().components == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clip_low": -0.1}, "clip_low must be >= 0, got -0.1"),
        ({"clip_high": float("nan")}, "clip_high must be >= 0, got nan"),
        ({"overlong_cache": 0}, "overlong_cache must be >= 1, got 0"),
    ],
)
def test_dapo_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        DapoSettings(**settings)


def test_the_overlong_cache_is_shorter_than_the_response():
    for cache in (20, 21):
        said = rf"below the length limit \(20 tokens\), got {cache}"
        with pytest.raises(ValueError, match=said):
            build(overlong_cache=cache)
    assert build(overlong_cache=21, soft_overlong=False).rewards is signed_accuracy


def test_groups_with_signal_are_neither_all_right_nor_all_wrong():
    correct = np.array([[1, 1, 1], [0, 0, 0], [1, 0, 0], [1, 1, 0]], bool)
    rollouts = fake_rollouts(correct)
    assert groups_with_signal(rollouts).tolist() == [False, False, True, True]
    # What could not be judged is not wrong: the third group has no right answer left
    # beside its failed one, the fourth no wrong one.
    failed = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 0, 1]], bool)
    unclear = dataclasses.replace(rollouts, correct=correct & ~failed, failed=failed)
    assert not groups_with_signal(unclear).any()


def test_grpo_keeps_a_reference_only_for_a_kl_term():
    # Trap 23.
    assert grpo().uses_reference
    assert "ref_logprobs" in grpo(kl_coef=0.1).loss_inputs
    assert not grpo(kl_coef=0).uses_reference
    assert "ref_logprobs" not in grpo(kl_coef=0).loss_inputs


def test_grpo_weighs_sequences_alike_and_adds_its_kl():
    ones, advantages = np.ones((2, 4), np.float32), np.array([[1.0] * 4, [-3.0] * 4])
    reference = jnp.full((2, 4), -1.5)  # d = 0.5
    value, grads = loss_of(grpo(kl_coef=0.1), ones, advantages, ref_logprobs=reference)
    kl = np.exp(-0.5) - 1 + 0.5
    np.testing.assert_allclose(value, 1.0 + 0.1 * kl, rtol=1e-6)
    slope = 0.1 * (1 - np.exp(-0.5)) / 8
    np.testing.assert_allclose(grads[0, 0], -1 / 8 + slope, rtol=1e-5)
    plain, _ = loss_of(grpo(kl_coef=0), ones, advantages)
    np.testing.assert_allclose(plain, 1.0, rtol=1e-6)


def test_dr_grpo_divides_by_a_constant_and_not_by_the_std():
    ones, advantages = np.ones((2, 4), np.float32), np.array([[1.0] * 4, [-3.0] * 4])
    value, _ = loss_of(dr_grpo(length=10), ones, advantages)
    np.testing.assert_allclose(value, (-4 + 6) / 10 / 2, rtol=1e-6)
    estimate = dr_grpo(length=10).advantages(experience([1.0, 0.0, 0.0, 0.0], [0] * 4))
    np.testing.assert_allclose(estimate.advantages, [0.75, -0.25, -0.25, -0.25])
    assert not dr_grpo(length=10).uses_reference


CORE = {"lengths", "truncated", "mask", "old_logprobs"}


def experience(rewards, group_ids, **fields):
    b = len(rewards)
    given = {
        "lengths": np.full(b, 2),
        "mask": np.ones((b, 2), bool),
        "old_logprobs": np.zeros((b, 2), np.float32),
        "truncated": np.zeros(b, bool),
        **{name: fields.pop(name) for name in CORE & fields.keys()},
    }
    return Experience(
        rewards=np.array(rewards, np.float32),
        group_ids=np.array(group_ids),
        num_groups=max(group_ids) + 1,
        inputs=fields,
        **given,
    )


def test_grouped_hands_rewards_and_groups_to_an_estimator():
    seen = {}

    def estimator(rewards, group_ids, *, num_groups):
        seen.update(rewards=rewards, ids=group_ids, num_groups=num_groups)
        return rewards * 2

    estimate = grouped(estimator)(experience([1.0, 3.0], [0, 1]))
    assert estimate.advantages.tolist() == [2, 6]
    assert estimate.returns is None
    assert seen["ids"].tolist() == [0, 1]
    assert seen["num_groups"] == 2


def ppo_experience():
    return experience(
        [1.0, -1.0],
        [0, 0],
        values=np.array([[0.5, 0.2], [0.0, -0.4]], np.float32),
        old_logprobs=np.array([[-1.0, -2.0], [-1.0, -1.0]], np.float32),
        ref_logprobs=np.array([[-1.5, -2.0], [-1.0, -0.5]], np.float32),
    )


def test_ppo_takes_its_advantages_from_the_critic():
    estimate = ppo().advantages(ppo_experience())
    # gamma = lambda = 1: the return of every token is the sequence's reward.
    np.testing.assert_allclose(estimate.returns, [[1, 1], [-1, -1]], rtol=1e-6)
    raw = np.array([[0.5, 0.8], [-1.0, -0.6]])
    wanted = (raw - raw.mean()) / raw.std(ddof=1)
    np.testing.assert_allclose(estimate.advantages, wanted, rtol=1e-5)


def test_gamma_and_lambda_reach_the_advantages():
    estimate = ppo(gamma=0.9, lam=0.5).advantages(ppo_experience())
    last = np.array([1 - 0.2, -1 + 0.4])
    first = np.array([0.9 * 0.2 - 0.5, 0.9 * -0.4]) + 0.45 * last
    raw = np.stack([first, last], 1)
    np.testing.assert_allclose(
        estimate.returns, raw + ppo_experience()["values"], rtol=1e-5, atol=1e-6
    )
    wanted = (raw - raw.mean()) / raw.std(ddof=1)
    np.testing.assert_allclose(estimate.advantages, wanted, rtol=1e-5)


def test_the_kl_of_ppo_is_a_reward_of_every_token():
    assert not ppo().uses_reference
    method = ppo(kl_coef=0.1)
    assert method.uses_reference
    assert "ref_logprobs" not in method.loss_inputs  # the loss has no use for it
    estimate = method.advantages(ppo_experience())
    # Rewards less 0.1 (old - ref): [-0.05, 1], [0, -1 + 0.05], summed to the end.
    wanted = [[0.95, 1.0], [-0.95, -0.95]]
    np.testing.assert_allclose(estimate.returns, wanted, rtol=1e-5)


def value_loss_of(method):
    (critic,) = method.components
    return critic.value_loss


def test_the_value_loss_of_ppo_is_clipped():
    x = (jnp.array([[1.2]]), jnp.array([[0.5]]), jnp.ones((1, 1)), jnp.ones((1, 1)))
    np.testing.assert_allclose(
        value_loss_of(ppo(value_clip=0.5))(*x), [[0.02]], rtol=1e-5
    )
    clipped = value_loss_of(ppo(value_clip=0.2))(*x)  # 0.7 in place of 1.2
    np.testing.assert_allclose(clipped, [[0.045]], rtol=1e-5)
    assert float(value_loss_of(ppo(value_clip=None))(*x)[0, 0]) == pytest.approx(0.02)


def test_a_method_names_what_its_loss_is_handed():
    with pytest.raises(ValueError, match=r"must be among .*, got 'values'"):
        Method("mine", lambda *x: None, partial(print), loss_inputs=("values",))
