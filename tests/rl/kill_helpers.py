"""Toy runs in processes of their own, which are killed, and what they leave."""

import os
import signal
import subprocess
import sys
import time

from jaxrl_reason.learner.state import abstract
from jaxrl_reason.rl.rl_loop import resume_rl
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.metrics_log import read_metrics, truncate_after
from jaxrl_reason.runs.samples import write_samples
from tests.rl.helpers import same_trees, toy_state
from tests.rl.loop_helpers import (
    FINGERPRINT,
    STEPS,
    loop_learner,
    run_rl,
    stream,
    timeless,
)
from tests.runs.event_helpers import as_rows, scalars

RUN = """
import pathlib, sys
import jax
from tests.rl.kill_helpers import run

jax.config.update("jax_compilation_cache_dir", sys.argv[2])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
run(pathlib.Path(sys.argv[1]), tell=print, background=sys.argv[3] == "background")
"""


def run(path, tell=lambda *what, flush: None, background=False):
    """Starts the toy run of a folder or goes on with it, as the command does."""
    learner, problems = loop_learner(), stream()
    state = toy_state(learner)
    checkpoints = CheckpointFolder(path / "checkpoints", keep=9)
    checkpoints.set_aside_damaged()
    if checkpoints.steps():
        state = resume_rl(checkpoints, FINGERPRINT, state, problems)
    truncate_after(path / "metrics.jsonl", state.step)

    def show(step, rollouts):
        rows = [{"answer": str(tokens.tolist())} for tokens in rollouts.tokens[:, 0]]
        write_samples(path, step, rows, "train")

    def evaluate(params):
        tell("evaluates", flush=True)
        return {"heldout/accuracy": 0.5}

    run_rl(
        learner,
        path,
        state=state,
        problems=problems,
        tensorboard=True,
        background=background,
        evaluate=evaluate,
        evaluate_every=1,
        show_samples=show,
    )
    tell("done", flush=True)


def killed(path, cache, root, moment, how):
    """Runs a process and kills it between its first and last step; whether it was.

    Args:
      path: of the run.
      cache: of compiled programs.
      root: of the repository.
      moment: after how many evaluations, and how many seconds later; None: not at all.
      how: "background" or "at once": how checkpoints are written.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(path), str(cache), how],
        cwd=root,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process.stdout as output:
        for number, _ in enumerate(output, start=1):
            if moment is not None and number == moment[0]:
                time.sleep(moment[1])
                process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode in (0, -signal.SIGKILL)
    return process.returncode != 0


def assert_same_folders(path, straight):
    """Final state, rows, samples and scalars are equal to the bit, but for times."""
    learner = loop_learner()
    wanted = abstract({"policy": toy_state(learner).policy})
    found = [
        CheckpointFolder(folder / "checkpoints").restore(wanted, FINGERPRINT)
        for folder in (path, straight)
    ]
    assert [one.step for one in found] == [STEPS, STEPS]
    assert same_trees(found[0].state, found[1].state)
    assert found[0].extra == found[1].extra
    rows = [timeless(read_metrics(x / "metrics.jsonl")) for x in (path, straight)]
    assert rows[0] == rows[1]
    samples = [
        {file.name: file.read_bytes() for file in (folder / "samples").iterdir()}
        for folder in (path, straight)
    ]
    assert samples[0] == samples[1]
    events = scalars(path / "tensorboard" / "metrics")
    assert events == as_rows(path / "metrics.jsonl")
