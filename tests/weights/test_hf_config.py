"""config.json: every field is read or refused by its name (trap 32a)."""

import json
from pathlib import Path
from typing import Any

import pytest

from jaxrl_reason.models import (
    LinearScaling,
    Llama3Scaling,
    TransformerConfig,
    YarnScaling,
)
from jaxrl_reason.weights import (
    SpecialTokenIds,
    WeightsError,
    hf_fields,
    read_hf_config,
)
from jaxrl_reason.weights import families as tables
from jaxrl_reason.weights.untrusted import read_json
from tests.models.numpy_transformer import TINY
from tests.weights.cases import CASES, LLAMA, MISTRAL, QWEN2, QWEN3

pytestmark = pytest.mark.fast

FILE = Path("a/config.json")


def read(fields: dict[str, Any]) -> TransformerConfig:
    return read_hf_config(fields, FILE).model


@pytest.mark.parametrize("case", CASES)
def test_writing_and_reading_is_the_identity(case: str) -> None:
    found = read_hf_config(CASES[case], FILE)
    written = hf_fields(found.model, found.special, family=found.family)
    again = read_hf_config(json.loads(json.dumps(written)), FILE)
    assert (again.model, again.special, again.family) == (
        found.model,
        found.special,
        found.family,
    )


def test_a_field_in_no_table_is_refused_and_null_is_not_set() -> None:
    with pytest.raises(WeightsError, match=r"a/config.json: logit_scale is a field"):
        read({**LLAMA, "logit_scale": 0.5})
    assert read({**LLAMA, "logit_scale": None}) == read(LLAMA)


@pytest.mark.parametrize("field", tables.FIXED)
def test_a_field_that_would_change_the_numbers_is_refused(field: str) -> None:
    with pytest.raises(WeightsError, match=f"config.json: {field} of llama must be"):
        read({**LLAMA, field: "another"})
    for value in tables.FIXED[field]:
        assert read({**LLAMA, field: value}) == read(LLAMA)


@pytest.mark.parametrize("field", sorted(tables.NO_EFFECT))
def test_a_field_of_no_effect_has_none(field: str) -> None:
    assert read({**LLAMA, field: 3}) == read(LLAMA)


def test_no_field_is_in_two_tables() -> None:
    kinds = [tables.COPIED, tables.READ, tables.READ_BY_SOME, tables.FIXED]
    kinds.append(tables.NO_EFFECT)

    named = [name for kind in kinds for name in kind]
    assert len(set(named)) == len(named)


# Changes of one field, and the setting that must follow.
USED = [
    (LLAMA, {"rope_theta": 5e5}, {"rope_theta": 5e5}),
    (LLAMA, {"rms_norm_eps": 1e-3}, {"norm_eps": 1e-3}),
    (LLAMA, {"head_dim": 20}, {"head_dim": 20}),
    (LLAMA, {"head_dim": None}, {"head_dim": 8}),
    (LLAMA, {"num_key_value_heads": None}, {"num_kv_heads": 4}),
    (LLAMA, {"tie_word_embeddings": True}, {"tie_embeddings": True}),
    (
        LLAMA,
        {"attention_bias": True},
        {"attention_bias": True, "attention_output_bias": True},
    ),
    (MISTRAL, {}, {"sliding_window": 4096}),
    (MISTRAL, {"sliding_window": None}, {"sliding_window": None}),
    (QWEN2, {}, {"attention_bias": True, "attention_output_bias": False}),
    (QWEN2, {"sliding_window": 9}, {"sliding_window": None}),
    (
        QWEN2,
        {"sliding_window": 9, "use_sliding_window": True, "max_window_layers": 2},
        {"sliding_window": None},
    ),
    (
        QWEN2,
        {"sliding_window": 9, "use_sliding_window": True, "max_window_layers": 1},
        {"sliding_window": 9, "full_attention_layers": (0,)},
    ),
    (QWEN3, {"head_dim": 16}, {"qk_norm": True, "head_dim": 16}),
    (
        LLAMA,
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_scaling": LinearScaling(2.0)},
    ),
    (
        LLAMA,
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 7.0}},
        {"rope_scaling": LinearScaling(2.0), "rope_theta": 7.0},
    ),
    (
        LLAMA,
        {
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            }
        },
        {"rope_scaling": Llama3Scaling(32.0, 1.0, 4.0, 8192)},
    ),
    (
        LLAMA,
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.5}},
        {"rope_scaling": YarnScaling(4.0, 64, attention_factor=1.5)},
    ),
]
# The rope_scaling of DeepSeek-R1-0528-Qwen3-8B.
DEEPSEEK = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 32768,
    "attn_factor": 0.8782488562869419,
}


def test_attn_factor_multiplies_the_default_as_in_vllm() -> None:
    scaling: Any = read({**LLAMA, "rope_scaling": DEEPSEEK}).rope_scaling
    assert scaling.attention_factor == pytest.approx(1.0, abs=1e-12)
    assert scaling == YarnScaling(4.0, 32768, attention_factor=scaling.attention_factor)


@pytest.mark.parametrize(("family", "change", "wanted"), USED)
def test_a_field_that_is_read_is_used(family: Any, change: Any, wanted: Any) -> None:
    found = read({**family, **change})
    assert {name: getattr(found, name) for name in wanted} == wanted


