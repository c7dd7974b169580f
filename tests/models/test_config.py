from dataclasses import replace
from typing import Any

import pytest

from jaxrl_reason.models import LinearScaling, Llama3Scaling, YarnScaling
from jaxrl_reason.models.attention import NO_WINDOW, layer_windows
from tests.models.numpy_transformer import TINY

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("vocab_size", 0, "vocab_size must be a whole number >= 1, got 0"),
        ("hidden_size", -3, "hidden_size must be a whole number >= 1, got -3"),
        ("num_layers", 2.5, "num_layers must be a whole number >= 1, got 2.5"),
        ("mlp_dim", True, "mlp_dim must be a whole number >= 1, got True"),
        ("context_length", 0, "context_length must be a whole number >= 1, got 0"),
        ("num_kv_heads", 3, r"num_kv_heads must divide num_heads \(4\), got 3"),
        ("head_dim", 7, "head_dim must be even, got 7"),
        ("rope_theta", 0.0, "rope_theta must be > 0 and finite, got 0.0"),
        ("norm_eps", float("nan"), "norm_eps must be > 0 and finite, got nan"),
        ("dtype", "float16", "dtype must be one of .*, got 'float16'"),
        ("param_dtype", "int8", "param_dtype must be one of .*, got 'int8'"),
        ("sliding_window", 0, "sliding_window must be None or a whole .*, got 0"),
        ("sliding_window", 2.0, "sliding_window must be None or a whole .*, got 2.0"),
        ("full_attention_layers", (0,), "is for models with a sliding_window"),
        ("attention", "fast", "attention must be one of .*, got 'fast'"),
        ("remat", "some", "remat must be one of .*, got 'some'"),
    ],
)
def test_bad_values_name_field_rule_and_value(
    field: str, value: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **{field: value})


@pytest.mark.parametrize("layers", [(2,), (-1,), (1, 0), (0, 0)])
def test_layers_without_a_window_are_ascending_layers(layers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be ascending layers below num_layers"):
        replace(TINY, sliding_window=4, full_attention_layers=layers)


def test_which_layers_have_a_window() -> None:
    config = replace(TINY, sliding_window=4, full_attention_layers=(1,))
    assert layer_windows(config) == ([4, NO_WINDOW], [0, 1])
    assert layer_windows(TINY) == ([NO_WINDOW], [0, 0])


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (LinearScaling, (0.0,), "factor of LinearScaling must be > 0 .*, got 0.0"),
        (LinearScaling, ("2",), "factor of LinearScaling must be > 0 .*, got '2'"),
        (
            Llama3Scaling,
            (8.0, 4.0, 4.0, 64),
            r"low_freq_factor must be below high_freq_factor",
        ),
        (
            Llama3Scaling,
            (8.0, 1.0, 4.0, -1),
            "original_max_position_embeddings of Llama3Scaling must",
        ),
        (YarnScaling, (float("nan"), 64), "factor of YarnScaling must be .*, got nan"),
        (YarnScaling, (4.0, 64, 32.0, 1.0, -1.0), "attention_factor of YarnScaling"),
    ],
)
def test_bad_scalings(kind: Any, values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(*values)
