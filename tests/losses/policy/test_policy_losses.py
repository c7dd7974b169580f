"""The published methods beside PPO, GRPO, Dr. GRPO and DAPO."""

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
    cispo_loss,
    clip_cov_loss,
    clip_cov_tokens,
    clipped_surrogate,
    dapo_loss,
    gmpo_loss,
    gpg_loss,
    gspo_loss,
    kl_cov_loss,
    kl_cov_tokens,
    ppo_loss,
    reinforce_loss,
    rloo_loss,
    sapo_loss,
    sequence_mean,
    sequence_sum_mean,
    token_mean,
    vapo_loss,
)
from tests.losses.jaxprs import primitives
from tests.losses.worked import ADVANTAGES, EXAMPLES, MASK, NEW, OLD, REF, close
from tests.losses.worked import EXAMPLES as OWN

COUNTS = batch_counts(MASK)
ARRAYS = (NEW, OLD, ADVANTAGES, MASK, COUNTS)
X, START = NEW.astype(np.float32), OLD.astype(np.float32)
CORRECT = np.array([1, 0, 1, 0])
POSITIVE = batch_counts(MASK * CORRECT[:, None])
KEY = jax.random.key(0)
CLIP_COV = partial(clip_cov_loss, key=KEY, low=-9.0, high=9.0)
# The methods, callable with nothing but the five arrays, and what they average with.
METHODS = {
    "gspo": (gspo_loss, sequence_mean),
    "gmpo": (gmpo_loss, sequence_mean),
    "sapo": (sapo_loss, sequence_mean),
    "cispo": (partial(cispo_loss, ratio_high=1.28), token_mean),
    "reinforce": (reinforce_loss, token_mean),
    "rloo": (rloo_loss, sequence_sum_mean),
    "gpg": (gpg_loss, token_mean),
    "kl_cov": (kl_cov_loss, token_mean),
    "clip_cov": (CLIP_COV, token_mean),
    "vapo": (partial(vapo_loss, correct=CORRECT, positive_counts=POSITIVE), token_mean),
}
OPTIONS = {
    "ref_logprobs": None,
    "kl_coef": 0.0,
    "kl_estimator": "k3",
    "kl_gradient": None,
    "entropy": None,
    "entropy_coef": 0.0,
    "weights": None,
}
every_method = pytest.mark.parametrize(
    ("method", "reduction"), METHODS.values(), ids=METHODS
)


def slope(method: Callable, x: Any = X, **settings: Any) -> tuple[Any, Any]:
    """Value and gradient, compiled as one."""
    step = jax.jit(jax.value_and_grad(partial(method, **settings), has_aux=True))
    (value, _), grad = step(x, *ARRAYS[1:])
    return value, np.asarray(grad)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (gspo_loss, OWN["gspo.loss"]),
        (gmpo_loss, OWN["gmpo.loss"]),
        (sapo_loss, OWN["sapo.loss"]),
        (partial(cispo_loss, ratio_high=1.28), OWN["cispo.loss"]),
        (partial(cispo_loss, ratio_high=5.0), OWN["cispo.loss_cap5"]),
        (gpg_loss, EXAMPLES["gpg.loss"]),
        (reinforce_loss, EXAMPLES["gpg.loss"]),
        (METHODS["vapo"][0], OWN["vapo.loss"]),
        (partial(ppo_loss, dual_clip=4.0), OWN["delta.loss"]),
    ],
)
def test_worked_losses(loss: Callable, expected: float) -> None:
    close(loss(*ARRAYS)[0], expected)


def test_worked_losses_of_covariance() -> None:
    a = np.array([[2.0, -1.0, 0.5, -1.5, 1.0, -1.0]])
    new = np.array([[-0.1, -2.0, -0.5, -3.0, -0.2, -0.6]])
    old = np.array([[-0.3, -1.8, -0.5, -2.5, -0.4, -0.7]])
    mask = np.ones((1, 6))
    arrays = (new, old, a, mask, batch_counts(mask))
    loss, metrics = kl_cov_loss(*arrays, fraction=0.34)
    close(loss, OWN["cov.klloss"])
    assert [float(x) for x in metrics["selected"]] == [2.0, 6.0]
    first = np.array([[1, 0, 0, 0, 0, 0]])
    close(clip_cov_loss(*arrays, selected=first)[0], OWN["cov.cliploss_first"])


def test_8_the_two_sided_clip_is_the_dual_clip() -> None:
    """INTELLECT-2: -min(min(rho, delta) A, clip(rho) A)."""
    close(clipped_surrogate(*ARRAYS[:4], dual_clip=4.0), OWN["delta.tok"])
    d = np.linspace(-2.0, 2.0, 81)[None]
    rho, ones = np.exp(d), np.ones_like(d)
    for a in (1.5, -1.5):
        for delta in (1.3, 4.0):
            clipped = np.clip(rho, 0.8, 1.2)
            expected = -np.minimum(np.minimum(rho, delta) * a, clipped * a)
            found = clipped_surrogate(d, 0 * d, a * ones, ones, dual_clip=delta)
            close(found, expected)


