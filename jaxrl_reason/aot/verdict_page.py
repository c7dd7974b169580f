"""A verdict as one page with plots, and a ranking as text."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxrl_reason.aot.compile_step import CompiledStep
from jaxrl_reason.aot.mesh_sizes import mesh_text
from jaxrl_reason.aot.search import Candidate
from jaxrl_reason.aot.topology import Topology
from jaxrl_reason.aot.verdict import (
    Verdict,
    expected_speed,
    number_range,
    time_limits,
    verdict_text,
)
from jaxrl_reason.runs.files import atomic_write

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;"
    "padding:0 1rem;color:#222}pre{background:#f5f5f5;padding:1rem;"
    "white-space:pre-wrap;overflow-wrap:anywhere}h1{font-size:1.5rem}"
    "h1 span{color:#fff;padding:.1em .5em;border-radius:.2em;white-space:nowrap}"
    "h2{font-size:1.1rem;margin:2rem 0 .5rem}div{overflow-x:auto}"
    # Wide enough to be read; a narrow window scrolls.
    "img{width:100%;min-width:28rem}table{border-collapse:collapse}"
    "th,td{text-align:right;padding:.2rem .8rem;border-bottom:1px solid #ddd;"
    "white-space:nowrap}th:first-child,td:first-child{text-align:left;padding-left:0}"
    ".yes{background:#2a7}.no{background:#c43}"
)
# Colours that colour-blind readers tell apart (Okabe and Ito).
_COLOURS = ("#0072B2", "#56B4E9", "#E69F00", "#CC79A7", "#009E73", "#D55E00", "#999999")
_PARTS = ("parameters", "optimizer", "gradients", "batch", "temporaries", "besides")


# Bytes of exchanges that are left out.
_SMALL = 1e6


def write_verdict(path: Path, verdict: Verdict) -> None:
    """Writes a page that needs no other file.

    Args:
      path: of the page.
      verdict: of a run.
    """
    answer = ("yes", "fits") if verdict.fits else ("no", "does not fit")
    title = f"{verdict.settings.model.source} on {verdict.topology}"
    plots = [("Memory of a device", memory_plot(verdict))]
    fitting = [step for step in verdict.steps if step.fits]
    if fitting:
        limits = "Time limits, from public peaks of the chip"
        plots.append((limits, limits_plot(verdict, fitting)))
    if any(x.payload > _SMALL for step in fitting for x in step.traffic):
        plots.append(("Exchanges between devices", traffic_plot(fitting)))
    images = "".join(
        f'<h2>{name}</h2><div><img alt="{name}" src="data:image/png;base64,{image}">'
        "</div>"
        for name, image in plots
    )
    atomic_write(
        path,
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
        f'<h1>{html.escape(title)} <span class="{answer[0]}">{answer[1]}</span></h1>'
        f"{steps_table(verdict)}{images}<h2>All figures</h2>"
        f"<pre>{html.escape(verdict_text(verdict))}</pre></html>\n",
    )


def steps_table(verdict: Verdict) -> str:
    """One row for each step, as HTML.

    Args:
      verdict: of a run.
    """
    chip = verdict.topology.chip
    rows = [
        ("step", "GB of a device", "bottleneck", "tokens a second", "MFU, %", "mesh")
    ]
    for step in verdict.steps:
        held = f"{step.held / 1e9:.2f} of {chip.memory / 1e9:.1f}"
        mesh = mesh_text(step.mesh)
        if not step.fits:
            rows.append((step.step, held, "does not fit", "-", "-", mesh))
            continue
        speed = expected_speed(step, chip)
        tokens = number_range(*speed.tokens)
        used = number_range(*(100 * x for x in speed.utilisation))
        limit = time_limits(step, chip).bottleneck
        rows.append((step.step, held, limit, tokens, used, mesh))
    cells = (
        "".join(f"<{tag}>{html.escape(x)}</{tag}>" for x in row)
        for tag, row in zip(["th", *["td"] * len(verdict.steps)], rows, strict=True)
    )
    return f"<div><table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table></div>"


def memory_plot(verdict: Verdict) -> str:
    """What fills a device in each step, beside what it has: a PNG in base64."""
    figure, axes = _axes(len(verdict.steps))
    names = [step.step for step in verdict.steps]
    left = [0.0] * len(names)
    for part, colour in zip(_PARTS, _COLOURS, strict=False):
        held = [
            {**step.parts, "besides": step.besides}.get(part, 0.0) / 1e9
            for step in verdict.steps
        ]
        if max(held) > verdict.peak / 1e12:  # could be seen
            label = "held besides" if part == "besides" else part
            axes.barh(names, held, left=left, color=colour, label=label)
        left = [a + b for a, b in zip(left, held, strict=True)]
    limit = verdict.topology.chip.memory / 1e9
    axes.axvline(limit, color="black", linestyle="--", label=f"has {limit:.1f} GB")
    axes.set_xlabel("peak memory of a device, GB")
    return _png(figure, axes)


def limits_plot(verdict: Verdict, steps: Sequence[CompiledStep]) -> str:
    """The time limits of each step's calls in an iteration: a PNG in base64."""
    figure, axes = _axes(len(steps) * 1.6)
    for i, step in enumerate(steps):
        limits = time_limits(step, verdict.topology.chip).by_name
        calls = verdict.calls(step.step)
        for j, (name, colour) in enumerate(zip(limits, _COLOURS[::2], strict=False)):
            axes.barh(
                i + 0.27 * (j - 1),
                limits[name] * calls,
                height=0.25,
                color=colour,
                label=None if i else name,
            )
    axes.set_yticks(
        range(len(steps)),
        [f"{verdict.calls(step.step)} x {step.step}" for step in steps],
    )
    axes.set_xlabel("time limit of an iteration, seconds")
    return _png(figure, axes)


