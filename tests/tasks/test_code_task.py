"""Programming questions of public sets: read, asked, graded, rewarded."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from jaxrl_reason.grading.code_tests import TestsRefused
from jaxrl_reason.grading.sandbox import SandboxError, SandboxJob, SandboxRun
from jaxrl_reason.tasks.code_rows import CodeQuestion, code_questions
from jaxrl_reason.tasks.code_task import CodeFlags, CodeTask, PassedTests, code
from jaxrl_reason.tasks.question_rows import QuestionFileError
from jaxrl_reason.tasks.questions import ungradable
from jaxrl_reason.tasks.reward_functions import Asked, Weighted
from jaxrl_reason.tasks.reward_task import RewardTask
from jaxrl_reason.tasks.task import ResponseText
from jaxrl_reason.text.characters import CharacterTokenizer
from jaxrl_reason.train.group_settings import EvalSettings
from jaxrl_reason.train.task_settings import TaskSettings
from jaxrl_reason.train.tasks import build_task, load_problems
from jaxrl_reason.train.train_settings import TrainSettings
from tests.tasks.test_questions import Bytes

DOUBLE = "def double(x):\n    return 2 * x"
SCRIPT = "n = int(input())\nprint(2 * n)"
METHOD = "class Solution:\n    def double(self, x):\n        return (2 * x[0],)"
# A row of each form, a program that passes, and one that does not.
ROWS: dict[str, tuple[dict[str, Any], str, str]] = {
    "mbpp": (
        {
            "text": "Double a number.",
            "test_list": ["assert double(2) == 4", "assert double(0) == 0"],
            "test_setup_code": "import math",
        },
        DOUBLE,
        DOUBLE.replace("2 * x", "x + 2"),
    ),
    "humaneval": (
        {
            "prompt": "def double(x):\n    '''Doubles.'''\n",
            "entry_point": "double",
            "test": "def check(candidate):\n    assert candidate(2) == 4\n"
            "    assert abs(candidate(0.5) - 1) < 1e-6\n",
        },
        DOUBLE,
        "def double(x):\n    return 4",
    ),
    "apps": (
        {
            "question": "Double a number.",
            "input_output": '{"inputs": ["2\\n", "0\\n"], "outputs": ["4", "0\\n"]}',
        },
        SCRIPT,
        SCRIPT.replace("2 * n", "4"),
    ),
    "apps with a function": (
        {
            "question": "Double a number.",
            "input_output": {
                "fn_name": "double",
                "inputs": [[[2]], [["a"]]],
                "outputs": [[[4]], [["aa"]]],
            },
        },
        METHOD,
        METHOD.replace("(2 * x[0],)", "[4]"),
    ),
    "livecodebench": (
        {
            "question_content": "Double a number.",
            "starter_code": "def double(x):",
            "metadata": json.dumps({"func_name": "double"}),
            "public_test_cases": json.dumps(
                [{"input": "2", "output": "4", "testtype": "functional"}]
            ),
            "private_test_cases": [
                {"input": '"a"', "output": '"aa"', "testtype": "functional"}
            ],
        },
        DOUBLE,
        "def double(x):\n    return 4",
    ),
    "cases": (
        {"problem": "Double.", "tests": [{"input": "3", "output": "6\n"}]},
        SCRIPT,
        "print(7)",
    ),
}


def question_of(row: dict[str, Any]) -> CodeQuestion:
    (found,) = code_questions([("line 1", row)])
    assert isinstance(found, CodeQuestion)
    return found


def fenced(program: str) -> str:
    return f"I think so.\n```python\n{program}\n```\n"


@pytest.fixture(scope="module")
def task() -> CodeTask:
    try:
        return CodeFlags(seconds=30).applied(code(Bytes()))
    except SandboxError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", ROWS)
def test_every_form_of_rows(task: CodeTask, name: str) -> None:
    row, right, wrong = ROWS[name]
    question = question_of(row)
    assert question.unreadable() is None
    texts = [fenced(right), fenced(wrong), "No idea.", "```python\n" + right]
    task.grade_ahead([question] * 4, texts)
    grades = [task.grade(question, text, False) for text in texts]
    assert [grade.correct for grade in grades] == [True, False, False, False]
    assert grades[0].parsed == f"{question.tests.count} of {question.tests.count} tests"
    assert [grade.format_ok for grade in grades] == [True, True, True, False]
    assert not task.grade(question, texts[0], truncated=True).correct


def test_what_is_asked() -> None:
    asked = question_of(ROWS["livecodebench"][0]).question
    assert asked == (
        "Double a number.\n\n```python\ndef double(x):\n```\n\nDefine `double`."
    )
    assert "Read from standard input" in question_of(ROWS["apps"][0]).question
    prompt = Bytes().decode(code(Bytes()).prompt_tokens(question_of(ROWS["mbpp"][0])))
    assert "Define `double`." in prompt
    assert "begins with ```python" in prompt
    assert "== 4" not in prompt


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "must be asserts or inputs and outputs, got the fields question"),
        ({"tests": ["while True: pass"]}, "got While"),
        ({"input_output": {"inputs": ["1"], "outputs": []}}, "as many outputs"),
        ({"input_output": {"inputs": [1], "outputs": [2]}}, "must be text, got 1"),
        ({"input_output": "{"}, "must be asserts or inputs"),
        (
            {"input_output": {"fn_name": "f(", "inputs": [[1]], "outputs": [2]}},
            "must have a name, got 'f\\('",
        ),
        (
            {"tests": [{"input": "x", "output": "1", "testtype": "functional"}]},
            "must name a function",
        ),
        (
            {"input_output": {"fn_name": "f", "inputs": [[1]], "outputs": [1e999]}},
            "values must be JSON",
        ),
    ],
)
def test_tests_that_cannot_be_used_are_said(row: dict[str, Any], said: str) -> None:
    question = question_of({"question": "?", **row})
    assert list(ungradable([question])) == [0]
    with pytest.raises(TestsRefused, match=said):
        _ = question.tests


def test_a_row_without_text_is_refused() -> None:
    with pytest.raises(QuestionFileError, match=r"line 1: .*question"):
        code_questions([("line 1", {"tests": ["assert f(1) == 1"]})])


def test_the_fraction_of_tests_as_reward(task: CodeTask) -> None:
    question = question_of(ROWS["mbpp"][0])
    partial = replace(task, partial=True)
    rewarded = RewardTask(partial, (Weighted(PassedTests(partial)),))
    texts = [DOUBLE, DOUBLE.replace("2 * x", "4"), "x ="]
    grades = rewarded.grade_together(
        [question] * 3, [ResponseText(fenced(text)) for text in texts]
    )
    assert [grade.parts for grade in grades] == [
        {"reward": 1.0},
        {"reward": 0.5},
        {"reward": 0.0},
    ]
    assert [grade.correct for grade in grades] == [True, False, False]


class Broken:
    """A sandbox that does not start."""

    name = "broken"

    def run(self, job: SandboxJob) -> SandboxRun:
        raise SandboxError("broken must start a program, got none")


def test_a_broken_sandbox_is_a_failure_of_the_grader() -> None:
    task = replace(code(Bytes()), sandbox=Broken())
    question = question_of(ROWS["mbpp"][0])
    task.grade_ahead([question], [fenced(DOUBLE)])
    with pytest.raises(SandboxError, match="got none"):
        task.grade(question, fenced(DOUBLE), False)
    (score,) = PassedTests(task).score([_asked(question, [fenced(DOUBLE)])])
    assert score == ["broken must start a program, got none"]


def _asked(question: CodeQuestion, texts: Sequence[str]) -> Any:
    responses = tuple(map(ResponseText, texts))
    return Asked(question.question, question.row, responses)


@pytest.mark.parametrize("reward", ["all", "partial"])
def test_the_command_line_trains_on_programs(
    reward: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "jaxrl_reason.tasks.code_task.open_sandbox", lambda kind, limits: Broken()
    )
    data = tmp_path / "a.jsonl"
    rows = [ROWS["mbpp"][0]] * 9 + [{"text": "?", "tests": ["for x in y: pass"]}]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = TrainSettings(
        task=TaskSettings("code", data=str(data), code=CodeFlags(reward=reward)),
        eval=EvalSettings(problems=1),
    )
    problems = load_problems(settings)
    assert problems.dropped.get("ungradable", 0) + len(problems.train) == 9
    task = build_task(settings, problems, None)
    assert isinstance(task.tokenizer, CharacterTokenizer)
    assert isinstance(task, RewardTask if reward == "partial" else CodeTask)
