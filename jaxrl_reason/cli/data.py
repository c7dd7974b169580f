"""`jaxrl-reason data clean`: a raw set of questions made fit for training."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from jaxrl_reason.data.clean import CleanFunctions, Rate, clean
from jaxrl_reason.data.clean_presets import PRESETS
from jaxrl_reason.data.clean_selection import Embed
from jaxrl_reason.data.clean_settings import CleanSettings, PassRateSettings
from jaxrl_reason.evaluation.decoding import Decoding
from jaxrl_reason.evaluation.responses import load_model, make_generate
from jaxrl_reason.evaluation.sampled_rates import sampled_rates
from jaxrl_reason.grading.answer_policy import USUAL
from jaxrl_reason.grading.load_function import load_function
from jaxrl_reason.grading.math_verifier import MathVerifier
from jaxrl_reason.tasks.questions import Question, QuestionTask

DESCRIPTION = """Clean a raw set of questions for training.

Reads rows from files, folders, TFDS and the hub, and leaves out, in this order: rows
that cannot be read or lack a field; questions with addresses or images; answers that
cannot be graded; questions of the benchmarks (--against), also reworded; copies and
contradictions; near duplicates; questions that --pass-rates.model solves too rarely or
too often. OUT then holds the rows as a TFDS dataset in ArrayRecord form, its card,
report.html with plots, report.json, and dropped.jsonl, which says of every other row
why it is not there.

`jaxrl-reason train --task OUT` trains on the result. After a kill or Ctrl-C the same
command goes on; the files have the same bytes either way. See docs/data.md.
"""
_USAGE = "usage: jaxrl-reason data clean RAW... --against BENCHMARK... --out DIR"


@dataclass(frozen=True)
class CleanCommand:
    """Settings of the command besides those of the cleaning.

    Attributes:
      preset: start from the published settings of light-r1 (arXiv 2503.10460) or
        skywork-or1 (arXiv 2505.22312).
    """

    settings: Annotated[CleanSettings, tyro.conf.arg(name="")]
    preset: str | None = None


def main(argv: Sequence[str]) -> None:
    """Runs the command with these arguments.

    Args:
      argv: the arguments, `clean` first.

    Raises:
      ValueError: the settings or the files cannot be used, or too many rows are bad.
      SystemExit: after --help, or for arguments that cannot be read.
    """
    if not argv or argv[0] not in ("clean", "-h", "--help"):
        asked = argv[0] if argv else "nothing"
        _say(f"{_USAGE}\n\ndata must be followed by clean, got {asked}")
        raise SystemExit(2)
    if argv[0] != "clean":
        argv = ["clean", "--help"]
    settings = read_clean_settings(argv[1:])
    with ExitStack() as stack:
        report = clean(settings, _functions(settings, stack), say=_say)
    page = settings.out / "report.html"
    print(f"{report['kept']:,} of {report['rows']:,} rows kept: {page}")


def read_clean_settings(argv: Sequence[str]) -> CleanSettings:
    """The settings of a command line.

    Args:
      argv: the arguments after `clean`.

    Returns:
      The settings: of the preset, with the flags over them.

    Raises:
      ValueError: there is no such preset, or a setting is out of range.
      SystemExit: after --help, or for arguments that cannot be read.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset")
    first.add_argument("--pass-rates.model", dest="model")
    named = first.parse_known_args(list(argv))[0]
    default = CleanSettings(raw=tyro.MISSING, out=tyro.MISSING)
    if named.preset is not None:
        default = _with_preset(default, named.preset, named.model)
    command = tyro.cli(
        CleanCommand,
        args=argv,
        default=CleanCommand(default, named.preset),
        description=DESCRIPTION,
        prog="jaxrl-reason data clean",
    )
    return command.settings


def _with_preset(
    settings: CleanSettings, name: str, model: str | None
) -> CleanSettings:
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    preset = PRESETS[name]
    rates = settings.pass_rates
    if model is not None:
        rates = replace(rates, model=model, **preset.pass_rates)
    else:
        wanted = ", ".join(f"{k} {v}" for k, v in preset.pass_rates.items())
        _say(
            f"note: {preset.source} also filters by pass rate ({wanted}), which needs "
            "--pass-rates.model"
        )
    return replace(
        settings,
        **preset.settings,
        decontamination=replace(settings.decontamination, **preset.decontamination),
        pass_rates=rates,
    )


def _functions(settings: CleanSettings, stack: ExitStack) -> CleanFunctions:
    """What the settings name: a grader, an embedding, a model."""
    verify = stack.enter_context(MathVerifier())

    def same_answer(first: str, second: str) -> bool:
        return any(
            verify(gold, answer, USUAL)
            for gold, answer in ((first, second), (second, first))
        )

    embed: Embed | None = None
    if settings.duplicates.embed is not None:
        embed = load_function(settings.duplicates.embed)
    rate = None
    if settings.pass_rates.model is not None:
        rate = _rate(settings.pass_rates, settings.pass_rates.model, verify)
    return CleanFunctions(same_answer, embed, rate)


def _rate(settings: PassRateSettings, model: str, verify: MathVerifier) -> Rate:
    loaded = load_model(model, dtype=settings.dtype)
    task = QuestionTask(
        loaded.tokenizer, settings.instruction, "pass_rates", verify=verify
    )
    generate = make_generate(
        loaded,
        task.eos_token_ids,
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
        seed=settings.seed,
    )
    decoding = Decoding(settings.samples, settings.temperature, top_p=settings.top_p)
    longest = loaded.model.config.context_length - settings.max_new_tokens

    def rate(questions: Sequence[Question], folder: Path) -> list[tuple[int, int]]:
        return sampled_rates(
            task,
            questions,
            generate,
            decoding,
            folder,
            batch_size=settings.batch_size,
            longest=longest,
        )

    return rate


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
