"""Loading from folders: where things are found, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from jaxrl_reason.text.load import load_tokenizer, save_tokenizer
from jaxrl_reason.text.special_tokens import SpecialTokens, pad_token
from jaxrl_reason.text.text_tokenizer import TextTokenizer
from tests.text.tokenizer_families import family, write_folder


def write(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def test_every_end_of_the_generation_config_counts(tmp_path: Path) -> None:
    write_folder("llama3", tmp_path)
    alone = load_tokenizer(tmp_path)
    control = alone.control_tokens
    assert alone.eos_token_ids == (control["<|eot_id|>"], control["<|end_of_text|>"])
    write(tmp_path, "generation_config.json", {"eos_token_id": [381, 384, 382]})
    assert load_tokenizer(tmp_path).eos_token_ids == (control["<|eot_id|>"], 381, 382)
    write(tmp_path, "generation_config.json", {"eos_token_id": 381})
    assert load_tokenizer(tmp_path).eos_token_ids == (control["<|eot_id|>"], 381)


def test_size_of_the_embedding_is_the_configs(tmp_path: Path) -> None:
    write_folder("qwen", tmp_path)
    write(tmp_path, "config.json", {"vocab_size": 512})
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.vocab_size == 512
    assert tokenizer.decode([64, 511]) == tokenizer.decode([64]) + "\ufffd"
    assert load_tokenizer(tmp_path, vocab_size=600).vocab_size == 600
    for index in (-1, 512):
        with pytest.raises(ValueError, match=rf"0\.\.511, got {index}"):
            tokenizer.decode([index])


def test_template_of_its_own_file_comes_first(tmp_path: Path) -> None:
    config = write_folder("qwen", tmp_path)["config"]
    named = [
        {"name": "tool_use", "template": "t"},
        {"name": "default", "template": "d"},
    ]
    write(tmp_path, "tokenizer_config.json", config | {"chat_template": named})
    assert load_tokenizer(tmp_path).chat_template == "d"
    (tmp_path / "chat_template.jinja").write_text("own")
    assert load_tokenizer(tmp_path / "tokenizer.json").chat_template == "own"


def test_padding_is_never_an_end(tmp_path: Path) -> None:
    config = write_folder("qwen", tmp_path)["config"]
    write(tmp_path, "tokenizer_config.json", config | {"pad_token": "<|im_end|>"})
    write(tmp_path, "generation_config.json", {"eos_token_id": 382})
    tokenizer = load_tokenizer(tmp_path)
    end = tokenizer.control_tokens["<|endoftext|>"]
    assert tokenizer.eos_token_ids == (382, end)
    assert tokenizer.pad_token_id not in (382, end)
    # What the file pads with ends texts only if the file says that too.
    write(tmp_path, "tokenizer_config.json", config | {"pad_token": "<|endoftext|>"})
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.eos_token_ids == (382,)
    assert tokenizer.pad_token_id == end
    with pytest.raises(ValueError, match=r"not be an EOS token, .* got 2 among"):
        SpecialTokens(eos_token_ids=(1, 2), pad_token_id=2)
    with pytest.raises(ValueError, match="to pad with"):
        pad_token(1, (1,), {"</s>": 1}, "")


def test_a_tokenizer_with_an_end_and_no_more_is_padded_as_asked(tmp_path: Path) -> None:
    made = write_folder("qwen", tmp_path)
    spec, config = made["tokenizer"], made["config"]
    spec["added_tokens"] = spec["added_tokens"][:1]  # as GPT-2's
    (end,) = spec["added_tokens"]
    write(tmp_path, "tokenizer.json", spec)
    named = dict.fromkeys(("eos_token", "pad_token", "bos_token"), end["content"])
    write(tmp_path, "tokenizer_config.json", config | named)
    with pytest.raises(ValueError, match="or pad_token_id must be given"):
        load_tokenizer(tmp_path)
    tokenizer = load_tokenizer(tmp_path, pad_token_id=5)
    assert tokenizer.pad_token_id == 5
    assert tokenizer.eos_token_ids == (end["id"],)
    with pytest.raises(ValueError, match="must not be an EOS token"):
        load_tokenizer(tmp_path, pad_token_id=end["id"])
    with pytest.raises(ValueError, match=r"a token id must be in .* got 9999"):
        load_tokenizer(tmp_path, pad_token_id=9999)
    # Saved, the word is not a special token of the folder.
    save_tokenizer(tokenizer, tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert "pad_token" not in config


def test_special_tokens_may_be_objects(tmp_path: Path) -> None:
    config = write_folder("llama3", tmp_path)["config"]
    config["eos_token"] = {"content": "<|end_of_text|>", "lstrip": False}
    write(tmp_path, "tokenizer_config.json", config | {"add_bos_token": False})
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.eos_token_id == tokenizer.control_tokens["<|end_of_text|>"]
    assert not tokenizer.special_tokens.add_bos


def test_control_tokens_that_the_model_spells_are_cut() -> None:
    # A unigram vocabulary may hold its control tokens as ordinary pieces.
    characters = [[c, -9.0] for c in "<s/>\u2581abc"]
    spec = {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": t, "special": True}
            for i, t in enumerate(["<unk>", "<s>", "</s>"])
        ],
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581"},
        "decoder": {"type": "Metaspace", "replacement": "\u2581"},
        "model": {
            "type": "Unigram",
            "unk_id": 0,
            "vocab": [["<unk>", 0.0], ["<s>", 0.0], ["</s>", 0.0], *characters],
        },
    }
    made = TextTokenizer(
        spec, SpecialTokens(eos_token_ids=(2,), pad_token_id=0, bos_token_id=1)
    )
    text = "<s>a</s></s> b<s>"
    ids = made.encode(text)
    assert not any(made.is_control(index) for index in ids)
    assert made.decode(ids) == text
    assert made.encode("</s>", control=True) == [2]


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("tokenizer.json", "{", r"tokenizer\.json must be JSON"),
        ("tokenizer.json", "[" * 10**6, r"tokenizer\.json must be JSON"),
        ("tokenizer.json", "[]", "must hold an object, got list"),
        ("tokenizer.json", "{}", "must"),
        ("tokenizer_config.json", "{", r"tokenizer_config\.json must be JSON"),
        ("tokenizer_config.json", '{"eos_token": "<none>"}', "got '<none>'"),
        ("generation_config.json", "7", "must hold an object, got int"),
        ("generation_config.json", '{"eos_token_id": 99999}', "got 99999"),
        ("generation_config.json", '{"eos_token_id": ["x"]}', "TypeError"),
        ("tokenizer.json", '{"added_tokens": 7}', "TypeError"),
        ("tokenizer.json", '{"added_tokens": ["<s>"]}', "AttributeError"),
    ],
)
def test_faulty_files_are_named(
    name: str, content: str, rule: str, tmp_path: Path
) -> None:
    write_folder("qwen", tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rule) as error:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        (
            "decoder",
            {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "decoder must be ByteLevel",
        ),
        ("decoder", None, "decoder must be ByteLevel"),
        ("model", {"type": "BPE"}, "must"),
        ("added_tokens", [{"id": 1}], "must have content and id"),
        ("added_tokens", [{"id": -1, "content": "x"}], "must have content and id"),
        ("added_tokens", [{"id": 1, "content": ""}], "must not be empty"),
    ],
)
def test_faulty_parts_are_refused(key: str, value: Any, rule: str) -> None:
    made = family("qwen")
    with pytest.raises(ValueError, match=rule):
        TextTokenizer({**made.spec, key: value}, made.special_tokens)


@pytest.mark.parametrize("name", ["absent", "other.txt", "empty"])
def test_paths_without_a_tokenizer_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=name):
        load_tokenizer(tmp_path / name)
