"""One step compiled in a process of its own, since a fault in libtpu ends it."""

import json
import os
import pickle  # noqa: TID251  writes; only compile_worker reads it
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxrl_reason.aot.topology import ENVIRONMENT, Topology
from jaxrl_reason.train.train_settings import TrainSettings


@dataclass(frozen=True)
class CompileRequest:
    """What to compile.

    Attributes:
      settings: of the run, its mesh among them.
      topology: the devices.
      step: one of `STEPS`.
      effort: O1 compiles several times faster and plans memory less well; default for
        the question whether a step fits.
      hlo: file for the compiled program's text; None for none.
    """

    settings: TrainSettings
    topology: Topology
    step: str
    effort: str = "default"
    hlo: Path | None = None


@dataclass(frozen=True)
class Traffic:
    """All exchanges of one kind over the same axes in one call of a step.

    Attributes:
      kind: such as all-gather.
      axes: of the mesh.
      count: how many.
      payload: bytes of the whole arrays that they gather, add up or hand on.
      sent: bytes that a device sends over a ring.
      seconds: over the chip's links, one after the other.
    """

    kind: str
    axes: tuple[str, ...]
    count: float
    payload: float
    sent: float
    seconds: float


@dataclass(frozen=True)
class CompiledStep:
    """What the compiler says of one step; bytes are those of one device.

    Attributes:
      step: one of `STEPS`.
      topology: the devices.
      mesh: sizes of its axes.
      peak: the most bytes held at a time; what the compiler needed where a step does
        not fit.
      parts: bytes by what they hold: parameters, optimizer, gradients, batch, and the
        rest of the peak as temporaries.
      besides: bytes that the run holds while the step runs and the step is not given:
        the optimiser's state while it scores or samples.
      fits: whether a device has the peak and what is held besides.
      flops: operations that a device executes, with what it computes again.
      model_flops: those of the model alone, forward and twice that for the backward
        pass; what a utilisation (MFU) is measured by.
      memory_bytes: that it reads and writes.
      traffic: what it exchanges with others; empty where the step does not fit.
      tokens: of prompts and responses that a call trains on, scores or samples, over
        all devices.
      seconds: of compilation.
      versions: of jax and of the compiler.
    """

    step: str
    topology: str
    mesh: Mapping[str, int]
    peak: float
    parts: Mapping[str, float]
    besides: float
    fits: bool
    flops: float
    model_flops: float
    memory_bytes: float
    traffic: tuple[Traffic, ...]
    tokens: float
    seconds: float
    versions: Mapping[str, str]

    @property
    def held(self) -> float:
        """Bytes of a device in all."""
        return self.peak + self.besides


def compile_step(request: CompileRequest, timeout: float = 3600) -> CompiledStep:
    """Compiles a step in a new process.

    Args:
      request: what.
      timeout: seconds.

    Raises:
      ValueError: settings, mesh and model do not fit together, or the compiler failed;
        the message is its last line.
    """
    environment = {**os.environ, **ENVIRONMENT}
    if request.effort != "default":
        environment["JAX_OPTIMIZATION_LEVEL"] = request.effort
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder, "request"), Path(folder, "result.json")
        given.write_bytes(pickle.dumps(request))
        done = subprocess.run(
            [sys.executable, "-m", "jaxrl_reason.aot.compile_worker", given, found],
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if not found.is_file():
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise ValueError(
                f"the compiler must end with a program, got status {done.returncode} "
                f"for the step {request.step}: {last:.300}"
            )
        result = json.loads(found.read_text("utf-8"))
    if "error" in result:
        raise ValueError(result["error"])
    traffic = tuple(
        Traffic(**{**x, "axes": tuple(x["axes"])}) for x in result.pop("traffic")
    )
    return CompiledStep(traffic=traffic, **result)
