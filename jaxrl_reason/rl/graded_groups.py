"""Grades of the responses of a round: of complete groups while others are drawn."""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jaxrl_reason.sampler import Completions
from jaxrl_reason.sampler.rollout_engine import OnResponse, ReportsResponses
from jaxrl_reason.sharding.agreement import exchange
from jaxrl_reason.sharding.processes import count, index
from jaxrl_reason.tasks.grade_responses import grade_responses, tell_failures
from jaxrl_reason.tasks.task import Graded, GradesTogether, ResponseText, Task

# The extra of rollouts that holds the parts of a task's rewards: [P, G, R].
REWARD_PARTS = "reward_parts"


@dataclass(frozen=True)
class GroupGrades:
    """The grades of P groups of G responses.

    Attributes:
      correct: [P, G] bool.
      format_ok: [P, G] bool.
      failed: [P, G] bool.
      unchecked: [P, G] bool.
      extras: `reward_parts` [P, G, R] of a task that gives rewards; nan where it
        failed.
    """

    correct: np.ndarray
    format_ok: np.ndarray
    failed: np.ndarray
    unchecked: np.ndarray
    extras: Mapping[str, np.ndarray]


class GroupGrading:
    """Grades the responses of one round.

    If the sampler reports responses, a group is graded in a thread as soon as its last
    response is complete; otherwise all are graded at the end. As a context it ends the
    thread, also when the sampler or a grader raises.

    Args:
      task: grades.
      problems: P problems.
      group_size: G.
      step: of the policy.
      parted: each process grades a part of the groups, and all get the grades of all.
      may_all_fail: whether it is no error that all grades fail.

    Attributes:
      ahead_seconds: that the thread has graded.
    """

    def __init__(
        self,
        task: Task,
        problems: Sequence[Any],
        group_size: int,
        *,
        step: int = 0,
        parted: bool = False,
        may_all_fail: bool = False,
    ) -> None:
        self.task, self.problems, self.group_size = task, problems, group_size
        self.step, self.parted = step, parted
        self.may_all_fail = may_all_fail
        self.ahead_seconds = 0.0
        self._texts: dict[int, ResponseText] = {}
        self._early: dict[int, Future[list[Graded]]] = {}  # of groups
        self._thread: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> "GroupGrading":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def hooks(self, sample: Any) -> dict[str, OnResponse]:
        """What a sampler gets besides its usual arguments.

        Args:
          sample: draws the responses.
        """
        reports = isinstance(sample, ReportsResponses) and sample.reports_responses
        if self.parted or grades_on_devices(self.task) or not reports:
            return {}
        self._thread = ThreadPoolExecutor(1, "grading")
        return {"on_response": self._complete}

    def _complete(self, row: int, tokens: list[int], truncated: bool) -> None:
        """Takes a response; starts to grade its group if it was the last one."""
        text = ResponseText(self.task.tokenizer.decode(tokens), len(tokens), truncated)
        group = row // self.group_size
        with self._lock:
            self._texts[row] = text
            whole = all(i in self._texts for i in self._rows(group))
        if whole and self._thread is not None:
            self._early[group] = self._thread.submit(self._ahead, group)

    def _ahead(self, group: int) -> list[Graded]:
        start = time.perf_counter()
        found = self._grade([group])
        self.ahead_seconds += time.perf_counter() - start
        return found

    def finish(self, done: Completions) -> GroupGrades:
        """The grades of all responses.

        A response on which the grader fails is counted, logged once per round and left
        out of the batch's statistics.

        Args:
          done: of all rows.

        Raises:
          GraderError: the grader failed on every response.
        """
        size = len(done.lengths) // self.group_size
        groups = range(index(), size, count()) if self.parted else range(size)
        for i in (i for group in groups for i in self._rows(group)):
            ids = done.tokens[i, : done.lengths[i]].tolist()
            if i not in self._texts:
                text = self.task.tokenizer.decode(ids)
                self._texts[i] = ResponseText(text, len(ids), bool(done.truncated[i]))
        # One after the other: graders need not know threads.
        found = {group: future.result() for group, future in self._early.items()}
        late = [group for group in groups if group not in found]
        found |= zip(late, self._by_group(self._grade(late)), strict=True)
        if self.parted:
            mine = [asdict(x) for group in groups for x in found[group]]
            found = {}
            for part, rows in enumerate(exchange("verdicts", mine)):
                each = self._by_group([Graded(**x) for x in rows])
                found |= zip(range(part, size, count()), each, strict=True)
        return self._arrays([x for group in range(size) for x in found[group]])

    def _rows(self, group: int) -> range:
        return range(group * self.group_size, (group + 1) * self.group_size)

    def _by_group(self, grades: list[Graded]) -> list[list[Graded]]:
        g = self.group_size
        return [grades[i : i + g] for i in range(0, len(grades), g)]

    def _grade(self, groups: Sequence[int]) -> list[Graded]:
        rows = [i for group in groups for i in self._rows(group)]
        problems = [self.problems[i // self.group_size] for i in rows]
        return grade_responses(
            self.task, problems, [self._texts[i] for i in rows], self.step
        )

    def _arrays(self, grades: list[Graded]) -> GroupGrades:
        tell_failures(grades, may_all_fail=self.may_all_fail)
        shape = (-1, self.group_size)
        extras = {}
        if isinstance(self.task, GradesTogether):
            names = self.task.part_names([x.parts for x in grades])
            parts = [
                [x.parts[name] for name in names]
                if x.parts is not None and set(x.parts) == set(names)
                else [np.nan] * len(names)
                for x in grades
            ]
            # No names, so no numbers, if every response has failed so far.
            groups = len(grades) // self.group_size
            extras[REWARD_PARTS] = np.array(parts, np.float32).reshape(
                groups, self.group_size, len(names)
            )
        return GroupGrades(
            correct=np.array([x.correct for x in grades], bool).reshape(shape),
            format_ok=np.array([x.format_ok for x in grades], bool).reshape(shape),
            failed=np.array([x.failed for x in grades], bool).reshape(shape),
            unchecked=np.array([x.unchecked for x in grades], bool).reshape(shape),
            extras=extras,
        )


def grades_on_devices(task: Task) -> bool:
    """Whether grading runs programs on the devices that train.

    Two threads must not start programs on several devices, since these may begin in
    another order on each.

    Args:
      task: grades.
    """
    return isinstance(task, GradesTogether) and task.needs_devices
