"""Steps of a tree search from a file, as comparisons for a reward model."""

from collections.abc import Iterable, Mapping
from typing import Any

from jaxrl_reason.reward_models.reward_batch import Comparison
from jaxrl_reason.reward_models.step_preferences import SearchStep, step_comparisons
from jaxrl_reason.tasks.question_rows import NamedPlace, PlacedRow, text_field
from jaxrl_reason.tasks.question_sources import load_questions
from jaxrl_reason.tasks.questions import Question
from jaxrl_reason.tasks.row_questions import RowQuestion
from jaxrl_reason.tasks.task import Task
from jaxrl_reason.train.examples import response_tokens
from jaxrl_reason.train.run_setup import RunSetup


def load_steps(
    setup: RunSetup, source: str, candidates: tuple[int, int]
) -> list[Comparison]:
    """The comparisons of a file of questions with tree searches.

    A row has the question and `steps`, the nodes of its search: `path`, the texts of
    the steps from the first to the node's own; `q`, the mean outcome through it;
    `leads_right` and `leads_wrong`; `final` if it gives the answer.

    Args:
      setup: of the run.
      source: JSONL or parquet.
      candidates: the largest numbers of good and bad steps per comparison.

    Raises:
      ValueError: a row does not have that form, or no step has both sides.
    """
    task, field = setup.task, setup.settings.task.question
    found: list[Comparison] = []

    def read(rows: Iterable[PlacedRow]) -> list[Question]:
        for number, (place, row) in enumerate(rows):
            with NamedPlace(place):
                question = RowQuestion(number, text_field(row, field), "", row=row)
                nodes = row.get("steps")
                if not isinstance(nodes, list) or not nodes:
                    raise ValueError(f"steps must be a list of nodes, got {nodes!r}")
                found.extend(
                    step_comparisons(
                        task.prompt_tokens(question),
                        [search_step(task, node) for node in nodes],
                        positives=candidates[0],
                        negatives=candidates[1],
                    )
                )
        return []

    load_questions(source, read)
    if not found:
        raise ValueError(
            f"offline.steps must hold a step with a good and a bad side, got none in "
            f"{source}"
        )
    return found


def search_step(task: Task[Any], node: Any) -> SearchStep:
    """A node of a search as tokens.

    Every text of a path is encoded separately, so that two nodes with the same prefix
    have the same prefix tokens.
    """
    path = node.get("path") if isinstance(node, Mapping) else None
    if not isinstance(path, list) or not path or not all(map(is_text, path)):
        raise ValueError(f"a step must have a path of texts, got {node!r}")
    q = node.get("q")
    if isinstance(q, bool) or not isinstance(q, (int, float)):
        raise ValueError(f"a step must have a number q, got {q!r}")
    for name in ("leads_right", "leads_wrong"):
        if not isinstance(node.get(name), bool):
            raise ValueError(f"{name} must be true or false, got {node.get(name)!r}")
    *before, own = path
    encode, final = task.tokenizer.encode, bool(node.get("final"))
    return SearchStep(
        prefix=[token for text in before for token in encode(text)],
        tokens=response_tokens(task, own) if final else encode(own),
        q=float(q),
        leads_right=node["leads_right"],
        leads_wrong=node["leads_wrong"],
        final=final,
    )


def is_text(value: Any) -> bool:
    """Whether it is non-empty text."""
    return isinstance(value, str) and bool(value)
