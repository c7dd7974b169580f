"""Damaged checkpoints are noticed, and an intact one is named."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxrl_reason.runs import manifest
from jaxrl_reason.runs.checkpoint_files import with_sharding
from jaxrl_reason.runs.checkpoints import CheckpointError, CheckpointFolder
from jaxrl_reason.runs.files import list_files
from tests.runs.checkpoint_helpers import SETTINGS, abstract, make_state, restore

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
        target = jax.tree.map(with_sharding, abstract(state))
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
    assert "the newest intact one before it: --resume-step 20" in message
    assert message.endswith(
        "--resume auto sets damaged ones aside and goes on from that one"
    )
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


# --- links, and what is in the place of a checkpoint


def link_of_a_folder(newest):
    newest.rename(newest.with_name("elsewhere"))
    newest.symlink_to(newest.with_name("gone"))


def link_of_a_file(newest):
    file = newest / "state" / "_METADATA"
    file.unlink()
    file.symlink_to(newest / "gone")


def a_file_instead(newest):
    shutil.rmtree(newest)
    newest.write_text("")


def nothing_in_it(newest):
    shutil.rmtree(newest)
    newest.mkdir()


def a_folder_instead_of_a_file(newest):
    (newest / "extra.json").unlink()
    (newest / "extra.json").mkdir()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (link_of_a_folder, "a link to .*gone, which is not there"),
        (link_of_a_file, "state/_METADATA: a link to a file that is gone"),
        (a_file_instead, "manifest.json: "),
        (nothing_in_it, "manifest.json: missing"),
        (a_folder_instead_of_a_file, "extra.json: missing"),
    ],
)
def test_what_is_in_the_place_of_a_checkpoint_is_damage(folder, damage, says):
    damage(folder.path / "00000030")
    with pytest.raises(CheckpointError, match=f"{says}.*--resume-step 20"):
        restore(folder)
    (told,) = folder.set_aside_damaged()
    assert "is damaged" in told
    assert told.endswith(str(folder.path / "damaged" / "00000030"))
    assert folder.steps() == [10, 20]
    assert restore(folder).step == 20


def test_damaged_checkpoints_are_set_aside_down_to_an_intact_one(folder):
    damage_flip(folder.path / "00000010" / "extra.json")
    damage_remove(folder.path / "00000030" / "arrays.npz")
    assert len(folder.set_aside_damaged()) == 1
    folder.save(30, make_state(3), {}, SETTINGS)
    damage_remove(folder.path / "00000030" / "arrays.npz")
    damage_flip(folder.path / "00000020" / "extra.json")
    assert len(folder.set_aside_damaged()) == 3
    names = sorted(path.name for path in (folder.path / "damaged").iterdir())
    assert names == ["00000010", "00000020", "00000030", "00000030-2"]
    assert folder.steps() == []
    assert folder.set_aside_damaged() == []


def test_a_disk_that_is_not_mounted_is_no_empty_folder(folder):
    link = folder.path.with_name("link")
    link.symlink_to(folder.path.with_name("unmounted"))
    for reads in (CheckpointFolder.steps, CheckpointFolder.set_aside_damaged):
        with pytest.raises(CheckpointError, match=r"is a link to .*unmounted"):
            reads(CheckpointFolder(link))


def test_nothing_is_moved_in_the_folder_of_another_run(folder):
    (folder.path / "00000030").rename(folder.path / ".old-00000030")
    other = CheckpointFolder(folder.path, read_only=True)
    assert other.steps() == [10, 20]
    damage_flip(folder.path / "00000020" / "extra.json")
    with pytest.raises(CheckpointError, match=r"--resume-step 10$"):
        restore(other)


# --- forged files


def forge(newest, change):
    """Rewrites the manifest by a change to it, with the right checksum."""
    found = json.loads((newest / "manifest.json").read_text())
    found = change(found) or found
    found["checksum"] = manifest._checksum(found)
    (newest / "manifest.json").write_text(json.dumps(found))


def nested(depth):
    text = {}
    for _ in range(depth):
        text = {"a": text}
    return text


@pytest.mark.parametrize(
    "change",
    [
        lambda found: {"step": 30},
        lambda found: found.pop("format") and None,
        lambda found: found.pop("files") and None,
        lambda found: found.pop("tree") and None,
        lambda found: found.pop("fingerprint") and None,
        lambda found: found.update(files=[1]),
        lambda found: found.update(files={"extra.json": 3}),
        lambda found: found["files"].update({"extra.json": {"size": 2}}),
        lambda found: found["files"]["extra.json"].update(size="2"),
        lambda found: found.update(tree={"w": 1}),
        lambda found: found.update(fingerprint=None),
        lambda found: found.update(score="high"),
        lambda found: found.update(fingerprint=nested(400)),
        lambda found: found["files"].update({"../../x": {"size": 0, "sha256": ""}}),
    ],
)
def test_a_forged_manifest_is_damage(folder, change):
    forge(folder.path / "00000030", change)
    with pytest.raises(CheckpointError, match="--resume-step 20"):
        restore(folder)
    with pytest.raises(CheckpointError):
        folder.fingerprint() and restore(folder)
    assert len(folder.set_aside_damaged()) == 1


def test_a_manifest_nested_beyond_what_can_be_read_is_damage(folder):
    file = folder.path / "00000030" / "manifest.json"
    for text in ('{"a":' * 100_000, "[" * 100_000, '{"step": 30, "checksum": "'):
        file.write_text(text)
        with pytest.raises(CheckpointError, match="--resume-step 20"):
            restore(folder)


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("extra.json", b"[]"),
        ("extra.json", b"\xff"),
        ("extra.json", b'{"a":' * 100_000),
        ("arrays.npz", b""),
        ("arrays.npz", b"PK no archive"),
        ("state/_METADATA", b"{}"),
        ("state/_METADATA", b"["),
    ],
)
def test_a_forged_file_with_its_manifest_is_damage(folder, name, contents):
    newest = folder.path / "00000030"
    (newest / name).write_bytes(contents)

    def change(found):
        listed = {"size": len(contents), "sha256": manifest.file_sha256(newest / name)}
        found["files"][name] = listed

    forge(newest, change)
    assert folder.damage(30) == []
    with pytest.raises(
        CheckpointError, match=f"{name.split('/')[0]}.*--resume-step 20"
    ):
        restore(folder)


def test_what_a_loop_misses_in_a_whole_checkpoint_is_said(folder):
    found = restore(folder)
    said = r"of step 30 .* KeyError: 'draws'"
    with pytest.raises(CheckpointError, match=said), found.in_form():
        found.extra["draws"]
