"""Checkpoints: what comes back, of which step, onto which mesh."""

import json
import os
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_reason.runs.checkpoints import CheckpointError, CheckpointFolder
from tests.runs.checkpoint_helpers import (
    SETTINGS,
    abstract,
    assert_same,
    make_state,
    restore,
)


def test_everything_comes_back(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints")
    state = make_state(3)
    extra = {"data": {"next": 2**70, "order": [3, 1]}, "stage": "rl", "none": None}
    arrays = {
        "file": np.arange(6, dtype=np.int32).reshape(2, 3),  # a name savez refuses
        "surplus/logprobs": np.linspace(0, 1, 4, dtype=np.float32),
        "done": np.array([True, False]),
        "empty": np.zeros((0, 5), np.int32),
    }
    path = folder.save(7, state, extra, SETTINGS, arrays)
    assert path == tmp_path / "checkpoints" / "00000007"
    found = restore(folder)
    assert_same(found.state, state)
    assert isinstance(found.state.opt_state[1][0], optax.ScaleByAdamState)
    assert found.extra == extra
    assert found.step == 7
    assert list(found.arrays) == list(arrays)
    for name, array in arrays.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array)
    # Only the checkpoint stays, and numpy reads the host arrays by itself.
    assert os.listdir(tmp_path / "checkpoints") == ["00000007"]
    assert np.load(path / "arrays.npz")["file"].shape == (2, 3)


def test_empty_parts_of_a_state_come_back(tmp_path):
    state = {"w": jnp.ones(3), "critic": None, "empty": {}, "more": [(), jnp.zeros(2)]}
    folder = CheckpointFolder(tmp_path)
    folder.save(1, state)
    found = folder.restore(abstract(state), {})
    assert_same(found.state, state)
    assert (found.extra, found.arrays) == ({}, {})


def test_the_newest_is_taken_unless_a_step_is_asked_for(folder):
    assert folder.steps() == [10, 20, 30]
    assert restore(folder).extra == {"at": 30}
    found = restore(folder, step=10)
    assert (found.step, found.extra) == (10, {"at": 10})
    assert_same(found.state, make_state(10))


def test_only_the_newest_are_kept(folder):
    folder.save(40, make_state(40))
    assert folder.steps() == [20, 30, 40]
    CheckpointFolder(folder.path, keep=1).save(50, make_state(50))
    assert folder.steps() == [50]
    assert os.listdir(folder.path) == ["00000050"]


def test_saving_a_step_again_replaces_it(folder):
    folder.save(20, make_state(5), {"again": True}, SETTINGS)
    assert folder.steps() == [10, 20, 30]
    assert restore(folder, 20).extra == {"again": True}
    assert_same(restore(folder, 20).state, make_state(5))


@pytest.mark.parametrize("target_is_there", [True, False])
def test_links_to_checkpoints_are_replaced_and_pruned(
    folder, tmp_path, target_is_there
):
    for step in (10, 30):
        moved = tmp_path / f"moved-{step}"
        os.rename(folder.path / f"{step:08d}", moved)
        os.symlink(moved, folder.path / f"{step:08d}")
        if not target_is_there:
            shutil.rmtree(moved)
    folder.save(30, make_state(30), {"at": 31}, SETTINGS)
    folder.save(40, make_state(40), {"at": 40}, SETTINGS)
    assert folder.steps() == [20, 30, 40]
    assert restore(folder, 30).extra == {"at": 31}
    folder.save(50, make_state(50), {"at": 50}, SETTINGS)
    assert folder.steps() == [30, 40, 50]


def test_going_back_moves_what_came_after_aside(folder):
    assert folder.drop_after(10) == [20, 30]
    assert folder.steps() == [10]
    assert restore(folder).step == 10
    assert sorted(os.listdir(folder.path / "dropped")) == ["00000020", "00000030"]
    folder.save(20, make_state(4))
    assert folder.drop_after(10) == [20]  # over the one that lies there
    assert folder.drop_after(10) == []


# --- absent, other settings, other arrays


def test_nothing_to_restore(tmp_path):
    folder = CheckpointFolder(tmp_path / "none")
    assert folder.steps() == []
    assert folder.newest_intact() is None
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*none"):
        restore(folder)
    assert not (tmp_path / "none").exists()


def test_an_absent_step_names_those_there_are(folder):
    with pytest.raises(CheckpointError, match=r"step 15 in .* are \[10, 20, 30\]"):
        restore(folder, 15)


def test_other_settings_are_named_field_by_field(folder):
    asked = {"model": {"width": 16, "num_layers": 2, "qk_norm": True}}
    with pytest.raises(CheckpointError) as caught:
        restore(folder, settings=asked)
    message = str(caught.value)
    assert "00000030 has other settings: model.width: saved 8, asked 16" in message
    assert "eos_token_ids: saved [1, 2], asked absent" in message
    assert "model.qk_norm: saved absent, asked True" in message
    assert "num_layers" not in message
    assert folder.fingerprint() == json.loads(json.dumps(SETTINGS))


