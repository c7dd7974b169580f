"""The main job made tiny."""

import os
import shlex
import subprocess
import sys

import jax
import pytest

from experiments import dapo_countdown as script
from jaxrl_reason.cli.train import read_settings
from jaxrl_reason.evaluation.statistics import wilson
from jaxrl_reason.train.heldout_figures import Heldout

# Two-number puzzles with small targets, which a model of 5,000 parameters learns in a
# second; one try a trace, so that responses are short.
TINY = shlex.split("""
    --method dapo --mesh data=1 --eval.problems 8 --eval.every 3 --save-every 2
    --countdown.numbers 2 --countdown.max-number 4 --countdown.max-value 10
    --countdown.hold-out pairs
    --traces.budget-weights 1.0 --traces.random-tries 1.0
    --model 1x16 --model.head-dim 8 --model.mlp-dim 32
    --sft.updates 150 --sft.examples-per-update 8 --sft.rows-per-micro-batch 2
    --sft.row-width 64 --sft.max-response 24 --sft-optimizer.learning-rate 0.02
    --rl.steps 6 --rl.prompts-per-step 4 --rl.group-size 4 --rl.updates-per-rollout 2
    --rl.max-new-tokens 24 --rl.rows-per-micro-batch 2 --rl.row-width 64
    --rl.max-rounds 30 --optimizer.learning-rate 0.002
""")


class Tiny:
    """The command line of a tiny run in one folder."""

    def __init__(self, root, base):
        self.root, self.base = root, base
        self.run_dir = base / "run"
        self.flags = [*TINY, "--dataset-dir", str(base / "data")]

    def config(self, *more):
        """The settings that this command line means."""
        return read_settings([*self.flags, *more], preset="countdown")

    def start(self, *more):
        """The script in a process of its own."""
        flags = [*self.flags, "--run-dir", str(self.run_dir), *more]
        return subprocess.Popen(
            [sys.executable, "experiments/dapo_countdown.py", *flags],
            cwd=self.root,
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                # The resumed process finds what the first one compiled.
                "JAX_COMPILATION_CACHE_DIR": str(self.base / "compiled"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def refusals(tiny, monkeypatch, capsys):
    """Runs the script in this process; what it says when it refuses."""

    def run(*flags):
        # This process has its devices already.
        monkeypatch.setattr(jax.config, "update", lambda *setting: None)
        monkeypatch.setattr(sys, "argv", ["dapo_countdown.py", *tiny.flags, *flags])
        # What is refused here is refused whatever the fine-tuned model can do.
        nothing = {"greedy": wilson(0, 8), "avg_at_8": wilson(0, 64)}
        monkeypatch.setattr(Heldout, "before", lambda *x: nothing)
        with pytest.raises(SystemExit) as ended:
            script.main()
        captured = capsys.readouterr()
        assert ended.value.code not in (0, None)
        assert "Traceback" not in captured.err
        # Python prints a status that is a text.
        return " ".join(f"{captured.err} {captured.out} {ended.value.code}".split())

    return run
