"""Programming questions with unit tests, from rows as public sets have them."""

import ast
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxrl_reason.grading.answer_policy import USUAL, AnswerPolicy
from jaxrl_reason.grading.code_tests import (
    VALUE,
    Check,
    CodeTests,
    ScriptTest,
    TestsRefused,
    assert_tests,
)
from jaxrl_reason.tasks.question_rows import (
    NamedPlace,
    PlacedRow,
    Row,
    first_name,
    text_field,
)
from jaxrl_reason.tasks.questions import Question

_TEXT = ("question", "problem", "prompt", "question_content", "description", "text")
_ASSERTS = ("tests", "test_list", "test_cases", "test")
_SETUP = ("test_imports", "test_setup_code")
_PAIRS = ("input_output", "ground_truth", "test_cases", "tests")
_LISTS = ("public_test_cases", "private_test_cases")
_NAMES = ("fn_name", "func_name", "entry_point", "entry")


@dataclass(frozen=True)
class CodeQuestion(Question):
    """A question whose answer is a program.

    Attributes:
      row: `tests` of the question, a `CodeTests`, for a reward.
      refused: why the tests cannot be used; empty if they can.
    """

    row: Mapping[str, Any] = field(default_factory=dict, compare=False)
    refused: str = ""

    @property
    def tests(self) -> CodeTests:
        """The tests.

        Raises:
          TestsRefused: they cannot be used.
        """
        if self.refused:
            raise TestsRefused(self.refused)
        found: CodeTests = self.row["tests"]
        return found

    def unreadable(self, policy: AnswerPolicy = USUAL) -> str | None:
        """Why no program can be graded; None if one can.

        Args:
          policy: not used.
        """
        return self.refused or None


def code_questions(rows: Iterable[PlacedRow]) -> list[Question]:
    """Programming questions from rows.

    The text is `question`, `problem`, `prompt`, `question_content`, `description` or
    `text`, with `starter_code` after it. The tests are read by `read_tests`. Tests that
    cannot be used do not end the reading: such a question cannot be graded.

    Args:
      rows: each with its place, from any source.

    Returns:
      The questions, numbered from 0.

    Raises:
      QuestionFileError: a row has no text; the message names its place.

    Example:
      >>> row = {"question": "Add.", "tests": ["assert add(1, 2) == 3"]}
      >>> print(code_questions([("line 1", row)])[0].question)
      Add.
      <BLANKLINE>
      Define `add`.
    """
    questions: list[Question] = []
    for place, row in rows:
        with NamedPlace(place):
            text = text_field(row, first_name(row, _TEXT))
            refused, tests = "", None
            try:
                tests = read_tests(row)
            except TestsRefused as error:
                refused = str(error)
            questions.append(
                CodeQuestion(
                    problem_id=len(questions),
                    question=_asked(text, row, tests),
                    answer=refused or f"{tests.count if tests else 0} tests",
                    row={"tests": tests},
                    refused=refused,
                )
            )
    return questions


def _asked(text: str, row: Row, tests: CodeTests | None) -> str:
    """The question with what the tests need."""
    parts = [text.strip()]
    if isinstance(row.get("starter_code"), str) and row["starter_code"].strip():
        parts.append(f"```python\n{row['starter_code'].strip()}\n```")
    if tests is not None and tests.names:
        parts.append(f"Define {', '.join(f'`{name}`' for name in tests.names)}.")
    elif tests is not None and tests.scripts:
        parts.append("Read from standard input and write to standard output.")
    return "\n\n".join(parts)


def read_tests(row: Row) -> CodeTests:
    """The tests of a row, in any of these forms.

    - `tests`, `test_list`, `test_cases` or `test`: asserts, a text or a list of them
      (MBPP, HumanEval, AceCoder, KodCode), with `test_imports` and `test_setup_code`
      before them and `entry_point` for the name `candidate`;
    - `input_output`, `ground_truth`, `test_cases` or `tests`: `inputs` and `outputs`, a
      mapping or JSON text of one (APPS, TACO, PRIME); with `fn_name` they are arguments
      and results of calls, without it text that a script reads and writes;
    - `public_test_cases` and `private_test_cases`: lists of `input`, `output` and
      `testtype`, "stdin" or "functional" (LiveCodeBench).

    Args:
      row: of a file.

    Returns:
      The tests.

    Raises:
      TestsRefused: there are none, or they cannot be used.
    """
    for name in _PAIRS:
        pairs = _json(row.get(name))
        if isinstance(pairs, Mapping):
            return _pairs(pairs, row)
        if _is_cases(pairs):
            return _cases(pairs, row)
    cases = [case for name in _LISTS for case in _json(row.get(name)) or []]
    if cases:
        return _cases(cases, row)
    for name in _ASSERTS:
        given = _json(row.get(name))
        texts = [given] if isinstance(given, str) else given
        if texts and isinstance(texts, Sequence):
            setup = [text for key in _SETUP for text in _texts(row.get(key))]
            return assert_tests([*setup, *map(str, texts)], _name(row))
    raise TestsRefused(
        f"tests must be asserts or inputs and outputs, got the fields {', '.join(row)}"
    )


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(x) for x in value or ()]


