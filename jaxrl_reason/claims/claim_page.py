"""The page of a claim and the table of all claims, in Markdown."""

import re
from collections.abc import Sequence
from pathlib import Path

from jaxrl_reason.claims.claim import Claim, FoundClaim
from jaxrl_reason.claims.claim_results import (
    Results,
    effect_of,
    excess_over,
    left_open,
    noise_of,
    read_claim_results,
    verdict_of,
)
from jaxrl_reason.claims.claim_verdict import LEVEL, Effect
from jaxrl_reason.claims.measures import Measure

# What stands between the marks in the page of all claims is generated.
BEGIN, END = "<!-- claims -->", "<!-- end of claims -->"
NOT_RUN = "not run"


def claim_page(found: FoundClaim, results: Results | None) -> str:
    """The page of one claim: what was registered, what came out.

    Args:
      found: the claim.
      results: of its final runs; None, or of another state of the claim, says that it
        was not run.

    Returns:
      Markdown, with the picture NAME.png if there are results.
    """
    claim, asked_for = found.claim, found.asked_for
    parts = [
        f"<!-- Written by: jaxrl-reason claim {asked_for} --pages docs/claims -->",
        f"# {claim.title}",
        f"{claim.sentence} ({claim.source})",
        f"**Verdict: {verdict_line(found, results)}.**",
        "## Registered",
        _registered(claim),
        _arms(claim),
    ]
    if claim.notes:
        parts.append(claim.notes.strip())
    current = current_results(found, results)
    if current is not None:
        parts += ["## Result", result_text(claim, current)]
        parts.append(
            f"![The arms over their runs, and each comparison]({found.name}.png)\n\n"
            "Faint lines and circles are single seeds; the dashed line is the smallest "
            "effect that counts."
        )
        parts.append(_provenance(found, current))
    return "\n\n".join(parts) + "\n"


def current_results(found: FoundClaim, results: Results | None) -> Results | None:
    """The results if they are the claim's as its file now stands."""
    return results if results is not None and results.key == found.key else None


def verdict_line(found: FoundClaim, results: Results | None) -> str:
    """Shown, refuted, unresolved, or why there is no verdict."""
    current = current_results(found, results)
    if current is None:
        return NOT_RUN
    verdict = verdict_of(found.claim, current)
    if verdict is None:
        return "none, not all runs are there"
    why = "; ".join(left_open(found.claim, current))
    return f"{verdict.name.lower()}: {why}" if why else verdict.name.lower()


def _registered(claim: Claim) -> str:
    more = "more" if claim.direction > 0 else "less"
    lines = {
        "compared": f"{claim.comparison}, {more} of: {_named(claim.measure)}",
        "smallest effect that counts": f"{claim.smallest:g} {claim.measure.unit}",
        "refuted if": claim.refuted_if,
        "must not show it": "; ".join(map(str, claim.controls)),
        "seeds": _numbers(claim.seeds),
        "settings chosen on seeds": _numbers(claim.tuned_on),
        "RL steps of a run": str(claim.steps),
    }
    return _table(["", ""], [[name, text] for name, text in lines.items()])


def _arms(claim: Claim) -> str:
    return _table(["arm", "is"], [[f"{a}", what] for a, what in claim.arms.items()])


