"""The report as one self-contained HTML page."""

import json
import re
from collections.abc import Collection
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl_reason.testing import evidence_plots
from jaxrl_reason.testing.check import case_of
from jaxrl_reason.testing.evaluate import LossFunction
from jaxrl_reason.testing.evidence import (
    GRADIENT_LIMIT,
    SAME_LIMIT,
    Evidence,
    evidence_figures,
    gather_evidence,
)
from jaxrl_reason.testing.toy import interval

_CSS = """
:root { --ink: #1c2128; --soft: #5a6069; --line: #dfe2e6; --good: #1a7f4b;
  --bad: #b42318; --none: #7a818b; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f6f8; color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  sans-serif; }
main { max-width: 1020px; margin: 0 auto; padding: 32px 24px 56px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h1 code { font-size: inherit; font-weight: 600; }
h2 { font-size: 18px; margin: 0 0 6px; }
p { margin: 0 0 10px; }
.soft { color: var(--soft); }
.verdict { border-left: 6px solid var(--good); background: #fff; padding: 14px 18px;
  margin: 18px 0; font-size: 17px; border-radius: 0 8px 8px 0; }
.verdict.bad { border-color: var(--bad); }
.verdict strong { color: var(--good); }
.verdict.bad strong { color: var(--bad); }
.cards { display: grid; grid-template-columns: repeat(4, 1fr); gap: 12px;
  margin-bottom: 20px; }
.card, section { background: #fff; border: 1px solid var(--line); border-radius: 8px; }
.card { padding: 12px 14px; }
.card .what { font-size: 12.5px; color: var(--soft); }
.card .figure { font-size: 21px; font-weight: 650; line-height: 1.3;
  overflow-wrap: anywhere; }
.card.bad .figure { color: var(--bad); }
.card .more { font-size: 12.5px; color: var(--soft); }
section { padding: 18px 20px; margin-bottom: 18px; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 18px; }
.two section { margin-bottom: 18px; }
svg { width: 100%; height: auto; display: block; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 12.5px; }
th, td { padding: 6px 10px 6px 0; border-top: 1px solid var(--line);
  vertical-align: top; }
thead th { border-top: 0; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums;
  padding-right: 18px; }
details { margin-top: 12px; }
.mark { display: inline-block; min-width: 62px; text-align: center; font-size: 12px;
  font-weight: 600; border-radius: 10px; padding: 1px 8px; color: #fff; }
.holds { background: var(--good); } .broken { background: var(--bad); }
.none { background: #e4e7eb; color: var(--soft); }
.detail { color: var(--bad); }
tr.skipped td { color: var(--none); }
code, pre { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: #f5f6f8; padding: 12px 14px; border-radius: 6px; overflow-x: auto;
  margin: 8px 0 0; }
summary { cursor: pointer; font-weight: 600; }
@media (max-width: 760px) { .cards { grid-template-columns: 1fr 1fr; }
  .two { grid-template-columns: 1fr; gap: 0; } }
@media print { body { background: #fff; } section, .card { break-inside: avoid; } }
"""


def write_page(evidence: Evidence, out: Path, command: str = "") -> Path:
    """Writes `index.html` and `report.json`.

    Args:
      evidence: what `gather_evidence` found.
      out: a folder; created if missing.
      command: that reproduces the report.

    Returns:
      The page.
    """
    out.mkdir(parents=True, exist_ok=True)
    figures = json.dumps(evidence_figures(evidence), indent=1, allow_nan=False)
    (out / "report.json").write_text(figures + "\n", encoding="utf-8")
    page = out / "index.html"
    page.write_text(page_of(evidence, command), encoding="utf-8")
    return page


def write_loss_report(
    loss: LossFunction, folder: Path, *, skip: Collection[str] = (), **options: Any
) -> Path:
    """Gathers the evidence for a loss and writes its page to a folder with its name.

    Args:
      loss: the function.
      folder: in which to create the loss's folder.
      skip: names of laws to leave out.
      **options: as `check_loss`.

    Returns:
      The page.

    Raises:
      ValueError: as `check_loss`.
    """
    evidence = gather_evidence(case_of(loss, **options), skip=skip)
    name = re.sub(r"[^\w.-]+", "_", evidence.name).strip("_")
    return write_page(evidence, Path(folder) / name)


