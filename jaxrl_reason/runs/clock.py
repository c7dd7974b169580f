"""Wall seconds of a run's stages, over all processes of the run."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

from jaxrl_reason.runs.files import atomic_write


class StageClock:
    """Adds up the seconds of stages in a file of the run's folder.

    The time of a killed process after its last finished stage is not counted.

    Args:
      path: of the JSON file; a resumed run continues from its contents.
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
        """Counts a block as part of a stage, also if the block raises."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)
