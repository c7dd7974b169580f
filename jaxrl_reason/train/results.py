"""The results of a run: curves, report, samples, the exported model."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxrl_reason.pretrained.model_card import Figure, ModelCard
from jaxrl_reason.pretrained.model_folder import export_model
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.metrics_log import Row, read_metrics
from jaxrl_reason.runs.monitor import peak_memory_bytes, versions
from jaxrl_reason.runs.plots import plot_run
from jaxrl_reason.runs.run_curve import curve_of_rows, forecast_of
from jaxrl_reason.runs.run_folder import RunFolder
from jaxrl_reason.runs.run_log import say
from jaxrl_reason.runs.run_report import Report, write_report
from jaxrl_reason.runs.run_warnings import warnings_of_run
from jaxrl_reason.sampler import SamplingSettings
from jaxrl_reason.sharding.processes import count, fetch, is_main
from jaxrl_reason.train.heldout_figures import (
    Figures,
    intervals,
    metrics_table,
    task_metrics_before,
    values,
)
from jaxrl_reason.train.run_setup import RunSetup
from jaxrl_reason.train.session import StageResult


@dataclass(frozen=True)
class RunResult:
    """The results of a run.

    Attributes:
      before: held-out accuracies of the stage's initial model.
      after: those of the trained model; both are None if no policy was trained.
      stage: the result of the stage.
    """

    before: Figures | None
    after: Figures | None
    stage: StageResult


def write_run_report(
    setup: RunSetup,
    run: RunFolder,
    result: RunResult,
    seconds: Mapping[str, float],
    responses: Rollouts | None = None,
) -> Path:
    """Writes curves.png, report.json and report.md.

    Args:
      setup: of the run.
      run: its folder.
      result: of its stage.
      seconds: stage -> wall seconds.
      responses: the greedy held-out ones after training.

    Returns:
      report.md.
    """
    rows = read_metrics(run.metrics_path)
    forecast = draw_curves(setup, run, result, rows)
    found = figures_of_run(setup, result, rows)
    first, last = task_metrics_before(run.path), Row()
    more = dict(found.more)
    if responses is not None:
        last = setup.heldout.task_metrics(responses)
        more["heldout_unchecked"], more["heldout_failed"] = rates(responses)
    report = dataclasses.replace(
        found,
        name=run.path.name,
        forecast=forecast,
        wall_seconds=seconds,
        more={**more, "task_before": first, "task_after": last},
    )
    page = write_report(run.path, report).with_suffix(".md")
    with page.open("a", encoding="utf-8") as file:
        if result.before is not None and result.after is not None:
            file.write(intervals(result.before, result.after))
            file.write(metrics_table(first, last))
        file.write(grading_notes(setup.problems.ungradable, responses))
    return page


def draw_curves(
    setup: RunSetup, run: RunFolder, result: RunResult, rows: Sequence[Row]
) -> dict[str, float] | None:
    """Draws curves.png; returns the forecast in it, if there is one."""
    settings, before = setup.settings, result.before
    clip = (settings.dapo.clip_low, settings.dapo.clip_high)
    baseline = None if before is None else before["greedy"].value
    problems = len(setup.heldout.problems)
    curve = curve_of_rows(rows, baseline=baseline, problems=problems)
    fit = curve.fit()
    plot_run(
        rows,
        run.curves_path,
        title=title_of(setup),
        baseline=baseline,
        length_limit=settings.rl.max_new_tokens,
        clip_range=clip if settings.method == "dapo" else None,
        fit=fit,
    )
    return None if fit is None else forecast_of(curve, fit)


def figures_of_run(setup: RunSetup, result: RunResult, rows: Sequence[Row]) -> Report:
    """The report's figures that follow from set-up, result and rows."""
    settings, before, after = setup.settings, result.before, result.after
    avg = f"avg_at_{settings.eval.samples}"
    warm = [row for row in rows if row["step"] > result.stage.first_step + 2]
    return Report(
        name="",
        method=settings.method,
        seed=settings.seed,
        steps=result.stage.step,
        heldout_problems=len(setup.heldout.problems),
        heldout_accuracy_before=figure(before, "greedy"),
        heldout_accuracy_rl=figure(after, "greedy"),
        heldout_samples=settings.eval.samples,
        heldout_temperature=settings.eval.temperature,
        heldout_avg_before=figure(before, avg),
        heldout_avg_rl=figure(after, avg),
        rollout_tokens_per_second=rate(rows, "rollout"),
        train_tokens_per_second=rate(rows, "train"),
        peak_memory_bytes=peak_memory_bytes(),
        compiles_after_warm_up=int(sum(row.get("time/compiles", 0) for row in warm)),
        settings=settings,
        versions=versions(),
        warnings=warnings_of_run(rows, settings.warnings),
        more={
            "first_step": result.stage.first_step,
            "eval_split": settings.eval.split,
            "model_digest": None if setup.files is None else setup.files.digest,
            "train_problems": len(setup.problems.train),
            "dropped_problems": setup.problems.dropped,
            "ungradable": {str(k): x for k, x in setup.problems.ungradable.items()},
            "heldout_unchecked": None,
            "heldout_failed": None,
            "before": plain(before),
            "after": plain(after),
        },
    )


