"""Tokenizer files that would run for ever or fill the memory."""

import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from jaxrl_reason.text import gguf_metadata
from jaxrl_reason.text.gguf_metadata import read_metadata
from jaxrl_reason.text.load import load_tokenizer, save_tokenizer
from jaxrl_reason.text.pre_tokenizers import WORD_RULES
from jaxrl_reason.text.regex_bounds import check_regex
from jaxrl_reason.weights import gguf_file
from jaxrl_reason.weights.errors import WeightsError
from jaxrl_reason.weights.gguf_file import GGUFFile
from tests.text.tokenizer_families import FAMILIES, family


def split(pattern: str) -> dict[str, Any]:
    step = {"type": "Split", "pattern": {"Regex": pattern}}
    return step | {"behavior": "Isolated", "invert": False}


def replaced(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def doubled(times: int) -> dict[str, Any]:
    step = replaced({"String": "a"}, "aa")
    return {"type": "Sequence", "normalizers": [step] * times}


# Parts of a tokenizer.json, and what is said of them.
BOMBS: dict[str, tuple[dict[str, Any], str]] = {
    "repeated repetition": ({"pre_tokenizer": split("(a+)+$")}, "not repeat rep"),
    "repeated choice": ({"pre_tokenizer": split("(?:a|aa)*b")}, "not repeat rep"),
    "repeated option": ({"pre_tokenizer": split("(a?){50}a")}, "not repeat rep"),
    "options in a row": (
        {"pre_tokenizer": split("a?" * 30 + "a" * 30)},
        "at most 1000 choices",
    ),
    "repetitions in a row": (
        {"pre_tokenizer": split("a*" * 9 + "b")},
        "2 repetitions in a row",
    ),
    "a repetition for every length of another": (
        {"pre_tokenizer": split(r"[^\r\n]?a+a*b")},
        "2 repetitions in a row, the last at the end",
    ),
    "the same in groups": (
        {"pre_tokenizer": split(r"(?:x|a+)(?:a*b|y)")},
        "2 repetitions in a row, the last at the end",
    ),
    "the same before a look": (
        {"pre_tokenizer": split(r"a+a*(?=b|c?)")},
        "2 repetitions in a row, the last at the end",
    ),
    "a look ahead": ({"pre_tokenizer": split("(?=(a|b+)+c)a")}, "not repeat rep"),
    "a reference": ({"pre_tokenizer": split(r"(a+)\1")}, "not refer back"),
    "a call": ({"pre_tokenizer": split(r"(?<n>a|\g<n>b)")}, "not refer back"),
    "inside a sequence": (
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Sequence", "pretokenizers": [split("(a+)+")]}
                ],
            }
        },
        "not repeat rep",
    ),
    "in a normaliser": (
        {"normalizer": replaced({"Regex": "(a+)+$"}, "")},
        "not repeat rep",
    ),
    "doubling": ({"normalizer": doubled(9)}, "at most 64 times as long"),
    "a long content": (
        {"normalizer": replaced({"String": "a"}, "b" * 10**6)},
        "at most 64 times as long",
    ),
    "a content anywhere": (
        {"normalizer": replaced({"Regex": ""}, "b" * 100)},
        "at most 64 times as long",
    ),
    "many steps": (
        {"normalizer": doubled(0) | {"normalizers": [{"type": "NFC"}] * 99}},
        "at most 32 steps",
    ),
    "a long control token": (
        {"added_tokens": [{"id": 3, "content": "a" * 10**6, "special": True}]},
        "at most 1000 characters",
    ),
    "many long control tokens": (
        {
            "added_tokens": [
                {"id": i, "content": f"{i:0900}", "special": True} for i in range(999)
            ]
        },
        "must not be that long",
    ),
    "a large id": (
        {"added_tokens": [{"id": 2**40, "content": "<s>", "special": True}]},
        "a token id must be below",
    ),
}


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    save_tokenizer(family("qwen"), folder)
    return folder


