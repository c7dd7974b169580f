"""Checkpoints written while training goes on, and which of them are kept."""

import functools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.runs import checkpoint_places
from jaxrl_reason.runs.checkpoints import CheckpointFolder

WANTED = {"w": jax.ShapeDtypeStruct((256, 256), jnp.float32)}


@functools.partial(jax.jit, donate_argnums=0)
def update(state):
    return jax.tree.map(lambda x: x + 1, state)


@pytest.fixture
def slow_disk(monkeypatch):
    """Nothing is committed before the disk is let go."""
    released, reached = threading.Event(), threading.Event()
    fsync = checkpoint_places.fsync_tree

    def wait(folder):
        reached.set()
        assert released.wait(60)
        fsync(folder)

    monkeypatch.setattr(checkpoint_places, "fsync_tree", wait)
    yield released, reached
    released.set()


def test_training_goes_on_and_does_not_change_what_is_saved(tmp_path, slow_disk):
    released, reached = slow_disk
    folder = CheckpointFolder(tmp_path, background=True)
    state = {"w": jnp.arange(2.0**16).reshape(256, 256)}
    first = np.array(state["w"])
    folder.save(1, state, {"at": 1})
    for _ in range(20):  # each donates the buffers of the one before
        state = update(state)
    assert reached.wait(60)
    assert float(state["w"][0, 0]) == 20
    # Only complete checkpoints have a name that counts.
    assert [path.name for path in tmp_path.iterdir()] == [".tmp-00000001"]
    folder.poll()  # does not wait
    released.set()
    found = folder.restore(WANTED, {})
    np.testing.assert_array_equal(found.state["w"], first)
    assert found.extra == {"at": 1}


def test_donated_buffers_are_those_of_the_save_even_while_orbax_writes(tmp_path):
    # Many large arrays, so that updates run while files are being written.
    folder = CheckpointFolder(tmp_path, background=True)
    state = {f"{i}": jnp.full((512, 512), i, jnp.float32) for i in range(24)}
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in state.items()}
    jax.block_until_ready(update(dict(state) and {k: x + 0 for k, x in state.items()}))
    folder.save(1, state)
    for _ in range(10):
        state = update(state)
    jax.block_until_ready(state)
    found = folder.restore(shapes, {}).state
    assert all(float(x.min()) == float(x.max()) == int(k) for k, x in found.items())


def test_a_save_waits_for_the_one_before(tmp_path, slow_disk):
    released, _ = slow_disk
    folder = CheckpointFolder(tmp_path, keep=1, background=True)
    folder.save(1, {"w": jnp.zeros(3)})
    threading.Timer(0.2, released.set).start()
    folder.save(2, {"w": jnp.zeros(3)})
    assert released.is_set()
    assert folder.steps() == [2]


def test_what_goes_wrong_in_the_background_is_raised(tmp_path, monkeypatch):
    folder = CheckpointFolder(tmp_path, background=True)

    def full(path):
        raise OSError(28, "No space left on device")

    for call in (folder.wait, folder.steps, lambda: folder.save(2, {"w": jnp.ones(2)})):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint_places, "fsync_tree", full)
            folder.save(1, {"w": jnp.ones(2)})
            with pytest.raises(OSError, match="No space left"):
                call()
    assert folder.steps() == []
    folder.save(2, {"w": jnp.ones(2)})
    assert folder.steps() == [2]
    assert [path.name for path in tmp_path.iterdir()] == ["00000002"]


def test_the_best_are_kept_beside_the_newest(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=2, keep_best=1)
    for step, score in enumerate([0.2, 0.5, None, 0.5, float("nan"), 0.1, None]):
        if score is not None:
            assert folder.is_best(score) == (score > 0.2 or step == 0) or step == 3
        folder.save(step, {"w": jnp.zeros(2)}, score=score)
    # Of two equal ones the later.
    assert folder.steps() == [3, 5, 6]
    again = CheckpointFolder(tmp_path, keep=1, keep_best=1)
    assert not again.is_best(0.5)
    assert again.is_best(0.6)
    again.save(7, {"w": jnp.zeros(2)}, score=0.6)
    assert again.steps() == [7]
    assert not CheckpointFolder(tmp_path).is_best(0.9)


@pytest.mark.parametrize("wrong", [{"keep": 0}, {"keep_best": -1}])
def test_counts_that_make_no_sense_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="keep"):
        CheckpointFolder(tmp_path, **wrong)
