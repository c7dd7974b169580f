"""A toy run of the RL loop, and what a process does with it."""

import dataclasses
from functools import cache

import numpy as np

from jaxrl_reason.data.pipeline import ProblemStream
from jaxrl_reason.rl.rl_loop import resume_rl, train_rl
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.hooks import Hooks
from jaxrl_reason.runs.metrics_log import MetricsLog, read_metrics, truncate_after
from jaxrl_reason.sharding.processes import fetch
from tests.rl.helpers import (
    SETTINGS,
    Toy,
    same_trees,
    toy_dapo,
    toy_learner,
    toy_state,
)

STEPS = 6
FINGERPRINT = {"model": "tiny", "steps": STEPS}


class Progress:
    """Keeps what a bar would show."""

    def __init__(self):
        self.steps = []

    def update(self, step, row):
        self.steps.append(step)


class Interrupt:
    """Somebody presses Ctrl-C while a certain step runs."""

    def __init__(self, progress, after):
        self.progress, self.after = progress, after

    grace = 0

    def hold(self, save):
        pass

    @property
    def requested(self):
        return self.after is not None and len(self.progress.steps) >= self.after


class GivenUp(Exception):
    """What a process that leaves in the middle of a step looks like to a test."""


class Held:
    """An interrupt with a grace period, which keeps what it may save."""

    requested, save = False, None

    def __init__(self, grace=5.0):
        self.grace = grace

    def hold(self, save):
        self.save = save


def hooks(
    path,
    *,
    stop_after=None,
    save_every=2,
    name="metrics",
    tensorboard=False,
    interrupt=None,
    background=False,
    keep_best=0,
    **more,
):
    progress = Progress()
    return Hooks(
        log=MetricsLog(path, tensorboard=tensorboard, name=name),
        checkpoints=CheckpointFolder(
            path / "checkpoints", keep=9, keep_best=keep_best, background=background
        ),
        fingerprint=FINGERPRINT,
        progress=progress,
        interrupt=interrupt or Interrupt(progress, stop_after),
        save_every=save_every,
        **more,
    )


def stream():
    return ProblemStream([Toy(i) for i in range(50)], batch_size=4, seed=3)


class SampleLog:
    """A sampler that keeps every token it gave out."""

    def __init__(self, sample):
        self.sample, self.tokens = sample, []

    def __call__(self, *args):
        done = self.sample(*args)
        self.tokens.append(fetch(done.tokens))
        return done


@cache
def loop_learner():
    settings = dataclasses.replace(SETTINGS, steps=STEPS)
    return toy_learner(toy_dapo(), settings)


@dataclasses.dataclass
class Ran:
    state: object
    tokens: list
    rows: list
    checkpoints: CheckpointFolder


def run_rl(learner, path, *, state=None, problems=None, **options):
    """Runs the loop; rows without what the clock says."""
    problems = problems or stream()
    sample = SampleLog(learner.sample)
    used = hooks(path, **options)
    with used.log:
        state = train_rl(
            dataclasses.replace(learner, sample=sample),
            state or toy_state(learner),
            problems,
            used,
        )
    rows = timeless(read_metrics(path / "metrics.jsonl"))
    return Ran(state, sample.tokens, rows, used.checkpoints)


def timeless(rows):
    return [
        {
            name: value
            for name, value in row.items()
            if not name.startswith("time/") and not name.endswith("_per_s")
        }
        for row in rows
    ]


def resume(learner, path, *, step=None, change=None, **options):
    """What a new process does to resume the run in a folder."""
    problems = stream()
    checkpoints = CheckpointFolder(path / "checkpoints", keep=9)
    state = resume_rl(checkpoints, FINGERPRINT, toy_state(learner), problems, step)
    truncate_after(path / "metrics.jsonl", state.step)
    if change is not None:
        state, problems = change(state, problems)
    return run_rl(learner, path, state=state, problems=problems, **options)


def assert_same_run(ran, straight):
    assert ran.rows == straight.rows
    assert len(ran.tokens) == len(straight.tokens)
    assert all(map(np.array_equal, ran.tokens, straight.tokens))
    assert same_trees(ran.state.policy, straight.state.policy)
    assert ran.state.draws == straight.state.draws