def changed(folder: Path, out: Path, parts: dict[str, Any]) -> Path:
    """A copy of a folder with parts of its tokenizer.json replaced."""
    out.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (out / name).write_bytes((folder / name).read_bytes())
    spec = json.loads((out / "tokenizer.json").read_text("utf-8"))
    added = spec["added_tokens"] + parts.get("added_tokens", [])
    spec |= parts | {"added_tokens": added}
    (out / "tokenizer.json").write_text(json.dumps(spec), "utf-8")
    return out


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_when_they_are_read(
    name: str, qwen_folder: Path, tmp_path: Path
) -> None:
    parts, rule = BOMBS[name]
    folder = changed(qwen_folder, tmp_path / "bomb", parts)
    start = time.process_time()
    with pytest.raises(ValueError, match=rf"bomb/tokenizer\.json: .*{rule}"):
        load_tokenizer(folder).encode("a" * 40)
    assert time.process_time() - start < 5


# How published tokenizers split texts: GPT-4o, DeepSeek-V3, digits from the right,
# BLOOM, Kimi K2.
PUBLISHED = [
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?"
    r"[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"\p{N}{1,3}(?=(?:\p{N}{3})*(?:\P{N}|$))",
    r" ?[^(\s|[.,!?…。，、।۔،])]+",
    r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{M}&&[^\p{Han}]]*[\p{Ll}&&[^\p{Han}]]+",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}| ?[^\s\p{L}]++",
]


@pytest.mark.parametrize(
    "pattern", [*PUBLISHED, *(r.pattern for r in WORD_RULES.values() if r.pattern)]
)
def test_expressions_of_published_tokenizers_pass(pattern: str) -> None:
    check_regex(pattern)


@pytest.mark.parametrize("name", FAMILIES)
def test_tokenizers_of_all_families_pass(name: str) -> None:
    made = family(name)
    assert made.encode("a b")


def gguf(path: Path, *entries: bytes) -> Path:
    """A GGUF file of version 3 without tensors."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries))
    path.write_bytes(head + b"".join(entries))
    return path


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def array(key: bytes, kind: int, count: int, content: bytes) -> bytes:
    return text(key) + struct.pack("<IIQ", 9, kind, count) + content


def test_millions_of_empty_texts_are_refused_at_once(tmp_path: Path) -> None:
    count = 13 * 10**6
    tokens = array(b"tokenizer.ggml.tokens", 8, count, bytes(8 * count))
    path = gguf(tmp_path / "many.gguf", tokens)
    start = time.process_time()
    with pytest.raises(ValueError, match=r"many\.gguf"):
        load_tokenizer(path)
    with pytest.raises(WeightsError, match=r"many\.gguf: .* at most 2097152 values"):
        GGUFFile(path)
    assert time.process_time() - start < 5


def test_many_small_settings_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_file, "_MOST_PARTS", 1000)
    entries = [text(b"k%d" % i) + struct.pack("<II", 4, i) for i in range(1000)]
    path = gguf(tmp_path / "keys.gguf", *entries)
    with pytest.raises(WeightsError, match=r"keys\.gguf: .* more than 1000 parts"):
        GGUFFile(path)
    monkeypatch.setattr(gguf_metadata, "MOST_VALUES", 1000)
    with pytest.raises(ValueError, match=r"at most 1000 values, got more at 'k0'"):
        read_metadata(gguf(tmp_path / "keys.gguf", *(entries[:500] * 3)))
    nested = struct.pack("<IQ", 9, 0) * 1000
    lists = gguf(tmp_path / "lists.gguf", array(b"k", 9, 1000, nested))
    with pytest.raises(ValueError, match="at most 1000 values"):
        read_metadata(lists)


def test_long_arrays_of_a_tokenizer_are_passed_over(tmp_path: Path) -> None:
    count = 10**5
    entries = [
        array(b"tokenizer.ggml.tokens", 8, count, text(b"ab") * count),
        array(b"tokenizer.ggml.scores", 6, count, bytes(4 * count)),
        text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama"),
    ]
    path = gguf(tmp_path / "long.gguf", *entries)
    start = time.process_time()
    file = GGUFFile(path)
    assert file.metadata["general.architecture"] == "llama"
    assert time.process_time() - start < 1
    path.write_bytes(path.read_bytes()[: count * 8])
    with pytest.raises(WeightsError, match=r"long\.gguf: "):
        GGUFFile(path)
