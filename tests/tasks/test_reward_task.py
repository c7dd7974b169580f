"""Questions and rewards of one's own: any fields, any function, whatever it does."""

import json
import math

import pytest

from jaxrl_reason.grading.load_function import load_function
from jaxrl_reason.grading.reward_call import read_parts
from jaxrl_reason.tasks.question_rows import QuestionFileError
from jaxrl_reason.tasks.questions import QuestionTask
from jaxrl_reason.tasks.reward_task import RewardTask
from jaxrl_reason.tasks.row_questions import RowQuestion, row_questions
from jaxrl_reason.text.characters import CharacterTokenizer

ROW = {"problem": "2+3=", "solution": 5, "level": "easy"}
QUESTION = RowQuestion(0, "2+3=", "5", row=ROW)


def task_of(function):
    tokenizer = CharacterTokenizer("0123456789+=")
    return RewardTask(QuestionTask(tokenizer, "", "sums", separator=""), function)


def test_a_question_keeps_its_row():
    (found,) = row_questions([("line 1", ROW)], question="problem", answer="solution")
    assert (found.question, found.answer, found.row) == ("2+3=", "5", ROW)


def test_a_row_without_the_field_is_named():
    said = (
        "line 1: question must be a field, got the fields 'problem', 'solution', "
        "'level'; name another with --task.question FIELD"
    )
    with pytest.raises(QuestionFileError, match=said):
        row_questions([("line 1", ROW)])
    with pytest.raises(QuestionFileError, match="line 1: problem must be text"):
        row_questions([("line 1", {"problem": " "})], question="problem", answer=None)


def test_the_function_gets_question_response_and_row():
    seen = []

    def reward(prompt, response, row):
        seen.append((prompt, response, row))
        return 1.0

    graded = task_of(reward).grade(QUESTION, "5<end>", truncated=False)
    assert seen == [("2+3=", "5", ROW)]
    assert (graded.correct, graded.failed) == (True, False)


def test_the_function_is_asked_once_for_each_text():
    calls = []
    task = task_of(lambda prompt, response, row: calls.append(response) or 0.0)
    for question in (QUESTION, QUESTION, RowQuestion(0, "1+1=", "2", row=ROW)):
        task.grade(question, "5", truncated=False)
    task.grade(QUESTION, "6", truncated=False)
    assert calls == ["5", "5", "6"]  # ids may repeat between sets


@pytest.mark.parametrize(
    ("given", "correct", "failed"),
    [
        (1, True, False),
        (0.5, False, False),
        (True, True, False),
        ({"answer": 0.5, "format": 0.5}, True, False),
        ({"answer": 2.0, "correct": False}, False, False),
        ({"answer": -1.0, "correct": True}, True, False),
        (math.nan, False, True),
        ({"answer": math.inf, "correct": True}, False, True),
    ],
)
def test_what_a_reward_says(given, correct, failed):
    graded = task_of(lambda *asked: given).grade(QUESTION, "5", truncated=False)
    assert (graded.correct, graded.failed) == (correct, failed)
    truncated = task_of(lambda *asked: given).grade(QUESTION, "5", truncated=True)
    assert not truncated.correct


def test_an_error_of_the_function_is_a_failed_grade_that_says_so():
    for function, said in (
        (lambda *asked: 1 / 0, "reward reward: ZeroDivisionError: division by zero"),
        (lambda *asked: None, "must be a number or a dict of numbers, got None"),
    ):
        graded = task_of(function).grade(QUESTION, "5", truncated=False)
        assert graded.failed
        assert said in graded.error


def test_a_reward_needs_a_part():
    with pytest.raises(ValueError, match="a part besides correct, got"):
        read_parts({"correct": True})


def test_a_function_is_found_in_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def reward(prompt, response, row):\n    return len(response)\n")
    assert load_function(f"{path}:reward")("", "abc", {}) == 3
    for place, said in (
        (str(path), "must be given as my_file.py:my_function"),
        (f"{tmp_path}/other.py:reward", "must be in a file that exists, got"),
        (f"{path}:missing", "must be a function missing in"),
    ):
        with pytest.raises(ValueError, match=said):
            load_function(place)


def test_rows_are_plain(tmp_path):
    # What a reward gets is the row as the file has it, numbers as numbers.
    line = json.dumps(ROW)
    (found,) = row_questions(
        [("line 1", json.loads(line))], question="problem", answer=None
    )
    assert found.row["solution"] == 5
    assert found.answer == ""
