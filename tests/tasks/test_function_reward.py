"""Reward functions in workers: what they may be, and what they may do."""

import pytest

from jaxrl_reason.grading.worker_pool import WorkerError
from jaxrl_reason.tasks.function_reward import FunctionReward, read_spec
from jaxrl_reason.tasks.reward_functions import Asked
from jaxrl_reason.tasks.reward_task import ResponseText

FILE = """
import asyncio, ctypes, os, time
import numpy as np

def single(prompt, response, row):
    return {"long": len(response), "gold": response == row["gold"], "correct": True}

def batched(prompt, responses, row, *, tokens, max_tokens, **rest):
    assert rest["truncated"] == [False] * len(responses)
    return [n / max_tokens + (len(set(responses)) == 2) for n in tokens]

async def waits(prompt, response, row, step):
    await asyncio.sleep(0.3)
    if response == "hang":
        await asyncio.sleep(3600)
    return step

def environment(prompt, response, row):
    assert os.environ["JAX_PLATFORMS"] == "cpu"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    return 1.0

def hostile(prompt, response, row):
    if response == "text":
        return "1.0"
    if response == "nan":
        return float("nan")
    if response == "inf":
        return {"a": 1.0, "b": float("inf")}
    if response == "huge":
        return 1e30
    if response == "none":
        return None
    if response == "column":
        return np.ones((1, 1))
    if response == "raises":
        raise ValueError("a bad reward")
    if response == "sleeps":
        time.sleep(3600)
    if response == "spins":
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass
    if response == "segfaults":
        ctypes.string_at(0)
    if response == "grows":
        return len(bytearray(2**31))
    if response == "mutates":
        row["gold"] = row["more"][0] = "changed"
        return 1.0
    return float(row["gold"] == "4" and row["more"] == [1])

def wrong_length(prompt, responses, row):
    return [1.0]

def no_row(prompt):
    return 1.0
"""
ROW = {"gold": "4", "more": [1]}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "mine.py"
    path.write_text(FILE)
    return str(path)


def asked(*texts, **more):
    return Asked("2+2?", ROW, tuple(ResponseText(x, len(x)) for x in texts), **more)


def scored(place, *groups, **settings):
    reward = FunctionReward(place, workers=2, **settings)
    try:
        return reward.score(groups)
    finally:
        reward.close()


def test_a_function_of_one_response(place):
    (scores,) = scored(f"{place}:single", asked("4", "44"))
    assert scores == [
        ({"long": 1, "gold": 1}, True),
        ({"long": 2, "gold": 0}, True),
    ]


def test_a_function_of_all_responses_to_a_prompt(place):
    groups = asked("a", "bbb", max_tokens=4), asked("a", "a", max_tokens=2)
    first, second = scored(f"{place}:batched", *groups)
    assert [parts["reward"] for parts, _ in first] == [1.25, 1.75]
    assert [parts["reward"] for parts, _ in second] == [0.5, 0.5]


def test_an_async_function_waits_for_all_at_once(place):
    texts = ["go"] * 40 + ["hang"]
    (scores,) = scored(f"{place}:waits", asked(*texts, step=3), deadline=3.0)
    assert scores[:40] == [({"reward": 3.0}, None)] * 40
    assert "TimeoutError" in scores[40]


def test_a_function_of_an_installed_package_sees_no_accelerator(place):
    (scores,) = scored(f"{place}:environment", asked("x"))
    assert scores == [({"reward": 1.0}, None)]


def test_whatever_a_function_does_costs_its_own_response_alone(place):
    verdicts = {
        "fine": None,
        "text": "TypeError: a reward must be a number or a dict of numbers, got '1.0'",
        "nan": "must be finite and at most 1e6 in size, got nan",
        "inf": "must be finite and at most 1e6 in size, got inf",
        "huge": "must be finite and at most 1e6 in size, got 1e+30",
        "none": "a number or a dict of numbers, got None",
        "column": r"got an array of shape (1, 1)",
        "raises": "ValueError: a bad reward (mine.py, line",
        "sleeps": "not done after 2 seconds",
        "spins": "not done after 2 seconds",
        "segfaults": "the worker died",
        "grows": "MemoryError",
        "mutates": None,
    }
    texts = [*verdicts, "fine", "fine"]
    (scores,) = scored(f"{place}:hostile", asked(*texts), deadline=2.0)
    for text, score in zip(texts, scores, strict=True):
        said = verdicts[text]
        if said is None:
            assert score == ({"reward": 1.0}, None), text
        else:
            assert isinstance(score, str), text
            assert said in score, text
    assert ROW == {"gold": "4", "more": [1]}


def test_a_list_of_another_length_fails_for_the_group(place):
    (scores,) = scored(f"{place}:wrong_length", asked("a", "b"))
    assert len(scores) == 2
    assert all("one value for each (2), got 1" in score for score in scores)


def test_what_cannot_be_called_is_said_before_the_training(place, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_package\n")
    for where, said in (
        (f"{place}:missing", "there must be a function missing"),
        (f"{place}:no_row", r"must take \(prompt, response, row\), got no_row"),
        (f"{broken}:f", "No module named 'no_such_package'"),
        (f"{tmp_path}/none.py:f", "in a file that exists, got"),
    ):
        with pytest.raises(WorkerError, match=said):
            _ = FunctionReward(where).about


def test_a_spec_has_a_weight():
    assert read_spec("a/b.py:f") == ("a/b.py:f", 1.0)
    assert read_spec("a/b.py:f:-0.5") == ("a/b.py:f", -0.5)
    with pytest.raises(ValueError, match="weight must be a number, got 'answer:1e'"):
        read_spec("answer:1e")
