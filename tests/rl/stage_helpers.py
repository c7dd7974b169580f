"""A toy run in three stages, and what a process does with it."""

import dataclasses
from functools import cache, partial
from types import SimpleNamespace

import jax
import numpy as np

from jaxrl_reason.data.adaptive_streams import EasyPoolStream, HistoryResampling
from jaxrl_reason.data.pass_rates import with_ids
from jaxrl_reason.data.strategies import not_solved
from jaxrl_reason.rl.pass_rate_filter import (
    keep_by_pass_rate,
)
from jaxrl_reason.rl.stage_parts import Stage, build_stages
from jaxrl_reason.rl.stages import (
    begin_stage,
    resume_stages,
    train_stages,
)
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.hooks import Hooks
from jaxrl_reason.runs.metrics_log import MetricsLog, read_metrics, truncate_after
from tests.rl.helpers import (
    OPTIMIZER,
    SETTINGS,
    LuckyTask,
    Toy,
    first_policy,
    one_device,
    same_trees,
    tiny_model,
    toy_dapo,
)

LAST = 7
PROBLEMS = [Toy(i) for i in range(24)]
COMMON = {"model": "tiny"}
CLOCK = ("time/", "_per_s")


class Progress:
    """Keeps what a bar would show."""

    def __init__(self):
        self.steps, self.stages = [], []

    def stage(self, name, total, start):
        self.stages.append((name, total, start))

    def update(self, step, row):
        self.steps.append(step)


def toy_method(**switches):
    """DAPO with a KL to a reference, so that one compiled update serves two stages."""
    method = toy_dapo(**switches)
    return dataclasses.replace(
        method,
        loss=partial(method.loss, kl_coef=0.1),
        loss_inputs=(*method.loss_inputs, "ref_logprobs"),
    )


def toy_stages():
    """Three stages: other limit, other data and stream, other method and reference."""
    slower = dataclasses.replace(OPTIMIZER, learning_rate=1e-2)
    short = dataclasses.replace(SETTINGS, max_new_tokens=4, steps=3)
    full = dataclasses.replace(SETTINGS, steps=2)
    return (
        Stage(
            name="short",
            settings=short,
            method=toy_method(),
            optimizer=OPTIMIZER,
            problems=lambda _: EasyPoolStream(PROBLEMS, batch_size=4, seed=0),
        ),
        Stage(
            name="long",
            settings=full,
            method=toy_method(),
            optimizer=slower,
            problems=lambda ids: HistoryResampling(
                with_ids(PROBLEMS, ids), batch_size=4, seed=1
            ),
            prepare=keep_by_pass_rate(PROBLEMS, not_solved),
        ),
        Stage(
            name="refreshed",
            settings=full,
            method=toy_method(dynamic_sampling=False),
            optimizer=slower,
            problems=lambda _: HistoryResampling(PROBLEMS, batch_size=4, seed=2),
            fresh_optimizer=True,
            fresh_reference=True,
        ),
    )


@cache
def toy_run():
    run = build_stages(tiny_model(), LuckyTask(), toy_stages(), one_device())
    # The last two stages have the same shapes: compile them once.
    short, long, last = run.learner
    last = dataclasses.replace(
        last, sample=long.sample, score=long.score, update=long.update
    )
    return dataclasses.replace(run, learner=(short, long, last))


@dataclasses.dataclass
class Ran:
    state: object
    rows: list
    drawn: list  # (keys, tokens) of every rollout, evaluations included
    progress: Progress
    checkpoints: CheckpointFolder


def listening(run, drawn):
    """The run with samplers that keep what they were asked and what they gave."""

    def sampler(learner):
        def sample(params, prompts, lengths, keys):
            done = learner.sample(params, prompts, lengths, keys)
            # A copy: the array's buffer may be used again.
            drawn.append((np.array(jax.random.key_data(keys)), np.array(done.tokens)))
            return done

        return dataclasses.replace(learner, sample=sample)

    return dataclasses.replace(run, learner=tuple(map(sampler, run.learner)))


def go(
    run,
    path,
    *,
    stop_after=None,
    resume=False,
    step=None,
    change=None,
    every=1,
    mend=False,
):
    """What a process does: starts or goes on, until the end or an interrupt."""
    progress, drawn = Progress(), []
    run = listening(run, drawn)
    checkpoints = CheckpointFolder(path / "checkpoints", keep=9)
    now = None
    if resume:
        now = resume_stages(run, checkpoints, COMMON, first_policy(), step, mend=mend)
        truncate_after(path / "metrics.jsonl", now.state.step)
        if change is not None:
            now = change(now)
    interrupt = SimpleNamespace(requested=False, grace=0)
    if stop_after is not None:
        update = progress.update

        def stop(step, row):
            update(step, row)
            interrupt.requested = step >= stop_after

        progress.update = stop
    with MetricsLog(path, tensorboard=False) as log:
        hooks = Hooks(log, checkpoints, COMMON, progress, interrupt, every)
        state = train_stages(run, first_policy(), hooks, now)
    rows = [
        {k: v for k, v in row.items() if not any(word in k for word in CLOCK)}
        for row in read_metrics(path / "metrics.jsonl")
    ]
    return Ran(state, rows, drawn, progress, checkpoints)


def assert_same_end(ran, straight):
    assert ran.rows == straight.rows
    assert same_trees(ran.state, straight.state)
    tail = straight.drawn[len(straight.drawn) - len(ran.drawn) :]
    for one, other in zip(ran.drawn, tail, strict=True):
        assert same_trees(one, other)


def after(run, policy=None, **more):
    """The state at the end of a first stage that moved everything by 1."""
    start = begin_stage(run, 0, None, first_policy(), None).state
    move = partial(jax.tree.map, lambda x: x + 1)
    return dataclasses.replace(
        start,
        policy=move(start.policy),
        models=move(start.models),
        **more,
    )
