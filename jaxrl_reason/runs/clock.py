"""Wall seconds of a run's stages, over all the processes that worked on it."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

from jaxrl_reason.runs.files import atomic_write


class StageClock:
    """Adds up the seconds of stages and keeps them in a file of the run's folder.

    What a killed process did after its last whole stage is not counted.

    Args:
      path: of the JSON file; a resumed run goes on from what stands there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = {}
        if path.is_file():
            self.seconds = json.loads(path.read_text("utf-8"))

    def add(self, name: str, seconds: float) -> None:
        """Adds seconds to a stage."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        atomic_write(self.path, json.dumps(self.seconds, indent=2) + "\n")

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Counts a block as part of a stage, also when the block raises."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)