@every_method
def test_value_and_grad_gives_a_scalar_and_the_metrics(
    method: Callable, reduction: Callable
) -> None:
    step = jax.jit(jax.value_and_grad(method, has_aux=True))
    (loss, metrics), grads = step(X, *ARRAYS[1:])
    assert loss.shape == ()
    assert loss.dtype == jnp.float32
    assert grads.shape == NEW.shape
    assert {
        "ratio",
        "clip_frac_low",
        "clip_frac_high",
        "approx_kl_k1",
        "approx_kl_k3",
    } <= set(metrics)
    for total, count in metrics.values():
        assert total.shape == count.shape == ()
        assert total.dtype == count.dtype == jnp.float32
    close(metrics["approx_kl_k1"][0] / metrics["approx_kl_k1"][1], EXAMPLES["ppo.kl"])


@every_method
def test_metrics_of_micro_batches_add_up(method: Callable, reduction: Callable) -> None:
    entropy = np.where(MASK, 0.5 - NEW, np.nan)
    name = next(n for n, (m, _) in METHODS.items() if m is method)

    def run(rows: slice) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        if name == "vapo":
            settings["correct"] = CORRECT[rows]
        if name.endswith("cov"):
            settings["selected"] = (OLD < -0.6)[rows]
        return method(
            *(x[rows] for x in ARRAYS[:4]),
            COUNTS,
            ref_logprobs=REF[rows],
            kl_coef=0.1,
            entropy=entropy[rows],
            **settings,
        )[1]

    whole, first, second = run(slice(None)), run(slice(2)), run(slice(2, None))
    assert {"kl", "entropy"} <= set(whole)
    for metric, pair in whole.items():
        for k in (0, 1):
            close(first[metric][k] + second[metric][k], pair[k])


@every_method
def test_optional_terms_have_the_methods_reduction(
    method: Callable, reduction: Callable
) -> None:
    plain = slope(method)[0]
    entropy = np.where(MASK, 0.5 - NEW, np.nan)
    with_entropy = slope(method, entropy=entropy, entropy_coef=0.5)[0]
    bonus = reduction(entropy, MASK, COUNTS)
    close(with_entropy, plain - 0.5 * bonus, atol=2e-6)
    with_kl = slope(method, ref_logprobs=REF, kl_coef=0.5, kl_estimator="k1")[0]
    close(with_kl, plain + 0.5 * reduction(NEW - REF, MASK, COUNTS), atol=2e-6)


@every_method
def test_weights_multiply_the_objective_alone(
    method: Callable, reduction: Callable
) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((4, 4)), rng.random(4)
    rows = np.repeat(second[:, None], 4, 1)
    kl = {"ref_logprobs": REF, "kl_coef": 0.1}

    def at(weights: Any) -> Any:
        return method(*ARRAYS, weights=weights, **kl)[0]

    rest = at(np.zeros((4, 4)))
    close(at(second), at(rows))
    close(at(first) + at(rows) - rest, at(first + rows), rtol=2e-6)
    close(at(np.ones(4)), method(*ARRAYS, **kl)[0])


@every_method
def test_a_reference_is_not_touched_without_a_coefficient(
    method: Callable, reduction: Callable
) -> None:
    unseen = partial(method, ref_logprobs=np.full((4, 4), np.nan))
    bare = primitives(lambda x: method(x, *ARRAYS[1:]), NEW)
    assert primitives(lambda x: unseen(x, *ARRAYS[1:]), NEW) == bare


@every_method
def test_options_are_those_of_the_others(method: Callable, reduction: Callable) -> None:
    function = method.func if isinstance(method, partial) else method
    parameters = list(inspect.signature(function).parameters.values())
    names = ["logprobs", "old_logprobs", "advantages", "mask", "counts"]
    assert [p.name for p in parameters[:5]] == names
    assert {p.kind for p in parameters[5:]} == {inspect.Parameter.KEYWORD_ONLY}
    assert {p.name: p.default for p in parameters[-len(OPTIONS) :]} == OPTIONS


