"""`jaxrl-reason evaluate`: measures a model on a benchmark."""

from collections.abc import Sequence
from contextlib import ExitStack

import tyro
from rich.console import Console

from jaxrl_reason.evaluation.benchmark_evaluation import (
    LATEX_TASKS,
    EvaluationSettings,
    benchmark_questions,
    benchmark_task,
    evaluate,
)
from jaxrl_reason.evaluation.responses import load_model, make_generate
from jaxrl_reason.grading.final_answer import Verify
from jaxrl_reason.grading.math_verifier import MathVerifier, verifier_available


def main(argv: Sequence[str]) -> None:
    """Runs the command with these arguments.

    Args:
      argv: the arguments.

    Raises:
      ValueError: the settings, the files or the model cannot be used.
    """
    settings = tyro.cli(EvaluationSettings, args=argv, prog="jaxrl-reason evaluate")
    questions = benchmark_questions(settings)
    loaded = load_model(settings.model, dtype=settings.dtype)
    with ExitStack() as stack:
        task = benchmark_task(settings, loaded.tokenizer, _verifier(settings, stack))
        generate = make_generate(
            loaded,
            task.eos_token_ids,
            max_new_tokens=settings.max_new_tokens,
            batch_size=settings.batch_size,
            seed=settings.seed,
        )
        evaluate(settings, task, questions, generate, loaded.digest)


def _verifier(settings: EvaluationSettings, stack: ExitStack) -> Verify | None:
    """math-verify, if the task has LaTeX answers and it is installed."""
    if settings.task not in LATEX_TASKS:
        return None
    if not verifier_available():
        Console(stderr=True).print(
            "math-verify is not installed (pip install 'jaxrl-reason\\[math]'): LaTeX "
            "answers are right only in the same normal form as the reference"
        )
        return None
    return stack.enter_context(MathVerifier(settings.deadline))
