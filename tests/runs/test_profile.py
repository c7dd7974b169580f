import jax
import jax.numpy as jnp
import pytest

from jaxrl_reason.runs.profile import StepProfile


def traces(folder):
    return list(folder.rglob("*.xplane.pb"))


def test_one_step_is_traced_and_the_others_are_not(tmp_path):
    profile = StepProfile(2, tmp_path / "profile")
    step = jax.jit(lambda x: x @ x)
    for i in (1, 2, 3):
        with profile(i):
            step(jnp.ones((8, 8))).block_until_ready()
        assert len(traces(tmp_path)) == (i >= 2)
    # Where xprof and TensorBoard's plugin look for it.
    (trace,) = traces(tmp_path)
    assert trace.parent.parent == tmp_path / "profile" / "plugins" / "profile"
    assert trace.stat().st_size > 0


def test_a_step_that_fails_ends_its_trace(tmp_path):
    profile = StepProfile(1, tmp_path)
    with pytest.raises(RuntimeError, match="broken"), profile(1):
        raise RuntimeError("broken")
    with StepProfile(1, tmp_path / "next")(1):
        pass
    assert traces(tmp_path / "next")


def test_steps_are_counted_from_1(tmp_path):
    with pytest.raises(ValueError, match="step must be >= 1, got 0"):
        StepProfile(0, tmp_path)
