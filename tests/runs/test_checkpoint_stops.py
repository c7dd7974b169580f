"""A process that stops in the middle of a save leaves whole checkpoints."""

import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest

from jaxrl_reason.runs import checkpoint_files, checkpoint_places
from jaxrl_reason.runs.checkpoint_places import CheckpointPlaces
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from tests.runs.checkpoint_helpers import SETTINGS, make_state, restore

# --- kills


@pytest.mark.parametrize("place", ["tree", "rename", "second rename", "remove"])
def test_a_stop_anywhere_in_a_save_leaves_whole_checkpoints(folder, place, monkeypatch):
    class Stopped(BaseException):
        pass

    calls = []

    def stop(function, at=1):
        def wrapped(*arguments, **options):
            calls.append(arguments)
            if len(calls) == at:
                raise Stopped
            return function(*arguments, **options)

        return wrapped

    with monkeypatch.context() as patch:
        if place == "tree":
            stopped = stop(checkpoint_places.fsync_tree)
            patch.setattr(checkpoint_places, "fsync_tree", stopped)
        elif place == "remove":
            patch.setattr(checkpoint_files.shutil, "rmtree", stop(shutil.rmtree))
        else:
            at = 2 if place.startswith("second") else 1
            patch.setattr(
                CheckpointPlaces,
                "commit",
                with_patched_rename(CheckpointPlaces.commit, stop, at),
            )
        with pytest.raises(Stopped):
            folder.save(30, make_state(1), {"at": "again"}, SETTINGS)
    for step in CheckpointFolder(folder.path).steps():
        assert folder.damage(step) == []
    found = restore(folder)
    assert found.step == 30
    assert found.extra in ({"at": 30}, {"at": "again"})
    folder.save(31, make_state(2), {}, SETTINGS)
    assert sorted(os.listdir(folder.path)) == ["00000020", "00000030", "00000031"]


def with_patched_rename(method, stop, at):
    def wrapped(*arguments):
        original = os.rename
        checkpoint_places.os.rename = stop(original, at)
        try:
            return method(*arguments)
        finally:
            checkpoint_places.os.rename = original

    return wrapped


SAVE_FOR_EVER = """
import sys, jax.numpy as jnp
from jaxrl_reason.runs.checkpoints import CheckpointFolder
folder = CheckpointFolder(sys.argv[1], keep=2, background=sys.argv[2] == "background")
step = 0
while True:
    step += 1
    folder.save(step, {"w": jnp.full((64, 64), step)}, {"at": step}, {"width": 64})
    print(step, flush=True)
"""


@pytest.mark.parametrize("how", ["at once", "background"])
def test_kill_9_leaves_whole_checkpoints(tmp_path, how):
    process = subprocess.Popen(
        [sys.executable, "-c", SAVE_FOR_EVER, str(tmp_path), how],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as output:
        for line in output:
            if int(line) == 4:
                break
        time.sleep(0.037)  # somewhere inside a later save
        process.send_signal(signal.SIGKILL)
        process.wait()
        last = max([4, *map(int, output.read().split())])
    folder = CheckpointFolder(tmp_path, keep=2)
    assert all(folder.damage(step) == [] for step in folder.steps())
    wanted = {"w": jax.ShapeDtypeStruct((64, 64), jnp.int32)}
    found = folder.restore(wanted, {"width": 64})
    # One more may be in place than was said; or, in the background, one less.
    assert found.step in (last - (how == "background"), last, last + 1)
    assert found.extra == {"at": found.step}
    assert int(found.state["w"][0, 0]) == found.step
    folder.save(100, {"w": jnp.zeros((64, 64), jnp.int32)})
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
