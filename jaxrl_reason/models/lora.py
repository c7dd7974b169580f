"""Low-rank factors for the matrices of a frozen transformer (LoRA).

A matrix w [in, out] acts as w + s a b with a [in, r] and b [r, out]; only a and b are
trained. `with_lora` adds the factors to the tree next to their matrices, and layers
that find them there add s (x a) b to x w. The rest of the model does not know them.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_reason.models.layers import FACTORS
from jaxrl_reason.models.params import Params, abstract_params, param_axes
from jaxrl_reason.models.transformer import Transformer

# Each matrix, its part of the block, and how many of its axes (after the layers) are
# input axes.
_MATRICES = {
    "query": ("attention", 1),
    "key": ("attention", 1),
    "value": ("attention", 1),
    "output": ("attention", 2),
    "gate": ("mlp", 1),
    "up": ("mlp", 1),
    "down": ("mlp", 1),
}
LORA_TARGETS = tuple(_MATRICES)


@dataclass(frozen=True)
class LoraSettings:
    """Which matrices get factors, their rank and their scale.

    Source: arXiv 2106.09685, section 4.1; rank stabilised: arXiv 2312.03732.

    Attributes:
      rank: r, the inner size of a b.
      alpha: the product is scaled by alpha / r.
      targets: names among LORA_TARGETS.
      rank_stabilized: scale by alpha / sqrt(r) instead.

    Raises:
      ValueError: a value breaks a rule; the message names field, rule and value.

    >>> LoraSettings(rank=4, alpha=8.0).scale
    2.0
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = LORA_TARGETS
    rank_stabilized: bool = False

    def __post_init__(self) -> None:
        whole = isinstance(self.rank, int) and not isinstance(self.rank, bool)
        if not whole or self.rank < 1:
            raise ValueError(f"rank must be a whole number >= 1, got {self.rank!r}")
        if not 0 < self.alpha < float("inf"):
            raise ValueError(f"alpha must be > 0 and finite, got {self.alpha}")
        named = isinstance(self.targets, tuple) and set(self.targets) <= set(_MATRICES)
        if not named or not self.targets or len(set(self.targets)) < len(self.targets):
            raise ValueError(
                f"targets must be a tuple of different names among {LORA_TARGETS}, "
                f"got {self.targets!r}"
            )

    @property
    def scale(self) -> float:
        """s, the scale of the product a b."""
        root = math.sqrt(self.rank) if self.rank_stabilized else self.rank
        return self.alpha / root


def abstract_lora(model: Transformer, settings: LoraSettings) -> Params:
    """The factors' tree with a jax.ShapeDtypeStruct per array; computes nothing.

    They are float32 for all types of matrices, so that small steps add up.

    Raises:
      ValueError: the rank is larger than a side of one of the matrices.
    """
    factors: Params = {}
    layers = abstract_params(model)["layers"]
    for target in settings.targets:
        part, inputs = _MATRICES[target]
        shape = layers[part][target].shape
        sides = math.prod(shape[1 : 1 + inputs]), math.prod(shape[1 + inputs :])
        if settings.rank > min(sides):
            raise ValueError(
                f"rank must be at most the smaller side of {target} ({min(sides)}), "
                f"got {settings.rank}"
            )
        shapes = _split(shape, inputs, settings.rank)
        for suffix, found in zip(FACTORS, shapes, strict=True):
            array = jax.ShapeDtypeStruct(found, jnp.float32)
            factors.setdefault(part, {})[target + suffix] = array
    return factors


def lora_axes(model: Transformer, settings: LoraSettings) -> Params:
    """The same tree with a tuple of logical axis names (or None) for every array.

    They are those of the matrix, and None for the rank.
    """
    factors: Params = {}
    layers = param_axes(model)["layers"]
    for target in settings.targets:
        part, inputs = _MATRICES[target]
        axes = _split(layers[part][target], inputs, None)
        for suffix, found in zip(FACTORS, axes, strict=True):
            factors.setdefault(part, {})[target + suffix] = found
    return factors


