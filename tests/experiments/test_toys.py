"""Toy tasks, the bench, and each toy experiment for a step or two."""

import itertools

import numpy as np
import pytest

from experiments.toys import bench
from experiments.toys.tasks import CountDown, EndlessProblems, Toy
from jaxrl_reason.training.methods import grpo

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

    def share(digit):
        texts = [
            COUNT.tokenizer.decode(COUNT.trace(Toy(digit - 1), rng)) for _ in "x" * 400
        ]
        return np.mean([COUNT.grade(Toy(digit - 1), t, False).correct for t in texts])

    assert share(1) > share(4) > share(9) > 0


def test_problems_never_end_and_go_on_where_they_stopped():
    stream = EndlessProblems(3)
    ids = [
        p.problem_id for _, batch in zip(range(2), stream, strict=False) for p in batch
    ]
    again = EndlessProblems(3)
    again.set_state({"next": 2})
    assert [*ids, *(p.problem_id for p in next(again))] == list(range(9))


SMALL = bench.tiny(bench.BENCH, prompts_per_step=3, group_size=4)


def test_a_seed_gives_the_same_run_again():
    method = grpo(kl_coef=0)
    runs = [bench.run_method(method, s, steps=2, bench=SMALL) for s in (0, 0, 1)]
    assert [row["step"] for row in runs[0]] == [1, 2]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    short = bench.run_method(method, 0, steps=2, bench=SMALL, until=bool)
    assert short == runs[0][:1]
    # Compiled once for all seeds.
    assert bench.method_parts(method, SMALL).update._cache_size() == 1
