"""Programming questions: a program is right if it passes its tests in a sandbox."""

import contextlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from jaxrl_reason.grading.code_grader import (
    CodeGrade,
    find_program,
    grade_program,
    grade_programs,
)
from jaxrl_reason.grading.code_tests import CodeTests, TestsRefused
from jaxrl_reason.grading.reward_call import Scored
from jaxrl_reason.grading.sandbox import (
    Sandbox,
    SandboxError,
    SandboxLimits,
    open_sandbox,
)
from jaxrl_reason.tasks.code_rows import CodeQuestion
from jaxrl_reason.tasks.questions import Question, QuestionTask
from jaxrl_reason.tasks.reward_functions import Asked
from jaxrl_reason.tasks.task import Graded, without_end
from jaxrl_reason.text.tokenizer import Tokenizer

INSTRUCTION = (
    "Write the program in Python, all of it in one block that begins with ```python "
    "and ends with ```."
)
_REMEMBERED = 2**12
_MB = 2**20


@dataclass(frozen=True)
class CodeFlags:
    """How programs are run and rewarded.

    Attributes:
      sandbox: where programs run: bubblewrap (Linux), wasm, or the first that works.
      seconds: of one run; a script has one run for each test.
      memory_mb: of one run.
      reward: all: 1 if all tests pass; partial: the fraction that passes.

    Raises:
      ValueError: seconds or memory_mb is not above 0.
    """

    sandbox: Literal["auto", "bubblewrap", "wasm"] = "auto"
    seconds: float = 6.0
    memory_mb: int = 512
    reward: Literal["all", "partial"] = "all"

    def __post_init__(self) -> None:
        for name in ("seconds", "memory_mb"):
            if not getattr(self, name) > 0:
                raise ValueError(f"code.{name} must be > 0, got {getattr(self, name)}")

    def applied(self, task: "CodeTask") -> "CodeTask":
        """The task with a sandbox.

        Args:
          task: without one.

        Raises:
          SandboxError: there is no sandbox; the message says what to install.
        """
        limits = SandboxLimits(self.seconds, self.memory_mb * _MB)
        partial = self.reward == "partial"
        return replace(
            task, sandbox=open_sandbox(self.sandbox, limits), partial=partial
        )


@dataclass(frozen=True)
class CodeTask(QuestionTask):
    """Asks for a program and runs it on the tests of a `CodeQuestion`.

    `format_ok` of a grade says that there is a program. Grading raises `SandboxError`
    if no program could be run, `TestsRefused` if the tests cannot be used.

    Attributes:
      sandbox: where programs run.
      partial: whether all tests are run, for the fraction that passes.
    """

    sandbox: Sandbox | None = None
    partial: bool = False
    _known: OrderedDict[tuple[CodeTests, str | None], CodeGrade] = field(
        default_factory=OrderedDict, repr=False, compare=False
    )

    def _graded(self, problem: Question, text: str) -> Graded:
        found = self.graded_program(problem, text)
        return Graded(
            correct=found.correct,
            format_ok=found.program is not None,
            parsed=(
                None
                if found.program is None
                else f"{sum(found.passed)} of {len(found.passed)} tests"
            ),
        )

    def graded_program(self, problem: Question, response_text: str) -> CodeGrade:
        """The grade of a response's program, test by test.

        Args:
          problem: a `CodeQuestion`.
          response_text: what came after the prompt.

        Raises:
          SandboxError: no program could be run.
          TestsRefused: the tests of the question cannot be used.
        """
        key = self._key(problem, response_text)
        if key not in self._known:
            self._known[key] = grade_program(
                self._sandbox, key[1], key[0], partial=self.partial
            )
        return self._known[key]

    def grade_ahead(self, problems: Sequence[Question], texts: Sequence[str]) -> None:
        """Runs the programs of many responses, several at once.

        Args:
          problems: the question of each response.
          texts: the responses.
        """
        keys: dict[tuple[CodeTests, str | None], None] = {}
        for problem, text in zip(problems, texts, strict=True):
            with contextlib.suppress(TestsRefused):
                keys[self._key(problem, text)] = None
        new = [(key[1], key[0]) for key in keys if key not in self._known]
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        # `grade` says so once more.
        with contextlib.suppress(SandboxError):
            grades = grade_programs(self._sandbox, new, partial=self.partial)
            for (program, tests), grade in zip(new, grades, strict=True):
                self._known[tests, program] = grade

    def same_answer(self, first: str, second: str) -> bool:
        """Whether as many tests passed: a vote on programs says no more.

        Args:
          first: `parsed` of a grade.
          second: of another.
        """
        return first == second

    @property
    def _sandbox(self) -> Sandbox:
        if self.sandbox is None:
            raise SandboxError("code must run in a sandbox, got none: see CodeFlags")
        return self.sandbox

    def _key(self, problem: Question, text: str) -> tuple[CodeTests, str | None]:
        assert isinstance(problem, CodeQuestion)
        said = without_end(text, self.tokenizer)
        return problem.tests, find_program(said, self._opened(problem))


@dataclass(frozen=True)
class PassedTests:
    """A reward: the fraction of its tests that a program passes.

    Attributes:
      task: runs the programs.
    """

    task: CodeTask
    name: ClassVar[str] = "tests"
    needs_devices: ClassVar[bool] = False

    def score(self, asked: Sequence[Asked]) -> list[list[Scored]]:
        """The fraction for every response.

        Args:
          asked: with the row of a `CodeQuestion`.

        Returns:
          The scores.
        """
        questions = [CodeQuestion(0, x.prompt, "tests", row=x.row) for x in asked]
        pairs = [
            (question, response.text)
            for question, one in zip(questions, asked, strict=True)
            for response in one.responses
        ]
        self.task.grade_ahead([q for q, _ in pairs], [text for _, text in pairs])
        grades = iter([self._graded(*pair) for pair in pairs])
        return [[next(grades) for _ in one.responses] for one in asked]

    def _graded(self, question: CodeQuestion, text: str) -> Scored:
        try:
            found = self.task.graded_program(question, text)
        except (SandboxError, TestsRefused) as error:
            return str(error)
        return {"reward": found.fraction}, found.correct

    def close(self) -> None:
        """Has nothing to end."""


def code(tokenizer: Tokenizer) -> CodeTask:
    """Programs in Python.

    Args:
      tokenizer: of the model.

    Returns:
      The task, which needs a sandbox: `CodeFlags().applied(task)`.
    """
    return CodeTask(tokenizer, INSTRUCTION, "code")
