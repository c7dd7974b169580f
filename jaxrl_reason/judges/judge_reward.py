"""A judge's verdicts as rewards: by a rubric, by comparison, by a reference.

Every question is put in two orders unless `swap` is off, since judges prefer a place.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jaxrl_reason.grading.reward_call import UNCHECKED, Scored
from jaxrl_reason.judges.judge import Judge
from jaxrl_reason.judges.rubric import HIGHEST, LOWEST, USUAL, Criterion
from jaxrl_reason.judges.sealed_prompts import SealedPrompt, sealed_prompt
from jaxrl_reason.tasks.reward_functions import Asked

KINDS = ("rubric", "verify", "compare")
_SCORES = tuple(str(n) for n in range(LOWEST, HIGHEST + 1))

# A verdict in each order of the same question.
Verdicts = Sequence[Mapping[str, str] | None]


@dataclass(frozen=True)
class JudgeReward:
    """The reward of a judge.

    rubric: each criterion has a score from 1 to 10 for every response, (score - 1) / 9
    times its share of the weights is a part of the reward. verify: 1 if the final
    answer of the response is equivalent to the reference, else 0; right accordingly.
    compare: the mean over two neighbours among the responses to the same prompt of 1
    for the better one, 0 for the worse one, and 1/2 where the two orders disagree.

    A response without verdict (the judge does not keep to the form, or the response is
    too long for it) gets the lowest reward, and is counted as unchecked.

    Attributes:
      judge: is asked.
      kind: rubric, verify or compare.
      rubric: the criteria.
      reference: field of the row with the reference; for verify it must be there.
      swap: ask in both orders.
      thinking: the judge reasons before its verdict.
      secret: of the run.
      needs_devices: whether the judge runs on this program's devices.

    Raises:
      ValueError: the kind is unknown.
    """

    name: ClassVar[str] = "judge"
    judge: Judge
    kind: str = "rubric"
    rubric: Sequence[Criterion] = USUAL
    reference: str = "answer"
    swap: bool = True
    thinking: bool = True
    secret: str = field(default="", repr=False)
    needs_devices: bool = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(
                f"judge.kind must be one of {', '.join(KINDS)}, got {self.kind!r}"
            )

    def score(self, asked: Sequence[Asked]) -> list[list[Scored]]:
        """The judge's scores, all asked for at once.

        Args:
          asked: the responses.

        Returns:
          The scores.

        Raises:
          JudgeBudgetError: the judge may not be asked that often.
          EngineError: the judge's engine failed.
        """
        steps = {
            "rubric": self._by_rubric,
            "verify": self._by_reference,
            "compare": self._by_comparison,
        }
        return self._run([steps[self.kind](one) for one in asked])

    def close(self) -> None:
        """Has nothing to end."""

    def _run(self, groups: Sequence["_Group"]) -> list[list[Scored]]:
        prompts = [p for group in groups for orders in group.asked for p in orders]
        said = iter(self.judge.ask([p.text for p in prompts]))
        found = []
        for group in groups:
            verdicts = [_verdicts(orders, said) for orders in group.asked]
            found.append(group.read(verdicts))
        return found

    def _sealed(self, variants: Sequence["_Variant"]) -> list[SealedPrompt]:
        """A question in its first order, and in the other one."""
        return [
            sealed_prompt(
                task, material, answers, secret=self.secret, thinking=self.thinking
            )
            for task, material, answers in (variants if self.swap else variants[:1])
        ]

    def _by_rubric(self, one: Asked) -> "_Group":
        def variant(criteria: Sequence[Criterion], response: str) -> _Variant:
            lines = "\n".join(f"- {x.name}: {x.text}" for x in criteria)
            material = [*self._shown(one), ("RESPONSE", response)]
            return _RUBRIC + lines, material, {x.name: _SCORES for x in criteria}

        asked = [
            self._sealed([variant(order, x.text) for order in self._rubric_orders])
            for x in one.responses
        ]
        return _Group(asked, lambda found: [self._scores(x) for x in found])

    @property
    def _rubric_orders(self) -> tuple[Sequence[Criterion], Sequence[Criterion]]:
        return self.rubric, self.rubric[::-1]

    def _scores(self, verdicts: Verdicts) -> Scored:
        given = [v for v in verdicts if v is not None]
        if len(given) < len(verdicts):
            lowest = dict.fromkeys([x.name for x in self.rubric], 0.0)
            return {**lowest, UNCHECKED: 1.0}, None
        total = sum(x.weight for x in self.rubric)
        parts = {}
        for x in self.rubric:
            mean = sum(int(v[x.name]) for v in given) / len(given)
            share = (mean - LOWEST) / (HIGHEST - LOWEST)
            parts[x.name] = x.weight / total * share
        return parts, None

    def _shown(self, one: Asked) -> list[tuple[str, str]]:
        """The question, with its reference if there is one."""
        found = one.row.get(self.reference)
        shown = [("QUESTION", one.prompt)]
        return shown if found is None else [*shown, ("REFERENCE", str(found))]

    def _by_reference(self, one: Asked) -> "_Group":
        shown = self._shown(one)
        if len(shown) < 2:
            said = (
                f"the row must have the reference {self.reference!r} for a judge that "
                f"verifies, got {', '.join(one.row)}"
            )
            return _Group([], lambda found: [said] * len(one.responses))
        question, reference = shown
        answers: dict[str, tuple[str, ...]] = {"equivalent": ("yes", "no")}
        asked = [
            self._sealed(
                [
                    (_VERIFY, [question, *order], answers)
                    for order in _both([reference, ("RESPONSE", x.text)])
                ]
            )
            for x in one.responses
        ]
        return _Group(asked, lambda found: [_yes_or_no(x) for x in found])

    def _by_comparison(self, one: Asked) -> "_Group":
        texts, n = [x.text for x in one.responses], len(one.responses)
        pairs = [(i, (i + 1) % n) for i in range(n if n > 2 else n - 1)]
        answers: dict[str, tuple[str, ...]] = {"better": ("first", "second", "tie")}
        asked = [
            self._sealed(
                [
                    (
                        _COMPARE,
                        [*self._shown(one), ("FIRST", first), ("SECOND", second)],
                        answers,
                    )
                    for first, second in _both([texts[i], texts[j]])
                ]
            )
            for i, j in pairs
        ]
        return _Group(asked, lambda found: _wins(n, pairs, found))


# What is asked, about what material, with which allowed answers.
_Variant = tuple[str, list[tuple[str, str]], dict[str, tuple[str, ...]]]

_RUBRIC = """Score the RESPONSE to the QUESTION by each criterion, from 1 (not at all) \
to 10 (entirely). A REFERENCE, if there is one, is right.

