"""Toy tasks and the setup."""

import dataclasses
import itertools

import numpy as np
import pytest

from experiments.toys import toy_setup
from experiments.toys.toy_self_teacher import ShownCountDown
from experiments.toys.toy_tasks import CountDown, EndlessProblems, SayAndWait, Toy
from jaxrl_reason.rl.recipes.grpo import grpo

COUNT = CountDown()


@pytest.mark.parametrize(
    ("start", "max_step", "text", "right"),
    [
        (3, 1, "2 1 0 .", True),
        (3, 1, "1 0 .", False),
        (3, 2, "1 0 .", True),
        (3, 1, "2 1 .", False),
        (3, 1, "2 1 0 0 .", False),
        (3, 1, ".", False),
        (3, 1, "2 . 1 0 .", False),
        (3, 1, "_ 2 1 0 .", False),
    ],
)
def test_a_count_is_right_only_if_every_step_is(start, max_step, text, right):
    task = CountDown(start_digits=(start,), max_step=max_step)
    assert task.grade(Toy(0), text, truncated=False).correct == right
    assert not task.grade(Toy(0), text, truncated=True).correct


def test_traces_without_slips_are_right():
    rng = np.random.default_rng(0)
    for max_step, number in itertools.product((1, 3), range(9)):
        task = CountDown(max_step=max_step, sloppiness=0.0)
        tokens = task.trace(Toy(number), rng)
        text = task.tokenizer.decode(tokens)
        assert task.grade(Toy(number), text, truncated=False).correct
        assert task.tokenizer.encode(text) == tokens


def test_harder_problems_are_right_less_often():
    rng = np.random.default_rng(0)

    def accuracy(digit):
        texts = [
            COUNT.tokenizer.decode(COUNT.trace(Toy(digit - 1), rng)) for _ in "x" * 400
        ]
        return np.mean([COUNT.grade(Toy(digit - 1), t, False).correct for t in texts])

    assert accuracy(1) > accuracy(4) > accuracy(9) > 0


def test_problems_never_end_and_go_on_where_they_stopped():
    stream = EndlessProblems(3)
    ids = [
        p.problem_id for _, batch in zip(range(2), stream, strict=False) for p in batch
    ]
    again = EndlessProblems(3)
    again.set_state({"next": 2})
    assert [*ids, *(p.problem_id for p in next(again))] == list(range(9))


SMALL = toy_setup.tiny()


def test_a_seed_gives_the_same_run_again():
    plain, traces = grpo(kl_coef=0), []

    def counted_loss(*args, **kwargs):
        traces.append(args)
        return plain.loss(*args, **kwargs)

    method = dataclasses.replace(plain, loss=counted_loss)
    first = toy_setup.run_method(method, 0, steps=2, setup=SMALL)
    assert [row["step"] for row in first] == [1, 2]
    compiled = len(traces)
    assert compiled > 0
    assert toy_setup.run_method(method, 0, steps=2, setup=SMALL) == first
    assert toy_setup.run_method(method, 1, steps=2, setup=SMALL) != first
    short = toy_setup.run_method(method, 0, steps=2, setup=SMALL, until=bool)
    assert short == first[:1]
    assert len(traces) == compiled  # the first run compiled for all seeds


def test_waiting_too_briefly_or_for_ever_is_wrong():
    task = SayAndWait()

    def right(said, waited, truncated=False):
        return task.grade(Toy(0), f"{said}{' 0' * waited} .", truncated).correct

    assert right(7, 32)
    assert not right(7, 31)
    assert not right(6, 32)
    assert not right(7, 32, truncated=True)
    assert not right("7 1", 32)


def test_even_problems_of_the_copying_toy_show_what_is_to_be_said():
    task, rng = ShownCountDown(), np.random.default_rng(0)
    for number in range(20):
        prompt, said = task.prompt_tokens(Toy(number)), task.trace(Toy(number), rng)
        if number % 2:
            assert len(prompt) == 1
        else:
            assert prompt == [prompt[0], *said, prompt[0]]
