"""Streams of problems that adapt to the outcomes so far.

After each step they `observe` the outcomes of all groups sampled in it. Their batches
depend only on seed, position and observations, and `get_state` returns the last two: a
resumed run draws the same problems.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxrl_reason.data.pass_rates import each
from jaxrl_reason.data.pipeline import ProblemSequence, ProblemStream
from jaxrl_reason.data.strategies import EasyPool, resample_history


class HistoryResampling:
    """Epochs over problems that are not always solved: SRPO, arXiv 2504.14286.

    At the end of an epoch the problems whose answers were all right are dropped; mixed
    and all-wrong ones stay (`resample_history`). A problem that the epoch left out,
    because the remainder did not fill a batch or no answer could be graded, stays too.
    When fewer problems remain than a batch needs, all come back and the history starts
    again. The paper does not say what it does then.

    Outcomes count in the epoch in which they are observed. With dynamic sampling a step
    may draw from the next epoch before the last batch of the previous one is observed;
    the problems of that batch are then dropped one epoch later.

    Args:
      problems: with a `problem_id` each, no two the same.
      batch_size: problems per batch, P.
      seed: of the order of each epoch.

    Raises:
      ValueError: there are fewer problems than a batch needs, or two with one id.

    Example:
      >>> from jaxrl_reason.tasks.countdown import Problem
      >>> puzzles = [Problem((1, 2), n, f"{n}", n) for n in range(4)]
      >>> stream = HistoryResampling(puzzles, batch_size=2, seed=0)
      >>> for _ in range(2):  # one epoch; 1 and 3 are always solved
      ...     ids = [p.problem_id for p in next(stream)]
      ...     row = stream.observe(ids, [8 * (i % 2) for i in ids], 8)
      >>> sorted(p.problem_id for p in next(stream))
      [0, 2]
    """

    def __init__(
        self, problems: ProblemSequence, *, batch_size: int, seed: int
    ) -> None:
        self._problems = problems
        self._places = _places(problems, batch_size, seed)
        self._setup = _setup(problems, batch_size, seed)
        self._epoch, self._next = 0, 0
        self._active = sorted(self._places)
        self._history: dict[int, tuple[int, int]] = {}  # id -> right, samples

    def find(self, problem_id: int) -> Any:
        """The problem of a number."""
        return self._problems[self._places[problem_id]]

    def __iter__(self) -> "HistoryResampling":
        return self

    def __next__(self) -> list[Any]:
        size = self._setup["batch_size"]
        if self._next == len(self._active) // size:
            self._begin_epoch()
        rng = np.random.default_rng((self._setup["seed"], self._epoch))
        order = rng.permutation(self._active)
        ids = order[self._next * size : (self._next + 1) * size]
        self._next += 1
        return [self._problems[self._places[int(i)]] for i in ids]

    def _begin_epoch(self) -> None:
        right, samples = [[c[k] for c in self._history.values()] for k in (0, 1)]
        seen = np.array(list(self._history), np.int64)
        counts = np.array(right, np.int64), np.array(samples, np.int64)
        kept = resample_history(seen, *counts).tolist()
        unseen = [i for i in self._active if i not in self._history]
        self._active = sorted([*kept, *unseen])
        if len(self._active) < self._setup["batch_size"]:
            self._active = sorted(self._places)
        self._history = {}
        self._epoch, self._next = self._epoch + 1, 0

    def observe(
        self, problem_ids: ArrayLike, num_correct: ArrayLike, num_samples: ArrayLike
    ) -> dict[str, float]:
        """Records the outcomes of groups of this stream.

        Args:
          problem_ids: [N].
          num_correct: [N] right answers.
          num_samples: [N] answers that could be judged, or one number for all.

        Returns:
          `data/problems_active`, the problems of this epoch.

        Raises:
          ValueError: a problem is not of this stream.
        """
        ids = _own_ids(problem_ids, self._places)
        samples = np.broadcast_to(np.asarray(num_samples), len(ids)).tolist()
        correct = np.asarray(num_correct).tolist()
        for i, c, n in zip(ids, correct, samples, strict=True):
            if n:  # none could be graded: not visited
                right, total = self._history.get(i, (0, 0))
                self._history[i] = (right + c, total + n)
        return {"data/problems_active": len(self._active)}

    def get_state(self) -> dict[str, Any]:
        """Epoch, position in it, its problems and its outcomes so far, for JSON."""
        return {
            **self._setup,
            "epoch": self._epoch,
            "next_batch": self._next,
            "active": list(self._active),
            "history": [[i, c, n] for i, (c, n) in self._history.items()],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues exactly where `get_state` was called.

        Raises:
          ValueError: the state is of another stream; names what differs.
        """
        _check_setup(self._setup, state)
        self._epoch, self._next = state["epoch"], state["next_batch"]
        self._active = list(state["active"])
        self._history = {i: (c, n) for i, c, n in state["history"]}


