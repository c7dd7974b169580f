"""The rotary fields of config.json, in the old and the new form."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from jaxrl_reason.models import (
    LinearScaling,
    Llama3Scaling,
    RopeScaling,
    TransformerConfig,
    YarnScaling,
)
from jaxrl_reason.weights.errors import WeightsError

DEFAULT_BASE = 10000.0
# rope_type -> the scaling, whose fields have the names of config.json.
SCALINGS: dict[str, type[RopeScaling]] = {
    "linear": LinearScaling,
    "llama3": Llama3Scaling,
    "yarn": YarnScaling,
}
KINDS = ("default", *SCALINGS)
# The context is its default.
ORIGINAL = "original_max_position_embeddings"
# DeepSeek's two coefficients of the logarithm, from which attention_factor follows.
MSCALES = ("mscale", "mscale_all_dim")
# A further factor on the default of attention_factor, in DeepSeek-R1-0528-Qwen3-8B.
# Read as in vLLM, whose product is 1 there; transformers ignores it.
FURTHER = "attn_factor"


def read_rope(
    config: Mapping[str, Any], context: int, file: Path
) -> tuple[float, RopeScaling | None]:
    """The base of the frequencies and their scaling.

    Args:
      config: fields of config.json; rope_theta and rope_scaling, or rope_parameters,
        which has both.
      context: max_position_embeddings.
      file: for messages.

    Raises:
      WeightsError: a field is unknown, missing or contradicts another.
    """
    old, new = config.get("rope_scaling"), config.get("rope_parameters")
    if old is not None and new is not None and old != new:
        raise WeightsError(f"{file}: rope_scaling and rope_parameters differ")
    given = old if old is not None else new if new is not None else {}
    if not isinstance(given, dict):
        raise WeightsError(f"{file}: rope_scaling must be an object, got {given!r:.80}")
    given = {name: value for name, value in given.items() if value is not None}
    bases = {
        float(where["rope_theta"])
        for where in (config, given)
        if where.get("rope_theta") is not None
    }
    if len(bases) > 1:
        raise WeightsError(f"{file}: rope_theta has two values, {sorted(bases)}")
    base = bases.pop() if bases else DEFAULT_BASE
    if not base > 1:
        raise WeightsError(f"{file}: rope_theta must be > 1, got {base}")
    kinds = {given.pop(name) for name in ("type", "rope_type") if name in given}
    kind = kinds.pop() if kinds else "default"
    if kinds or kind not in KINDS:
        raise WeightsError(
            f"{file}: rope_type must be one of {list(KINDS)}, got "
            f"{[kind, *kinds]!r:.80}"
        )
    given = {k: v for k, v in given.items() if k != "rope_theta"}
    if given.get("partial_rotary_factor", 1.0) == 1.0:
        given.pop("partial_rotary_factor", None)
    return base, _scaling(kind, given, context, file)


def _scaling(
    kind: str, given: dict[str, Any], context: int, file: Path
) -> RopeScaling | None:
    scaling = SCALINGS.get(kind)
    defaults = {} if scaling is None else {f.name: f.default for f in fields(scaling)}
    optional = {ORIGINAL, *(name for name in defaults if defaults[name] is not MISSING)}
    known = [*defaults, *((*MSCALES, FURTHER) if scaling is YarnScaling else ())]
    unknown = sorted(given.keys() - set(known))
    missing = sorted(defaults.keys() - given.keys() - optional)
    if unknown or missing:
        raise WeightsError(
            f"{file}: rope_scaling of type {kind!r} must have {known}; "
            f"not understood: {unknown}, missing: {missing}"
        )
    if scaling is None:
        return None
    if ORIGINAL in defaults:
        given = {**given, ORIGINAL: given.get(ORIGINAL) or context}
    if scaling is YarnScaling:
        given = _yarn(given, file)
    return scaling(**given)


def _yarn(given: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Fields of YarnScaling, with attention_factor as given or from other fields."""
    others = {name: given.get(name) for name in (*MSCALES, FURTHER)}
    found = {name: value for name, value in given.items() if name not in others}
    if not isinstance(found.get("truncate", True), bool):
        raise WeightsError(
            f"{file}: truncate must be a bool, got {found['truncate']!r:.80}"
        )
    top, bottom, further = others.values()
    if further is not None and ("attention_factor" in found or (top and bottom)):
        raise WeightsError(
            f"{file}: {FURTHER} must not come with attention_factor or mscales, got "
            f"{further!r:.80}"
        )
    # 0.1 c ln(factor) + 1; the default of YarnScaling is that of c = 1.
    plain = YarnScaling(given["factor"], 1).attention_factor or 1.0
    if further is not None:
        found["attention_factor"] = plain * further
    elif top and bottom and "attention_factor" not in found:
        found["attention_factor"] = (top * (plain - 1) + 1) / (bottom * (plain - 1) + 1)
    return found


def rope_fields(model: TransformerConfig) -> dict[str, Any]:
    """The fields in the old form, which old and new versions of transformers read."""
    scaling = model.rope_scaling
    kinds = {scaling_type: kind for kind, scaling_type in SCALINGS.items()}
    found = scaling and {"rope_type": kinds[type(scaling)], **asdict(scaling)}
    return {"rope_theta": model.rope_theta, "rope_scaling": found}
