"""Operations of the library's own steps, against the formulas of a transformer."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxrl_reason.aot.call_work import call_work, model_and_executed
from jaxrl_reason.aot.flops import Flops, count_flops
from jaxrl_reason.aot.run_steps import RunSteps, run_steps
from jaxrl_reason.sharding import make_mesh
from tests.aot.aot_helpers import HEADS, LAYERS, MLP, VOCAB, WIDTH, tiny_run

# Of one layer: query and output, key and value, the three of the feed-forward block.
LAYER = WIDTH * (2 * HEADS * 16 + 2 * 2 * 16 + 3 * MLP)
HEAD = VOCAB * WIDTH
ROWS, COLUMNS, MICRO_BATCHES = 4, 64, 2


def steps_of(folder: Path, **changes: str) -> RunSteps:
    mesh = make_mesh()
    return run_steps(tiny_run(folder, ""), mesh, attention="plain", **changes)


def count(steps: RunSteps, step: str, folder: Path) -> Flops:
    function, arguments = steps.calls[step]
    work = call_work(step, tiny_run(folder, ""))
    return count_flops(function.trace(*arguments).jaxpr, work.loops)


def test_a_forward_pass_is_two_operations_a_parameter_and_token(tmp_path: Path) -> None:
    found = count(steps_of(tmp_path), "score", tmp_path)
    tokens = MICRO_BATCHES * ROWS * COLUMNS
    assert found.dense == 2 * tokens * (LAYERS * LAYER + HEAD)
    assert found.pairs == 2 * 2 * LAYERS * HEADS * 16 * COLUMNS * tokens


def test_remat_executes_the_layers_once_more(tmp_path: Path) -> None:
    tokens = MICRO_BATCHES * ROWS * COLUMNS
    full = count(steps_of(tmp_path), "update", tmp_path)
    none = count(steps_of(tmp_path, remat="none"), "update", tmp_path)
    # All but the last product of a layer, whose result no gradient reads.
    again = LAYER - WIDTH * MLP
    assert full.dense - none.dense == 2 * tokens * LAYERS * again
    work = call_work("update", tiny_run(tmp_path, ""))
    model, executed = model_and_executed(
        "update", steps_of(tmp_path), steps_of(tmp_path, remat="none"), work
    )
    forward = count(steps_of(tmp_path, remat="none"), "score", tmp_path)
    assert model == pytest.approx(3 * forward.causal(COLUMNS))
    assert executed > model


def test_decoding_counts_every_stage(tmp_path: Path) -> None:
    # 32 responses of 16 tokens; the first comes with the prompts.
    found = count(steps_of(tmp_path), "sample", tmp_path)
    prompts = 2 * 8 * 16 * LAYERS * LAYER + 2 * 32 * HEAD
    decoded = 2 * 32 * 15 * (LAYERS * LAYER + HEAD)
    assert found.dense == prompts + decoded


@pytest.mark.fast
def test_control_flow() -> None:
    x, w = jnp.ones((2, 4)), jnp.ones((3, 4, 4))
    one = 2 * 2 * 4 * 4

    def dense(f: object, loops: float = 7) -> float:
        traced = jax.jit(f).trace(x)  # type: ignore[arg-type]
        return count_flops(traced.jaxpr, lambda number, first: loops - first).dense

    scan = lambda x: jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0]  # noqa: E731
    assert dense(scan) == 3 * one
    assert dense(jax.checkpoint(scan)) == 3 * one

    def loop(x: jax.Array, first: int) -> jax.Array:
        end = jnp.sum(x).astype(jnp.int32)
        return jax.lax.fori_loop(first, end, lambda i, x: x @ w[0], x)

    assert dense(lambda x: loop(x, 0)) == 7 * one
    assert dense(lambda x: loop(x, 2)) == 5 * one
    either = lambda x: jax.lax.cond(x[0, 0] > 0, scan, lambda x: x @ w[0], x)  # noqa: E731
    assert dense(either) == 3 * one
    pairs = jax.jit(lambda x: jnp.einsum("bi,bj->bij", x, x)).trace(x)
    found = count_flops(pairs.jaxpr, lambda number, first: 1)
    assert (found.dense, found.pairs) == (0, 2 * 2 * 4 * 4)


@pytest.mark.fast
def test_a_causal_row_needs_half_of_the_pairs() -> None:
    assert Flops(dense=1, pairs=8).causal(3) == 1 + 8 * 4 / 6
    assert (Flops(1, 2) + Flops(3, 4)).times(2) == Flops(8, 12)
