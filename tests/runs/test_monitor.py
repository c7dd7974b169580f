import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import monitoring as listeners

from jaxrl_reason.runs import monitor
from jaxrl_reason.runs.metrics_log import PhaseTimer
from jaxrl_reason.runs.monitor import CompileCounter


def test_counts_what_compiles_and_nothing_after_warm_up():
    inputs = [jnp.zeros(size) for size in (3, 3, 4)]

    @jax.jit
    def double(x):
        return x * 2

    with CompileCounter() as counter:
        double(inputs[0])
        mark = counter.count
        assert mark == 1
        double(inputs[1])
        assert counter.since(mark) == 0
        double(inputs[2])  # another shape
        assert counter.since(mark) == 1
        assert counter.names_since(mark) == ["jit(double)"]
    assert counter.seconds > 0


def test_a_changing_static_argument_is_seen():
    x = jnp.zeros(3)
    power = jax.jit(lambda x, n: x**n, static_argnums=1)
    with CompileCounter() as counter:
        for n in range(2, 5):
            power(x, n)
    assert counter.count == 3


def test_a_closed_counter_hears_nothing_and_leaves_no_listener():
    before = len(listeners.get_event_duration_listeners())
    first, second = CompileCounter(), CompileCounter()
    first.start()  # already listening: not twice
    assert len(listeners.get_event_duration_listeners()) == before + 2
    jax.jit(lambda x: x - 1)(np.zeros(2, np.float32))
    assert (first.count, second.count) == (1, 1)
    first.close()
    first.close()
    jax.jit(lambda x: x - 2)(np.zeros(2, np.float32))
    assert (first.count, second.count) == (1, 2)
    second.close()
    assert len(listeners.get_event_duration_listeners()) == before


def test_a_warm_persistent_cache_does_not_hide_a_compilation(tmp_path):
    code = """
import jax, numpy as np
from jaxrl_reason.runs.monitor import CompileCounter
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
hits = []
jax.monitoring.register_event_listener(
    lambda event, **kwargs: hits.append(event) if event.endswith("cache_hits") else None
)
with CompileCounter() as counter:
    jax.jit(lambda x: x * 3 + 1)(np.zeros(3, np.float32))
print(counter.count, len(hits))
"""
    lines = []
    for _ in range(2):
        process = subprocess.run(
            [sys.executable, "-c", code],
            env={"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        lines.append(process.stdout.split())
    assert lines == [["1", "0"], ["1", "1"]]


def test_phases_add_up_and_start_again():
    timer = PhaseTimer()
    for _ in range(2):
        with timer("rollout"):
            time.sleep(0.01)
    with timer("grade"):
        pass
    assert 0.02 <= timer.seconds["rollout"] < 1
    row = timer.take()
    assert list(row) == ["time/rollout_s", "time/grade_s"]
    assert timer.take() == {}


def test_a_phase_that_fails_is_timed_too():
    timer = PhaseTimer()
    with pytest.raises(RuntimeError), timer("grade"):
        raise RuntimeError
    assert "grade" in timer.seconds


def test_peak_memory_remembers_what_was_given_back():
    before = monitor.peak_memory_bytes()
    assert 10_000_000 < before < 1_000_000_000_000
    size = before + 64_000_000  # above the peak, whatever ran before
    block = np.ones(size, np.uint8)
    assert monitor.peak_memory_bytes() > 0.98 * size  # Linux counts a little late
    del block
    assert monitor.peak_memory_bytes() > 0.98 * size


def test_peak_memory_falls_back_to_rusage(monkeypatch):
    by_status = monitor.peak_memory_bytes()
    monkeypatch.setattr(monitor.Path, "exists", lambda self: False)
    by_rusage = monitor.peak_memory_bytes()
    assert by_rusage >= 0.9 * by_status  # the parent's peak may be above our own


def test_maxrss_units():
    assert monitor._maxrss_unit("linux") == 1024
    assert monitor._maxrss_unit("darwin") == 1


def test_versions_name_what_a_result_depends_on():
    found = monitor.versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["jax"] == jax.__version__
    assert {"jaxrl_reason", "flax", "optax", "orbax-checkpoint"} <= set(found)
