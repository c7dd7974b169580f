"""Samples, grades and records responses, except those already recorded."""

import time
from collections.abc import Mapping, Sequence

from jaxrl_reason.evaluation.decoding import Decoding, Generate, Response
from jaxrl_reason.evaluation.records import Record, Records
from jaxrl_reason.runs.progress import TrainingProgress
from jaxrl_reason.tasks.questions import Question, QuestionTask
from jaxrl_reason.tasks.task import Graded

# The number of batches of questions that the model gets at once: finished responses
# make room for those waiting. Records are written when all of them are finished.
BATCHES_AT_ONCE = 4


def collect_records(
    task: QuestionTask,
    questions: Sequence[Question],
    generate: Generate,
    records: Records,
    decodings: Sequence[Decoding],
    *,
    batch_size: int,
    progress: TrainingProgress,
    longest: int | None = None,
    truncate: bool = False,
) -> None:
    """Fills the records with graded responses to all questions.

    Args:
      task: makes prompts and grades.
      questions: of the benchmark; ids must differ.
      generate: the model.
      records: for the responses; questions with records are skipped.
      decodings: each is one pass over the questions.
      batch_size: responses sampled at the same time; the model gets BATCHES_AT_ONCE
        times as many, or at least those of one question.
      progress: the progress bar.
      longest: tokens of the longest prompt that the model can take; None for any.
      truncate: cut a longer one to its last tokens; otherwise its question gets empty
        responses, which are not right, and is not asked.

    Raises:
      ValueError: there are no questions, or two with the same id.
    """
    ids = {question.problem_id for question in questions}
    if not questions or len(ids) < len(questions):
        raise ValueError(
            "questions must be at least one and have different ids, got "
            f"{len(questions)} with {len(ids)} ids"
        )
    prompts = {q.problem_id: task.prompt_tokens(q) for q in questions}
    long = set(too_long(prompts, longest))
    for number in long if truncate else ():
        prompts[number] = prompts[number][-(longest or 0) :]
    for decoding in decodings:
        todo = [q for q in questions if (decoding.name, q.problem_id) not in records]
        for question in () if truncate else [q for q in todo if q.problem_id in long]:
            unasked = record_of(task, question, Response([], True)) | {"too_long": True}
            group = (decoding.name, question.problem_id)
            records.add(group, [unasked] * decoding.num_samples)
        todo = [q for q in todo if (decoding.name, q.problem_id) not in records]
        # Prompts of one call are padded to the longest of them.
        todo.sort(key=lambda question: len(prompts[question.problem_id]))
        size = max(1, BATCHES_AT_ONCE * batch_size // decoding.num_samples)
        done = len(questions) - len(todo)
        progress.stage(decoding.name, total=len(questions), start=done)
        tally = _Tally()
        for start in range(0, len(todo), size):
            batch = todo[start : start + size]
            began = time.monotonic()
            responses = generate(
                [prompts[question.problem_id] for question in batch],
                [question.problem_id for question in batch],
                decoding,
            )
            seconds = time.monotonic() - began
            _grade_ahead(task, batch, responses)
            for question, samples in zip(batch, responses, strict=True):
                graded = [record_of(task, question, sample) for sample in samples]
                records.add((decoding.name, question.problem_id), graded)
                tally.add(graded)
            records.flush()
            done += len(batch)
            progress.update(done, tally.shown(seconds))


def too_long(prompts: Mapping[int, Sequence[int]], longest: int | None) -> list[int]:
    """The questions whose prompts the model cannot take.

    Args:
      prompts: problem_id -> tokens.
      longest: tokens of the longest prompt; None for any.

    Returns:
      Their ids.

    Example:
      >>> too_long({0: [1, 2], 1: [1, 2, 3]}, longest=2)
      [1]
    """
    if longest is None:
        return []
    return [number for number, prompt in prompts.items() if len(prompt) > longest]


def record_of(task: QuestionTask, question: Question, response: Response) -> Record:
    """The record of one response with its grade.

    A grader that raises has failed on this response; the evaluation continues.

    Args:
      task: decodes and grades the response.
      question: of the response.
      response: the sampled tokens.

    Returns:
      The fields of a row of records.jsonl.
    """
    text = _text_of(task, response)
    error = None
    try:
        graded = task.grade(question, text, response.truncated)
    except Exception as raised:
        graded = Graded(correct=False, format_ok=False, parsed=None, failed=True)
        error = repr(raised)
    record: Record = {
        "kind": question.kind,
        "gold": question.answer,
        "parsed": graded.parsed,
        "correct": graded.correct,
        "failed": graded.failed,
        "unchecked": graded.unchecked,
        "answered": graded.format_ok,
        "truncated": response.truncated,
        "length": len(response.tokens),
        "text": text,
    }
    return record if error is None else {**record, "error": error}


def _text_of(task: QuestionTask, response: Response) -> str:
    """A response without its EOS token."""
    tokens = list(response.tokens)
    ended = tokens and tokens[-1] in task.eos_token_ids and not response.truncated
    return task.tokenizer.decode(tokens[:-1] if ended else tokens)


def _grade_ahead(
    task: QuestionTask,
    questions: Sequence[Question],
    responses: Sequence[Sequence[Response]],
) -> None:
    """Lets the task check a batch at once; a task that cannot is graded one by one."""
    pairs = [
        (question, _text_of(task, response))
        for question, samples in zip(questions, responses, strict=True)
        for response in samples
    ]
    task.grade_ahead([q for q, _ in pairs], [text for _, text in pairs])


class _Tally:
    """Running sums for the progress bar."""

    def __init__(self) -> None:
        self.right = self.responses = self.tokens = self.fresh = 0

    def add(self, records: Sequence[Record]) -> None:
        self.right += sum(record["correct"] for record in records)
        self.responses += len(records)
        self.fresh += sum(record["length"] for record in records)

    def shown(self, seconds: float) -> dict[str, float]:
        fresh, self.fresh = self.fresh, 0
        self.tokens += fresh
        return {
            "accuracy": self.right / max(self.responses, 1),
            "length": self.tokens / max(self.responses, 1),
            "tokens_per_second": fresh / max(seconds, 1e-9),
        }
