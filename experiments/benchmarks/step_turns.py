"""Settings of a step, each in a process of its own, taking turns."""

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.benchmarks.step_work import Ours, Setting, Step, Work
from experiments.benchmarks.step_workers import serve

LONGEST_STEP = 900.0  # seconds, with loading and compilation


@dataclass
class Row:
    """One setting's steps; the memory is the process's largest so far."""

    name: str
    dtype: str
    ours: bool
    steps: list[Step] = field(default_factory=list)
    peak_gib: float = 0.0

    @property
    def seconds(self) -> float:
        """The median step."""
        return median(step.seconds for step in self.steps)

    @property
    def mean_length(self) -> float:
        """Real tokens per response."""
        responses = sum(step.responses for step in self.steps)
        return sum(step.tokens for step in self.steps) / responses


class Worker:
    """A setting in a process of its own."""

    def __init__(self, work: Work, setting: Setting) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, work, setting))
        self._process.start()
        theirs.close()

    def step(self) -> Step:
        """One step; EOFError if the process has died or hangs, which ends it."""
        self._pipe.send("step")
        if not self._pipe.poll(LONGEST_STEP):
            self._process.kill()
            self._process.join()
            raise EOFError
        try:
            found: Step = self._pipe.recv()
        except ConnectionError as error:  # it died while it was asked
            raise EOFError from error
        return found

    def close(self) -> float:
        """Ends the process; its peak memory in GiB, 0 if it had died."""
        try:
            self._pipe.send(None)
            peak = float(self._pipe.recv())
        except (EOFError, OSError):
            peak = 0.0
        self._process.join()
        return peak


def new_row(setting: Setting) -> Row:
    """A row without steps."""
    return Row(setting.name, setting.dtype, isinstance(setting, Ours))


def screen(
    work: Work, settings: Sequence[Setting], say: Callable[[str], None]
) -> list[tuple[Setting, Row]]:
    """Every setting's second step; settings that fail are named and left out."""
    tried = []
    for setting in settings:
        worker, row = Worker(work, setting), new_row(setting)
        try:
            worker.step()
            row.steps.append(worker.step())
        except EOFError:
            say(f"{setting.name} does not run here")
        row.peak_gib = worker.close()
        if row.steps:
            say(f"{row.name}: {row.seconds:.1f} s, {row.peak_gib:.1f} GiB")
            tried.append((setting, row))
    return tried


def best_of_each(tried: list[tuple[Setting, Row]]) -> list[Setting]:
    """The fastest of ours first, then the fastest of the peer's in each type."""
    best: dict[tuple[bool, str], tuple[Setting, Row]] = {}
    for setting, row in tried:
        place = (row.ours, "" if row.ours else row.dtype)
        if place not in best or row.seconds < best[place][1].seconds:
            best[place] = (setting, row)
    found = sorted(best.values(), key=lambda pair: not pair[1].ours)
    return [setting for setting, _ in found]


def take_turns(
    work: Work, finalists: list[Setting], steps: int, say: Callable[[str], None]
) -> list[list[Row]]:
    """Ours against each of the others, one step at a time; pairs of rows."""
    pairs = []
    ours, *others = finalists
    for both in [[ours, other] for other in others] or [[ours]]:
        workers, rows = [Worker(work, x) for x in both], [new_row(x) for x in both]
        for worker in workers:
            worker.step()
        for _ in range(steps):
            for worker, row in zip(workers, rows, strict=True):
                row.steps.append(worker.step())
                say(f"{row.name}: {row.steps[-1].seconds:.1f} s")
        for worker, row in zip(workers, rows, strict=True):
            row.peak_gib = worker.close()
        pairs.append(rows)
    return pairs


def show(console: Console, pairs: list[list[Row]]) -> None:
    """Print each pair; the ratio is to our median."""
    table = Table(box=None)
    table.add_column("side", no_wrap=True)
    columns = ("s per step", "ratio", "CPU s", "rollout s", "rest s", "mean length")
    for column in (*columns, "peak GiB"):
        table.add_column(column, justify="right", no_wrap=True)
    for rows in pairs:
        for row in rows:
            rollout = median(step.phases["rollout"] for step in row.steps)
            table.add_row(
                row.name,
                f"{row.seconds:.1f}",
                f"{row.seconds / rows[0].seconds:.2f}",
                f"{median(step.cpu_seconds for step in row.steps):.1f}",
                f"{rollout:.1f}",
                f"{row.seconds - rollout:.1f}",
                f"{row.mean_length:.1f}",
                f"{row.peak_gib:.1f}",
            )
    console.print(table)


def compare(
    console: Console, work: Work, settings: Sequence[Setting], steps: int
) -> dict[str, Any]:
    """Screens all settings, lets the fastest take turns, prints them; for JSON."""

    def say(line: str) -> None:
        console.print(line, style="dim", highlight=False)

    sides = [
        (isinstance(x, Ours), "" if isinstance(x, Ours) else x.dtype) for x in settings
    ]
    # Nothing to choose from needs no choice.
    alone = len(set(sides)) == len(sides)
    tried = [] if alone else screen(work, settings, say)
    finalists = list(settings) if alone else best_of_each(tried)
    pairs = take_turns(work, finalists, steps, say)
    show(console, pairs)
    return {
        "screened": [asdict(row) for _, row in tried],
        "turns": [[asdict(row) for row in rows] for rows in pairs],
    }
