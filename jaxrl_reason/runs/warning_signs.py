"""Signs in a run's metrics that it goes wrong: rows in, warnings out.

Any loop's rows will do: a rule whose metrics are missing says nothing.

    for sign in warning_signs(read_metrics("runs/mine/metrics.jsonl")):
        print(sign)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# A row of metrics: name -> number, with the row's "step".
MetricRow = Mapping[str, float]


@dataclass(frozen=True)
class WarningSettings:
    """When a run warns (docs/runs.md).

    Attributes:
      loss_spike: distance of the loss from its median in the last rows, in units of
        their usual distance from it.
      entropy: of the policy in nats, at or below which it repeats itself.
      sampler_drift: KL divergence (k3) of trainer and sampler, in nats per token.
      truncated: fraction of responses that the limit cuts off.
      failed_grades: fraction of responses on which the grader fails.
      rows: rows in a row in which a sign that may be an accident must hold.
      history: rows before the newest that say what is usual.
      off: causes that are not looked for.

    Raises:
      ValueError: a number is out of range, or a cause is unknown.
    """

    loss_spike: float = 20.0
    entropy: float = 0.01
    sampler_drift: float = 0.05
    truncated: float = 0.9
    failed_grades: float = 0.25
    rows: int = 5
    history: int = 50
    off: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("loss_spike", "sampler_drift", "truncated", "failed_grades"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        if not self.entropy >= 0:
            raise ValueError(f"entropy must be >= 0, got {self.entropy}")
        for name in ("rows", "history"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        check_causes("off", self.off)


@dataclass(frozen=True)
class WarningSign:
    """A sign that a run goes wrong.

    Attributes:
      cause: its name, a key of CAUSES.
      step: of the row.
      what: what was seen, in words.
      look_at: what to look at.
    """

    cause: str
    step: int
    what: str
    look_at: str

    def __str__(self) -> str:
        return f"warning: step {self.step}: {self.what}; {self.look_at} [{self.cause}]"


def warning_signs(
    rows: Sequence[MetricRow], settings: WarningSettings | None = None
) -> list[WarningSign]:
    """The signs in the newest row, in the light of those before it.

    Args:
      rows: of one loop, oldest first.
      settings: thresholds; the usual ones if left out.

    Returns:
      At most one for each cause.

    Example:
      >>> rows = [{"step": i, "policy/grad_norm": 0.0} for i in range(1, 6)]
      >>> [(sign.cause, sign.step) for sign in warning_signs(rows)]
      [('zero_gradient', 5)]
    """
    settings = settings or WarningSettings()
    if not rows:
        return []
    seen = rows[-settings.history - settings.rows :]
    found = []
    for cause, (rule, look_at) in CAUSES.items():
        if cause not in settings.off and (what := rule(seen, settings)):
            step = int(rows[-1].get("step", len(rows)))
            found.append(WarningSign(cause, step, what, look_at))
    return found


def check_causes(name: str, causes: Sequence[str]) -> None:
    """Raises for causes that there are not.

    Args:
      name: of the setting that holds them.
      causes: to check.

    Raises:
      ValueError: one is unknown.
    """
    for cause in causes:
        if cause not in CAUSES:
            raise ValueError(f"{name} must be of {', '.join(CAUSES)}, got {cause!r}")


def _loss_spike(rows: Sequence[MetricRow], s: WarningSettings) -> str:
    for name in (x for x in rows[-1] if x.endswith("/loss")):
        *before, now = _column(rows, name)
        before = before[-s.history :]
        if len(before) < 10 or not math.isfinite(now):
            continue
        median = float(np.median(before))
        apart = np.abs(np.array(before) - median)
        # Losses around 0 or all alike: small changes are no spike.
        usual = max(float(np.median(apart)), 0.01 * abs(median), 1e-4)
        if abs(now - median) > s.loss_spike * usual and abs(now - median) > apart.max():
            return f"{name} is {now:.4g}, usually {median:.4g} +- {usual:.2g}"
    return ""


def _entropy_at_0(rows: Sequence[MetricRow], s: WarningSettings) -> str:
    name = "policy/entropy"
    name = name if name in rows[-1] else "policy/entropy_sampled"
    if _holds(rows, name, s.rows, lambda x: x <= s.entropy):
        return f"{name} is {rows[-1][name]:.2g} nats"
    return ""


def _reward_at_0(rows: Sequence[MetricRow], s: WarningSettings) -> str:
    if _nothing_to_learn(rows, s) and _holds(
        rows, "reward/accuracy", s.rows, lambda x: x <= 0
    ):
        return f"no response of {s.rows} rows was right, and rewards tell nothing apart"
    return ""


def _reward_at_1(rows: Sequence[MetricRow], s: WarningSettings) -> str:
    if _nothing_to_learn(rows, s) and _holds(
        rows, "reward/accuracy", s.rows, lambda x: x >= 1
    ):
        return f"all responses of {s.rows} rows were right"
    return ""


def _nothing_to_learn(rows: Sequence[MetricRow], s: WarningSettings) -> bool:
    """Rewards of one's own may differ although all responses are right, or none."""
    name = "groups/equal_rewards_fraction"
    return name not in rows[-1] or _holds(rows, name, s.rows, lambda x: x > 0.5)


