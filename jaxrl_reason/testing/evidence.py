"""The contents of a report on a loss, as numbers."""

import datetime
import inspect
import platform
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

import jaxrl_reason
from jaxrl_reason.testing.arrays import ladder, take
from jaxrl_reason.testing.case import Case
from jaxrl_reason.testing.check import Verdict, verdicts
from jaxrl_reason.testing.evaluate import JaxLoss, Loss, LossFunction
from jaxrl_reason.testing.finite_differences import Comparison, compare_gradients
from jaxrl_reason.testing.published import (
    Neighbour,
    nearest,
    published_losses,
    weighting,
)
from jaxrl_reason.testing.toy import interval, learn

GRADIENT_LIMIT = 1e-4  # relative, of float32 against float64
SAME_LIMIT = 1e-5  # relative distance below which two losses are the same
_RATIOS = np.linspace(0.4007, 2.0003, 120)  # does not coincide with a clip bound
_SIGNS = {"A > 0": 1.0, "A < 0": -1.0}
_RESPONSES = (4, 8, 16)
Series = dict[str, list[float]]


@dataclass(frozen=True)
class Evidence:
    """The evidence on a loss.

    Attributes:
      name: of the loss.
      source: its source code, if available.
      framework: jax or torch.
      inputs: what it gets by keyword.
      verdicts: one per law.
      gradients: compared with finite differences.
      neighbours: published losses, nearest first.
      weighting: the mean that it takes, and its factor.
      profiles: objective and gradient of one token by ratio, for A = 1 and A = -1, of
        this loss and of the nearest.
      clips: the ratios `above` or `below` which the gradient is 0, for A = 1 and A =
        -1.
      positions: gradient size by token position, by length of the response.
      curves: accuracy on the toy task by seed and step, of this loss and the nearest.
      made: the versions and settings used.
      seconds: how long it took.
    """

    name: str
    source: str
    framework: str
    inputs: tuple[str, ...]
    verdicts: list[Verdict]
    gradients: list[Comparison] = field(default_factory=list)
    neighbours: list[Neighbour] = field(default_factory=list)
    weighting: tuple[str, float] = ("", 0.0)
    profiles: dict[str, dict[str, Series]] = field(default_factory=dict)
    clips: dict[str, dict[str, float]] = field(default_factory=dict)
    positions: dict[int, list[float]] = field(default_factory=dict)
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def broken(self) -> list[Verdict]:
        """The laws that do not hold."""
        return [x for x in self.verdicts if x.holds is False]

    @property
    def wrong_gradients(self) -> list[Comparison]:
        """The gradients that are not the derivative of the value."""
        return [x for x in self.gradients if x.error > GRADIENT_LIMIT]

    @property
    def learned(self) -> bool:
        """Whether the toy task's accuracy rose for every seed."""
        curves = self.curves.get(self.name)
        if curves is None or not np.isfinite(curves).all():
            return False
        last = curves[:, -5:].mean(1)
        return bool((last > curves[:, 0] + 0.2).all())

    @property
    def passes(self) -> bool:
        """Whether all checks passed."""
        return not self.broken and not self.wrong_gradients and self.learned


def gather_evidence(
    case: Case,
    *,
    skip: Collection[str] = (),
    seeds: int = 8,
    steps: int = 60,
    say: Callable[[str], None] = lambda text: None,
) -> Evidence:
    """Checks the laws and gradients, and runs the nearest method and the toy task.

    Args:
      case: a loss under test.
      skip: names of laws to leave out.
      seeds: toy runs.
      steps: rollouts of each.
      say: is called with a message before each part.

    Returns:
      The evidence; only the verdicts if the loss cannot be evaluated at all.

    Raises:
      ValueError: a name in `skip` is not that of a law.
    """
    start, loss = time.monotonic(), case.loss
    say("laws")
    found = verdicts(case, skip)
    base: dict[str, Any] = {
        "name": loss.name,
        "source": _source(loss.function),
        "framework": loss.framework,
        "inputs": loss.inputs,
        "verdicts": found,
        "made": _made(case, seeds, steps),
    }
    if found[-1].detail.startswith("not tried"):
        return Evidence(**base, seconds=time.monotonic() - start)
    say("gradients")
    gradients = compare_gradients(case)
    say("published losses")
    neighbours = nearest(case)
    beside = _beside(neighbours, loss)
    say("objective and slope")
    shown = {loss.name: loss, **beside}
    profiles = {name: _profile(case, one) for name, one in shown.items()}
    say("learning curves")
    curves = {
        name: np.stack([learn(one, seed, steps).accuracy for seed in range(seeds)])
        for name, one in shown.items()
    }
    return Evidence(
        **base,
        gradients=gradients,
        neighbours=neighbours,
        weighting=weighting(case),
        profiles=profiles,
        clips=_clips(case, profiles[loss.name]),
        positions={n: _positions(case, n) for n in _RESPONSES},
        curves=curves,
        seconds=time.monotonic() - start,
    )


def _beside(neighbours: list[Neighbour], loss: Loss) -> dict[str, Loss]:
    """The nearest published loss, for comparison with this one."""
    if not neighbours:
        return {}
    name = neighbours[0].name.partition(",")[0]
    function = published_losses()[name]
    names = inspect.signature(function).parameters
    shown = name if name != loss.name else f"{name} (published)"
    return {shown: JaxLoss(function, [x for x in loss.inputs if x in names])}


