"""Skipped updates in a row end a run; the batch is kept."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.runs.update_guard import (
    NotFiniteError,
    UpdateGuard,
    check_finite,
    not_finite,
)

BAD, GOOD = True, False


def update(state, batch, num_active, *, skipped=BAD):
    loss = jnp.float32(jnp.nan if skipped else 1.0)
    one = jnp.ones(())
    metrics = {"skipped_update_fraction": (one * skipped, one), "loss": (loss, one)}
    return {"params": state["params"] + 0}, metrics


def run(guard, *skipped, batch=None, params=1.0, at_once=False):
    watched = guard.watch(update, "policy", at_once=at_once)
    state = {"params": jnp.full(2, params)}
    for x in skipped:
        state, _ = watched(state, batch or {"tokens": jnp.arange(3)}, 1, skipped=x)
    return state


@pytest.mark.parametrize("skipped", [[BAD] * 2, [BAD, BAD, GOOD] * 5, [GOOD] * 9])
def test_fewer_than_the_bound_are_accidents(skipped):
    guard = UpdateGuard(3)
    run(guard, *skipped)
    guard.check({})


def test_the_bound_ends_the_run_and_the_batch_is_kept(tmp_path):
    guard = UpdateGuard(3, tmp_path)
    batch = {"inputs": {"advantages": jnp.array([1.0, jnp.nan])}}
    state = run(guard, GOOD, BAD, BAD, BAD, batch=batch)
    with pytest.raises(NotFiniteError) as caught:
        guard.check({"policy": state})
    said = str(caught.value)
    assert "3 updates of the policy in a row were skipped" in said
    assert "the loss (nan); batch/inputs/advantages (nan or inf in 1 of 2)" in said
    assert "look at where these inputs are made" in said
    with np.load(tmp_path / "skipped_policy.npz") as saved:
        assert saved["num_active"] == 1
        np.testing.assert_array_equal(saved["inputs/advantages"], [1.0, np.nan])


def test_a_gradient_alone_names_the_largest_numbers():
    def overflows(state, batch, num_active):
        _, metrics = update(state, batch, num_active)
        return state, {**metrics, "loss": (jnp.ones(()), jnp.ones(()))}

    guard = UpdateGuard(1)
    watched = guard.watch(overflows, "policy", at_once=False)
    state, _ = watched({"params": jnp.full(2, -1e30)}, {"x": jnp.ones(3)}, 1)
    said = r"the gradient alone \(the largest numbers are in model/params, up to 1e\+30"
    with pytest.raises(NotFiniteError, match=said):
        guard.check({"policy": state})


def test_lost_parameters_are_named():
    guard = UpdateGuard(1)
    state = run(guard, BAD, params=np.inf)
    with pytest.raises(NotFiniteError, match=r"model/params .*the parameters are lost"):
        guard.check({"policy": state})


def test_a_loop_that_saves_nothing_is_ended_at_once():
    # The newest update is not waited for.
    guard = UpdateGuard(3)
    run(guard, BAD, BAD, BAD, at_once=True)
    with pytest.raises(NotFiniteError, match="3 updates of the policy"):
        run(UpdateGuard(3), BAD, BAD, BAD, GOOD, at_once=True)


def test_only_at_the_end_is_the_newest_update_waited_for():
    guard = UpdateGuard(3)
    run(guard, BAD, BAD, BAD)
    guard.check({}, wait=False)
    with pytest.raises(NotFiniteError, match="3 updates of the policy"):
        guard.check({})


def test_a_later_stage_counts_its_own_updates():
    guard = UpdateGuard(3)
    run(guard, BAD, BAD, BAD)
    run(guard, GOOD)  # of a model with the same name
    guard.check({})


def test_a_full_disk_hides_nothing(tmp_path):
    guard = UpdateGuard(1, tmp_path / "missing")
    state = run(guard, BAD)
    with pytest.raises(NotFiniteError, match=r"could not be saved: .*No such file"):
        guard.check({"policy": state})


def test_models_with_odd_numbers_are_not_saved():
    good = {"a": jnp.ones(3), "count": jnp.ones((), jnp.int32)}
    check_finite({"policy": good})
    assert not_finite({"policy": good}) == []
    with pytest.raises(NotFiniteError, match=r"policy/a \(nan or inf in 1 of 3\)"):
        check_finite({"policy": {**good, "a": jnp.array([1.0, jnp.inf, 0.0])}})


def test_the_bound_is_checked():
    with pytest.raises(ValueError, match="most_skipped must be >= 1, got 0"):
        UpdateGuard(0)
