"""The prover-verifier game by the command: played, stopped, killed and resumed."""

import json
import os
import shlex
import signal
import subprocess
import sys

import numpy as np
import pytest

from jaxrl_reason.cli.train import main
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.metrics_log import read_metrics
from jaxrl_reason.train.heldout_figures import Heldout
from tests.cli.tiny_runs import TINY, numbers

GAME = shlex.split("""
    --method prover_verifier --game.rounds 2 --rl.steps 1
    --game.helpful h --game.sneaky s --game.problems 8
    --sft-from tuned --reward reward.py:parity
""")


@pytest.fixture(scope="module")
def played(shared_folder, tuned):
    """The game that nobody stops."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shared_folder)
        main([*TINY, "--run-dir", "game", *GAME])
    return shared_folder / "game"


def test_the_game_is_played(played):
    rows = numbers(played)
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:  # one step a round
        assert 0 <= row["heldout/accuracy"] <= 1
        assert any(name.startswith("verifier/") for name in row)
    assert CheckpointFolder(played / "checkpoints" / "game").steps() == [1, 2]


def assert_same_game(run, played):
    """To the bit: the same rows, and the same pool of solutions."""
    assert numbers(run) == numbers(played)
    folders = [CheckpointFolder(x / "checkpoints" / "game") for x in (run, played)]
    assert folders[0].steps() == folders[1].steps()
    files = [x.path / "00000002" / "arrays.npz" for x in folders]
    ours, theirs = (dict(np.load(file)) for file in files)
    # The pool: what the last prover wrote, with the log-probs that it gave it.
    assert ours.keys() == theirs.keys()
    assert "4/sampler_logprobs" in ours
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    reports = [json.loads((x / "report.json").read_text()) for x in (run, played)]
    assert reports[0]["more"]["after"] == reports[1]["more"]["after"]


def test_a_stopped_game_goes_on_from_its_last_round(train, folder, played, monkeypatch):
    row = Heldout.row

    def press_ctrl_c(*arguments):
        signal.raise_signal(signal.SIGTERM)
        return row(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Heldout, "row", press_ctrl_c)
        with pytest.raises(SystemExit) as stopped:
            train("stopped_game", *GAME)
    assert stopped.value.code == 75
    assert len(read_metrics(folder / "stopped_game" / "metrics.jsonl")) == 1
    assert_same_game(train("stopped_game", *GAME, "--resume", "must"), played)


KILLED = """
import os, signal, sys
from jaxrl_reason.cli.train import main
from jaxrl_reason.game import prover_verifier_game

rl_iteration, calls = prover_verifier_game.rl_iteration, []

def iteration_or_death(*arguments):
    calls.append(1)
    if len(calls) == 2:  # in the second round, whose verifier is trained
        os.kill(os.getpid(), signal.SIGKILL)
    return rl_iteration(*arguments)

prover_verifier_game.rl_iteration = iteration_or_death
main(sys.argv[1:])
"""


def test_a_killed_game_goes_on_from_its_last_round(train, folder, played, root):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *TINY, *GAME]
        # The kill comes sooner than a thread would have written the round.
        + ["--run-dir", "killed_game", "--checkpoints.no-background"],
        cwd=folder,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    rounds = folder / "killed_game" / "checkpoints" / "game"
    assert CheckpointFolder(rounds).steps() == [1]
    assert_same_game(train("killed_game", *GAME, "--resume", "must"), played)


def test_a_finished_game_makes_no_step(train, played, monkeypatch):
    before = numbers(played)
    train("game", *GAME, "--resume", "must")
    assert numbers(played) == before
