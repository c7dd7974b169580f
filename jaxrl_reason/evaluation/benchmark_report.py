"""report.json and the table of an evaluation."""

import dataclasses
import json
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from jaxrl_reason.evaluation.decoding import Decoding
from jaxrl_reason.evaluation.gsm_plus import robustness
from jaxrl_reason.evaluation.records import Records
from jaxrl_reason.evaluation.statistics import (
    Equal,
    Estimate,
    greedy_figures,
    response_figures,
    sampled_figures,
)
from jaxrl_reason.runs.files import atomic_write
from jaxrl_reason.tasks.question_files import SEED
from jaxrl_reason.tasks.questions import Question


def build_report(
    questions: Sequence[Question],
    records: Records,
    decodings: Sequence[Decoding],
    about: Mapping[str, Any],
    equal: Equal = operator.eq,
) -> dict[str, Any]:
    """All results of an evaluation, as in report.json.

    Args:
      questions: of the evaluation; records of other questions are left out.
      records: all responses to them.
      decodings: of the responses; one section each.
      about: what was evaluated; comes first.
      equal: whether two answers are one in a vote.

    Returns:
      `about`, and "results": decoding's name -> "figures" (each with value, low, high,
      interval, count) and "responses". Undefined values are None.
    """
    results = {}
    for decoding in decodings:
        known = records.of(decoding.name)
        found = {q.problem_id: known[q.problem_id] for q in questions}
        if any(question.kind == SEED for question in questions):
            figures = robustness(questions, found)
        elif decoding.greedy:
            figures = greedy_figures(found)
        else:
            figures = sampled_figures(found, equal)
        results[decoding.name] = {
            "figures": {name: _plain(figure) for name, figure in figures.items()},
            "responses": response_figures(found),
        }
    return {**about, "results": results}


def write_benchmark_report(records: Records, report: Mapping[str, Any]) -> None:
    """Writes report.json into the folder of the records.

    Args:
      records: of the evaluation.
      report: from `build_report`.
    """
    text = json.dumps(report, indent=2, allow_nan=False) + "\n"
    atomic_write(records.report_path, text)


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Prints the results as tables, one per decoding.

    Args:
      report: from `build_report`.
      console: to print to.
    """
    for name, section in report["results"].items():
        table = Table(title=f"{report.get('task', '')}, {name}")
        for column in ("figure", "%", "95% interval", "interval by", "questions"):
            table.add_column(column, justify="left" if "y" in column else "right")
        table.columns[0].justify = "left"
        for figure, found in section["figures"].items():
            ends = f"{_percent(found['low'])} to {_percent(found['high'])}"
            value = _percent(found["value"])
            table.add_row(figure, value, ends, found["interval"], str(found["count"]))
        console.print(table)
        responses = section["responses"]
        console.print(
            f"{responses['responses']} responses, mean length "
            f"{responses['mean_length']:.0f} tokens, {responses['no_answer']:.1%} "
            f"without a final answer, {responses['truncated']:.1%} stopped by the "
            f"limit, {responses['too_long']} questions too long, "
            f"{responses['unchecked']} wrong because their check ran into a "
            f"bound, {responses['failed_grades']} failed grades",
            highlight=False,
        )


def _plain(figure: Estimate) -> dict[str, Any]:
    """JSON has no nan."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in dataclasses.asdict(figure).items()
    }


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
