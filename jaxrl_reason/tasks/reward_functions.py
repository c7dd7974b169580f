"""Rewards: users' functions in this process, a task's own answers, what they get."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from jaxrl_reason.grading.deadline import call_each
from jaxrl_reason.grading.reward_call import (
    ASYNC_PART,
    RewardCaller,
    Scored,
    inspect_reward,
)
from jaxrl_reason.grading.worker_pool import Outcome
from jaxrl_reason.tasks.grade_responses import GRADE_SECONDS
from jaxrl_reason.tasks.task import ResponseText


@dataclass(frozen=True)
class Asked:
    """A problem and responses to it, as a reward gets them.

    Attributes:
      prompt: the question if the problem has one, or else the prompt's text.
      row: that of the file, or else the problem's fields.
      responses: to the prompt, without the text of an EOS token.
      step: of the training.
      max_tokens: the length limit of a response; 0 if it is not known.
      correct: whether each is right by the task's own grade, if that is asked for.
    """

    prompt: str
    row: Mapping[str, Any]
    responses: tuple[ResponseText, ...]
    step: int = 0
    max_tokens: int = 0
    correct: tuple[bool, ...] | None = None


class Reward(Protocol):
    """Scores responses."""

    @property
    def name(self) -> str:
        """Of the reward, in metrics."""

    @property
    def needs_devices(self) -> bool:
        """Whether it runs programs on this program's devices."""

    def score(self, asked: Sequence[Asked]) -> list[list[Scored]]:
        """For every response its parts and whether it is right, or what went wrong."""

    def close(self) -> None:
        """Ends its workers."""


@dataclass(frozen=True)
class AnswerReward:
    """1 for a response that is right by the task's own grade, else 0."""

    name: ClassVar[str] = "answer"
    needs_devices: ClassVar[bool] = False

    def score(self, asked: Sequence[Asked]) -> list[list[Scored]]:
        """1 or 0 for every response.

        Args:
          asked: with `correct`.

        Returns:
          The scores.
        """
        return [
            [({"reward": float(right)}, right) for right in one.correct or ()]
            for one in asked
        ]

    def close(self) -> None:
        """Has nothing to end."""


@dataclass(frozen=True)
class InProcessReward:
    """A function called in this process, with all that it can reach.

    Attributes:
      function: f(prompt, response, row, **context); see `RewardCaller`.
      name: of the reward.
      needs_devices: whether it runs programs on this program's devices.
      deadline: seconds of a call: of one response, or of all to a prompt if the
        function takes them together.
    """

    function: Callable[..., Any]
    name: str = "reward"
    needs_devices: bool = False
    deadline: float = GRADE_SECONDS

    def score(self, asked: Sequence[Asked]) -> list[list[Scored]]:
        """The function's scores.

        Args:
          asked: the responses.

        Returns:
          The scores.
        """
        about = inspect_reward(self.function)
        call = RewardCaller(self.function, self.deadline * ASYNC_PART)
        jobs = reward_jobs(asked, about.whole_groups)
        return collect_scores(asked, jobs, call_each(call, jobs, self.deadline))

    def close(self) -> None:
        """Has nothing to end."""


def reward_jobs(asked: Sequence[Asked], whole_groups: bool) -> list[tuple[Any, ...]]:
    """The arguments of the calls of a `RewardCaller`.

    Args:
      asked: the responses.
      whole_groups: one call for all responses to a prompt, not one for each.

    Returns:
      Those of each call.
    """
    jobs: list[tuple[Any, ...]] = []
    for one in asked:
        prompt, texts, row, shared, each = call_arguments(one)
        parts = (
            [range(len(texts))] if whole_groups else [[i] for i in range(len(texts))]
        )
        for part in parts:
            own = {name: [x[i] for i in part] for name, x in each.items()}
            jobs.append((prompt, [texts[i] for i in part], row, shared, own))
    return jobs


def collect_scores(
    asked: Sequence[Asked],
    jobs: Sequence[tuple[Any, ...]],
    outcomes: Sequence[Outcome],
) -> list[list[Scored]]:
    """The scores of all responses, from what became of the calls.

    Args:
      asked: the responses.
      jobs: of `reward_jobs`.
      outcomes: of the jobs.

    Returns:
      The scores, as asked.
    """
    scores: list[Scored] = []
    for job, outcome in zip(jobs, outcomes, strict=True):
        if outcome.error is not None:
            scores += [outcome.error] * len(job[1])
            continue
        scores += [x if isinstance(x, str) else (x[0], x[1]) for x in outcome.value]
    found, at = [], 0
    for one in asked:
        found.append(scores[at : at + len(one.responses)])
        at += len(one.responses)
    return found


def call_arguments(asked: Asked) -> tuple[Any, ...]:
    """The arguments of a `RewardCaller`.

    Args:
      asked: a problem and responses.

    Returns:
      Prompt, texts, row, the context of all responses and that of each.
    """
    each: dict[str, list[Any]] = {
        "tokens": [x.length for x in asked.responses],
        "truncated": [x.truncated for x in asked.responses],
    }
    if asked.correct is not None:
        each["correct"] = list(asked.correct)
    shared = {"step": asked.step, "max_tokens": asked.max_tokens}
    return asked.prompt, [x.text for x in asked.responses], asked.row, shared, each


@dataclass(frozen=True)
class Weighted:
    """A reward and its weight in the sum.

    Attributes:
      reward: scores responses.
      weight: of its parts; 0 reports them only.
    """

    reward: Reward
    weight: float = 1.0
