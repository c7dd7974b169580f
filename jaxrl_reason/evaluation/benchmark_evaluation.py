"""Evaluates a model on a benchmark: settings, task, records, report."""

import hashlib
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from jaxrl_reason.evaluation.benchmark_report import (
    build_report,
    print_report,
    write_benchmark_report,
)
from jaxrl_reason.evaluation.collection import collect_records, too_long
from jaxrl_reason.evaluation.decoding import Decoding, Generate
from jaxrl_reason.evaluation.records import Records
from jaxrl_reason.grading.algebra import algebraically_equal
from jaxrl_reason.grading.final_answer import Verify
from jaxrl_reason.grading.math_verifier import GRADER_VERSION
from jaxrl_reason.runs.progress import TrainingProgress
from jaxrl_reason.runs.run_folder import to_plain
from jaxrl_reason.tasks import word_arithmetic
from jaxrl_reason.tasks.answer_flags import AnswerFlags
from jaxrl_reason.tasks.benchmarks import BENCHMARKS
from jaxrl_reason.tasks.code_task import CodeFlags, CodeTask
from jaxrl_reason.tasks.generated_tasks import GENERATED_TASKS, task_named
from jaxrl_reason.tasks.gsm_symbolic import SymbolicSettings
from jaxrl_reason.tasks.gym_task import GymSettings
from jaxrl_reason.tasks.knights_knaves import KnightsSettings
from jaxrl_reason.tasks.question_files import SEED
from jaxrl_reason.tasks.question_sources import QuestionSet, load_questions
from jaxrl_reason.tasks.questions import QuestionTask, ungradable
from jaxrl_reason.text.tokenizer import Tokenizer

_SHOWN = 5  # messages about references
TaskName = Literal[
    "gsm8k",
    "gsm_plus",
    "math500",
    "aime",
    "amc",
    "math",
    "minerva",
    "olympiad",
    "code",
    "multiple_choice",
    "arithmetic",
    "gsm_symbolic",
    "knights_knaves",
    "reasoning_gym",
]
_GENERATED = ("arithmetic", *GENERATED_TASKS)


@dataclass(frozen=True)
class EvaluationSettings:
    """Evaluate a model on a benchmark.

    Attributes:
      task: the benchmark.
      model: a Hugging Face folder, a .gguf file or a hub id.
      data: the benchmark's questions: a file (JSON lines or array, CSV, TSV, parquet,
        also gzipped), a folder of `jaxrl-reason data clean`,
        tfds:NAME[/CONFIG][:VERSION]/SPLIT (prepared in ArrayRecord form) or
        hub:OWNER/NAME/PATH.jsonl[@REVISION]; not for arithmetic,
        gsm_symbolic, knights_knaves and reasoning_gym, which generate their own.
      out: folder of records and report; runs/evaluation/TASK-MODEL if not given. A
        second call continues from its records.
      data_dir: folder of TFDS datasets, for data of tfds:...; TFDS_DATA_DIR or
        ~/tensorflow_datasets if not given.
      greedy: one response of the most likely tokens.
      num_samples: responses per question at `temperature`, for avg@k, pass@k and maj@k;
        0 for none.
      temperature: of these samples.
      top_k: of these samples; 0 keeps all tokens.
      top_p: of these samples; 1 keeps all tokens.
      max_new_tokens: the longest response; a truncated one counts as wrong.
      limit: use only this many questions (for GSM-Plus: seeds).
      batch_size: number of responses sampled at once.
      seed: for sampling.
      dtype: of activations and products.
      deadline: seconds for checking one LaTeX answer by algebra.
      long_questions: what becomes of a question that the context does not hold beside
        max_new_tokens: it is not asked and counts as not right, or loses its beginning.
    """

    task: TaskName
    model: str
    data: Annotated[
        str | Path | None, tyro.conf.arg(metavar="FILE|tfds:...|hub:...")
    ] = None
    out: Path | None = None
    data_dir: Path | None = None
    greedy: bool = True
    num_samples: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 512
    limit: int | None = None
    batch_size: int = 32
    seed: int = 0
    dtype: Literal["float32", "bfloat16"] = "float32"
    deadline: float = 10.0
    long_questions: Literal["skip", "truncate"] = "skip"
    answers: AnswerFlags = field(default_factory=AnswerFlags)
    code: CodeFlags = field(default_factory=CodeFlags)
    gsm_symbolic: SymbolicSettings = field(default_factory=SymbolicSettings)
    knights_knaves: KnightsSettings = field(default_factory=KnightsSettings)
    reasoning_gym: GymSettings = field(default_factory=GymSettings)

    def __post_init__(self) -> None:
        is_generated = self.task in _GENERATED
        if (self.data is None) != is_generated:
            rule = "must not be given" if is_generated else "must be given"
            raise ValueError(f"data {rule} for {self.task}, got {self.data}")
        if self.data is None and self.data_dir is not None:
            raise ValueError(
                f"data_dir must only be given with tfds:..., got {self.data_dir}"
            )
        for name in ("max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be >= 1, got {self.limit}")
        if self.num_samples < 0 or self.seed < 0:
            raise ValueError(
                "num_samples and seed must be >= 0, got "
                f"{self.num_samples} and {self.seed}"
            )
        if not self.decodings:
            raise ValueError("greedy or num_samples must be set, got neither")

    @property
    def decodings(self) -> tuple[Decoding, ...]:
        """The requested decodings."""
        chosen = [Decoding()] if self.greedy else []
        n = self.num_samples
        if n:
            chosen.append(Decoding(n, self.temperature, self.top_k, self.top_p))
        return tuple(chosen)

    @property
    def folder(self) -> Path:
        """The folder of records and report."""
        if self.out is not None:
            return self.out
        name = re.sub(r"[^\w.-]+", "-", Path(self.model).name) or "model"
        return Path("runs") / "evaluation" / f"{self.task}-{name}"


