"""What a user may write for a path."""

import sys
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jaxrl_reason.weights import WeightsError, find_model

pytestmark = pytest.mark.fast


def hub_with(monkeypatch: pytest.MonkeyPatch, download: Any) -> None:
    fake = SimpleNamespace(snapshot_download=download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)


def test_folders_and_files_win_over_hub_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert find_model("owner/name") == Path("owner/name")
    (tmp_path / "m.gguf").touch()
    assert find_model(tmp_path / "m.gguf") == tmp_path / "m.gguf"


def test_a_hub_id_is_fetched_without_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.update(name=name, revision=revision, patterns=allow_patterns)
        return str(tmp_path)

    hub_with(monkeypatch, download)
    assert find_model("owner/name-1.5B", revision="main") == tmp_path
    assert (asked["name"], asked["revision"]) == ("owner/name-1.5B", "main")
    fetched = ["model-00001-of-00002.safetensors", "config.json", "tokenizer.model"]
    passed = ["modeling_x.py", "pytorch_model.bin", "consolidated.safetensors"]
    for files, wanted in ((fetched, True), (passed, False)):
        for file in files:
            matches = [fnmatch(file, pattern) for pattern in asked["patterns"]]
            assert any(matches) == wanted, file


def test_offline_it_says_what_to_fetch_and_where_to_put_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def download(name: str, **_: Any) -> str:
        raise ConnectionError("no route to host.")

    hub_with(monkeypatch, download)
    with pytest.raises(WeightsError) as caught:
        find_model("owner/name")
    said = str(caught.value)
    assert "ConnectionError: no route to host. To do it by hand" in said
    assert "hf download owner/name --local-dir FOLDER" in said
    assert "https://huggingface.co/owner/name" in said
    assert "give the path of FOLDER here" in said


def test_without_the_package_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match="pip install huggingface_hub"):
        find_model("owner/name")


@pytest.mark.parametrize(
    "path", ["nowhere", "./a/b", "../a", "/a/b", "a/b/c", "a/b.gguf", "a/..", "a b/c"]
)
def test_what_is_no_path_and_no_id(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_with(monkeypatch, None)
    # Beside an empty folder, whatever lies beside the checkout.
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    with pytest.raises(WeightsError, match=r"no such folder or \.gguf file"):
        find_model(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(WeightsError, match=r"must be a folder or a \.gguf file"):
        find_model(tmp_path / "pytorch_model.bin")
