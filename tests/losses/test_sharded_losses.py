"""Eight devices give what one gives, without gathering what must stay sharded."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.losses.battery import Batch, random_batch
from tests.losses.every_loss import LOSSES
from tests.losses.reference_objectives import sapo

SCRIPT = """
import json
from functools import partial
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from jaxrl_reason.losses import chunked_logprobs, grpo_advantages
from tests.losses.battery import counts_of, random_batch, value_and_grad
from tests.losses.every_loss import LOSSES

assert len(jax.devices()) == 8
report = {"losses": {}}

def difference(found, expected):
    # Relative to the largest entry; a loss has one, itself.
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return max(
        float(np.max(np.abs(np.asarray(x) - y)) / max(1e-12, np.max(np.abs(y))))
        for x, y in pairs
    )

mesh = Mesh(np.array(jax.devices()).reshape(8), ("data",))
rows = NamedSharding(mesh, P("data"))
batch = random_batch(0)
sharded = jax.tree.map(lambda x: jax.device_put(x, rows), batch)
count = jax.jit(counts_of)
for case in LOSSES:
    found = value_and_grad(case, sharded, count(sharded))
    assert not found[1].sharding.is_fully_replicated
    expected = value_and_grad(case, batch, counts_of(batch))
    both = zip(found, jax.tree.map(np.asarray, expected), strict=True)
    report["losses"][case.name] = [difference(x, y) for x, y in both]

estimate = jax.jit(partial(grpo_advantages, num_groups=3))
rewards, ids = np.arange(8.0) % 3, np.array([0, 1, 2, 0, 1, 2, 0, 0])
report["advantages"] = difference(
    estimate(jax.device_put(rewards, rows), jax.device_put(ids, rows)),
    np.asarray(estimate(rewards, ids)),
)

mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "tensor"))
rng = np.random.default_rng(0)
hidden = rng.normal(size=(8, 6, 4)).astype(np.float32)
unembed = rng.normal(size=(4, 10)).astype(np.float32)
tokens = rng.integers(0, 10, (8, 6))
pull = rng.normal(size=(2, 8, 6)).astype(np.float32)

@partial(jax.jit, static_argnums=3)
def chunked(hidden, unembed, tokens, chunk_size):
    def loss(hidden, unembed):
        found = chunked_logprobs(hidden, unembed, tokens, chunk_size=chunk_size)
        return (pull[0] * found[0] + pull[1] * found[1]).sum(), found
    return jax.value_and_grad(loss, (0, 1), has_aux=True)(hidden, unembed)

put = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, P(*spec)))
report["chunked"] = {}
for chunk in (4, 16, 1000):
    expected = jax.tree.map(np.asarray, chunked(hidden, unembed, tokens, chunk))
    for name, spec in {"replicated": (), "vocabulary": (None, "tensor")}.items():
        arrays = put(hidden, "data"), put(unembed, *spec), put(tokens, "data")
        text = chunked.lower(*arrays, chunk).compile().as_text()
        # The batch stays where it is: nothing is gathered or moved between devices.
        moved = [op for op in ("all-gather(", "all-to-all(") if op in text]
        found = difference(chunked(*arrays, chunk), expected)
        report["chunked"][f"{name} {chunk}"] = [found, moved]
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def report(eight_devices_run: Callable) -> Any:
    return eight_devices_run(SCRIPT)


def condition_of_sapo() -> float:
    """The sum of the terms' absolute values by the absolute value of their sum."""
    b = Batch(*(np.asarray(x, np.float64) for x in random_batch(0)))
    tokens = sapo(b.x, b.old, b.advantages, b.mask, 2.0, 3.0)
    return float(np.abs(tokens).sum() / np.abs(tokens.sum()))


def test_every_loss_and_gradient(report: Any) -> None:
    found = report["losses"]
    assert set(found) == {case.name for case in LOSSES}
    # At ratio 1 SAPO's token is worth -2 A / tau: here tokens of both signs cancel to
    # less than a fiftieth of what is added. No order of addition does better than the
    # rounding of the terms, so that this value alone is measured by their sizes.
    bounds = dict.fromkeys(found, 1e-6) | {"sapo": 1e-6 * condition_of_sapo()}
    assert bounds["sapo"] > 50e-6
    assert {n: d for n, (d, _) in found.items() if not d <= bounds[n]} == {}
    assert {n: d for n, (_, d) in found.items() if not d <= 1e-6} == {}


def test_group_statistics_span_the_devices(report: Any) -> None:
    assert report["advantages"] <= 1e-6


def test_chunked_logprobs(report: Any) -> None:
    found = report["chunked"]
    assert len(found) == 6
    assert {name: d for name, (d, _) in found.items() if not d <= 1e-5} == {}
    assert {name: ops for name, (_, ops) in found.items() if ops} == {}
