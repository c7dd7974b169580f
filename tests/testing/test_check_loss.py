"""`check_loss` lets good losses pass and tells a faulty one which rule it breaks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import (
    cispo_loss,
    dapo_loss,
    dr_grpo_loss,
    grpo_loss,
    policy_gradient,
    ppo_loss,
    prompt_mean,
    token_mean,
)
from jaxrl_reason.testing import check_loss, random_arrays


def ratio_of(logprobs, old, mask):
    new, old = logprobs.astype(jnp.float32), old.astype(jnp.float32)
    log_ratio = jnp.where(mask, new - jax.lax.stop_gradient(old), 0.0)
    return jnp.exp(jnp.clip(log_ratio, -20.0, 20.0))


def plain(logprobs, old, advantages, mask, counts):
    """A loss that keeps every rule: the ratio times the advantage, unclipped."""
    advantages = jax.lax.stop_gradient(jnp.where(mask, advantages, 0.0))
    objective = -advantages.astype(jnp.float32) * ratio_of(logprobs, old, mask)
    return token_mean(objective, mask, counts), {}


def in_numpy(logprobs, old, advantages, mask):
    return (-advantages * np.exp(logprobs - old))[mask].mean()


def test_a_loss_that_keeps_the_rules_passes():
    check_loss(plain, reference=in_numpy)


@pytest.mark.parametrize(
    ("loss", "inputs"),
    [
        (dapo_loss, ["entropy"]),
        (partial(dr_grpo_loss, length=10.0), []),
        (grpo_loss, ["ref_logprobs", "weights"]),
        (partial(ppo_loss, entropy_coef=0.1, dual_clip=3.0), ["entropy"]),
    ],
)
def test_the_librarys_own_losses_pass(loss, inputs):
    check_loss(loss, inputs=inputs)


def own_denominator(logprobs, old, advantages, mask, counts):
    return plain(logprobs, old, advantages, mask, counts)[0] * (
        counts.tokens / jnp.maximum(mask.sum(), 1)
    ), {}


def padded_width(logprobs, old, advantages, mask, counts):
    total = plain(logprobs, old, advantages, mask, counts)[0] * counts.tokens
    return total / (counts.sequences * mask.shape[1]), {}


def first_row_weighs_more(logprobs, old, advantages, mask, counts):
    weights = jnp.ones(mask.shape).at[0].set(2.0) / 2.0
    return plain(logprobs, old, advantages * weights, mask, counts)


def unselected(logprobs, old, advantages, mask, counts):
    objective = -advantages * jnp.exp(logprobs - old)
    return (objective * mask).sum() / jnp.maximum(counts.tokens, 1), {}


def unbounded(logprobs, old, advantages, mask, counts):
    new, old = logprobs.astype(jnp.float32), old.astype(jnp.float32)
    log_ratio = jnp.where(mask, new - jax.lax.stop_gradient(old), 0.0)
    advantages = jax.lax.stop_gradient(jnp.where(mask, advantages, 0.0))
    return token_mean(-advantages * jnp.exp(log_ratio), mask, counts), {}


def empty_is_nan(logprobs, old, advantages, mask, counts):
    value, metrics = plain(logprobs, old, advantages, mask, counts)
    return value * counts.tokens / counts.tokens, metrics


def coarse(logprobs, old, advantages, mask, counts):
    log_ratio = jnp.where(mask, logprobs - jax.lax.stop_gradient(old), 0)
    ratio = jnp.exp(jnp.clip(log_ratio, -20, 20))
    advantages = jax.lax.stop_gradient(jnp.where(mask, advantages, 0))
    return token_mean(-advantages * ratio, mask, counts), {}


def old_has_a_gradient(logprobs, old, advantages, mask, counts):
    new, old = logprobs.astype(jnp.float32), old.astype(jnp.float32)
    log_ratio = jnp.where(mask, new - old, 0.0)
    advantages = jax.lax.stop_gradient(jnp.where(mask, advantages, 0.0))
    ratio = jnp.exp(jnp.clip(log_ratio, -20.0, 20.0))
    return token_mean(-advantages.astype(jnp.float32) * ratio, mask, counts), {}


MUTANTS = {
    own_denominator: "micro-batches: their parts must add up, got",
    padded_width: "padding columns and fully masked rows must change nothing",
    first_row_weighs_more: "micro-batches: their parts must add up",
    unselected: "must not be seen, got a gradient of nan for -?0 with nan under it",
    unbounded: "log-ratios of .-100 and .-1e4 must stay finite",
    empty_is_nan: "an empty mask must give 0, got nan",
    coarse: "bfloat16 must be computed in float32",
    old_has_a_gradient: "must have no gradient, got one of old_logprobs",
}


@pytest.mark.parametrize("loss", MUTANTS, ids=lambda f: f.__name__)
def test_a_faulty_loss_hears_which_rule_it_breaks(loss):
    with pytest.raises(AssertionError, match=MUTANTS[loss]):
        check_loss(loss)


def test_the_order_of_rows_is_looked_at():
    def by_parity(logprobs, old, advantages, mask, counts, *, group_ids, num_groups):
        # Even groups count double: group names matter, micro-batches do not.
        weights = jnp.where(group_ids % 2 == 0, 2.0, 1.0)[:, None]
        objective = policy_gradient(logprobs, advantages, mask) * weights
        return (
            prompt_mean(objective, mask, group_ids, counts, num_groups=num_groups),
            {},
        )

    with pytest.raises(AssertionError, match="names of groups must not matter"):
        check_loss(by_parity, inputs=["group_ids"])


def test_a_wrong_value_and_a_wrong_gradient_are_told_apart():
    rule = "value and gradient must be the reference's"
    with pytest.raises(AssertionError, match=f"{rule}, got -?[0-9]"):
        check_loss(plain, reference=lambda *arrays: 2.0 * in_numpy(*arrays))

    def twice_as_steep(logprobs, old, advantages, mask, counts):
        value, metrics = plain(logprobs, old, advantages, mask, counts)
        return 2.0 * value - jax.lax.stop_gradient(value), metrics

    with pytest.raises(AssertionError, match=f"{rule}, got a gradient of"):
        check_loss(twice_as_steep, reference=in_numpy)


def test_a_reference_may_give_the_gradient_itself():
    def with_slope(logprobs, old, advantages, mask):
        ratio = np.exp(logprobs - old)
        slope = np.where(mask, -advantages * np.minimum(ratio, 2.0), 0.0) / mask.sum()
        return (slope * logprobs).sum(), slope

    loss = partial(cispo_loss, ratio_high=2.0)
    check_loss(loss, inputs=[], reference=with_slope)
    with pytest.raises(AssertionError, match="got a gradient of"):
        check_loss(loss, inputs=[], reference=lambda *x: with_slope(*x)[0])


def test_an_unknown_input_is_refused():
    with pytest.raises(
        ValueError, match=r"inputs must be among entropy.* got 'reward'"
    ):
        check_loss(plain, inputs=["reward"])


def test_a_setting_without_a_value_is_named():
    with pytest.raises(ValueError, match=r"or be bound .* got length"):
        check_loss(dr_grpo_loss)


def test_a_law_may_be_broken_on_purpose():
    def upwards(logprobs, old, advantages, mask, counts):
        return plain(logprobs, old, jnp.maximum(advantages, 0.0), mask, counts)

    with pytest.raises(AssertionError, match=r"^signal: at ratio 1 every token"):
        check_loss(upwards)
    check_loss(upwards, skip=["signal"])
    with pytest.raises(ValueError, match=r"skip must be .* form, .* got 'sing'"):
        check_loss(upwards, skip=["sing"])


def test_inputs_are_those_that_a_loss_names():
    def taught(logprobs, old, advantages, mask, counts, *, teacher_logprobs, coef=0.1):
        value, metrics = plain(logprobs, old, advantages, mask, counts)
        new = jnp.where(mask, logprobs - jax.lax.stop_gradient(teacher_logprobs), 0.0)
        square = jnp.square(new.astype(jnp.float32))
        return value + coef * token_mean(square, mask.astype(bool), counts), metrics

    check_loss(partial(taught, coef=0.0))
    with pytest.raises(AssertionError, match=r"^bfloat16: "):
        check_loss(taught)


def test_the_arrays_are_worth_checking_on():
    arrays = random_arrays(0)
    ratio = np.exp(arrays["logprobs"] - arrays["old_logprobs"])[arrays["mask"]]
    assert (ratio > 1.28).any()
    assert (ratio < 0.8).any()
    assert not arrays["mask"].any(axis=1).all()
