"""The task of a run: training and held-out questions, and worked examples."""

import dataclasses
import logging
import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from jaxrl_reason.data.decontamination import contaminated
from jaxrl_reason.data.hygiene import deduplicate
from jaxrl_reason.data.pipeline import load_split
from jaxrl_reason.grading.answer_policy import USUAL, AnswerPolicy
from jaxrl_reason.grading.answers import every_box, last_number, marked_answer
from jaxrl_reason.grading.final_answer import Verify
from jaxrl_reason.tasks.benchmarks import BENCHMARKS
from jaxrl_reason.tasks.code_task import CodeTask, PassedTests
from jaxrl_reason.tasks.countdown import CountdownTask
from jaxrl_reason.tasks.generated_tasks import GENERATED_TASKS, task_named
from jaxrl_reason.tasks.question_rows import PlacedRow, rows_digest
from jaxrl_reason.tasks.question_sources import load_questions, open_rows, tfds_folder
from jaxrl_reason.tasks.questions import (
    Question,
    QuestionTask,
    all_eos_token_ids,
    ungradable,
)
from jaxrl_reason.tasks.reward_functions import Weighted
from jaxrl_reason.tasks.reward_task import RewardTask
from jaxrl_reason.tasks.row_questions import row_questions
from jaxrl_reason.tasks.task import Task, without_end
from jaxrl_reason.tasks.word_arithmetic import (
    INSTRUCTION,
    arithmetic,
    generate_questions,
    worked_examples,
)
from jaxrl_reason.text.characters import CharacterTokenizer
from jaxrl_reason.text.tokenizer import Tokenizer
from jaxrl_reason.train.methods import kind_of
from jaxrl_reason.train.texts import read_texts
from jaxrl_reason.train.train_settings import TrainSettings

_LOG = logging.getLogger(__name__)
# Names in `Problems.digests`, and in the fingerprint of a checkpoint.
TRAIN_ROWS, HELDOUT_ROWS, TEXT_ROWS = "train_rows", "heldout_rows", "text_rows"
# Those that fine-tuning depends on.
SFT_ROWS = (TRAIN_ROWS, TEXT_ROWS)
_STEPS = (
    "Solve the problem step by step. On the last line write #### and then the final "
    "answer alone."
)

_EXTRACT = {
    "marked": marked_answer,
    "every_box": every_box,
    "last_number": last_number,
}


@dataclass(frozen=True)
class Problems:
    """The questions of a run.

    Attributes:
      train: questions to train on.
      heldout: questions that are not trained on.
      responses: problem_id -> a worked response to train on, for those in `train`.
      texts: to train on before the questions, in place of responses.
      dropped: how many were left out of `train`, by rule.
      ungradable: problem_id -> why its answer cannot be graded, of questions that were
        left out of `train` and of those in `heldout`, which fail.
      digests: SHA-256 of the contents of the rows, as they were read or generated:
        `train_rows`, `heldout_rows` if they are apart, and those of the other files
        that the settings name.
    """

    train: Sequence[Any]
    heldout: Sequence[Any]
    responses: dict[int, str] = field(default_factory=dict)
    texts: Sequence[str] = ()
    dropped: dict[str, int] = field(default_factory=dict)
    ungradable: dict[int, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)


def load_problems(settings: TrainSettings) -> Problems:
    """Generates or reads the questions of a run.

    Raises:
      ValueError: a file cannot be read, or too few questions are left.
    """
    task = settings.task
    if task.is_generated:
        found = generated_problems(settings)
        train, heldout = (
            rows_digest(("", {"problem": repr(problem)}) for problem in part)
            for part in (found.train, found.heldout)
        )
        digests = {TRAIN_ROWS: train, HELDOUT_ROWS: heldout}
    else:
        found = clean_problems(settings, read_problems(settings))
        digests = dict(found.digests)
    if task.text is not None:
        where = tfds_folder(task.text, task.data_dir)
        texts, digests[TEXT_ROWS] = read_texts(
            task.text, task.text_field, data_dir=where
        )
        found = dataclasses.replace(found, texts=texts)
    for name in ("pairs", "steps"):
        source = getattr(settings.offline, name)
        if source is not None:
            digests[f"{name}_rows"] = rows_digest(open_rows(source).rows)
    return dataclasses.replace(found, digests=digests)


