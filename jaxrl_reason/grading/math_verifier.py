"""Algebra on answers in worker processes, each answer within a deadline."""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import astuple

from jaxrl_reason.grading.algebra import algebraically_equal
from jaxrl_reason.grading.answer_policy import USUAL, AnswerPolicy
from jaxrl_reason.grading.worker_pool import WorkerPool

# A change of any verdict changes this: records of an evaluation name it.
GRADER_VERSION = 2
_REMEMBERED = 2**16
_Pair = tuple[str, str, AnswerPolicy]


class MathVerifier:
    r"""Decides by algebra whether two answers are equal, in a pool of workers.

    `algebraically_equal` is bounded by itself; here it also has a deadline and a memory
    limit, and many answers are checked at once. The verdict on a pair is remembered,
    since the samples of a question often agree.

    Args:
      deadline: seconds of wall-clock time per pair.
      workers: pairs at once; None for the number of cores.

    Attributes:
      counts: how often the verdict was "equal", "unequal" or "unchecked", which means
        that this answer exceeded a bound; it is then not right.

    Raises:
      ValueError: the deadline is not above 0, or workers is below 1.

    Example:
      >>> with MathVerifier(deadline=20) as verify:
      ...     verify(r"2\sqrt{2}", r"\sqrt{8}")
      True
    """

    def __init__(self, deadline: float = 10.0, workers: int | None = None) -> None:
        name = f"{__name__}:equal_in_worker"
        self._pool = WorkerPool(name, deadline, workers)
        self._known: OrderedDict[_Pair, bool | None] = OrderedDict()
        self.counts: Counter[str] = Counter()

    def __call__(
        self, gold: str, answer: str, policy: AnswerPolicy = USUAL
    ) -> bool | None:
        """Whether the answer equals the reference.

        Args:
          gold: the reference.
          answer: the answer.
          policy: reads what has several meanings.

        Returns:
          True or False; None if the answer exceeded a bound.

        Raises:
          WorkerError: no worker could be started.
        """
        return self.many([(gold, answer, policy)])[0]

    def many(self, pairs: Sequence[_Pair]) -> list[bool | None]:
        """The verdicts on many pairs, which are checked at once.

        Args:
          pairs: reference, answer and policy of each.

        Returns:
          The verdicts in order, as of a call.

        Raises:
          WorkerError: no worker could be started.
        """
        found = {pair: self._known[pair] for pair in pairs if pair in self._known}
        new = [pair for pair in dict.fromkeys(pairs) if pair not in found]
        jobs = [[gold, answer, *astuple(policy)] for gold, answer, policy in new]
        fresh = dict(zip(new, self._pool.map(jobs), strict=True))
        self._known.update(fresh)
        found |= fresh
        verdicts = [found[pair] for pair in pairs]
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        names = {True: "equal", False: "unequal", None: "unchecked"}
        self.counts.update(names[verdict] for verdict in verdicts)
        return verdicts

    def close(self) -> None:
        """Ends the workers."""
        self._pool.close()

    def __enter__(self) -> "MathVerifier":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def equal_in_worker(gold: str, answer: str, *policy: bool | str) -> bool | None:
    """`algebraically_equal` of what JSON can carry.

    Args:
      gold: the reference.
      answer: the answer.
      *policy: the fields of an `AnswerPolicy`.

    Returns:
      The verdict.
    """
    return algebraically_equal(gold, answer, AnswerPolicy(*policy))  # type: ignore[arg-type]
