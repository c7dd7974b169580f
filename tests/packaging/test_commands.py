"""Every command line of the README and the docs is tried.

A line of one of our programs is parsed by that program, with exactly its flags. Of each
program one line is run as well, with flags behind it that make it small. Lines of other
programs stand in a table with the reason why they are not tried, and a line that is in
no table fails. Flags that stand alone in a sentence must be flags of a program.
"""

import argparse
import contextlib
import importlib
import io
import json
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tyro

from jaxrl_reason.cli.main import COMMANDS, main
from tests.pretrained.tiny import random_params, write_gguf
from tests.text.tokenizer_families import family

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

SHELLS = ("sh", "bash", "shell", "console")
# First words by which a line is known as a command in a block of no language.
FIRST_WORDS = ("python", ".venv/bin/python", "jaxrl-reason", "pip", "tensorboard")

# Lines that are not tried, and why.
NOT_TRIED = {
    r"(\.venv/bin/)?pip (install|download) .+": (
        "needs a network; test_install_states.py installs without one"
    ),
    r"python -m venv \.venv": "test_install_states.py makes environments",
    r"(\.venv/bin/)?python -m pytest.*": "these are the tests",
    r"docs/preemption/requeue\.sh .+": "test_preemption_files.py runs it",
    r"python -c .+tensorflow_datasets.+": "prepares a dataset from the network",
    r"python my_script\.py": "stands for a script of the reader",
    r"python make_questions\.py": "a script of its page, which test_docs.py runs",
    r"python docs/recipe_tables\.py": "test_recipe_docs.py has what it would write",
    r"python -m tests\.weights\.make_logit_references": "needs torch",
    r"python -m tests\.runs\.(make|draw)_stored_curves": (
        "trains for a quarter of an hour; draws into docs/"
    ),
    r"source \.venv/bin/activate": "of the shell",
    r"(tensorboard|xprof) --logdir runs.*": (
        "viewers that are not installed with the library"
    ),
    r"unzip .+": "a tool of the system",
    r"(srun|gcloud|xpk) .+": "starts the processes of a cluster",
    r"vllm serve .+": "a serving engine, on a machine with an accelerator",
}
# Programs of which no line is run here, and why; their lines are parsed all the same.
RUN_ELSEWHERE = {
    "jaxrl-reason aot": "test_aot.py and, with a compiler, test_compile_step.py",
    "jaxrl-reason claim": "test_claim.py in small, and each by test_claims.py",
    "jaxrl-reason replay": "test_replay.py",
    "jaxrl-reason diff": "test_run_diff.py",
    "jaxrl-reason compare": "test_compare.py",
    "experiments/dapo_countdown.py": "run whole by test_dapo_countdown.py",
    "experiments/dapo_smollm2.py": "run whole by test_dapo_smollm2.py",
    "experiments/benchmarks/grader_fuzz.py": "its searches by test_grader_fuzz.py",
    "experiments/benchmarks/grading_speed.py": "in small by test_grading_speed.py",
    "experiments/benchmarks/aot_memory.py": "compiles for minutes",
    "experiments/benchmarks/aot_scaling.py": "compiles for minutes",
    "experiments/benchmarks/aot_table.py": "compiles for hours",
    "experiments/benchmarks/rollout_against_transformers.py": "needs transformers",
    "experiments/benchmarks/step_against_peer.py": "needs trl or google-tunix",
    "experiments/conformance/strict_numbers.py": "measures for a minute",
    "experiments/conformance/peer_losses.py": "test_conformance.py, with torch",
    "experiments/conformance/peer_tests.py": "test_peer_tests.py, with torch",
}
# What is put behind the first line of a program to run it at toy size.
SMALL = {
    "jaxrl-reason train": (
        "--rl.steps 1 --rl.prompts-per-step 2 --rl.group-size 2 --rl.max-new-tokens 4 "
        "--dapo.no-dynamic-sampling --dapo.overlong-cache 2 --sampler.slots 0 "
        "--eval.problems 2 --eval.samples 1 --run-dir OUT"
    ),
    "jaxrl-reason generate": "--raw --max-new-tokens 2",
    "jaxrl-reason evaluate": "--limit 1 --max-new-tokens 2 --batch-size 1 --out OUT",
    "jaxrl-reason export": "",
    "jaxrl-reason data": "--workers 1",
    "experiments/shallow_student.py": "--layers 1 --out OUT",
    "jaxrl_reason.testing": "--seeds 2 --steps 3 --out OUT",
}
# Who may be meant by flags that stand alone, with what each needs besides them.
NEEDED = [
    ("jaxrl-reason train", "--preset countdown"),
    ("jaxrl-reason train", "--preset countdown --resume must"),
    ("jaxrl-reason train", "--preset countdown --method opd"),
    ("jaxrl-reason train", "--preset countdown --teacher PATH"),
    ("jaxrl-reason train", "--preset countdown --method vapo"),
    ("jaxrl-reason train", "--model 2x64 --task my.jsonl"),
    ("jaxrl-reason train", "--model 2x64 --task my.jsonl --task.response said"),
    ("jaxrl-reason train", "--model MODEL --task my.jsonl"),
    ("jaxrl-reason train", "--model MODEL --task my.jsonl --judge.model MODEL"),
    ("jaxrl-reason claim", ""),
    ("jaxrl-reason replay", "RUN"),
    ("jaxrl-reason compare", "RUN"),
    ("jaxrl-reason aot", "--topology v5e:2x2"),
    ("jaxrl-reason evaluate", "--task arithmetic --model MODEL"),
    ("jaxrl-reason evaluate", "--task gsm8k --model MODEL"),
    ("jaxrl-reason generate", "--model MODEL --prompt TEXT"),
    ("jaxrl-reason export", "--model MODEL --out FOLDER"),
    ("jaxrl-reason data", "clean my.jsonl --out FOLDER"),
    ("jaxrl-reason data", "clean my.jsonl --out FOLDER --pass-rates.model PATH"),
    ("jaxrl_reason.testing", "my_file.py:my_loss"),
    ("experiments/conformance/peer_losses.py", ""),
    ("experiments/conformance/peer_tests.py", ""),
]
PLACEHOLDER = {"N": "1", "n": "1", "M": "2", "CAUSE": "truncated"}
FLAG = r"--[a-z][\w.-]*"
# How flags in sentences begin that are of other programs: of XLA, vllm and Slurm.
OTHER_FLAGS = (
    *("--xla_", "--generation-config", "--logprobs-mode"),
    *("--requeue", "--signal"),
)