def generated_problems(settings: TrainSettings) -> Problems:
    """The problems of a task that generates them."""
    task, most = settings.task, settings.eval.problems
    if task.source == "countdown":
        load = partial(load_split, settings.countdown, settings.dataset_dir)
        return Problems(load("train"), spread_over(load(settings.eval.split), most))
    if task.source == "arithmetic":
        splits = generate_questions(settings.arithmetic)
        shown = dict(worked_examples(settings.arithmetic, task.examples))
        train = [q for q in splits["train"] if q.question not in shown]
        return Problems(train, splits[settings.eval.split][:most])
    made = GENERATED_TASKS[task.source].questions(getattr(settings, task.source))
    return Problems(made["train"], made[settings.eval.split][:most])


def spread_over(problems: Sequence[Any], most: int) -> list[Any]:
    """At most `most` problems, evenly spaced over an ordered set."""
    chosen = np.linspace(0, len(problems) - 1, min(most, len(problems)))
    return [problems[int(i)] for i in chosen]


def read_problems(settings: TrainSettings) -> Problems:
    """Questions from a benchmark's files or the user's own."""
    task = settings.task
    source = task.data if task.data is not None else task.source
    responses: dict[int, str] = {}
    digests: dict[str, str] = {}
    train, digests[TRAIN_ROWS] = read_questions(settings, source, 0, responses)
    if task.heldout is not None:
        heldout, digests[HELDOUT_ROWS] = read_questions(
            settings, task.heldout, len(train), {}
        )
    else:
        train, heldout = split_heldout(train, task.heldout_fraction)
    most = settings.eval.problems
    return Problems(train, heldout[:most], responses, digests=digests)


def split_heldout(
    questions: Sequence[Question], fraction: float
) -> tuple[list[Question], list[Question]]:
    """Questions to train on, and a part to hold out, the same one for every seed.

    A question and its variants are on one side: a variant is no new question.

    Raises:
      ValueError: there is one question, or all are variants of one.
    """
    families: dict[int, list[Question]] = {}
    for q in questions:
        family = q.problem_id if q.seed_id is None else q.seed_id
        families.setdefault(family, []).append(q)
    of_family = list(families.values())
    if len(of_family) < 2:
        raise ValueError(
            f"questions must be at least 2, one of them held out, got {len(of_family)}"
        )
    order = np.random.default_rng(0).permutation(len(of_family)).tolist()
    count = min(max(1, round(fraction * len(of_family))), len(of_family) - 1)
    heldout, train = (
        [q for i in sorted(part) for q in of_family[i]]
        for part in (order[:count], order[count:])
    )
    return train, heldout


def read_questions(
    settings: TrainSettings, source: str, first_id: int, responses: dict[int, str]
) -> tuple[list[Question], str]:
    """The questions of one source and the digest of its rows.

    Their worked responses are added by number.
    """
    task = settings.task
    own = partial(
        row_questions,
        question=task.question,
        answer=task.answer if settings.grades_answers else None,
        first_id=first_id,
    )
    known = BENCHMARKS.get(task.source)
    make = own if known is None else known.questions
    digests = []

    def read(rows: Iterable[PlacedRow]) -> list[Question]:
        found = list(rows)
        digests.append(rows_digest(found))
        questions = make(found)
        if task.response is None:
            return questions
        if len(found) != len(questions):
            raise ValueError(
                f"response must be left out for {task.source}, whose rows hold several "
                f"questions, got {task.response!r}"
            )
        for question, (place, row) in zip(questions, found, strict=True):
            if not str(row.get(task.response) or "").strip():
                raise ValueError(f"{place}: {task.response} must be text, got none")
            responses[question.problem_id] = str(row[task.response])
        return questions

    where = tfds_folder(source, task.data_dir)
    questions = list(load_questions(source, read, data_dir=where).questions)
    return questions, digests[0]


def clean_problems(settings: TrainSettings, problems: Problems) -> Problems:
    """The problems without duplicates, contradictions and contamination."""
    train, dropped = list(problems.train), {}
    refused: dict[int, str] = {}
    graded = kind_of(settings.method) in ("rl", "rounds", "game")
    if graded and settings.grades_answers:
        refused = ungradable([*train, *problems.heldout], _policy(settings))
        kept = [q for q in train if q.problem_id not in refused]
        if refused:
            dropped["ungradable"] = len(train) - len(kept)
            number, reason = next(iter(refused.items()))
            _LOG.warning(
                "%d questions are left out and %d held-out ones fail, first question "
                "%d: %s",
                *(len(train) - len(kept), len(refused) - len(train) + len(kept)),
                *(number, reason),
            )
        train = kept
    if settings.task.dedup:
        found = deduplicate([q.question for q in train], [q.answer for q in train])
        dropped["duplicates"] = len(found.duplicates)
        dropped["conflicting"] = len(found.conflicting)
        train = [train[i] for i in found.kept]
    if settings.task.decontaminate:
        flags = contaminated(
            [q.question for q in train],
            [q.question for q in problems.heldout],
            n=settings.task.decontaminate,
        )
        dropped["contaminated"] = sum(flags)
        train = [q for q, flag in zip(train, flags, strict=True) if not flag]
    if not train:
        raise ValueError(f"a question to train on must be left, got none of {dropped}")
    return dataclasses.replace(
        problems, train=train, dropped=dropped, ungradable=refused
    )


