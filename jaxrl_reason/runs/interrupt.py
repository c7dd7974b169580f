"""Stopping a run with Ctrl-C without losing its state."""

import os
import signal
import threading
from types import FrameType
from typing import Any

from jaxrl_reason.sharding.agreement import exchange

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class GracefulInterrupt:
    """Turns the first Ctrl-C (or SIGTERM) into a flag that the loop checks.

    The loop checks `requested` after each step, saves, and returns with a message on
    how to resume. A second signal raises KeyboardInterrupt at once. Only the main
    thread may handle signals: in another thread this does nothing, and `requested`
    stays False.

    Args:
      message: printed to standard error at the first signal.

    >>> with GracefulInterrupt() as interrupt:
    ...     for step in range(3):
    ...         if interrupt.requested:
    ...             break
    """

    def __init__(
        self,
        message: str = "finishing this step, then saving; again to stop at once",
    ) -> None:
        self._signalled = False
        self._agreed = False
        self._message = message
        self._before: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether any process of the run got a signal; all ask at the same places."""
        self._agreed = self._agreed or any(exchange("interrupt", self._signalled))
        return self._agreed

    def __enter__(self) -> "GracefulInterrupt":
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            # None: set by something other than Python, which cannot be restored.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._signalled:
            raise KeyboardInterrupt
        self._signalled = True
        # Not print: a signal may come in the middle of another print.
        os.write(2, f"\n{signal.Signals(number).name}: {self._message}\n".encode())
