"""The example rewards: published values, and the same as the losses on arrays."""

from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from jaxrl_reason.grading import reward_examples as examples
from jaxrl_reason.grading.reward_call import inspect_reward
from jaxrl_reason.losses import (
    cosine_length_reward,
    difficulty_reward,
    kimi_length_reward,
)

AUDIO = (
    "<THINK>\n<PLANNING>listen</PLANNING><CAPTION>a song</CAPTION>\n"
    "<REASONING>in minor</REASONING> <SUMMARY>sad</SUMMARY></THINK>\n"
    "<RESPONSE>a sad song</RESPONSE>\n"
)


@pytest.mark.parametrize("tokens", [0, 250, 500, 983, 984, 1000])
@pytest.mark.parametrize("correct", [True, False])
def test_cosine_length_is_that_of_the_losses(tokens, correct):
    given = examples.cosine_length(
        "", "", {}, tokens=tokens, max_tokens=1000, correct=correct
    )
    wanted = cosine_length_reward(
        jnp.array(tokens),
        jnp.array(correct),
        max_length=1000,
        exceed_penalty=-10.0,
        exceed_margin=16,
    )
    assert given == pytest.approx(float(wanted), abs=1e-6)


@pytest.mark.parametrize("tokens", [[100, 200, 150, 300], [7, 7, 7, 7]])
def test_kimi_length_is_that_of_the_losses(tokens):
    correct = [True, True, False, False]
    given = examples.kimi_length("", [""] * 4, {}, tokens=tokens, correct=correct)
    ids = jnp.zeros(4, int)
    wanted = kimi_length_reward(
        jnp.array(tokens), jnp.array(correct), ids, num_groups=1
    )
    assert given == pytest.approx(wanted.tolist())


def test_repetition_counts_words():
    assert examples.repetition("", "a b c d", {}) == 0
    assert examples.repetition("", "a", {}) == 0
    assert examples.repetition("", "no no no no no", {}, n=2) == -0.75


def test_r1_format_and_tags():
    right = "<think>\na\n</think>\n<answer>\nb\n</answer>"
    assert examples.r1_format("", right, {}) == examples.r1_tags("", right, {}) == 1
    twice = "<think>\n<think>\na\n</think>\n<answer>\nb\n</answer>"
    for wrong in (" " + right, right + "\nmore", right.replace("\n", ""), twice):
        assert examples.r1_format("", wrong, {}) == 0
    assert examples.r1_tags("", twice, {}) == 0.75


def test_logic_rl_has_the_four_values_of_the_paper():
    row = {"roles": {"Zoe": "knight", "Jack": "knave"}}

    def total(response):
        parts = examples.logic_rl("", response, row)
        return parts["format"] + parts["roles"]

    right = "Zoe is a knight, Jack is a knave."
    answers = {
        f"a </think> <answer> {right} </answer>": 3,
        "a </think> <answer> Zoe is a knave, Jack is a knave. </answer>": -0.5,
        "a </think> <answer> both lie </answer>": -1,
        f"a <answer> {right} </answer>": -3,
    }
    assert {text: total(text) for text in answers} == answers


def test_plan_caption_reason_summary_in_this_order():
    reward = examples.plan_caption_reason_summary
    assert reward("", AUDIO, {}) == 1
    for wrong in (
        AUDIO.replace("<CAPTION>a song</CAPTION>", ""),
        AUDIO.replace("in minor", " "),
        AUDIO.replace("<PLANNING>listen</PLANNING>", "").replace(
            "<SUMMARY>", "<PLANNING>listen</PLANNING><SUMMARY>"
        ),
        AUDIO + AUDIO,
        AUDIO.replace("sad</SUMMARY>", "sad</SUMMARY> and"),
        "well: " + AUDIO,
        AUDIO + "more",
        AUDIO.replace("</SUMMARY></THINK>", "</THINK></SUMMARY>"),
    ):
        assert reward("", wrong, {}) == 0, wrong


def test_adaptive_length_spares_hard_questions_and_wrong_answers():
    context = {"tokens": [50, 100], "max_tokens": 100, "correct": [True, False]}
    hard = examples.adaptive_length("", ["", ""], {"difficulty": 1.0}, **context)
    assert hard == [0, 0]
    assert examples.adaptive_length("", ["", ""], {}, **context) == [-0.25, 0]


@pytest.mark.parametrize("soft", [False, True])
def test_difficulty_weights_are_those_of_the_losses(soft):
    passed = [1, 1, 1, 0, 1, 1, 1, 1, 1]
    levels = [0, 0, 1, 1, 1, 2, 2, 2, 2]
    scores = (0.2, 0.3, 0.5)
    wanted = difficulty_reward(
        jnp.array(passed), jnp.array(levels), scores=scores, soft=soft
    )
    given = examples.difficulty_weights(passed, levels, scores=scores, soft=soft)
    assert given == pytest.approx(float(wanted))
    with pytest.raises(ValueError, match="scores must be >= 0 and sum to 1"):
        examples.difficulty_weights(passed, levels, scores=(0.5, 0.6))


def test_tests_by_difficulty_runs_the_tests_in_the_sandbox(monkeypatch):
    ran = []

    def grade_program(sandbox, program, tests, *, partial):
        ran.append((sandbox, program.strip(), tests.count, partial))
        return SimpleNamespace(passed=(True, False, True))

    monkeypatch.setattr(examples, "open_sandbox", lambda: "sandbox")
    monkeypatch.setattr(examples, "grade_program", grade_program)
    row = {"tests": [f"assert f({n}) == {n}" for n in range(3)], "levels": [0, 1, 1]}
    response = "```python\nf = abs\n```"
    assert examples.tests_by_difficulty("", response, row) == pytest.approx(0.2)
    assert ran == [("sandbox", "f = abs", 3, True)]
    examples._sandbox.cache_clear()


def test_all_are_called_as_rewards():
    names = ["cosine_length", "kimi_length", "repetition", "r1_format", "r1_tags"]
    names += [
        "tests_by_difficulty",
        "logic_rl",
        "plan_caption_reason_summary",
        "adaptive_length",
    ]
    for name in names:
        about = inspect_reward(getattr(examples, name))
        known = {"tokens", "max_tokens", "correct", "step", "truncated"}
        assert set(about.needed) <= known