def test_defaults_are_the_papers() -> None:
    def defaults(function: Callable) -> dict[str, Any]:
        given = inspect.signature(function).parameters.items()
        return {n: p.default for n, p in list(given)[5 : -len(OPTIONS)]}

    required = inspect.Parameter.empty
    assert defaults(gspo_loss) == {"clip_low": 3e-4, "clip_high": 4e-4}
    assert defaults(gmpo_loss) == {"clip_low": 0.4, "clip_high": 0.4}
    assert defaults(sapo_loss) == {"tau_positive": 1.0, "tau_negative": 1.05}
    assert defaults(cispo_loss) == {"ratio_low": 0.0, "ratio_high": required}
    assert defaults(kl_cov_loss) == {"fraction": 2e-3, "coef": 1.0, "selected": None}
    assert defaults(clip_cov_loss) == {
        "fraction": 2e-4,
        "low": 1.0,
        "high": 5.0,
        "key": None,
        "clip_low": 1.0,
        "clip_high": 1.0,
        "selected": None,
    }
    assert defaults(vapo_loss) == {
        "correct": required,
        "positive_counts": required,
        "positive_coef": 0.1,
        "clip_low": 0.2,
        "clip_high": 0.28,
        "dual_clip": None,
    }


def test_3_at_the_start_of_the_update_the_gradients_coincide() -> None:
    by_token = slope(reinforce_loss, START)[1]
    close(by_token, np.where(MASK, -ADVANTAGES[:, None] / 10, 0))
    for method in (
        ppo_loss,
        dapo_loss,
        gpg_loss,
        METHODS["cispo"][0],
        kl_cov_loss,
        partial(clip_cov_loss, selected=0 * MASK),
        partial(METHODS["vapo"][0], positive_coef=0.0),
    ):
        close(slope(method, START)[1], by_token)
    by_sequence = by_token * 10 / (4 * MASK.sum(1, keepdims=True))
    for method in (gspo_loss, gmpo_loss, sapo_loss):
        close(slope(method, START)[1], by_sequence)


@every_method
def test_3_nothing_is_clipped_at_the_start_of_the_update(
    method: Callable, reduction: Callable
) -> None:
    metrics = method(OLD, OLD, ADVANTAGES, MASK, COUNTS)[1]
    assert metrics["clip_frac_low"][0] == metrics["clip_frac_high"][0] == 0
    assert metrics["ratio"][0] == metrics["ratio"][1]
    assert metrics["approx_kl_k3"][0] == 0


def test_15_a_second_update_sees_another_ratio() -> None:
    """The old log-probs stay those of the start; overwritten, no clip ever acts."""
    after = START - 0.5 * slope(gspo_loss, START)[1]

    def check(old: np.ndarray) -> None:
        metrics = gspo_loss(after, old, ADVANTAGES, MASK, COUNTS)[1]
        assert metrics["clip_frac_high"][0] + metrics["clip_frac_low"][0] > 0

    check(START)
    with pytest.raises(AssertionError):
        check(after)


def test_clip_fractions_of_gspo_are_of_sequences() -> None:
    metrics = gspo_loss(*ARRAYS)[1]
    clipped = metrics["clip_frac_low"][0] + metrics["clip_frac_high"][0]
    close(clipped / metrics["clip_frac_low"][1], OWN["gspo.clipfrac_seq"])
    close(metrics["ratio"][0], np.sum(OWN["gspo.s"]))
    assert metrics["ratio"][1] == 4
    # With advantages per token, a sequence counts by the part of it that is clipped.
    a = np.where(np.arange(4) % 2, 1.0, -1.0) * np.ones((4, 4))
    metrics = gspo_loss(NEW, OLD, a, MASK, COUNTS)[1]
    close(metrics["clip_frac_high"][0], 0.5 + 1 / 3 + 0.0)
    close(metrics["clip_frac_low"][0], 0.5)


def test_clip_fractions_of_the_others_are_their_own() -> None:
    ratio = np.exp(NEW - OLD)[MASK > 0]
    sign = np.repeat(np.sign(ADVANTAGES), MASK.sum(1))
    gmpo = gmpo_loss(*ARRAYS, clip_high=0.2, clip_low=0.2)[1]
    assert gmpo["clip_frac_high"][0] == ((np.log(ratio) > 0.2) & (sign > 0)).sum()
    assert gmpo["clip_frac_low"][0] == ((np.log(ratio) < -0.2) & (sign < 0)).sum()
    cispo = cispo_loss(*ARRAYS, ratio_low=0.7, ratio_high=1.28)[1]
    assert cispo["clip_frac_high"][0] == (ratio > 1.28).sum() == 3
    assert cispo["clip_frac_low"][0] == (ratio < 0.7).sum() == 1
    gate = sapo_loss(*ARRAYS)[1]["gate"]
    close(gate[0], np.array(OWN["sapo.w"])[MASK > 0].sum())
    clip_cov = clip_cov_loss(*ARRAYS, clip_low=0.2, clip_high=0.2, selected=MASK)[1]
    close(clip_cov["clip_frac_low"][0] + clip_cov["clip_frac_high"][0], 3.0)
    close(clip_cov["selected"][0], 10.0)


