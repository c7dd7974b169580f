"""Progress of a run on the console: a bar, or plain lines in a log file."""

import math
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from jaxrl_reason.runs.run_log import keep

# The numbers shown, in order: a label and the possible names in a row. Rows of metrics
# have the long names; the short ones are for calls of `update` by hand.
_SHOWN: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "loss",
        "loss {:.3f}",
        ("loss", "policy/loss", "sft/loss", "preference/loss", "reward_model/loss"),
    ),
    ("reward", "reward {:.2f}", ("reward", "reward/mean")),
    ("accuracy", "right {:.1%}", ("accuracy", "reward/accuracy")),
    ("heldout", "held-out {:.1%}", ("heldout", "heldout/accuracy")),
    ("length", "length {:.0f}", ("length", "rollout/length_mean")),
    ("entropy", "entropy {:.2f}", ("entropy", "policy/entropy", "sft/entropy")),
    (
        "tokens_per_second",
        "{:,.0f} tokens/s",
        ("tokens_per_second", "rollout/tokens_per_s", "sft/tokens_per_s"),
    ),
)


class TrainingProgress:
    """Shows the progress: step, reward, right answers, length, entropy, time left.

    In a terminal it is a bar that stays in place; elsewhere (a log file, a pipe), and
    in run.log (`run_log.py`), a plain line every `interval` seconds and at the end of
    each stage. A number that is missing, None or nan is left out; the held-out accuracy
    stays until there is a newer one.

    Args:
      interval: seconds between plain lines.
      console: to write to; the standard output if None.
      clock: returns seconds, increasing (replaced in tests).

    >>> with TrainingProgress(console=Console(force_terminal=False)) as progress:
    ...     progress.stage("RL", total=1)
    ...     progress.update(1, reward=0.5, accuracy=0.25)
    RL
    RL 1/1 | reward 0.50 | right 25.0% | took 0:00
    """

    def __init__(
        self,
        interval: float = 10.0,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or Console()
        self._interval = interval
        self._clock = clock
        bar = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = _Bar(self._console) if bar else None
        self._name = ""
        self._total: int | None = None
        self._first: tuple[float, int] | None = None
        self._printed_at: float | None = None
        self._heldout: float | None = None
        self._shown: list[str] = []
        self._reset(0)

    def stage(self, name: str, total: int | None = None, start: int = 0) -> None:
        """Starts a stage (sft, RL, evaluation) and ends the previous one.

        Args:
          name: its title.
          total: its last step, if known.
          start: steps already done (by the resumed run).
        """
        self._end_stage()
        self._name, self._total = name, total
        self._reset(start)
        if self._live is not None:
            self._live.begin(name, total, start)
        self._print_plain(name)

    def update(
        self, step: int, row: Mapping[str, Any] | None = None, **numbers: Any
    ) -> None:
        """Shows a finished step.

        Args:
          step: steps done in this stage, counted from the run's start.
          row: a row of metrics; names that are not shown are ignored.
          **numbers: the same by hand: reward, accuracy, heldout, length, entropy,
            tokens_per_second, loss.
        """
        now = self._clock()
        if self._first is None:
            # The first step compiles: the time left is estimated from its end on.
            self._first = (now, step)
        self._step = step
        self._shown = self._describe({**(row or {}), **numbers})
        if self._live is not None:
            self._live.show(step, self._shown, self._time(now))
        if step == self._total:  # an evaluation after it is not of the stage
            self._end_stage()
        elif self._printed_at is None or now - self._printed_at >= self._interval:
            self._print_line(now)

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        self._print(text)

    def __enter__(self) -> "TrainingProgress":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end_stage()
        if self._live is not None:
            self._live.stop()

    def _reset(self, start: int) -> None:
        self._step = start
        self._began = self._clock()
        self._first = self._printed_at = self._heldout = None
        self._shown = []

    def _end_stage(self) -> None:
        if self._live is not None:
            self._live.end(_clock_text(self._clock() - self._began))
        if self._first is not None:
            self._print_line(self._clock(), ended=True)
        self._first = None

    def _describe(self, numbers: Mapping[str, Any]) -> list[str]:
        shown = []
        for kind, form, names in _SHOWN:
            found = (_number(numbers.get(name)) for name in names)
            number = next((n for n in found if n is not None), None)
            if kind == "heldout":  # measured now and then, shown always
                number = self._heldout = self._heldout if number is None else number
            if number is not None:
                shown.append(form.format(number))
        return shown

    def _time(self, now: float) -> str:
        if self._total is not None and self._step >= self._total:
            return f"took {_clock_text(now - self._began)}"
        if self._total is None or self._first is None:
            return f"{_clock_text(now - self._began)} elapsed"
        begun, first = self._first
        if self._step <= first:
            return f"{_clock_text(now - self._began)} elapsed"
        left = (now - begun) / (self._step - first) * (self._total - self._step)
        return f"{_clock_text(left)} left"

    def _print_line(self, now: float, ended: bool = False) -> None:
        of = f"/{self._total}" if self._total is not None else ""
        time_text = self._time(now)
        if ended:
            time_text = f"took {_clock_text(now - self._began)}"
        parts = [f"{self._name} {self._step}{of}", *self._shown, time_text]
        self._print_plain(" | ".join(parts))
        self._printed_at = now

    def _print_plain(self, text: str) -> None:
        """A line where there is no bar."""
        if self._live is None:
            self._print(text)
        else:
            keep(text)

    def _print(self, text: str) -> None:
        # No markup, no number colours, no wrapping: a log line stays one line.
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        self._console.file.flush()
        keep(text)


class _Bar:
    """A bar for the current stage, with its numbers on a line below."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._numbers = ""
        self._count = ""
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[time]}"),
            console=console,
            expand=True,
        )
        self._live = Live(
            console=console, refresh_per_second=4, get_renderable=self._render
        )

    def start(self) -> None:
        self._live.start(refresh=True)

    def stop(self) -> None:
        self._live.stop()

    def begin(self, name: str, total: int | None, start: int) -> None:
        self._numbers, self._count = "", ""
        self._bar.add_task(name, total=total, completed=start, count="", time="")

    def show(self, step: int, shown: list[str], time_text: str) -> None:
        if not self._bar.tasks:
            self.begin("", None, 0)
        task = self._bar.tasks[0]
        self._numbers = "   ".join(shown)
        of = "" if task.total is None else f"/{task.total:.0f}"
        self._count = f"{step}{of}"
        self._bar.update(task.id, completed=step, count=self._count, time=time_text)

    def end(self, took: str) -> None:
        """Removes the stage's bar and prints a line about the stage above."""
        if not self._bar.tasks:
            return
        task = self._bar.tasks[0]
        parts = [task.description, self._count, f"took {took}", self._numbers]
        self._bar.remove_task(task.id)
        self._numbers = ""
        line = "   ".join(filter(None, parts))
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _render(self) -> RenderableType:
        if not self._bar.tasks:
            return Text()
        numbers = Text(f"  {self._numbers}", style="cyan", no_wrap=True)
        return Group(self._bar, numbers) if self._numbers else self._bar


def _number(value: Any) -> float | None:
    """A float, or None if it cannot be shown as a number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _clock_text(seconds: float) -> str:
    """Formats 75 seconds as 1:15 and 4000 as 1:06:40."""
    minutes, second = divmod(round(max(seconds, 0.0)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
