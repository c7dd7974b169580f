"""Tokenizers inside GGUF files, which the gguf package wrote."""

import json
from pathlib import Path
from typing import Any

import gguf
import pytest

from jaxrl_reason.text.gguf_metadata import read_metadata
from jaxrl_reason.text.gguf_tokenizer import gguf_tokenizer
from jaxrl_reason.text.load import load_tokenizer
from tests.text.tokenizer_families import family, reference, write_folder

PRE = {"llama3": "llama-bpe", "qwen": "qwen2"}


def tokens_of(spec: dict[str, Any]) -> tuple[list[str], list[int]]:
    added = {t["content"]: t for t in spec["added_tokens"]}
    ids = spec["model"]["vocab"] | {text: t["id"] for text, t in added.items()}
    tokens = sorted(ids, key=ids.__getitem__)
    kinds = [
        1 if token not in added else 3 if added[token]["special"] else 4
        for token in tokens
    ]
    return tokens, kinds


def write_gguf(name: str, path: Path, pad: int | None = None) -> None:
    made = family(name)
    writer = gguf.GGUFWriter(path, "llama")
    tokens, kinds = tokens_of(made.spec)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE[name])
    writer.add_token_list([*tokens, "[PAD0]"])
    writer.add_token_types([*kinds, 5])
    writer.add_token_merges([" ".join(pair) for pair in made.spec["model"]["merges"]])
    writer.add_bos_token_id(made.bos_token_id)
    writer.add_eos_token_id(made.eos_token_id)
    writer.add_pad_token_id(made.eos_token_id if pad is None else pad)
    writer.add_chat_template(made.chat_template)
    writer.add_array("other.numbers", [1.5, -2.0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


@pytest.mark.parametrize("name", PRE)
def test_byte_level_gguf_is_the_folder_again(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(name, path)
    made, folder = load_tokenizer(path), family(name)
    known = reference(name)
    for number, text in enumerate(known["encoded"]["texts"]):
        assert made.encode(text) == known["encoded"]["text_ids"][number]
        ids = known["encoded"]["control_ids"][number]
        assert made.encode(text, control=True) == ids
    for case in known["chats"][:2]:
        assert made.encode_chat(case["messages"], case["prompt"]) == case["ids"]
    assert made.eos_token_id == folder.eos_token_id
    assert made.pad_token_id not in made.eos_token_ids
    assert made.encode_prompt("a") == known["first_ids"]
    # The unused token is an id without a text.
    assert made.vocab_size == folder.vocab_size + 1
    assert made.decode([made.vocab_size - 1]) == "\ufffd"


@pytest.mark.parametrize("name", PRE)
def test_a_folder_and_a_gguf_of_one_model_have_the_same_ends(
    name: str, tmp_path: Path
) -> None:
    config = write_folder(name, tmp_path)["config"]
    ids = family(name).control_tokens
    listed = json.dumps({"eos_token_id": [ids[config["eos_token"]]]})
    (tmp_path / "generation_config.json").write_text(listed)
    for pad in (config["eos_token"], *ids):  # many files pad with the EOS token
        named = json.dumps(config | {"pad_token": pad})
        (tmp_path / "tokenizer_config.json").write_text(named)
        write_gguf(name, tmp_path / "model.gguf", ids[pad])
        folder, file = map(load_tokenizer, (tmp_path, tmp_path / "model.gguf"))
        assert folder.eos_token_ids == file.eos_token_ids
        assert folder.pad_token_id == file.pad_token_id


def test_metadata_are_what_the_gguf_package_reads(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf("qwen", path)
    fields = gguf.GGUFReader(path).fields
    found = read_metadata(path)
    for key in found:
        assert found[key] == fields[key].contents()
    assert found.keys() == {k for k in fields if not k.startswith("GGUF.")}
    assert read_metadata(path, "other.") == {"other.numbers": [1.5, -2.0]}


def test_a_cut_file_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf("qwen", path)
    whole = path.read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in (*range(4, 64), len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut\.gguf: a GGUF file must"):
            load_tokenizer(cut)


@pytest.mark.parametrize(
    ("start", "rule"),
    [
        (b"GGML" + bytes(20), "must begin with GGUF"),
        (b"", "must begin with GGUF"),
        (b"GGUF\x00\x00\x00\x03" + bytes(16), "little-endian version 2 or 3"),
        (b"GGUF\x03\0\0\0" + bytes(8) + b"\xff" * 8, "must not end inside"),
        (
            b"GGUF\x03\0\0\0" + bytes(8) + b"\1" + bytes(7) + b"\xff" * 8,
            "must not end inside",
        ),
        (
            b"GGUF\x03\0\0\0"
            + bytes(8)
            + b"\1"
            + bytes(7)
            + b"\1"
            + bytes(7)
            + b"k\x63"
            + bytes(3),
            "type must be in 0..12, got 99 at 'k'",
        ),
    ],
)
def test_damaged_headers_are_refused(start: bytes, rule: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(start)
    with pytest.raises(ValueError, match=rule):
        load_tokenizer(path)


def metadata(**changes: Any) -> dict[str, Any]:
    made = family("qwen")
    tokens, kinds = tokens_of(made.spec)
    fields = {
        "model": "gpt2",
        "pre": "qwen2",
        "tokens": tokens,
        "token_type": kinds,
        "merges": [" ".join(pair) for pair in made.spec["model"]["merges"]],
        "eos_token_id": made.eos_token_id,
    }
    return {f"tokenizer.ggml.{k}": v for k, v in (fields | changes).items()}


@pytest.mark.parametrize(("pre", "whole"), [("llama-bpe", True), ("qwen2", False)])
def test_words_of_the_vocabulary_may_need_no_merges(pre: str, whole: bool) -> None:
    # Llama 3 and tekken take such a word whole, whatever the merges.
    plain = metadata(pre=pre, bos_token_id=None)
    tokens, kinds = (plain[f"tokenizer.ggml.{k}"] for k in ("tokens", "token_type"))
    changes = {"tokens": [*tokens, "zqxj"], "token_type": [*kinds, 1]}
    made = gguf_tokenizer(metadata(pre=pre, bos_token_id=None, **changes))
    assert (made.encode("zqxj") == [len(tokens)]) == whole
    assert made.decode(made.encode("zqxj")) == "zqxj"


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"model": "bert"}, "model must be one of gpt2, llama, got 'bert'"),
        ({"model": None}, "model must be one of"),
        ({"pre": "unheard-of"}, "pre must be one of .* got 'unheard-of'"),
        ({"pre": None}, "pre must be one of"),
        ({"tokens": None}, "tokens must be a list"),
        ({"token_type": [1]}, "token_type must have 387 entries"),
        ({"merges": None}, "merges must be a list"),
        ({"merges": ["Ġ zzz"]}, "must be one that tokenizers reads"),
        ({"eos_token_id": 387}, r"eos_token_id must be in 0\.\.386, got 387"),
        ({"model": "llama", "scores": [1.0]}, "scores must be a list of 387"),
    ],
)
def test_faulty_metadata_are_refused(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        gguf_tokenizer(metadata(**changes))