def _policy(settings: TrainSettings) -> AnswerPolicy:
    """How the answers of the questions are read."""
    known = BENCHMARKS.get(settings.task.source)
    return settings.task.answers.policy(USUAL if known is None else known.policy)


def character_tokenizer(problems: Problems, answer: str) -> CharacterTokenizer:
    """For a new model: one token for each character in the questions.

    Args:
      problems: of the run.
      answer: field of the answer, whose characters count even if a reward does not read
        it: a fine-tuning run and the run that continues it share a vocabulary.
    """

    def text(question: Question) -> str:
        row = getattr(question, "row", {})
        return question.question + question.answer + str(row.get(answer, ""))

    texts = [text(q) for q in (*problems.train, *problems.heldout)]
    texts += [*problems.responses.values(), *problems.texts]
    found = set().union(string.printable, *texts)
    return CharacterTokenizer("".join(sorted(found)))


def hinted_prompt(task: Task[Any], problem: Question, hint: str) -> list[int]:
    """Tokens of a prompt with the answer, for STaR's second try.

    Args:
      task: makes the prompt.
      problem: with its answer.
      hint: follows the question, with {answer} in it.
    """
    told = problem.question + hint.replace("{answer}", problem.answer)
    return task.prompt_tokens(dataclasses.replace(problem, question=told))


def extract_before_end(
    tokenizer: Tokenizer, extract: Callable[[str], str | None], text: str
) -> str | None:
    """The final answer of a response whose EOS token is written out as text.

    Args:
      tokenizer: of characters; it decodes its EOS token to text.
      extract: finds the answer.
      text: of the response, ending with that of the EOS token.
    """
    return extract(without_end(text, tokenizer))


def build_task(
    settings: TrainSettings,
    problems: Problems,
    tokenizer: Tokenizer | None,
    verify: Verify | None = None,
    rewards: Sequence[Weighted] = (),
) -> Task[Any]:
    """The task that makes prompts for the problems and grades responses.

    Args:
      settings: of the run.
      problems: of `load_problems`.
      tokenizer: of the model; None for a new one, which gets the task's.
      verify: compares answers of different form by algebra, as a `MathVerifier` does.
      rewards: in place of right and wrong.
    """
    task = _base_task(settings, problems, tokenizer)
    if tokenizer is None and isinstance(task, QuestionTask):
        extract = partial(extract_before_end, task.tokenizer, task.extract)
        task = dataclasses.replace(task, extract=extract)
    if isinstance(task, QuestionTask):
        policy = settings.task.answers.policy(task.policy)
        task = dataclasses.replace(task, policy=policy)
    if verify is not None and isinstance(task, QuestionTask):
        task = dataclasses.replace(task, verify=verify)
    if isinstance(task, CodeTask):
        task = settings.task.code.applied(task)
        if task.partial and not rewards:
            rewards = [Weighted(PassedTests(task))]
    if not rewards:
        return task
    limit = max((settings.rl.max_new_tokens, *settings.stages.limits))
    return RewardTask(task, rewards, limit)


def _base_task(
    settings: TrainSettings, problems: Problems, tokenizer: Tokenizer | None
) -> Task[Any]:
    task, source = settings.task, settings.task.source
    if source == "countdown":
        if tokenizer is None:
            return CountdownTask.with_symbols(settings.countdown, settings.traces.words)
        return CountdownTask(tokenizer, all_eos_token_ids(tokenizer), task.style)
    if tokenizer is None:
        tokenizer = character_tokenizer(problems, task.answer)
    if source == "arithmetic":
        said = INSTRUCTION if task.instruction is None else task.instruction
        examples = worked_examples(settings.arithmetic, task.examples)
        return arithmetic(tokenizer, said, examples)
    if source in BENCHMARKS or source in GENERATED_TASKS:
        asked = task_named(source, tokenizer)
        if task.instruction is None:
            return asked
        return dataclasses.replace(asked, instruction=task.instruction)
    usual = _STEPS if settings.grades_answers else ""
    instruction = usual if task.instruction is None else task.instruction
    return QuestionTask(
        tokenizer,
        instruction,
        task.short_name,
        extract=_EXTRACT[task.extract],
        separator="\n\n" if instruction else "",
    )
