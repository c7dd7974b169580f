"""Each hostile file, archive and setting of the shared list gets its verdict."""

import ast
import json
import os
import shutil
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxrl_reason.runs import manifest
from jaxrl_reason.runs.checkpoints import CheckpointError, CheckpointFolder
from jaxrl_reason.tasks.question_files import problem_questions
from jaxrl_reason.tasks.question_rows import QuestionFileError
from jaxrl_reason.tasks.question_sources import load_questions
from jaxrl_reason.text.chat_template import render
from jaxrl_reason.train.config_file import read_config, with_tree
from jaxrl_reason.train.train_settings import TrainSettings
from jaxrl_reason.weights import WeightsError, load_pretrained
from tests.grading.hostile import rows_of
from tests.runs.checkpoint_helpers import SETTINGS, make_state, restore
from tests.weights.cases import write_folder

LIST = "reference/hostile_inputs.jsonl"


@pytest.fixture
def saved(tmp_path: Path) -> CheckpointFolder:
    """Checkpoints of steps 1 and 2."""
    folder = CheckpointFolder(tmp_path / "checkpoints")
    for step in (1, 2):
        folder.save(step, make_state(step), {}, SETTINGS, {"a": np.arange(9)})
    return folder


def newest(folder: CheckpointFolder) -> Path:
    return folder.path / "00000002"


def largest(folder: Path) -> Path:
    """The largest data file of orbax."""
    found = [path for path in folder.glob("state/**/d/*") if path.is_file()]
    return max(found, key=lambda path: path.stat().st_size)


def is_passed_over(folder: CheckpointFolder) -> None:
    """The damaged one is named, and the one before it can be restored."""
    with pytest.raises(CheckpointError, match=r"00000002 is damaged .*step 1"):
        restore(folder)
    assert restore(folder, 1).step == 1


def zeroed(folder: CheckpointFolder, tmp: Path) -> None:
    path = largest(newest(folder))
    data = bytearray(path.read_bytes())
    data[: min(4096, len(data))] = bytes(min(4096, len(data)))
    path.write_bytes(data)
    is_passed_over(folder)


def halved(folder: CheckpointFolder, tmp: Path) -> None:
    path = largest(newest(folder))
    os.truncate(path, path.stat().st_size // 2)
    is_passed_over(folder)


def emptied(folder: CheckpointFolder, tmp: Path) -> None:
    shutil.rmtree(newest(folder))
    newest(folder).mkdir()
    is_passed_over(folder)


def without_manifest(folder: CheckpointFolder, tmp: Path) -> None:
    for path in newest(folder).glob("state/**/manifest.ocdbt"):
        path.unlink()
    is_passed_over(folder)


def objects(folder: CheckpointFolder, tmp: Path) -> None:
    """An array of objects, and a manifest that says it belongs there."""

    class Bad:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return os.mkdir, (str(tmp / "run"),)

    array = np.array([Bad()], object)
    np.savez(newest(folder) / "arrays.npz", a=array)
    is_passed_over(folder)
    contents = json.loads((newest(folder) / manifest.NAME).read_text("utf-8"))
    (newest(folder) / manifest.NAME).unlink()
    for name in ("files", "checksum", "format"):
        del contents[name]
    manifest.write(newest(folder), contents)
    with pytest.raises(ValueError, match="allow_pickle"):
        restore(folder)
    assert not (tmp / "run").exists()


def overlapping(folder: CheckpointFolder, tmp: Path) -> None:
    path = write_folder("llama2", tmp / "model") / "model.safetensors"
    data = path.read_bytes()
    size = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + size])
    first, second = list(header)[-2:]
    header[second] = header[first]
    text = json.dumps(header).encode().ljust(size)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
    with pytest.raises(WeightsError, match=r"model\.safetensors: damaged"):
        load_pretrained(path.parent)


