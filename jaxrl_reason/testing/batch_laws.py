"""Laws of the batch: its splitting, padding, masking and order must not matter."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrl_reason.testing.arrays import (
    NUM_GROUPS,
    ROWS,
    TOKENS,
    Arrays,
    at_ratio_one,
    floats_of,
    moved,
    random_arrays,
    take,
    under_mask,
)
from jaxrl_reason.testing.case import Broken, Case, Law
from jaxrl_reason.testing.evaluate import Result, pairs

_GARBAGE = (np.nan, np.inf, 1e6)
# One shape for all padded batches, for a single compilation.
_ROWS, _TOKENS = ROWS + 3, TOKENS + 2


def _check_jit(case: Case) -> None:
    case.loss.outline(case.arrays)


def _check_form(case: Case) -> None:
    given, _ = case.loss.outline(case.arrays)
    if not (isinstance(given, tuple) and len(given) == 2):
        raise Broken(f"got {type(given).__name__}")
    value, metrics = given
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or len(shape) or str(dtype).removeprefix("torch.") != "float32":
        raise Broken(f"got {dtype or type(value).__name__} {list(shape or ())}")
    if not isinstance(metrics, dict):
        raise Broken(f"got metrics of {type(metrics).__name__}")


def _check_state(case: Case) -> None:
    others = random_arrays(case.seed + 1, case.loss.inputs)
    calls = [case.loss.outline(x)[1] for x in (case.arrays, others, case.arrays)]
    (first, numbers), _, (last, numbers_then) = calls
    if first != last or not all(
        np.array_equal(x, y, equal_nan=True)
        for x, y in zip(numbers, numbers_then, strict=True)
    ):
        raise Broken("got another at the third")


def _parts(case: Case, arrays: Arrays) -> list[Result]:
    """The results for micro-batches of one row."""
    return [case.loss.run(take(arrays, slice(i, i + 1)), arrays) for i in range(ROWS)]


def _check_micro_batches(case: Case) -> None:
    parts = _parts(case, case.arrays)
    total = sum(x.value for x in parts), np.concatenate([x.grad for x in parts])
    case.both(total, case.base)


def _check_order(case: Case) -> None:
    rng = np.random.default_rng(0)
    order, names = rng.permutation(ROWS), rng.permutation(NUM_GROUPS).astype(np.int32)
    mixed = take(case.arrays, order)
    mixed["group_ids"] = names[mixed["group_ids"]]
    case.both(case.loss.run(mixed), (case.base.value, case.base.grad[order]))


def _in_larger_batch(case: Case, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The value, and the gradient at the tokens, with the tokens at these places."""
    found = case.loss.run(moved(case.arrays, places, _ROWS, _TOKENS))
    at = np.arange(_ROWS - ROWS, _ROWS)[:, None]
    grad = found.grad[at, places]
    elsewhere = np.abs(found.grad).sum() - np.abs(grad).sum()
    return found.value, np.append(grad, elsewhere)


_TO_THE_LEFT = np.tile(np.arange(TOKENS), (ROWS, 1))


def _check_padding(case: Case) -> None:
    found = _in_larger_batch(case, _TO_THE_LEFT)
    case.both(found, (case.base.value, np.append(case.base.grad, 0.0)))


def _check_places(case: Case) -> None:
    rng = np.random.default_rng(0)
    apart = [np.sort(rng.permutation(_TOKENS)[:TOKENS]) for _ in range(ROWS)]
    wanted = _in_larger_batch(case, _TO_THE_LEFT)
    for places in (_TO_THE_LEFT + _TOKENS - TOKENS, np.stack(apart)):
        case.both(_in_larger_batch(case, places), wanted)


def _check_holes(case: Case) -> None:
    mask = case.arrays["mask"].copy()
    mask[::2, 1::3] = False
    holed = {**case.arrays, "mask": mask}
    wanted = case.loss.run(under_mask(holed, 0.0))
    for garbage in (7.0, -7.0):
        case.both(case.loss.run(under_mask(holed, garbage)), wanted)


def _check_mask_types(case: Case) -> None:
    for kind in (np.int32, np.float32):
        mask = case.arrays["mask"].astype(kind)
        name = np.dtype(kind).name
        try:
            case.both(case.loss.run({**case.arrays, "mask": mask}), case.base)
        except Broken as broken:
            raise Broken(f"{broken} with a mask of {name}") from broken
        except Exception as error:
            kind_of_error = type(error).__name__
            raise Broken(f"got {kind_of_error} with a mask of {name}") from error


def _check_garbage(case: Case) -> None:
    for garbage in _GARBAGE:
        try:
            found = case.loss.run(under_mask(case.arrays, garbage))
            case.both(found, case.base)
        except Broken as broken:
            raise Broken(f"{broken} with {garbage:g} under it") from broken


