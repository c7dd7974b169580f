"""Examples for supervised fine-tuning, as a function of the update's number."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxrl_reason.data.pipeline import ProblemStream
from jaxrl_reason.grading.load_function import load_function
from jaxrl_reason.learner.sft import Example
from jaxrl_reason.tasks.countdown import Problem
from jaxrl_reason.tasks.countdown_traces import (
    make_trace,
    max_trace_tokens,
    widest_trace,
)
from jaxrl_reason.tasks.task import Task
from jaxrl_reason.text.symbols import SymbolTokenizer
from jaxrl_reason.train.tasks import Problems
from jaxrl_reason.train.texts import longest_piece, text_pieces
from jaxrl_reason.train.train_settings import TrainSettings

# How many traces of one's own are looked at before a run.
_TRIED = 500
# Update number -> its examples; a pure function.
Examples = Callable[[int], list[Example]]


def in_random_order(problem: Problem, rng: np.random.Generator) -> Problem:
    """The same puzzle with its numbers in another order: a new prompt, new traces.

    A few puzzles, seen often, would be memorised instead of solved.
    """
    numbers = tuple(int(n) for n in rng.permutation(problem.numbers))
    return dataclasses.replace(problem, numbers=numbers)


def longest_response(settings: TrainSettings, task: Task[Any], found: Problems) -> int:
    """Tokens of the longest response or text to train on; 0 if there is none.

    Of traces of one's own it is the longest of some hundreds.
    """
    if found.texts:
        return longest_piece(task.tokenizer, found.texts, settings.sft.max_response)
    if settings.trace is not None:
        write, rng = trace_writer(settings), np.random.default_rng(settings.seed)
        tried = found.train[:: max(1, len(found.train) // _TRIED)]
        return max(len(write_tokens(task, write(p, rng))) for p in tried)
    if settings.task.source == "countdown":
        size, traces = max(settings.countdown.numbers), settings.trace_settings
        if settings.model.is_new:
            return max_trace_tokens(size, traces)
        numbers = map(str, range(settings.countdown.max_value + 1))
        widest = max(numbers, key=lambda n: len(task.tokenizer.encode(f" {n}")))
        return len(response_tokens(task, widest_trace(size, traces, widest)))
    return max(
        (len(response_tokens(task, r)) for r in found.responses.values()), default=0
    )


def trace_writer(
    settings: TrainSettings,
) -> Callable[[Any, np.random.Generator], str]:
    """(problem, random generator) -> a trace, by the run's own function or Countdown's.

    Raises:
      ValueError: the function cannot be loaded; later, it raises or returns no text.
    """
    traces, place = settings.trace_settings, settings.trace
    if place is None:
        return lambda problem, rng: make_trace(problem, rng, traces)
    function = load_function(place)

    def write(problem: Any, rng: np.random.Generator) -> str:
        try:
            text = function(problem, rng, traces)
        except Exception as error:
            raise ValueError(f"trace {place} must not raise, got {error!r}") from error
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"trace {place} must return text, got {text!r:.80}")
        return text

    return write


def write_tokens(task: Task[Any], text: str) -> list[int]:
    """Tokens of a trace, with a hint if a word of Countdown's has none."""
    try:
        return response_tokens(task, text)
    except ValueError as error:
        if not isinstance(task.tokenizer, SymbolTokenizer):
            raise
        raise ValueError(f"{error}; --traces.words gives words a token") from error


def response_tokens(task: Task[Any], text: str) -> list[int]:
    """Tokens of a response with the task's EOS token."""
    ids = task.tokenizer.encode(text)
    ended = bool(ids) and ids[-1] in task.eos_token_ids
    return ids if ended else [*ids, task.tokenizer.eos_token_id]


def demonstrations(
    settings: TrainSettings, task: Task[Any], problems: Problems
) -> dict[int, list[int]]:
    """The worked responses that a teacher reads, by problem id; none but for sdft."""
    if settings.method != "sdft":
        return {}
    shown = problems.responses
    return {
        p.problem_id: response_tokens(task, shown[p.problem_id])
        for p in problems.train
        if p.problem_id in shown
    }


def sft_examples(
    settings: TrainSettings, task: Task[Any], problems: Problems
) -> Examples:
    """What fine-tuning learns from: texts, or worked responses to the problems."""
    make = text_examples if problems.texts else worked_responses
    return make(settings, task, problems)


def text_examples(
    settings: TrainSettings, task: Task[Any], problems: Problems
) -> Examples:
    """Pieces of texts in the stream's order."""
    pieces = [
        piece
        for text in problems.texts
        for piece in text_pieces(task.tokenizer, text, settings.sft.max_response)
    ]
    return in_stream_order(settings, pieces, lambda found, _: list(found))


def worked_responses(
    settings: TrainSettings, task: Task[Any], problems: Problems
) -> Examples:
    """Problems in the stream's order, each with its response or a new trace.

    Raises:
      ValueError: the task has no responses to train on, or too few.
    """
    countdown = settings.task.source == "countdown"
    chosen, written = problems.train, countdown or settings.trace is not None
    if not written:
        chosen = [p for p in chosen if p.problem_id in problems.responses]
        if not chosen:
            raise ValueError(
                f"task.response must name a field to learn from, got "
                f"{settings.task.response!r} of {settings.task.source}"
            )

    write = trace_writer(settings) if written else None
    room = settings.sft.max_response

    def response(problem: Any, rng: np.random.Generator) -> list[int]:
        if write is None:
            return response_tokens(task, problems.responses[problem.problem_id])
        ids = write_tokens(task, write(problem, rng))
        if len(ids) > room:
            raise ValueError(
                f"sft.max_response must hold every trace, got {room} and one of "
                f"{len(ids)} tokens for problem {problem.problem_id}"
            )
        return ids

    def of_batch(batch: Sequence[Any], rng: np.random.Generator) -> list[Example]:
        if countdown:
            batch = [in_random_order(problem, rng) for problem in batch]
        return [(task.prompt_tokens(p), response(p, rng)) for p in batch]

    return in_stream_order(settings, chosen, of_batch)


def in_stream_order(
    settings: TrainSettings,
    items: Sequence[Any],
    of_batch: Callable[[Sequence[Any], np.random.Generator], list[Example]],
) -> Examples:
    """Batches of items in an order that the seed gives, as examples."""
    seed = settings.seed + settings.sft.seed
    stream = ProblemStream(
        list(items), batch_size=settings.sft.examples_per_update, seed=seed
    )
    origin = stream.get_state()

    def examples(update: int) -> list[Example]:
        if stream.get_state()["next_batch"] != update:
            stream.set_state({**origin, "next_batch": update})
        return of_batch(next(stream), np.random.default_rng((seed, update)))

    return examples
