"""Two and four processes on one machine: the rows of one process with their devices.

Rows hold losses, gradient norms, lengths and rewards; two processes run the program of
one with two devices, so that they differ by nothing or by rounding (1e-6). What goes on
with another mesh differs by more (1e-5).
"""

import math
from pathlib import Path
from typing import Any

import pytest

from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.metrics_log import read_metrics
from tests.rl.loop_helpers import timeless

# Two runs: DAPO of low-rank factors with dynamic sampling and evaluations; PPO with a
# critic and the sampler with slots. One process gets a signal in step 2.
SCRIPT = """
    import dataclasses, os, pathlib, signal
    from functools import partial

    def main(folder, sizes, steps, stop_at, *kinds):
        from experiments.toys.toy_setup import random_params
        from jaxrl_reason.models import LoraSettings, Transformer
        from jaxrl_reason.learner.state import init_state
        from jaxrl_reason.rl.heldout import build_heldout_evaluation
        from jaxrl_reason.rl.recipes.ppo import ppo
        from jaxrl_reason.rl.rl_learner import build_rl_learner, init_rl_state
        from jaxrl_reason.rl.rl_loop import resume_rl, train_rl
        from jaxrl_reason.runs.interrupt import GracefulInterrupt
        from jaxrl_reason.sampler import BatchSettings, SamplingSettings
        from jaxrl_reason.sampler import make_batch_sampler
        from jaxrl_reason.sharding import BatchSharding, ShardingRules, parse_mesh
        from tests.rl.helpers import CONFIG, ENDS, OPTIMIZER, SETTINGS, LuckyTask, Toy
        from tests.rl.helpers import toy_dapo
        from tests.rl.loop_helpers import FINGERPRINT, hooks, stream

        placed = BatchSharding(parse_mesh(sizes), ShardingRules())
        config = dataclasses.replace(CONFIG, num_layers=1)
        model = Transformer(config, constrain=placed.rules.constrainer(placed.mesh))
        settings = dataclasses.replace(SETTINGS, steps=int(steps))
        slots = make_batch_sampler(
            model,
            SamplingSettings(settings.max_new_tokens, ENDS, temperature=1.0),
            settings.group_size,
            BatchSettings(8, (settings.prompt_width,)),
        )
        parts = {
            "dapo": dict(method=toy_dapo(), lora=LoraSettings(rank=2)),
            "ppo": dict(method=ppo(), sample=slots),
        }
        evaluation = build_heldout_evaluation(
            model, LuckyTask(), [Toy(900 + i) for i in range(6)], num_samples=4,
            temperature=1.0, max_new_tokens=settings.max_new_tokens,
            prompt_width=settings.prompt_width, batch_size=16, seed=0,
            batch_sharding=placed,
        )

        def evaluate(sample, params):
            drawn = dataclasses.replace(evaluation, sample=sample)
            return {"heldout/accuracy": drawn.accuracy(params)}

        def annotate(step, fresh):
            if step == int(stop_at) and index == count - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return {}

        for kind in kinds:
            learner = build_rl_learner(
                model=model, task=LuckyTask(), settings=settings, optimizer=OPTIMIZER,
                batch_sharding=placed, **parts[kind],
            )
            policy = init_state(random_params(config, 13, placed), OPTIMIZER.build())
            state, problems = init_rl_state(learner, policy), stream()
            used = hooks(
                pathlib.Path(folder) / kind,
                save_every=1,
                annotate=annotate,
                evaluate=partial(evaluate, learner.sample),
                evaluate_every=2 if kind == "dapo" else 0,
            )
            if used.checkpoints.steps():
                state = resume_rl(used.checkpoints, FINGERPRINT, state, problems)
            with used.log, GracefulInterrupt() as interrupt:
                used = dataclasses.replace(used, interrupt=interrupt)
                train_rl(learner, state, problems, used)

    with join(stuck_after=300):
        main(*arguments)
"""
KINDS = ("dapo", "ppo")


def rows_of(folder: Path) -> list[dict[str, float]]:
    return timeless(read_metrics(folder / "metrics.jsonl"))


def farthest(rows: Any, others: Any) -> float:
    """The largest relative distance of two runs' numbers."""
    assert [row.keys() for row in rows] == [row.keys() for row in others]
    return max(
        abs(row[name] - other[name]) / max(1.0, abs(other[name]))
        for row, other in zip(rows, others, strict=True)
        for name in row
        if not math.isnan(other[name])
    )


@pytest.fixture(scope="module")
def folders(processes_run: Any, tmp_path_factory: Any) -> dict[str, Path]:
    """Runs of two processes, and of one with two devices; the former then on four."""
    found = {}
    for name, count, devices in (("pair", 2, 1), ("alone", 1, 2)):
        found[name] = tmp_path_factory.mktemp(name)
        begun = (str(found[name]), "fsdp=2", "3", "2", *KINDS)
        again = (str(found[name]), "fsdp=2,tensor=2", "3", "0", "dapo")
        for ran in (
            processes_run(SCRIPT, count, *begun, devices=devices),
            processes_run(SCRIPT, 2 * count, *again, devices=4 // (2 * count)),
        ):
            for process in ran:
                assert process.returncode == 0, process.stderr
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_are_one_with_two_devices(folders: Any, kind: str) -> None:
    pair, alone = (rows_of(folders[name] / kind) for name in ("pair", "alone"))
    assert farthest(pair[:2], alone[:2]) <= 1e-6
    assert any(row["policy/grad_norm"] > 0 for row in pair[:2])


def test_a_signal_to_one_process_stops_all_at_the_same_step(folders: Any) -> None:
    for kind in KINDS[1:]:  # the first was resumed
        for name in ("pair", "alone"):
            assert [row["step"] for row in rows_of(folders[name] / kind)] == [1, 2]
            checkpoints = CheckpointFolder(folders[name] / kind / "checkpoints")
            assert checkpoints.steps() == [1, 2]
            assert checkpoints.damage(2) == []


def test_another_number_of_processes_goes_on(folders: Any) -> None:
    pair, alone = (rows_of(folders[name] / "dapo") for name in ("pair", "alone"))
    assert [row["step"] for row in pair] == [1, 2, 3]
    assert farthest(pair, alone) <= 1e-5
    assert any(row["groups/surplus"] for row in pair[:2])
    assert "heldout/accuracy" in pair[1]