def _check_empty(case: Case) -> None:
    mask = np.zeros_like(case.arrays["mask"])
    found = case.loss.run({**case.arrays, "mask": mask})
    case.both(found, (np.zeros(()), np.zeros(mask.shape)))


def _check_bfloat16(case: Case) -> None:
    names = floats_of(case.arrays)
    coarse = {name: case.arrays[name].astype(jnp.bfloat16) for name in names}
    exact = {name: x.astype(np.float32) for name, x in coarse.items()}
    found = case.loss.run({**case.arrays, **coarse})
    wanted = case.loss.run({**case.arrays, **exact})
    case.same(found.value, wanted.value)
    # The gradient has the dtype of the log-probs, each of its terms rounded.
    gap, scale = np.abs(found.grad - wanted.grad), np.abs(wanted.grad).max()
    if not gap.max() <= 1e-2 * scale:
        far = np.unravel_index(np.argmax(np.nan_to_num(gap, nan=np.inf)), gap.shape)
        raise Broken(
            f"got a gradient of {found.grad[far]:.6g} for {wanted.grad[far]:.6g}"
        )


def _check_constants(case: Case) -> None:
    names = [x for x in floats_of(case.arrays) if x not in ("logprobs", "entropy")]
    for name, slope in case.loss.slopes(case.arrays, names).items():
        if np.any(slope != 0):
            raise Broken(f"got one of {name} that is not 0")


def _check_vmap(case: Case) -> None:
    found: tuple[Any, Any] = case.loss.twice(case.arrays)  # type: ignore[attr-defined]
    case.both(found, (np.stack([case.base.value] * 2), [case.base.grad] * 2))


def _means(metrics: list[dict[str, tuple[float, float]]]) -> dict[str, float]:
    """The metrics of a mini-batch: summed totals over summed counts."""
    return {
        name: sum(one[name][0] for one in metrics)
        / max(sum(one[name][1] for one in metrics), 1e-30)
        for name in metrics[0]
    }


def _check_metrics(case: Case) -> None:
    (_, metrics), _ = case.loss.outline(case.arrays)
    for name in sorted(set(metrics) - set(pairs(metrics)), key=str):
        raise Broken(f"got {name}, which is not a pair of scalars")
    empty = {**case.arrays, "mask": np.zeros_like(case.arrays["mask"])}
    garbage = under_mask(case.arrays, np.nan)
    trials = {
        "": case.arrays,
        "at ratio 1": at_ratio_one(case.arrays),
        "of an empty mask": empty,
        "with nan under the mask": garbage,
    }
    for place, arrays in trials.items():
        for name, pair in case.loss.run(arrays).metrics.items():
            if not np.isfinite(pair).all():
                raise Broken(f"got {name} of {pair} {place}".rstrip())
    whole = _means([case.base.metrics])
    added = _means([x.metrics for x in _parts(case, case.arrays)])
    for name, mean in whole.items():
        if not abs(added[name] - mean) <= 1e-4 * max(abs(mean), 1e-3):
            raise Broken(
                f"got {name} {added[name]:.6g} from micro-batches for {mean:.6g}"
            )


LAWS = (
    Law(
        "jit",
        "jit must be able to trace it",
        _check_jit,
        lambda case: case.loss.framework == "jax",
    ),
    Law("form", "a loss must return a float32 scalar and a dict", _check_form),
    Law(
        "state",
        "what a call computes must not depend on the calls before it",
        _check_state,
    ),
    Law(
        "micro-batches",
        "their parts must add up",
        _check_micro_batches,
    ),
    Law(
        "padding",
        "padding columns and fully masked rows must change nothing",
        _check_padding,
    ),
    Law(
        "garbage",
        "what stands under the mask must not be seen",
        _check_garbage,
    ),
    Law(
        "holes",
        "what stands in a hole of the mask must not be seen",
        _check_holes,
    ),
    Law(
        "places",
        "padding on the left and between tokens must change nothing",
        _check_places,
    ),
    Law(
        "mask types",
        "a mask of 0 and 1 must do what one of bools does",
        _check_mask_types,
    ),
    Law(
        "order",
        "the order of rows and the names of groups must not matter",
        _check_order,
    ),
    Law("empty", "an empty mask must give 0", _check_empty),
    Law("bfloat16", "bfloat16 must be computed in float32", _check_bfloat16),
    Law(
        "constants",
        "all but the log-probs must have no gradient",
        _check_constants,
    ),
    Law(
        "vmap",
        "vmap must change nothing",
        _check_vmap,
        lambda case: case.loss.framework == "jax",
    ),
    Law(
        "metrics",
        "metrics must be finite (total, count) pairs whose sums over micro-batches "
        "give the mean",
        _check_metrics,
    ),
)
