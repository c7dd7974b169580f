"""A user's reward function in worker processes."""

import re
from collections.abc import Sequence

from jaxrl_reason.grading.reward_call import ASYNC_PART, AboutReward, Scored
from jaxrl_reason.grading.worker_pool import MEMORY_BYTES, WorkerPool
from jaxrl_reason.tasks.reward_functions import Asked, collect_scores, reward_jobs

# FILE.py:NAME or NAME, then perhaps :WEIGHT
_SPEC = re.compile(r"(?P<place>.+?)(?::(?P<weight>[-+]?[0-9][0-9.eE+-]*))?")
# Seconds of a call, unless another number is given.
WORKER_SECONDS = 10.0


def read_spec(text: str) -> tuple[str, float]:
    """A reward as the command line names it, and its weight.

    Args:
      text: `my_file.py:my_reward`, `package.module:function` or the name of a reward of
        this library, with `:WEIGHT` behind it if it is not 1.

    Returns:
      The place or name, and the weight.

    Raises:
      ValueError: the weight is no number.

    Example:
      >>> read_spec("mine.py:short:0.1"), read_spec("answer")
      (('mine.py:short', 0.1), ('answer', 1.0))
    """
    match = _SPEC.fullmatch(text)
    if match is None:
        raise ValueError(f"reward must be my_file.py:my_function, got {text!r}")
    weight = match["weight"]
    try:
        return match["place"], 1.0 if weight is None else float(weight)
    except ValueError as error:
        raise ValueError(f"a reward's weight must be a number, got {text!r}") from error


class FunctionReward:
    """A reward function in a pool of workers.

    Each call gets copies, has a deadline and a memory limit, and sees no accelerator.
    What it raises, a deadline that passes or a worker that dies makes its responses
    fail.

    Args:
      place: `my_file.py:my_reward` or `package.module:function`.
      deadline: seconds of a call: of one response, or of all to a prompt if the
        function takes them together.
      workers: calls at once; None for the number of cores.
      memory_bytes: that a call may take.

    Raises:
      ValueError: a setting is out of range.
    """

    needs_devices = False

    def __init__(
        self,
        place: str,
        deadline: float = WORKER_SECONDS,
        workers: int | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.place, self.name = place, place.rpartition(":")[2]
        self._pool = WorkerPool(
            "jaxrl_reason.grading.reward_call:reward_in_worker",
            deadline,
            workers,
            memory_bytes,
            given=f"{place} {deadline * ASYNC_PART}",
        )
        self._about: AboutReward | None = None

    @property
    def about(self) -> AboutReward:
        """How the function is called.

        Raises:
          WorkerError: the function cannot be loaded.
        """
        if self._about is None:
            self._about = AboutReward(**self._pool.start())
        return self._about

    def score(self, asked: Sequence[Asked]) -> list[list[Scored]]:
        """The function's scores, many calls at once.

        Args:
          asked: the responses.

        Returns:
          The scores.

        Raises:
          WorkerError: a worker could not be started.
        """
        jobs = reward_jobs(asked, self.about.whole_groups)
        return collect_scores(asked, jobs, self._pool.run(jobs))

    def close(self) -> None:
        """Ends the workers."""
        self._pool.close()
