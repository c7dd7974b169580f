"""sentencepiece's own files, and what is made of their pieces."""

import io
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from jaxrl_reason.text.gguf_tokenizer import gguf_tokenizer
from jaxrl_reason.text.load import load_tokenizer, save_tokenizer
from tests.text.tokenizer_families import reference

TEXTS = reference("llama2")["encoded"]["texts"]
SENTENCES = [text for text in TEXTS if text.strip() and "\0" not in text] * 4


def train(kind: str, **options: Any) -> bytes:
    model = io.BytesIO()
    settings = {
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "byte_fallback": True,
        "vocab_size": 420,
        "hard_vocab_limit": False,
        "model_type": kind,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=model, **settings | options
    )
    return model.getvalue()


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def model(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Path:
    path = tmp_path_factory.mktemp(request.param) / "tokenizer.model"
    path.write_bytes(train(request.param))
    return path


def test_ids_are_sentencepieces_and_text_comes_back(model: Path) -> None:
    tokenizer = load_tokenizer(model)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    assert tokenizer.vocab_size == processor.vocab_size()
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert ids == processor.encode(text)
        if "\u2581" not in text:  # its own sign for a space
            assert tokenizer.decode(ids) == text
    assert tokenizer.eos_token_id == processor.eos_id()
    assert tokenizer.encode_prompt("a")[0] == processor.bos_id()
    assert tokenizer.pad_token_id == processor.unk_id()  # the model has no padding


def test_saved_as_json_it_encodes_alike(model: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(model)
    save_tokenizer(tokenizer, tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.special_tokens == tokenizer.special_tokens
    for text in TEXTS:
        assert again.encode(text) == tokenizer.encode(text), text
        both = [t.encode(f"<s>{text}</s>", control=True) for t in (again, tokenizer)]
        assert both[0] == both[1], text


def test_inside_a_gguf_it_encodes_alike() -> None:
    content = train("bpe")
    processor = sentencepiece.SentencePieceProcessor(model_proto=content)
    size = processor.vocab_size()
    kinds = [
        2
        if processor.is_unknown(i)
        else 3
        if processor.is_control(i)
        else 6
        if processor.is_byte(i)
        else 1
        for i in range(size)
    ]
    fields = {
        "model": "llama",
        "tokens": [processor.id_to_piece(i) for i in range(size)],
        "scores": [processor.get_score(i) for i in range(size)],
        "token_type": kinds,
        "bos_token_id": processor.bos_id(),
        "eos_token_id": processor.eos_id(),
        "unknown_token_id": processor.unk_id(),
    }
    made = gguf_tokenizer({f"tokenizer.ggml.{k}": v for k, v in fields.items()})
    for text in TEXTS:
        assert made.encode(text) == processor.encode(text), text
    assert made.special_tokens.add_bos
    bare = fields | {"add_space_prefix": False, "add_bos_token": False}
    made = gguf_tokenizer({f"tokenizer.ggml.{k}": v for k, v in bare.items()})
    assert made.decode(made.encode(" a")) == " a"
    assert made.encode_prompt("a") == made.encode("a") != processor.encode("a")


def test_folder_with_a_model_file(model: Path) -> None:
    config = model.parent / "tokenizer_config.json"
    config.write_text('{"add_bos_token": false, "chat_template": "{{ messages }}"}')
    tokenizer = load_tokenizer(model.parent)
    config.unlink()
    assert not tokenizer.special_tokens.add_bos
    assert tokenizer.chat_template == "{{ messages }}"


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"normalization_rule_name": "nmt_nfkc"}, "keep its text as it is"),
        ({"remove_extra_whitespaces": True}, "keep its text as it is"),
    ],
)
def test_models_that_change_their_text_are_refused(
    options: dict[str, Any], rule: str, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(train("bpe", **options))
    with pytest.raises(ValueError, match=rule):
        load_tokenizer(path)


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"not a model"])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer\.model: a \.model must"):
        load_tokenizer(path)
