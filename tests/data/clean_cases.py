"""Rows with one of everything that a cleaning leaves out."""

import json
from pathlib import Path
from typing import Any

STORY = (
    "The {thing} of {place} counted {a} visitors on Monday, then twice as many on "
    "every following day of that week. Find the number on Friday."
)
BENCHMARK = (
    "Let $x$ and $y$ be real numbers with $x + y = 10$ and $xy = 21$. Find $x^3 + y^3$."
)


def story(number: int) -> dict[str, Any]:
    """A row unlike the others."""
    thing = f"museum{number} library{number * 7} archive{number * 13}"
    return {
        "question": STORY.format(thing=thing, place=f"town{number}", a=number),
        "answer": str(16 * number),
        "level": number % 3,
    }


GOOD = [story(number) for number in range(40)]
WRONG: list[tuple[str, str | dict[str, Any]]] = [
    ("unreadable", '{"question": broken'),
    ("field", {"question": "No answer here?"}),
    ("field", {"question": None, "answer": "3"}),
    ("url", {"question": "See https://example.org and count.", "answer": "3"}),
    ("image", {"question": "What is this? ![plot](plot.png)", "answer": "3"}),
    ("gold", {"question": "Which interval is it here?", "answer": "(1, 2"}),
    (
        "contaminated",
        {"question": f"Solve: {BENCHMARK.replace('$', '')} Box it.", "answer": "370"},
    ),
    ("duplicate", {**GOOD[3], "question": GOOD[3]["question"].upper()}),
    ("duplicate", {**GOOD[4], "answer": "64.0"}),
    (
        "near_duplicate",
        {**GOOD[5], "question": GOOD[5]["question"].replace("Find", "So find")},
    ),
    ("conflicting", {"question": "Which root is meant here?", "answer": "1"}),
    ("conflicting", {"question": "which root is  meant here?", "answer": "2"}),
]
KEPT = [
    # Another answer, so another question.
    {**story(41), "question": GOOD[6]["question"].replace("Monday", "Sunday")},
    {"question": "What is one and one?", "answer": "1 + 1 = 2\n#### 2"},
]


def write_raw(folder: Path) -> tuple[Path, Path]:
    """Writes the rows and a benchmark: their paths."""
    rows = [*GOOD, *KEPT, *(row for _, row in WRONG)]
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    raw, benchmark = folder / "raw.jsonl", folder / "benchmark.jsonl"
    raw.write_text("\n".join(lines) + "\n", encoding="utf-8")
    benchmark.write_text(json.dumps({"problem": BENCHMARK}) + "\n", encoding="utf-8")
    return raw, benchmark
