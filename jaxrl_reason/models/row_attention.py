"""`attend`: whole rows by any of the ways to attend, on one device or on a mesh.

On a mesh every device attends for its own rows and heads. An axis `context` splits the
columns too: queries stay where they are, and keys and values are gathered from the
devices that share a row; the transpose scatters the sums of their gradients back.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrl_reason.models.attention import Columns, plain_attention
from jaxrl_reason.models.chunked_attention import chunked_attention
from jaxrl_reason.models.flash_attention import flash_attention, serves_heads
from jaxrl_reason.models.splash_attention import (
    LANES,
    pad_columns,
    serves,
    splash_kernel,
    splash_rows,
)
from jaxrl_reason.sharding import Constrain, Constrainer, parts_of

HEADS = ("batch", "columns", "heads", None)
KV_HEADS = ("batch", "columns", "kv_heads", None)
ROWS = ("batch", "columns")


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    queries: Columns,
    keys: Columns,
    windows: list[int],
    kind: jax.Array,
    softcap: float | None = None,
    *,
    way: str,
    constrain: Constrain,
) -> jax.Array:
    """Attention of whole rows.

    Args:
      q: [B, S, N, H].
      k: [B, T, K, H].
      v: [B, T, K, H].
      queries: what stands in the columns of q, each [B, S].
      keys: what stands in the columns of k, each [B, T]; those of q are the last.
      windows: how many positions a query looks back, its own among them, in each kind
        of layer.
      kind: [] which of the windows is this layer's.
      softcap: c, if scores x become c tanh(x / c).
      way: "plain", "chunked", "splash", "flash", or "auto": as `best_way` has it. Rows
        for which splash has no mask are chunked, and heads too large for flash.
      constrain: of the model.

    Returns:
      [B, S, N, H] in the type of v; finite but meaningless at padding.
    """
    platform = platform_of(constrain)
    if way == "auto":
        way = best_way(constrain)
    if way == "splash" and serves(keys, windows, softcap):
        return _by_kernel(
            (q, k, v, queries, keys), windows, kind, softcap, constrain, platform
        )
    # One window is known: what follows from it is the same in every layer of a scan.
    window = jnp.array(windows)[kind] if len(windows) > 1 else windows[0]
    if way == "flash" and not serves_heads(q):
        way = "chunked"
    of_rows = {"plain": plain_attention, "flash": flash_attention}
    run = partial(of_rows.get(way, chunked_attention), window=window, softcap=softcap)
    if way == "flash":
        run = partial(run, interpret=platform == "cpu")
    if not isinstance(constrain, Constrainer):
        return run(q, k, v, queries, keys)
    return _on_devices(run, constrain, (q, k, v, queries, keys))


def best_way(constrain: Constrain) -> str:
    """Splash on a TPU, flash on a GPU whose products Triton knows, else chunked."""
    platform = platform_of(constrain)
    if platform == "gpu":
        device: Any = _devices_of(constrain)[0]
        # 8.0 is the A100; AMD's cards name theirs otherwise.
        found = getattr(device, "compute_capability", "")
        recent = found.replace(".", "").isdigit() and float(found) >= 8
        return "flash" if recent else "chunked"
    return "splash" if platform == "tpu" else "chunked"


def platform_of(constrain: Constrain) -> str:
    """Of the devices of a model's mesh; without one, of JAX's own."""
    devices = _devices_of(constrain)
    # A mesh without devices is lowered for others than these.
    return devices[0].platform if devices else "tpu"


def _devices_of(constrain: Constrain) -> list[jax.Device]:
    if not isinstance(constrain, Constrainer):
        return jax.local_devices()
    mesh = constrain.mesh
    return list(mesh.devices.flat) if isinstance(mesh, Mesh) else []


def _by_kernel(
    rows: tuple[Any, ...],
    windows: list[int],
    kind: jax.Array,
    softcap: float | None,
    constrain: Constrain,
    platform: str,
) -> jax.Array:
    """Splash, whose kernel is made for one window: one of several if kinds differ."""
    parts, size = parts_of(constrain, "columns"), rows[0].shape[1]
    offset = rows[1].shape[1] - size
    rows = jax.tree.map(lambda x: pad_columns(x, LANES * parts), rows)
    sizes = (rows[0].shape[1], rows[1].shape[1])
    heads = rows[0].shape[2] // parts_of(constrain, "heads")

    def by(window: int) -> Callable[..., jax.Array]:
        def run(*rows: Any) -> jax.Array:
            kernel = splash_kernel(
                heads,
                sizes,
                offset,
                window,
                softcap,
                q_seq_shards=parts,
                interpret=platform != "tpu",
            )
            if not isinstance(constrain, Constrainer):
                return splash_rows(kernel, *rows)
            return _on_devices(splash_rows, constrain, rows, kernel)

        return run

    found = jax.lax.switch(kind, [by(window) for window in windows], *rows)
    return found[:, :size]


def _on_devices(
    run: Callable[..., jax.Array],
    constrain: Constrainer,
    rows: tuple[Any, ...],
    *kernel: Any,
) -> jax.Array:
    """Runs on each device what is its own: rows, heads and columns of queries."""

    def spec(axes: tuple[str | None, ...]) -> Callable[[jax.Array], PartitionSpec]:
        return lambda x: constrain.sharding(axes, x.shape).spec

    of_rows = [
        jax.tree.map(spec(axes), x)
        for axes, x in zip((HEADS, KV_HEADS, KV_HEADS, ROWS, ROWS), rows, strict=True)
    ]
    _, of_queries, _, _ = constrain.splits(HEADS, rows[0].shape)
    _, of_keys, _, _ = constrain.splits(KV_HEADS, rows[1].shape)

    def gather(x: jax.Array) -> jax.Array:
        return jax.lax.all_gather(x, of_keys, axis=1, tiled=True)

    def local(*given: Any) -> jax.Array:
        *kernel, q, k, v, queries, keys = given
        if of_keys:
            k, v, keys = jax.tree.map(gather, (k, v, keys))
        return run(*kernel, q, k, v, queries, keys)

    columns = NamedSharding(constrain.mesh, PartitionSpec(None, of_queries or None))
    of_kernel = [x.manual_sharding_spec(columns) for x in kernel]
    mapped = jax.shard_map(
        local,
        mesh=constrain.mesh,
        in_specs=(*of_kernel, *of_rows),
        out_specs=of_rows[0],
        check_vma=False,
    )
    return mapped(*kernel, *rows)
