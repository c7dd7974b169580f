"""Laws of the objective: a policy loss at ratio 1 and away from it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.testing.arrays import NUM_GROUPS, Arrays, floats_of, ladder
from jaxrl_reason.testing.case import Broken, Case, Law
from jaxrl_reason.testing.evaluate import denominators, parameters_of

_FAR = (0.3, 0.6, 0.9)  # log-ratios at which a clip may act
# Log-ratios so close that a smooth gradient has almost no curvature.
_FINE = np.linspace(0.1, 0.164, 65)
_RUNGS = 128  # rows of every ladder, for a single compilation
_SIGNS = (1.0, -1.0)


def rungs(case: Case, log_ratios: np.ndarray, sign: float) -> np.ndarray:
    """dL/dlogprob of single tokens at these log-ratios, for A = sign."""
    arrays = ladder(np.resize(log_ratios, _RUNGS), sign, case.arrays)
    return case.loss.run(arrays).grad[: len(log_ratios), 0]


def _size(case: Case) -> float:
    """The largest gradient at ratio 1, the scale for what counts as 0."""
    return float(np.abs(case.loss.run(case.still).grad).max(initial=0.0))


def _check_extremes(case: Case) -> None:
    mask = case.arrays["mask"]
    signs = np.where(np.arange(mask.size) % 2, 1, -1).reshape(mask.shape)
    for size in (100.0, 1e4):
        far = (case.arrays["logprobs"] + size * signs).astype(np.float32)
        changed = {x: far for x in case.arrays if x.endswith("_logprobs")}
        found = case.loss.run({**case.arrays, **changed})
        bad = int((~np.isfinite(found.grad)).sum())
        if bad or not np.isfinite(found.value):
            raise Broken(
                f"got a value of {found.value:g} and {bad} gradients that are not "
                f"at +-{size:g}"
            )


def _check_ratio_one(case: Case) -> None:
    found = case.loss.run(case.still)
    bad = int((~np.isfinite(found.grad)).sum())
    if bad or not np.isfinite(found.value):
        raise Broken(f"got a value of {found.value:g} and {bad} gradients that are not")


def _places(bad: np.ndarray) -> str:
    row, token = (int(x) for x in np.argwhere(bad)[0])
    return f"{int(bad.sum())} tokens, the first being token {token} of row {row}"


def _check_signal(case: Case) -> None:
    grad = np.abs(case.loss.run(case.still).grad)
    none = case.still["mask"] & ~(grad > 1e-6 * grad.max())
    if none.any():
        raise Broken(f"got no gradient at {_places(none)}")


def _check_sign(case: Case) -> None:
    grad = case.loss.run(case.still).grad
    wrong = case.still["mask"] & (grad * case.still["advantages"] > 0)
    if wrong.any():
        raise Broken(f"got the other sign at {_places(wrong)}")


def _check_rest(case: Case) -> None:
    nothing = np.zeros_like(case.arrays["advantages"])
    arrays = {**case.still, "advantages": nothing}
    if "selected" in arrays:
        arrays["selected"] = case.arrays["selected"]
    push = np.abs(case.loss.run(arrays).grad).max()
    if not push <= case.rtol * max(_size(case), 1e-30):
        raise Broken(f"got a gradient of {push:.6g}")


def _check_clip(case: Case) -> None:
    far = np.array(_FAR)
    tiny = 1e-6 * max(_size(case), 1e-30)
    for sign in _SIGNS:
        slopes = np.abs(rungs(case, np.append(-sign * far, sign * far), sign))
        back, on = slopes[: len(far)], slopes[len(far) :]
        wrong = (back <= tiny) & (on > tiny)
        if wrong.any():
            x = float(far[wrong][0])
            raise Broken(
                f"got a clip at A = {sign:g} and ratio {np.exp(-sign * x):.3g}, and "
                f"none at {np.exp(sign * x):.3g}"
            )


def has_bounds(case: Case) -> bool:
    """Whether the loss has two clip bounds with the usual names."""
    return {"clip_low", "clip_high"} <= set(parameters_of(case.loss.function))


def _check_bounds(case: Case) -> None:
    """Changes the upper bound, which must affect only tokens of A > 0."""
    near = np.array([0.02, 0.1, 0.25])
    high = parameters_of(case.loss.function)["clip_high"].default
    tight = isinstance(high, int | float) and high <= 0.01
    other = Case(case.loss.bound(clip_high=10.0 if tight else 0.01), case.seed)
    answers = {
        sign: np.any(rungs(case, sign * near, sign) != rungs(other, sign * near, sign))
        for sign in _SIGNS
    }
    if answers[-1.0] and not answers[1.0]:
        raise Broken("got them the other way round")


def _check_pull(case: Case) -> None:
    nothing = np.zeros_like(case.arrays["advantages"])
    away = np.where(np.arange(nothing.size) % 2, 0.4, -0.4).reshape(nothing.shape)
    ref = (case.still["logprobs"] - away).astype(np.float32)
    arrays = {**case.still, "advantages": nothing, "ref_logprobs": ref}
    pull = np.sum(case.loss.run(arrays).grad * away)
    if not pull >= -case.rtol * max(_size(case), 1e-30):
        raise Broken("got one away from it")


def _check_smooth(case: Case) -> None:
    for sign in _SIGNS:
        slope = rungs(case, _FINE, sign)
        bend = np.abs(np.diff(slope, 2))
        steps = int((bend > 5e-5 * np.abs(slope).max()).sum())
        if steps > 6:  # one clip bound gives two
            raise Broken(f"got one in {steps // 2} steps between ratios 1.1 and 1.18")


def _check_nan(case: Case) -> None:
    logprobs = case.arrays["logprobs"].copy()
    logprobs[0, 0] = np.nan
    found = case.loss.run({**case.arrays, "logprobs": logprobs})
    if not np.isnan(found.value):
        raise Broken(f"got {found.value:.6g}")


def _check_reduction(case: Case) -> None:
    arrays = case.still
    mask, a = arrays["mask"], arrays["advantages"]
    counts = denominators(arrays)["counts"]
    reduction = case.reduction
    assert reduction is not None

    def plain(x: jax.Array) -> Any:
        return reduction(jnp.where(mask, -a * x, 0.0), mask, counts)

    wanted = jax.grad(plain)(jnp.asarray(arrays["logprobs"]))
    case.same(case.loss.run(arrays).grad, wanted, "a gradient of ")


def _check_reference(case: Case) -> None:
    still = {**case.still, "advantages": case.arrays["advantages"]}
    holed = {**case.arrays, "mask": case.still["mask"]}
    for place, arrays in {
        "": case.arrays,
        " at ratio 1": still,
        " with holes": holed,
    }.items():
        found, (value, slope) = case.loss.run(arrays), _of_reference(case, arrays)
        try:
            case.both(found, (value, slope))
        except Broken as broken:
            raise Broken(f"{broken}{place}") from broken


def _of_reference(case: Case, arrays: Arrays) -> tuple[float, np.ndarray]:
    """Value and gradient of the reference, by central differences in float64."""
    mask = arrays["mask"]
    exact: Arrays = {
        name: np.where(mask, x, 0.0).astype(np.float64)
        if name in floats_of(arrays)
        else x
        for name, x in arrays.items()
    }
    named: dict[str, Any] = {name: exact[name] for name in case.loss.inputs}
    if "group_ids" in named:
        named["num_groups"] = NUM_GROUPS

    def given(logprobs: np.ndarray) -> Any:
        old, advantages = exact["old_logprobs"], exact["advantages"]
        assert case.reference is not None
        return case.reference(logprobs, old, advantages, mask, **named)

    whole = given(exact["logprobs"])
    if isinstance(whole, tuple):
        return float(whole[0]), np.asarray(whole[1], np.float64)
    slope, size = np.zeros(mask.shape), 1e-6
    for place in zip(*np.nonzero(mask), strict=True):
        step = np.zeros(mask.shape)
        step[place] = size
        up, down = (float(given(exact["logprobs"] + x)) for x in (step, -step))
        slope[place] = (up - down) / (2 * size)
    return float(whole), slope


LAWS = (
    Law(
        "extremes",
        "log-ratios of +-100 and +-1e4 must stay finite",
        _check_extremes,
    ),
    Law("ratio 1", "ratios of exactly 1 must stay finite", _check_ratio_one),
    Law(
        "signal",
        "at ratio 1 every token of the mask must be pushed",
        _check_signal,
    ),
    Law(
        "sign",
        "at ratio 1 tokens of A > 0 must be pushed up and those of A < 0 down",
        _check_sign,
    ),
    Law("rest", "at ratio 1 nothing must push where A = 0", _check_rest),
    Law(
        "clip",
        "a clip must let a token come back to ratio 1",
        _check_clip,
    ),
    Law(
        "clip bounds",
        "clip_high must bound the ratio above where A > 0, clip_low below where A < 0",
        _check_bounds,
        has_bounds,
    ),
    Law(
        "reference policy",
        "a pull must be towards the reference policy",
        _check_pull,
        lambda case: "ref_logprobs" in case.loss.inputs,
    ),
    Law("smooth", "the slope must be computed in float32", _check_smooth),
    Law("nan", "a nan inside the mask must show in the value", _check_nan),
    Law(
        "reduction",
        "at ratio 1 the gradient must be that of the claimed mean",
        _check_reduction,
        lambda case: case.reduction is not None,
    ),
    Law(
        "reference",
        "value and gradient must be the reference's",
        _check_reference,
        lambda case: case.reference is not None,
    ),
)
