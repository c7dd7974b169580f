"""The published methods: worked numbers, defaults, metrics, optional terms."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import (
    batch_counts,
    dapo_loss,
    dr_grpo_loss,
    grpo_loss,
    ppo_loss,
)
from tests.losses.jaxprs import primitives
from tests.losses.worked import ADVANTAGES, EXAMPLES, MASK, NEW, OLD, REF, close

COUNTS = batch_counts(MASK)
ARRAYS = (NEW, OLD, ADVANTAGES, MASK, COUNTS)
# The methods, callable with nothing but the five arrays.
METHODS = {
    "ppo": ppo_loss,
    "grpo": grpo_loss,
    "dr_grpo": partial(dr_grpo_loss, length=8),
    "dapo": dapo_loss,
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@pytest.mark.parametrize(
    ("loss", "key"),
    [
        (ppo_loss, "ppo.loss"),
        (partial(ppo_loss, dual_clip=3.0), "ppo.loss_dual"),
        (grpo_loss, "grpo.loss_pg"),
        (partial(grpo_loss, ref_logprobs=REF), "grpo.loss"),
        (partial(grpo_loss, ref_logprobs=REF, kl_coef=0.04), "grpo.loss"),
        (partial(grpo_loss, ref_logprobs=REF, kl_coef=0.0), "grpo.loss_pg"),
        (partial(dr_grpo_loss, length=8), "drgrpo.loss"),
        (dapo_loss, "dapo.loss_nodual"),
        (partial(dapo_loss, dual_clip=10.0), "dapo.loss"),
    ],
)
def test_worked_losses(loss: Callable, key: str) -> None:
    close(loss(*ARRAYS)[0], EXAMPLES[key])


def test_worked_kl_part() -> None:
    with_kl, without = (
        grpo_loss(*ARRAYS, ref_logprobs=REF, kl_coef=k)[0] for k in (1.0, 0.0)
    )
    close(with_kl - without, EXAMPLES["grpo.loss_kl"], atol=2e-6)


@every_method
def test_value_and_grad_gives_a_scalar_and_the_metrics(method: Callable) -> None:
    step = jax.jit(jax.value_and_grad(method, has_aux=True))
    (loss, metrics), grads = step(NEW.astype(np.float32), *ARRAYS[1:])
    assert loss.shape == ()
    assert loss.dtype == jnp.float32
    assert grads.shape == NEW.shape
    assert set(metrics) == {
        "ratio",
        "clip_frac_low",
        "clip_frac_high",
        "approx_kl_k1",
        "approx_kl_k3",
    }
    for total, count in metrics.values():
        assert total.shape == count.shape == ()
        assert total.dtype == count.dtype == jnp.float32
        assert count == 10


@every_method
def test_metrics_of_micro_batches_add_up(method: Callable) -> None:
    entropy = np.where(MASK, 0.5 - NEW, np.nan)

    def run(rows: slice) -> dict[str, Any]:
        parts = (x[rows] for x in ARRAYS[:4])
        return method(
            *parts,
            COUNTS,
            ref_logprobs=REF[rows],
            kl_coef=0.1,
            entropy=entropy[rows],
            dual_clip=3.0,
        )[1]

    whole, first, second = run(slice(None)), run(slice(2)), run(slice(2, None))
    assert {"kl", "entropy", "clip_frac_dual"} <= set(whole)
    for name, pair in whole.items():
        for k in (0, 1):
            close(first[name][k] + second[name][k], pair[k])
    close(whole["entropy"][0] / 10, (0.5 - NEW)[MASK > 0].mean())
    close(whole["kl"][0] / 10, EXAMPLES["kl.k3m"])


def test_metrics_of_dapo_see_its_own_bounds() -> None:
    metrics = dapo_loss(*ARRAYS)[1]
    close(metrics["clip_frac_high"][0] / 10, EXAMPLES["dapo.clip_high"])
    close(metrics["clip_frac_low"][0] / 10, EXAMPLES["dapo.clip_low"])


@every_method
def test_estimator_and_gradient_of_the_kl_term(method: Callable) -> None:
    def term(coef: float, **kind: str) -> tuple[Any, Any]:
        def loss(x: jax.Array) -> jax.Array:
            return method(x, *ARRAYS[1:], ref_logprobs=REF, kl_coef=coef, **kind)[0]

        with_kl, without = (
            jax.value_and_grad(f)(NEW.astype(np.float32))
            for f in (loss, lambda x: method(x, *ARRAYS[1:])[0])
        )
        return with_kl[0] - without[0], with_kl[1] - without[1]

    value, _ = term(0.1, kl_estimator="k1")
    _, slope = term(0.1, kl_estimator="k2")
    mixed = term(0.1, kl_estimator="k1", kl_gradient="k2")
    close(mixed[0], value)
    close(mixed[1], slope)


@every_method
def test_entropy_bonus(method: Callable) -> None:
    def loss(entropy: jax.Array, coef: float) -> jax.Array:
        return method(*ARRAYS, entropy=entropy, entropy_coef=coef)[0]

    entropy = np.full(MASK.shape, 2.0, np.float32)
    plain = method(*ARRAYS)[0]
    close(loss(entropy, 0.0), plain)
    grad = jax.grad(loss)(entropy, 0.5)
    close(loss(entropy, 0.5), plain + 2.0 * np.sum(grad), atol=2e-6)
    assert (np.asarray(grad)[MASK > 0] < 0).all()
    assert (np.asarray(grad)[MASK == 0] == 0).all()


@every_method
def test_weights_multiply_the_surrogate_alone(method: Callable) -> None:
    rng = np.random.default_rng(0)
    kl = {"ref_logprobs": REF, "kl_coef": 0.1}
    for weights in (rng.random((4, 4)), rng.random(4)):
        per_token = weights if weights.ndim == 2 else np.repeat(weights[:, None], 4, 1)
        # A weight of the advantage is a weight of the surrogate.
        weighed = method(NEW, OLD, ADVANTAGES[:, None] * per_token, MASK, COUNTS, **kl)[
            0
        ]
        close(method(*ARRAYS, weights=weights, **kl)[0], weighed, atol=2e-6)
    with pytest.raises(ValueError, match="weights must have shape"):
        method(*ARRAYS, weights=np.ones(3))


@every_method
def test_a_reference_is_not_touched_without_a_coefficient(method: Callable) -> None:
    unseen = partial(method, ref_logprobs=np.full((4, 4), np.nan), kl_coef=0.0)
    close(unseen(*ARRAYS)[0], method(*ARRAYS)[0])
    assert "kl" not in unseen(*ARRAYS)[1]
    bare = primitives(lambda x: method(x, *ARRAYS[1:]), NEW)
    assert primitives(lambda x: unseen(x, *ARRAYS[1:]), NEW) == bare


def test_coefficients_may_be_traced() -> None:
    loss = jax.jit(lambda c: grpo_loss(*ARRAYS, ref_logprobs=REF, kl_coef=c)[0])
    close(loss(0.04), EXAMPLES["grpo.loss"])
    close(loss(0.0), EXAMPLES["grpo.loss_pg"])


def test_equal_bounds_make_dapo_ppo() -> None:
    close(dapo_loss(*ARRAYS, clip_high=0.2)[0], ppo_loss(*ARRAYS)[0])


def test_defaults_are_the_papers() -> None:
    def default(function: Callable, name: str) -> Any:
        return inspect.signature(function).parameters[name].default

    for function in (ppo_loss, grpo_loss, dr_grpo_loss, dapo_loss):
        assert default(function, "clip_low") == 0.2
        assert default(function, "dual_clip") is None
        assert default(function, "kl_estimator") == "k3"
    assert default(dapo_loss, "clip_high") == 0.28
    assert default(grpo_loss, "clip_high") == default(ppo_loss, "clip_high") == 0.2
    assert default(dr_grpo_loss, "length") is inspect.Parameter.empty


@every_method
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clip_low": -1.0}, "clip_low must be finite and >= 0, got -1.0"),
        ({"dual_clip": 0.5}, "dual_clip must be finite and > 1, got 0.5"),
        ({"kl_coef": 0.1}, "kl_coef must be 0 without ref_logprobs, got 0.1"),
        (
            {"kl_coef": -0.1, "ref_logprobs": REF},
            "kl_coef must be finite and >= 0, got -0.1",
        ),
        (
            {"kl_coef": 0.1, "ref_logprobs": REF[:2]},
            r"ref_logprobs \[2, 4\]",
        ),
        (
            {"kl_coef": 0.1, "ref_logprobs": REF, "kl_estimator": "low_var_kl"},
            "estimator must be one of k1, k2, k3, abs, .*, got 'low_var_kl'",
        ),
        ({"entropy_coef": 0.1}, "entropy_coef must be 0 without entropy, got 0.1"),
        ({"entropy_coef": np.nan}, "entropy_coef must be finite, got nan"),
        ({"entropy": np.ones(4)}, r"entropy \[4\]"),
    ],
)
def test_refusals(method: Callable, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method(*ARRAYS, **settings)


def test_refusals_of_counts_and_length() -> None:
    with pytest.raises(ValueError, match="counts must come from batch_counts, got int"):
        ppo_loss(*ARRAYS[:4], 10)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="length must be finite and > 0, got -3"):
        dr_grpo_loss(*ARRAYS, length=-3)
    with pytest.raises(TypeError, match="length"):
        dr_grpo_loss(*ARRAYS)  # type: ignore[call-arg]
