"""Pairs of responses from a file, and sizes for training on them."""

from collections.abc import Iterable

from jaxrl_reason.offline.preference_batch import Pair, PreferenceSettings
from jaxrl_reason.rl.rl_settings import RLSettings
from jaxrl_reason.tasks.question_rows import NamedPlace, PlacedRow, text_field
from jaxrl_reason.tasks.question_sources import load_questions
from jaxrl_reason.tasks.questions import Question
from jaxrl_reason.tasks.row_questions import RowQuestion
from jaxrl_reason.train.examples import response_tokens
from jaxrl_reason.train.run_setup import RunSetup


def load_pairs(setup: RunSetup, source: str) -> list[Pair]:
    """The pairs of a file, with the task's prompts.

    Args:
      setup: of the run.
      source: JSONL or parquet with a question, a better and a worse response.

    Raises:
      ValueError: a row lacks a field, or its tokens do not fit.
    """
    settings, task = setup.settings, setup.task
    pairs: list[Pair] = []

    def read(rows: Iterable[PlacedRow]) -> list[Question]:
        for place, row in rows:
            with NamedPlace(place):
                asked = text_field(row, settings.task.question)
                question = RowQuestion(len(pairs), asked, "", row=row)
                better = text_field(row, settings.task.chosen)
                worse = text_field(row, settings.task.rejected)
                pair = Pair(
                    task.prompt_tokens(question),
                    response_tokens(task, better),
                    response_tokens(task, worse),
                )
                check_pair(pair, settings.rl)
            pairs.append(pair)
        return []

    load_questions(source, read)
    return pairs


def check_pair(pair: Pair, rl: RLSettings) -> None:
    """Raises for a pair that does not fit the run's sizes, or with equal sides."""
    longest = max(len(pair.chosen), len(pair.rejected))
    for name, length, limit in (
        ("rl.prompt_width", len(pair.prompt), rl.prompt_width),
        ("rl.max_new_tokens", longest, rl.max_new_tokens),
    ):
        if length > limit:
            raise ValueError(f"{name} must hold {length} tokens, got {limit}")
    if list(pair.chosen) == list(pair.rejected):
        raise ValueError("the two responses of a pair must differ, got the same")


def pair_sizes(
    setup: RunSetup, *, epochs: int, candidates: int = 2
) -> PreferenceSettings:
    """Sizes for training on pairs, from the rl group where it has them.

    Args:
      setup: of the run.
      epochs: over the pairs.
      candidates: responses per comparison.
    """
    settings, rl = setup.settings, setup.settings.rl
    longest = candidates * (rl.prompt_width + rl.max_new_tokens)
    return PreferenceSettings(
        pairs_per_update=settings.offline.pairs_per_update,
        epochs=epochs,
        rows_per_micro_batch=rl.rows_per_micro_batch,
        row_width=max(rl.row_width, longest),
        max_prompt=rl.prompt_width,
        max_response=rl.max_new_tokens,
        seed=settings.seed + rl.seed,
    )
