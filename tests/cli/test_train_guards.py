"""Every kind of run ends at updates that are all skipped, and shows its warnings."""

import dataclasses
import shlex

import numpy as np
import pytest

from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.metrics_log import read_metrics
from jaxrl_reason.train import game_stage, offline_rounds, reward_model_stage

OFFLINE = "--offline.rounds 3 --offline.epochs 4 --offline.problems 8"
GAME = """--method prover_verifier --game.rounds 3 --rl.steps 1 --game.helpful h
    --game.sneaky s --game.problems 8"""
RUNS = {
    "irpo": (f"--method irpo {OFFLINE}", offline_rounds, "preference", "model"),
    "star": (f"--method star {OFFLINE}", offline_rounds, "sft", "model"),
    "verifier": (
        "--method verifier --offline.epochs 3",
        reward_model_stage,
        "reward_model",
        "model",
    ),
    "the game's prover": (GAME, game_stage, "rl", "prover"),
    "the game's verifier": (GAME, game_stage, "reward_model", "verifier"),
}
"""Flags, the module that builds the learner, the learner's kind, its model's name."""


def pretend(learner, is_odd):
    """The learner with updates that change nothing, and that a test calls odd."""

    def update(state, batch, num_active, **given):
        one, odd = np.float32(1), np.float32(is_odd())
        return state, {
            "loss": (np.float32(np.nan if odd else 0.5), one),
            "grad_norm": (np.float32(0), one - odd),
            "skipped_update_fraction": (odd, one),
        }

    return dataclasses.replace(learner, update=update)


def has_rows(run):
    return bool(read_metrics(run / "metrics.jsonl"))


@pytest.mark.parametrize("name", RUNS)
def test_updates_that_are_all_skipped_end_any_run(
    name, train, folder, tuned, monkeypatch, capsys
):
    flags, module, kind, model = RUNS[name]
    run = folder / name.replace(" ", "-")
    for builder in [x for x in vars(module) if x.startswith("build_")]:
        if "learner" in builder:
            build = getattr(module, builder)
            odd = builder == f"build_{kind}_learner"

            def replaced(*given, build=build, odd=odd, **more):
                return pretend(build(*given, **more), lambda: odd and has_rows(run))

            monkeypatch.setattr(module, builder, replaced)
    with pytest.raises(ValueError, match=f"2 updates of the {model} in a row") as error:
        train(
            run.name,
            *shlex.split(flags),
            *shlex.split("--sft-from tuned --reward reward.py:parity"),
            *shlex.split("--max-skipped-updates 2 --warnings.rows 1"),
        )
    said = str(error.value)
    assert "not finite: the loss (nan); look at the loss function" in said
    (stage,) = (run / "checkpoints").iterdir()
    checkpoints = CheckpointFolder(stage)
    assert f"newest checkpoints: {stage.name} {checkpoints.steps()[-1]};" in said
    assert checkpoints.damage(checkpoints.steps()[-1]) == []
    with np.load(run / f"skipped_{model}.npz") as batch:
        assert batch["num_active"] >= 1
        assert batch["tokens"].dtype.kind == "i"
    # The first round is good, but learns nothing.
    first = read_metrics(run / "metrics.jsonl")[0]
    assert first["warning/zero_gradient"] == 1
    for text in (capsys.readouterr().out, (run / "run.log").read_text()):
        assert text.count("nothing is learnt") == 1