def test_covariance_methods_choose_for_themselves_or_are_told() -> None:
    told = kl_cov_tokens(NEW, ADVANTAGES, MASK, fraction=0.3)
    close(kl_cov_loss(*ARRAYS, fraction=0.3)[0], kl_cov_loss(*ARRAYS, selected=told)[0])
    band = {"fraction": 0.3, "low": -9.0, "high": 9.0, "key": KEY}
    told = clip_cov_tokens(*ARRAYS[:4], **band)
    assert int(np.sum(told)) == 3
    found, metrics = clip_cov_loss(*ARRAYS, **band)
    close(found, clip_cov_loss(*ARRAYS, selected=told)[0])
    assert metrics["selected"][0] == 3
    with pytest.raises(ValueError, match="key must be given without selected"):
        clip_cov_loss(*ARRAYS)


def test_1_vapos_likelihood_has_counts_of_its_own() -> None:
    whole = slope(METHODS["vapo"][0])

    def check(part: Callable) -> None:
        def total(x: jax.Array) -> jax.Array:
            return sum(
                part(*(y[p] for y in (x, *ARRAYS[1:4])), COUNTS, correct=CORRECT[p])[0]
                for p in (slice(0, 1), slice(1, 4))
            )

        value, grad = jax.jit(jax.value_and_grad(total))(X)
        close(value, whole[0])
        close(grad, whole[1])

    check(partial(vapo_loss, positive_counts=POSITIVE))

    def local(*arrays: Any, correct: Any) -> Any:
        here = batch_counts(arrays[3] * correct[:, None])
        return vapo_loss(*arrays, correct=correct, positive_counts=here)

    with pytest.raises(AssertionError):
        check(local)


def test_vapos_likelihood() -> None:
    loss, metrics = METHODS["vapo"][0](*ARRAYS, positive_coef=1.0)
    close(metrics["positive_nll"][0] / metrics["positive_nll"][1], OWN["vapo.nll"])
    close(loss - dapo_loss(*ARRAYS)[0], OWN["vapo.nll"], atol=2e-6)
    # It pulls correct sequences up: minimised, with a minus sign.
    pull = slope(METHODS["vapo"][0], positive_coef=1.0)[1] - slope(dapo_loss)[1]
    close(pull, np.where(MASK * CORRECT[:, None], -1 / 7, 0))
    # None correct: nothing is added. A coefficient of 0: not computed.
    none = partial(
        vapo_loss, correct=0 * CORRECT, positive_counts=batch_counts(0 * MASK)
    )
    close(none(*ARRAYS)[0], dapo_loss(*ARRAYS)[0])
    loss, metrics = METHODS["vapo"][0](*ARRAYS, positive_coef=0.0)
    close(loss, dapo_loss(*ARRAYS)[0])
    assert "positive_nll" not in metrics


def test_the_forms_of_reinforce() -> None:
    start = slope(reinforce_loss)[1]
    close(slope(gpg_loss)[1], start)
    close(slope(rloo_loss)[1], start * 10 / 4)
    # The old policy is for the metrics alone.
    moved = jax.grad(lambda x: reinforce_loss(x, REF, *ARRAYS[2:])[0])(X)
    close(moved, start)


@every_method
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kl_coef": 0.1}, "kl_coef must be 0 without ref_logprobs, got 0.1"),
        ({"entropy_coef": 0.1}, "entropy_coef must be 0 without entropy, got 0.1"),
        ({"entropy": np.ones(4)}, r"entropy \[4\]"),
        ({"weights": np.ones(3)}, "weights must have shape"),
    ],
)
def test_refusals(
    method: Callable, reduction: Callable, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        method(*ARRAYS, **settings)


@every_method
def test_refusals_of_arrays(method: Callable, reduction: Callable) -> None:
    with pytest.raises(ValueError, match="counts must come from batch_counts, got int"):
        method(*ARRAYS[:4], 10)
    with pytest.raises(ValueError, match=r"old_logprobs \[2, 4\]"):
        method(NEW, OLD[:2], *ARRAYS[2:])


def test_refusals_of_vapo() -> None:
    vapo = METHODS["vapo"][0]
    with pytest.raises(ValueError, match="positive_coef must be finite and >= 0"):
        vapo(*ARRAYS, positive_coef=-0.1)
    with pytest.raises(ValueError, match="correct must have shape"):
        vapo(*ARRAYS, correct=np.ones(3))
    with pytest.raises(ValueError, match="counts must come from batch_counts, got int"):
        vapo(*ARRAYS, positive_counts=7)
    with pytest.raises(TypeError, match="positive_counts"):
        vapo_loss(*ARRAYS, correct=CORRECT)  # type: ignore[call-arg]
