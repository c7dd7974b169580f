"""Every public function on every kind of mesh: the same value, the same gradient.

`jax.make_mesh` makes meshes with explicit axes, on which an operation that JAX cannot
place by itself is refused while tracing. Each function of `losses.__all__` is called on
arrays that are split by rows, and on arrays that are split by tokens, over eight
devices and over one, with explicit and with automatic axes, and inside `shard_map`.
"""

import re
from collections.abc import Callable
from typing import Any

import pytest

import jaxrl_reason.losses as lib
from tests.losses.public_calls import NO_ARRAYS, every_call

SCRIPT = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from jaxrl_reason.losses._math import accurate_sum
from tests.losses.public_calls import B, T, Call, every_call

calls = every_call()
SOME = 9  # XLA takes twice as long for one program of all functions

def in_parts(names):
    names = sorted(names)
    return [names[i : i + SOME] for i in range(0, len(names), SOME)]

def pulled(out):
    # A scalar of all floats of a result, each entry with a weight of its own.
    total = 0.0
    for leaf in jax.tree.leaves(out):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            pull = jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape)
            total += jnp.sum(jnp.where(jnp.isfinite(leaf), pull * leaf, 0.0))
    return total

def run(call, arrays):
    floats = {n: x for n, x in arrays.items()
              if all(jnp.issubdtype(y.dtype, jnp.floating) for y in jax.tree.leaves(x))}
    rest = {n: x for n, x in arrays.items() if n not in floats}
    def scalar(floats):
        out = call.function(**floats, **rest, **call.settings)
        return pulled(out), out
    grads, out = jax.grad(scalar, has_aux=True)(floats)
    return out, grads

def compiled(named, arrays):
    # Results of {name: call} on {name: arrays}, and the errors of what is refused.
    found, refused = {}, {}
    def traced(arrays):
        found = {}
        for name in arrays:
            try:
                found[name] = run(named[name], arrays[name])
            except Exception as error:
                refused[name] = f"{type(error).__name__}: {error}"[:300]
        return found
    for names in in_parts(named):
        found |= jax.jit(traced)({n: arrays[n] for n in names})
    return jax.tree.map(np.asarray, found), refused

def everything(mesh, axis):
    def place(x):
        x = jnp.asarray(x)
        wide = x.ndim > axis and x.shape[axis] == (B, T)[axis]
        spec = P(*[None] * axis, "data") if wide else P()
        return jax.device_put(x, NamedSharding(mesh, spec))
    arrays = {n: jax.tree.map(place, call.arrays) for n, call in calls.items()}
    with jax.set_mesh(mesh):
        return compiled(calls, arrays)

def difference(found, expected):
    worst = 0.0
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if x.shape != y.shape or x.dtype != y.dtype:
            return f"{x.shape} {x.dtype} for {y.shape} {y.dtype}"
        if y.dtype == bool or np.issubdtype(y.dtype, np.integer):
            worst = max(worst, float(np.any(x != y)))
        elif y.size:
            size = np.abs(y[np.isfinite(y)])
            scale = max(1.0, float(np.max(size, initial=0.0)))
            apart = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))
            worst = max(worst, float(np.max(apart)) / scale)
    return worst

def inside_shard_map(names):
    # Rows are split, what a device makes of its rows stays there, scalars are summed:
    # by the library's sum, since eight roundings of a psum would be the test's own.
    def added(x, one):
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        return x if one.ndim else accurate_sum(x) if floating else jnp.sum(x)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    def local(call):
        def local_call(arrays):
            out = call.function(**arrays, **call.settings)
            return jax.tree.map(lambda x: x if x.ndim else x[None], out)
        return local_call
    def mapped(name):
        call, of = calls[name], calls[name].arrays
        specs = {
            n: P("data") if np.ndim(x) and np.shape(x)[0] == B else P()
            for n, x in of.items()
        }
        outs = jax.eval_shape(lambda a: call.function(**a, **call.settings), of)
        split = jax.shard_map(
            local(call), mesh=mesh, in_specs=(specs,), out_specs=P("data")
        )
        return Call(lambda **a: jax.tree.map(added, split(a), outs), of, {})
    with jax.set_mesh(mesh):
        named = {n: mapped(n) for n in names}
        return compiled(named, {n: calls[n].arrays for n in names})

expected, refused = compiled(calls, {n: call.arrays for n, call in calls.items()})
assert not refused, refused
report = {}
for kind in (AxisType.Explicit, AxisType.Auto):
    for devices in (8, 1):
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(kind,),
                             devices=jax.devices()[:devices])
        for axis in (0, 1) if devices > 1 else (0,):
            found, errors = everything(mesh, axis)
            report[f"{kind.name} {devices} by {('rows', 'tokens')[axis]}"] = {
                **{n: difference(found[n], expected[n]) for n in found},
                **errors,
            }
found, errors = inside_shard_map(sys.argv[1].split())
report["shard_map"] = {
    **{n: difference(found[n], expected[n]) for n in found}, **errors
}
print(json.dumps(report))
"""


# What these make of a row depends on rows that are on other devices, or they are
# given no rows: inside `shard_map` they are of the rows of the device.
NEED_ALL_ROWS = set(
    re.findall(
        r"\w+",
        """adaptive_entropy_update adaptive_kl_update asp batch_counts
        batch_std_advantages clip_cov clip_cov_loss clip_cov_tokens combine_gradients
        dr_grpo_advantages dwa_weights effective_sample_size explained_variance
        gdpo_advantages gigpo_advantages gpg_advantages group_signal grpo_advantages
        high_entropy_mask kimi_length_reward kl_cov kl_cov_loss kl_cov_tokens
        maxrl_advantages mean_probability mgda_weights mismatch_peaks opo_advantages
        otb_advantages pass_at_k_advantages pcgrad pcgrad_coefficients
        prime_advantages process_supervision_advantages prompt_mean prover_rewards
        reinforce_pp_advantages reinforce_pp_baseline_advantages rloo_advantages
        select_teacher signal_fraction smooth_tchebycheff tchebycheff token_covariance
        uncertainty_weighting weighted_sum whiten zero_advantage_ratio""",
    )
)


# All functions seven times: minutes where the cores are busy.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def report(eight_devices_run: Callable) -> Any:
    rowwise = sorted(every_call().keys() - NEED_ALL_ROWS)
    return eight_devices_run(SCRIPT, " ".join(rowwise), timeout=900)


def test_every_public_name_has_a_call() -> None:
    assert set(lib.__all__) - NO_ARRAYS - every_call().keys() == set()
    assert set(lib.__all__) >= NO_ARRAYS


MESHES = [
    "Explicit 8 by rows",
    "Explicit 8 by tokens",
    "Explicit 1 by rows",
    "Auto 8 by rows",
    "Auto 8 by tokens",
    "Auto 1 by rows",
]


def too_far(found: dict[str, Any]) -> dict[str, Any]:
    """Beyond 2e-7 of the largest entry, at least of 1, or refused."""
    return {n: d for n, d in found.items() if isinstance(d, str) or not d <= 2e-7}


@pytest.mark.parametrize("mesh", MESHES)
def test_the_same_value_and_gradient(report: Any, mesh: str) -> None:
    assert report[mesh].keys() == every_call().keys()
    assert too_far(report[mesh]) == {}


def test_inside_shard_map(report: Any) -> None:
    assert report["shard_map"].keys() == every_call().keys() - NEED_ALL_ROWS
    assert set(lib.__all__) >= NEED_ALL_ROWS
    assert too_far(report["shard_map"]) == {}
