r"""GSM8K, MATH, AIME, programs, multiple choice and others as tasks.

Every prompt asks for the answer in the graded form: `#### 72` or `\boxed{72}` for word
problems, `\boxed{...}` for the rest. Without that mark there is no answer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from jaxrl_reason.grading.algebra import algebraically_equal
from jaxrl_reason.grading.answer_policy import USUAL, AnswerPolicy
from jaxrl_reason.grading.final_answer import Verify
from jaxrl_reason.tasks.code_rows import code_questions
from jaxrl_reason.tasks.code_task import code
from jaxrl_reason.tasks.math_rows import math_questions
from jaxrl_reason.tasks.multiple_choice import choice_questions, multiple_choice
from jaxrl_reason.tasks.question_files import (
    gsm8k_questions,
    gsm_plus_questions,
    problem_questions,
)
from jaxrl_reason.tasks.question_sources import MakeQuestions
from jaxrl_reason.tasks.questions import QuestionTask
from jaxrl_reason.text.tokenizer import Tokenizer

_STEPS = "Solve the problem step by step."
_HASHES = "On the last line write #### and then the final answer as a number alone."
_UNSOLVABLE = (
    "If the problem cannot be solved with what it says, write #### None instead."
)
_BOX = r"Put the final answer within \boxed{}."


_ZEROS = AnswerPolicy(leading_zeros=True)


def gsm8k(tokenizer: Tokenizer) -> QuestionTask:
    """GSM8K (arXiv 2110.14168): the answer is an integer.

    Args:
      tokenizer: of the model.

    Returns:
      The task.
    """
    return QuestionTask(tokenizer, f"{_STEPS} {_HASHES}", "gsm8k")


def gsm_plus(tokenizer: Tokenizer) -> QuestionTask:
    """GSM-Plus (arXiv 2402.19255), with the same instruction for seeds and variants.

    The instruction says what to answer if a condition is missing. It is the same for
    every question, since on only some of them it would reveal the answer.

    Args:
      tokenizer: of the model.

    Returns:
      The task.
    """
    return QuestionTask(tokenizer, f"{_STEPS} {_HASHES} {_UNSOLVABLE}", "gsm_plus")


def math_answers(
    tokenizer: Tokenizer, name: str = "math500", verify: Verify = algebraically_equal
) -> QuestionTask:
    """MATH, Minerva, OlympiadBench and AMC: the answer is LaTeX.

    Args:
      tokenizer: of the model.
      name: of the benchmark.
      verify: decides by algebra where fractions do not.

    Returns:
      The task.
    """
    return QuestionTask(tokenizer, f"{_STEPS} {_BOX}", name, verify=verify)


def aime(tokenizer: Tokenizer) -> QuestionTask:
    """AIME: an integer from 000 to 999, with or without its leading zeros.

    Args:
      tokenizer: of the model.

    Returns:
      The task.
    """
    return QuestionTask(tokenizer, f"{_STEPS} {_BOX}", "aime", policy=_ZEROS)


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark's rows are read, prompted and graded.

    Attributes:
      questions: rows of its file -> questions.
      task: tokenizer of the model -> the task.
      policy: of the task.
    """

    questions: MakeQuestions
    task: Callable[[Tokenizer], QuestionTask]
    policy: AnswerPolicy = USUAL


def _latex(name: str) -> Benchmark:
    return Benchmark(problem_questions, lambda tokenizer: math_answers(tokenizer, name))


def _math(name: str) -> Benchmark:
    return Benchmark(math_questions, lambda tokenizer: math_answers(tokenizer, name))


BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType(
    {
        "gsm8k": Benchmark(gsm8k_questions, gsm8k),
        "gsm_plus": Benchmark(gsm_plus_questions, gsm_plus),
        "math500": _latex("math500"),
        "aime": Benchmark(problem_questions, aime, _ZEROS),
        "amc": _latex("amc"),
        **{name: _math(name) for name in ("math", "minerva", "olympiad")},
        "code": Benchmark(code_questions, code),
        "multiple_choice": Benchmark(choice_questions, multiple_choice),
    }
)
