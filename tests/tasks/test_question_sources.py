"""Questions from files, TFDS and the hub: the same ones, with the place of errors."""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tensorflow_datasets as tfds

from jaxrl_reason.tasks.question_files import (
    QuestionFileError,
    gsm8k_questions,
    gsm_plus_questions,
    problem_questions,
)
from jaxrl_reason.tasks.question_sources import QuestionSet, load_questions

ROWS = [
    {"question": f"Zoë has {n} eggs.\nHow many?", "answer": f"So {n}. #### {n}"}
    for n in range(5)
]
FILE = "openai/gsm8k/main/test.jsonl"


class TinyQuestions(tfds.core.GeneratorBasedBuilder):
    """The rows as `test`, one without its mark as `broken`; `numbers` has answers."""

    VERSION = tfds.core.Version("1.2.0")
    BUILDER_CONFIGS = [  # noqa: RUF012 (what TFDS asks for)
        tfds.core.BuilderConfig(name=name) for name in ("texts", "numbers")
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        numbers = self.builder_config.name == "numbers"
        features = {
            "question": tfds.features.Text(),
            "answer": np.float32 if numbers else tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
        if self.builder_config.name == "numbers":
            rows = [{"question": "?", "answer": answer} for answer in (0.1, 142.0)]
            return {"test": iter(enumerate(rows))}
        broken = [ROWS[0], {"question": "?", "answer": "72"}]
        return {"test": iter(enumerate(ROWS)), "broken": iter(enumerate(broken))}

    def _generate_examples(self) -> Iterator[Any]:
        raise NotImplementedError


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tfds")
    for config, form in (("texts", "array_record"), ("numbers", "parquet")):
        TinyQuestions(
            config=config, data_dir=str(folder), file_format=form
        ).download_and_prepare()
    return folder


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def plain(tmp_path: Path) -> QuestionSet:
    """The questions from a JSONL file."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(as_lines(ROWS))
    return load_questions(str(path), gsm8k_questions)


def said_of(data: str, data_dir: Path | None = None) -> str:
    with pytest.raises(QuestionFileError) as error:
        load_questions(data, gsm8k_questions, data_dir=data_dir)
    return str(error.value)


# --- files


def test_a_file_is_known_by_its_bytes(plain: QuestionSet, tmp_path: Path) -> None:
    assert [q.answer for q in plain.questions] == ["0", "1", "2", "3", "4"]
    assert plain.digest == hashlib.sha256(as_lines(ROWS)).hexdigest()
    assert plain.origin == {"source": "file", "path": str(tmp_path / "rows.jsonl")}


def test_parquet(plain: QuestionSet, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert load_questions(path, gsm8k_questions).questions == plain.questions
    rows = [ROWS[0], {"question": "?", "answer": None}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert said_of(str(path)) == f"{path}, row 1: answer must be text, got None"
    path.write_bytes(b"PAR1 and no more")
    assert said_of(str(path)).startswith(f"{path}: ")


def test_parquet_without_pyarrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "rows.parquet").touch()
    assert "pip install pyarrow" in said_of(str(tmp_path / "rows.parquet"))


@pytest.mark.parametrize("name", ["tfds:tiny/test", "hub:a/b/c.jsonl"])
def test_paths_that_exist_win(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(parents=True)
    Path(name).write_bytes(as_lines(ROWS[:2]))
    found = load_questions(name, gsm8k_questions)
    assert len(found.questions) == 2
    assert found.origin == {"source": "file", "path": name}
    with pytest.raises(QuestionFileError, match="No such file"):
        load_questions(Path(f"{name}l"), gsm8k_questions)


def test_data_dir_is_for_tfds_alone(tmp_path: Path) -> None:
    assert "data_dir must only be given with tfds:" in said_of("a.jsonl", tmp_path)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none(number: float) -> None:
    row = {"question": "?", "answer": number}
    with pytest.raises(QuestionFileError, match="here: answer must be finite, got"):
        problem_questions([("here", row)])


def test_rows_are_left_as_they_are() -> None:
    row = {"question": "?", "answer": 5, "perturbation_type": "one"}
    row |= {"seed_question": "A?", "seed_answer": 4}
    before = dict(row)
    assert gsm_plus_questions([("here", row)])[0].answer == "4"
    assert row == before


# --- TFDS


def test_tfds_gives_the_same_questions(plain: QuestionSet, data_dir: Path) -> None:
    found = load_questions(
        "tfds:tiny_questions/texts:1.2.0/test", gsm8k_questions, data_dir=data_dir
    )
    assert found.questions == plain.questions
    assert found.origin == {
        "source": "tfds",
        "name": "tiny_questions",
        "config": "texts",
        "version": "1.2.0",
        "split": "test",
        "examples": 5,
    }
    lines = [[n, ROWS[n]["question"], str(n), "", None] for n in range(5)]
    text = "\n".join(json.dumps(line) for line in lines)
    assert found.digest == hashlib.sha256(text.encode()).hexdigest()


def test_slices_and_wildcards_of_tfds(plain: QuestionSet, data_dir: Path) -> None:
    def load(data: str) -> QuestionSet:
        return load_questions(data, gsm8k_questions, data_dir=data_dir)

    part = load("tfds:tiny_questions/texts:1.*.*/test[2:4]")
    assert [q.answer for q in part.questions] == ["2", "3"]
    assert (part.origin["version"], part.origin["examples"]) == ("1.2.0", 2)
    whole, other = (
        load("tfds:tiny_questions/texts/test"),
        load("tfds:tiny_questions/texts/test[1:3]"),
    )
    assert len({found.digest for found in (part, whole, other)}) == 3


def test_numbers_of_tfds_are_what_was_written(data_dir: Path) -> None:
    data = "tfds:tiny_questions/numbers/test"
    found = load_questions(data, problem_questions, data_dir=data_dir)
    assert [q.answer for q in found.questions] == ["0.1", "142.0"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("tfds:tiny_questions/texts/broken", ", example 1: answer must end in '####"),
        ("tfds:tiny_questions/texts/tset", "Unknown split 'tset'. Should be one of"),
        ("tfds:tiny_questions/texts/test[:0]", "TFDS gave ValueError: "),
        ("tfds:tiny_questions/texts:1/test", "Invalid version '1'"),
        ("tfds:tiny_questions", "must be tfds:NAME[/CONFIG][:VERSION]/SPLIT, got tfds"),
        ("tfds:../texts/test", "must be tfds:NAME[/CONFIG][:VERSION]/SPLIT, got tfds"),
        ("tfds:tiny_questions/texts:2.0.0/test", "but tiny_questions/numbers/1.2.0, "),
    ],
)
def test_what_tfds_cannot_give(data: str, said: str, data_dir: Path) -> None:
    message = said_of(data, data_dir)
    assert said in message
    assert data in message


def test_a_dataset_that_is_not_prepared_is_not_downloaded(tmp_path: Path) -> None:
    said = said_of("tfds:gsm8k:1.0.0/test", tmp_path)
    assert f"no such dataset is prepared in {tmp_path}, and nothing is down" in said
    assert "tfds.builder('gsm8k:1.0.0', file_format='array_record', data_dir=" in said
    assert list(tmp_path.iterdir()) == []


def test_tfrecord_form_says_so(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data_dir, folder)
    info = folder / "tiny_questions" / "texts" / "1.2.0" / "dataset_info.json"
    info.write_text(info.read_text("utf-8").replace("array_record", "tfrecord"))
    said = said_of("tfds:tiny_questions/texts/test", folder)
    assert "1.2.0 is in tfrecord form, which only TensorFlow reads" in said
    assert "file_format='array_record', data_dir='FOLDER'" in said
    for file in info.parent.glob("*array_record*"):
        file.unlink()
    info.write_text(info.read_text("utf-8").replace("tfrecord", "array_record"))
    said = said_of("tfds:tiny_questions/texts/test", folder)
    assert said.startswith("tfds:tiny_questions/texts/test")
    assert "TFDS gave" in said


# --- the hub


def hub_with(monkeypatch: pytest.MonkeyPatch, download: Any) -> None:
    fake = SimpleNamespace(hf_hub_download=download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)


@pytest.mark.parametrize("revision", [None, "v1", "refs/pr/3"])
def test_a_file_of_the_hub(
    revision: str | None,
    plain: QuestionSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cached = tmp_path / "snapshots" / "c0ffee" / "main" / "test.jsonl"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(as_lines(ROWS))
    asked: list[Any] = []

    def download(*names: str, **options: Any) -> str:
        asked.append((names, options))
        return str(cached)

    hub_with(monkeypatch, download)
    at = "" if revision is None else f"@{revision}"
    found = load_questions(f"hub:{FILE}{at}", gsm8k_questions)
    options = {"repo_type": "dataset", "revision": revision}
    assert asked == [(("openai/gsm8k", "main/test.jsonl"), options)]
    assert (found.questions, found.digest) == (plain.questions, plain.digest)
    assert found.origin == {
        "source": "hub",
        "dataset": "openai/gsm8k",
        "path": "main/test.jsonl",
        "revision": revision or "main",
        "commit": "c0ffee",
    }
    cached.write_text("{}\n")
    assert said_of(f"hub:{FILE}").startswith(f"hub:{FILE}, line 1: answer must be")


def test_without_a_network_it_says_what_to_fetch_and_where_to_put_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def download(*_: str, **__: Any) -> str:
        raise ConnectionError("no route to host")

    hub_with(monkeypatch, download)
    said = said_of(f"hub:{FILE}@v1")
    assert "ConnectionError: no route to host" in said
    fetch = "hf download --repo-type dataset openai/gsm8k main/test.jsonl --revision v1"
    assert fetch in said
    assert "huggingface.co/datasets/openai/gsm8k/resolve/v1/main/test.jsonl" in said
    assert "give --data FOLDER/main/test.jsonl" in said


def test_without_the_package_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    said = said_of(f"hub:{FILE}")
    assert "pip install huggingface_hub" in said
    assert "give --data FOLDER/main/test.jsonl" in said


@pytest.mark.parametrize(
    "data", ["hub:a/b", "hub:a/b/c.txt", "hub:b/c.jsonl", "hub:../b/c.jsonl", "hub:"]
)
def test_other_files_of_the_hub(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_with(monkeypatch, None)
    assert f".tsv or .parquet, got {data}" in said_of(data)
