"""The published losses nearest to a loss."""

import functools
import inspect
from typing import NamedTuple

import numpy as np

import jaxrl_reason.losses
from jaxrl_reason.testing.arrays import Arrays, random_arrays
from jaxrl_reason.testing.case import Case
from jaxrl_reason.testing.evaluate import ARGUMENTS, JaxLoss, Loss, LossFunction, needs

# Settings for which no paper gives a value. A length changes only the scale.
_UNPUBLISHED = {
    "length": 8.0,
    "log_ratio_high": 0.5,
    "log_ratio_low": -0.5,
    "pull_coef": 1e-3,
    "ratio_high": 5.0,
}
_SEEDS = (11, 12)


class Neighbour(NamedTuple):
    """A published loss, compared with another loss.

    Attributes:
      name: of the published loss, with its bound arguments.
      distance: |g - g'| / |g| of the gradients, over all tokens of some mini-batches.
      shape: the same for the best multiple of g', `scale` g'.
      scale: that multiple.
    """

    name: str
    distance: float
    shape: float
    scale: float


def published_losses() -> dict[str, LossFunction]:
    """Every policy loss of the library, at its paper's settings.

    Returns:
      The functions by name, to call with the five arguments.
    """
    found: dict[str, LossFunction] = {}
    for name in jaxrl_reason.losses.__all__:
        function = getattr(jaxrl_reason.losses, name)
        if not name.endswith("_loss") or not inspect.isfunction(function):
            continue
        names = list(inspect.signature(function).parameters)
        if tuple(names[: len(ARGUMENTS)]) == ARGUMENTS:
            settings = {k: v for k, v in _UNPUBLISHED.items() if k in names}
            found[name] = functools.partial(function, **settings)
    return found


def nearest(case: Case) -> list[Neighbour]:
    """All published losses, nearest first.

    A loss that needs an input or a key that this one does not take is left out.

    Args:
      case: a loss under test.

    Returns:
      The neighbours, by distance.
    """
    batches = _batches(case)
    own = _gradients(case.loss, batches)
    found = []
    for name, function in published_losses().items():
        names = inspect.signature(function).parameters
        inputs = [x for x in case.loss.inputs if x in names]
        if needs(function, inputs):
            continue
        try:
            other = _gradients(JaxLoss(function, inputs), batches)
        except ValueError:  # needs other arguments without a default
            continue
        found.append(_neighbour(_label(name, function), own, other))
    return sorted(found, key=lambda x: (x.distance, x.shape))


def _label(name: str, function: LossFunction) -> str:
    bound = getattr(function, "keywords", {})
    return name + "".join(f", {key} {value:g}" for key, value in bound.items())


def _batches(case: Case) -> list[Arrays]:
    """Mini-batches at random ratios, at ratio 1 and at closely spaced ratios."""
    drawn = [random_arrays(seed, case.loss.inputs) for seed in _SEEDS]
    still = {**drawn[0], "logprobs": drawn[0]["old_logprobs"]}
    return [*drawn, still, _ratio_grid(drawn[0], 1), _ratio_grid(drawn[1], -1)]


def _ratio_grid(arrays: Arrays, sign: int) -> Arrays:
    """Closely spaced log-ratios and A of one sign, to distinguish clips."""
    old = arrays["old_logprobs"]
    steps = np.linspace(-0.5, 0.5, old.size).reshape(old.shape)
    return {
        **arrays,
        "logprobs": (old + steps).astype(np.float32),
        "advantages": sign * np.abs(arrays["advantages"]),
        "mask": np.ones_like(arrays["mask"]),
    }


def _gradients(loss: Loss, batches: list[Arrays]) -> np.ndarray:
    return np.concatenate([loss.run(x).grad[x["mask"]] for x in batches])


def _neighbour(name: str, own: np.ndarray, other: np.ndarray) -> Neighbour:
    size = max(float(np.linalg.norm(own)), 1e-30)
    scale = float(own @ other) / max(float(other @ other), 1e-30)
    distance = float(np.linalg.norm(own - other)) / size
    return Neighbour(
        name, distance, float(np.linalg.norm(own - scale * other)) / size, scale
    )


def weighting(case: Case) -> tuple[str, float]:
    """The mean that a loss takes: its weights of tokens at ratio 1.

    Args:
      case: a loss under test.

    Returns:
      `token_mean`, `sequence_mean` or `sequence_sum_mean`, and its factor; or "none of
      these" and 0.
    """
    mask = case.still["mask"]
    own = np.abs(case.loss.run(case.still).grad)
    lengths = np.maximum(mask.sum(1, keepdims=True), 1)
    sequences = (mask.sum(1) > 0).sum()
    means = {
        "token_mean": mask / mask.sum(),
        "sequence_mean": mask / lengths / sequences,
        "sequence_sum_mean": mask / sequences,
    }
    fitting = {}
    for name, weights in means.items():
        factor = float((own * weights).sum() / (weights**2).sum())
        if np.allclose(own, factor * weights, rtol=1e-4, atol=1e-7) and factor > 0:
            fitting[name] = factor
    if not fitting:
        return "none of these", 0.0
    # `sequence_sum_mean` is a multiple of `token_mean`.
    return min(fitting.items(), key=lambda x: abs(np.log(x[1])))
