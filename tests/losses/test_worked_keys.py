"""No worked number is forgotten: each stands in a test, by its name or a pattern."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from jaxrl_reason.grading.countdown_grader import countdown_score
from tests.losses.worked import EXAMPLES, close

TESTS = Path(__file__).parents[1]


def names_in(source: str) -> Iterator[str]:
    """Patterns of the strings of a file; what an f-string fills in may be any word."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.escape(node.value)
        elif isinstance(node, ast.JoinedStr):
            texts = [
                p.value if isinstance(p, ast.Constant) else "" for p in node.values
            ]
            if any("." in text for text in texts):  # f"{x}" would be every key
                yield "".join(re.escape(text) or r"\w+" for text in texts)


def forgotten(sources: list[str], keys: Iterable[str] = EXAMPLES) -> list[str]:
    readers = [text for text in sources if "EXAMPLES" in text]
    patterns = {name for text in readers for name in names_in(text)}
    every = re.compile("|".join(f"(?:{p})" for p in patterns) or "(?!)")
    return [key for key in keys if not every.fullmatch(key)]


def test_every_worked_number_is_read() -> None:
    sources = [path.read_text(encoding="utf-8") for path in TESTS.rglob("*.py")]
    assert forgotten(sources) == []


def test_a_forgotten_number_would_be_found() -> None:
    keys = ["x.one", "x.two", "three"]
    assert forgotten([], keys) == keys
    assert forgotten(['EXAMPLES["x.one"]'], keys) == ["x.two", "three"]
    assert forgotten(['EXAMPLES[f"x.{name}"]'], keys) == ["three"]
    assert forgotten(['EXAMPLES[f"{name}"]'], keys) == keys
    assert forgotten(['"x.one"'], keys) == keys  # in a file that reads no example


ANSWERS = {
    "ok": "<answer>55 + 36 - 19 - 7</answer>",
    "wrong": "<answer>55 + 36 + 19 + 7</answer>",
    "subset": "<answer>55 + 36 - 19</answer>",
    "eqsign": "<answer>55 + 36 - 19 - 7 = 65</answer>",
    "div0": "<answer>55 / (36 - 36) + 19 + 7</answer>",
    "notag": "55 + 36 - 19 - 7",
    "trail": "<answer>55 + 36 - 19 - 7</answer>\nDone.",
}


@pytest.mark.parametrize("name", EXAMPLES["cd"])
def test_worked_scores_of_countdown(name: str) -> None:
    text = f"User: x\nAssistant: {ANSWERS[name]}"
    close(countdown_score(text, [19, 36, 55, 7], 65), EXAMPLES["cd"][name])
