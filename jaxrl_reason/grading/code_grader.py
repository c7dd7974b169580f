"""Does a program pass its tests? It runs in a sandbox and is judged outside."""

import ast
import json
import math
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from jaxrl_reason.grading.code_tests import NAME, VALUE, Check, CodeTests, ScriptTest
from jaxrl_reason.grading.formats import after_reasoning
from jaxrl_reason.grading.sandbox import ENDED, Sandbox, SandboxJob
from jaxrl_reason.grading.sandbox_program import MARK, NotPlain, decode, encode

_FENCE = re.compile(r"^[ \t]*```[ \t]*([A-Za-z0-9+#.]*)[^\n]*$", re.MULTILINE)
_PYTHON = ("", "python", "py", "python3")
_CLOSE = 1e-9
_LONGEST_NUMBER = 64


@dataclass(frozen=True)
class CodeGrade:
    """The grade of one response.

    Attributes:
      passed: for each test, whether it passed; tests that were not run did not.
      program: the program; None if there was none.
    """

    passed: tuple[bool, ...]
    program: str | None

    @property
    def correct(self) -> bool:
        """Whether all tests passed."""
        return bool(self.passed) and all(self.passed)

    @property
    def fraction(self) -> float:
        """The fraction of tests that passed."""
        return sum(self.passed) / max(1, len(self.passed))


def find_program(response: str, reasoning: bool | None = None) -> str | None:
    r"""The program of a response: its last block of Python code.

    Args:
      response: the text.
      reasoning: where it is looked for, see `after_reasoning`.

    Returns:
      The inside of the last closed block that is marked as Python or not at all; the
      whole text if it has no fence; None if a fence was opened and not closed.

    Example:
      >>> find_program("So:\n```python\nprint(1)\n```\nDone.")
      'print(1)\n'
      >>> find_program("```python\nprint(") is None
      True
    """
    text = after_reasoning(response, reasoning)
    if text is None or not text.strip():
        return None
    found, opened = None, None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        else:
            if opened[1].lower() in _PYTHON:
                found = text[opened.end() + 1 : fence.start()]
            opened = None
    if opened is not None and opened[1].lower() in _PYTHON:
        return None  # the last program was cut off
    return found if found is not None or "```" in text else text


def grade_program(
    sandbox: Sandbox, program: str | None, tests: CodeTests, *, partial: bool = False
) -> CodeGrade:
    """Runs a program on its tests.

    Args:
      sandbox: where it runs.
      program: of the response; None fails all tests.
      tests: of the question.
      partial: whether to go on after a run as a script failed.

    Returns:
      The grade.
    """
    if program is None:
        return CodeGrade((False,) * tests.count, None)
    passed = _checks(sandbox, program, tests) if tests.checks else []
    for test in tests.scripts:
        go_on = partial or all(passed)
        passed.append(go_on and _script(sandbox, program, test))
    return CodeGrade(tuple(passed), program)


def grade_programs(
    sandbox: Sandbox,
    programs: Sequence[tuple[str | None, CodeTests]],
    *,
    partial: bool = False,
    workers: int | None = None,
) -> list[CodeGrade]:
    """Grades many programs, several at once.

    Args:
      sandbox: where they run.
      programs: each with its tests.
      partial: as in `grade_program`.
      workers: at once; None for the number of cores.

    Returns:
      The grades in order.
    """

    def grade(pair: tuple[str | None, CodeTests]) -> CodeGrade:
        return grade_program(sandbox, *pair, partial=partial)

    with ThreadPoolExecutor(workers or os.cpu_count(), "jaxrl-sandbox") as threads:
        return list(threads.map(grade, programs))


def _script(sandbox: Sandbox, program: str, test: ScriptTest) -> bool:
    run = sandbox.run(SandboxJob(program, test.stdin))
    said = run.output.decode("utf-8", "replace")
    return run.how == ENDED and same_output(said, test.stdout)


def _checks(sandbox: Sandbox, program: str, tests: CodeTests) -> list[bool]:
    steps = tests.steps
    run = sandbox.run(SandboxJob(program, steps=steps))
    values = _values(run.output, sum(kind == VALUE for kind, _ in steps))
    judged = iter(_judged(sandbox, values, tests))
    return [
        next(judged) if check.rule == "judge" else _holds(check, values)
        for check in tests.checks
    ]


