r"""How long grading takes: numbers, LaTeX that needs algebra, answers that hang.

    python experiments/benchmarks/grading_speed.py
    python experiments/benchmarks/grading_speed.py --deadline 4

Seconds of wall time and, in brackets, of processor time, on the cores of this machine.
"""

import random
import resource
import string
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import tyro

from jaxrl_reason.grading.math_verifier import MathVerifier
from jaxrl_reason.grading.worker_pool import WorkerPool
from jaxrl_reason.tasks.questions import Question, QuestionTask
from jaxrl_reason.text.characters import CharacterTokenizer

HANGS = """
def spin(kind):
    while kind == "interruptible":
        pass
    while kind == "stubborn":
        try:
            while True:
                pass
        except BaseException:
            pass
    return 7 ** (7 ** 10) if kind == "in C" else kind
"""


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
      deadline: seconds that an answer may take.
    """

    deadline: float = 10.0


def numbers(rng: random.Random, count: int) -> list[tuple[str, str]]:
    """Golds and worked solutions of word problems, most of them right."""
    pairs = []
    for _ in range(count):
        gold = str(rng.randint(0, 100_000))
        step = "{0} + {1} = <<{0}+{1}={2}>>{2}. "
        sums = [(a := rng.randint(1, 99), b := rng.randint(1, 99), a + b)] * 12
        said = gold if rng.random() < 0.6 else str(rng.randint(0, 100_000))
        pairs.append((gold, "".join(step.format(*x) for x in sums) + f"\n#### {said}"))
    return pairs


def expressions(rng: random.Random, count: int) -> list[tuple[str, str]]:
    """Golds and answers that only algebra can compare."""
    forms = (
        (r"{a}\sqrt{{{b}}}", r"\sqrt{{{aab}}}"),
        ("(x+{a})(x-{b})", "x^2+{a}x-{b}x-{ab}"),
        (
            r"\frac{{\sqrt{{{a}}}+{b}}}{{7}}",
            r"\frac{{{b}}}{{7}}+\frac{{\sqrt{{{a}}}}}{{7}}",
        ),
        (r"\frac{{{a}\pi}}{{{b}}}+e^2", r"\frac{{{aab}\pi}}{{{b}}}+e^2"),
        (r"\sin({a}x)+{b}\log_2 5", r"{b}\log_2 5+\sin({a}x)"),
    )
    pairs = []
    for i in range(count):
        a, b = rng.randint(2, 50), rng.randint(2, 50)
        values = {"a": a, "b": b, "ab": a * b, "aab": a * a * b}
        gold, said = (form.format(**values) for form in forms[i % len(forms)])
        pairs.append((gold, rf"\boxed{{{said}}}"))
    return pairs


def timed(name: str, run: Callable[[], object]) -> None:
    """Runs something and prints how long it took."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)

    def processor() -> float:
        found = [resource.getrusage(x) for x in who]
        return sum(x.ru_utime + x.ru_stime for x in found)

    start, before = time.perf_counter(), processor()
    said = run()
    wall = time.perf_counter() - start
    print(f"{name}: {wall:.2f} s ({processor() - before:.2f} s), {said}")


def graded(pairs: list[tuple[str, str]], deadline: float = 10.0) -> str:
    """Grades as training does."""
    questions = [Question(i, "?", gold) for i, (gold, _) in enumerate(pairs)]
    texts = [text for _, text in pairs]
    with MathVerifier(deadline) as verify:
        tokenizer = CharacterTokenizer(string.printable)
        task = QuestionTask(tokenizer, "", "speed", verify=verify)
        task.grade_ahead(questions, texts)
        right = [
            task.grade(*x, False).correct for x in zip(questions, texts, strict=True)
        ]
    return f"{sum(right)} of {len(right)} right"


def main(options: Options) -> None:
    """Prints one line for each measurement."""
    rng, deadline = random.Random(0), options.deadline
    word_problems, latex = numbers(rng, 5000), expressions(rng, 500)
    timed("5,000 numbers", lambda: graded(word_problems, deadline))
    timed("500 expressions", lambda: graded(latex, deadline))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "hangs.py"
        path.write_text(HANGS)
        for kind in ("interruptible", "stubborn", "in C"):
            with WorkerPool(f"{path}:spin", deadline) as pool:
                pool.start()
                jobs = [[kind]] * 64 + [["fine"]] * 20

                def run(pool: WorkerPool = pool, jobs: list[list[str]] = jobs) -> str:
                    fine = pool.map(jobs).count("fine")
                    return f"{fine} of 20 others done, deadline {deadline:g} s"

                timed(f"64 that hang, {kind}", run)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
