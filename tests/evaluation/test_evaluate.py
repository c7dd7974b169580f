"""An evaluation with a fake model: records, resuming, report."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jaxrl_reason.evaluation.benchmark_evaluation import (
    EvaluationSettings,
    benchmark_questions,
    evaluate,
)
from jaxrl_reason.evaluation.collection import records_of
from jaxrl_reason.evaluation.decoding import Response
from jaxrl_reason.evaluation.records import EvaluationFolderError
from jaxrl_reason.runs.run_folder import RunFolderError
from jaxrl_reason.tasks.benchmarks import gsm8k, gsm_plus
from jaxrl_reason.tasks.questions import Question, QuestionTask
from tests.evaluation.fake_model import END, Bytes, Model, run


def lines(settings: EvaluationSettings) -> list[dict[str, Any]]:
    text = (settings.folder / "records.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_records_report_and_table(settings: EvaluationSettings) -> None:
    report, shown = run(settings, Model())
    sampled = "2 samples at temperature 1.0"
    figures = report["results"]["greedy"]["figures"]
    assert figures["accuracy"]["value"] == 1.0
    assert figures["accuracy"]["interval"] == "Wilson"
    figures = report["results"][sampled]["figures"]
    # Question 0 is right in both samples, the other six in one of two.
    assert figures["avg@2"]["value"] == pytest.approx(4 / 7, rel=1e-6)
    assert figures["pass@2"]["value"] == 1.0
    assert figures["maj@2"]["value"] == 1.0
    saved = json.loads((settings.folder / "report.json").read_text("utf-8"))
    assert saved == json.loads(json.dumps(report))
    assert "gsm8k, greedy" in shown
    assert "57.14" in shown
    rows = lines(settings)
    assert len(rows) == 7 + 14
    assert rows[0] == {
        "decoding": "greedy",
        "problem_id": 0,
        "sample": 0,
        "of": 1,
        "kind": "",
        "gold": "0",
        "parsed": "0",
        "correct": True,
        "failed": False,
        "unchecked": False,
        "answered": True,
        "truncated": False,
        "length": 7,
        "text": "#### 0",
    }


def test_a_second_call_asks_nothing_and_says_the_same(
    settings: EvaluationSettings,
) -> None:
    first, _ = run(settings, Model())
    model = Model()
    second, _ = run(settings, model)
    assert model.asked == []
    assert second == first


@pytest.mark.parametrize("torn", [b"", b'{"decoding": "greedy", "prob'])
def test_a_killed_run_is_taken_up_where_it_was(
    settings: EvaluationSettings, tmp_path: Path, torn: bytes
) -> None:
    whole, _ = run(replace(settings, out=tmp_path / "whole"), Model())
    with pytest.raises(KeyboardInterrupt):
        run(settings, Model(die_after=9))
    with open(settings.folder / "records.jsonl", "ab") as file:
        file.write(torn)
    model = Model()
    resumed, _ = run(settings, model)
    assert resumed == whole
    assert 0 < len(model.asked) < 14
    keys = [(r["decoding"], r["problem_id"], r["sample"]) for r in lines(settings)]
    assert len(set(keys)) == len(keys) == 21


def test_a_question_with_half_its_samples_is_asked_again(
    settings: EvaluationSettings,
) -> None:
    run(settings, Model())
    path = settings.folder / "records.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    model = Model()
    run(settings, model)
    assert [problem_id for problem_id, _ in model.asked] == [6]


def test_more_questions_and_more_decodings_are_added(
    settings: EvaluationSettings,
) -> None:
    run(replace(settings, limit=3, num_samples=0), Model())
    model = Model()
    report, _ = run(settings, model)
    assert model.asked.count((6, "greedy")) == 1
    assert model.asked.count((0, "greedy")) == 0
    fewer, _ = run(replace(settings, limit=3), Model())
    assert fewer["results"]["greedy"]["responses"]["questions"] == 3
    assert report["results"]["greedy"]["responses"]["questions"] == 7


@pytest.mark.parametrize(
    ("change", "digest", "said"),
    [
        ({"max_new_tokens": 9}, "m", "max_new_tokens: saved 512, asked 9"),
        ({"seed": 1}, "m", "seed: saved 0, asked 1"),
        ({}, "other", "model: saved m, asked other"),
    ],
)
def test_other_settings_are_refused(
    settings: EvaluationSettings, change: Any, digest: str, said: str
) -> None:
    run(settings, Model())
    with pytest.raises(EvaluationFolderError, match=said):
        run(replace(settings, **change), Model(), digest)


def test_other_data_are_refused(settings: EvaluationSettings, data: Path) -> None:
    run(settings, Model())
    data.write_text(data.read_text("utf-8").replace("Say 3", "Say three"), "utf-8")
    with pytest.raises(EvaluationFolderError, match="data: saved"):
        run(settings, Model())


def test_folders_that_hold_something_else(settings: EvaluationSettings) -> None:
    settings.folder.mkdir()
    (settings.folder / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="not empty"):
        run(settings, Model())
    (settings.folder / "config.json").write_text('{"settings": {}}')
    with pytest.raises(EvaluationFolderError, match="not an evaluation"):
        run(settings, Model())


def test_a_damaged_line_is_named(settings: EvaluationSettings) -> None:
    run(settings, Model())
    path = settings.folder / "records.jsonl"
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(EvaluationFolderError, match=r"records\.jsonl, line 1"):
        run(settings, Model())


def test_batches_hold_whole_questions(settings: EvaluationSettings) -> None:
    sizes = []

    class Watched(Model):
        def __call__(self, prompts: Any, problem_ids: Any, decoding: Any) -> Any:
            sizes.append((decoding.num_samples, len(prompts)))
            return super().__call__(prompts, problem_ids, decoding)

    run(settings, Watched())
    assert sizes == [(1, 4), (1, 3), (2, 2), (2, 2), (2, 2), (2, 1)]


@pytest.mark.parametrize("how", ["skip", "truncate"])
def test_a_question_longer_than_the_context_stops_nothing(
    settings: EvaluationSettings, how: Any
) -> None:
    lengths = []

    class Short(Model):
        def __call__(self, prompts: Any, problem_ids: Any, decoding: Any) -> Any:
            lengths.extend(map(len, prompts))
            return super().__call__(prompts, problem_ids, decoding)

    task, questions = gsm8k(Bytes()), benchmark_questions(settings)
    longest = sorted(len(task.prompt_tokens(q)) for q in questions.questions)[-3]
    console = Console(file=io.StringIO(), width=120)
    settings = replace(settings, long_questions=how)
    report = evaluate(settings, task, questions, Short(), "m", console, longest)
    greedy = report["results"]["greedy"]
    skipped = how == "skip"
    assert max(lengths) == longest
    assert greedy["figures"]["accuracy"]["count"] == 7
    assert greedy["figures"]["accuracy"]["value"] == (5 / 7 if skipped else 1.0)
    assert greedy["responses"]["too_long"] == (2 if skipped else 0)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"question 6 has {longest + 2} tokens, more than {longest}: {how}" in said
    unasked = Model(die_after=0)
    again = evaluate(settings, task, questions, unasked, "m", console, longest)
    assert again == report


def test_references_that_cannot_be_graded_are_named_first(tmp_path: Path) -> None:
    rows = [{"question": "?", "answer": f"#### {gold}"} for gold in ("1", "(1, 2")]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    settings = EvaluationSettings("gsm8k", "fake", path, tmp_path / "out")
    report, said = run(settings, Model())
    assert "question 1: the reference '(1, 2' cannot be read" in said
    assert "1 of 2 references cannot be graded" in said
    figures = report["results"]["greedy"]["figures"]
    assert figures["accuracy"]["count"] == 2
    assert figures["accuracy, graded"]["count"] == 1


def test_a_grader_that_raises_has_failed() -> None:
    class Broken(QuestionTask):
        def grade(self, problem: Any, response_text: str, truncated: bool) -> Any:
            raise ZeroDivisionError("oh")

    task = Broken(Bytes(), "", "broken")
    question = Question(0, "?", "4")
    ((found,),) = records_of(task, [question], [[Response([52, END], False)]])
    assert found["failed"] is True
    assert found["correct"] is False
    assert found["error"].startswith("ZeroDivisionError: oh (test_evaluate.py, line")


def test_gsm_plus_reports_robustness(tmp_path: Path) -> None:
    path = tmp_path / "plus.jsonl"
    rows = [
        {
            "question": f"variant {kind} of {seed}",
            "answer": str(3 * seed + kind + 1),
            "perturbation_type": ["digit expansion", "adding operation"][kind],
            "seed_question": f"seed {seed}",
            "seed_answer": str(3 * seed),
        }
        for seed in range(3)
        for kind in range(2)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    settings = EvaluationSettings("gsm_plus", "fake", path, tmp_path / "out", limit=2)
    questions = benchmark_questions(settings)
    assert [q.problem_id for q in questions.questions] == [0, 1, 2, 3, 4, 5]
    console = Console(file=io.StringIO(), width=120)
    report = evaluate(
        settings, gsm_plus(Bytes()), questions, Model(), "m", console=console
    )
    figures = report["results"]["greedy"]["figures"]
    assert figures["PDR"]["value"] == 0.0
    assert figures["adding operation ASP"]["value"] == 1.0
    assert figures["seeds"]["count"] == 2
