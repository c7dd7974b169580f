"""Reads and writes config.json: a model's settings and special tokens."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from jaxrl_reason.models import TransformerConfig
from jaxrl_reason.weights.errors import WeightsError
from jaxrl_reason.weights.families import (
    COPIED,
    FAMILIES,
    FIXED,
    MULTIMODAL,
    NO_EFFECT,
    OUTER_NO_EFFECT,
    READ,
    READ_BY_SOME,
    Family,
)
from jaxrl_reason.weights.rope_fields import read_rope, rope_fields
from jaxrl_reason.weights.special_token_ids import SpecialTokenIds
from jaxrl_reason.weights.untrusted import check_size

WINDOWED, FULL = "sliding_attention", "full_attention"


@dataclass(frozen=True)
class HFConfig:
    """The contents of a config.json.

    Attributes:
      model: the settings, in float32; use `dataclasses.replace` for others.
      family: model_type, "llama", "mistral", "qwen2" or "qwen3".
      special: its special token ids.
      text_part: whether the file is of a vision-language model; `model` is then its
        text part, and the tensors tell whether the head is tied.
    """

    model: TransformerConfig
    family: str
    special: SpecialTokenIds
    text_part: bool = False


def read_hf_config(found: Mapping[str, Any], file: Path) -> HFConfig:
    """Reads every field of a config.json.

    Args:
      found: the fields.
      file: their file, for messages.

    Raises:
      WeightsError: a field is unknown, missing, or has an unsupported value.
    """
    try:
        return _read(found, file)
    except WeightsError:
        raise
    except (ValueError, TypeError) as error:
        # An error of TransformerConfig or of a rope scaling, which names its field.
        raise WeightsError(f"{file}: {error}") from error


def _read(found: Mapping[str, Any], file: Path) -> HFConfig:
    model_type = found.get("model_type")
    if model_type in MULTIMODAL:
        return _read_text_part(found, file)
    if model_type not in FAMILIES:
        known = (*FAMILIES, *MULTIMODAL)
        raise WeightsError(
            f"{file}: model_type must be one of {known}, got {model_type!r}"
        )
    family = FAMILIES[model_type]
    _check_architecture(found, family.architecture, file)
    # null means "not set", as if the field were missing; only for sliding_window it has
    # a meaning, that there is none.
    given = {k: v for k, v in found.items() if v is not None or k == "sliding_window"}
    _check_fields(given, family, file)
    fields = {**family.defaults, **given}
    if family.derives_kv_heads:
        fields.setdefault("num_key_value_heads", fields.get("num_attention_heads"))
    if family.derives_head_dim:
        fields.setdefault("head_dim", _derived_head_dim(fields, file))
    missing = sorted(COPIED.keys() - fields.keys())
    if missing:
        raise WeightsError(f"{file}: these fields are missing: {', '.join(missing)}")
    _check_values(fields, file)
    rope_theta, scaling = read_rope(found, fields["max_position_embeddings"], file)
    window, full = _window(fields, file)
    model = TransformerConfig(
        **{ours: fields[theirs] for theirs, ours in COPIED.items()},
        rope_theta=rope_theta,
        rope_scaling=scaling,
        qk_norm=family.qk_norm,
        attention_bias=fields["attention_bias"],
        attention_output_bias=fields["attention_bias"] and family.biased_output,
        sliding_window=window,
        full_attention_layers=full,
    )
    return HFConfig(model, family.model_type, read_special(fields, file))


def _read_text_part(found: Mapping[str, Any], file: Path) -> HFConfig:
    architecture, family = MULTIMODAL[found["model_type"]]
    _check_architecture(found, architecture, file)
    text = found.get("text_config")
    if not isinstance(text, dict) or text.get("model_type") != family.model_type:
        raise WeightsError(
            f"{file}: text_config must be of model_type {family.model_type!r}"
        )
    known = {"model_type", "architectures", "text_config"} | OUTER_NO_EFFECT
    for name, value in found.items():
        if name not in known and not (value is None or value in FIXED.get(name, ())):
            raise WeightsError(f"{file}: {name} is not understood, got {value!r:.80}")
    inner = _read({"architectures": None, **text}, file)
    return replace(inner, text_part=True)


def _check_architecture(
    found: Mapping[str, Any], architecture: str, file: Path
) -> None:
    wanted, got = [architecture], found.get("architectures")
    if got is not None and got != wanted:
        raise WeightsError(f"{file}: architectures must be {wanted}, got {got!r:.80}")


def _check_fields(given: Mapping[str, Any], family: Family, file: Path) -> None:
    """Checks that every field is read, has the supported value, or has no effect."""
    for name, value in given.items():
        if name in {*COPIED, *READ, *family.reads} or name in NO_EFFECT:
            continue
        if name in READ_BY_SOME:  # Not read by this family: it must have no effect.
            allowed: tuple[Any, ...] = (family.defaults.get(name), None)
        elif name in FIXED:
            allowed = FIXED[name]
        else:
            raise WeightsError(
                f"{file}: {name} is a field that is not understood, so it must "
                f"not be ignored; got {value!r:.80}"
            )
        if value not in allowed:
            raise WeightsError(
                f"{file}: {name} of {family.model_type} must be one of "
                f"{list(allowed)} (or not set), got {value!r:.80}"
            )


def _derived_head_dim(fields: Mapping[str, Any], file: Path) -> int:
    width, heads = (
        fields.get(name, 0) for name in ("hidden_size", "num_attention_heads")
    )
    whole = isinstance(width, int) and isinstance(heads, int)
    if not whole or heads < 1 or width % heads:
        raise WeightsError(
            f"{file}: head_dim is missing, so num_attention_heads must divide "
            f"hidden_size, got {heads!r:.40} and {width!r:.40}"
        )
    return width // heads


def _check_values(fields: Mapping[str, Any], file: Path) -> None:
    """Checks types, since JSON may have any; TransformerConfig checks ranges."""
    for name in ("tie_word_embeddings", "attention_bias", "use_sliding_window"):
        if not isinstance(fields[name], bool):
            raise WeightsError(f"{file}: {name} must be a bool, got {fields[name]!r}")
    for name in COPIED:  # In order: a head size may be derived from earlier fields.
        if name not in ("tie_word_embeddings", "rms_norm_eps"):
            check_size(name, fields[name], file)
    eps = fields["rms_norm_eps"]
    if not isinstance(eps, float) or not math.isfinite(eps):
        raise WeightsError(f"{file}: rms_norm_eps must be a float, got {eps!r}")


def _window(
    fields: Mapping[str, Any], file: Path
) -> tuple[int | None, tuple[int, ...]]:
    """The sliding window, and the layers without it."""
    window = fields["sliding_window"] if fields["use_sliding_window"] else None
    layers, first = fields["num_hidden_layers"], fields["max_window_layers"]
    if isinstance(first, bool) or not isinstance(first, int):
        raise WeightsError(
            f"{file}: max_window_layers must be a whole number, got {first!r}"
        )
    kinds = fields.get("layer_types")
    if kinds is None:
        windowed = window is not None
        kinds = [WINDOWED if windowed and i >= first else FULL for i in range(layers)]
    if (
        not isinstance(kinds, list)
        or len(kinds) != layers
        or not all(kind in (WINDOWED, FULL) for kind in kinds)
    ):
        raise WeightsError(
            f"{file}: layer_types must name {WINDOWED!r} or {FULL!r} for each of "
            f"{layers} layers, got {kinds!r:.80}"
        )
    if WINDOWED not in kinds:
        return None, ()
    if window is None:
        raise WeightsError(
            f"{file}: layer_types names {WINDOWED!r}, but there is no sliding_window"
        )
    return window, tuple(i for i, kind in enumerate(kinds) if kind == FULL)


def read_special(fields: Mapping[str, Any], file: Path) -> SpecialTokenIds:
    """The special tokens of a config.json or generation_config.json."""

    def ids(name: str) -> tuple[int, ...]:
        value = fields.get(name)
        found = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(x, int) and not isinstance(x, bool) for x in found):
            raise WeightsError(f"{file}: {name} must hold token ids, got {value!r:.80}")
        return tuple(x for x in found if x >= 0)  # -1 means none.

    bos, pad = (ids(name)[:1] for name in ("bos_token_id", "pad_token_id"))
    eos = ids("eos_token_id")
    return SpecialTokenIds(bos[0] if bos else None, eos, pad[0] if pad else None)


def hf_fields(
    model: TransformerConfig,
    special: SpecialTokenIds,
    *,
    family: str | None = None,
    dtype: str = "float32",
) -> dict[str, Any]:
    """The config.json of a model: the inverse of `read_hf_config`.

    Args:
      model: the settings.
      special: token ids to name.
      family: model_type; None for the first family that has all settings.
      dtype: type of the tensors, "float32" or "bfloat16".

    Returns:
      The fields.

    Raises:
      ValueError: no family, or not the given one, has these settings.

    >>> model = TransformerConfig(
    ...     vocab_size=8, hidden_size=4, num_layers=2, num_heads=2, num_kv_heads=1,
    ...     head_dim=2, mlp_dim=8, context_length=16, qk_norm=True)
    >>> hf_fields(model, SpecialTokenIds())["model_type"]
    'qwen3'
    """
    here = Path("config.json")
    wanted = _said(model)
    candidates = FAMILIES if family is None else [family]
    for candidate in (FAMILIES[name] for name in candidates if name in FAMILIES):
        found = _fields_of(model, special, candidate, dtype)
        try:
            # Check the writer with the reader: nothing may be lost.
            if _said(read_hf_config(found, here).model) == wanted:
                return found
        except WeightsError:
            continue
    raise ValueError(
        f"the settings must be ones that {family or 'some family'} of "
        f"{tuple(FAMILIES)} has, "
        f"got {model}"
    )


def _said(model: TransformerConfig) -> TransformerConfig:
    """The settings without the numerics of a run, which are not in a config.json."""
    told = {*COPIED.values(), "rope_theta", "rope_scaling", "qk_norm", "attention_bias"}
    told |= {"attention_output_bias", "sliding_window", "full_attention_layers"}
    return TransformerConfig(
        **{f.name: getattr(model, f.name) for f in fields(model) if f.name in told}
    )


def _fields_of(
    model: TransformerConfig, special: SpecialTokenIds, family: Family, dtype: str
) -> dict[str, Any]:
    eos: Any = list(special.eos_token_ids) or None
    if len(special.eos_token_ids) == 1:
        (eos,) = special.eos_token_ids
    found = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        **{theirs: getattr(model, ours) for theirs, ours in COPIED.items()},
        "hidden_act": "silu",
        **rope_fields(model),
        "bos_token_id": special.bos_token_id,
        "eos_token_id": eos,
        "pad_token_id": special.pad_token_id,
        "torch_dtype": dtype,
    }
    if "attention_bias" in family.reads:
        found["attention_bias"] = model.attention_bias
    if "sliding_window" in family.reads:
        found["sliding_window"] = model.sliding_window
    if "layer_types" in family.reads:
        found["use_sliding_window"] = model.sliding_window is not None
        # The leading layers without a window, for readers without layer_types.
        found["max_window_layers"] = len(model.full_attention_layers)
        windowed = WINDOWED if model.sliding_window is not None else FULL
        found["layer_types"] = [
            FULL if layer in model.full_attention_layers else windowed
            for layer in range(model.num_layers)
        ]
    return found
