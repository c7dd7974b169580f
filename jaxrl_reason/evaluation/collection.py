"""Samples, grades and records responses, except those already recorded."""

import time
from collections.abc import Mapping, Sequence

from jaxrl_reason.evaluation.decoding import Decoding, Generate, Response
from jaxrl_reason.evaluation.records import Record, Records
from jaxrl_reason.runs.progress import TrainingProgress
from jaxrl_reason.tasks.grade_responses import grade_responses
from jaxrl_reason.tasks.questions import Question, QuestionTask
from jaxrl_reason.tasks.task import Graded, ResponseText

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
            ((unasked,),) = records_of(task, [question], [[Response([], True)]])
            unasked |= {"too_long": True}
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
            found = records_of(task, batch, responses)
            for question, graded in zip(batch, found, strict=True):
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


def records_of(
    task: QuestionTask,
    questions: Sequence[Question],
    responses: Sequence[Sequence[Response]],
) -> list[list[Record]]:
    """The records of responses with their grades.

    A response on which the grader fails has a record that says so.

    Args:
      task: decodes and grades the responses.
      questions: of the responses.
      responses: the sampled tokens, some for each question.

    Returns:
      The fields of rows of records.jsonl, some for each question.
    """
    pairs = [
        (question, response)
        for question, samples in zip(questions, responses, strict=True)
        for response in samples
    ]
    texts = [
        ResponseText(_text_of(task, x), len(x.tokens), x.truncated) for _, x in pairs
    ]
    grades = iter(grade_responses(task, [question for question, _ in pairs], texts))
    each = iter(texts)
    return [
        [_record(question, next(each), next(grades)) for _ in samples]
        for question, samples in zip(questions, responses, strict=True)
    ]


def _record(question: Question, response: ResponseText, grade: Graded) -> Record:
    record: Record = {
        "kind": question.kind,
        "gold": question.answer,
        "parsed": grade.parsed,
        "correct": grade.correct,
        "failed": grade.failed,
        "unchecked": grade.unchecked,
        "answered": grade.format_ok,
        "truncated": response.truncated,
        "length": response.length,
        "text": response.text,
    }
    return record if grade.error is None else {**record, "error": grade.error}


def _text_of(task: QuestionTask, response: Response) -> str:
    """A response without its EOS token."""
    tokens = list(response.tokens)
    ended = tokens and tokens[-1] in task.eos_token_ids and not response.truncated
    return task.tokenizer.decode(tokens[:-1] if ended else tokens)


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
