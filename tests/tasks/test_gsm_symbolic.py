"""Word problems from templates: whole values, other numbers, steps, idle sentences."""

import re
from dataclasses import replace

import numpy as np
import pytest

from jaxrl_reason.tasks.gsm_symbolic import (
    SymbolicSettings,
    fill,
    gsm_symbolic,
    symbolic_questions,
)
from jaxrl_reason.tasks.questions import ungradable
from jaxrl_reason.tasks.symbolic_templates import TEMPLATES
from tests.tasks.test_questions import Bytes

SETTINGS = SymbolicSettings(problems=80)


def test_the_same_settings_give_the_same_different_problems() -> None:
    splits = symbolic_questions(SETTINGS)
    every = [question for part in splits.values() for question in part]
    assert len({question.question for question in every}) == 80
    assert {question.kind for question in splits["test"]} == set(map(str, range(8)))
    assert ungradable(every) == {}
    assert not any(set("{}") & set(question.question) for question in every)
    symbolic_questions.cache_clear()
    assert symbolic_questions(SETTINGS) == splits
    assert symbolic_questions(replace(SETTINGS, seed=1)) != splits


# The value of each template by its numbers in the order of the text, worked out anew.
VALUES = [
    lambda a, k: a + k * a,
    lambda p, a, m: m - p * a,
    lambda a, d, t: t - a * d,
    lambda n, a, h: n * a * h,
    lambda a, h, b: a * h + b,
    lambda a, b, k: (2 * a - b) / k,
    lambda r, s, p: r * s * p / 100,
    lambda w, d, h, c: w * d * h - c,
]


@pytest.mark.parametrize("kind", range(len(TEMPLATES)))
def test_the_answer_is_that_of_the_text(kind: int) -> None:
    rng = np.random.default_rng(kind)
    for _ in range(20):
        text, value = fill(TEMPLATES[kind], rng)
        numbers = [int(x) for x in re.findall(r"[0-9]+", text)]
        assert VALUES[kind](*numbers) == value >= 1


@pytest.mark.parametrize("kind", range(len(TEMPLATES)))
def test_steps_change_the_answer_and_idle_sentences_do_not(kind: int) -> None:
    template = TEMPLATES[kind]
    changed = 0
    for seed in range(8):
        texts, values = zip(
            *(
                fill(template, np.random.default_rng(seed), steps=steps, idle=idle)
                for steps, idle in ((0, False), (0, True), (2, False))
            ),
            strict=True,
        )
        assert values[0] == values[1]
        assert len(texts[0]) < len(texts[1])
        assert len(texts[0]) < len(texts[2])
        changed += values[0] != values[2]
    assert changed >= 6


def test_grades() -> None:
    task, question = gsm_symbolic(Bytes()), symbolic_questions(SETTINGS)["train"][0]
    assert task.grade(question, f"So\n#### {question.answer}", False).correct
    wrong = str(int(question.answer) + 1)
    assert not task.grade(question, f"So\n#### {wrong}", False).correct
    with pytest.raises(ValueError, match="steps must be 0, 1 or 2, got 3"):
        SymbolicSettings(steps=3)