"""
# After the description of Seed1.5-Thinking's verifiers, arXiv 2504.13914, which judge
# question, reference and answer; their prompts are not published.
_VERIFY = """Is the final answer of the RESPONSE equivalent to the REFERENCE as an \
answer to the QUESTION? It may be written in another way. An answer that lists several \
values of which one is right, that hedges, or that is missing is not equivalent."""
_COMPARE = """Which of the two responses, FIRST or SECOND, answers the QUESTION \
better? Length and order say nothing about quality."""


def _both(pair: list[Any]) -> tuple[list[Any], list[Any]]:
    return pair, pair[::-1]


@dataclass(frozen=True)
class _Group:
    """The questions about the responses to one prompt, and how their answers count."""

    asked: Sequence[Sequence[SealedPrompt]]
    read: Callable[[Sequence[Verdicts]], list[Scored]]


def _verdicts(
    orders: Sequence[SealedPrompt], said: Iterator[str | None]
) -> list[Mapping[str, str] | None]:
    return [prompt.verdict(next(said)) for prompt in orders]


def _yes_or_no(verdicts: Verdicts) -> Scored:
    if None in verdicts:
        return {"reward": 0.0, UNCHECKED: 1.0}, False
    yes = all(v is not None and v["equivalent"] == "yes" for v in verdicts)
    return {"reward": float(yes)}, yes


def _wins(
    n: int, pairs: Sequence[tuple[int, int]], found: Sequence[Verdicts]
) -> list[Scored]:
    """The mean of the comparisons of each response that have a verdict."""
    won: list[list[float]] = [[] for _ in range(n)]
    for (i, j), verdicts in zip(pairs, found, strict=True):
        points = [_POINTS[v["better"]] for v in verdicts if v is not None]
        if len(points) < len(verdicts):
            continue
        first = points[0]
        if len(points) == 2 and first != 1 - points[1]:
            first = 0.5  # the orders disagree
        won[i].append(first)
        won[j].append(1 - first)
    if n == 1:
        return [({"reward": 0.5}, None)]
    return [
        ({"reward": sum(x) / len(x)} if x else {"reward": 0.0, UNCHECKED: 1.0}, None)
        for x in won
    ]


_POINTS = {"first": 1.0, "second": 0.0, "tie": 0.5}
