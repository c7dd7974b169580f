"""Samples of a run: JSON lines for programs, a page for people."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxrl_reason.runs.files import atomic_write
from jaxrl_reason.runs.run_folder import to_plain
from jaxrl_reason.sharding.processes import is_main

# These have their own place on the page; other fields are listed below them.
_KNOWN = ("prompt", "answer", "reward", "parsed", "correct", "length", "truncated")


def write_samples(
    run_dir: str | Path,
    step: int,
    samples: Sequence[Mapping[str, Any]],
    label: str = "",
) -> Path:
    """Writes `samples/<step>[-label].jsonl` and `.md` into a run's folder.

    Args:
      run_dir: folder of the run.
      step: the step the samples are from.
      samples: one mapping per sample. Fields with their own place, all optional:
        prompt, answer (texts), reward (number), parsed (what the grader read), correct
        (true or false), length (tokens), truncated (stopped by the limit). Any other
        field is listed under its name.
      label: distinguishes files of one step ("heldout", for example).

    Returns:
      The page (`.md`).
    """
    folder = Path(run_dir) / "samples"
    stem = f"{step:08d}" + (f"-{label}" if label else "")
    page = folder / f"{stem}.md"
    if not is_main():
        return page
    folder.mkdir(parents=True, exist_ok=True)
    plain = [to_plain(sample) for sample in samples]
    lines = "".join(
        json.dumps({"step": step, **sample}, ensure_ascii=False) + "\n"
        for sample in plain
    )
    atomic_write(folder / f"{stem}.jsonl", lines)
    atomic_write(page, _page(step, plain, label))
    return page


def _page(step: int, samples: list[dict[str, Any]], label: str) -> str:
    parts = [f"# Samples at step {step}" + (f" ({label})" if label else ""), ""]
    graded = [sample for sample in samples if sample.get("correct") is not None]
    right = sum(bool(sample["correct"]) for sample in graded)
    summary = f"{len(samples)} shown"
    if graded:
        summary += f": {right} right, {len(graded) - right} wrong"
    parts += [summary + ".", ""]
    for number, sample in enumerate(samples, start=1):
        parts += _entry(number, sample)
    return "\n".join(parts).rstrip() + "\n"


def _entry(number: int, sample: Mapping[str, Any]) -> list[str]:
    heading = []
    if sample.get("correct") is not None:
        heading.append("right" if sample["correct"] else "wrong")
    if sample.get("reward") is not None:
        heading.append(f"reward {sample['reward']:g}")
    parts = ["---", "", f"## {number}. {', '.join(heading)}".rstrip(" ."), ""]
    if "prompt" in sample:
        parts += ["**Prompt**", "", *_block(sample["prompt"])]
    if "answer" in sample:
        about = []
        if sample.get("length") is not None:
            about.append(f"{sample['length']} tokens")
        if sample.get("truncated"):
            about.append("stopped by the length limit")
        parts += ["**Answer**" + (f" ({', '.join(about)})" if about else ""), ""]
        parts += _block(sample["answer"])
    if "parsed" in sample:
        if sample["parsed"] is None:
            parts += ["**Read by the grader:** nothing", ""]
        else:
            parts += ["**Read by the grader**", "", *_block(sample["parsed"])]
    rest = {name: value for name, value in sample.items() if name not in _KNOWN}
    parts += [f"- {name}: {_one_line(value)}" for name, value in rest.items()]
    return [*parts, ""] if rest else parts


def _block(text: Any) -> list[str]:
    """Fences a text with more backticks than any run of them inside."""
    text = str(text)
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", text, fence, ""]


def _one_line(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split())