def test_settings_come_before_damage(folder):
    (folder.path / "00000030" / "extra.json").write_text("{}")
    with pytest.raises(CheckpointError, match="other settings"):
        restore(folder, settings={"model": {"width": 16}})


def test_other_arrays_are_named(folder):
    wanted = abstract(make_state(width=4))
    with pytest.raises(CheckpointError) as caught:
        folder.restore(wanted, SETTINGS)
    assert "params/embed: saved float32[16, 8], asked float32[16, 4]" in str(
        caught.value
    )
    params = {"embed": wanted.params["embed"], "bias": wanted.params["embed"]}
    with pytest.raises(CheckpointError) as caught:
        folder.restore(wanted.replace(params=params), SETTINGS)
    assert "params/head/kernel: saved bfloat16[8, 16], asked absent" in str(
        caught.value
    )
    assert "params/bias: saved absent, asked float32[16, 4]" in str(caught.value)


def test_another_dtype_is_not_cast_silently(folder):
    wanted = abstract(make_state())
    wanted.params["embed"] = jax.ShapeDtypeStruct((16, 8), jnp.bfloat16)
    with pytest.raises(CheckpointError, match=r"saved float32\[16, 8\], asked bfloat"):
        folder.restore(wanted, SETTINGS)


# --- what cannot be saved


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="keep must be >= 1, got 0"):
        CheckpointFolder(tmp_path, keep=0)
    folder = CheckpointFolder(tmp_path)
    with pytest.raises(ValueError, match="step must be >= 0, got -1"):
        folder.save(-1, {})
    with pytest.raises(ValueError, match="extra must be a JSON object"):
        folder.save(1, make_state(), {"iterator": b"bytes"})
    with pytest.raises(ValueError, match="fingerprint must be a JSON object"):
        folder.save(1, make_state(), {}, {"dtype": jnp.dtype("float32")})
    with pytest.raises(ValueError, match=r"arrays only, got rate = 0\.1"):
        folder.save(1, {"rate": 0.1})
    with pytest.raises(ValueError, match="at least one array, got none"):
        folder.save(1, {"critic": None})
    with pytest.raises(ValueError, match="got words of object"):
        folder.save(1, make_state(), arrays={"words": np.array(["a", None])})
    assert folder.steps() == []


# --- meshes

SAVE_ON_EIGHT = """
import sys, json, jax, jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from jaxrl_reason.runs.checkpoints import CheckpointFolder
import numpy as np

def layout(shape, names, spec):
    return NamedSharding(Mesh(np.array(jax.devices()).reshape(shape), names), spec)

folder = CheckpointFolder(sys.argv[1])
saved = layout((4, 2), ("fsdp", "tensor"), P("fsdp", "tensor"))
w = jax.device_put(jnp.arange(128.0).reshape(16, 8), saved)
key = jax.device_put(jax.random.key(5), layout((8,), ("x",), P()))
folder.save(1, {"w": w, "key": key}, {"from": 8}, {"width": 8})

other = layout((8,), ("data",), P(None, "data"))
wanted = {
    "w": jax.ShapeDtypeStruct((16, 8), jnp.float32, sharding=other),
    "key": jax.ShapeDtypeStruct((), key.dtype, sharding=key.sharding),
}
found = folder.restore(wanted, {"width": 8}).state
assert found["w"].sharding == other, found["w"].sharding
assert (np.asarray(found["w"]) == np.asarray(w)).all()

# What one device saved (the test did, step 2) lands on eight.
found = folder.restore(wanted, {"width": 8}, step=0).state
assert found["w"].sharding == other
print(json.dumps([float(found["w"].sum()), jax.random.key_data(found["key"]).tolist()]))
"""


def test_one_mesh_saves_and_another_restores(tmp_path, eight_devices_run):
    folder = CheckpointFolder(tmp_path)
    key = jax.random.key(9)
    folder.save(0, {"w": jnp.ones((16, 8)), "key": key}, {}, {"width": 8})
    total, key_data = eight_devices_run(SAVE_ON_EIGHT, str(tmp_path))
    assert total == 128
    assert key_data == jax.random.key_data(key).tolist()
    wanted = {
        "w": jax.ShapeDtypeStruct((16, 8), jnp.float32),
        "key": jax.ShapeDtypeStruct((), key.dtype),
    }
    found = folder.restore(wanted, {"width": 8})
    assert (found.step, found.extra) == (1, {"from": 8})
    assert found.state["w"].devices() == {jax.devices()[0]}
    np.testing.assert_array_equal(found.state["w"], np.arange(128.0).reshape(16, 8))


def test_three_million_parameters_take_less_than_seconds(tmp_path):
    params = {
        str(i): jax.random.normal(jax.random.key(i), (1000, 1000)) for i in range(3)
    }
    state = {"params": params, "mu": params, "nu": params}
    folder = CheckpointFolder(tmp_path)
    folder.save(1, state)  # what is loaded once is not counted
    start = time.perf_counter()
    folder.save(2, state)
    saved = time.perf_counter() - start
    found = folder.restore(abstract(state), {})
    assert_same(found.state, state)
    assert saved < 5  # 0.4 s on two idle cores; the bound allows for busy ones