def _json(value: Any) -> Any:
    """What a text holds if it is JSON; another value or text as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _name(row: Row, pairs: Mapping[str, Any] | None = None) -> str | None:
    """The function that is called."""
    metadata = _json(row.get("metadata"))
    places = [pairs or {}, row, metadata if isinstance(metadata, Mapping) else {}]
    found = (place.get(name) for place in places for name in _NAMES)
    return next((name for name in found if isinstance(name, str) and name), None)


def _is_cases(found: Any) -> bool:
    """Whether a value is a list of mappings with input and output."""
    return bool(
        isinstance(found, list)
        and found
        and isinstance(found[0], Mapping)
        and "input" in found[0]
    )


def _pairs(pairs: Mapping[str, Any], row: Row) -> CodeTests:
    inputs = pairs.get("inputs", pairs.get("input"))
    outputs = pairs.get("outputs", pairs.get("output"))
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        raise TestsRefused("tests must have inputs and outputs, got none")
    if len(inputs) != len(outputs):
        raise TestsRefused(
            f"tests must have as many outputs as inputs, got {len(outputs)} and "
            f"{len(inputs)}"
        )
    name = _name(row, pairs)
    if name is None:
        return _scripts(inputs, outputs)
    return call_tests(name, inputs, [_unwrapped(x) for x in outputs])


def _unwrapped(output: Any) -> Any:
    """APPS holds each result in a list of one."""
    return output[0] if isinstance(output, list) and len(output) == 1 else output


def _cases(cases: Sequence[Mapping[str, Any]], row: Row) -> CodeTests:
    name = _name(row)
    inputs = [case.get("input") for case in cases]
    outputs = [case.get("output") for case in cases]
    if all(case.get("testtype", "stdin") == "stdin" for case in cases):
        return _scripts(inputs, outputs)
    if name is None:
        raise TestsRefused("functional tests must name a function, got none")
    try:
        arguments = [
            [json.loads(line) for line in str(text).split("\n") if line.strip()]
            for text in inputs
        ]
        return call_tests(name, arguments, [json.loads(str(x)) for x in outputs])
    except ValueError as error:
        raise TestsRefused(f"functional tests must be JSON, got {error}") from None


def _scripts(inputs: Sequence[Any], outputs: Sequence[Any]) -> CodeTests:
    def text(value: Any) -> str:
        if isinstance(value, list):
            return "\n".join(map(str, value))
        if not isinstance(value, str):
            raise TestsRefused(f"input and output must be text, got {value!r}")
        return value

    pairs = zip(map(text, inputs), map(text, outputs), strict=True)
    return CodeTests(scripts=tuple(ScriptTest(*pair) for pair in pairs))


def call_tests(name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> CodeTests:
    """Tests that call a function with JSON and compare what it returns.

    A method of a class `Solution` counts as the function if there is no other.

    Args:
      name: of the function.
      inputs: the arguments of each call, as a list.
      outputs: the expected result of each.

    Returns:
      The tests.

    Raises:
      TestsRefused: the name is no name, or arguments are not in a list.

    Example:
      >>> call_tests("add", [[1, 2]], [3]).steps[-1]
      ('value', 'add(1, 2)')
    """
    if not name.isidentifier():
        raise TestsRefused(f"a function must have a name, got {name!r}")
    find = (
        f"if {name!r} not in globals() and 'Solution' in globals():\n"
        f"    def {name}(*a): return Solution().{name}(*a)"
    )
    steps, checks = [("run", find)], []
    for number, (arguments, expected) in enumerate(zip(inputs, outputs, strict=True)):
        if not isinstance(arguments, list):
            raise TestsRefused(f"arguments must be in a list, got {arguments!r}")
        steps.append((VALUE, f"{name}({', '.join(map(_source, arguments))})"))
        checks.append(Check("json", number, _source(expected)))
    return CodeTests(steps=tuple(steps), checks=tuple(checks), names=(name,))


def _source(value: Any) -> str:
    """A value of JSON as Python writes it."""
    text = repr(value)
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise TestsRefused(f"values must be JSON, got {text[:60]}") from None
    return text