def _sampler_drift(rows: Sequence[MetricRow], s: WarningSettings) -> str:
    name = "sampler/kl_k3"
    now = rows[-1].get(name, 0.0)
    if now > s.sampler_drift:
        return f"sampler and trainer differ by {now:.2g} nats per token ({name})"
    return ""


def _truncated(rows: Sequence[MetricRow], s: WarningSettings) -> str:
    name = "rollout/truncated_fraction"
    if _holds(rows, name, s.rows, lambda x: x >= s.truncated):
        return f"the length limit cuts off {rows[-1][name]:.0%} of the responses"
    return ""


def _zero_gradient(rows: Sequence[MetricRow], s: WarningSettings) -> str:
    for name in (x for x in rows[-1] if x.endswith("/grad_norm")):
        if _holds(rows, name, s.rows, lambda x: x == 0):
            return f"{name} was exactly 0 in {s.rows} rows: nothing is learnt"
    return ""


def _skipped_update(rows: Sequence[MetricRow], s: WarningSettings) -> str:
    for name, x in rows[-1].items():
        if name.endswith("/skipped_update_fraction") and x > 0:
            return f"{x:.0%} of the updates were skipped: gradients not finite ({name})"
    return ""


def _failed_grades(rows: Sequence[MetricRow], s: WarningSettings) -> str:
    x = rows[-1].get("reward/grader_failed_fraction", 0.0)
    if x >= s.failed_grades:
        return f"the grader failed on {x:.0%} of the responses"
    return ""


Rule = Callable[[Sequence[MetricRow], WarningSettings], str]
# Cause -> (rows -> what was seen, or nothing; what to look at).
CAUSES: Mapping[str, tuple[Rule, str]] = {
    "loss_spike": (
        _loss_spike,
        "look at policy/grad_norm and the samples of this step; a run "
        "with a lower learning rate or a smaller max_grad_norm has fewer",
    ),
    "entropy_at_0": (
        _entropy_at_0,
        "all samples to a question are alike: start a run with a higher clip_high or "
        "temperature, or a lower learning rate",
    ),
    "reward_at_0": (
        _reward_at_0,
        "look at the samples: does the grader read the answers? else use easier "
        "questions or fine-tune first",
    ),
    "reward_at_1": (
        _reward_at_1,
        "the questions are solved, or the grader is fooled: look at the samples, use "
        "harder questions",
    ),
    "sampler_drift": (
        _sampler_drift,
        "look at sampler/ess_fraction, the dtype of the sampler's cache and of a "
        "serving engine, and the age of the rollouts (rollout/policy_lag)",
    ),
    "truncated": (
        _truncated,
        "raise rl.max_new_tokens, or look at whether responses ever end",
    ),
    "zero_gradient": (
        _zero_gradient,
        "look at groups/equal_rewards_fraction and the advantages: all rewards of a "
        "group are alike, or the loss does not depend on the model",
    ),
    "skipped_update": (
        _skipped_update,
        "look at the loss, the rewards and the dtype; a run of them ends the run",
    ),
    "failed_grades": (
        _failed_grades,
        "the first error of each round is in run.log",
    ),
}


def _column(rows: Sequence[MetricRow], name: str) -> list[float]:
    return [row[name] for row in rows if name in row]


def _holds(
    rows: Sequence[MetricRow], name: str, count: int, test: Callable[[float], bool]
) -> bool:
    """Whether it holds in the newest rows, as many as are asked for."""
    newest = [row.get(name) for row in rows[-count:]]
    return len(newest) == count and all(x is not None and test(x) for x in newest)
