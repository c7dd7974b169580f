"""GSM-Plus: robustness to perturbed questions (arXiv 2402.19255)."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxrl_reason.evaluation.records import Record
from jaxrl_reason.evaluation.statistics import Estimate, bootstrap
from jaxrl_reason.tasks.question_files import SEED
from jaxrl_reason.tasks.questions import Question

# Variants of one seed are not independent, so the bootstrap resamples seeds.
INTERVAL = "bootstrap over seeds"


def robustness(
    questions: Sequence[Question], records: Mapping[int, Sequence[Record]]
) -> dict[str, Estimate]:
    """Accuracy on seeds and variants, PDR and ASP, overall and by perturbation.

    PDR = 1 - accuracy(variants) / accuracy(seeds); ASP is the fraction of pairs of a
    seed and its variant that are both right. With several responses per question,
    sample j of the seed is paired with sample j of the variant. Failed grades are left
    out of every sum and pair.

    Args:
      questions: seeds and their variants.
      records: question's id -> records.

    Returns:
      "seeds", "variants", "PDR", "ASP"; "NAME", "NAME PDR", "NAME ASP" for every
      perturbation. PDR is nan if no seed was solved.
    """
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
            )
            for seed in seeds
        ]
        return list(np.array(rows, float).reshape(-1, 6).T)

    every = sums(None)
    figures = {"seeds": _estimate(np.divide, *every[:2]), **_figures("variants", every)}
    figures["PDR"] = figures.pop("variants PDR")
    figures["ASP"] = figures.pop("variants ASP")
    for kind in kinds:
        figures.update(_figures(kind, sums(kind)))
    return figures


def _figures(name: str, columns: Sequence[np.ndarray]) -> dict[str, Estimate]:
    seed_right, seed_count, right, count, pairs, pair_count = columns
    return {
        name: _estimate(np.divide, right, count),
        f"{name} PDR": _estimate(_drop, seed_right, seed_count, right, count),
        f"{name} ASP": _estimate(np.divide, pairs, pair_count),
    }


def _estimate(statistic: Callable[..., np.ndarray], *columns: np.ndarray) -> Estimate:
    return bootstrap(statistic, *columns, interval=INTERVAL)


def _drop(
    seed_right: np.ndarray, seed_count: np.ndarray, right: np.ndarray, count: np.ndarray
) -> np.ndarray:
    """PDR from sums; nan if no seed is right."""
    before = seed_right / seed_count
    return (before - right / count) / np.where(before == 0, np.nan, before)


def _sums(seed: Sequence[Record], variants: Sequence[Sequence[Record]]) -> list[int]:
    """The sums of one seed: right and graded seeds, variants and pairs."""
    rows = [row for variant in variants for row in variant]
    pairs = [
        (first, second)
        for variant in variants
        for first, second in zip(seed, variant, strict=True)
        if not (first["failed"] or second["failed"])
    ]
    return [
        sum(row["correct"] for row in seed),
        sum(not row["failed"] for row in seed),
        sum(row["correct"] for row in rows),
        sum(not row["failed"] for row in rows),
        sum(first["correct"] and second["correct"] for first, second in pairs),
        len(pairs),
    ]
