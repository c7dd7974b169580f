"""The process of one compilation: `python -m jaxrl_reason.aot.compile_worker IN OUT`.

Only `compile_step` starts it. Errors in the settings are written like a result.
"""

import json
import math
import pickle  # noqa: TID251  from our own parent, in a folder of its own
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from jaxrl_reason.aot.call_work import CallWork, call_work, model_and_executed
from jaxrl_reason.aot.collectives import Collective, find_collectives
from jaxrl_reason.aot.compile_step import CompiledStep, CompileRequest, Traffic
from jaxrl_reason.aot.hlo_text import executions, parse_program
from jaxrl_reason.aot.links import exchange_seconds, span_of
from jaxrl_reason.aot.memory_traffic import memory_traffic
from jaxrl_reason.aot.mesh_sizes import own_devices
from jaxrl_reason.aot.run_steps import RunSteps, run_steps
from jaxrl_reason.aot.topology import Topology, describe_devices
from jaxrl_reason.runs.files import atomic_write
from jaxrl_reason.sharding import make_mesh, parse_mesh
from jaxrl_reason.train.train_settings import TrainSettings

_COMPILERS = {"tpu": "libtpu", "cuda": "jax-cuda12-plugin"}
# How libtpu says what a program needs: all of it, or its temporaries alone.
_NEEDED = re.compile(r"(?:Used |HLO temporaries \()([\d.]+)([KMGT])\b")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def main(argv: list[str]) -> None:
    """Reads a request and writes a result or an error.

    Args:
      argv: the two files.
    """
    request = pickle.loads(Path(argv[0]).read_bytes())  # noqa: S301
    try:
        result = asdict(compile_here(request))
    except ValueError as error:
        result = {"error": str(error)}
    atomic_write(Path(argv[1]), json.dumps(result))


def compile_here(request: CompileRequest) -> CompiledStep:
    """Compiles in this process; as `compile_step`.

    Args:
      request: what.

    Raises:
      ValueError: settings, mesh and model do not fit together.
    """
    topology, step, settings = request.topology, request.step, request.settings
    mesh, sampler_mesh = meshes_of(settings, describe_devices(topology))
    memory = topology.chip.memory
    build = partial(run_steps, settings, mesh, memory, sampler_mesh)
    steps = build()
    if step == "sample" and sampler_mesh is not None:
        mesh = sampler_mesh
    work = call_work(step, settings)
    start = time.perf_counter()
    peak, text = compile_text(steps, step)
    seconds = time.perf_counter() - start
    if request.hlo is not None:
        atomic_write(request.hlo, text)
    memory_bytes, traffic = read_text(text, mesh, work, topology)
    model, executed = model_and_executed(
        step,
        build(attention="plain"),
        build(attention="plain", remat="none"),
        work,
    )
    parts, besides = memory_parts(step, steps)
    if not text:  # no less than what it is given, and more than there is
        peak = max(peak, sum(parts.values()), memory)
    compiler = _COMPILERS[topology.chip.platform]
    return CompiledStep(
        step=step,
        topology=str(topology),
        mesh=dict(mesh.shape),
        peak=peak,
        parts={**parts, "temporaries": max(0.0, peak - sum(parts.values()))},
        besides=besides,
        fits=bool(text) and peak + besides <= memory,
        flops=executed / mesh.size,
        model_flops=model / mesh.size,
        memory_bytes=memory_bytes,
        traffic=traffic,
        tokens=work.tokens,
        seconds=seconds,
        versions={name: version(name) for name in ("jax", compiler)},
    )


def meshes_of(
    settings: TrainSettings, devices: Sequence[jax.Device]
) -> tuple[jax.sharding.Mesh, jax.sharding.Mesh | None]:
    """A run's mesh on described devices, and that of a sampler with its own.

    auto splits rows over all of them. A sampler's devices are the last.
    """
    if settings.mesh == "auto":
        return make_mesh(data=len(devices), devices=devices), None
    own = own_devices(settings)
    training = devices[: len(devices) - own]
    mesh = parse_mesh(settings.mesh, devices=training)
    if not own:
        return mesh, None
    sampling = devices[len(training) :]
    return mesh, parse_mesh(settings.sampler.mesh, devices=sampling)


