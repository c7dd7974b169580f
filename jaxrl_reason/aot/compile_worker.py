"""The process of one compilation: `python -m jaxrl_reason.aot.compile_worker IN OUT`.

Only `compile_step` starts it. Errors in the settings are written like a result.
"""

import json
import math
import pickle
import re
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from jaxrl_reason.aot.compile_step import CompiledStep, CompileRequest
from jaxrl_reason.aot.run_steps import RunSteps, run_steps
from jaxrl_reason.aot.topology import describe_devices
from jaxrl_reason.runs.files import atomic_write
from jaxrl_reason.sharding import make_mesh, parse_mesh

_COMPILERS = {"tpu": "libtpu", "cuda": "jax-cuda12-plugin"}
_NEEDED = re.compile(r"Used ([\d.]+)([KMG]) of ([\d.]+)([KMG]) hbm")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def main(argv: list[str]) -> None:
    """Reads a request and writes a result or an error.

    Args:
      argv: the two files.
    """
    request = pickle.loads(Path(argv[0]).read_bytes())
    try:
        result = asdict(compile_here(request))
    except ValueError as error:
        result = {"error": str(error)}
    atomic_write(Path(argv[1]), json.dumps(result))


def compile_here(request: CompileRequest) -> CompiledStep:
    """Compiles in this process; as `compile_step`."""
    topology = request.topology
    devices = describe_devices(topology)
    sizes = request.settings.mesh
    if sizes == "auto":
        mesh = make_mesh(data=len(devices), devices=devices)
    else:
        mesh = parse_mesh(sizes, devices=devices)
    steps = run_steps(request.settings, mesh, request.rules)
    function, arguments = steps.calls[request.step]
    lowered = function.lower(*arguments)
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        found = _NEEDED.search(str(error))
        if found is None:
            raise
        peak, text = float(found[1]) * _UNITS[found[2]], None
    else:
        peak = compiled.memory_analysis().peak_memory_in_bytes
        text = compiled.as_text()
    seconds = time.perf_counter() - start
    if text is not None and request.hlo is not None:
        atomic_write(request.hlo, text)
    parts = memory_parts(request.step, steps)
    platform = topology.chip.platform
    return CompiledStep(
        step=request.step,
        topology=str(topology),
        mesh=dict(mesh.shape),
        peak=peak,
        parts={**parts, "temporaries": max(0.0, peak - sum(parts.values()))},
        fits=text is not None and peak <= topology.chip.memory,
        seconds=seconds,
        versions={name: version(name) for name in ("jax", _COMPILERS[platform])},
    )


def memory_parts(step: str, steps: RunSteps) -> dict[str, float]:
    """Bytes a device of what a step is given, and of one tree of gradients."""
    state = steps.state
    parts = {"parameters": device_bytes(state.params)}
    if step == "update":
        parts["optimizer"] = device_bytes(state.opt_state)
        parts["gradients"] = parts["parameters"]
    given = steps.prompts if step == "sample" else steps.batch
    return {**parts, "batch": device_bytes(given)}


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
