"""Toy runs in processes of their own, which are killed, and what they leave."""

import dataclasses
import os
import random
import signal
import socket
import subprocess
import sys
import time

from jaxrl_reason.learner.state import abstract, init_state
from jaxrl_reason.models import Transformer
from jaxrl_reason.rl.rl_learner import build_rl_learner, init_rl_state
from jaxrl_reason.rl.rl_loop import resume_rl
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.metrics_log import read_metrics, truncate_after
from jaxrl_reason.runs.samples import write_samples
from jaxrl_reason.sharding import BatchSharding, ShardingRules, parse_mesh
from tests.rl.helpers import (
    CONFIG,
    OPTIMIZER,
    SETTINGS,
    LuckyTask,
    random_params,
    same_trees,
    toy_dapo,
    toy_state,
)
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


PAIR = """
import pathlib, sys
import jax
from jaxrl_reason.sharding.lifetime import joined

path, cache, how, address, number = sys.argv[1:]
jax.config.update("jax_compilation_cache_dir", cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
with joined(address, 2, int(number), stuck_after=60):
    from tests.rl.kill_helpers import on_mesh, run
    run(pathlib.Path(path), print, how == "background", *on_mesh("fsdp=2"))
"""


def on_mesh(sizes):
    """The learner of the toy run, and the state at step 0, on a mesh."""
    placed = BatchSharding(parse_mesh(sizes), ShardingRules())
    model = Transformer(CONFIG, constrain=placed.rules.constrainer(placed.mesh))
    settings = dataclasses.replace(SETTINGS, steps=STEPS)
    learner = build_rl_learner(
        model, LuckyTask(), toy_dapo(), settings, OPTIMIZER, placed
    )
    policy = init_state(random_params(placed), OPTIMIZER.build())
    return learner, init_rl_state(learner, policy)


def run(
    path,
    tell=lambda *what, flush: None,
    background=False,
    learner=None,
    state=None,
):
    """Starts the toy run of a folder or goes on with it, as the command does."""
    learner, problems = learner or loop_learner(), stream()
    state = state or toy_state(learner)
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


def pair_killed(path, cache, root, moment, how, which=()):
    """Runs two processes that are one run, and kills some; whether they were.

    Args:
      path: of the run.
      cache: of compiled programs.
      root: of the repository.
      moment: as for `killed`.
      how: as for `killed`.
      which: numbers of the processes to kill.

    Returns:
      Whether it was killed before its end, and the seconds that the others lived on.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_CPU_ENABLE_ASYNC_DISPATCH": "false",
    }
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", PAIR, str(path), str(cache), how, address, str(i)],
            cwd=root,
            env=environment,
            stdout=subprocess.PIPE if i == 0 else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    end = time.monotonic()
    with pair[0].stdout as output:
        said = (line for line in output if line in ("evaluates\n", "done\n"))
        for number, _ in enumerate(said, start=1):
            if moment is not None and number == moment[0]:
                time.sleep(moment[1])
                for i in which:
                    pair[i].send_signal(signal.SIGKILL)
                end = time.monotonic()
    errors = [process.communicate(timeout=240)[1] for process in pair]
    statuses = [process.returncode for process in pair]
    if moment is None:
        assert statuses == [0, 0], errors
    return any(statuses), time.monotonic() - end


def kill_at_random(folder, straight, kills, start):
    """Kills runs at random moments, each until it ends; all must equal `straight`.

    Args:
      folder: for the runs.
      straight: folder of a run that was not killed.
      kills: how many.
      start: (path, moment, how, random.Random) -> whether it was killed, as `killed`.
    """
    assert kills > 0
    left, number, seed = kills, 0, time.time_ns()
    print(f"seed {seed}")
    draw = random.Random(seed)
    while left:
        path = folder / f"{number}"
        path.mkdir()
        how = "at once" if number % 2 else "background"
        number += 1
        running = True
        while running and left:
            moment = (draw.randint(1, 3), draw.uniform(0, 0.3))
            running = start(path, moment, how, draw)
            left -= running
        if running:
            start(path, None, how, draw)
        assert_same_folders(path, straight)


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
