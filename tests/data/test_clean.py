"""A raw set made clean: what goes and why, what stays, the same bytes after a stop."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxrl_reason.data import clean as clean_module
from jaxrl_reason.data.clean import CleanFunctions, clean
from jaxrl_reason.data.clean_page import REASONS, card_text, report_html
from jaxrl_reason.data.clean_settings import (
    CleanSettings,
    DecontaminationSettings,
    DuplicateSettings,
    PassRateSettings,
)
from jaxrl_reason.grading.algebra import algebraically_equal
from jaxrl_reason.runs.files import file_sha256, list_files
from jaxrl_reason.tasks.question_files import problem_questions
from jaxrl_reason.tasks.question_sources import load_questions, open_rows
from jaxrl_reason.tasks.questions import Question
from jaxrl_reason.tasks.row_questions import row_questions
from tests.data.clean_cases import GOOD, KEPT, WRONG, write_raw
from tests.grading.hostile import rows_of, text_of


def same_answer(first: str, second: str) -> bool:
    return bool(algebraically_equal(first, second))


FUNCTIONS = CleanFunctions(same_answer)


def settings_of(tmp_path: Path, **changes: Any) -> CleanSettings:
    raw, benchmark = write_raw(tmp_path)
    settings = CleanSettings(
        raw=(str(raw),),
        out=tmp_path / "out",
        against=(str(benchmark),),
        max_bad=0.2,
        workers=1,
        jsonl=True,
    )
    return replace(settings, **changes)


def cleaned(
    settings: CleanSettings, given: CleanFunctions = FUNCTIONS
) -> dict[str, Any]:
    return clean(settings, given, say=lambda text: None)


def bytes_of(out: Path) -> dict[str, str]:
    names = [name for name in list_files(out) if name != ".lock"]
    return {name: file_sha256(out / name) for name in names}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = settings_of(tmp_path_factory.mktemp("clean"))
    cleaned(settings)
    return settings.out


def test_every_row_goes_for_its_reason(out: Path) -> None:
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert report["dropped"] == Counter(reason for reason, _ in WRONG)
    assert report["rows"] == len(GOOD) + len(KEPT) + len(WRONG)
    assert report["kept"] == len(GOOD) + len(KEPT)
    first = len(GOOD) + len(KEPT) + 1
    dropped = [
        json.loads(line)
        for line in (out / "dropped.jsonl").read_text("utf-8").splitlines()
    ]
    found = {int(row["place"].rpartition(" ")[2]): row["reason"] for row in dropped}
    assert found == {first + i: reason for i, (reason, _) in enumerate(WRONG)}
    copies = {row["place"].rpartition(" ")[2]: row["other"] for row in dropped}
    assert copies[str(first + 7)].endswith("raw.jsonl, line 4")
    assert copies[str(first + 6)].endswith("benchmark.jsonl, line 1")
    assert [row["reason"] for row in report["first_bad"]] == [
        "unreadable",
        "field",
        "field",
    ]


def test_the_rows_are_read_back_by_one_flag(out: Path) -> None:
    for source in (out, f"{out}/train", str(out / "questions.jsonl")):
        questions = load_questions(source, row_questions).questions
        assert [q.question for q in questions] == [r["question"] for r in GOOD + KEPT]
        assert questions[1].row["level"] == 1
        assert (questions[-1].answer, questions[-1].row["solution"]) == (
            "2",
            "1 + 1 = 2\n#### 2",
        )
    assert len(load_questions(f"{out}/train[:7]", problem_questions).questions) == 7
    found = open_rows("tfds:questions/train", data_dir=out / "dataset")
    assert len(list(found.rows)) == len(GOOD) + len(KEPT)


def test_the_page_and_the_card_name_every_reason(out: Path) -> None:
    report = json.loads((out / "report.json").read_text("utf-8"))
    page, card = (out / "report.html").read_text("utf-8"), card_text(report)
    assert (out / "README.md").read_text("utf-8") == card
    assert page == report_html(report)
    for reason, _ in WRONG:
        assert REASONS[reason] in page
        assert REASONS[reason] in card
    assert page.count("<svg") == 1
    assert "<script" not in page


def test_a_question_that_is_code_of_a_page_stays_text(tmp_path: Path) -> None:
    raw = tmp_path / "raw.jsonl"
    row = {"question": "<script>alert(1)</script> https://a.org", "answer": "1"}
    raw.write_text("\n".join(map(json.dumps, [row, *GOOD])), "utf-8")
    cleaned(CleanSettings((str(raw),), tmp_path / "out", workers=1))
    assert "<script" not in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_a_finished_folder_is_left_and_others_are_refused(out: Path) -> None:
    settings = settings_of(out.parent)
    before = bytes_of(out)
    report = cleaned(settings)
    assert report == json.loads((out / "report.json").read_text("utf-8"))
    assert bytes_of(out) == before
    with pytest.raises(ValueError, match="other settings or sources; choose another"):
        cleaned(replace(settings, max_words=50))
    (out.parent / "used").mkdir(exist_ok=True)
    (out.parent / "used" / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"new or empty folder, got .*thesis\.tex"):
        cleaned(replace(settings, out=out.parent / "used"))


class Stop(Exception):
    """The command is killed."""


@pytest.mark.parametrize(
    "place", ["write_part", "_select", "_write_dataset", "report_of", "report_html"]
)
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(
    out: Path, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = replace(settings_of(out.parent), out=tmp_path / "again")
    from jaxrl_reason.data import clean_part

    monkeypatch.setattr(clean_module, "PART_ROWS", 7)
    module = clean_part if place == "write_part" else clean_module
    real, calls = getattr(module, place), 0

    def stopping(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == (3 if place == "write_part" else 1):
            raise Stop
        return real(*args)

    monkeypatch.setattr(module, place, stopping)
    with pytest.raises(Stop):
        cleaned(settings)
    finished = len(list((settings.out / "work").glob("000-*.json")))
    assert finished == (2 if place == "write_part" else 8)
    cleaned(settings)
    if place == "write_part":
        assert calls == 9  # the finished parts are not cleaned once more
    assert bytes_of(settings.out) == bytes_of(out)


def test_processes_give_the_same_bytes(
    out: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(clean_module, "PART_ROWS", 20)
    settings = replace(settings_of(out.parent), out=tmp_path / "two", workers=2)
    cleaned(settings)
    assert bytes_of(settings.out) == bytes_of(out)


def test_too_many_bad_rows_stop_it(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, max_bad=0.05)
    with pytest.raises(ValueError, match=r"at most 5\.0% of the rows may be bad") as e:
        cleaned(settings)
    lines = str(e.value).splitlines()
    assert "got 3 of 54:" in lines[0]
    assert "line 43: Expecting value" in lines[1]
    assert "line 44: answer must be a field, got the fields 'question'" in lines[2]
    everything = settings_of(tmp_path, question="nothing", out=tmp_path / "other")
    with pytest.raises(ValueError, match="fields are named with --question"):
        cleaned(everything)


def test_the_benchmark_itself_is_no_training_set(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    with pytest.raises(ValueError, match="raw must not hold a benchmark itself"):
        cleaned(replace(settings, raw=settings.against))
    renamed = tmp_path / "asked.jsonl"
    renamed.write_text('{"ask": "What is one and one?"}\n', "utf-8")
    settings = replace(settings, against=(str(renamed),))
    with pytest.raises(ValueError, match=r"name another with --decontamination\.quest"):
        cleaned(settings)
    found = replace(settings, decontamination=DecontaminationSettings(question="ask"))
    report = cleaned(found)
    assert report["dropped"]["contaminated"] == 1


def test_rows_without_answers(tmp_path: Path) -> None:
    raw = tmp_path / "raw.jsonl"
    rows = [{"question": row["question"]} for row in (*GOOD, GOOD[0])]
    raw.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    report = cleaned(CleanSettings((str(raw),), tmp_path / "out", golds=False))
    assert (report["kept"], report["dropped"]) == (len(GOOD), {"duplicate": 1})
    assert len(list(open_rows(tmp_path / "out").rows)) == len(GOOD)


def test_nothing_left(tmp_path: Path) -> None:
    raw = tmp_path / "raw.jsonl"
    raw.write_text('{"question": "https://a.org", "answer": "1"}\n', "utf-8")
    with pytest.raises(ValueError, match=r"a row must be left, got none: \{'url': 1\}"):
        cleaned(CleanSettings((str(raw),), tmp_path / "out"))
    raw.write_text("\n", "utf-8")
    with pytest.raises(ValueError, match="raw must have rows, got none in"):
        cleaned(CleanSettings((str(raw),), tmp_path / "empty"))


def test_shared_hostile_rows(
    tmp_path: Path, shared_file: Callable[[str], Path]
) -> None:
    cases = rows_of(shared_file("reference/hostile_inputs.jsonl"), "row")
    raw = tmp_path / "raw.jsonl"
    # An array is a row of its own kind only behind another row.
    lines = [json.dumps(GOOD[0]), *(text_of(case["input"]) for case in cases)]
    raw.write_text("\n".join(lines), "utf-8")
    report = cleaned(CleanSettings((str(raw),), tmp_path / "out", max_bad=1, workers=1))
    right = [case for case in cases if case["expected"] == "correct"]
    assert report["kept"] == 1 + len(right)
    assert sum(report["dropped"][x] for x in ("unreadable", "field")) == len(cases) - 1


def test_embeddings_drop_what_means_the_same(tmp_path: Path) -> None:
    def embed(texts: list[str]) -> np.ndarray:
        return np.array([[1.0, len(text) % 2] for text in texts])

    settings = settings_of(tmp_path, duplicates=DuplicateSettings(embed="a.py:f"))
    report = cleaned(settings, replace(FUNCTIONS, embed=embed))
    assert report["kept"] == 2
    assert report["dropped"]["same_meaning"] == len(GOOD) + len(KEPT) - 2
    wrong = replace(FUNCTIONS, embed=lambda texts: np.zeros(3))
    with pytest.raises(ValueError, match=r"one vector per text, an array of shape"):
        cleaned(replace(settings, out=tmp_path / "other"), wrong)


def test_pass_rates_filter_and_survive_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clean_module, "_RATED_AT_ONCE", 10)
    asked: list[int] = []

    def rate(questions: list[Question], folder: Path) -> list[tuple[int, int]]:
        if len(asked) == 20 and not stopped:
            stopped.append(True)
            raise Stop
        asked.extend(question.problem_id for question in questions)
        folder.mkdir()
        return [(int(q.answer.split(".")[0]) % 9, 8) for q in questions]

    stopped: list[bool] = []
    rates = PassRateSettings("model", low=0.25, high=0.625)
    settings = settings_of(tmp_path, pass_rates=rates)
    with pytest.raises(Stop):
        cleaned(settings, replace(FUNCTIONS, rate=rate))
    report = cleaned(settings, replace(FUNCTIONS, rate=rate))
    assert len(asked) == len(set(asked)) == len(GOOD) + len(KEPT)
    solved = [int(row["answer"].split("=")[-1].split()[0]) % 9 for row in GOOD + KEPT]
    right = [x for x in solved if 2 <= x <= 5]
    assert report["kept"] == len(right)
    assert report["dropped"]["too_hard"] == sum(x < 2 for x in solved)
    assert report["dropped"]["too_easy"] == sum(x > 5 for x in solved)
    buckets = report["pass_rates"]["asked"]
    assert buckets["none right"] == solved.count(0)
    assert buckets["all right"] == solved.count(8)
    assert buckets["up to 25%"] == solved.count(1) + solved.count(2)
    assert sum(report["pass_rates"]["kept"].values()) == len(right)
    rows = [row for _, row in open_rows(settings.out).rows]
    assert [(row["solved"], row["samples"]) for row in rows] == [(x, 8) for x in right]
    assert (settings.out / "report.html").read_text("utf-8").count("<svg") == 2
    assert not (settings.out / "work").exists()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: CleanSettings((), Path("o")), "raw must name a source, got none"),
        (lambda: CleanSettings(("a",), Path("o"), max_bad=2), "max_bad must be in"),
        (lambda: CleanSettings(("a",), Path("o"), workers=-1), "workers must be >= 0"),
        (lambda: DuplicateSettings(near=2), "near must be in"),
        (lambda: DuplicateSettings(cosine=0), "cosine must be in"),
        (lambda: DuplicateSettings(n=0), "n must be >= 1"),
        (lambda: DecontaminationSettings(n=0), "n must be >= 1"),
        (lambda: DecontaminationSettings(coverage=2), "coverage must be in"),
        (lambda: PassRateSettings(low=0.2), "needs pass_rates.model, got none"),
        (lambda: PassRateSettings("m", low=0.9, high=0.1), "0 <= low <= high <= 1"),
        (lambda: PassRateSettings("m", samples=0), "samples must be >= 1"),
    ],
)
def test_refused_settings(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