def init_lora(model: Transformer, settings: LoraSettings, key: jax.Array) -> Params:
    """Initial factors: a normal with variance 1 / in, b zero, so that a b is zero.

    Can be traced, as `init_params` can.

    Args:
      model: the transformer.
      settings: which factors.
      key: a JAX key, consumed.

    Returns:
      {"attention": {"query_lora_a": [L, D, r], "query_lora_b": [L, r, N, H], ...},
      "mlp": ...}, float32; layers are stacked as in the model.

    Raises:
      ValueError: as `abstract_lora`.

    >>> from jaxrl_reason.models import Transformer, TransformerConfig
    >>> config = TransformerConfig(
    ...     vocab_size=8, hidden_size=4, num_layers=3, num_heads=2, num_kv_heads=1,
    ...     head_dim=2, mlp_dim=8, context_length=16)
    >>> settings = LoraSettings(rank=2, targets=("query",))
    >>> factors = init_lora(Transformer(config), settings, jax.random.key(0))
    >>> jax.tree.map(lambda x: x.shape, factors)
    {'attention': {'query_lora_a': (3, 4, 2), 'query_lora_b': (3, 2, 2, 2)}}
    """
    factors = abstract_lora(model, settings)
    for target in settings.targets:
        key, own = jax.random.split(key)
        found = factors[_MATRICES[target][0]]
        a, b = (target + suffix for suffix in FACTORS)
        width = math.prod(found[a].shape[1:-1])
        found[a] = jax.random.normal(own, found[a].shape) * width**-0.5
        found[b] = jnp.zeros(found[b].shape)
    return factors


def with_lora(base: Params, factors: Params, settings: LoraSettings) -> Params:
    """Parameters for the model: the base's, with a and s b next to its matrices.

    No array of the base is copied or read. Differentiable in the factors.

    Args:
      base: parameters of a transformer.
      factors: of `init_lora`, trained or not.
      settings: those of the factors.
    """
    layers = dict(base["layers"])
    last = {target + FACTORS[1] for target in settings.targets}
    for part, found in factors.items():
        beside = {k: x * settings.scale if k in last else x for k, x in found.items()}
        layers[part] = {**layers[part], **beside}
    return {**base, "layers": layers}


def merge_lora(base: Params, factors: Params, settings: LoraSettings) -> Params:
    """A plain tree with w + s a b for w, for export or for sampling at the base's cost.

    The sum is computed in float32 and stored in the type of w; in bfloat16 a product
    that is smaller than half a unit in the last place of w is lost.

    Args:
      base: parameters of a transformer.
      factors: of `init_lora`, trained or not.
      settings: those of the factors.

    Returns:
      Parameters of the same shapes and types as the base. Arrays without factors are
      the base's own.
    """
    layers = dict(base["layers"])
    for target in settings.targets:
        part, _ = _MATRICES[target]
        a, b = (factors[part][target + suffix] for suffix in FACTORS)
        matrix = layers[part][target]
        # [L, in, r] and [L, r, out]
        flat = a.reshape(a.shape[0], -1, a.shape[-1]), b.reshape(*b.shape[:2], -1)
        # [L, in, r] @ [L, r, out]
        product = (settings.scale * (flat[0] @ flat[1])).reshape(matrix.shape)
        merged = (matrix.astype(jnp.float32) + product).astype(matrix.dtype)
        layers[part] = {**layers[part], target: merged}
    return {**base, "layers": layers}


def _split(of: Any, inputs: int, rank: Any) -> tuple[Any, Any]:
    """Shape or axes [L, in.., out..] of a matrix -> of a [L, in.., r], b [L, r, out..].

    >>> _split((3, 4, 2, 8), 1, 16)
    ((3, 4, 16), (3, 16, 2, 8))
    """
    layers, outputs = of[0], of[1 + inputs :]
    return (*of[: 1 + inputs], rank), (layers, rank, *outputs)
