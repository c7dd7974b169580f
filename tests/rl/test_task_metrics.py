"""A task's own metrics: in the rows of steps and of held-out evaluations."""

from dataclasses import dataclass

import numpy as np
import pytest

from jaxrl_reason.evaluation.statistics import wilson
from jaxrl_reason.rl.heldout import HeldoutEvaluation
from jaxrl_reason.rl.task_metrics import task_metrics, under
from jaxrl_reason.tasks.reward_task import RewardTask
from jaxrl_reason.tasks.task import ResponseText
from jaxrl_reason.train.heldout_figures import (
    Heldout,
    Measured,
    metrics_table,
    task_metrics_before,
)
from tests.rl.helpers import LuckyTask, Toy, fake_rollouts
from tests.rl.loop_helpers import loop_learner, run_rl

PROBLEMS = {i: Toy(i) for i in range(50)}


@dataclass(frozen=True)
class Counting(LuckyTask):
    """Measures the tokens of responses, and what the prompts say."""

    def measure(self, problems, responses):
        words = [len(response.text.split()) for response in responses]
        assert words == [response.length for response in responses]
        return {
            "tokens": float(np.mean(words)),
            "problem": float(np.mean([p.problem_id for p in problems])),
        }


ROLLOUTS = fake_rollouts([[True, False], [False, True]], lengths=[[1, 2], [3, 6]])


def test_each_response_comes_with_its_problem():
    seen = []

    class Keeps(Counting):
        def measure(self, problems, responses):
            seen.extend(zip(problems, responses, strict=True))
            return {}

    assert task_metrics(Keeps(), PROBLEMS, ROLLOUTS) == {}
    assert [problem.problem_id for problem, _ in seen] == [0, 0, 1, 1]
    last = " ".join(map(str, ROLLOUTS.tokens[1, 1]))
    assert seen[3][1] == ResponseText(last, 6, truncated=False)


def test_a_task_inside_measures_and_one_that_cannot_has_nothing():
    expected = {"tokens": 3.0, "problem": 0.5}
    assert task_metrics(Counting(), PROBLEMS, ROLLOUTS) == expected
    inside = RewardTask(Counting(), lambda prompt, response, row: 1.0)
    assert task_metrics(inside, PROBLEMS, ROLLOUTS) == expected
    assert task_metrics(LuckyTask(), PROBLEMS, ROLLOUTS) == {}


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ({"accuracy": 0.5}, "metric must not be called accuracy, .*, got accuracy"),
        ({"x": float("nan")}, "must be finite numbers, got nan of x"),
        ({"x": "many"}, "must be finite numbers, got 'many' of x"),
    ],
)
def test_metrics_that_cannot_be_written_are_refused(returned, said):
    class Odd(Counting):
        def measure(self, problems, responses):
            return returned

    with pytest.raises(ValueError, match=said):
        task_metrics(Odd(), PROBLEMS, ROLLOUTS)


def test_a_loop_gives_what_it_sampled_to_the_rows(tmp_path):
    taken = []

    def annotate(step, fresh):
        taken.append((step, fresh))
        return under("task", task_metrics(Counting(), PROBLEMS, fresh))

    rows = run_rl(loop_learner(), tmp_path, annotate=annotate).rows
    assert [step for step, _ in taken] == [row["step"] for row in rows]
    for row, (_, fresh) in zip(rows, taken, strict=True):
        # All that was sampled, also what the filter of dynamic sampling left out.
        assert len(fresh.problem_ids) == row["groups/sampled"]
        assert row["task/tokens"] == pytest.approx(row["rollout/length_mean"])


class Answers(HeldoutEvaluation):
    """An evaluation whose responses are known."""

    def __init__(self):
        pass

    def run(self, params):
        return ROLLOUTS


class Folder:
    def __init__(self, path):
        self.path = path


def test_evaluations_have_them_too(tmp_path, monkeypatch):
    heldout = Heldout(Counting(), [Toy(0), Toy(1)], greedy=Answers(), sampled=Answers())
    row = heldout.row(None)
    assert row == {
        "heldout/accuracy": 0.5,
        "heldout/tokens": 3.0,
        "heldout/problem": 0.5,
    }
    # Before training, beside the accuracies, which are read back.
    figures = {"greedy": wilson(1, 2)}
    monkeypatch.setattr(Heldout, "measure", lambda *_: Measured(figures, ROLLOUTS))
    monkeypatch.setattr(Heldout, "write_samples", lambda *_, **__: None)
    first = heldout.before(None, Folder(tmp_path))
    assert heldout.before(None, Folder(tmp_path)) == first == figures
    before = task_metrics_before(tmp_path)
    assert before == {"tokens": 3.0, "problem": 0.5}
    table = metrics_table(before, {"tokens": 4.5, "new": 0.25})
    assert "| tokens | 3 | 4.5 |" in table
    assert "| new |  | 0.25 |" in table
    assert metrics_table({}, {}) == ""
