"""A path becomes a model, and tells it from others."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jaxrl_reason.evaluation.responses import load_model
from jaxrl_reason.pretrained import reading
from jaxrl_reason.pretrained.reading import model_digest
from tests.pretrained.tiny import CONFIG


def test_the_digest_tells_models_apart(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    weights = folder / "model.safetensors"
    weights.write_bytes(bytes(3 * 2**20))
    first = model_digest(folder)
    assert model_digest(folder) == first
    weights.write_bytes(bytes(3 * 2**20 - 1) + b"x")
    assert model_digest(folder) != first
    weights.write_bytes(bytes(3 * 2**20 + 1))
    assert model_digest(folder) != first
    assert model_digest(weights) != model_digest(folder)


def test_a_path_becomes_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").write_bytes(b"x")

    def load_pretrained(path: str, *, dtype: str) -> Any:
        return SimpleNamespace(path=Path(path), config=CONFIG, params=dtype)

    monkeypatch.setattr(reading, "load_pretrained", load_pretrained)
    monkeypatch.setattr(
        reading, "load_tokenizer", lambda path, vocab_size: (path, vocab_size)
    )
    loaded = load_model(str(tmp_path), dtype="bfloat16")
    assert loaded.tokenizer == (tmp_path, 386)  # type: ignore[comparison-overlap]
    assert loaded.params == "bfloat16"
    assert loaded.digest == model_digest(tmp_path)