def traffic_plot(steps: Sequence[CompiledStep]) -> str:
    """What each step exchanges over which axes: a PNG in base64."""
    bars = [
        (f"{step.step}: {'+'.join(x.axes)}", x.kind, x.payload / 1e9)
        for step in steps
        for x in step.traffic
        if x.payload > _SMALL
    ]
    names = list(dict.fromkeys(name for name, _, _ in bars))
    kinds = list(dict.fromkeys(kind for _, kind, _ in bars))
    figure, axes = _axes(len(names))
    left = dict.fromkeys(names, 0.0)
    for kind, colour in zip(kinds, _COLOURS, strict=False):
        sizes = {n: sum(s for m, k, s in bars if (m, k) == (n, kind)) for n in names}
        axes.barh(
            names,
            list(sizes.values()),
            left=list(left.values()),
            color=colour,
            label=kind,
        )
        left = {name: left[name] + sizes[name] for name in names}
    axes.set_xlabel("arrays exchanged in a call, GB (whole arrays)")
    return _png(figure, axes)


def _axes(bars: float) -> tuple[Any, Any]:
    # Here, since the command's other uses need no plots.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 1.6 + 0.45 * bars), layout="constrained")
    return figure, figure.subplots()


def _png(figure: Any, axes: Any) -> str:
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper left", ncols=4, frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=140)
    return base64.b64encode(image.getvalue()).decode("ascii")


def ranking_text(
    found: Sequence[tuple[Candidate, CompiledStep]], topology: Topology
) -> str:
    """The compiled settings of a search, one a line, the best first.

    Args:
      found: of `search_run`.
      topology: the devices.
    """
    lines = [f"{'tokens/s':>10} {'MFU':>6} {'peak GB':>8}  settings on {topology}"]
    for candidate, step in found:
        if not step.fits:
            lines.append(
                f"{'-':>10} {'-':>6} {step.peak / 1e9:8.2f}  {candidate.flags}"
            )
            continue
        speed = expected_speed(step, topology.chip)
        lines.append(
            f"{speed.tokens[0]:10,.0f} {100 * speed.utilisation[0]:5.1f}% "
            f"{step.peak / 1e9:8.2f}  {candidate.flags}"
        )
    return "\n".join([*lines, "", "speeds without any overlap, from public peaks"])
