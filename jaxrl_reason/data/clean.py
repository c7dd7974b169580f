"""A raw set of questions made clean, part by part; an interrupted run goes on.

OUT/
    dataset/questions/1.0.0/   the rows, a TFDS dataset in ArrayRecord form
    README.md                  the card of the dataset
    report.html, report.json   what was dropped and why
    dropped.jsonl              every dropped row: its place, the reason, the copy
    questions.jsonl            the rows once more, with --jsonl
    work/                      finished parts, until the end
"""

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import jaxrl_reason
from jaxrl_reason.data.clean_benchmark import (
    BenchmarkTexts,
    read_benchmark,
    source_entry,
)
from jaxrl_reason.data.clean_dataset import (
    Shard,
    dataset_folder,
    json_lines,
    shard_name,
    write_dataset_info,
)
from jaxrl_reason.data.clean_page import card_text, report_html
from jaxrl_reason.data.clean_part import BAD, RawRow
from jaxrl_reason.data.clean_report import (
    EXAMPLES,
    dropped_counts,
    report_of,
    write_dropped,
)
from jaxrl_reason.data.clean_selection import (
    CleanRows,
    Embed,
    SameAnswer,
    Selection,
    drop_equal,
    drop_near,
    drop_same_meaning,
)
from jaxrl_reason.data.clean_settings import CleanSettings
from jaxrl_reason.data.clean_workers import ShardJob, Workers
from jaxrl_reason.data.strategies import accuracy_band, mixed_outcomes
from jaxrl_reason.runs.files import atomic_write
from jaxrl_reason.runs.run_folder import RunFolder, to_plain
from jaxrl_reason.tasks.question_sources import open_rows, tfds_folder
from jaxrl_reason.tasks.questions import Question

PART_ROWS = 10_000
_SHARD_ROWS = 50_000
_RATED_AT_ONCE = 2048
_CHECKED_FROM = 1000  # rows before too many bad ones stop the command

