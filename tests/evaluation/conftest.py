"""Seven questions in a file, and the settings of an evaluation on them."""

import json
from pathlib import Path

import pytest

from jaxrl_reason.evaluation.benchmark_evaluation import EvaluationSettings


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"question": f"Say {i}{'.' * i}", "answer": f"#### {i}"} for i in range(7)]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def settings(tmp_path: Path, data: Path) -> EvaluationSettings:
    return EvaluationSettings(
        "gsm8k", "fake", data, tmp_path / "out", num_samples=2, batch_size=1
    )
