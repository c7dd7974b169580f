"""GGUF files: every kind of number, rotary rows put back, settings, hostile bytes."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf import quants

from jaxrl_reason.weights import (
    SpecialTokenIds,
    WeightsError,
    gguf_config,
    load_pretrained,
)
from jaxrl_reason.weights.names import TABLE
from tests.weights.cases import CASES, tensors_of, write_folder
from tests.weights.test_folders import same_bits


def gguf_name(name: str) -> str:
    layer = next((part for part in name.split(".") if part.isdigit()), None)
    row = next(r for r in TABLE if r.hugging_face.format(layer) == name)
    return row.gguf.format(layer)


def interleave(tensor: np.ndarray, heads: int) -> np.ndarray:
    """How llama.cpp's converter lays the rows of attn_q and attn_k."""
    split = tensor.reshape(heads, 2, -1, *tensor.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(tensor.shape)


def kind_of(tensor: np.ndarray, kind: Kind) -> Kind:
    """Blocks of 32 columns do not fit every tensor; vectors stay in float32."""
    fits = tensor.ndim == 2 and tensor.shape[1] % 32 == 0
    return kind if fits else Kind.F32


def write_gguf(case: str, path: Path, kind: Kind = Kind.F32, **keys: Any) -> Path:
    """A file of one case as the converter of llama.cpp writes it."""
    c = CASES[case]
    arch = {"mistral": "llama"}.get(c["model_type"], c["model_type"])
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(keys.pop("block_count", c["num_hidden_layers"]))
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_embedding_length(c["hidden_size"])
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_head_count(c["num_attention_heads"])
    writer.add_head_count_kv(c["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
    writer.add_rope_freq_base(c.get("rope_theta", 10000.0))
    if "head_dim" in c:
        writer.add_key_length(c["head_dim"])
        writer.add_value_length(c["head_dim"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for key, value in keys.items():
        name = f"{arch}.{key.replace('__', '.')}"
        add = {str: writer.add_string, int: writer.add_uint32}
        add.get(type(value), writer.add_float32)(name, value)
    for name, tensor in tensors_of(case).items():
        if arch == "llama" and (".q_proj" in name or ".k_proj" in name):
            query = ".q_proj" in name
            heads = c["num_attention_heads" if query else "num_key_value_heads"]
            tensor = interleave(tensor, heads)
        as_kind = kind_of(tensor, kind)
        data = quants.quantize(tensor, as_kind)
        writer.add_tensor(gguf_name(name), data, raw_dtype=as_kind)
    if c.get("rope_scaling") and c["rope_scaling"].get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(c))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def llama3_factors(c: dict[str, Any]) -> np.ndarray:
    s, half = c["rope_scaling"], c["hidden_size"] // c["num_attention_heads"] // 2
    factors = []
    for i in range(half):
        wave = 2 * np.pi * c["rope_theta"] ** (i / half)
        turns = s["original_max_position_embeddings"] / wave
        keep = (turns - s["low_freq_factor"]) / (
            s["high_freq_factor"] - s["low_freq_factor"]
        )
        keep = min(max(keep, 0.0), 1.0)
        factors.append(1 / ((1 - keep) / s["factor"] + keep))
    return np.array(factors, np.float32)


def rounded(case: str, kind: Kind) -> dict[str, np.ndarray]:
    """The tensors after a way to the kind and back."""
    return {
        name: quants.dequantize(
            quants.quantize(tensor, kind_of(tensor, kind)), kind_of(tensor, kind)
        ).reshape(tensor.shape)
        for name, tensor in tensors_of(case).items()
    }


KINDS = [Kind.F32, Kind.F16, Kind.BF16, Kind.Q4_0, Kind.Q4_1, Kind.Q8_0, Kind.Q5_0]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_of_number(kind: Kind, tmp_path: Path) -> None:
    case = "llama2"
    got = load_pretrained(write_gguf(case, tmp_path / "m.gguf", kind))
    folder = write_folder(case, tmp_path / "f", **rounded(case, kind))
    wanted = load_pretrained(folder)
    assert same_bits(got.params, wanted.params)
    assert (got.config, got.family) == (wanted.config, "llama")
    assert got.special == SpecialTokenIds(bos_token_id=1, eos_token_ids=(2,))


SAME = {
    "llama_linear_biases": {
        "rope__scaling__type": "linear",
        "rope__scaling__factor": 4.0,
    },
    "smollm2": {"vocab_size": 96, "rope__dimension_count": 4},
    "mistral_window": {"attention__sliding_window": 7},
    "qwen2_yarn": {
        "rope__scaling__type": "yarn",
        "rope__scaling__factor": 4.0,
        "rope__scaling__original_context_length": 16,
    },
    "qwen3": {},
}


@pytest.mark.parametrize("case", SAME)
def test_a_file_gives_the_folder_s_model(case: str, tmp_path: Path) -> None:
    got = load_pretrained(write_gguf(case, tmp_path / "m.gguf", **SAME[case]))
    wanted = load_pretrained(write_folder(case, tmp_path / "f"))
    assert got.config == wanted.config
    assert same_bits(got.params, wanted.params)


def test_the_factors_of_a_llama_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf("llama3", tmp_path / "m.gguf")
    with pytest.raises(WeightsError, match=r"rope_freqs.weight must be those of a"):
        load_pretrained(path)  # Made for an original context of 16.
    monkeypatch.setitem(gguf_config.LLAMA3, "original_max_position_embeddings", 16)
    wanted = load_pretrained(write_folder("llama3", tmp_path / "f")).config
    assert load_pretrained(path).config == wanted


BAD_KEYS = [
    ({"block_count": 2**31}, "block_count must be a whole number from 1 to 4096"),
    ({"expert_count": 4}, r"llama.expert_count must be one of \(0,\), got 4"),
    ({"attention__scale": 0.5}, "llama.attention.scale must be one of"),
    ({"rope__scaling__type": "longrope"}, "rope.scaling.factor is missing"),
    ({"rope__dimension_count": 6}, "rope.dimension_count must be the size of a head"),
    ({"vocab_size": 97}, r"token_embd.weight must be \(97, 32\), got \(96, 32\)"),
]


@pytest.mark.parametrize(("keys", "message"), BAD_KEYS)
def test_a_key_is_read_or_refused(
    keys: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=message):
        load_pretrained(write_gguf("llama2", tmp_path / "m.gguf", **keys))


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "gemma2")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(WeightsError, match=r"general\.architecture must be one of"):
        load_pretrained(tmp_path / "m.gguf")


def endless_array(raw: bytes) -> bytes:
    """One field: an array of 2**60 bytes."""
    header = raw[:8] + (0).to_bytes(8, "little") + (1).to_bytes(8, "little")
    key = b"general.x"
    field = len(key).to_bytes(8, "little") + key + (9).to_bytes(4, "little")
    return header + field + (0).to_bytes(4, "little") + (2**60).to_bytes(8, "little")


HOSTILE = {
    "empty": lambda raw: b"",
    "another format": lambda raw: b"PK\3\4" + raw[4:],
    "half": lambda raw: raw[: len(raw) // 2],
    "without its last tensor": lambda raw: raw[:-64],
    "2**62 tensors": lambda raw: raw[:8] + (2**62).to_bytes(8, "little") + raw[16:],
    "2**62 fields": lambda raw: raw[:16] + (2**62).to_bytes(8, "little") + raw[24:],
    "a key of 2**62 bytes": (
        lambda raw: raw[:24] + (2**62).to_bytes(8, "little") + raw[32:]
    ),
    "an endless array": endless_array,
    "a tensor of another name": lambda raw: raw.replace(
        b"blk.1.ffn_up", b"blk.1.ffn_xx"
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_damaged_files_are_refused(name: str, tmp_path: Path) -> None:
    path = write_gguf("llama2", tmp_path / "m.gguf")
    path.write_bytes(HOSTILE[name](path.read_bytes()))
    with pytest.raises(WeightsError, match=r"m\.gguf: "):
        load_pretrained(path)
