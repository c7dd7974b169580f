"""Real compilations for a TPU slice and GPUs, skipped where no compiler is installed.

Memory and exchanges repeat within one version of the compiler and move between
versions: only bounds are tested.
"""

import json
import re
from pathlib import Path

import pytest

from jaxrl_reason.aot.aot_run import compile_run
from jaxrl_reason.aot.compile_step import CompileRequest, compile_step
from jaxrl_reason.aot.compile_worker import bytes_needed
from jaxrl_reason.aot.topology import check_installed, parse_topology
from jaxrl_reason.aot.verdict import verdict_text
from tests.aot.aot_helpers import LAYERS, WIDTH, tiny_run

SLICES = {"tpu": "v5e:2x2", "cuda": "h100:4"}


@pytest.fixture(params=SLICES)
def platform(request: pytest.FixtureRequest) -> str:
    try:
        check_installed(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    return str(request.param)


def test_a_run_compiles_and_its_verdict_adds_up(tmp_path: Path, platform: str) -> None:
    settings, topology = tiny_run(tmp_path), parse_topology(SLICES[platform])
    verdict = compile_run(settings, topology, ("update", "sample"), "O1")
    update, sample = verdict.steps
    assert verdict.fits
    for step in verdict.steps:
        assert step.peak == pytest.approx(sum(step.parts.values()))
        assert step.peak < 20e6
        assert step.memory_bytes > 0
        assert step.flops >= step.model_flops > 0
    # Matrices over fsdp and tensor, vectors over none of them.
    assert update.parts["optimizer"] == pytest.approx(
        2 * update.parts["parameters"], rel=0.01
    )
    assert (update.besides, sample.besides) == (
        0,
        update.parts["parameters"] + update.parts["optimizer"],
    )
    over = {axis for x in update.traffic for axis in x.axes}
    assert over == {"fsdp", "tensor"}
    gathered = sum(x.payload for x in update.traffic if "fsdp" in x.axes)
    # Two micro-batches of gathers and sums of 120 thousand parameters, in 2 or 4 bytes.
    assert 2e5 < gathered < 1e7
    assert sample.tokens == 32 * 32
    assert "mesh fsdp=2,tensor=2: fits" in verdict_text(verdict)


def test_a_small_head_of_its_own_compiles_for_a_tpu(tmp_path: Path) -> None:
    """At the default effort libtpu failed to move its gradient's sum out of a loop.

    It also made one cast of the matrices of all layers, before the loops.
    """
    try:
        check_installed("tpu")
    except ValueError as error:
        pytest.skip(str(error))
    settings = tiny_run(tmp_path, "fsdp=4")
    file = tmp_path / "config.json"
    fields = {**json.loads(file.read_text()), "tie_word_embeddings": False}
    file.write_text(json.dumps(fields))
    hlo = tmp_path / "update.hlo"
    request = CompileRequest(settings, parse_topology(SLICES["tpu"]), "update", hlo=hlo)
    assert compile_step(request).fits
    # The stacks in bfloat16 are what layers keep for the backward pass: no matrices.
    stacks = set(re.findall(rf"bf16\[{LAYERS},[\d,]+\]", hlo.read_text("utf-8")))
    assert stacks == {f"bf16[{LAYERS},1,64,{WIDTH}]"}


@pytest.mark.parametrize(
    ("message", "gib"),
    [
        ("INVALID_ARGUMENT: Used 20.50G of 15.75G hbm", None),
        ("RESOURCE_EXHAUSTED: ... Used 20.50G of 15.75G hbm. Exceeded by", 20.5),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
            "for HLO temporaries (33.39G) exceeds available HBM (15.75G).",
            33.39,
        ),
        ("RESOURCE_EXHAUSTED: Used 512.0M of", 0.5),
        ("RESOURCE_EXHAUSTED: something", 0.0),
    ],
)
def test_what_a_compiler_says_is_needed(message: str, gib: float | None) -> None:
    found = bytes_needed(message)
    assert found == (None if gib is None else pytest.approx(gib * 2**30))


def test_a_mesh_that_does_not_divide_the_heads_is_refused(
    tmp_path: Path, platform: str
) -> None:
    topology = parse_topology({"tpu": "v5e:2x4", "cuda": "h100:8"}[platform])
    settings = tiny_run(tmp_path, "tensor=8")
    with pytest.raises(ValueError, match="which tensor=8 does not divide") as error:
        compile_step(CompileRequest(settings, topology, "update"))
    assert "\n" not in str(error.value)
