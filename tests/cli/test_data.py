"""`jaxrl-reason data clean`: flags, presets, a model's pass rates, what it says."""

import json
from pathlib import Path
from typing import Any

import pytest

from jaxrl_reason.cli.data import main, read_clean_settings
from jaxrl_reason.data.strategies import LIGHT_R1_BAND
from jaxrl_reason.tasks.question_sources import open_rows
from tests.data.clean_cases import GOOD, write_raw
from tests.pretrained.tiny import random_params, write_gguf
from tests.text.tokenizer_families import family


def test_the_presets_are_those_of_the_papers(capsys: Any) -> None:
    with_model = ["RAW", "--out", "OUT", "--pass-rates.model", "M", "--preset"]
    light = read_clean_settings([*with_model, "light-r1"])
    decontamination, rates = light.decontamination, light.pass_rates
    assert (decontamination.n, decontamination.coverage) == (32, 0)
    assert decontamination.digit_free
    assert (rates.low, rates.high) == LIGHT_R1_BAND
    skywork = read_clean_settings([*with_model, "skywork-or1"])
    assert skywork.drop == ("url", "image", "figure")
    assert (skywork.pass_rates.samples, skywork.pass_rates.mixed) == (16, True)
    assert skywork.golds
    assert capsys.readouterr().err == ""
    flags = ["--decontamination.n", "13", "--preset", "light-r1"]
    alone = read_clean_settings(["a", "b", "--out", "OUT", *flags])
    assert alone.raw == ("a", "b")
    assert (alone.decontamination.n, alone.decontamination.digit_free) == (13, True)
    assert alone.pass_rates.low == 0
    assert "also filters by pass rate (low 0.25, high 0.625)" in capsys.readouterr().err
    with pytest.raises(ValueError, match="preset must be one of light-r1, skywork-or1"):
        read_clean_settings(["RAW", "--out", "OUT", "--preset", "other"])


@pytest.mark.parametrize("argv", [[], ["wash"]])
def test_other_words_than_clean(argv: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert "data must be followed by clean, got" in capsys.readouterr().err


def test_rows_are_cleaned_and_rated_by_a_model(tmp_path: Path, capsys: Any) -> None:
    raw = tmp_path / "raw.jsonl"
    raw.write_text("".join(json.dumps(row) + "\n" for row in GOOD[:2]), "utf-8")
    model = tmp_path / "model.gguf"
    write_gguf(model, random_params(), family("llama3"))
    sizes = ["--workers", "1", "--pass-rates.max-new-tokens", "2"]
    rates = ["--pass-rates.model", str(model), "--pass-rates.samples", "2"]
    small = ["--pass-rates.batch-size", "2", "--pass-rates.instruction", "Answer:"]
    main(["clean", str(raw), "--out", str(tmp_path / "out"), *rates, *sizes, *small])
    assert "2 of 2 rows kept: " in capsys.readouterr().out
    rows = [row for _, row in open_rows(tmp_path / "out").rows]
    # A model of random numbers solves nothing in two tokens.
    assert [(row["solved"], row["samples"]) for row in rows] == [(0, 2)] * 2
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert report["pass_rates"]["kept"]["none right"] == 2


def test_an_embedding_of_the_user(tmp_path: Path) -> None:
    raw, _ = write_raw(tmp_path)
    own = tmp_path / "mine.py"
    own.write_text(
        "import numpy as np\n\n\ndef embed(texts):\n"
        "    return np.array([[1.0, 'Find' in text] for text in texts])\n",
        encoding="utf-8",
    )
    out = ["--out", str(tmp_path / "out"), "--max-bad", "0.2", "--workers", "1"]
    main(["clean", str(raw), *out, "--duplicates.embed", f"{own}:embed"])
    assert len(list(open_rows(tmp_path / "out").rows)) == 2
    with pytest.raises(ValueError, match=r"absent\.py"):
        main(["clean", str(raw), *out, "--duplicates.embed", "absent.py:embed"])
