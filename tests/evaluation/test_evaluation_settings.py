"""What an evaluation is asked for: settings, sources, the command line, tasks."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tyro

from jaxrl_reason.cli import evaluate as evaluate_command
from jaxrl_reason.cli.main import main
from jaxrl_reason.evaluation.benchmark_evaluation import (
    EvaluationSettings,
    benchmark_questions,
    benchmark_task,
)
from tests.evaluation.fake_model import Bytes, Model, run


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": None}, "data must be given for gsm8k"),
        ({"task": "arithmetic"}, "data must not be given for arithmetic"),
        (
            {"task": "arithmetic", "data": None, "data_dir": Path("x")},
            "data_dir must only be given with tfds:..., got x",
        ),
        ({"limit": 0}, "limit must be >= 1, got 0"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"num_samples": -1}, "num_samples and seed must be >= 0, got -1"),
        ({"num_samples": 0, "greedy": False}, "greedy or num_samples must be set"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"top_p": 0.0}, "top_p above 0"),
    ],
)
def test_bad_settings(settings: EvaluationSettings, change: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(settings, **change)


def test_the_command_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    class Loaded:
        tokenizer = Bytes()
        digest = "m"
        model = SimpleNamespace(config=SimpleNamespace(context_length=2048))

    monkeypatch.setattr(evaluate_command, "load_model", lambda path, dtype: Loaded())
    monkeypatch.setattr(
        evaluate_command, "make_generate", lambda loaded, ends, **settings: Model()
    )
    out = tmp_path / "out"
    arguments = ["evaluate", "--task", "gsm8k", "--model", "x/y", "--data", str(data)]
    main([*arguments, "--out", str(out), "--num-samples", "2"])
    assert "100.00" in capsys.readouterr().out
    assert (out / "report.json").exists()
    with pytest.raises(SystemExit, match=r"error: .*seed: saved 0, asked 3"):
        main([*arguments, "--out", str(out), "--seed", "3"])
    with pytest.raises(SystemExit):
        main(arguments[:5])
    assert "data must be given for gsm8k" in capsys.readouterr().err


def test_the_same_file_from_the_hub(
    settings: EvaluationSettings, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, _ = run(settings, Model())
    assert report["data"] == {"source": "file", "path": str(data)}
    fake = SimpleNamespace(hf_hub_download=lambda *names, **options: str(data))
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    # As the command line gives it; the records are taken up: the bytes are the same.
    arguments = ["--task", "gsm8k", "--model", "fake", "--num-samples", "2"]
    arguments += ["--data", "hub:owner/name/main/test.jsonl@v1"]
    found = tyro.cli(EvaluationSettings, args=arguments)
    model = Model()
    again, _ = run(replace(found, out=settings.out), model)
    assert model.asked == []
    assert again["data"]["dataset"] == "owner/name"
    assert {**again, "data": None} == {**report, "data": None}


def test_data_dir_is_where_tfds_looks(tmp_path: Path) -> None:
    settings = EvaluationSettings(
        "gsm8k", "fake", "tfds:absent/test", data_dir=tmp_path / "here"
    )
    with pytest.raises(ValueError, match=f"prepared in {tmp_path / 'here'}, and"):
        benchmark_questions(settings)


def test_every_task_has_questions_and_a_task(
    shared_file: Callable[[str], Path],
) -> None:
    files = {
        "gsm8k": "gsm8k/test.jsonl",
        "gsm_plus": "gsm_plus/testmini.jsonl",
        "math500": "math_eval/math500.jsonl",
        "aime": "math_eval/aime24.jsonl",
        "amc": "math_eval/amc23.jsonl",
        "arithmetic": None,
    }
    for name, file in files.items():
        path = None if file is None else shared_file(f"data/{file}")
        settings = EvaluationSettings(name, "fake", path)  # type: ignore[arg-type]
        task = benchmark_task(settings, Bytes())
        assert task.name == name
        for question in benchmark_questions(settings).questions:
            response = rf"\boxed{{{question.answer}}}"
            if name == "arithmetic":
                response = question.answer
            assert task.grade(question, response, False).correct, question
