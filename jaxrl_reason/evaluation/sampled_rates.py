"""How often a model solves each question: responses sampled, graded and counted."""

from collections.abc import Sequence
from pathlib import Path

from jaxrl_reason.evaluation.collection import collect_records
from jaxrl_reason.evaluation.decoding import Decoding, Generate
from jaxrl_reason.evaluation.records import Records
from jaxrl_reason.runs.progress import TrainingProgress
from jaxrl_reason.tasks.questions import Question, QuestionTask


def sampled_rates(
    task: QuestionTask,
    questions: Sequence[Question],
    generate: Generate,
    decoding: Decoding,
    folder: Path,
    *,
    batch_size: int,
    longest: int | None = None,
) -> list[tuple[int, int]]:
    """Counts of right responses; continues from the records in the folder.

    Args:
      task: makes prompts and grades.
      questions: with different ids.
      generate: the model.
      decoding: how many responses, and how they are sampled.
      folder: of the records.
      batch_size: responses sampled at once.
      longest: tokens of the longest prompt that the model takes; a longer one is not
        asked, and its responses count as not right.

    Returns:
      (right, graded) of each question; a response whose grader failed is not graded.
    """
    identity = {"decoding": decoding.name, "task": task.name}
    with Records(folder, identity) as records:
        with TrainingProgress() as progress:
            collect_records(
                task,
                questions,
                generate,
                records,
                [decoding],
                batch_size=batch_size,
                progress=progress,
                longest=longest,
            )
        found = records.of(decoding.name)
    return [
        (
            sum(bool(x["correct"]) for x in found[question.problem_id]),
            sum(not x["failed"] for x in found[question.problem_id]),
        )
        for question in questions
    ]
