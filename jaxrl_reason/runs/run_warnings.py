"""The warnings of a run: each said once, kept in its rows, and perhaps its end."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from jaxrl_reason.runs.metrics_log import Row
from jaxrl_reason.runs.run_log import say
from jaxrl_reason.runs.warning_signs import (
    MetricRow,
    WarningSettings,
    WarningSign,
    check_causes,
    warning_signs,
)

# Group of the columns that say in which rows there was a sign.
GROUP = "warning"


class StoppedByWarning(RuntimeError):
    """The run ended at a warning, as its settings ask."""


class RunWarnings:
    """Looks for signs in every row of a loop.

    Args:
      settings: thresholds.
      stop_on: causes that end the run.
      tell: prints a line.
      rows: of the loop before this process, for a resumed run.

    Raises:
      ValueError: an unknown cause.
    """

    def __init__(
        self,
        settings: WarningSettings | None = None,
        stop_on: Sequence[str] = (),
        tell: Callable[[str], None] = say,
        rows: Sequence[MetricRow] = (),
    ) -> None:
        check_causes("stop_on", stop_on)
        self.settings, self.stop_on = settings or WarningSettings(), tuple(stop_on)
        size = self.settings.history + self.settings.rows
        self._rows: deque[MetricRow] = deque(rows, maxlen=size)
        self._tell, self._told = tell, set[str]()
        self._stops: WarningSign | None = None

    def look(self, step: int, row: Row) -> Row:
        """Looks at a finished row, and says what was not said before.

        Args:
          step: of the row.
          row: its metrics.

        Returns:
          `warning/<cause>` = 1 for each sign.
        """
        self._rows.append({"step": step, **row})
        signs = warning_signs(list(self._rows), self.settings)
        for sign in signs:
            if sign.cause not in self._told:
                self._told.add(sign.cause)
                self._tell(str(sign))
            if sign.cause in self.stop_on and self._stops is None:
                self._stops = sign
        return {f"{GROUP}/{sign.cause}": 1.0 for sign in signs}

    @property
    def stopping(self) -> bool:
        """Whether a cause was seen that ends the run."""
        return self._stops is not None

    def stop_if_asked(self) -> None:
        """Ends the run if a cause was seen that does so; the state is saved by then.

        Raises:
          StoppedByWarning: with the sign.
        """
        if self._stops is not None:
            raise StoppedByWarning(
                f"stopped and saved, as --stop-on {self._stops.cause} asks: "
                f"{self._stops}"
            )


def warnings_of_run(
    rows: Sequence[MetricRow], settings: WarningSettings | None = None
) -> list[dict[str, Any]]:
    """The warnings of a whole run, for its report.

    Args:
      rows: of the run, oldest first, with the columns of `RunWarnings.look`.
      settings: thresholds.

    Returns:
      For each cause its first sign in words, the first and the last step and the number
      of rows.
    """
    settings = settings or WarningSettings()
    first: dict[str, WarningSign] = {}
    where: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        causes = [name.partition("/")[2] for name in row if name.startswith(GROUP)]
        for cause in causes:
            where.setdefault(cause, []).append(int(row["step"]))
        if set(causes) - first.keys():
            for sign in warning_signs(rows[: i + 1], settings):
                first.setdefault(sign.cause, sign)
    return [
        {
            "cause": cause,
            "what": first[cause].what,
            "look_at": first[cause].look_at,
            "first_step": steps[0],
            "last_step": steps[-1],
            "rows": len(steps),
        }
        for cause, steps in where.items()
        if cause in first
    ]
