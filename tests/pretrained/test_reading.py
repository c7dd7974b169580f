"""A path becomes a model, and tells it from others."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jaxrl_reason.evaluation.responses import load_model
from jaxrl_reason.pretrained import reading
from jaxrl_reason.pretrained.model_card import ModelCard
from jaxrl_reason.pretrained.model_folder import export_model
from jaxrl_reason.pretrained.reading import model_digest, read_model
from jaxrl_reason.train.model_settings import ModelSettings
from jaxrl_reason.train.models import find_files
from tests.pretrained.tiny import CONFIG, random_params
from tests.text.tokenizer_families import family


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
        reading, "load_tokenizer", lambda path, **given: SimpleNamespace(**given)
    )
    loaded = load_model(str(tmp_path), dtype="bfloat16")
    assert loaded.tokenizer.vocab_size == CONFIG.vocab_size
    assert loaded.params == "bfloat16"
    assert loaded.digest == model_digest(tmp_path)


def test_a_tokenizer_with_more_ids_than_its_model_is_refused(tmp_path: Path) -> None:
    card = ModelCard("Tiny", "owner/base", "apache-2.0", "None.", "None.", "A test.")
    folder = export_model(
        tmp_path / "model", CONFIG, random_params(), family("llama3"), card
    )
    assert read_model(str(folder))[1].vocab_size == CONFIG.vocab_size
    file = folder / "tokenizer.json"
    spec = json.loads(file.read_text())
    more = {**spec["added_tokens"][-1], "content": "<more>", "id": CONFIG.vocab_size}
    spec["added_tokens"].append(more)
    file.write_text(json.dumps(spec))
    said = r"model: the tokenizer must have at most the model's ids \(386\), got 387"
    with pytest.raises(ValueError, match=said):
        read_model(str(folder))
    with pytest.raises(ValueError, match=said):
        find_files(ModelSettings(str(folder)))
