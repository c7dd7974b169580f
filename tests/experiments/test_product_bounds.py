"""The rows that a rollout's steps have, and what they would take."""

import numpy as np
import pytest

from experiments.benchmarks.product_bounds import ProductBounds, active_rows
from jaxrl_reason.models import TransformerConfig


@pytest.mark.parametrize(
    ("lengths", "slots", "rows"),
    [
        ([4, 2, 3], 2, [2, 2, 2]),
        ([4, 2, 3], 3, [3, 2, 1]),
        ([4, 2, 3], 1, [1] * 6),
        ([1, 1], 2, []),
    ],
)
def test_rows_of_each_step(lengths: list[int], slots: int, rows: list[int]) -> None:
    assert active_rows(lengths, slots).tolist() == rows


def test_each_step_takes_the_time_of_its_rows() -> None:
    bounds = ProductBounds(
        rows=(1, 2, 4),
        seconds=(1.0, 1.5, 2.0),
        prompt_seconds=0.1,
        best_flop_per_second=1e6,
    )
    lengths = np.array([[4, 2], [3, 1]])
    assert bounds.active(lengths, slots=4) == 1.75 + 1.5 + 1.0
    assert bounds.full(lengths, rows=4) == 10 * 2.0 / 4
    assert bounds.prompts(30) == pytest.approx(3.0)


def test_attention_sees_the_prompt_and_what_was_drawn() -> None:
    bounds = ProductBounds((1,), (1.0,), 0.1, best_flop_per_second=2.0)
    config = TransformerConfig(
        vocab_size=5,
        hidden_size=4,
        num_layers=3,
        num_heads=2,
        num_kv_heads=1,
        head_dim=2,
        mlp_dim=4,
        context_length=20,
    )
    prompts, lengths = np.array([5, 7]), np.array([[4, 1], [2, 3]])
    columns = (6 + 7 + 8) + 0 + 8 + (8 + 9)
    flop = 3 * 2 * 2 * columns * 2 * 2  # layers, heads, numbers, columns, two products
    assert bounds.attention(config, prompts, lengths) == flop / 2