def _profile(case: Case, loss: Loss) -> dict[str, Series]:
    """One token's objective and its gradient in the log-prob, by ratio."""
    found = {}
    for label, sign in _SIGNS.items():
        rows = ladder(np.log(_RATIOS), sign, case.arrays)
        parts = [loss.run(take(rows, slice(i, i + 1))) for i in range(len(_RATIOS))]
        found[label] = {
            "ratio": _RATIOS.tolist(),
            "objective": [-float(x.value) for x in parts],
            "slope": [-float(x.grad[0, 0]) for x in parts],
        }
    return found


def no_slope(profile: Series) -> np.ndarray:
    """The ratios at which the gradient is 0, as at a neighbouring ratio.

    Args:
      profile: objective and gradient of one token.

    Returns:
      A bool for each ratio.
    """
    slope = np.abs(profile["slope"])
    still = slope <= 1e-6 * max(float(slope.max()), 1e-30)
    beside = np.zeros_like(still)
    beside[1:] |= still[:-1]
    beside[:-1] |= still[1:]
    return still & beside


def _clips(case: Case, profiles: dict[str, Series]) -> dict[str, dict[str, float]]:
    """The ratios beyond which the gradient is 0, to four decimals."""
    found: dict[str, dict[str, float]] = {}
    for label, sign in _SIGNS.items():
        found[label] = {}
        ratio, still = np.array(profiles[label]["ratio"]), no_slope(profiles[label])
        if still.all():
            found[label]["above"] = 0.0
            continue
        moving = np.flatnonzero(~still)
        for side, end, step in (("below", moving[0], -1), ("above", moving[-1], 1)):
            if 0 <= end + step < len(ratio):
                pushed, not_pushed = ratio[end], ratio[end + step]
                edge = _edge(case, sign, pushed, not_pushed)
                found[label][side] = round(edge, 4)
    return found


def _edge(case: Case, sign: float, pushed: float, not_pushed: float) -> float:
    """The ratio between two at which the gradient becomes 0, by bisection."""
    for _ in range(12):
        middle = (pushed + not_pushed) / 2
        row = ladder(np.log([middle]), sign, case.arrays)
        if np.abs(case.loss.run(row).grad).max() > 1e-6:
            pushed = middle
        else:
            not_pushed = middle
    return not_pushed


def _positions(case: Case, length: int) -> list[float]:
    """|dL/dlogprob| at ratio 1 and A = 1 by position, in a batch of three lengths."""
    rows = len(_RESPONSES)
    made = ladder(np.zeros(rows), 1.0, case.arrays)
    width = max(_RESPONSES)
    wide = {
        name: np.repeat(x[:, :1], width, 1) if x.ndim == 2 else x
        for name, x in made.items()
    }
    wide["mask"] = np.arange(width) < np.array(_RESPONSES)[:, None]
    grad = np.abs(case.loss.run(wide).grad[_RESPONSES.index(length)])
    return [float(x) for x in grad[:length]]


def _source(function: LossFunction) -> str:
    inner: Any = function
    while hasattr(inner, "func"):
        inner = inner.func
    try:
        return inspect.getsource(inspect.unwrap(inner))
    except (OSError, TypeError):
        return ""


def _made(case: Case, seeds: int, steps: int) -> dict[str, Any]:
    packages = {"jaxrl-reason": jaxrl_reason.__version__}
    for name in (
        "jax",
        "numpy",
        *(["torch"] if case.loss.framework == "torch" else []),
    ):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "packages": packages,
        "seed": case.seed,
        "toy_seeds": seeds,
        "toy_steps": steps,
    }


def evidence_figures(evidence: Evidence) -> dict[str, Any]:
    """The evidence as JSON values; nan is null.

    Args:
      evidence: of `gather_evidence`.

    Returns:
      A dict of numbers, strings, lists and dicts.
    """
    curves = {}
    for name, runs in evidence.curves.items():
        low, high = interval(runs)
        curves[name] = {
            "by_seed": _plain(runs),
            "mean": _plain(runs.mean(0)),
            "interval_low": _plain(low),
            "interval_high": _plain(high),
        }
    name, factor = evidence.weighting
    return {
        "loss": evidence.name,
        "framework": evidence.framework,
        "inputs": list(evidence.inputs),
        "passes": evidence.passes,
        "laws": [
            {
                "name": x.law.name,
                "rule": x.law.rule,
                "holds": x.holds,
                "detail": x.detail,
            }
            for x in evidence.verdicts
        ],
        "gradients": [_plain(x._asdict()) for x in evidence.gradients],
        "nearest": [_plain(x._asdict()) for x in evidence.neighbours],
        "weighting": {"mean": name, "factor": factor},
        "profiles": _plain(evidence.profiles),
        "clips": evidence.clips,
        "positions": _plain({str(k): x for k, x in evidence.positions.items()}),
        "curves": curves,
        "learned": evidence.learned,
        "made": evidence.made,
        "seconds": round(evidence.seconds, 1),
    }


def _plain(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return _plain(x.tolist())
    if isinstance(x, dict):
        return {name: _plain(one) for name, one in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(one) for one in x]
    if isinstance(x, float):
        return x if np.isfinite(x) else None
    return x