def rates(responses: Rollouts) -> tuple[float, float]:
    """The fractions of responses whose check ran into a bound, and that failed."""
    return float(responses.unchecked.mean()), float(responses.failed.mean())


def grading_notes(
    ungradable: Mapping[int, str], responses: Rollouts | None, shown: int = 5
) -> str:
    """What could not be graded, for the report; empty if all could."""
    lines = []
    if ungradable:
        lines = [
            "",
            f"{len(ungradable)} questions have an answer that cannot be graded: they "
            "are left out of training, and fail in the held-out evaluation.",
            "",
            *(f"- question {n}: {why}" for n, why in [*ungradable.items()][:shown]),
            *(["- ..."] if len(ungradable) > shown else []),
        ]
    unchecked, failed = (0.0, 0.0) if responses is None else rates(responses)
    if unchecked or failed:
        lines += [
            "",
            f"Of the greedy held-out responses after training, {unchecked:.1%} are "
            f"wrong because checking them ran into a bound, and the grader failed on "
            f"{failed:.1%}.",
        ]
    return "\n".join([*lines, ""]) if lines else ""


def title_of(setup: RunSetup) -> str:
    """A one-line description of the run."""
    settings = setup.settings
    name = settings.name or settings.task.short_name.capitalize()
    return f"{settings.method.upper()} on {name}, seed {settings.seed}"


def figure(found: Figures | None, name: str) -> float | None:
    """One of the accuracies, None if it was not measured."""
    return None if found is None else values(found)[name]


def plain(found: Figures | None) -> dict[str, Any] | None:
    """The accuracies with their intervals, for JSON."""
    if found is None:
        return None
    return {name: dataclasses.asdict(x) for name, x in found.items()}


def rate(rows: Sequence[Row], phase: str) -> float | None:
    """Tokens per second of a phase over all steps."""
    timed = [row for row in rows if f"time/{phase}_s" in row]
    seconds = sum(row[f"time/{phase}_s"] for row in timed)
    tokens = sum(row.get(f"{phase}/tokens", 0.0) for row in timed)
    return tokens / seconds if seconds and tokens else None


def export_trained(setup: RunSetup, result: RunResult) -> None:
    """Writes the trained model as a folder, if requested."""
    settings, files = setup.settings, setup.files
    folder = settings.export.folder
    if folder is None or files is None or result.stage.params is None:
        return
    params = result.stage.params
    if count() > 1:
        params = jax.tree.map(fetch, params)  # one array after the other
    if not is_main():
        return
    export_model(
        folder,
        setup.model.config,
        params,
        files.tokenizer,
        model_card(setup, result),
        sampling=SamplingSettings(
            max_new_tokens=settings.rl.max_new_tokens,
            eos_token_ids=(),
            temperature=0.0,
        ),
        family=setup.built.family,
    )
    say(f"model: {folder}")


def model_card(setup: RunSetup, result: RunResult) -> ModelCard:
    """The model card: training data, method and results."""
    s, rl = setup.settings, setup.settings.rl
    base, first = s.export.base_model or s.model.source, setup.problems.train[0]
    asked = setup.task.tokenizer.decode(setup.task.prompt_tokens(first))
    before, after = result.before or {}, result.after or {}
    return ModelCard(
        name=f"{Path(base).name}, {s.method.upper()} on {s.task.short_name}",
        base_model=base,
        license=s.export.license,
        data=f"{len(setup.problems.train):,} questions, such as: "
        f'"{getattr(first, "question", asked)}"',
        recipe=f"{s.method.upper()}, {result.stage.step} steps of "
        f"{rl.prompts_per_step} prompts with {rl.group_size} responses each and "
        f"{rl.updates_per_rollout} AdamW updates at a learning rate of "
        f"{s.optimizer.learning_rate:g}, temperature {rl.temperature:g}, at most "
        f"{rl.max_new_tokens} new tokens, seed {s.seed}.",
        figures=tuple(
            Figure(
                f"held-out accuracy, {name.replace('_at_', '@')}",
                first_figure.value,
                after[name].value,
            )
            for name, first_figure in before.items()
        ),
        measured=f"{len(setup.heldout.problems)} questions that training never saw; "
        f"samples at temperature {s.eval.temperature:g}.",
        language=("en",),
    )
