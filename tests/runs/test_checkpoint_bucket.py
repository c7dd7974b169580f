"""Checkpoints where no folder can be renamed; a local one stands in for a bucket."""

import json

import pytest

from jaxrl_reason.runs import checkpoints, manifest
from jaxrl_reason.runs.checkpoint_bucket import BucketPlaces
from jaxrl_reason.runs.checkpoints import CheckpointError, CheckpointFolder
from jaxrl_reason.train.group_settings import CheckpointSettings
from jaxrl_reason.train.session import checkpoints_of
from tests.runs.checkpoint_helpers import SETTINGS, make_state, restore


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A folder of checkpoints as at an address, with steps 10 and 20."""
    monkeypatch.setattr(checkpoints, "is_remote", lambda path: True)
    folder = CheckpointFolder(tmp_path / "bucket", keep=2)
    assert isinstance(folder._places, BucketPlaces)
    for step in (10, 20):
        folder.save(step, make_state(step), {"at": step}, SETTINGS)
    return folder


def names(folder):
    return sorted(path.name for path in folder.path.iterdir())


def test_a_manifest_is_what_makes_a_checkpoint(bucket):
    assert names(bucket) == ["00000010", "00000020"]
    found = restore(bucket)
    assert (found.step, found.extra) == (20, {"at": 20})
    bucket.save(30, make_state(30), {}, SETTINGS)
    assert bucket.steps() == [20, 30]
    assert names(bucket) == ["00000020", "00000030"]
    bucket.save(30, make_state(3), {"at": "again"}, SETTINGS)
    assert restore(bucket, 30).extra == {"at": "again"}


@pytest.mark.parametrize("step", [20, 30])
def test_a_stop_before_the_manifest_leaves_no_checkpoint(bucket, monkeypatch, step):
    class Stopped(BaseException):
        pass

    def stop(*arguments):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write", stop)
        with pytest.raises(Stopped):
            bucket.save(step, make_state(1), {}, SETTINGS)
    # In place of one, the save has begun by deleting that.
    left = [10] if step == 20 else [10, 20]
    assert bucket.steps() == left
    assert restore(bucket).step == left[-1]
    assert f"{step:08d}" in names(bucket)
    bucket.save(40, make_state(4), {}, SETTINGS)
    assert bucket.steps() == [left[-1], 40]
    assert names(bucket) == [f"{step:08d}" for step in bucket.steps()]


def test_a_stop_while_one_is_deleted_leaves_none(bucket, monkeypatch):
    class Stopped(BaseException):
        pass

    def stop(*arguments, **options):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(type(bucket.path), "rmtree", stop)
        with pytest.raises(Stopped):
            bucket.save(30, make_state(3), {}, SETTINGS)
    assert bucket.steps() == [20, 30]
    assert not bucket.damage(20) + bucket.damage(30)


def test_what_does_not_count_keeps_its_folder(bucket):
    assert bucket.drop_after(10) == [20]
    assert bucket.steps() == [10]
    file = bucket.path / "00000010" / "extra.json"
    file.write_text(file.read_text() + " ")
    with pytest.raises(CheckpointError, match="no older checkpoint is intact"):
        restore(bucket)
    (told,) = bucket.set_aside_damaged()
    assert told.endswith("00000010/manifest.damaged.json")
    assert bucket.steps() == []
    bucket.save(30, make_state(3), {}, SETTINGS)
    assert names(bucket) == ["00000010", "00000020", "00000030"]


def test_another_run_finds_them_by_the_settings(tmp_path):
    folder = tmp_path / "elsewhere"
    CheckpointFolder(folder / "sft").save(3, make_state(3))
    saved = {"settings": {"checkpoints": {"folder": str(folder)}}}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    assert checkpoints_of(tmp_path, "sft").steps() == [3]


def test_other_addresses_are_refused():
    with pytest.raises(ValueError, match=r"gs://... or s3://..., got ftp://host/run"):
        CheckpointSettings(folder="ftp://host/run")
