"""The rotary fields of config.json, in the old form and the new one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxrl_reason.models import (
    LinearScaling,
    Llama3Scaling,
    RopeScaling,
    TransformerConfig,
    YarnScaling,
)
from jaxrl_reason.weights.config_fields import ROPE_KINDS
from jaxrl_reason.weights.errors import WeightsError

DEFAULT_BASE = 10000.0


def read_rope(
    fields: Mapping[str, Any], context: int, file: Path
) -> tuple[float, RopeScaling | None]:
    """The base of the frequencies and their scaling.

    Args:
      fields: of config.json; rope_theta and rope_scaling, or rope_parameters which
        holds both.
      context: max_position_embeddings.
      file: for messages.

    Raises:
      WeightsError: a field is unknown, missing or contradicts another.
    """
    old, new = fields.get("rope_scaling"), fields.get("rope_parameters")
    if old is not None and new is not None and old != new:
        raise WeightsError(f"{file}: rope_scaling and rope_parameters differ")
    given = old if old is not None else new if new is not None else {}
    if not isinstance(given, dict):
        raise WeightsError(f"{file}: rope_scaling must be an object, got {given!r:.80}")
    given = {name: value for name, value in given.items() if value is not None}
    bases = {
        float(where["rope_theta"])
        for where in (fields, given)
        if where.get("rope_theta") is not None
    }
    if len(bases) > 1:
        raise WeightsError(f"{file}: rope_theta has two values, {sorted(bases)}")
    base = bases.pop() if bases else DEFAULT_BASE
    if not base > 1:
        raise WeightsError(f"{file}: rope_theta must be > 1, got {base}")
    kinds = {given.pop(name) for name in ("type", "rope_type") if name in given}
    kind = kinds.pop() if kinds else "default"
    if kinds or kind not in ROPE_KINDS:
        raise WeightsError(
            f"{file}: rope_type must be one of {list(ROPE_KINDS)}, got "
            f"{[kind, *kinds]!r:.80}"
        )
    given = {k: v for k, v in given.items() if k != "rope_theta"}
    if given.get("partial_rotary_factor", 1.0) == 1.0:
        given.pop("partial_rotary_factor", None)
    return base, _scaling(kind, given, context, file)


def _scaling(
    kind: str, given: Mapping[str, Any], context: int, file: Path
) -> RopeScaling | None:
    known = ROPE_KINDS[kind]
    unknown = sorted(given.keys() - known.keys())
    missing = sorted(k for k, v in known.items() if v is ... and k not in given)
    if unknown or missing:
        raise WeightsError(
            f"{file}: rope_scaling of type {kind!r} must have {list(known)}; "
            f"not understood: {unknown}, missing: {missing}"
        )
    value = {**known, **given}
    original = value.get("original_max_position_embeddings") or context
    if kind == "linear":
        return LinearScaling(value["factor"])
    if kind == "llama3":
        low, high = value["low_freq_factor"], value["high_freq_factor"]
        return Llama3Scaling(value["factor"], low, high, original)
    if kind == "yarn":
        return YarnScaling(
            value["factor"],
            original,
            value["beta_fast"],
            value["beta_slow"],
            _attention_factor(value),
            _flag(value["truncate"], file),
        )
    return None


def _attention_factor(value: Mapping[str, Any]) -> float | None:
    """The factor as given, or as DeepSeek's two coefficients of the logarithm say."""
    top, bottom = value["mscale"], value["mscale_all_dim"]
    if value["attention_factor"] is not None or not (top and bottom):
        return value["attention_factor"]
    # 0.1 c ln(factor) + 1, for both; the default of YarnScaling is that of c = 1.
    plain = YarnScaling(value["factor"], 1).attention_factor or 1.0
    return (top * (plain - 1) + 1) / (bottom * (plain - 1) + 1)


def _flag(value: Any, file: Path) -> bool:
    if not isinstance(value, bool):
        raise WeightsError(f"{file}: truncate must be a bool, got {value!r:.80}")
    return value


def rope_fields(model: TransformerConfig) -> dict[str, Any]:
    """The old form, which old and new versions of transformers read."""
    scaling = model.rope_scaling
    found: dict[str, Any] | None = None
    original = getattr(scaling, "original_max_position_embeddings", None)
    if isinstance(scaling, LinearScaling):
        found = {"rope_type": "linear", "factor": scaling.factor}
    elif isinstance(scaling, Llama3Scaling):
        found = {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": original,
        }
    elif isinstance(scaling, YarnScaling):
        found = {
            "rope_type": "yarn",
            "factor": scaling.factor,
            "original_max_position_embeddings": original,
            "beta_fast": scaling.beta_fast,
            "beta_slow": scaling.beta_slow,
            "attention_factor": scaling.attention_factor,
            "truncate": scaling.truncate,
        }
    return {"rope_theta": model.rope_theta, "rope_scaling": found}
