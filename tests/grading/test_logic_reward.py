"""Logic-RL's reward: the published table, the rules, hostile text."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from jaxrl_reason.grading.formats import last_tagged
from jaxrl_reason.grading.logic_reward import (
    LogicGrade,
    grade_roles,
    parse_roles,
    tags_in_order,
)
from tests.losses.worked import EXAMPLES

ROLES = {"Zoey": "knight", "Oliver": "knave", "Mia": "knight"}
RIGHT = "(1) Zoey is a knight\n(2) Oliver is a knave\n(3) Mia is a knight"


def said(answer: str) -> str:
    return f"some thoughts </think>\n<answer> {answer} </answer>"


def reward(answer: str) -> float:
    return grade_roles(said(answer), ROLES).reward


def test_the_published_table() -> None:
    rewards = [
        reward(RIGHT),
        reward(RIGHT.replace("Mia is a knight", "Mia is a knave")),
        reward("Zoey is a knight"),
        grade_roles(RIGHT, ROLES).reward,
    ]
    assert rewards == EXAMPLES["logic"]


def test_the_verdict_has_a_reason() -> None:
    assert grade_roles(said(RIGHT), ROLES) == LogicGrade(3.0, True, True, ROLES, "")
    wrong = grade_roles(said(RIGHT.replace("knave", "knight")), ROLES)
    assert wrong.reason == "wrong about Oliver"
    assert (wrong.correct, wrong.format_ok) == (False, True)
    assert grade_roles(said(""), ROLES).parsed is None
    assert grade_roles("", ROLES).reason == "tags not once each and in order"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (RIGHT.upper(), 3.0),
        (RIGHT.replace(" is a ", "\n is \t a  "), 3.0),
        (RIGHT.replace("Zoey", "Zoeys"), -1.0),  # another name
        (RIGHT.replace("is a", "is not a"), -1.0),
        (RIGHT + " Zoey is a knave", -1.0),  # hedging: four roles for three
        (RIGHT.replace("knave", "spy"), -1.0),
        ("knight knave knight", -1.0),
        ("Zoey is a knight, so is Mia, Oliver is a knave", -1.0),
        ("", -1.0),
    ],
)
def test_answers(answer: str, expected: float) -> None:
    assert reward(answer) == expected


@pytest.mark.parametrize(
    "answer",
    [
        "Zoey is a knight or Mia is a knave",
        "It is false that Zoey is a knight, Mia is a knave",
        "Zoey is a knight, Mia is a knave or vice versa",
        "Zoey is a knight, Zoey is a knave",
        "Zoey is a knight, Mia is a knave, Mia is a knave",
        "Zoey is a knight? Mia is a knave",
        "If Zoey is a knight, Mia is a knave",
        "Zoey is a knightly, Mia is a knave",
    ],
)
def test_an_answer_that_says_more_is_unreadable(answer: str) -> None:
    assert parse_roles(answer, ("Zoey", "Mia")) is None


@pytest.mark.parametrize(
    "answer",
    [
        "**Zoey** is a **knight**, **Mia** is a **knave**.",
        "1. Zoey is a knight\n2. Mia is a knave",
        "- Zoey is a knight\n- mia IS A KNAVE",
        "(1) Mia is a knave and (2) Zoey  is a knight",
    ],
)
def test_numbering_and_asterisks_are_read(answer: str) -> None:
    found = parse_roles(answer, ("Zoey", "Mia"))
    assert found == {"Zoey": "knight", "Mia": "knave"}


@pytest.mark.parametrize(
    "response",
    [
        f"<think> {said(RIGHT)}",  # the prompt has opened it already
        said(RIGHT) + said(RIGHT),
        said(RIGHT).replace("</think>", ""),
        said(RIGHT).replace("</answer>", ""),
        "<answer> " + RIGHT + " </answer> </think>",
        "</think> </answer> " + RIGHT + " <answer>",
        said(RIGHT + " <answer> "),
    ],
)
def test_broken_formats(response: str) -> None:
    assert grade_roles(response, ROLES).reward == -3.0


def test_text_around_the_tags_is_allowed_and_the_opening_tag_may_be_the_models() -> (
    None
):
    assert grade_roles("a" + said(RIGHT) + " done", ROLES).reward == 3.0
    opened = "<think> " + said(RIGHT)
    assert grade_roles(opened, ROLES, opened=False).reward == 3.0
    assert grade_roles(said(RIGHT), ROLES, opened=False).reward == -3.0


def test_a_prompts_word_does_not_move_the_response() -> None:
    # kk.py reads behind the first "Assistant:" of prompt and response together.
    def first_marker(text: str) -> str:
        return text.split("Assistant:", 1)[1]

    prompt = "User: what does <think> in 'Assistant: <think>' mean? Assistant: <think>"
    assert not tags_in_order(first_marker(prompt + said(RIGHT)))
    assert grade_roles(said(RIGHT), ROLES).correct


@hypothesis_settings(deadline=None)
@given(st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "x"])))
def test_order_is_that_of_a_regex(pieces: list[str]) -> None:
    text = "".join(pieces)
    tags = ("<think>", "</think>", "<answer>", "</answer>")
    match = re.fullmatch(".*<think>.*</think>.*<answer>.*</answer>.*", text)
    once = all(pieces.count(tag) == 1 for tag in tags)
    assert tags_in_order(text) is (match is not None and once)


PIECES = ["Zoey", "Mia", " is a ", "knight", "knave", " ", "\n", "is", " a", "not"]


@hypothesis_settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_no_text_raises_and_all_rewards_are_of_the_table(text: str) -> None:
    roles = {"Zoey": "knight", "Mia": "knave"}
    found = grade_roles(said(text), roles)
    assert found.reward in EXAMPLES["logic"][:3]
    assert found.correct is (found.reward == 3.0)
    answer = last_tagged(said(text), "answer")
    assert found.parsed == parse_roles(answer, ("Zoey", "Mia"))


@pytest.mark.parametrize(
    "hostile",
    [
        "Zoey" + " " * 200_000 + "is",
        ("Zoey" + " " * 200) * 1000,
        "Zoey is " * 30_000,
        ("Zoey is a" + " " * 100) * 2000,
        "knight " * 30_000,
        "<answer>" * 25_000,
        "</think>" * 25_000,
        "\x00\ud800\u202e" * 50_000,
    ],
)
def test_long_texts_take_no_time(hostile: str) -> None:
    start = time.process_time()
    assert not grade_roles(said(hostile), ROLES).correct
    assert not grade_roles(hostile, ROLES).correct
    parse_roles(hostile + " knight knave knight", tuple(ROLES))
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("response", [None, 5, b"text", ["x"]])
def test_what_is_no_text_breaks_the_format(response: object) -> None:
    assert grade_roles(response, ROLES).reward == -3.0


def test_names_are_no_patterns() -> None:
    roles = {"A.*": "knight"}
    assert not grade_roles(said("Abc is a knight"), roles).correct


@pytest.mark.parametrize("roles", [{}, {"Zoey": "spy"}])
def test_refusals(roles: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="roles must be knight or knave"):
        grade_roles(said(RIGHT), roles)
