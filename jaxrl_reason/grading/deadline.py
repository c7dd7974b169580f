"""Calls in this process, each with a deadline.

A function that hangs for ever must not hang the run. Worker processes (`WorkerPool`)
can end any call; here a late call is interrupted by an exception: in the main thread by
an alarm, which also ends a regular expression that backtracks for ever, and elsewhere
by one that Python raises in the call's own thread. What does not react to that (a call
that waits in C) goes on alone in a thread that nobody waits for.
"""

import ctypes
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from jaxrl_reason.grading.pool_worker import Late, interrupt
from jaxrl_reason.grading.spoken_error import spoken_error
from jaxrl_reason.grading.worker_pool import Outcome

# Once so many calls were late, further ones get this part (1 in 40) of the deadline.
_LATE, _SHORT = 3, 40
# Seconds in which a thread that runs Python sees an exception.
_REACTION = 0.2


def call_each(
    function: Callable[..., Any], jobs: Sequence[Sequence[Any]], seconds: float
) -> list[Outcome]:
    """Calls a function on many arguments, one after the other.

    Whatever a call does, the others are made: what it raises is its outcome, but for
    KeyboardInterrupt. Once three were late, each further one has a fortieth of the
    deadline.

    Args:
      function: any.
      jobs: the arguments of each call.
      seconds: of wall-clock time per call.

    Returns:
      One outcome per call, in their order.

    Example:
      >>> [x.value for x in call_each(lambda x: 1 / x, [[2], [0]], seconds=5)]
      [0.5, None]
    """
    limits = _Limits(seconds)
    if _has_alarm():
        return _by_alarm(function, jobs, limits)
    return _in_threads(function, jobs, limits)


class _Limits:
    """The seconds of the next call."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.late = seconds, 0

    def next(self) -> float:
        return self.seconds if self.late < _LATE else self.seconds / _SHORT

    def lost(self, seconds: float) -> Outcome:
        """What became of a call that took so long."""
        self.late += 1
        error = f"not done after {seconds:g} seconds"
        return Outcome(error=error, late=True, seconds=seconds)


def outcome_of(function: Callable[..., Any], job: Sequence[Any]) -> Outcome:
    """What becomes of a call without a deadline.

    Args:
      function: any.
      job: its arguments.

    Returns:
      The result, or what it raised; only KeyboardInterrupt is raised.

    Example:
      >>> outcome_of(int, ["x"]).error  # doctest: +ELLIPSIS
      "ValueError: invalid literal for int() with base 10: 'x'..."
    """
    try:
        return Outcome(function(*job))
    except (KeyboardInterrupt, Late):
        raise
    except BaseException as error:  # also SystemExit, and a panic of a Rust library
        return Outcome(error=spoken_error(error))


def _has_alarm() -> bool:
    """Whether this is the main thread, and nobody else has set an alarm."""
    return (
        threading.current_thread() is threading.main_thread()
        and hasattr(signal, "setitimer")
        and signal.getitimer(signal.ITIMER_REAL)[0] == 0
    )


def _by_alarm(
    function: Callable[..., Any], jobs: Sequence[Sequence[Any]], limits: _Limits
) -> list[Outcome]:
    found: list[Outcome] = []
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for job in jobs:
            seconds = limits.next()
            try:
                signal.setitimer(signal.ITIMER_REAL, seconds)
                try:
                    outcome = outcome_of(function, job)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except Late:
                outcome = limits.lost(seconds)
            found.append(outcome)
    finally:
        # None: set by something other than Python, which cannot be restored.
        signal.signal(signal.SIGALRM, signal.SIG_DFL if before is None else before)
    return found


def _in_threads(
    function: Callable[..., Any], jobs: Sequence[Sequence[Any]], limits: _Limits
) -> list[Outcome]:
    found: list[Outcome] = []
    while len(found) < len(jobs):
        caller = _Caller(function, jobs[len(found) :])
        seconds = caller.wait(limits)
        found += caller.outcomes
        if seconds is not None:
            found.append(limits.lost(seconds))
    return found


class _Caller:
    """A thread that makes calls, until somebody stops waiting for one of them."""

    def __init__(
        self, function: Callable[..., Any], jobs: Sequence[Sequence[Any]]
    ) -> None:
        self.outcomes: list[Outcome] = []
        self._function, self._jobs = function, jobs
        self._began = time.monotonic()
        self._given_up = False
        self._change = threading.Condition()
        # A daemon: the program may end while it hangs.
        self._thread = threading.Thread(
            target=self._run, name="jaxrl-call", daemon=True
        )
        self._thread.start()

    def wait(self, limits: _Limits) -> float | None:
        """Waits for all calls; the seconds that a late one had, after which it ends."""
        with self._change:
            while len(self.outcomes) < len(self._jobs):
                seconds = limits.next()
                left = self._began + seconds - time.monotonic()
                if left <= 0:
                    self._given_up = True
                    break
                self._change.wait(left)
            else:
                return None
        self._interrupt()
        return seconds

    def _run(self) -> None:
        try:
            for job in self._jobs:
                outcome = outcome_of(self._function, job)
                with self._change:
                    if self._given_up:
                        return
                    self.outcomes.append(outcome)
                    self._began = time.monotonic()
            with self._change:
                self._change.notify()
        except Late:
            pass

    def _interrupt(self) -> None:
        """Raises Late in the thread, unless it waits in C, where none is seen."""
        _raise_in(self._thread, Late)
        self._thread.join(_REACTION)
        if self._thread.is_alive():
            # An exception that is not taken slows down all threads, and profilers hang.
            _raise_in(self._thread, None)
            _take_one()


def _raise_in(thread: threading.Thread, error: type[BaseException] | None) -> None:
    """Raises an exception at the next line of a thread; None takes it back."""
    raised = None if error is None else ctypes.py_object(error)
    number = ctypes.c_ulong(thread.ident or 0)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(number, raised)


def _take_one() -> None:
    """Takes such an exception in a thread of its own: with that, none is open."""

    def take() -> None:
        try:
            _raise_in(threading.current_thread(), Late)
            for _ in range(1000):
                time.sleep(0)
        except Late:
            pass

    taker = threading.Thread(target=take, daemon=True)
    taker.start()
    taker.join()
