from dataclasses import replace
from typing import Any

import pytest

from tests.models.reference import TINY


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("vocab_size", 0, "vocab_size must be a whole number >= 1, got 0"),
        ("width", -3, "width must be a whole number >= 1, got -3"),
        ("num_layers", 2.5, "num_layers must be a whole number >= 1, got 2.5"),
        ("mlp_width", True, "mlp_width must be a whole number >= 1, got True"),
        ("context_length", 0, "context_length must be a whole number >= 1, got 0"),
        ("num_kv_heads", 3, r"num_kv_heads must divide num_heads \(4\), got 3"),
        ("head_dim", 7, "head_dim must be even, got 7"),
        ("rope_base", 0.0, "rope_base must be > 0 and finite, got 0.0"),
        ("norm_eps", float("nan"), "norm_eps must be > 0 and finite, got nan"),
        ("dtype", "float16", "dtype must be one of .*, got 'float16'"),
        ("param_dtype", "int8", "param_dtype must be one of .*, got 'int8'"),
        ("remat", "some", "remat must be one of .*, got 'some'"),
    ],
)
def test_bad_values_name_field_rule_and_value(
    field: str, value: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **{field: value})
