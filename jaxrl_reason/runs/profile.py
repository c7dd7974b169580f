"""A trace of one step for xprof, of the host and the devices."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax


@dataclass(frozen=True)
class StepProfile:
    """Traces one step of a loop; the others run normally.

    Attributes:
      step: the step to trace. The first ones compile, so a later one is more typical.
      path: folder; the trace is written to `plugins/profile/<time>/` in it.

    Raises:
      ValueError: step is below 1.
    """

    step: int
    path: Path

    def __post_init__(self) -> None:
        if self.step < 1:
            raise ValueError(f"step must be >= 1, got {self.step}")

    @contextlib.contextmanager
    def __call__(self, step: int) -> Iterator[None]:
        """Traces the block at that step; the block should wait for its results."""
        if step != self.step:
            yield
            return
        with (
            jax.profiler.trace(str(self.path)),
            jax.profiler.StepTraceAnnotation("step", step_num=step),
        ):
            yield