def outside(folder: CheckpointFolder, tmp: Path) -> None:
    path = write_folder("llama2", tmp / "model")
    shutil.copy(path / "model.safetensors", tmp / "x.safetensors")
    os.rename(path / "model.safetensors", path / "a.safetensors")
    index = {"weight_map": {"model.norm.weight": "../x.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    with pytest.raises(WeightsError, match=r"of the same folder, got '\.\./x"):
        load_pretrained(path)


def pickled(folder: CheckpointFolder, tmp: Path) -> None:
    path = write_folder("llama2", tmp / "model")
    os.rename(path / "model.safetensors", path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"must hold model\.safetensors"):
        load_pretrained(path)


FILES: dict[str, Callable[[CheckpointFolder, Path], None]] = {
    "safetensors: overlapping offsets": overlapping,
    'safetensors.index.json: shard "../../x.safetensors"': outside,
    "pytorch_model.bin": pickled,
    "orbax: 4 kB zeroed in a d/ data file": zeroed,
    "array.npy with dtype=object": objects,
    "orbax: empty step folder": emptied,
    "orbax: data file cut to half": halved,
    "orbax: manifest.ocdbt missing": without_manifest,
}


def test_every_shared_file_is_here(shared_file: Callable[[str], Path]) -> None:
    rows = rows_of(shared_file(LIST), "file")
    assert {row["input"] for row in rows} == set(FILES)
    assert {row["expected"] for row in rows} == {"error-but-no-crash"}


@pytest.mark.parametrize("name", FILES)
def test_hostile_files_are_refused(
    name: str, saved: CheckpointFolder, tmp_path: Path
) -> None:
    FILES[name](saved, tmp_path)


def test_shared_settings(shared_file: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for row in rows_of(shared_file(LIST), "yaml"):
        path.write_text(row["input"], "utf-8")
        with pytest.raises(ValueError, match="known settings, got optim"):
            with_tree(TrainSettings(), read_config(path))
        # The same under the names of this library.
        ours = row["input"].replace("optim", "optimizer").replace("lr", "learning_rate")
        path.write_text(ours, "utf-8")
        if '"1e-4"' in ours:
            read = with_tree(TrainSettings(), read_config(path))
            assert read.optimizer.learning_rate == 1e-4
            continue
        with pytest.raises(ValueError, match=r"got optimizer\.learning_rater"):
            with_tree(TrainSettings(), read_config(path))


def test_shared_templates(shared_file: Callable[[str], Path]) -> None:
    for row in rows_of(shared_file(LIST), "chat_template"):
        with pytest.raises(ValueError, match="chat template must accept"):
            render(row["input"], {"messages": [{"role": "user", "content": "x"}]})


def test_shared_members_of_archives(
    shared_file: Callable[[str], Path], tmp_path: Path
) -> None:
    """No archive is unpacked: it is refused wherever it is given."""
    inside = tmp_path / "inside"
    for row in rows_of(shared_file(LIST), "archive_member"):
        shutil.rmtree(inside, ignore_errors=True)
        inside.mkdir()
        name, _, target = row["input"].partition(" -> ")
        member = tarfile.TarInfo(name)
        if target:
            member.type, member.linkname = tarfile.SYMTYPE, target
        for path in (inside / "rows.jsonl.gz", inside / "model.gguf"):
            with tarfile.open(path, "w:gz") as archive:
                archive.addfile(member)
        with pytest.raises(QuestionFileError, match=r"rows\.jsonl\.gz"):
            load_questions(inside / "rows.jsonl.gz", problem_questions)
        with pytest.raises(WeightsError, match=r"model\.gguf"):
            load_pretrained(inside / "model.gguf")
        assert {path.name for path in tmp_path.iterdir()} == {"inside"}
        assert len(list(inside.iterdir())) == 2


def test_no_module_unpacks_archives(root: Path) -> None:
    for folder in ("jaxrl_reason", "losses", "sharding"):
        for path in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                words = {
                    getattr(node, "attr", None),
                    *(
                        name.name
                        for name in getattr(node, "names", [])
                        if hasattr(name, "name")
                    ),
                }
                assert not words & {"tarfile", "extractall", "unpack_archive"}, path