BAD = [
    (LLAMA, {"model_type": "gpt2"}, "model_type must be one of"),
    (LLAMA, {"architectures": ["LlamaForTokenClassification"]}, "architectures must"),
    (LLAMA, {"vocab_size": None}, "fields are missing: vocab_size"),
    (QWEN3, {}, "fields are missing: head_dim"),
    (LLAMA, {"hidden_size": -32}, "hidden_size must be a whole number from 1"),
    (LLAMA, {"hidden_size": 32.0}, "head_dim is missing"),
    (LLAMA, {"head_dim": 8.0}, "head_dim must be a whole number"),
    (LLAMA, {"vocab_size": 2**80}, "vocab_size must be a whole number from 1"),
    (LLAMA, {"num_hidden_layers": True}, "num_hidden_layers must be a whole"),
    (LLAMA, {"num_hidden_layers": 10**6}, "num_hidden_layers must be .* 1 to 4096"),
    (LLAMA, {"num_key_value_heads": 3}, "num_kv_heads must divide num_heads"),
    (LLAMA, {"rms_norm_eps": "1e-5"}, "rms_norm_eps must be a float"),
    (LLAMA, {"tie_word_embeddings": 1}, "tie_word_embeddings must be a bool"),
    (LLAMA, {"sliding_window": 9}, "sliding_window of llama must be one of"),
    (MISTRAL, {"attention_bias": True}, "attention_bias of mistral must be one of"),
    (QWEN2, {"attention_bias": False}, "attention_bias of qwen2 must be one of"),
    (QWEN2, {"layer_types": ["full_attention"]}, "layer_types must name"),
    (
        QWEN2,
        {"layer_types": ["full_attention", "sliding_attention"]},
        "there is no sliding_window",
    ),
    (MISTRAL, {"sliding_window": "9"}, "sliding_window must be None or a whole"),
    (LLAMA, {"rope_scaling": [4.0]}, "rope_scaling must be an object"),
    (LLAMA, {"rope_scaling": {"type": "dynamic", "factor": 2}}, "rope_type must be"),
    (LLAMA, {"rope_scaling": {"type": "linear"}}, r"missing: \['factor'\]"),
    (
        LLAMA,
        {"rope_scaling": {"type": "linear", "factor": 2.0, "slow": 1}},
        r"not understood: \['slow'\]",
    ),
    (
        LLAMA,
        {"rope_scaling": {"type": "linear", "rope_type": "yarn", "factor": 2.0}},
        "rope_type must be one of",
    ),
    (
        LLAMA,
        {"rope_scaling": {"type": "linear", "factor": "2"}},
        "factor of LinearScaling must be > 0",
    ),
    (
        LLAMA,
        {"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e6}},
        "rope_theta has two values",
    ),
    (
        LLAMA,
        {
            "rope_scaling": {"type": "linear", "factor": 2.0},
            "rope_parameters": {"type": "linear", "factor": 4.0},
        },
        "rope_scaling and rope_parameters differ",
    ),
    (
        LLAMA,
        {"rope_scaling": {**DEEPSEEK, "attention_factor": 1.0}},
        "attn_factor must not come with attention_factor",
    ),
    (LLAMA, {"rope_scaling": {**DEEPSEEK, "attn_factor": "1"}}, "can't multiply"),
    (LLAMA, {"rope_theta": "big"}, "could not convert"),
    (LLAMA, {"eos_token_id": "</s>"}, "eos_token_id must hold token ids"),
]


@pytest.mark.parametrize(("family", "change", "message"), BAD)
def test_bad_values_name_file_and_field(family: Any, change: Any, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        read({**family, **change})
    assert "a/config.json: " in str(caught.value)


def test_the_text_part_of_a_model_that_sees() -> None:
    seeing = CASES["mistral_small_3_1"]
    found = read_hf_config(seeing, FILE)
    assert (found.family, found.text_part) == ("mistral", True)
    assert found.model.rope_theta == 1e9
    with pytest.raises(WeightsError, match="text_scale is not understood"):
        read({**seeing, "text_scale": 2})
    with pytest.raises(WeightsError, match="text_config must be of model_type"):
        read({**seeing, "text_config": {**LLAMA}})


def test_special_tokens_may_be_one_several_or_none() -> None:
    found = read_hf_config({**LLAMA, "eos_token_id": [5, 7], "pad_token_id": -1}, FILE)
    assert found.special == SpecialTokenIds(
        bos_token_id=1, eos_token_ids=(5, 7), pad_token_id=None
    )


def test_settings_that_no_family_has_are_refused() -> None:
    from dataclasses import replace

    odd = replace(TINY, qk_norm=True, attention_bias=True)
    with pytest.raises(ValueError, match="must be ones that some family"):
        hf_fields(odd, SpecialTokenIds())
    with pytest.raises(ValueError, match="must be ones that mistral"):
        hf_fields(replace(TINY, qk_norm=True), SpecialTokenIds(), family="mistral")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "must hold an object, got list"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": 1, "a": 2}', "names a key twice"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"a": ' + "9" * 5000 + "}", "cannot be read as JSON"),
        ("\ud800", "cannot be read as JSON"),
    ],
)
def test_hostile_json(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    with pytest.raises(WeightsError, match=message):
        read_json(path)
