import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from jaxrl_reason.runs import checkpoints
from jaxrl_reason.runs.checkpoints import CheckpointError, CheckpointFolder
from jaxrl_reason.runs.files import list_files

SETTINGS = {"model": {"width": 8, "num_layers": 2}, "eos_token_ids": (1, 2)}


@flax.struct.dataclass
class State:
    step: Any
    params: Any
    opt_state: Any
    key: Any


def make_state(seed=0, width=8):
    params = {
        "embed": jax.random.normal(jax.random.key(seed), (16, width)),
        "head": {"kernel": jnp.full((width, 16), seed, jnp.bfloat16)},
    }
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    opt_state = jax.tree.map(lambda x: x + 1, optimiser.init(params))
    return State(jnp.int32(seed), params, opt_state, jax.random.key(seed))


def abstract(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)


def assert_same(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for left, right in zip(
        jax.tree.leaves(first), jax.tree.leaves(second), strict=True
    ):
        assert left.dtype == right.dtype
        if jnp.issubdtype(left.dtype, jax.dtypes.prng_key):
            left, right = jax.random.key_data(left), jax.random.key_data(right)
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right))


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory):
    """Steps 10, 20 and 30, saved once for the tests that damage copies of them."""
    path = tmp_path_factory.mktemp("saved") / "checkpoints"
    folder = CheckpointFolder(path)
    for step in (10, 20, 30):
        arrays = {"tokens": np.arange(step)}
        folder.save(step, make_state(step), {"at": step}, SETTINGS, arrays)
    return path


@pytest.fixture
def folder(saved_once, tmp_path):
    shutil.copytree(saved_once, tmp_path / "checkpoints")
    return CheckpointFolder(tmp_path / "checkpoints")


def restore(folder, step=None, settings=SETTINGS):
    return folder.restore(abstract(make_state()), settings, step)


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


# --- damage


def test_one_flipped_bit_in_any_file_is_noticed(folder):
    newest = folder.path / "00000030"
    names = list_files(newest)
    assert len(names) > 8
    for name in names:
        file = newest / name
        whole = file.read_bytes()
        for place in {0, len(whole) // 2, len(whole) - 1} if whole else ():
            data = bytearray(whole)
            data[place] ^= 1
            file.write_bytes(data)
            assert folder.damage(30), (name, place)
        file.write_bytes(whole)
    assert folder.damage(30) == []


def test_orbax_alone_does_not_notice(tmp_path):
    # Why the manifest exists (TRAPS 41). Values are noise, so that nothing but the
    # array's bytes is hit and no decompressor stumbles.
    state = {"w": jnp.asarray(np.random.default_rng(0).integers(0, 2**32, 60_000))}
    folder = CheckpointFolder(tmp_path)
    place = folder.save(1, state) / "state"
    files = [place / name for name in list_files(place)]
    largest = max(files, key=lambda file: file.stat().st_size)
    damage_flip(largest)
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        target = jax.tree.map(checkpoints._with_sharding, abstract(state))
        found = checkpointer.restore(place, args=ocp.args.StandardRestore(target))
    assert int((found["w"] != state["w"]).sum()) == 1
    with pytest.raises(CheckpointError, match=largest.name):
        folder.restore(abstract(state), {})


def damage_flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def damage_truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


def damage_remove(file):
    file.unlink()


@pytest.mark.parametrize("name", ["extra.json", "arrays.npz", "state/_METADATA"])
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (damage_flip, "changed since it was written"),
        (damage_truncate, "bytes, written with"),
        (damage_remove, "missing"),
    ],
)
def test_damage_names_file_and_step_to_resume_from(folder, name, damage, says):
    damage(folder.path / "00000030" / name)
    with pytest.raises(CheckpointError) as caught:
        restore(folder)
    message = str(caught.value)
    assert "00000030 is damaged" in message
    assert name in message
    assert says in message
    assert message.endswith("the newest intact one before it: --resume-step 20")
    assert restore(folder, 20).step == 20


def test_a_file_too_many_is_damage(folder):
    (folder.path / "00000030" / "state" / "d" / "more").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="state/d/more: not written by"):
        restore(folder)


def test_a_file_left_by_a_desktop_is_not(folder):
    (folder.path / "00000030" / ".DS_Store").write_bytes(b"x")
    assert restore(folder).step == 30


@pytest.mark.parametrize("damage", [damage_flip, damage_truncate, damage_remove])
def test_a_damaged_manifest_is_damage(folder, damage):
    damage(folder.path / "00000030" / "manifest.json")
    with pytest.raises(CheckpointError, match=r"manifest\.json: .*--resume-step 20"):
        restore(folder)


def test_an_edited_setting_in_the_manifest_is_damage(folder):
    file = folder.path / "00000030" / "manifest.json"
    file.write_text(file.read_text().replace('"width": 8', '"width": 9'))
    with pytest.raises(CheckpointError, match="checksum differs"):
        restore(folder)


def test_a_renamed_checkpoint_is_damage(folder):
    (folder.path / "00000030").rename(folder.path / "00000031")
    with pytest.raises(CheckpointError, match="written for step 30"):
        restore(folder)


def test_an_empty_step_folder_is_damage(folder):
    (folder.path / "00000040").mkdir()
    with pytest.raises(CheckpointError, match=r"manifest\.json: missing.*step 30"):
        restore(folder)


def test_damaged_older_ones_are_passed_over_in_the_advice(folder):
    damage_flip(folder.path / "00000030" / "extra.json")
    damage_remove(folder.path / "00000020" / "arrays.npz")
    with pytest.raises(CheckpointError, match="--resume-step 10"):
        restore(folder)
    damage_remove(folder.path / "00000010" / "arrays.npz")
    with pytest.raises(CheckpointError, match="no older checkpoint is intact"):
        restore(folder)
    assert folder.newest_intact() is None


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
            patch.setattr(checkpoints, "fsync_tree", stop(checkpoints.fsync_tree))
        elif place == "remove":
            patch.setattr(checkpoints.shutil, "rmtree", stop(shutil.rmtree))
        else:
            at = 2 if place.startswith("second") else 1
            patch.setattr(
                CheckpointFolder,
                "_move_into_place",
                with_patched_rename(CheckpointFolder._move_into_place, stop, at),
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
        checkpoints.os.rename = stop(original, at)
        try:
            return method(*arguments)
        finally:
            checkpoints.os.rename = original

    return wrapped


SAVE_FOR_EVER = """
import sys, jax.numpy as jnp
from jaxrl_reason.runs.checkpoints import CheckpointFolder
folder = CheckpointFolder(sys.argv[1], keep=2)
step = 0
while True:
    step += 1
    folder.save(step, {"w": jnp.full((64, 64), step)}, {"at": step}, {"width": 64})
    print(step, flush=True)
"""


def test_kill_9_leaves_whole_checkpoints(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", SAVE_FOR_EVER, str(tmp_path)],
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
    assert found.step in (last, last + 1)
    assert found.extra == {"at": found.step}
    assert int(found.state["w"][0, 0]) == found.step
    folder.save(100, {"w": jnp.zeros((64, 64), jnp.int32)})
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


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
