"""Stopping a run by a signal without losing its state."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from jaxrl_reason.runs.run_log import keep
from jaxrl_reason.sharding.agreement import exchange
from jaxrl_reason.sharding.lifetime import leave_together

# Statuses of a process (docs/preemption.md): EX_TEMPFAIL of sysexits.h, so whatever
# started the run starts it again; and what shells say of Ctrl-C.
REQUEUE, AT_ONCE = 75, 130

# A terminal that closes, or an ssh connection that breaks, sends SIGHUP.
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
# Seconds in which the main thread may notice a signal before another thread answers it:
# while it waits for a device it does not.
_NOTICE = 0.25
# Seconds that an orderly end after the second signal may take.
_PATIENCE = 5.0
# Ends into which this process writes its signals.
_PIPES: set[int] = set()


class GracefulInterrupt:
    """Turns the first Ctrl-C, SIGTERM or SIGHUP into a flag that the loop checks.

    The loop checks `requested` after each step, saves, and returns with a message on
    how to resume. A second signal raises KeyboardInterrupt at once; if the main thread
    does not answer (it waits for a device, or for a grader that hangs), the process
    ends with status 130 after a few seconds. A SIGHUP that is ignored when this is
    entered stays ignored (`nohup`). Only the main thread may handle signals: in another
    thread this does nothing, and `requested` stays False.

    Args:
      message: printed to standard error at the first signal.
      signals: names of further signals that count, such as "USR1".
      grace: seconds from the first signal after which the process ends with status 75,
        wherever it is, with the checkpoint of `hold`; 0 waits for the step.

    >>> with GracefulInterrupt() as interrupt:
    ...     for step in range(3):
    ...         if interrupt.requested:
    ...             break
    """

    def __init__(
        self,
        message: str = "finishing this step, then saving; again to stop at once",
        *,
        signals: Sequence[str] = (),
        grace: float = 0.0,
    ) -> None:
        self.grace = grace
        self._message = message
        self._names = [*_SIGNALS, *(f"SIG{name}" for name in signals)]
        self._signalled = threading.Event()
        self._agreed = False
        self._left = threading.Event()
        self._told = threading.Lock()  # taken by who answers the first signal
        self._held: Callable[[], int | None] | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._pipe: tuple[int, int] | None = None
        self._wakeup_before = -1

    @property
    def requested(self) -> bool:
        """Whether any process of the run got a signal; all ask at the same places."""
        asked = self._signalled.is_set()
        self._agreed = self._agreed or any(exchange("interrupt", asked))
        return self._agreed

    def hold(self, save: Callable[[], int | None]) -> None:
        """Says how to save the last finished step while the next one runs.

        Args:
          save: called once, in another thread, at the first signal if there is a grace
            period; returns the step of the newest checkpoint when it is in place, None
            if there is none.
        """
        self._held = save

    def __enter__(self) -> "GracefulInterrupt":
        if threading.current_thread() is not threading.main_thread():
            return self
        self._left.clear()
        for name in self._names:
            number = getattr(signal, name, None)  # Windows has fewer
            ignored = number and signal.getsignal(number) is signal.SIG_IGN
            if number is not None and not (name == "SIGHUP" and ignored):
                self._before[number] = signal.signal(number, self._handle)
        if os.name != "nt":  # where it takes sockets only
            self._pipe = os.pipe()
            for end in self._pipe:
                os.set_blocking(end, end == self._pipe[0])
            # Python's handlers run between two instructions of the main thread; a byte
            # for every signal is in the pipe at once.
            self._wakeup_before = signal.set_wakeup_fd(
                self._pipe[1], warn_on_full_buffer=False
            )
            _PIPES.add(self._pipe[1])
            threading.Thread(
                target=self._listen, args=(self._pipe[0],), daemon=True
            ).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._left.set()
        for number, handler in self._before.items():
            # None: set by something other than Python, which cannot be restored.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}
        if self._pipe is not None:
            signal.set_wakeup_fd(self._wakeup_before)
            _PIPES.discard(self._pipe[1])
            os.close(self._pipe[1])  # which ends the thread that listens
            self._pipe = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._signalled.is_set():
            raise KeyboardInterrupt
        self._answer(number)

    def _answer(self, number: int) -> None:
        """The first signal: notes it and says what happens now, once."""
        self._signalled.set()
        if self._told.acquire(blocking=False):
            # Not print: a signal may come in the middle of another print.
            _tell(f"\n{signal.Signals(number).name}: {self._message}\n")

    def _listen(self, end: int) -> None:
        """Counts signals in a thread of its own, also while the main thread waits."""
        came = 0
        while data := os.read(end, 16):
            for number in data:
                if number not in map(int, self._before):
                    continue  # of somebody else's handler
                came += 1
                if came == 1:
                    if not self._signalled.wait(_NOTICE):
                        self._answer(number)
                    if self.grace:
                        self._in_thread(self._leave_after_grace, number)
                elif came == 2:
                    self._in_thread(self._leave_at_once)
        os.close(end)

    def _in_thread(self, run: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(target=run, args=arguments, daemon=True).start()

    def _leave_at_once(self) -> None:
        if not self._left.wait(_PATIENCE):
            os._exit(AT_ONCE)

    def _save_held(self, found: list[str]) -> None:
        """Saves the last finished step; appends where a resumed run goes on."""
        if self._held is None:
            return
        try:
            step = self._held()
        except Exception as error:  # then an older checkpoint is the newest
            said = f"goes on from the newest checkpoint (the last step's: {error})"
        else:
            said = f"goes on from step {step}" if step else "starts this stage again"
        found.append(said)

    def _leave_after_grace(self, number: int) -> None:
        """Saves the last finished step, and leaves if the present one does not end."""
        found: list[str] = []
        # In a thread of its own: a disk that does not answer must not keep the process.
        self._in_thread(self._save_held, found)
        if not self._left.wait(self.grace):
            where = found[0] if found else "goes on from the newest checkpoint"
            text = (
                f"{signal.Signals(number).name}: this step has not ended within "
                f"{self.grace:g} seconds and is given up; --resume auto {where}"
            )
            _tell(f"\n{text}\n")
            keep(text)
            leave_together(text, REQUEUE)


def _after_fork() -> None:
    # A child would write into its parent's pipe, which would then count twice.
    if _PIPES:
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _tell(text: str) -> None:
    with contextlib.suppress(OSError):  # after SIGHUP there is no terminal
        os.write(2, text.encode())
