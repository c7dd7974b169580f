"""GSM-Plus: robustness to perturbed questions (arXiv 2402.19255)."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxrl_reason.evaluation.records import Record
from jaxrl_reason.evaluation.statistics import Estimate, bootstrap
from jaxrl_reason.tasks.question_files import SEED
from jaxrl_reason.tasks.questions import Question

# Variants of one seed are not independent, so the bootstrap resamples seeds, and with
# them four more, which have every outcome of a pair once.
INTERVAL = "bootstrap over seeds and four more"
_FOUR = np.array([(s, 1, v, 1, s * v, 1) for s in (0, 1) for v in (0, 1)], float)


def robustness(
    questions: Sequence[Question], records: Mapping[int, Sequence[Record]]
) -> dict[str, Estimate]:
    """Accuracy on seeds and variants, PDR and ASP, overall and by perturbation.

    PDR = 1 - accuracy(variants) / accuracy(seeds); ASP is the fraction of pairs of a
    seed and its variant that are both right. With several responses per question,
    sample j of the seed is paired with sample j of the variant. A failed grade is not
    right.

    Args:
      questions: seeds and their variants.
      records: question's id -> records.

    Returns:
      "seeds", "variants", "PDR", "ASP"; "NAME", "NAME PDR", "NAME ASP" for every
      perturbation. PDR is nan if no seed was solved. Where grades have failed, each
      also as "NAME, graded", without the failed ones and their pairs.
    """
    found = _robustness(questions, records, graded=False)
    if any(row["failed"] for rows in records.values() for row in rows):
        apart = _robustness(questions, records, graded=True)
        found |= {f"{name}, graded": figure for name, figure in apart.items()}
    return found


def _robustness(
    questions: Sequence[Question],
    records: Mapping[int, Sequence[Record]],
    graded: bool,
) -> dict[str, Estimate]:
    """The figures of all responses, or of the graded ones."""
    variants: dict[int, list[Question]] = {}
    for question in questions:
        if question.seed_id is not None and question.problem_id in records:
            variants.setdefault(question.seed_id, []).append(question)
    seeds = [
        q.problem_id for q in questions if q.kind == SEED and q.problem_id in records
    ]
    kinds = sorted({q.kind for group in variants.values() for q in group})

    def sums(kind: str | None) -> list[np.ndarray]:
        rows = [
            _sums(
                records[seed],
                [
                    records[variant.problem_id]
                    for variant in variants.get(seed, [])
                    if kind in (None, variant.kind)
                ],
                graded,
            )
            for seed in seeds
        ]
        return list(np.array(rows, float).reshape(-1, 6).T)

    every = sums(None)
    figures = {
        "seeds": _estimate(np.divide, every, (0, 1)),
        **_figures("variants", every),
    }
    figures["PDR"] = figures.pop("variants PDR")
    figures["ASP"] = figures.pop("variants ASP")
    for kind in kinds:
        figures.update(_figures(kind, sums(kind)))
    return figures


def _figures(name: str, columns: Sequence[np.ndarray]) -> dict[str, Estimate]:
    return {
        name: _estimate(np.divide, columns, (2, 3)),
        f"{name} PDR": _estimate(_drop, columns, (0, 1, 2, 3)),
        f"{name} ASP": _estimate(np.divide, columns, (4, 5)),
    }


def _estimate(
    statistic: Callable[..., np.ndarray],
    columns: Sequence[np.ndarray],
    which: Sequence[int],
) -> Estimate:
    """A statistic of some of the six sums."""
    chosen = list(which)
    return bootstrap(
        statistic,
        *(columns[index] for index in chosen),
        interval=INTERVAL,
        added=_FOUR[:, chosen].tolist(),
    )


def _drop(
    seed_right: np.ndarray, seed_count: np.ndarray, right: np.ndarray, count: np.ndarray
) -> np.ndarray:
    """PDR from sums; nan if no seed is right."""
    before = seed_right / seed_count
    return (before - right / count) / np.where(before == 0, np.nan, before)


def _sums(
    seed: Sequence[Record], variants: Sequence[Sequence[Record]], graded: bool
) -> list[int]:
    """The sums of one seed: right and counted seeds, variants and pairs."""

    def counts(row: Record) -> bool:
        return not (graded and row["failed"])

    rows = [row for variant in variants for row in variant]
    pairs = [
        (first, second)
        for variant in variants
        for first, second in zip(seed, variant, strict=True)
        if counts(first) and counts(second)
    ]
    return [
        sum(row["correct"] for row in seed),
        sum(map(counts, seed)),
        sum(row["correct"] for row in rows),
        sum(map(counts, rows)),
        sum(first["correct"] and second["correct"] for first, second in pairs),
        len(pairs),
    ]
