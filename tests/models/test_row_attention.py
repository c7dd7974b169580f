"""Every way to attend gives what plain attention gives: values and gradients."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.models.attention import NO_WINDOW, Columns, scores_of
from jaxrl_reason.models.row_attention import attend, best_way, platform_of
from jaxrl_reason.models.splash_attention import branch_heads
from jaxrl_reason.sharding import ShardingRules, make_mesh, no_constraint
from tests.models.test_attention import columns_of, normal, packed

SIZE = 150  # more than a block of the kernel, and not whole blocks


def rows_of(*, branches: bool) -> Columns:
    rng = np.random.default_rng(0)
    rows = [packed(rng, SIZE, branches=branches) for _ in range(2)]
    columns = columns_of(*map(np.stack, zip(*rows, strict=True)))
    return columns if branches else columns._replace(branches=None)


def behind(columns: Columns, past: int) -> tuple[Columns, Columns]:
    """Rows of one segment that `past` columns precede: queries and keys."""
    ones = jnp.ones_like(columns.places)
    queries = Columns(columns.places, ones, columns.places + past)
    ages = jnp.broadcast_to(jnp.arange(past)[None], (len(ones), past))
    before = Columns(ages - past, 0 * ages + 1, ages)
    pairs = zip(before[:3], queries[:3], strict=True)
    return queries, Columns(*(jnp.concatenate(pair, axis=1) for pair in pairs))


@pytest.mark.parametrize(
    ("way", "branches", "windows", "softcap", "past"),
    [
        ("splash", False, [NO_WINDOW, 3], 2.0, 0),
        ("splash", True, [NO_WINDOW], None, 0),
        ("splash", False, [NO_WINDOW], None, 20),
        ("splash", True, [3], None, 0),  # for which there is no kernel
        ("chunked", True, [NO_WINDOW, 3], 2.0, 0),
        ("flash", True, [NO_WINDOW, 3], 2.0, 0),
        ("flash", False, [NO_WINDOW], None, 20),
    ],
)
def test_ways_agree(
    way: str, branches: bool, windows: list[int], softcap: float | None, past: int
) -> None:
    queries = keys = rows_of(branches=branches)
    if past:
        queries, keys = behind(queries, past)
    q = normal(0, 2, SIZE, 6, 8)
    k, v = normal(1, 2, SIZE + past, 2, 8), normal(2, 2, SIZE + past, 2, 8)
    real = (queries.segments > 0)[..., None, None]

    def value_and_gradients(way: str) -> Any:
        def total(q: jax.Array, k: jax.Array, v: jax.Array, kind: jax.Array) -> Any:
            x = attend(
                *(q, k, v, queries, keys, windows, kind, softcap),
                way=way,
                constrain=no_constraint,
            )
            return jnp.sum(jnp.sin(jnp.where(real, x, 0.0)))

        step = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))
        return [step(q, k, v, jnp.int32(kind)) for kind in range(len(windows))]

    pairs = zip(
        *map(jax.tree.leaves, map(value_and_gradients, (way, "plain"))), strict=True
    )
    for got, wanted in pairs:
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_branches_in_heads_are_exact() -> None:
    with jax.enable_x64(True):
        columns = rows_of(branches=True)
        q, k = (normal(i, 2, SIZE, 1, 8).astype(jnp.float64) for i in (0, 1))
        wide_q, wide_k = branch_heads(q, k, columns.branches, columns.branches)

        def weights(q: jax.Array, k: jax.Array, columns: Columns) -> jax.Array:
            window = jnp.int32(NO_WINDOW)
            q, k = (x.swapaxes(1, 2) for x in (q * q.shape[-1] ** 0.5, k))
            scores = scores_of(q, k, columns, columns, window)
            return jax.nn.softmax(scores.astype(jnp.float64), axis=-1)

        whole = columns._replace(branches=None)
        got = weights(wide_q, wide_k, whole)
        wanted = weights(q, k, columns)
        seen = (columns.segments > 0)[:, None, :, None]
        assert float(jnp.max(jnp.abs(jnp.where(seen, got - wanted, 0.0)))) == 0.0
        assert float(jnp.max(jnp.abs(weights(q, k, whole) - wanted))) > 0.1


def test_platform_is_that_of_the_mesh() -> None:
    assert platform_of(no_constraint) == "cpu"
    rules = ShardingRules()
    assert platform_of(rules.constrainer(make_mesh())) == "cpu"
    abstract = jax.sharding.AbstractMesh((1, 1, 1), ("data", "fsdp", "tensor"))
    assert platform_of(rules.constrainer(abstract)) == "tpu"


@pytest.mark.parametrize(
    ("platform", "capability", "way"),
    [
        ("cpu", None, "chunked"),
        ("tpu", None, "splash"),
        ("gpu", "8.0", "flash"),
        ("gpu", "10.0", "flash"),
        ("gpu", "7.5", "chunked"),
        ("gpu", "gfx942", "chunked"),
    ],
)
def test_auto_is_the_kernel_of_the_device(
    monkeypatch: pytest.MonkeyPatch, platform: str, capability: str | None, way: str
) -> None:
    device = SimpleNamespace(platform=platform, compute_capability=capability)
    name = "jaxrl_reason.models.row_attention._devices_of"
    monkeypatch.setattr(name, lambda _: [device])
    assert best_way(no_constraint) == way


def test_heads_too_large_for_flash_are_chunked() -> None:
    columns = columns_of(np.ones((1, 4)))
    x = normal(0, 1, 4, 1, 512)
    kind = jnp.int32(0)
    found, wanted = (
        attend(
            *(x, x, x, columns, columns, [NO_WINDOW], kind),
            way=way,
            constrain=no_constraint,
        )
        for way in ("flash", "chunked")
    )
    assert np.array_equal(found, wanted)
