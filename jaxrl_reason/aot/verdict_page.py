"""A verdict as one page with plots, and a ranking as text."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxrl_reason.aot.compile_step import CompiledStep
from jaxrl_reason.aot.search import Candidate
from jaxrl_reason.aot.topology import Topology
from jaxrl_reason.aot.verdict import (
    Verdict,
    expected_speed,
    time_limits,
    verdict_text,
)
from jaxrl_reason.runs.files import atomic_write

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;"
    "padding:0 1rem;color:#222}pre{background:#f5f5f5;padding:1rem;overflow-x:auto}"
    "img{max-width:100%}h1 span{color:#fff;padding:.1em .5em;border-radius:.2em}"
    ".yes{background:#2a7}.no{background:#c43}"
)
# Colours that colour-blind readers tell apart (Okabe and Ito).
_COLOURS = ("#0072B2", "#56B4E9", "#E69F00", "#CC79A7", "#009E73", "#D55E00", "#999999")
_PARTS = ("parameters", "optimizer", "gradients", "batch", "temporaries", "besides")


def write_verdict(path: Path, verdict: Verdict) -> None:
    """Writes a page that needs no other file.

    Args:
      path: of the page.
      verdict: of a run.
    """
    answer = ("yes", "fits") if verdict.fits else ("no", "does not fit")
    title = f"{verdict.settings.model.source} on {verdict.topology}"
    plots = [memory_plot(verdict)]
    fitting = [step for step in verdict.steps if step.fits]
    if fitting:
        plots.append(limits_plot(verdict, fitting))
        plots.append(traffic_plot(fitting))
    images = "".join(
        f'<p><img alt="{name}" src="data:image/png;base64,{image}"></p>'
        for name, image in plots
    )
    atomic_write(
        path,
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}"
        f"</title><style>{_STYLE}</style><h1>{html.escape(title)} "
        f'<span class="{answer[0]}">{answer[1]}</span></h1>{images}'
        f"<pre>{html.escape(verdict_text(verdict))}</pre></html>\n",
    )


def memory_plot(verdict: Verdict) -> tuple[str, str]:
    """What fills a device in each step, beside what it has: a name and a PNG."""
    figure, axes = _axes(len(verdict.steps))
    names = [step.step for step in verdict.steps]
    left = [0.0] * len(names)
    for part, colour in zip(_PARTS, _COLOURS, strict=False):
        held = [
            {**step.parts, "besides": step.besides}.get(part, 0.0) / 1e9
            for step in verdict.steps
        ]
        if any(held):
            axes.barh(names, held, left=left, color=colour, label=part)
        left = [a + b for a, b in zip(left, held, strict=True)]
    limit = verdict.topology.chip.memory / 1e9
    axes.axvline(limit, color="black", linestyle="--", label=f"device: {limit:.1f} GB")
    axes.set_xlabel("peak memory of a device, GB")
    return "memory", _png(figure, axes)


def limits_plot(verdict: Verdict, steps: Sequence[CompiledStep]) -> tuple[str, str]:
    """The time limits of each step's iteration: a name and a PNG."""
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
    return "time limits", _png(figure, axes)


def traffic_plot(steps: Sequence[CompiledStep]) -> tuple[str, str]:
    """What each step exchanges over which axes: a name and a PNG."""
    bars = [
        (f"{step.step}: {'+'.join(x.axes)}", x.kind, x.payload / 1e9)
        for step in steps
        for x in step.traffic
        if x.payload > 1e6
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
    return "exchanges", _png(figure, axes)


def _axes(bars: float) -> tuple[Any, Any]:
    # Here, since the command's other uses need no plots.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.4 + 0.5 * bars), layout="constrained")
    return figure, figure.subplots()


def _png(figure: Any, axes: Any) -> str:
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
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
