"""Damaged checkpoints are noticed, and an intact one is named."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxrl_reason.runs import checkpoints
from jaxrl_reason.runs.checkpoints import CheckpointError, CheckpointFolder
from jaxrl_reason.runs.files import list_files
from tests.runs.checkpoint_helpers import abstract, restore

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
