"""The figures of a cleaning: what was dropped and why, lengths, pass rates."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl_reason.data.clean_part import BAD
from jaxrl_reason.data.clean_selection import CleanRows, Selection

EXAMPLES = 5  # rows of a kind that a message or a page shows
_MOST_MATCHED = 10
_BINS = 24
_PERCENTILES = (0, 25, 50, 75, 95, 100)
# The upper ends of difficulty buckets, by pass rate; those of 0 and 1 stand alone.
_BUCKETS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Drops:
    """What the file of dropped rows shows.

    Attributes:
      examples: the first rows of each reason.
      bad: the first rows that were not of the form.
      matched: how often each question of a benchmark was found.
    """

    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    bad: list[dict[str, str]] = field(default_factory=list)
    matched: Counter[str] = field(default_factory=Counter)


def write_dropped(work: Path, rows: CleanRows, selection: Selection) -> Drops:
    """Writes dropped.jsonl: of each part first what its own checks dropped.

    Args:
      work: folder of the parts, which gets the file.
      rows: of all parts.
      selection: what was dropped among them.

    Returns:
      Examples and counts.
    """
    drops = Drops()
    with open(work / "dropped.jsonl", "wb") as file:
        for part, name in enumerate(rows.names):
            for line in (work / f"{name}.dropped.jsonl").read_bytes().splitlines(True):
                file.write(line)
                _note(drops, json.loads(line))
            for position, row in rows.of_part(part):
                if not selection.kept[position]:
                    found = selection.line(position, row)
                    file.write(found.line().encode())
                    _note(drops, vars(found))
    return drops


def _note(drops: Drops, row: Mapping[str, str]) -> None:
    if row["reason"] in BAD and len(drops.bad) < EXAMPLES:
        drops.bad.append(dict(row))
    shown = drops.examples.setdefault(row["reason"], [])
    if len(shown) < EXAMPLES:
        shown.append(dict(row))
    if row["reason"] == "contaminated":
        drops.matched[row["other"]] += 1


def report_of(
    identity: Mapping[str, Any],
    counts: Mapping[str, Counter[str]],
    rows: CleanRows,
    selection: Selection,
    rates: np.ndarray | None,
    drops: Drops,
) -> dict[str, Any]:
    """The report.

    Args:
      identity: sources and settings.
      counts: of each part.
      rows: of all parts.
      selection: what is left.
      rates: [R, 2] right and graded responses; None if none were sampled.
      drops: of `write_dropped`.

    Returns:
      JSON values.
    """
    dropped = dropped_counts(counts, selection)
    matched = sorted(drops.matched.items(), key=lambda item: (-item[1], item[0]))
    kept = selection.kept
    return {
        "rows": sum(part.total() for part in counts.values()),
        "kept": int(kept.sum()),
        "dropped": dict(sorted(dropped.items(), key=lambda item: (-item[1], item[0]))),
        "sources": _sources(identity, counts, rows, kept),
        "benchmarks": identity["benchmarks"],
        "benchmark_questions_found": len(matched),
        "most_matched": matched[:_MOST_MATCHED],
        "first_bad": drops.bad,
        "examples": drops.examples,
        "lengths": {
            "question_words": lengths(rows.arrays["words"][kept]),
            "answer_characters": lengths(rows.arrays["answer_length"][kept]),
        },
        "pass_rates": None if rates is None else rate_buckets(rates, kept),
        "identity": identity,
    }


def dropped_counts(
    counts: Mapping[str, Counter[str]], selection: Selection
) -> dict[str, int]:
    """How many rows went, by reason.

    Args:
      counts: of each part.
      selection: what was dropped among their rows.

    Returns:
      Reason -> count.
    """
    total = sum(counts.values(), Counter())
    del total["kept"]
    return {**total, **selection.counts()}


def _sources(
    identity: Mapping[str, Any],
    counts: Mapping[str, Counter[str]],
    rows: CleanRows,
    kept: np.ndarray,
) -> list[dict[str, Any]]:
    found = [
        {"source": x["source"], "digest": x["digest"], "rows": 0, "kept": 0}
        for x in identity["sources"]
    ]
    for part, name in enumerate(rows.names):
        source = found[int(name.partition("-")[0])]
        source["rows"] += counts[name].total()
        source["kept"] += int(kept[rows.starts[part] : rows.starts[part + 1]].sum())
    return found


def lengths(values: np.ndarray) -> dict[str, Any]:
    """Percentiles and a histogram of lengths.

    Args:
      values: [R] lengths, at least one.

    Returns:
      Mean, percentiles, and counts between edges; the last bin holds all that is longer
      than the 99th percentile.

    Example:
      >>> found = lengths(np.array([1, 2, 2, 3]))
      >>> found["percentiles"]["50"], sum(found["histogram"]["counts"])
      (2, 4)
    """
    quantiles = np.percentile(values, _PERCENTILES, method="inverted_cdf")
    last = float(np.percentile(values, 99, method="inverted_cdf"))
    width = max(1, int(np.ceil((last + 1 - values.min()) / _BINS)))
    edges = np.arange(values.min(), last + width + 1, width)
    clipped = np.minimum(values, edges[-1] - 1)
    histogram, _ = np.histogram(clipped, bins=edges)
    return {
        "mean": round(float(values.mean()), 2),
        "percentiles": {
            str(p): int(value) for p, value in zip(_PERCENTILES, quantiles, strict=True)
        },
        "histogram": {
            "edges": [int(edge) for edge in edges],
            "counts": histogram.tolist(),
        },
    }


def rate_buckets(rates: np.ndarray, kept: np.ndarray) -> dict[str, Any]:
    """How hard the questions are, before and after the filter.

    Args:
      rates: [R, 2] right and graded responses, -1 for rows that were not asked.
      kept: [R] bool, the rows that are left.

    Returns:
      Counts by bucket.

    Example:
      >>> found = rate_buckets(np.array([[0, 8], [3, 8], [8, 8], [-1, -1]]), np.ones(4))
      >>> found["asked"]["none right"], found["asked"]["up to 50%"]
      (1, 1)
    """
    asked = rates[:, 1] > 0
    chosen = asked & kept.astype(bool)
    return {
        "mean": round(float((rates[asked, 0] / rates[asked, 1]).mean()), 4)
        if asked.any()
        else None,
        "asked": _buckets(rates[asked]),
        "kept": _buckets(rates[chosen]),
    }


def _buckets(rates: np.ndarray) -> dict[str, int]:
    right, graded = rates[:, 0], rates[:, 1]
    mixed = (right > 0) & (right < graded)
    bucket = np.searchsorted(_BUCKETS, right / np.maximum(graded, 1))
    names = [*(f"up to {edge:.0%}" for edge in _BUCKETS), f"above {_BUCKETS[-1]:.0%}"]
    between = {name: int((mixed & (bucket == i)).sum()) for i, name in enumerate(names)}
    return {
        "none right": int((right == 0).sum()),
        **between,
        "all right": int((right == graded).sum()),
    }
