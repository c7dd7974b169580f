"""Toys of single claims: waits, patience, knights, a pool of problems."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.toys import toy_pool, toy_setup
from experiments.toys.toy_knights import MOST_PEOPLE, KnightsInARow
from experiments.toys.toy_patience import Patience
from experiments.toys.toy_pool import DropsAtRandom, PoolArm, run_pool_arm
from experiments.toys.toy_tasks import Toy
from experiments.toys.toy_waits import FAR, NEAR, DigitThenWait
from jaxrl_reason.data.adaptive_streams import HistoryResampling
from jaxrl_reason.rl.recipes.grpo import grpo

POOL = [Toy(n) for n in range(12)]


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("7 0 0 .", True),
        ("7 0 0 0 0 .", True),
        ("7 0 .", False),  # too short
        ("6 0 0 .", False),  # another digit
        ("7 0 1 .", False),
        ("7 .", False),
        (".", False),
    ],
)
def test_the_digit_and_the_wait_decide(text, right):
    task = DigitThenWait(shortest=2)
    assert task.grade(Toy(0), text, truncated=False).correct == right
    assert not task.grade(Toy(0), text, truncated=True).correct


@pytest.mark.parametrize("setup", [FAR, NEAR])
def test_one_trace_in_nine_is_right(setup):
    task, rng = setup.task, np.random.default_rng(0)
    traces = [task.trace(Toy(0), rng) for _ in range(1800)]
    lengths = {len(trace) - 2 for trace in traces}
    assert (min(lengths), max(lengths)) == task.waits
    texts = [task.tokenizer.decode(trace) for trace in traces]
    right = np.mean([task.grade(Toy(0), text, False).correct for text in texts])
    assert abs(right - 1 / 9) < 5 * (8 / 81 / 1800) ** 0.5


def test_longer_waits_are_right_more_often_up_to_the_most_wanted():
    task = Patience()

    def share(zeros):
        text = "0 " * zeros + "."
        return np.mean([task.grade(Toy(n), text, False).correct for n in range(2000)])

    for zeros in (3, 24, 45):
        assert abs(share(zeros) - zeros / 48) < 5 * 0.5 / 2000**0.5
    assert share(48) == 1
    assert not task.grade(Toy(0), "0 " * 48 + "1 .", False).correct


def test_roles_are_right_if_every_claim_fits_its_speaker():
    task = KnightsInARow(sloppiness=0.0)
    rng, seen = np.random.default_rng(0), set()
    for number in range(40):
        prompt, roles = task.puzzle(Toy(number))
        assert len(prompt) == MOST_PEOPLE
        assert prompt[0] == roles[0]
        for i in range(1, len(roles)):
            says_knight = prompt[i] == 3
            assert roles[i] == (says_knight == bool(roles[i - 1]))
        assert set(prompt[len(roles) :]) <= {9}
        seen.add(len(roles))
        text = task.tokenizer.decode(task.trace(Toy(number), rng))
        assert task.grade(Toy(number), text, False).correct
        one_wrong = f"{1 - roles[0]}{text[1:]}"
        assert not task.grade(Toy(number), one_wrong, False).correct
    assert seen == {3, 4, 5, 6, 7}


def last_epoch(stream):
    """Ids left for the second epoch after a first in which ids from 4 on are solved."""
    for _ in range(3):
        ids = [p.problem_id for p in next(stream)]
        stream.observe(ids, [8 * (i >= 4) for i in ids], 8)
    next(stream)
    return stream.get_state()["active"]


def test_the_control_drops_as_many_problems_but_any():
    assert last_epoch(HistoryResampling(POOL, batch_size=4, seed=0)) == [0, 1, 2, 3]
    left = [last_epoch(DropsAtRandom(POOL, batch_size=4, seed=s)) for s in range(40)]
    assert {len(ids) for ids in left} == {4}
    kept = np.bincount(np.concatenate(left), minlength=12) / 40
    assert abs(kept[:4].mean() - 1 / 3) < 0.15


def test_a_pool_hears_of_every_step(monkeypatch):
    """Each problem is solved at once, but for the first four."""

    def iteration(learner, state, problems, timer):
        ids = np.array([p.problem_id for p in next(problems)])
        correct = np.repeat(ids[:, None] >= 4, 8, axis=1)
        failed = np.zeros_like(correct)
        fresh = SimpleNamespace(problem_ids=ids, correct=correct, failed=failed)
        return state, {}, SimpleNamespace(fresh=fresh)

    rates = SimpleNamespace(num_correct=np.array([3]), num_samples=np.array([4]))
    monkeypatch.setattr(toy_pool, "rl_iteration", iteration)
    monkeypatch.setattr(toy_pool, "measure_pass_rates", lambda *_: rates)
    monkeypatch.setattr(toy_pool, "model_params", lambda *_: None)
    monkeypatch.setattr(toy_pool, "init_rl_state", lambda *_: None)
    monkeypatch.setattr(toy_setup, "sft_policy", lambda *_: None)
    tiny = toy_setup.tiny()
    settings = dataclasses.replace(tiny.settings, prompts_per_step=4)
    learner = LearnerOf(settings)
    monkeypatch.setattr(toy_pool, "method_learner", lambda *_: learner)
    arm = PoolArm(grpo(kl_coef=0), tiny, HistoryResampling, 12, (12,))
    rows = run_pool_arm(arm, 0, 4)
    assert [row["data/problems_active"] for row in rows] == [12, 12, 12, 4]
    assert [row["heldout/accuracy"] for row in rows] == [0.75] * 4
    assert len(run_pool_arm(arm, 0, 4, until=lambda done: len(done) == 2)) == 2


@dataclasses.dataclass(frozen=True)
class LearnerOf:
    """As much of a learner as the loop itself reads."""

    settings: object