def page_of(evidence: Evidence, command: str = "") -> str:
    """The page.

    Args:
      evidence: what `gather_evidence` found.
      command: by which the report can be made again.

    Returns:
      HTML.
    """
    name = escape(evidence.name)
    parts = [
        f"<h1>Evidence for <code>{name}</code></h1>",
        f'<p class="soft">A policy loss in {_framework(evidence)}, checked by '
        f"jaxrl_reason.testing on {evidence.made['date']}</p>",
        _verdict(evidence),
        _cards(evidence),
    ]
    if evidence.profiles:
        parts += [_profiles(evidence), _pair_of_plots(evidence)]
    parts += [_laws(evidence), _gradients(evidence), _nearest(evidence)]
    parts += [_method(evidence, command)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Evidence for {name}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
        "<main>\n" + "\n".join(x for x in parts if x) + "\n</main>\n</body>\n</html>\n"
    )


def _framework(evidence: Evidence) -> str:
    names = {"jax": "JAX", "torch": "PyTorch"}
    return names.get(evidence.framework, evidence.framework)


def summary(evidence: Evidence) -> str:
    """The verdict in a sentence, as on the page.

    Args:
      evidence: what `gather_evidence` found.

    Returns:
      Plain text.
    """
    broken = [x.law.name for x in evidence.broken]
    tried = sum(x.holds is not None for x in evidence.verdicts)
    if broken:
        names = ", ".join(broken)
        return f"{len(broken)} of {tried} laws are broken: {names}."
    text = f"All {tried} laws that apply hold."
    if evidence.wrong_gradients:
        places = ", ".join(x.place for x in evidence.wrong_gradients)
        text += f" The gradient is not that of the value at {places}."
    if not evidence.learned:
        text += " The toy was not learned in every seed."
    return text


def _verdict(evidence: Evidence) -> str:
    word = "No fault found." if evidence.passes else "Faults found."
    kind = "verdict" if evidence.passes else "verdict bad"
    text = escape(summary(evidence))
    return f'<div class="{kind}"><strong>{word}</strong> {text}</div>'


def _card(what: str, figure: str, more: str, good: bool = True) -> str:
    kind = "card" if good else "card bad"
    return (
        f'<div class="{kind}"><div class="what">{escape(what)}</div>'
        f'<div class="figure">{escape(figure)}</div>'
        f'<div class="more">{escape(more)}</div></div>'
    )


