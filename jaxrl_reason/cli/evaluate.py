"""`jaxrl-reason evaluate`: measures a model on a benchmark."""

from collections.abc import Sequence

import tyro

from jaxrl_reason.evaluation.benchmark_evaluation import (
    EvaluationSettings,
    benchmark_questions,
    benchmark_task,
    evaluate,
)
from jaxrl_reason.evaluation.responses import load_model, make_generate
from jaxrl_reason.grading.math_verifier import MathVerifier


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
    longest = loaded.model.config.context_length - settings.max_new_tokens
    with MathVerifier(settings.deadline) as verify:
        task = benchmark_task(settings, loaded.tokenizer, verify)
        generate = make_generate(
            loaded,
            task.eos_token_ids,
            max_new_tokens=settings.max_new_tokens,
            batch_size=settings.batch_size,
            seed=settings.seed,
        )
        evaluate(settings, task, questions, generate, loaded.digest, longest=longest)