def _values(output: bytes, count: int) -> list[Any]:
    """The values that a run wrote; NotPlain in place of those that are missing."""
    found: list[Any] = [NotPlain("no value")] * count
    for line in output.decode("utf-8", "replace").split("\n"):
        mark, _, rest = line.partition(" ")
        number, _, coded = rest.partition(" ")
        if f"{mark} " != MARK or not number.isdecimal() or len(number) > 9:
            continue
        if int(number) < count:
            try:
                found[int(number)] = decode(json.loads(coded))
            except (ValueError, RecursionError) as error:  # NotPlain among them
                found[int(number)] = NotPlain(str(error))
    return found


def _judged(sandbox: Sandbox, values: list[Any], tests: CodeTests) -> list[bool]:
    """The verdicts of the checks that need Python, run without the program."""
    steps = tests.judge_steps
    count = sum(kind == VALUE for kind, _ in steps)
    if not count:
        return []
    # What is not a value is None and an assertion about it fails below.
    coded = tuple(
        encode(None if isinstance(value, NotPlain) else value) for value in values
    )
    run = sandbox.run(SandboxJob("", steps=steps, values=coded))
    missing = {f"{NAME}{i}" for i, x in enumerate(values) if isinstance(x, NotPlain)}
    verdicts = []
    texts = [text for kind, text in steps if kind == VALUE]
    for text, held in zip(texts, _values(run.output, count), strict=True):
        names = {x.id for x in ast.walk(ast.parse(text)) if isinstance(x, ast.Name)}
        verdicts.append(
            not isinstance(held, NotPlain) and bool(held) and not names & missing
        )
    return verdicts


def _holds(check: Check, values: Sequence[Any]) -> bool:
    """Whether a check without a judge passes; all values are plain."""
    value = values[check.value]
    if isinstance(value, NotPlain):
        return False
    if check.rule in ("true", "false"):
        return bool(value) is (check.rule == "true")
    expected = ast.literal_eval(check.expected)
    try:
        if check.rule == "json":
            return same_json(value, expected)
        return bool(value is expected if check.rule == "is" else value == expected)
    except (TypeError, ArithmeticError, RecursionError):
        return False


def same_json(value: Any, expected: Any) -> bool:
    """Whether a value is the expected one as far as JSON can tell.

    Tuples are lists, keys are text, and a float may differ by 1e-9 of its size; True is
    not 1.

    Args:
      value: plain.
      expected: of JSON.

    Returns:
      Whether they are the same.

    Example:
      >>> same_json((0.1 + 0.2, "a"), [0.3, "a"])
      True
      >>> same_json(True, 1)
      False
    """
    if isinstance(value, list | tuple) and isinstance(expected, list | tuple):
        return len(value) == len(expected) and all(map(same_json, value, expected))
    if isinstance(value, dict) and isinstance(expected, dict):
        named = {_key(key): x for key, x in value.items()}
        wanted = {_key(key): x for key, x in expected.items()}
        return named.keys() == wanted.keys() and all(
            same_json(x, wanted[key]) for key, x in named.items()
        )
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    numbers = isinstance(value, int | float) and isinstance(expected, int | float)
    if numbers and isinstance(value, float) | isinstance(expected, float):
        return math.isclose(value, expected, rel_tol=_CLOSE, abs_tol=_CLOSE**2)
    return bool(value == expected)


def _key(key: Any) -> str:
    return key if isinstance(key, str) else json.dumps(key)


def same_output(said: str, expected: str) -> bool:
    r"""Whether a script wrote what was expected.

    Lines are compared without white space at their ends and without empty lines at the
    end of the text; in a line that differs, words are compared one by one, numbers as
    exact decimals, so that 2.0 is 2.

    Args:
      said: what it wrote.
      expected: what it had to write.

    Returns:
      Whether they are the same.

    Example:
      >>> same_output("1 2.0\n\n", "1 2")
      True
      >>> same_output("1\n2\n", "1 2")
      False
    """
    lines, wanted = _lines(said), _lines(expected)
    return len(lines) == len(wanted) and all(map(_same_line, lines, wanted))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _same_line(line: str, wanted: str) -> bool:
    if line == wanted:
        return True
    words, others = line.split(), wanted.split()
    return len(words) == len(others) and all(map(_same_word, words, others))


def _same_word(word: str, wanted: str) -> bool:
    if word == wanted:
        return True
    if max(len(word), len(wanted)) > _LONGEST_NUMBER:
        return False
    try:
        first, second = Decimal(word), Decimal(wanted)
    except InvalidOperation:
        return False
    return first.is_finite() and second.is_finite() and first == second
