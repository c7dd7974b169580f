"""Staged recipes: what changes from stage to stage, and real runs through the loop."""

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxrl_reason.data.adaptive_streams import EasyPoolStream, HistoryResampling
from jaxrl_reason.data.pass_rates import kept_ids, with_ids
from jaxrl_reason.rl.pass_rate_filter import measure_pass_rates
from jaxrl_reason.rl.recipes.staged_recipes import (
    DEEPSCALER_STAGES,
    MIMO_STAGES,
    OPEN_REASONER_ZERO_STAGES,
    SKYWORK_OR1_STAGES,
    SRPO_STAGES,
    STAGED,
    StagedRecipe,
    scaled_stages,
)
from jaxrl_reason.rl.stage_parts import StagedRun, build_stages
from jaxrl_reason.rl.stages import train_stages
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.hooks import Hooks
from jaxrl_reason.runs.metrics_log import MetricsLog, read_metrics
from tests.rl.helpers import (
    OPTIMIZER,
    SETTINGS,
    LuckyTask,
    Toy,
    copied,
    first_policy,
    one_device,
    tiny_model,
)

TOYS = [Toy(i) for i in range(40)]
# One step a stage, and two shapes in all: everything else is compiled once.
TINY = dataclasses.replace(SETTINGS, steps=1)
SHORT = dataclasses.replace(TINY, group_size=2)
LIMITS = {"deepscaler": (4, 6, 6)}


def built(staged: StagedRecipe, problems=None):
    count = len(staged.stages)
    return scaled_stages(
        staged,
        SHORT if staged.name == "deepscaler" else TINY,
        OPTIMIZER,
        [problems or TOYS] * count,
        limits=LIMITS.get(staged.name, (6,) * count),
    )


SHARED: dict = {}


def shared(run: StagedRun) -> StagedRun:
    """The run, its pieces compiled once for all stages that are alike.

    Clip bounds and learning rates are compiled in, and are not told apart here:
    test_recipes runs each recipe with its own.
    """

    def once(learner):
        s, method = learner.settings, learner.method
        shape = (s.max_new_tokens, s.group_size)
        kept = {
            "sample": shape,
            "score": (),
            "update": (shape, method.loss.func, method.loss_inputs),
            "components": (shape, method.name),
        }
        pieces = {
            name: SHARED.setdefault((name, key), getattr(learner, name))
            for name, key in kept.items()
            if getattr(learner, name) is not None
        }
        return dataclasses.replace(learner, **pieces)

    return dataclasses.replace(run, learner=tuple(map(once, run.learner)))


@pytest.mark.parametrize("name", STAGED)
def test_every_staged_recipe_runs_through_the_loop(name: str, tmp_path: Path) -> None:
    staged, problems = STAGED[name], TOYS
    if staged.data_filter is not None:
        base = build_stages(tiny_model(), LuckyTask(), built(staged), one_device())
        rates = measure_pass_rates(
            shared(base).learner[0], first_policy().params, problems
        )
        problems = with_ids(problems, kept_ids(rates, staged.data_filter))
        assert TINY.prompts_per_step <= len(problems) <= len(TOYS)
    stages = built(staged, problems)
    run = shared(build_stages(tiny_model(), LuckyTask(), stages, one_device()))
    before = copied(first_policy().params)
    nothing = SimpleNamespace(
        requested=False, grace=0, stage=lambda *_: None, update=lambda *_: None
    )
    checkpoints = CheckpointFolder(tmp_path / "checkpoints", keep=9)
    with MetricsLog(tmp_path, tensorboard=False) as log:
        hooks = Hooks(log, checkpoints, {}, nothing, nothing, save_every=100)
        state = train_stages(run, first_policy(), hooks)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["run/stage"] for row in rows] == [k + 1 for k in range(len(stages))]
    assert checkpoints.steps() == [row["step"] for row in rows]
    for row in rows:
        assert row["policy/updates"] == SETTINGS.updates_per_rollout
        assert row["policy/skipped_update_fraction"] == 0
        assert all(math.isfinite(value) for value in row.values()), row
    rates = [stage.optimizer.learning_rate for stage in stages]
    assert [row["policy/learning_rate"] for row in rows] == pytest.approx(rates)
    assert ("data/problems_active" in rows[0]) == (staged.stream is HistoryResampling)
    assert ("data/problems_pool" in rows[0]) == (staged.stream is EasyPoolStream)
    pairs = zip(
        jax.tree.leaves(before), jax.tree.leaves(state.policy.params), strict=True
    )
    assert all((np.asarray(a) != np.asarray(b)).any() for a, b in pairs)


def test_stages_keep_what_is_published_to_change() -> None:
    def sizes(staged, limits):
        stages = scaled_stages(
            staged, TINY, OPTIMIZER, [TOYS] * len(limits), limits=limits
        )
        return [(s.settings.max_new_tokens, s.settings.group_size) for s in stages]

    assert sizes(DEEPSCALER_STAGES, (4, 5, 6)) == [(4, 4), (5, 8), (6, 8)]
    assert sizes(SKYWORK_OR1_STAGES, (4, 5, 6)) == [(4, 4), (5, 4), (6, 4)]
    rates = [s.optimizer.learning_rate for s in built(OPEN_REASONER_ZERO_STAGES)]
    assert rates == pytest.approx([3e-2, 0.9e-2])
    filtered = {
        name: [stage.prepare is not None for stage in built(staged)]
        for name, staged in STAGED.items()
    }
    assert filtered == {
        "deepscaler": [False] * 3,
        "skywork_or1": [True] * 3,
        "srpo": [False] * 2,
        "open_reasoner_zero": [False, True],
        "mimo": [False],
        "light_r1": [False],
    }
    # Each stage has its own data, in an order of its own.
    one, two = scaled_stages(
        SRPO_STAGES, TINY, OPTIMIZER, [TOYS[:4], TOYS[4:8]], limits=(6, 6)
    )
    ids = [{p.problem_id for p in next(s.problems(None))} for s in (one, two)]
    assert ids == [{0, 1, 2, 3}, {4, 5, 6, 7}]
    with pytest.raises(ValueError, match=r"mimo has 1 stages .* got 2 and 1"):
        scaled_stages(MIMO_STAGES, TINY, OPTIMIZER, [TOYS] * 2, limits=(6,))


def test_stages_agree_with_the_recipes_of_one_stage() -> None:
    for name, staged in STAGED.items():
        settings = staged.recipe.settings
        assert name == staged.name
        if settings.max_new_tokens is not None:
            limits = [stage.max_new_tokens for stage in staged.stages]
            assert sorted(set(limits)) == list(settings.max_new_tokens)
        assert staged.stages[0].group_size == settings.group_size
        assert staged.stages[0].learning_rate == settings.learning_rate
        assert staged.not_published


def test_the_page_shows_the_stages(root: Path) -> None:
    page = (root / "docs" / "stages.md").read_text(encoding="utf-8")
    for name, staged in STAGED.items():
        for stage in staged.stages:
            cells = (
                stage.name,
                stage.max_new_tokens,
                stage.group_size,
                stage.learning_rate,
                stage.steps,
            )
            shown = " | ".join("-" if c is None else str(c) for c in cells)
            assert f"| `{name}` | {shown} |" in page
        for line in staged.not_published:
            assert line in page
