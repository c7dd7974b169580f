"""Toy tasks, the setup, and each toy experiment for a step or two."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from experiments.toys import (
    clip_higher,
    dynamic_sampling,
    loss_mean_and_length,
    toy_setup,
    value_pretraining,
)
from experiments.toys.compare import first_row, over_steps, table
from experiments.toys.toy_self_teacher import ShownCountDown
from experiments.toys.toy_tasks import CountDown, EndlessProblems, Toy
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


SCRIPTS = [clip_higher, dynamic_sampling, loss_mean_and_length, value_pretraining]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_runs(script, tmp_path, capsys, monkeypatch):
    # All on sizes compiled once, from the same fine-tuned model; one arm each, as
    # every arm compiles an update of its own.
    trained = toy_setup.sft_policy(SMALL, 0)
    monkeypatch.setattr(toy_setup, "sft_policy", lambda of, seed: trained)
    small = dataclasses.replace(SMALL, task=script.THIS_SETUP.task)
    arm = list(script.experiment(small).arms)[-1]
    out = ["--out", str(tmp_path), "--arms", arm]
    script.main([*out, "--seeds", "0", "--steps", "1"], small)
    (found,) = tmp_path.glob("*.json")
    ((row,),) = json.loads(found.read_text())[arm]
    assert row["step"] == 1
    assert found.with_suffix(".png").stat().st_size > 1000
    lines = found.with_suffix(".md").read_text().splitlines()
    assert len(lines) == 3
    assert lines[2] in capsys.readouterr().out


def test_arms_differ_in_one_switch():
    def parts(script):
        arms = script.experiment(script.THIS_SETUP).arms.values()
        return [(a.method, a.setup) for a in arms]

    for script in (clip_higher, dynamic_sampling, loss_mean_and_length):
        assert {a_setup for _, a_setup in parts(script)} == {script.THIS_SETUP}
    clips = [m.loss.keywords["clip_high"] for m, _ in parts(clip_higher)]
    assert clips == [0.1, 0.2, 0.28, 0.4]
    samples_more = [bool(m.dynamic_sampling) for m, _ in parts(dynamic_sampling)]
    assert samples_more == [True, False]
    losses = [m.loss.func.__name__ for m, _ in parts(loss_mean_and_length)]
    assert losses == ["dapo_loss", "grpo_loss"]
    (plain, a), (decoupled, c), (taught, b), both = parts(value_pretraining)
    assert (plain, a, (decoupled, b)) == (taught, c, both)
    assert plain != decoupled
    steps = value_pretraining.PRETRAINING
    assert b.settings == dataclasses.replace(a.settings, value_pretraining_steps=steps)


def test_waiting_too_briefly_or_for_ever_is_wrong():
    task = value_pretraining.SayAndWait()

    def right(said, waited, truncated=False):
        return task.grade(Toy(0), f"{said}{' 0' * waited} .", truncated).correct

    assert right(7, 32)
    assert not right(7, 31)
    assert not right(6, 32)
    assert not right(7, 32, truncated=True)
    assert not right("7 1", 32)


def test_nothing_is_to_be_learned_from_a_coin():
    task = clip_higher.CoinToss()

    def right(number, text):
        return task.grade(Toy(number), text, False).correct

    assert right(3, "1 2 .") == right(3, "1 2 .")
    tosses = np.array([[right(n, f"{d} .") for d in range(10)] for n in range(400)])
    # 5 standard deviations of fair coins: of a response, and of two that agree.
    assert np.abs(tosses.mean(axis=0) - 0.5).max() < 5 * 0.5 / 20
    agree = (tosses[:, :-1] == tosses[:, 1:]).mean(axis=0)
    assert np.abs(agree - 0.5).max() < 5 * 0.5 / 20


def test_summaries_and_their_table():
    rows = [{"step": n, "x": float(n)} for n in (1, 2, 3, 4)]
    del rows[2]["x"]
    assert over_steps("x", 2, 4)(rows) == 3.0
    assert first_row("step", lambda seen: len(seen) >= 3, 10.0)(rows) == 30
    assert np.isnan(first_row("step", lambda seen: False)(rows))
    runs = {"an arm": [rows, rows[:2]]}
    assert table(runs, {"x": over_steps("x", 1, 2), "last": lambda r: r[-1]["x"]}) == (
        "| arm | x | last |\n|---|---|---|\n"
        "| an arm | 1.50 ± 0.00 (1.50, 1.50) | 3.00 ± 1.41 (4.00, 2.00) |\n"
    )


def test_even_problems_of_the_copying_toy_show_what_is_to_be_said():
    task, rng = ShownCountDown(), np.random.default_rng(0)
    for number in range(20):
        prompt, said = task.prompt_tokens(Toy(number)), task.trace(Toy(number), rng)
        if number % 2:
            assert len(prompt) == 1
        else:
            assert prompt == [prompt[0], *said, prompt[0]]