class EasyPoolStream:
    """MiMo's easy-data resampling (arXiv 2505.07608): a stream with an `EasyPool`.

    Each problem of a batch comes with probability `alpha` from the pool of problems
    that were all right when last seen, otherwise from passes over all problems as in
    `ProblemStream`. The passes skip no problem: one that is already in the batch waits
    for a later batch. MiMo turns this on when dynamic sampling gets slow; here it is on
    from the start, with an empty pool.

    Args:
      problems: with a `problem_id` >= 0 each, no two the same.
      batch_size: problems per batch, P.
      seed: for the passes and the draws from the pool.
      alpha: probability of the pool, in [0, 1].

    Raises:
      ValueError: there are fewer problems than a batch needs, two with one id, or
        `alpha` is out of its range.

    Example:
      >>> from jaxrl_reason.tasks.countdown import Problem
      >>> puzzles = [Problem((1, 2), n, f"{n}", n) for n in range(6)]
      >>> stream = EasyPoolStream(puzzles, batch_size=3, seed=0, alpha=1.0)
      >>> stream.observe([2, 4], [8, 7], 8)
      {'data/problems_pool': 1}
      >>> 2 in [p.problem_id for p in next(stream)]
      True
    """

    def __init__(
        self,
        problems: ProblemSequence,
        *,
        batch_size: int,
        seed: int,
        alpha: float = 0.1,
    ) -> None:
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], got {alpha}")
        self._problems = problems
        self._places = _places(problems, batch_size, seed)
        if min(self._places) < 0:
            raise ValueError(f"problem ids must be >= 0, got {min(self._places)}")
        self._setup = {**_setup(problems, batch_size, seed), "alpha": alpha}
        self._stream = ProblemStream(problems, batch_size=batch_size, seed=seed)
        self._pool = EasyPool(seed=seed)
        self._waiting: list[int] = []  # drawn by the passes, not yet in a batch

    def find(self, problem_id: int) -> Any:
        """The problem of a number."""
        return self._problems[self._places[problem_id]]

    def __iter__(self) -> "EasyPoolStream":
        return self

    def __next__(self) -> list[Any]:
        size, alpha = self._setup["batch_size"], self._setup["alpha"]
        drawn, self._pool = self._pool.drawn(size, alpha=alpha)
        ids = drawn.tolist()
        for place, i in enumerate(ids):
            if i < 0:
                ids[place] = self._as_usual(ids)
        return [self._problems[self._places[i]] for i in ids]

    def _as_usual(self, batch: list[int]) -> int:
        """The next id of the passes that is not in the batch."""
        while True:
            for place, i in enumerate(self._waiting):
                if i not in batch:
                    return self._waiting.pop(place)
            self._waiting += [int(p.problem_id) for p in next(self._stream)]

    def observe(
        self, problem_ids: ArrayLike, num_correct: ArrayLike, num_samples: ArrayLike
    ) -> dict[str, float]:
        """Adds problems that were always right to the pool and removes the others.

        Args:
          problem_ids: [N].
          num_correct: [N] right answers.
          num_samples: [N] answers that could be judged, or one number for all.

        Returns:
          `data/problems_pool`, the problems in the pool.

        Raises:
          ValueError: a problem is not of this stream, or the counts are invalid.
        """
        ids = _own_ids(problem_ids, self._places)
        self._pool = self._pool.updated(ids, num_correct, num_samples)
        return {"data/problems_pool": len(self._pool.members)}

    def get_state(self) -> dict[str, Any]:
        """Pool, waiting problems and the passes' position, for JSON."""
        return {
            **self._setup,
            "pool": {"members": list(self._pool.members), "draws": self._pool.draws},
            "waiting": list(self._waiting),
            "stream": self._stream.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues exactly where `get_state` was called.

        Raises:
          ValueError: the state is of another stream; names what differs.
        """
        _check_setup(self._setup, state)
        self._pool = EasyPool(seed=self._setup["seed"], **state["pool"])
        self._waiting = list(state["waiting"])
        self._stream.set_state(state["stream"])


def _places(problems: ProblemSequence, batch_size: int, seed: int) -> dict[int, int]:
    """Problem id -> position, after the checks that every stream needs."""
    if batch_size < 1 or seed < 0:
        raise ValueError(
            f"batch_size must be >= 1 and seed >= 0, got {batch_size} and {seed}"
        )
    if len(problems) < batch_size:
        raise ValueError(
            f"a batch of {batch_size} problems needs at least as many, "
            f"got {len(problems)}"
        )
    places = {int(p.problem_id): at for at, p in enumerate(each(problems))}
    if len(places) != len(problems):
        raise ValueError(
            f"problem ids must differ, got {len(places)} ids of {len(problems)} "
            "problems"
        )
    return places


def _setup(problems: ProblemSequence, batch_size: int, seed: int) -> dict[str, Any]:
    """What a state must have in common with its stream."""
    return {"seed": seed, "batch_size": batch_size, "problems": len(problems)}


def _check_setup(setup: dict[str, Any], state: dict[str, Any]) -> None:
    for name, value in setup.items():
        if state.get(name) != value:
            raise ValueError(
                f"the state must be of a stream with {name} {value}, "
                f"got {state.get(name)}"
            )


def _own_ids(problem_ids: ArrayLike, places: dict[int, int]) -> list[int]:
    ids = [int(i) for i in np.asarray(problem_ids, np.int64)]
    foreign = [i for i in ids if i not in places]
    if foreign:
        raise ValueError(f"problems must be of this stream, got {foreign[:8]}")
    return ids