def _cards(evidence: Evidence) -> str:
    tried = [x for x in evidence.verdicts if x.holds is not None]
    held = sum(bool(x.holds) for x in tried)
    left = len(evidence.verdicts) - len(tried)
    cards = [
        _card(
            "Laws that hold",
            f"{held} of {len(tried)}",
            f"{left} did not apply or were left out",
            held == len(tried),
        )
    ]
    if evidence.gradients:
        errors = [x.error for x in evidence.gradients if np.isfinite(x.error)]
        worst = f"{max(errors):.0e}" if errors else "not compared"
        good = not evidence.wrong_gradients
        cards.append(
            _card(
                "Gradient against differences",
                worst,
                f"largest relative gap; {GRADIENT_LIMIT:.0e} is allowed",
                good,
            )
        )
    if evidence.neighbours:
        first = evidence.neighbours[0]
        same = first.distance <= SAME_LIMIT
        more = f"distance {first.distance:.2g}, 0 being the same, 1 unrelated"
        if same:
            more = "the same gradient to rounding"
        cards.append(
            _card("Nearest published loss", first.name.partition(",")[0], more)
        )
    if evidence.curves:
        runs = evidence.curves[evidence.name]
        low, high = (float(x[-5:].mean()) for x in interval(runs))
        cards.append(
            _card(
                "Accuracy on the toy",
                f"{runs[:, 0].mean():.2f} → {runs[:, -5:].mean():.2f}",
                f"last 5 steps, {len(runs)} seeds: {low:.2f} to {high:.2f}",
                evidence.learned,
            )
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _profiles(evidence: Evidence) -> str:
    nothing = [
        f"{escape(sign)}: "
        + (" and ".join(f"{side} {x:.5g}" for side, x in ends.items()) or "nowhere")
        for sign, ends in evidence.clips.items()
    ]
    return (
        "<section><h2>Objective and slope over the ratio</h2>"
        '<p class="soft">One token, alone in its batch. Shaded: the slope is 0, a clip '
        f"acts ({'; '.join(nothing)}). Dashed: the nearest published loss.</p>"
        f"{evidence_plots.profile_plot(evidence)}</section>"
    )


def _pair_of_plots(evidence: Evidence) -> str:
    name, factor = evidence.weighting
    if factor:
        times = "" if abs(factor - 1) < 1e-4 else f", times {factor:.4g}"
        text = f"At ratio 1 it weighs tokens as <code>{escape(name)}</code>{times}."
    else:
        text = "At ratio 1 it weighs tokens as none of the usual means."
    runs = evidence.curves[evidence.name]
    return (
        '<div class="two"><section><h2>Gradient by token position</h2>'
        f'<p class="soft">Three responses in one batch, A = 1. {text}</p>'
        f"{evidence_plots.position_plot(evidence)}</section>"
        "<section><h2>Learning curve</h2>"
        f'<p class="soft">A table of logits learns three words; mean over {len(runs)} '
        "seeds and its 95% bootstrap interval. The same draws for both losses.</p>"
        f"{evidence_plots.curve_plot(evidence)}</section></div>"
    )


def _laws(evidence: Evidence) -> str:
    marks: dict[bool | None, tuple[str, str]] = {
        False: ("broken", "broken"),
        True: ("holds", "holds"),
        None: ("none", "not tried"),
    }
    order, rows = list(marks), []
    for x in sorted(evidence.verdicts, key=lambda x: order.index(x.holds)):
        mark, word = marks[x.holds]
        detail = escape(x.detail)
        if x.holds is False:
            detail = f'<div class="detail">{detail}</div>'
        elif detail:
            detail = f"<div>{detail}</div>"
        kind = ' class="skipped"' if x.holds is None else ""
        rows.append(
            f'<tr{kind}><td><span class="mark {mark}">{word}</span></td>'
            f"<td><b>{escape(x.law.name)}</b></td>"
            f"<td>{escape(x.law.rule)}{detail}</td></tr>"
        )
    return (
        "<section><h2>Laws</h2>"
        '<p class="soft">What must hold for any policy loss, whatever it computes, on '
        "random mini-batches of 8 responses.</p>"
        "<table><thead><tr><th>Verdict</th><th>Law</th><th>What must hold</th></tr>"
        f"</thead><tbody>{''.join(rows)}</tbody></table></section>"
    )


def _gradients(evidence: Evidence) -> str:
    if not evidence.gradients:
        return ""
    rows = "".join(
        f"<tr><td>{escape(x.place)}</td>"
        f'<td class="n">{x.error:.1e}</td><td>{escape(x.note)}</td></tr>'
        for x in evidence.gradients
    )
    return (
        "<section><h2>Gradient against finite differences</h2>"
        '<p class="soft">The gradient in float32, and central differences of the value '
        "in float64; what stands under a stop-gradient is held fixed. Relative to the "
        "largest gradient.</p>"
        '<table><thead><tr><th>At</th><th class="n">Largest gap</th><th></th></tr>'
        f"</thead><tbody>{rows}</tbody></table></section>"
    )


def _nearest(evidence: Evidence) -> str:
    if not evidence.neighbours:
        return ""
    rows = "".join(
        f'<tr><td><code>{escape(x.name)}</code></td><td class="n">{x.distance:.2g}</td>'
        f'<td class="n">{x.shape:.2g}</td><td class="n">{x.scale:.3g}</td></tr>'
        for x in evidence.neighbours[:8]
    )
    return (
        "<section><h2>Published losses, the nearest first</h2>"
        '<p class="soft">|g - g′| / |g| of the gradients on five random mini-batches, '
        "at the settings of the papers. Then the same for the best multiple of g′, and "
        "that multiple: losses that differ by a constant factor are 0 apart.</p>"
        '<table><thead><tr><th>Loss</th><th class="n">Distance</th>'
        '<th class="n">Up to scale</th><th class="n">Scale</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></section>"
    )


def _method(evidence: Evidence, command: str) -> str:
    made = evidence.made
    packages = ", ".join(f"{k} {v}" for k, v in made["packages"].items())
    given = ", ".join(evidence.inputs) or "none beside the five"
    again = f"<pre>{escape(command)}</pre>" if command else ""
    source = (
        f"<details><summary>Source of the loss</summary><pre>{escape(evidence.source)}"
        "</pre></details>"
        if evidence.source
        else ""
    )
    return (
        "<section><h2>How this was made</h2>"
        f'<p class="soft">Seed {made["seed"]}, toy seeds 0 to {made["toy_seeds"] - 1} '
        f"of {made['toy_steps']} steps; inputs: {escape(given)}. {escape(packages)}, "
        f"Python {made['python']}. It took {evidence.seconds:.0f} s. All figures: "
        f"<code>report.json</code> beside this page.</p>{again}{source}</section>"
    )