def result_text(claim: Claim, results: Results) -> str:
    """Two tables: effects with their intervals, and every number of every seed.

    Args:
      claim: whose numbers they are.
      results: the numbers.

    Returns:
      Markdown.
    """
    kinds = [
        ("the claim", [claim.comparison]),
        ("control", claim.controls),
        ("further", claim.others),
    ]
    digits = claim.measure.digits
    effects = [
        [kind, str(c), *_effect(effect_of(claim, results, c), digits)]
        for kind, comparisons in kinds
        for c in comparisons
    ]
    effects += [
        [
            "excess",
            f"the claim over {c}",
            *_effect(excess_over(claim, results, c), digits),
        ]
        for c in claim.controls
    ]
    head = ["", "comparison", f"effect, {claim.measure.unit}", "interval"]
    measures = (claim.measure, *claim.more_measures)
    numbers = [
        [arm, *(_every_seed(results, m, arm) for m in measures)]
        for arm in results.cpu_seconds
    ]
    columns = ["arm", *(f"{m.name}, {m.unit}" for m in measures)]
    level = f"{100 * (1 - 2 * LEVEL):g}%"
    noise = f"{noise_of(claim, results):.{digits}f} {claim.measure.unit}"
    known = [effect for effect in effects if effect[2]]
    compared = [
        _table(head, known),
        f"{claim.measure.name}: effects in the direction of the claim, intervals "
        f"of {level} ([why](../claims.md)). Noise of seeds: {noise}, by which "
        "two halves of the seeds of one arm differ.",
    ]
    return "\n\n".join(
        [
            *(compared if known else []),
            _table(columns, numbers),
            "Mean ± standard deviation between seeds (every seed).",
        ]
    )


def _provenance(found: FoundClaim, results: Results) -> str:
    cpu = sum(results.cpu_seconds.values())
    return (
        f"Version {results.version}, claim {results.key}, code {results.code_key}; "
        f"{cpu:.0f} s of CPU a seed. To run it again:\n\n"
        f"```sh\njaxrl-reason claim {found.asked_for}\n```"
    )


def fill_claims(text: str, found: Sequence[FoundClaim], folder: Path) -> str:
    """The page of all claims with its table and its pictures.

    Args:
      text: of the page, with the two marks.
      found: all claims.
      folder: where their pages, pictures and results are, beside the page.

    Returns:
      The new text.

    Raises:
      ValueError: the marks are missing.
    """
    if not re.search(f"{BEGIN}.*{END}", text, re.DOTALL):
        raise ValueError(f"the page of all claims must hold {BEGIN} and {END}")
    read = [(f, read_claim_results(folder / f"{f.name}.json")) for f in found]
    rows = [claims_row(f, results, folder.name) for f, results in read]
    head = [
        *("claim", "source", "measure", "effect", "interval", "counts from"),
        *("noise of seeds", "seeds", "verdict"),
    ]
    pictures = [
        f"## {f.claim.title}\n\n![{f.claim.title}]({folder.name}/{f.name}.png)"
        for f, results in read
        if current_results(f, results) is not None
    ]
    made = "\n\n".join([BEGIN, _table(head, rows), *pictures, END])
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return before + made + after


def claims_row(found: FoundClaim, results: Results | None, folder: str) -> list[str]:
    """The cells of a claim in the table of all.

    Args:
      found: the claim.
      results: of its final runs, if there are any.
      folder: of its page.

    Returns:
      The cells.
    """
    claim, current = found.claim, current_results(found, results)
    cells = [
        f"[{claim.title}]({folder}/{found.name}.md)",
        claim.source,
        _named(claim.measure),
    ]
    counts, verdict = f"{claim.smallest:g}", verdict_line(found, results)
    if current is None:
        return [*cells, "", "", counts, "", "", verdict]
    digits = claim.measure.digits
    effect = _effect(effect_of(claim, current, claim.comparison), digits)
    noise = f"{noise_of(claim, current):.{digits}f}"
    return [*cells, *effect, counts, noise, str(len(current.seeds)), verdict]


def _effect(effect: Effect | None, digits: int) -> tuple[str, str]:
    if effect is None:
        return "", ""
    low, high = (f"{x:.{digits}f}" for x in (effect.low, effect.high))
    return f"{effect.mean:.{digits}f}", f"{low} to {high}"


def _every_seed(results: Results, measure: Measure, arm: str) -> str:
    x, digits = results.of(measure.name, arm), measure.digits
    each = ", ".join(f"{value:.{digits}f}" for value in x)
    if len(x) == 1:
        return each
    return f"{x.mean():.{digits}f} ± {x.std(ddof=1):.{digits}f} ({each})"


def _named(measure: Measure) -> str:
    return f"{measure.name}, {measure.unit}"


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