# Questions, and a folder for what is sampled -> (right, graded) of each.
Rate = Callable[[Sequence[Question], Path], list[tuple[int, int]]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class CleanFunctions:
    """What the cleaning gets from outside.

    Attributes:
      same_answer: decides on two answers of different form.
      embed: the embedding of the settings; None for none.
      rate: samples responses; None for no pass rates.
    """

    same_answer: SameAnswer
    embed: Embed | None = None
    rate: Rate | None = None


def clean(
    settings: CleanSettings, given: CleanFunctions, say: Say = print
) -> dict[str, Any]:
    """Cleans a set and writes it; continues an interrupted run of the same settings.

    Args:
      settings: what to clean, and how.
      given: what the settings name.
      say: gets a line for each stage.

    Returns:
      The report, as in report.json.

    Raises:
      ValueError: a source cannot be read, too many rows are bad, no row is left, or the
        folder holds something else.
    """
    out = settings.out
    out.mkdir(parents=True, exist_ok=True)
    with RunFolder(out) as folder:
        folder.lock()
        benchmark = read_benchmark(settings)
        identity = _identity(settings, benchmark)
        finished = _finished(out, identity)
        if finished is not None:
            return finished
        work = _open_work(out, identity)
        with Workers(settings, benchmark) as workers:
            counts = _clean_parts(settings, workers, work, say)
            rows = CleanRows(work, list(counts))
            selection = _select(settings, given, rows, say)
            rates = _pass_rates(settings, given, rows, selection, work, say)
            if not selection.kept.any():
                dropped = dropped_counts(counts, selection)
                raise ValueError(f"a row must be left, got none: {dropped}")
            shards = _write_dataset(workers, rows, selection, rates, work, say)
        drops = write_dropped(work, rows, selection)
        report = report_of(identity, counts, rows, selection, rates, drops)
        _publish(settings, report, rows, selection, rates, shards, work)
    return report


def _identity(settings: CleanSettings, benchmark: BenchmarkTexts) -> dict[str, Any]:
    """What the result depends on."""
    plain = to_plain(asdict(settings))
    for name in ("out", "workers", "data_dir"):
        del plain[name]
    sources = []
    known = {source["digest"]: source["source"] for source in benchmark.sources}
    for name in settings.raw:
        source = open_rows(name, data_dir=tfds_folder(name, settings.data_dir))
        if source.digest is not None and source.digest in known:
            raise ValueError(
                f"raw must not hold a benchmark itself, got {name}, the same file as "
                f"{known[source.digest]}"
            )
        sources.append(source_entry(name, source))
    identity = {
        "version": jaxrl_reason.__version__,
        "settings": plain,
        "sources": sources,
        "benchmarks": benchmark.sources,
    }
    plainer: dict[str, Any] = json.loads(json.dumps(identity))
    return plainer


def _finished(out: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    path = out / "report.json"
    if not path.exists():
        return None
    report: dict[str, Any] = json.loads(path.read_text("utf-8"))
    if report.get("identity") != identity:
        raise ValueError(
            f"{out} holds the result of other settings or sources; choose another --out"
        )
    return report


def _open_work(out: Path, identity: dict[str, Any]) -> Path:
    """The folder of the parts, with those of an interrupted run."""
    work = out / "work"
    path = work / "identity.json"
    if path.exists():
        if json.loads(path.read_text("utf-8")) != identity:
            raise ValueError(
                f"{work} holds an interrupted run of other settings or sources; choose "
                "another --out or delete it"
            )
        return work
    others = [x.name for x in out.iterdir() if x.name not in (".lock", "work")]
    if others:
        raise ValueError(
            f"out must be a new or empty folder, got {out} with {', '.join(others[:5])}"
        )
    work.mkdir(exist_ok=True)
    atomic_write(path, json.dumps(identity, indent=1) + "\n")
    return work


def _clean_parts(
    settings: CleanSettings, workers: Workers, work: Path, say: Say
) -> dict[str, Counter[str]]:
    """Cleans the parts that are not there yet: their counts, in order."""
    counts: dict[str, Counter[str]] = {}
    rows = bad = 0
    for name, found in workers.clean(_raw_parts(settings), work):
        counts[name] = Counter(found)
        rows += counts[name].total()
        bad += sum(counts[name][reason] for reason in BAD)
        if rows >= _CHECKED_FROM:
            _check_bad_rows(settings, rows, bad, work, list(counts))
        if len(counts) % 10 == 0:
            say(f"rows read: {rows:,}")
    if not rows:
        raise ValueError(f"raw must have rows, got none in {', '.join(settings.raw)}")
    _check_bad_rows(settings, rows, bad, work, list(counts))
    kept = sum(found["kept"] for found in counts.values())
    say(f"rows read: {rows:,}, {kept:,} of them passed the checks of a row")
    return counts


def _check_bad_rows(
    settings: CleanSettings, rows: int, bad: int, work: Path, names: list[str]
) -> None:
    """Stops at too many bad rows."""
    if bad <= settings.max_bad * rows:
        return
    lines = [
        f"  {row['place']}: {row['detail']}"
        for row in itertools.islice(bad_rows(work, names), EXAMPLES)
    ]
    raise ValueError(
        f"at most {settings.max_bad:.1%} of the rows may be bad (--max-bad), got {bad} "
        f"of {rows}:\n" + "\n".join(lines) + "\n(fields are named with --question and "
        "--answer)"
    )


def bad_rows(work: Path, names: Iterable[str]) -> Iterator[dict[str, str]]:
    """The rows of parts that were not of the form, in order."""
    for name in names:
        for line in (work / f"{name}.dropped.jsonl").read_bytes().splitlines():
            row = json.loads(line)
            if row["reason"] in BAD:
                yield row


def _raw_parts(settings: CleanSettings) -> Iterator[tuple[str, list[RawRow]]]:
    """The rows of all sources; no part holds rows of two of them."""
    for number, name in enumerate(settings.raw):
        where = tfds_folder(name, settings.data_dir)
        held: list[RawRow] = []

        def on_bad(place: str, said: str, held: list[RawRow] = held) -> None:
            held.append(RawRow(place, None, said))

        part = 0
        for place, row in open_rows(name, data_dir=where, on_bad=on_bad).rows:
            held.append(RawRow(place, row))
            while len(held) >= PART_ROWS:
                yield f"{number:03d}-{part:06d}", held[:PART_ROWS]
                del held[:PART_ROWS]
                part += 1
        if held:
            yield f"{number:03d}-{part:06d}", held


def _select(
    settings: CleanSettings, given: CleanFunctions, rows: CleanRows, say: Say
) -> Selection:
    selection, duplicates = Selection(rows), settings.duplicates
    drop_equal(selection, rows, given.same_answer, settings.golds)
    say(f"left without equal prompts: {selection.kept.sum():,}")
    if duplicates.near:
        drop_near(selection, rows, n=duplicates.n, threshold=duplicates.near)
        say(f"left without near duplicates: {selection.kept.sum():,}")
    if given.embed is not None:
        drop_same_meaning(selection, rows, given.embed, duplicates.cosine)
        say(f"left without prompts of one meaning: {selection.kept.sum():,}")
    return selection


def _pass_rates(
    settings: CleanSettings,
    given: CleanFunctions,
    rows: CleanRows,
    selection: Selection,
    work: Path,
    say: Say,
) -> np.ndarray | None:
    """[R, 2] right and graded responses, -1 for rows that were not asked."""
    if given.rate is None:
        return None
    rates = np.full((len(rows), 2), -1, np.int64)
    positions = np.flatnonzero(selection.kept)
    for begin in range(0, len(positions), _RATED_AT_ONCE):
        block = positions[begin : begin + _RATED_AT_ONCE].tolist()
        path = work / f"rates-{begin:09d}.json"
        if not path.exists():
            asked = [(i, rows[i]) for i in block]
            questions = [
                Question(i, row["question"], row["answer"]) for i, row in asked
            ]
            sampled = work / f"samples-{begin:09d}"
            atomic_write(path, json.dumps(given.rate(questions, sampled)))
            shutil.rmtree(sampled, ignore_errors=True)
        rates[block] = json.loads(path.read_text("utf-8"))
        say(f"questions rated: {begin + len(block):,} of {len(positions):,}")
    wanted = settings.pass_rates
    right, graded = rates[positions].T
    keep = accuracy_band(right, graded, low=wanted.low, high=wanted.high)
    if wanted.mixed:
        keep &= mixed_outcomes(right, graded)
    for i in positions[~keep].tolist():
        right_here, graded_here = rates[i].tolist()
        reason = "ungraded"
        if graded_here:
            hard = right_here < wanted.low * graded_here or not right_here
            reason = "too_hard" if hard else "too_easy"
        selection.drop(i, reason, detail=f"{right_here} of {graded_here} right")
    say(f"left by pass rate: {selection.kept.sum():,}")
    return rates


def _write_dataset(
    workers: Workers,
    rows: CleanRows,
    selection: Selection,
    rates: np.ndarray | None,
    work: Path,
    say: Say,
) -> list[Shard]:
    """Writes the shards; a shard holds the rows of whole parts."""
    groups: list[list[int]] = [[]]
    size = 0
    for part in range(len(rows.names)):
        here = int(selection.kept[rows.starts[part] : rows.starts[part + 1]].sum())
        if size and size + here > _SHARD_ROWS:
            groups.append([])
            size = 0
        if here:
            groups[-1].append(part)
            size += here
    folder = dataset_folder(work)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    jobs = []
    for number, parts in enumerate(groups):
        ranges = [slice(rows.starts[part], rows.starts[part + 1]) for part in parts]
        jobs.append(
            ShardJob(
                folder / shard_name(number, len(groups)),
                [work / f"{rows.names[part]}.rows.jsonl" for part in parts],
                [selection.kept[x] for x in ranges],
                None if rates is None else [rates[x] for x in ranges],
            )
        )
    say(f"writing {len(jobs)} files")
    return workers.write(jobs)


def _publish(
    settings: CleanSettings,
    report: dict[str, Any],
    rows: CleanRows,
    selection: Selection,
    rates: np.ndarray | None,
    shards: list[Shard],
    work: Path,
) -> None:
    """Puts the result in its place; report.json comes last and says that it is done."""
    out = settings.out
    card = card_text(report)
    rated = rates is not None
    write_dataset_info(dataset_folder(work), shards, card.split("\n\n")[1], rated)
    if (out / "dataset").exists():  # of a run that was stopped below
        shutil.rmtree(out / "dataset")
    (work / "dataset").rename(out / "dataset")
    (work / "dropped.jsonl").replace(out / "dropped.jsonl")
    if settings.jsonl:
        with open(work / "questions.jsonl", "wb") as file:
            for part in range(len(rows.names)):
                kept = (r for i, r in rows.of_part(part) if selection.kept[i])
                file.writelines(json_lines(kept))
        (work / "questions.jsonl").replace(out / "questions.jsonl")
    atomic_write(out / "README.md", card)
    atomic_write(out / "report.html", report_html(report))
    atomic_write(out / "report.json", json.dumps(report, indent=1) + "\n")
    shutil.rmtree(work)
