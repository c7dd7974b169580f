"""Calls a reward as a person writes it, and reads what it returns.

    f(prompt, response, row, **context) -> float | dict[str, float]

It may be `async`, and may take all responses to a prompt at once: then its second
parameter is called `responses`, and it returns a list.
"""

import asyncio
import copy
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxrl_reason.grading.load_function import load_function
from jaxrl_reason.grading.spoken_error import spoken_error

# Not parts: whether the response is right, and whether checking it was not possible, so
# that it counts as wrong.
CORRECT, UNCHECKED = "correct", "unchecked"
# A larger reward would drown all others in the statistics of its group.
LARGEST = 1e6
# The part of a deadline that one call of an async function has: the rest is for those
# that run beside it.
ASYNC_PART = 0.9
# Of one response: its parts and whether it is right, if that is said; or the error.
Scored = tuple[dict[str, float], bool | None] | str


def read_parts(given: Any) -> tuple[dict[str, float], bool | None]:
    """The parts of a reward from a function's return value.

    Args:
      given: a number, or a mapping of numbers, in which `correct` says whether the
        response is right and is not a part; nor is `unchecked`, which counts responses
        that got their value because they could not be checked.

    Returns:
      The parts, a single number's named "reward", and `correct`, None if not said.

    Raises:
      ValueError: a mapping has no part besides `correct`, or a number is not finite or
        above 1e6 in size.
      TypeError: a value is not a number.

    Example:
      >>> read_parts(0.5)
      ({'reward': 0.5}, None)
      >>> read_parts({"answer": 1, "short": 0.1, "correct": True})
      ({'answer': 1.0, 'short': 0.1}, True)
    """
    parts = given if isinstance(given, Mapping) else {"reward": given}
    numbers = {str(name): _number(x) for name, x in parts.items() if name != CORRECT}
    if not numbers.keys() - {UNCHECKED}:
        raise ValueError(f"a reward must have a part besides correct, got {given!r}")
    said = parts.get(CORRECT)
    return numbers, None if said is None else bool(_number(said))


def _number(x: Any) -> float:
    scalar = getattr(x, "shape", None) == () and hasattr(x, "item")
    value = x.item() if scalar else x
    if not isinstance(value, int | float):
        shape = getattr(x, "shape", None)
        got = repr(x) if shape is None else f"an array of shape {tuple(shape)}"
        raise TypeError(f"a reward must be a number or a dict of numbers, got {got}")
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise ValueError(
            f"a reward must be finite and at most 1e6 in size, got {value}"
        )
    return float(value)


@dataclass(frozen=True)
class AboutReward:
    """How a reward function is called.

    Attributes:
      batched: with all responses to a prompt at once.
      asynchronous: whether it is a coroutine function.
      context: names of the context that it takes; None for all.
      needed: those without a default.
    """

    batched: bool
    asynchronous: bool
    context: Sequence[str] | None
    needed: Sequence[str]

    @property
    def whole_groups(self) -> bool:
        """Whether one call of the caller should have all responses to a prompt."""
        return self.batched or self.asynchronous