def benchmark_questions(settings: EvaluationSettings) -> QuestionSet:
    """The benchmark's questions, `limit` of them.

    Args:
      settings: of the evaluation.

    Returns:
      The questions; for GSM-Plus whole families of a seed and its variants. The digest
      is that of all questions, so that `limit` may be raised later.

    Raises:
      QuestionFileError: the data cannot be read; the message says where or why.
    """
    if settings.data is None:
        return _generated_questions(settings)
    make = BENCHMARKS[settings.task].questions
    found = load_questions(settings.data, make, data_dir=settings.data_dir)
    seeds = [q.problem_id for q in found.questions if q.kind == SEED]
    if not seeds:
        return replace(found, questions=found.questions[: settings.limit])
    chosen = set(seeds[: settings.limit])
    families = [q for q in found.questions if {q.problem_id, q.seed_id} & chosen]
    return replace(found, questions=families)


def _generated_questions(settings: EvaluationSettings) -> QuestionSet:
    """The test questions that a task generates."""
    origin = {"source": "made by the task"}
    if settings.task == "arithmetic":
        made = word_arithmetic.generate_questions(word_arithmetic.ArithmeticSettings())
        return QuestionSet(made["test"][: settings.limit], None, origin)
    chosen = getattr(settings, settings.task)
    questions = GENERATED_TASKS[settings.task].questions(chosen)["test"]
    text = "\n".join(f"{q.question}\n{q.answer}" for q in questions)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return QuestionSet(questions[: settings.limit], digest, origin)


def benchmark_task(
    settings: EvaluationSettings,
    tokenizer: Tokenizer,
    verify: Verify = algebraically_equal,
) -> QuestionTask:
    """The benchmark's task.

    Args:
      settings: of the evaluation.
      tokenizer: of the model.
      verify: decides by algebra where fractions do not.

    Returns:
      The task.
    """
    if settings.task == "arithmetic":
        task: QuestionTask = word_arithmetic.arithmetic(tokenizer)
    else:
        task = replace(task_named(settings.task, tokenizer), verify=verify)
    if isinstance(task, CodeTask):
        task = settings.code.applied(task)
    return replace(task, policy=settings.answers.policy(task.policy))


def evaluate(
    settings: EvaluationSettings,
    task: QuestionTask,
    asked: QuestionSet,
    generate: Generate,
    model_digest: str,
    console: Console | None = None,
    longest: int | None = None,
) -> dict[str, Any]:
    """Collects the missing records and reports on all of them.

    Args:
      settings: of the evaluation.
      task: makes prompts and grades responses.
      asked: the questions, from `benchmark_questions`.
      generate: the model.
      model_digest: identifies the model.
      console: for progress and tables; the standard output if None.
      longest: tokens of the longest prompt that the model can take; None for any.

    Returns:
      The report, as in report.json.
    """
    console = console or Console()
    _announce(settings, task, asked, console, longest)
    # What a record depends on besides question and decoding.
    identity = {
        "task": task.name,
        "instruction": task.separator + task.instruction,
        "data": asked.digest,
        "model": model_digest,
        "dtype": settings.dtype,
        "max_new_tokens": settings.max_new_tokens,
        "seed": settings.seed,
        "long_questions": settings.long_questions,
        "grader": GRADER_VERSION,
        **settings.answers.given,
    }
    if isinstance(task, CodeTask):
        identity["code"] = to_plain(asdict(settings.code))
    plain = to_plain(asdict(settings))
    with Records(settings.folder, identity, plain) as records:
        with TrainingProgress(console=console) as progress:
            collect_records(
                task,
                asked.questions,
                generate,
                records,
                settings.decodings,
                batch_size=settings.batch_size,
                progress=progress,
                longest=longest,
                truncate=settings.long_questions == "truncate",
            )
        about = {
            "task": task.name,
            "model": settings.model,
            "data": asked.origin,
            "identity": identity,
        }
        report = build_report(
            asked.questions, records, settings.decodings, about, task.same_answer
        )
        write_benchmark_report(records, report)
        print_report(report, console)
        console.print(f"records and report: {settings.folder}", highlight=False)
    return report


def _announce(
    settings: EvaluationSettings,
    task: QuestionTask,
    asked: QuestionSet,
    console: Console,
    longest: int | None,
) -> None:
    """Says before anything is sampled what cannot be graded or asked."""
    refused = ungradable(asked.questions, task.policy)
    said = [f"question {number}: {reason}" for number, reason in refused.items()]
    if refused:
        said[_SHOWN:] = [
            f"{len(refused)} of {len(asked.questions)} references cannot be graded: "
            "their grades fail"
        ]
    prompts = {q.problem_id: task.prompt_tokens(q) for q in asked.questions}
    said += [
        f"question {number} has {len(prompts[number])} tokens, more than {longest}: "
        f"{settings.long_questions}"
        for number in too_long(prompts, longest)
    ]
    for line in said:
        console.print(line, highlight=False)
