import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxrl_reason.learner.state import (
    OptimizerSettings,
    abstract_state,
    init_model_state,
    init_state,
)
from jaxrl_reason.sharding import ShardingRules
from tests.rl.helpers import (
    OPTIMIZER,
    copied,
    first_policy,
    one_device,
    same_trees,
    tiny_model,
)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0}, "learning_rate must be > 0, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be > 0, got nan"),
        ({"max_grad_norm": -1}, "max_grad_norm must be > 0, got -1"),
        ({"warmup_updates": -1}, "warmup_updates must be >= 0, got -1"),
        ({"decay_updates": -1}, "decay_updates must be >= 0, got -1"),
        ({"weight_decay": -0.1}, "weight_decay must be >= 0, got -0.1"),
        ({"b1": 1.0}, r"b1 must be in \[0, 1\), got 1.0"),
        ({"b2": -0.1}, r"b2 must be in \[0, 1\), got -0.1"),
        ({"final_fraction": 1.5}, r"final_fraction must be in \[0, 1\], got 1.5"),
    ],
)
def test_optimizer_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        OptimizerSettings(**settings)


def rates(steps, **settings):
    schedule = OptimizerSettings(learning_rate=1.0, **settings).schedule()
    return [float(schedule(step)) for step in steps]


def test_without_warm_up_and_decay_the_rate_is_constant():
    assert rates([0, 1, 1000]) == [1, 1, 1]


def test_the_first_update_of_a_warm_up_moves_something():
    np.testing.assert_allclose(
        rates([0, 1, 2, 3, 4], warmup_updates=3), [0.25, 0.5, 0.75, 1, 1], rtol=1e-6
    )


def test_the_rate_decays_to_its_share_and_stays_there():
    found = rates([0, 5, 10, 100], decay_updates=10, final_fraction=0.2)
    np.testing.assert_allclose(found, [1.0, 0.6, 0.2, 0.2], rtol=1e-6)


def test_the_decay_begins_after_the_warm_up():
    found = rates([1, 2, 7, 12], warmup_updates=2, decay_updates=10, final_fraction=0)
    np.testing.assert_allclose(found, [2 / 3, 1.0, 0.5, 0.0], rtol=1e-6, atol=1e-7)


def test_the_optimiser_clips_the_whole_gradient_then_takes_adams_step():
    params, grads = {"w": jnp.ones(2)}, {"w": jnp.array([30.0, 40.0])}
    ours = OptimizerSettings(learning_rate=0.1, weight_decay=0.5, b1=0.5, b2=0.9)
    other = optax.adamw(0.1, b1=0.5, b2=0.9, weight_decay=0.5)
    found, _ = ours.build().update(grads, ours.build().init(params), params)
    wanted, _ = other.update({"w": jnp.array([0.6, 0.8])}, other.init(params), params)
    np.testing.assert_allclose(found["w"], wanted["w"], rtol=1e-6)


@pytest.fixture(scope="module")
def created():
    batch_sharding, optimizer = one_device(), OPTIMIZER.build()
    key = jax.random.key(0)
    return init_model_state(
        tiny_model(), optimizer, key, batch_sharding.mesh, batch_sharding.rules
    )


def test_a_created_state_is_what_was_described(created):
    batch_sharding, optimizer = one_device(), OPTIMIZER.build()
    wanted = abstract_state(
        tiny_model(), optimizer, batch_sharding.mesh, batch_sharding.rules
    )
    assert jax.tree.structure(created) == jax.tree.structure(wanted)
    for x, y in zip(jax.tree.leaves(created), jax.tree.leaves(wanted), strict=True):
        assert (x.shape, x.dtype, x.sharding) == (y.shape, y.dtype, y.sharding)
    assert int(created.step) == 0


def test_moments_are_split_like_their_parameters():
    batch_sharding, optimizer = one_device(), OPTIMIZER.build()
    state = abstract_state(
        tiny_model(), optimizer, batch_sharding.mesh, ShardingRules()
    )
    parts = jax.tree.leaves(state.opt_state, is_leaf=_is_adam)
    adam = next(part for part in parts if _is_adam(part))
    for moments in (adam.mu, adam.nu):
        specs = jax.tree.map(lambda x: x.sharding.spec, moments)
        assert specs == jax.tree.map(lambda x: x.sharding.spec, state.params)
    embedding = state.params["embedding"].sharding.spec
    assert tuple(embedding) == ("tensor", "fsdp")


def _is_adam(x):
    return isinstance(x, optax.ScaleByAdamState)


def test_the_key_fixes_the_parameters(created):
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(created.params))
    weights = created.params["layers"]["mlp"]["up"]
    assert np.std(weights) > 0.01


def test_a_restarted_optimiser_leaves_the_old_state_alone():
    old = first_policy()
    before = copied(old.params)
    new = init_state(old.params, OPTIMIZER.build(), copy=True)
    assert same_trees(new.params, old.params)
    assert int(new.step) == 0
    # As a donation would.
    for x in jax.tree.leaves(new.params):
        x.delete()
    assert same_trees(old.params, before)


def test_a_placed_state_lies_on_the_mesh_with_all_its_counters():
    batch_sharding = one_device()
    params = {"w": batch_sharding.replicate(jnp.ones(3))}
    state = init_state(params, OPTIMIZER.build())
    for x in jax.tree.leaves(state):
        assert isinstance(x.sharding, NamedSharding)
        assert x.sharding.mesh == batch_sharding.mesh
    assert state.step.sharding.spec == PartitionSpec()
    # An optimiser by itself leaves them on one device.
    counters = OPTIMIZER.build().init(params)[1][0].count
    assert not isinstance(counters.sharding, NamedSharding)