@dataclass(frozen=True)
class Line:
    """A command of a page."""

    page: str
    text: str

    @property
    def words(self) -> list[str]:
        """As the shell splits it, without variables in front and comments."""
        words = shlex.split(self.text, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words[:3] == ["python", "-m", "jaxrl_reason"]:
            words = ["jaxrl-reason", *words[3:]]
        if words[:2] == ["python", "-m"] and words[2].startswith("jaxrl_reason."):
            words = ["python", *words[2:]]
        return words

    @property
    def program(self) -> str:
        """The script, the module, or `jaxrl-reason` with the name of the command."""
        first, *rest = self.words
        if first == "jaxrl-reason":
            return f"{first} {rest[0]}"
        return rest[0] if rest and first.endswith("python") else first

    @property
    def arguments(self) -> list[str]:
        """What the program is given."""
        return self.words[2:]

    @property
    def why_not_tried(self) -> str | None:
        """The reason of the table, None for a line of ours."""
        text = shlex.join(self.words)
        found = [r for p, r in NOT_TRIED.items() if re.fullmatch(p, text, re.DOTALL)]
        return found[0] if found else None


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Language and content of each block of code."""
    for found in re.finditer(
        r"^```([^\n]*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE
    ):
        yield found[1].strip(), found[2]


def spans(text: str) -> list[str]:
    """Code inside sentences."""
    prose = re.sub(r"(?ms)^```.*?^```", "", text)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def commands_in(language: str, block: str) -> Iterator[str]:
    """The commands of a block of code."""
    for line in block.replace("\\\n", " ").splitlines():
        text = line.strip().removeprefix("$ ")
        if language == "console" and not line.startswith("$ "):
            continue
        if not text or text.startswith("#"):
            continue
        if language in SHELLS or text.split()[0] in FIRST_WORDS:
            yield from (part.strip() for part in text.split(" && "))


def lines_of(name: str, text: str) -> Iterator[Line]:
    """Every command line of a page, in blocks and in sentences."""
    for language, block in blocks(text):
        yield from (Line(name, command) for command in commands_in(language, block))
    for span in spans(text):
        words = span.split()
        if words[0] in FIRST_WORDS and len(words) > 1:
            yield Line(name, span)


def flag_spans(text: str) -> list[str]:
    """Flags of ours that stand alone in sentences: `--seed`, `--prompt -`."""
    found = [span.removesuffix(" ...") for span in spans(text)]
    found = [span for span in found if re.match(FLAG, span)]
    return [span for span in found if not span.startswith(OTHER_FLAGS)]


def valued(span: str) -> bool:
    """Whether all that stands there can be parsed: it ends with a value."""
    return not re.fullmatch(FLAG, span.split()[-1])


READ = {page.relative_to(ROOT).as_posix(): page.read_text("utf-8") for page in PAGES}
LINES = [line for name, text in READ.items() for line in lines_of(name, text)]
OURS = [line for line in LINES if line.why_not_tried is None]


def start(program: str, arguments: list[str]) -> Any:
    """Runs a program of ours in this process."""
    if program.startswith("jaxrl_reason."):
        return importlib.import_module(f"{program}.__main__").main(arguments)
    if program.startswith("jaxrl-reason "):
        return main([program.split()[1], *arguments])
    sys.argv = [program, *arguments]
    return runpy.run_path(str(ROOT / program), run_name="__main__")


class Parsed(Exception):
    """The arguments were read; the program goes no further."""


@contextlib.contextmanager
def only_parsing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Programs stop as soon as they have read their arguments."""
    read_settings = tyro.cli
    read_arguments = argparse.ArgumentParser.parse_args
    inside_tyro = False

    def cli(*args: Any, **options: Any) -> Any:
        nonlocal inside_tyro
        inside_tyro = True
        try:
            read_settings(*args, **options)
        finally:
            inside_tyro = False
        raise Parsed

    def parse_args(parser: Any, *args: Any, **options: Any) -> Any:
        found = read_arguments(parser, *args, **options)
        if inside_tyro:
            return found
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", sys.argv)
        patch.setattr(tyro, "cli", cli)
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        yield


PAGE = """
Say `python a.py --b 1`, not `python` or `--c`.

```sh
# first
A=1 python b.py --x \\
    y && jaxrl-reason z  # last
cowsay hi
```
```console
$ python c.py
output
```
```
python d.py
f(x)
```
"""


def test_what_a_page_holds_is_found() -> None:
    found = [line.words for line in lines_of("page", PAGE)]
    assert found == [
        ["python", "b.py", "--x", "y"],
        ["jaxrl-reason", "z"],
        ["cowsay", "hi"],
        ["python", "c.py"],
        ["python", "d.py"],
        ["python", "a.py", "--b", "1"],
    ]
    assert flag_spans(PAGE) == ["--c"]


def test_pages_hold_commands() -> None:
    programs = {line.program for line in OURS}
    assert {f"jaxrl-reason {name}" for name in ("generate", "evaluate")} <= programs
    assert "experiments/dapo_countdown.py" in programs


def test_every_entry_of_the_tables_is_used() -> None:
    texts = [shlex.join(line.words) for line in LINES]
    for pattern in NOT_TRIED:
        assert any(re.fullmatch(pattern, text, re.DOTALL) for text in texts), pattern
    programs = {line.program for line in OURS}
    assert set(RUN_ELSEWHERE) | set(SMALL) == programs
    named = " ".join(RUN_ELSEWHERE.values())
    for file in re.findall(r"\w+\.py", named):
        assert any((ROOT / "tests").rglob(file)), file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the lines name."""
    path = tmp_path_factory.mktemp("commands")
    write_gguf(path / "MODEL.gguf", random_params(), family("llama3"))
    solved = {"question": "1 + 1?", "answer": "2\n#### 2"}
    (path / "test.jsonl").write_text(json.dumps(solved) + "\n", encoding="utf-8")
    rows = [{"question": f"{n}?", "answer": n, "problem": f"{n}?"} for n in range(20)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (path / "my.jsonl").write_text(text, encoding="utf-8")
    reward = "def my_reward(prompt, response, row):\n    return len(response) % 2\n"
    loss = "from jaxrl_reason.losses import ppo_loss as my_loss\n"
    (path / "my_file.py").write_text(loss + reward, encoding="utf-8")
    run = path / "runs" / "countdown-dapo-seed0"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("preset: countdown\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("line", OURS, ids=lambda line: f"{line.page}: {line.text}")
def test_the_program_takes_the_line(
    line: Line, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(folder)
    if line.words[0] == "jaxrl-reason" and len(line.words) == 2:
        assert line.words[1] in COMMANDS  # a mention of the command
        return
    with only_parsing(monkeypatch):
        try:
            start(line.program, line.arguments)
        except Parsed:
            return
        except SystemExit as ended:
            if "--help" in line.arguments and ended.code == 0:
                return
    raise AssertionError(f"arguments not read: {capsys.readouterr().err}")


@pytest.mark.parametrize("program", SMALL)
def test_a_line_of_each_program_runs(
    program: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    line = next(x for x in OURS if x.program == program and x.arguments)
    files: dict[str, Callable[[str], bool]] = {
        "MODEL.gguf": lambda word: word == "PATH" or word.endswith(".gguf"),
        "test.jsonl": lambda word: word.endswith(("train.jsonl", "test.jsonl")),
        f"out-{program.split()[-1]}": lambda word: word in ("FOLDER", "OUT"),
    }
    words = [*line.arguments, *shlex.split(SMALL[program])]
    for file, stands_for in files.items():
        words = [str(folder / file) if stands_for(word) else word for word in words]
    monkeypatch.chdir(folder)
    start(program, words)
    assert capsys.readouterr().out


@pytest.fixture(scope="module")
def known_flags() -> dict[str, set[str]]:
    """The flags of each of our programs, from its help."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "300")
        patch.setattr(sys, "argv", sys.argv)
        for program in {*(name for name, _ in NEEDED), *(x.program for x in OURS)}:
            shown = io.StringIO()
            with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
                start(program, ["--help"])
            found[program] = set(re.findall(FLAG, shown.getvalue()))
    return found


@pytest.mark.parametrize("page", [page for page in READ if flag_spans(READ[page])])
def test_flags_in_sentences_are_flags_of_a_program(
    page: str, known_flags: dict[str, set[str]]
) -> None:
    flags = {flag for span in flag_spans(READ[page]) for flag in re.findall(FLAG, span)}
    assert flags - set().union(*known_flags.values()) == set()


@pytest.mark.parametrize(
    "span", sorted({x for text in READ.values() for x in flag_spans(text) if valued(x)})
)
def test_flags_with_values_are_taken_by_a_program(
    span: str,
    known_flags: dict[str, set[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    words = [PLACEHOLDER.get(word, word) for word in shlex.split(span)]
    flags = {x.partition("=")[0] for x in words if re.match(FLAG, x)}
    for program, needed in NEEDED:
        if not flags <= known_flags[program]:
            continue  # it would refuse them, after reading all its settings
        with only_parsing(monkeypatch), contextlib.suppress(SystemExit, ValueError):
            try:
                start(program, [*shlex.split(needed), *words])
            except Parsed:
                return
    raise AssertionError(f"no program takes {span}")
