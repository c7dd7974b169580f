"""A check for a loss of your own: what holds for every loss of this package.

`check_loss(my_loss)` in a test of yours takes seconds. The repository's own battery,
over all losses and with references, is larger.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.losses import Counts, batch_counts

Loss = Callable[..., tuple[jax.Array, Any]]
Arrays = dict[str, Any]  # NumPy or JAX, by name

_ROWS, _TOKENS, _GROUPS = 8, 6, 3
_PER_TOKEN = ("logprobs", "old_logprobs", "advantages")
# What a loss may ask for by keyword, as a method of the training loop does.
INPUTS = ("entropy", "ref_logprobs", "sampler_logprobs", "weights", "group_ids")


def check_loss(
    loss: Loss,
    *,
    inputs: Sequence[str] = (),
    reference: Callable[..., float] | None = None,
    rtol: float = 1e-5,
    seed: int = 0,
) -> None:
    """Checks a loss against the rules of this package, on random arrays.

    The parts of micro-batches add up; padding, fully masked rows, the order of rows and
    what stands under the mask (nan, inf, 1e6) change nothing; log-ratios of +-100 stay
    finite; an empty mask gives 0; bfloat16 is computed in float32; old log-probs and
    advantages have no gradient; vmap changes nothing; value and gradient are the
    reference's, if one is given.

    Args:
      loss: f(logprobs, old_logprobs, advantages, mask, counts, **inputs) -> (scalar,
        metrics), as `dapo_loss`. Bind its settings with `functools.partial`.
      inputs: names among `INPUTS` that the loss takes by keyword; with "group_ids" it
        gets `num_groups` too.
      reference: the same in NumPy, f(logprobs, old_logprobs, advantages, mask,
        **inputs) -> float, in float64; arrays are 0 outside the mask.
      rtol: relative tolerance of values and gradients.
      seed: of the arrays.

    Raises:
      AssertionError: a rule is broken; the message says which, and by how much.
      ValueError: a name in `inputs` is unknown.

    Example:
      >>> from jaxrl_reason.losses import dapo_loss, token_mean
      >>> from jaxrl_reason.testing import check_loss
      >>> check_loss(dapo_loss, inputs=["entropy"])
      >>> def mean_of_means(logprobs, old_logprobs, advantages, mask, counts):
      ...     return (logprobs * mask).sum() / mask.sum(), {}
      >>> check_loss(mean_of_means)
      Traceback (most recent call last):
      AssertionError: the parts of micro-batches must add up, got -2.633 for -1.31198
    """
    for name in inputs:
        if name not in INPUTS:
            raise ValueError(f"inputs must be among {', '.join(INPUTS)}, got {name!r}")
    case = _Case(loss, tuple(inputs), rtol)
    arrays = random_arrays(seed, inputs)
    value, grad = case.run(arrays)
    for check in (
        _check_micro_batches,
        _check_padding,
        _check_order,
        _check_garbage,
        _check_extremes,
        _check_empty,
        _check_bfloat16,
        _check_constants,
        _check_vmap,
    ):
        check(case, arrays, value, grad)
    if reference is not None:
        _check_reference(case, arrays, value, grad, reference)


def random_arrays(seed: int, inputs: Sequence[str] = ()) -> Arrays:
    """Arrays of a mini-batch: ratios on both sides of a clip, one row fully masked."""
    rng = np.random.default_rng(seed)
    shape = (_ROWS, _TOKENS)
    lengths = np.array([_TOKENS, 1, 0, *rng.integers(1, _TOKENS + 1, _ROWS - 3)])
    old = rng.uniform(-3.0, -0.1, shape)
    drawn = {
        "logprobs": old + rng.normal(0.0, 0.4, shape),
        "old_logprobs": old,
        "advantages": np.repeat(rng.normal(size=(_ROWS, 1)), _TOKENS, axis=1),
        "entropy": rng.uniform(0.1, 2.0, shape),
        "ref_logprobs": old + rng.normal(0.0, 0.3, shape),
        "sampler_logprobs": old + rng.normal(0.0, 0.1, shape),
        "weights": rng.uniform(0.5, 1.5, shape),
    }
    arrays: Arrays = {
        name: x.astype(np.float32)
        for name, x in drawn.items()
        if name in _PER_TOKEN or name in inputs
    }
    arrays["mask"] = np.arange(_TOKENS) < lengths[:, None]
    arrays["group_ids"] = rng.integers(0, _GROUPS, _ROWS).astype(np.int32)
    return arrays


class _Case:
    """A loss with its inputs, compiled once a shape."""

    def __init__(self, loss: Loss, inputs: tuple[str, ...], rtol: float) -> None:
        self.loss, self.inputs, self.rtol = loss, inputs, rtol
        self.floats = (*_PER_TOKEN, *(name for name in inputs if name != "group_ids"))
        self.step = jax.jit(jax.value_and_grad(self.scalar))

    def scalar(self, logprobs: jax.Array, arrays: Arrays, counts: Counts) -> jax.Array:
        named: dict[str, Any] = {name: arrays[name] for name in self.inputs}
        if "group_ids" in named:
            named["num_groups"] = _GROUPS
        old, advantages = arrays["old_logprobs"], arrays["advantages"]
        mask = arrays["mask"]
        value, _ = self.loss(logprobs, old, advantages, mask, counts, **named)
        return value

    def run(
        self, arrays: Arrays, counts: Counts | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Value and gradient in the log-probs."""
        counts = counts_of(arrays) if counts is None else counts
        value, grad = self.step(arrays["logprobs"], arrays, counts)
        return np.asarray(value), np.asarray(grad)

    def same(self, rule: str, found: Any, wanted: Any, what: str = "") -> None:
        found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
        scale = max(float(np.abs(wanted).max(initial=0.0)), 1e-30)
        if not (np.abs(found - wanted).max(initial=0.0) <= self.rtol * scale):
            far = np.unravel_index(np.argmax(np.abs(found - wanted)), found.shape)
            raise AssertionError(
                f"{rule}, got {what}{found[far]:.6g} for {wanted[far]:.6g}"
            )

    def both(self, rule: str, found: Any, wanted: Any) -> None:
        self.same(rule, found[0], wanted[0])
        self.same(rule, found[1], wanted[1], "a gradient of ")


