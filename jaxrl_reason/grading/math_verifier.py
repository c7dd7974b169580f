"""math-verify, with an allow-list for its input and a hard deadline."""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import multiprocessing
import re
from collections import Counter
from types import TracebackType
from typing import Any

from jaxrl_reason.grading import math_worker

# Commands, single letters, numbers and signs: no names, and nothing to call.
_COMMANDS = (
    "frac sqrt pi cdot times div pm mp infty cup cap setminus leq geq neq sin cos tan "
    "cot sec csc arcsin arccos arctan ln log theta alpha beta gamma lambda mu omega phi"
)
_READABLE = re.compile(
    rf"(?:\\(?:{'|'.join(_COMMANDS.split())})(?![A-Za-z])|\\[{{}}\\]"
    r"|\\(?:begin|end)\{[pbv]matrix\}|[A-Za-z]{1,2}(?![A-Za-z])|[0-9]{1,20}(?![0-9])"
    r"|[-+*/^_()\[\]{},.=<>|& ])*+"
)
_TOWER = re.compile(r"\^\{[^{}]*(?:\^|[0-9]{4})")
_LETTER = re.compile(r"\\[A-Za-z]+|([A-Za-z])")


class MathVerifier:
    """Decides by algebra whether two LaTeX answers are equal, within a deadline.

    math-verify runs in one worker process. A call that exceeds the deadline or crashes
    ends the worker and counts as failed; the next call gets a new worker. Needs the
    packages of the extra "math". The worker is spawned, so a script that uses this must
    have its own code under `if __name__ == "__main__":`.

    Args:
      deadline: seconds of wall-clock time per pair.

    Attributes:
      counts: how often the verdict was "equal", "unequal", "failed", or "refused"
        before the worker saw the pair.

    Raises:
      ValueError: the deadline is not above 0.
      ImportError: the packages are missing; the message says what to install.

    Example:
      >>> verifier_available() in (True, False)
      True
    """

    def __init__(self, deadline: float = 10.0) -> None:
        if not deadline > 0:
            raise ValueError(f"deadline must be above 0 seconds, got {deadline}")
        if not verifier_available():
            raise ImportError(
                "checking LaTeX answers by algebra needs math-verify and pebble: "
                "`pip install 'jaxrl-reason[math]'`"
            )
        self.deadline = deadline
        self.counts: Counter[str] = Counter()
        self._pool: Any = None

    def __call__(self, gold: str, answer: str) -> bool | None:
        """Whether the answer equals the reference.

        Args:
          gold: the reference, LaTeX in normal form.
          answer: likewise.

        Returns:
          True or False; None if there was no verdict within the deadline.
        """
        verdict: bool | None = False
        # math-verify takes r for R, and 1.047198 for a third of pi.
        more = _letters(answer) - _letters(gold)
        rounded = "." in answer and "." not in gold
        refused = bool(more) or rounded or not readable(answer)
        if not refused:
            verdict = self._in_worker(gold, answer)
        names = {True: "equal", False: "unequal", None: "failed"}
        self.counts["refused" if refused else names[verdict]] += 1
        return verdict

    def close(self) -> None:
        """Ends the worker."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def __enter__(self) -> "MathVerifier":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _in_worker(self, gold: str, answer: str) -> bool | None:
        if self._pool is None:
            pebble = importlib.import_module("pebble")
            self._pool = pebble.ProcessPool(
                max_workers=1,
                # A fork of a process with JAX's threads may hang.
                context=multiprocessing.get_context("spawn"),
                initializer=math_worker.prepare,
            )
        try:
            future = self._pool.schedule(
                math_worker.equal, args=[gold, answer], timeout=self.deadline
            )
            # The pool kills the worker at the deadline. Starting a worker takes seconds
            # that do not count for the answer, but must have a limit too.
            return bool(future.result(timeout=self.deadline + 60))
        except RuntimeError:  # the pool is broken: the next call makes a new one
            with contextlib.suppress(Exception):
                self.close()
            self._pool = None
        except Exception:
            return None  # deadline, death of the worker, or an error of math-verify
        return None


def verifier_available() -> bool:
    """Whether the packages of the extra "math" are installed."""
    return all(importlib.util.find_spec(name) for name in ("math_verify", "pebble"))


def verifier_version() -> str | None:
    """The version of math-verify, None if it is not installed."""
    return importlib.metadata.version("math-verify") if verifier_available() else None


def readable(text: str) -> bool:
    r"""Whether an expression holds nothing but known commands, letters and numbers.

    Args:
      text: LaTeX in normal form.

    Returns:
      False for unknown commands, words, towers of powers and huge numbers.

    Example:
      >>> [readable(text) for text in (r"2\sqrt{2}", r"\input{a}", "9^{9^9}")]
      [True, False, False]
    """
    return _READABLE.fullmatch(text) is not None and not _TOWER.search(text)


def _letters(text: str) -> set[str]:
    """The variables of an expression."""
    return {letter for letter in _LETTER.findall(text) if letter}