def compile_text(steps: RunSteps, step: str) -> tuple[float, str]:
    """Compiles a step: its peak in bytes and its text.

    The text is empty where the compiler found that a device has too little memory; the
    peak is then what it would need.
    """
    function, arguments = steps.calls[step]
    lowered = function.lower(*arguments)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = bytes_needed(str(error))
        if needed is None:
            raise
        return needed, ""
    return compiled.memory_analysis().peak_memory_in_bytes, compiled.as_text()


def bytes_needed(message: str) -> float | None:
    """What a compiler says that a device would need; None for another error.

    0 where it gives no number.

    >>> bytes_needed("RESOURCE_EXHAUSTED: ... Used 20.50G of 15.75G hbm.") / 2**30
    20.5
    """
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    found = _NEEDED.search(message)
    return float(found[1]) * _UNITS[found[2]] if found else 0.0


def read_text(
    text: str, mesh: jax.sharding.Mesh, work: CallWork, topology: Topology
) -> tuple[float, tuple[Traffic, ...]]:
    """Bytes of memory and exchanges of a compiled program; nothing for no text."""
    if not text:
        return 0.0, ()
    program = parse_program(text)
    runs = list(executions(program, work.trips))
    found = find_collectives(runs, dict(mesh.shape))
    kinds = dict.fromkeys((x.kind, x.axes) for x in found)
    traffic = []
    for kind, axes in kinds:
        same = [x for x in found if (x.kind, x.axes) == (kind, axes)]
        traffic.append(_traffic(same, mesh, topology))
    return memory_traffic(program, runs), tuple(
        sorted(traffic, key=lambda x: -x.seconds)
    )


def _traffic(
    same: list[Collective], mesh: jax.sharding.Mesh, topology: Topology
) -> Traffic:
    """Exchanges of one kind over the same axes, added up."""
    kind, axes = same[0].kind, same[0].axes
    # The devices that differ from the first along these axes only.
    where = tuple(slice(None) if name in axes else 0 for name in mesh.axis_names)
    span = span_of(list(mesh.devices[where].reshape(-1)), topology)
    return Traffic(
        kind,
        axes,
        count=sum(x.times for x in same),
        payload=sum(x.payload * x.times for x in same),
        sent=sum(x.sent * x.times for x in same),
        seconds=sum(exchange_seconds(x, span, topology) * x.times for x in same),
    )


def memory_parts(step: str, steps: RunSteps) -> tuple[dict[str, float], float]:
    """Bytes a device of what a step is given, and of what the run holds besides.

    An update is given all of the state, and makes one tree of gradients. While the run
    scores or samples, the optimiser's state stays where it is; while it samples from a
    copy of the parameters, so do the parameters; a reference always does. A sampler's
    own devices hold nothing else.
    """
    state, sampling = steps.state, step == "sample"
    read = steps.sampled if sampling else state.params
    parts = {"parameters": device_bytes(read)}
    if sampling and steps.own_sampler:
        return {**parts, "batch": device_bytes(steps.prompts)}, 0.0
    optimizer = device_bytes(state.opt_state)
    besides = 0.0 if read is state.params else device_bytes(state.params)
    if step == "update":
        parts |= {"optimizer": optimizer, "gradients": parts["parameters"]}
    else:
        besides += optimizer
    if steps.learner.method.uses_reference:
        besides += device_bytes(state.params)
    given = steps.prompts if sampling else steps.batch
    return {**parts, "batch": device_bytes(given)}, besides


def device_bytes(tree: Any) -> float:
    """Bytes of a tree of shapes with shardings on each device."""
    return float(
        sum(
            math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
            for x in jax.tree.leaves(tree)
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
