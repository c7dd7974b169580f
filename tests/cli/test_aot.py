"""`jaxrl-reason aot`: what it prints and writes, its errors; nothing is compiled."""

from pathlib import Path
from typing import Any

import pytest

from jaxrl_reason.aot import aot_run
from jaxrl_reason.aot.compile_step import CompiledStep, CompileRequest
from jaxrl_reason.cli.main import main
from tests.aot.aot_helpers import made_up, tiny_model

SLICE = ["--topology", "v5p:4x4x4"]


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[CompileRequest]:
    """What would be compiled."""
    found: list[CompileRequest] = []

    def compiled(request: CompileRequest) -> CompiledStep:
        found.append(request)
        return made_up(request.step)

    monkeypatch.setattr(aot_run, "compile_step", compiled)
    monkeypatch.setattr(aot_run, "check_installed", lambda platform: None)
    return found


def test_the_default_is_dapo_on_its_own_job(
    requests: list[CompileRequest], capsys: Any, tmp_path: Path
) -> None:
    page = tmp_path / "verdict.html"
    main(["aot", *SLICE, "--html", str(page)])
    assert sorted(x.step for x in requests) == ["sample", "score", "update"]
    settings = requests[0].settings
    assert (settings.method, settings.model.source) == ("dapo", "Qwen/Qwen2.5-32B")
    assert settings.rl.sequences == 512 * 16
    assert "on v5p:4x4x4, mesh fsdp=4: fits" in capsys.readouterr().out
    assert page.read_text().startswith("<!doctype html>")


def test_recipe_model_and_rules_are_flags(requests: list[CompileRequest]) -> None:
    flags = "--recipe grpo --model qwen2.5-7b --mesh fsdp=64 --steps update"
    rows = "--rl.rows-per-micro-batch 64 --sequence-parallel --effort O1"
    main(["aot", *SLICE, *flags.split(), *rows.split()])
    (request,) = requests
    assert request.settings.method == "grpo"
    assert request.settings.model.source == "qwen2.5-7b"
    assert request.settings.sequence_parallel
    assert (request.step, request.effort) == ("update", "O1")


def test_a_search_prints_a_ranking(requests: list[CompileRequest], capsys: Any) -> None:
    main(["aot", *SLICE, "--search", "--tries", "3"])
    assert [x.step for x in requests] == ["update"] * 3
    assert len({x.settings.mesh + x.settings.model.remat for x in requests}) > 1
    assert capsys.readouterr().out.count("--rl.rows-per-micro-batch") == 3


@pytest.mark.parametrize(
    ("flags", "rule"),
    [
        ("--topology v9:4x4", "chips are v4, v5e"),
        ("--topology v5p:4x4", "a slice of v5p has 3 sides"),
        ("--topology v5e:4x4", "must have the 16 devices of v5e:4x4, got 64"),
        ("--topology v5p:4x4x4 --mesh fsdp=8", "must have the 64 devices"),
        ("--topology v5p:4x4x4 --mesh fsdp=64,tensr=1", "mesh axes are data, fsdp"),
        ("--topology v5p:4x4x4 --model nothing", "model must be one of smollm2"),
        ("--topology v5p:4x4x4 --sampler.mesh tensor=8", "sampler.mesh tensor=8 must"),
        ("--topology v5p:4x4x4 --html no/page.html", "html must be in a folder that"),
        ("--topology v5p:4x4x4 --search --html x.html", "html is for a verdict"),
        ("--topology v5p:4x4x4 --preset nothing", "preset must be one of"),
        ("--topology v5p:4x4x4 --method dpo", "got dpo"),
        ("--topology v5p:4x4x4 --rl.prompt-width 0", "rl.prompt_width must be set"),
    ],
)
def test_mistakes_are_one_sentence(
    flags: str, rule: str, requests: list[CompileRequest]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["aot", *flags.split()])
    assert rule in str(ended.value.code)
    assert "\n" not in str(ended.value.code)
    assert not requests


def test_a_folder_is_a_model(requests: list[CompileRequest], tmp_path: Path) -> None:
    main(["aot", *SLICE, "--model", tiny_model(tmp_path), "--steps", "score"])
    assert requests[0].settings.model.source == str(tmp_path)