def inspect_reward(function: Callable[..., Any]) -> AboutReward:
    """How a function wants to be called, from its parameters.

    Args:
      function: f(prompt, response, row, ...) or f(prompt, responses, row, ...).

    Returns:
      The description.

    Raises:
      ValueError: it does not take three arguments.

    Example:
      >>> def short(prompt, responses, row, *, tokens): ...
      >>> inspect_reward(short)  # doctest: +ELLIPSIS
      AboutReward(batched=True, asynchronous=False, context=('tokens',), ...)
    """
    parameters = list(inspect.signature(function).parameters.values())
    kinds = [p.kind for p in parameters]
    positional = [
        p.name
        for p in parameters
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    everything = inspect.Parameter.VAR_POSITIONAL in kinds
    if len(positional) < 3 and not everything:
        raise ValueError(
            f"a reward must take (prompt, response, row), got "
            f"{getattr(function, '__name__', 'one')}({', '.join(positional)})"
        )
    more = [
        p
        for p in parameters
        if p.name not in positional[:3]
        and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    called = function if inspect.isroutine(function) else type(function).__call__
    return AboutReward(
        batched=len(positional) > 1 and positional[1] == "responses",
        asynchronous=inspect.iscoroutinefunction(called),
        context=None
        if inspect.Parameter.VAR_KEYWORD in kinds
        else tuple(p.name for p in more),
        needed=tuple(p.name for p in more if p.default is p.empty),
    )


class RewardCaller:
    """Scores the responses to one prompt by a user's function.

    Args:
      function: the reward.
      seconds: the longest that one call of an async function may take; None for any.

    Attributes:
      about: the fields of `AboutReward`, as a dict.
    """

    def __init__(
        self, function: Callable[..., Any], seconds: float | None = None
    ) -> None:
        self.function, self.seconds = function, seconds
        self._about = inspect_reward(function)
        self.about = dict(vars(self._about))

    def __call__(
        self,
        prompt: str,
        responses: Sequence[str],
        row: Mapping[str, Any],
        shared: Mapping[str, Any],
        each: Mapping[str, Sequence[Any]],
    ) -> list[Scored]:
        """The scores of the responses.

        Args:
          prompt: the question.
          responses: to it.
          row: of the question; the function gets a copy.
          shared: context that is the same for all.
          each: name -> its value for every response.

        Returns:
          For every response its parts and `correct`, or what went wrong.
        """
        taken = self._about.context
        wanted = {x for x in (*shared, *each) if taken is None or x in taken}
        same = {name: x for name, x in shared.items() if name in wanted}
        own = {name: list(x) for name, x in each.items() if name in wanted}
        if self._about.batched:
            return self._batch(prompt, list(responses), row, same | own)
        calls = [
            (prompt, text, {**same, **{name: x[i] for name, x in own.items()}})
            for i, text in enumerate(responses)
        ]
        if self._about.asynchronous:
            return asyncio.run(self._all(calls, row))
        return [self._one(*call, row) for call in calls]

    def _one(
        self,
        prompt: str,
        text: str,
        context: Mapping[str, Any],
        row: Mapping[str, Any],
    ) -> Scored:
        try:
            given = self.function(prompt, text, copy.deepcopy(row), **context)
        except Exception as error:  # a user's function may raise anything
            return spoken_error(error)
        return scored(given)

    def _batch(
        self, prompt: str, responses: list[str], row: Mapping[str, Any], context: Any
    ) -> list[Scored]:
        try:
            given = self.function(prompt, responses[:], copy.deepcopy(row), **context)
            if inspect.isawaitable(given):
                given = asyncio.run(_awaited(given, self.seconds))
            found = list(given)
            if len(found) != len(responses):
                raise ValueError(
                    f"a reward of several responses must return one value for each "
                    f"({len(responses)}), got {len(found)}"
                )
        except Exception as error:  # a user's function may raise anything
            return [spoken_error(error)] * len(responses)
        return [scored(value) for value in found]

    async def _all(self, calls: Sequence[Any], row: Mapping[str, Any]) -> list[Scored]:
        async def one(prompt: str, text: str, context: Mapping[str, Any]) -> Scored:
            given = self.function(prompt, text, copy.deepcopy(row), **context)
            try:
                value = await _awaited(given, self.seconds)
            except Exception as error:
                return spoken_error(error)
            return scored(value)

        return list(await asyncio.gather(*(one(*call) for call in calls)))


async def _awaited(given: Any, seconds: float | None) -> Any:
    return await asyncio.wait_for(given, seconds)


def scored(given: Any) -> Scored:
    """The parts of what a reward returned, or what is wrong with it.

    Args:
      given: the returned value.

    Returns:
      As `read_parts`, or the error in words.

    Example:
      >>> scored(1)
      ({'reward': 1.0}, None)
      >>> scored("1.0")
      "TypeError: a reward must be a number or a dict of numbers, got '1.0'"
    """
    try:
        return read_parts(given)
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def reward_in_worker(given: str) -> RewardCaller:
    """The caller of a reward, for `WorkerPool(given=...)`.

    Args:
      given: the place of the function, as `load_function` takes it, then a space and
        the seconds of one call.

    Returns:
      The caller.
    """
    place, _, seconds = given.rpartition(" ")
    return RewardCaller(load_function(place), float(seconds))