def counts_of(arrays: Arrays) -> Counts:
    """Counts of a mini-batch of these arrays."""
    return batch_counts(arrays["mask"], arrays["group_ids"], num_groups=_GROUPS)


def _check_micro_batches(
    case: _Case, arrays: Arrays, value: np.ndarray, grad: np.ndarray
) -> None:
    counts, half = counts_of(arrays), _ROWS // 2
    parts = [
        case.run({name: x[rows] for name, x in arrays.items()}, counts)
        for rows in (slice(0, half), slice(half, None))
    ]
    total = parts[0][0] + parts[1][0], np.concatenate([g for _, g in parts])
    case.both("the parts of micro-batches must add up", total, (value, grad))


def _check_padding(
    case: _Case, arrays: Arrays, value: np.ndarray, grad: np.ndarray
) -> None:
    def pad(x: np.ndarray) -> np.ndarray:
        return np.pad(x, [(0, 3), (0, 2)][: x.ndim])

    found = case.run({name: pad(x) for name, x in arrays.items()})
    rule = "padding columns and fully masked rows must change nothing"
    case.both(rule, found, (value, pad(grad)))


def _check_order(
    case: _Case, arrays: Arrays, value: np.ndarray, grad: np.ndarray
) -> None:
    rng = np.random.default_rng(0)
    order, names = rng.permutation(_ROWS), rng.permutation(_GROUPS).astype(np.int32)
    mixed = {name: x[order] for name, x in arrays.items()}
    mixed["group_ids"] = names[mixed["group_ids"]]
    rule = "the order of rows and the names of groups must not matter"
    case.both(rule, case.run(mixed), (value, grad[order]))


def _check_garbage(
    case: _Case, arrays: Arrays, value: np.ndarray, grad: np.ndarray
) -> None:
    for garbage in (np.nan, np.inf, 1e6):
        dirty = {
            name: np.where(arrays["mask"], x, np.float32(garbage))
            if name in case.floats
            else x
            for name, x in arrays.items()
        }
        rule = f"{garbage} under the mask must not be seen"
        case.both(rule, case.run(dirty), (value, grad))


