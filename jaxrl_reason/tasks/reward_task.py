"""A task whose responses are scored by rewards: users' functions, a judge, answers."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import Any

from jaxrl_reason.grading.reward_call import UNCHECKED, Scored
from jaxrl_reason.tasks.grade_responses import grade_responses
from jaxrl_reason.tasks.reward_functions import (
    AnswerReward,
    Asked,
    InProcessReward,
    Weighted,
)
from jaxrl_reason.tasks.task import (
    Graded,
    ResponseText,
    TaskWrapper,
    failed_grade,
    without_end,
)

# Number of remembered grades, for those who ask again.
_REMEMBERED = 2**16


@dataclass(frozen=True)
class RewardTask(TaskWrapper):
    """A task whose responses are scored by rewards.

    The reward of a response is the weighted sum of all parts of all rewards. A response
    that one of them fails on has no reward. It is right as the task itself says if that
    is among the rewards, or else as rewards say that return `correct`, or else if its
    reward is 1 or more.

    Attributes:
      rewards: of the task, or a single function, which is called in this process.
      max_tokens: the length limit, for rewards that read it.

    Raises:
      ValueError: two rewards have the same name.
    """

    rewards: Callable[..., Any] | Sequence[Weighted]
    max_tokens: int = 0
    _names: list[str] = field(default_factory=list, repr=False, compare=False)
    _known: OrderedDict[Any, Graded] = field(
        default_factory=OrderedDict, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if callable(self.rewards):
            own = InProcessReward(self.rewards)
            object.__setattr__(self, "rewards", (Weighted(own),))
        names = [x.reward.name for x in self.weighted]
        if len(set(names)) < len(names):
            raise ValueError(f"rewards must have different names, got {names}")

    @property
    def weighted(self) -> Sequence[Weighted]:
        """The rewards with their weights."""
        assert not callable(self.rewards)
        return self.rewards

    @property
    def needs_devices(self) -> bool:
        """Whether one of the rewards does."""
        return any(x.reward.needs_devices for x in self.weighted)

    @property
    def has_answer(self) -> bool:
        """Whether the task's own grade is among the rewards."""
        return any(isinstance(x.reward, AnswerReward) for x in self.weighted)

    def close(self) -> None:
        """Ends the workers of the rewards."""
        for x in self.weighted:
            x.reward.close()

    def weight_of(self, part: str) -> float:
        """The weight of a part in the reward.

        Args:
          part: of `part_names`.
        """
        if len(self.weighted) == 1:
            return self.weighted[0].weight
        of = {x.reward.name: x.weight for x in self.weighted}
        return of[part if part in of else part.partition("/")[0]]

    def part_names(self, parts: Sequence[Mapping[str, float] | None]) -> list[str]:
        """The names of the parts, fixed by the first response that has any.

        Args:
          parts: of some responses.
        """
        if not self._names:
            first = next((list(x) for x in parts if x is not None), [])
            self._names.extend(first)
        return self._names

    def grade(self, problem: Any, response_text: str, truncated: bool) -> Graded:
        """Grades a response; one that was graded before is not scored again.

        Args:
          problem: the question.
          response_text: what came after the prompt.
          truncated: whether the length limit stopped the response, which is then not
            correct.

        Returns:
          The grade; a response without reward counts as a failed grade.
        """
        text = without_end(response_text, self.tokenizer)
        key = (*self._key(problem), text, truncated)
        if key not in self._known:
            length = len(self.tokenizer.encode(text))
            self.grade_together([problem], [ResponseText(text, length, truncated)])
        return self._known[key]

    def grade_together(
        self, problems: Sequence[Any], responses: Sequence[ResponseText], step: int = 0
    ) -> list[Graded]:
        """Grades responses; those to one problem should be side by side.

        Args:
          problems: the problem of each response.
          responses: the responses.
          step: of the training.

        Returns:
          Their grades.
        """
        plain = [
            replace(x, text=without_end(x.text, self.tokenizer)) for x in responses
        ]
        own = None
        if self.has_answer:
            own = grade_responses(self.task, problems, plain, step)
        keys = [self._key(problem) for problem in problems]
        asked = []
        for (_, prompt), same in groupby(range(len(keys)), key=keys.__getitem__):
            rows = list(same)
            asked.append(
                Asked(
                    prompt=prompt,
                    row=_row(problems[rows[0]]),
                    responses=tuple(plain[i] for i in rows),
                    step=step,
                    max_tokens=self.max_tokens,
                    correct=tuple(own[i].correct for i in rows) if own else None,
                )
            )
        scores = {
            x.reward.name: [s for group in x.reward.score(asked) for s in group]
            for x in self.weighted
        }
        found = []
        for i, x in enumerate(plain):
            each = {name: given[i] for name, given in scores.items()}
            grade = self._graded(each, x.truncated, own[i] if own else None)
            self._known[(*keys[i], x.text, x.truncated)] = grade
            found.append(grade)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return found

    def _graded(
        self, scores: Mapping[str, Scored], truncated: bool, own: Graded | None
    ) -> Graded:
        parts: dict[str, float] = {}
        total, said = 0.0, []
        unchecked = own is not None and own.unchecked
        if own is not None and own.failed:
            error = own.error or "the answer could not be graded"
            return failed_grade(error)
        for x in self.weighted:
            name, score = x.reward.name, scores[x.reward.name]
            if isinstance(score, str):
                error = f"reward {name}: {score}"
                return failed_grade(error)
            values, correct = dict(score[0]), score[1]
            unchecked = unchecked or bool(values.pop(UNCHECKED, 0.0))
            if correct is not None:
                said.append(bool(correct))
            total += x.weight * sum(values.values())
            if len(self.weighted) > 1:
                alone = list(values) == ["reward"]
                values = {
                    name if alone else f"{name}/{part}": value
                    for part, value in values.items()
                }
            parts |= values
        right = all(said) if said else total >= 1
        if own is not None:
            right = own.correct
        return Graded(
            correct=right and not truncated,
            format_ok=own is None or own.format_ok,
            parsed=", ".join(f"{name} {x:g}" for name, x in parts.items()),
            unchecked=unchecked,
            parts=parts,
        )

    def _key(self, problem: Any) -> tuple[int, str]:
        """Ids may repeat between sets, but with other prompts."""
        question = getattr(problem, "question", None)
        if question is None:
            question = self.tokenizer.decode(self.prompt_tokens(problem))
        return int(problem.problem_id), question


def _row(problem: Any) -> Mapping[str, Any]:
    """The fields of a problem."""
    row = getattr(problem, "row", None)
    return asdict(problem) if row is None else dict(row)
