"""The report of a run: report.json with fixed keys, report.md to read."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxrl_reason.runs.files import atomic_write
from jaxrl_reason.runs.run_folder import to_plain


@dataclass(frozen=True)
class Report:
    """The results of a run. The fields are the keys of report.json.

    Accuracies are fractions of right answers; None is "not measured".

    Attributes:
      name: of the run.
      method: of RL ("dapo", "grpo", ...).
      seed: of the run.
      finished: whether all steps were done (False: the run was stopped earlier).
      steps: RL iterations done.
      heldout_problems: problems in the held-out evaluation.
      heldout_accuracy_before: of greedy answers before RL.
      heldout_accuracy_rl: of greedy answers after RL.
      heldout_samples: samples per problem for the two averages.
      heldout_temperature: of these samples.
      heldout_avg_before: mean accuracy over the samples, before RL.
      heldout_avg_rl: the same after RL.
      forecast: `run_curve.forecast_of` the run; None with too few evaluations.
      wall_seconds: stage -> wall seconds.
      rollout_tokens_per_second: sampled tokens per second of the rollouts.
      train_tokens_per_second: trained tokens per second of the updates.
      peak_memory_bytes: peak resident memory of the process.
      compiles_after_warm_up: XLA compilations after the second step.
      settings: of the run.
      versions: of Python and packages.
      warnings: what `run_warnings.warnings_of_run` found in the rows.
      more: anything else.
    """

    name: str
    method: str
    seed: int
    finished: bool = True
    steps: int | None = None
    heldout_problems: int | None = None
    heldout_accuracy_before: float | None = None
    heldout_accuracy_rl: float | None = None
    heldout_samples: int | None = None
    heldout_temperature: float = 1.0
    heldout_avg_before: float | None = None
    heldout_avg_rl: float | None = None
    forecast: Mapping[str, float] | None = None
    wall_seconds: Mapping[str, float] = field(default_factory=dict)
    rollout_tokens_per_second: float | None = None
    train_tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    compiles_after_warm_up: int | None = None
    settings: Any = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[Mapping[str, Any]] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


def write_report(run_dir: str | Path, report: Report) -> Path:
    """Writes report.json and report.md into a run's folder.

    `wall_seconds_total` and `heldout_gain_points` (percentage points of greedy accuracy
    gained by RL) are computed and added to report.json.

    Args:
      run_dir: folder of the run.
      report: the results.

    Returns:
      report.json.
    """
    fields = {f.name: getattr(report, f.name) for f in dataclasses.fields(report)}
    fields = {
        **fields,
        "wall_seconds_total": sum(report.wall_seconds.values()),
        "heldout_gain_points": _gain(
            report.heldout_accuracy_before, report.heldout_accuracy_rl
        ),
    }
    plain = {name: _plain(value) for name, value in fields.items()}
    path = Path(run_dir) / "report.json"
    atomic_write(path, json.dumps(plain, indent=2, allow_nan=False) + "\n")
    atomic_write(path.with_suffix(".md"), _page(report))
    return path


def _page(report: Report) -> str:
    state = "finished" if report.finished else "stopped before its end"
    lines = [
        f"# Report of {report.name}",
        "",
        f"{report.method}, seed {report.seed}, "
        + (f"{report.steps} steps, " if report.steps is not None else "")
        + f"{state}.",
        "",
        *_accuracy_table(report),
        *_forecast(report.forecast),
        "| stage | time |",
        "|---|---|",
        *(f"| {name} | {duration(s)} |" for name, s in report.wall_seconds.items()),
        f"| total | {duration(sum(report.wall_seconds.values()))} |",
        "",
    ]
    if (speed := report.rollout_tokens_per_second) is not None:
        lines.append(f"- rollout: {speed:,.0f} tokens per second")
    if (speed := report.train_tokens_per_second) is not None:
        lines.append(f"- training: {speed:,.0f} tokens per second")
    if report.peak_memory_bytes is not None:
        lines.append(f"- peak memory: {report.peak_memory_bytes / 2**20:,.0f} MiB")
    if report.compiles_after_warm_up is not None:
        lines.append(f"- compilations after step 2: {report.compiles_after_warm_up}")
    lines.append("- settings, versions and all else: report.json")
    lines += _warnings(report.warnings)
    return "\n".join(lines) + "\n"


def _warnings(warnings: Sequence[Mapping[str, Any]]) -> list[str]:
    """What went wrong, what to look at."""
    if not warnings:
        return []
    rows = [
        f"| {x['cause']} | {x['first_step']} to {x['last_step']}, {x['rows']} rows | "
        f"{x['what']} | {x['look_at']} |"
        for x in warnings
    ]
    head = ["", "| warning | steps | first seen | what to do |", "|---|---|---|---|"]
    return [*head, *rows]


def _forecast(found: Mapping[str, float] | None) -> list[str]:
    if found is None:
        return []

    def shown(name: str) -> str:
        ends = (_percent(found[f"{name}_{end}"]) for end in ("low", "high"))
        return f"{_percent(found[name])} ({' to '.join(ends)})"

    return [
        f"Forecast from {found['evaluations']:g} evaluations, with bands of 80%: "
        f"{shown('accuracy')} at step {found['step']:g}; asymptote of the fitted "
        f"sigmoid {shown('asymptote')}.",
        "",
    ]


def _accuracy_table(report: Report) -> list[str]:
    count = report.heldout_samples or "several"
    rows = [
        ("greedy", report.heldout_accuracy_before, report.heldout_accuracy_rl),
        (
            f"mean of {count} samples, temperature {report.heldout_temperature:g}",
            report.heldout_avg_before,
            report.heldout_avg_rl,
        ),
    ]
    rows = [row for row in rows if row[1] is not None or row[2] is not None]
    if not rows:
        return []
    problems = f" ({report.heldout_problems} problems)" * bool(report.heldout_problems)
    lines = [
        f"| held-out accuracy{problems} | before RL | after RL | gain |",
        "|---|---|---|---|",
    ]
    for name, before, after in rows:
        gain = _gain(before, after)
        shown = "-" if gain is None else f"{gain:+.1f} points"
        lines.append(f"| {name} | {_percent(before)} | {_percent(after)} | {shown} |")
    return [*lines, ""]


def duration(seconds: float) -> str:
    """Formats seconds for people.

    >>> duration(8.26), duration(257), duration(7384)
    ('8.3 s', '4 min 17 s', '2 h 03 min')
    """
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _gain(before: float | None, after: float | None) -> float | None:
    if before is None or after is None:
        return None
    return round(100 * (after - before), 6)


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f}%"


def _plain(value: Any) -> Any:
    """As to_plain, but None for nan and inf: the value must be a number."""
    plain = to_plain(value)
    if plain in ("nan", "inf", "-inf") and not isinstance(value, str):
        return None
    return plain