def _check_extremes(
    case: _Case, arrays: Arrays, value: np.ndarray, grad: np.ndarray
) -> None:
    signs = np.where(np.arange(_ROWS * _TOKENS) % 2, 1, -1).reshape(_ROWS, _TOKENS)
    far = (arrays["logprobs"] + 100.0 * signs).astype(np.float32)
    moved = {name: far for name in arrays if name.endswith("_logprobs")}
    found, slope = case.run({**arrays, **moved})
    if not (np.isfinite(found) and np.isfinite(slope).all()):
        raise AssertionError(
            f"log-ratios of +-100 must stay finite, got a value of {found} and "
            f"{(~np.isfinite(slope)).sum()} gradients that are not"
        )


def _check_empty(
    case: _Case, arrays: Arrays, value: np.ndarray, grad: np.ndarray
) -> None:
    nothing = {**arrays, "mask": np.zeros_like(arrays["mask"])}
    zeros = np.zeros(()), np.zeros_like(grad)
    case.both("an empty mask must give 0", case.run(nothing), zeros)


def _check_bfloat16(
    case: _Case, arrays: Arrays, value: np.ndarray, grad: np.ndarray
) -> None:
    coarse: dict[str, Any] = {
        name: jnp.asarray(arrays[name], jnp.bfloat16) for name in case.floats
    }
    exact = {name: np.asarray(x, np.float32) for name, x in coarse.items()}
    found, _ = case.run({**arrays, **coarse})
    wanted, _ = case.run({**arrays, **exact})
    case.same("bfloat16 must be computed in float32", found, wanted)


def _check_constants(
    case: _Case, arrays: Arrays, value: np.ndarray, grad: np.ndarray
) -> None:
    counts = counts_of(arrays)

    def scalar(constants: dict[str, jax.Array]) -> jax.Array:
        return case.scalar(arrays["logprobs"], {**arrays, **constants}, counts)

    names = [name for name in case.floats if name not in ("logprobs", "entropy")]
    slopes = jax.jit(jax.grad(scalar))({name: arrays[name] for name in names})
    for name, slope in slopes.items():
        if np.any(np.asarray(slope) != 0):
            raise AssertionError(f"{name} must have no gradient, got one that is not 0")


def _check_vmap(
    case: _Case, arrays: Arrays, value: np.ndarray, grad: np.ndarray
) -> None:
    twice = {name: np.stack([x, x]) for name, x in arrays.items()}
    counts = jax.tree.map(lambda x: jnp.stack([x, x]), counts_of(arrays))
    found = jax.vmap(case.step)(twice["logprobs"], twice, counts)
    case.both("vmap must change nothing", found, (np.stack([value] * 2), [grad, grad]))


def _check_reference(
    case: _Case,
    arrays: Arrays,
    value: np.ndarray,
    grad: np.ndarray,
    reference: Callable[..., float],
) -> None:
    mask = arrays["mask"]
    exact = {
        name: np.where(mask, arrays[name].astype(np.float64), 0.0)
        for name in case.floats
    }
    named: dict[str, Any] = {
        name: exact.get(name, arrays["group_ids"]) for name in case.inputs
    }
    if "group_ids" in named:
        named["num_groups"] = _GROUPS

    def scalar(logprobs: np.ndarray) -> float:
        old, advantages = exact["old_logprobs"], exact["advantages"]
        return float(reference(logprobs, old, advantages, mask, **named))

    case.same("the value must be the reference's", value, scalar(exact["logprobs"]))
    slope, size = np.zeros(mask.shape), 1e-6
    for place in zip(*np.nonzero(mask), strict=True):
        step = np.zeros(mask.shape)
        step[place] = size
        up, down = scalar(exact["logprobs"] + step), scalar(exact["logprobs"] - step)
        slope[place] = (up - down) / (2 * size)
    case.same("the gradient must be the reference's", grad, slope, "a gradient of ")
