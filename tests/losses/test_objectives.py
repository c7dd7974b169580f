"""The clipped surrogate, REINFORCE and the metrics that go with them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import (
    batch_counts,
    clipped_surrogate,
    masked_total,
    policy_gradient,
    policy_metrics,
    token_mean,
)
from tests.losses.worked import ADVANTAGES, EXAMPLES, MASK, NEW, OLD, close

ARRAYS = (NEW, OLD, ADVANTAGES, MASK)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({}, "ppo.tok"),
        ({"dual_clip": 3.0}, "ppo.tok_dual"),
        ({"clip_high": 0.28, "dual_clip": 10.0}, "dapo.tok"),
    ],
)
def test_worked_tokens(settings: dict[str, float], key: str) -> None:
    close(clipped_surrogate(*ARRAYS, **settings), EXAMPLES[key])


def test_worked_gradient() -> None:
    counts = batch_counts(MASK)
    loss = lambda x: token_mean(clipped_surrogate(x, *ARRAYS[1:]), MASK, counts)  # noqa: E731
    close(jax.grad(loss)(NEW.astype(np.float32)), EXAMPLES["ppo.dtok"])


def test_advantages_of_a_sequence_are_broadcast_to_its_tokens() -> None:
    per_token = np.repeat(ADVANTAGES[:, None], 4, 1)
    close(
        clipped_surrogate(NEW, OLD, per_token, MASK),
        clipped_surrogate(NEW, OLD, ADVANTAGES, MASK),
    )


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.5, 4.0])
@pytest.mark.parametrize("advantage", [2.0, -2.0])
@pytest.mark.parametrize("dual", [None, 3.0])
def test_table(ratio: float, advantage: float, dual: float | None) -> None:
    """Advantage of either sign, ratio below, inside, above, far above."""
    clipped = (advantage > 0 and ratio > 1.2) or (advantage < 0 and ratio < 0.8)
    bounded = min(max(ratio, 0.8), 1.2) if clipped else ratio
    if dual is not None and advantage < 0 and ratio > dual:
        clipped, bounded = True, dual
    value, grad = jax.value_and_grad(
        lambda x: clipped_surrogate(
            x[None, None],
            np.zeros((1, 1)),
            np.array([advantage]),
            [[1]],
            dual_clip=dual,
        ).sum()
    )(np.float32(np.log(ratio)))
    close(value, -advantage * bounded)
    close(grad, 0.0 if clipped else -advantage * ratio)


def test_at_the_start_of_the_update_it_is_reinforce() -> None:
    for settings in ({}, {"clip_low": 0.0, "clip_high": 0.0}):
        found, expected = (
            jax.grad(lambda x, f=f: f(x).sum())(OLD.astype(np.float32))
            for f in (
                lambda x, s=settings: clipped_surrogate(x, OLD, ADVANTAGES, MASK, **s),
                lambda x: policy_gradient(x, ADVANTAGES, MASK),
            )
        )
        close(found, expected)


def test_a_wide_bound_turns_the_clip_off() -> None:
    # DeepSeek-R1's eps = 10: the lower bound is below 0, the upper one 11.
    ratio = np.exp(NEW - OLD)
    found = clipped_surrogate(*ARRAYS, clip_low=10.0, clip_high=10.0)
    expected = -np.where(MASK, ADVANTAGES[:, None] * ratio, 0)
    close(found, expected)


def test_bounds_may_be_traced() -> None:
    traced = jax.jit(
        lambda low, high: clipped_surrogate(*ARRAYS, clip_low=low, clip_high=high)
    )
    close(traced(0.2, 0.2), EXAMPLES["ppo.tok"])


def test_a_nan_inside_the_mask_is_not_hidden() -> None:
    new = NEW.copy()
    new[0, 0] = np.nan
    assert np.isnan(clipped_surrogate(new, *ARRAYS[1:])).sum() == 1


def test_worked_policy_gradient() -> None:
    loss = token_mean(policy_gradient(NEW, ADVANTAGES, MASK), MASK, batch_counts(MASK))
    close(loss, EXAMPLES["gpg.loss"])


def test_worked_metrics() -> None:
    means = {
        name: float(total / count)
        for name, (total, count) in policy_metrics(*ARRAYS, dual_clip=3.0).items()
    }
    close(means["approx_kl_k1"], EXAMPLES["ppo.kl"])
    close(means["clip_frac_low"] + means["clip_frac_high"], EXAMPLES["ppo.clipfrac"])
    close(means["clip_frac_dual"], EXAMPLES["ppo.dualfrac"])
    ratio = np.array(EXAMPLES["fx.ratio"])[MASK > 0]
    close(means["ratio"], ratio.mean())
    close(means["approx_kl_k3"], (ratio - 1 - np.log(ratio)).mean())
    dapo = policy_metrics(*ARRAYS, clip_high=0.28)
    assert "clip_frac_dual" not in dapo
    close(dapo["clip_frac_high"][0] / 10, EXAMPLES["dapo.clip_high"])
    close(dapo["clip_frac_low"][0] / 10, EXAMPLES["dapo.clip_low"])


def test_metrics_on_policy_are_at_rest() -> None:
    metrics = policy_metrics(OLD, OLD, ADVANTAGES, MASK)
    totals = {name: float(total) for name, (total, _) in metrics.items()}
    assert totals.pop("ratio") == 10
    assert set(totals.values()) == {0.0}


def test_metrics_add_up_and_have_no_gradient() -> None:
    whole = policy_metrics(*ARRAYS)
    parts = [policy_metrics(*(x[i : i + 2] for x in ARRAYS)) for i in (0, 2)]
    for name, pair in whole.items():
        for k in (0, 1):
            close(parts[0][name][k] + parts[1][name][k], pair[k])
    empty = policy_metrics(*ARRAYS[:3], np.zeros_like(MASK))
    assert all(total == 0 and count == 0 for total, count in empty.values())
    grad = jax.grad(
        lambda x: sum(p[0] for p in policy_metrics(x, *ARRAYS[1:]).values())
    )
    assert (grad(NEW.astype(np.float32)) == 0).all()


def test_masked_total_takes_flags_and_garbage() -> None:
    flags = np.array([[True, False, True]])
    assert [float(x) for x in masked_total(flags, np.array([[1, 1, 0]]))] == [1, 2]
    garbage = np.array([[2.0, np.nan, np.inf]])
    assert [float(x) for x in masked_total(garbage, np.array([[1, 0, 0]]))] == [2, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip_low": -0.1}, "clip_low must be finite and >= 0, got -0.1"),
        ({"clip_high": np.inf}, "clip_high must be finite and >= 0, got inf"),
        ({"clip_high": np.nan}, "clip_high must be finite and >= 0, got nan"),
        ({"clip_high": None}, "clip_high must be finite and >= 0, got None"),
        ({"dual_clip": 1.0}, "dual_clip must be finite and > 1, got 1.0"),
        ({"old_logprobs": OLD[:2]}, r"old_logprobs \[2, 4\]"),
        ({"old_logprobs": OLD.astype(int)}, "old_logprobs must be a floating array"),
        ({"logprobs": NEW.astype(int)}, "logprobs must be a floating array, got int"),
        ({"advantages": ADVANTAGES[:3]}, r"shape \[4, 4\] like the mask or \[4\]"),
        ({"advantages": ADVANTAGES[:, None]}, r"got \[4, 1\]"),
        ({"advantages": np.float32(1)}, r"got \[\]"),
        ({"advantages": ADVANTAGES * 1j}, "advantages must hold real numbers"),
        ({"mask": MASK[:, :3]}, r"mask \[4, 3\]"),
        ({"mask": MASK[0]}, "2 axes"),
    ],
)
@pytest.mark.parametrize("function", [clipped_surrogate, policy_metrics])
def test_refusals(function: Callable, change: dict[str, Any], message: str) -> None:
    names = ("logprobs", "old_logprobs", "advantages", "mask")
    with pytest.raises(ValueError, match=message):
        function(**{**dict(zip(names, ARRAYS, strict=True)), **change})


def test_refusals_come_while_tracing() -> None:
    tokens, wrong = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2, 3), (3,)))
    with pytest.raises(ValueError, match=r"like the mask or \[2\], got \[3\]"):
        jax.eval_shape(clipped_surrogate, tokens, tokens, wrong, tokens)
    with pytest.raises(ValueError, match=r"2 axes and one shape, got logprobs \[3\]"):
        jax.eval_shape(jax.vmap(policy_gradient), tokens, tokens, tokens)


def test_refusals_of_policy_gradient() -> None:
    with pytest.raises(ValueError, match=r"logprobs \[4, 4\], mask \[4, 3\]"):
        policy_gradient(NEW, ADVANTAGES, MASK[:, :3])
