"""Which settings are tried, in which order."""

import math
from dataclasses import replace
from typing import Any

import pytest

from jaxrl_reason.aot import aot_run
from jaxrl_reason.aot.aot_run import check_mesh, search_run, with_nearest
from jaxrl_reason.aot.compile_step import CompiledStep, CompileRequest
from jaxrl_reason.aot.known_models import KNOWN_MODELS
from jaxrl_reason.aot.nearest import larger, simpler
from jaxrl_reason.aot.search import candidates, meshes, parameter_count
from jaxrl_reason.aot.topology import parse_topology
from jaxrl_reason.aot.verdict import Verdict
from jaxrl_reason.sharding import mesh_sizes
from jaxrl_reason.train.presets import PRESETS
from tests.aot.aot_helpers import made_up

pytestmark = pytest.mark.fast

DAPO = PRESETS["dapo-qwen2.5-32b"]
POD = parse_topology("v5p:4x4x4")


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("smollm2-135m", 0.1345),
        ("qwen2.5-0.5b", 0.494),
        ("qwen2.5-1.5b", 1.543),
        ("qwen2.5-7b", 7.615),
        ("qwen2.5-14b", 14.77),
        ("qwen2.5-32b", 32.76),
        ("qwen3-0.6b", 0.596),
        ("qwen3-8b", 8.19),
    ],
)
def test_known_models_have_the_size_of_their_model_card(
    name: str, billions: float
) -> None:
    count = parameter_count(KNOWN_MODELS[name])
    assert count == pytest.approx(1e9 * billions, rel=0.002)


def test_meshes_divide_devices_heads_and_width() -> None:
    config = KNOWN_MODELS["qwen2.5-32b"]
    found = list(meshes(64, config, 4096))
    assert {"data": 1, "fsdp": 16, "context": 1, "tensor": 4} in found
    assert {"data": 1, "fsdp": 4, "context": 4, "tensor": 4} in found
    assert not [x for x in found if x["tensor"] > 8]  # 40 heads
    for sizes in found:
        assert math.prod(sizes.values()) == 64
        assert config.hidden_size % (sizes["fsdp"] * sizes["context"]) == 0
    assert not [x for x in meshes(64, config, 4095) if x["context"] > 1]


def test_long_rows_are_shared_by_devices_where_they_would_not_fit() -> None:
    """The estimate knows what context divides, so a search reaches it."""
    rl = replace(DAPO.rl, row_width=131072)
    long = candidates(replace(DAPO, rl=rl), parse_topology("v5e:16x16"))
    assert "context=" in long[0].settings.mesh
    assert "context=" in long[0].flags
    short = replace(DAPO.rl, row_width=4096)
    best = candidates(replace(DAPO, rl=short), POD)[0]
    assert "context=" not in best.settings.mesh


def test_devices_of_a_sampler_are_not_searched_for_the_training() -> None:
    own = replace(DAPO, sampler=replace(DAPO.sampler, mesh="fsdp=4,tensor=8"))
    found = candidates(own, POD)
    for x in found:
        assert math.prod(mesh_sizes(x.settings.mesh).values()) == 32
        check_mesh(x.settings, POD)


def test_candidates_have_room_for_their_state_and_are_ranked() -> None:
    found = candidates(DAPO, POD)
    assert [x.seconds for x in found] == sorted(x.seconds for x in found)
    assert all(x.memory < POD.chip.memory for x in found)
    # 16 bytes for each of 32.8e9 parameters do not fit 8 devices, nor 4 of them.
    assert not [x for x in found if x.settings.mesh == "data=64"]
    with pytest.raises(ValueError, match="must fit v5e:2x2 on some mesh, got none"):
        candidates(DAPO, parse_topology("v5e:2x2"))


def test_a_search_ranks_what_fits_by_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [x.settings for x in candidates(DAPO, POD)[:3]]
    steps = [made_up(fits=False, traffic=()), made_up(tokens=100), made_up(tokens=900)]

    def compiled(request: CompileRequest) -> CompiledStep:
        return steps[chosen.index(request.settings)]

    monkeypatch.setattr(aot_run, "compile_step", compiled)
    monkeypatch.setattr(aot_run, "check_installed", lambda platform: None)
    found = search_run(DAPO, POD, 3)
    assert [x.settings for x, _ in found] == [chosen[2], chosen[1], chosen[0]]


def test_nearer_settings_come_first_and_keep_earlier_changes() -> None:
    rl = replace(DAPO.rl, rows_per_micro_batch=64)
    model = replace(DAPO.model, remat="none")
    start = replace(DAPO, mesh="data=2,fsdp=8,tensor=4", rl=rl, model=model)
    start = replace(start, sequence_parallel=True)
    words = [words for words, _, _ in simpler(start, POD, "update")]
    assert words[0] == "--model.remat full"
    assert words[1] == "--model.remat full --rl.rows-per-micro-batch 32"
    assert words[2] == "--model.remat full --rl.rows-per-micro-batch 16"
    full = "--model.remat full --rl.rows-per-micro-batch"
    assert words[3] == f"--mesh fsdp=16,tensor=4 {full} 16"
    assert words[4] == f"--mesh fsdp=8,tensor=8 {full} 8"
    assert words[5] == f"--mesh fsdp=4,context=2,tensor=8 {full} 4"
    assert words[7] == f"--mesh context=8,tensor=8 {full} 1"
    larger = f"--topology v5p:8x4x4 --mesh fsdp=2,context=8,tensor=8 {full} 2"
    assert words[8] == larger
    for words_, settings, topology in simpler(start, POD, "update"):
        check_mesh(settings, topology)
        sizes = mesh_sizes(settings.mesh)
        shards = sizes["data"] * sizes["fsdp"]
        assert settings.rl.rows_per_micro_batch % shards == 0, words_


def test_columns_are_split_over_tensor_before_rows_are_fewer() -> None:
    start = replace(DAPO, rl=replace(DAPO.rl, rows_per_micro_batch=32))
    words = [words for words, _, _ in simpler(start, POD, "update")]
    assert words[0] == "--sequence-parallel"
    assert words[1] == "--rl.rows-per-micro-batch 16 --sequence-parallel"
    assert "--sequence-parallel" not in next(simpler(start, POD, "score"))[0]


def test_settings_whose_state_is_too_large_are_not_tried() -> None:
    start = replace(DAPO, mesh="fsdp=2,tensor=4")
    # 16 bytes for each of 32.8e9 parameters: 65 GB on 8 devices, which have 34 each.
    small = parse_topology("v6e:2x4")
    words = [words for words, _, _ in simpler(start, small, "update")]
    assert words[0].startswith("--topology v6e:4x4 --mesh fsdp=2,tensor=8")


def test_a_sampler_that_does_not_fit_gets_fewer_slots() -> None:
    words = [words for words, _, _ in simpler(DAPO, POD, "sample")]
    assert words[0] == "--sampler.slots 256"  # 16 groups of 16 over fsdp=16
    assert words[1].startswith("--mesh fsdp=8,tensor=8")


def test_a_sampler_with_its_own_devices_changes_there() -> None:
    sampler = replace(DAPO.sampler, mesh="fsdp=8,tensor=4", slots=128)
    start = replace(DAPO, mesh="fsdp=8,tensor=4", sampler=sampler)
    options = list(simpler(start, POD, "sample"))
    words = [words for words, _, _ in options]
    assert words[0] == "--sampler.mesh fsdp=4,tensor=8"
    assert words[1].startswith("--topology v5p:8x4x4 --mesh fsdp=16,tensor=4")
    assert words[1].endswith("--sampler.mesh fsdp=8,tensor=8")
    for _, settings, topology in options:
        check_mesh(settings, topology)


def test_larger_slices_end_at_the_largest() -> None:
    last = [str(t) for _, _, t in simpler(DAPO, parse_topology("v5e:8x8"), "score")]
    assert last[-1] == "v5e:16x16"
    single = larger(parse_topology("v5e:1x1"))
    assert str(single) == "v5e:2x2"


def test_the_nearest_that_fits_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []

    def compiled(request: CompileRequest) -> CompiledStep:
        tried.append(request.settings.mesh)
        return made_up(fits=len(tried) == 2, peak=7e9)

    monkeypatch.setattr(aot_run, "compile_step", compiled)
    large = Verdict(DAPO, POD, (made_up(fits=False, peak=2e11),))
    found = with_nearest(large, 5)
    assert found.nearest == (
        "nearest that fits: --mesh fsdp=8,tensor=8 --rl.rows-per-micro-batch 8 "
        "--sequence-parallel (update: 7.00 GB)"
    )
    assert tried == ["fsdp=16,tensor=4", "fsdp=8,tensor=8"]
    assert with_nearest(large, 1).nearest.startswith("none of 1")
    good = Verdict(DAPO, POD, (made_up(),))
    assert with_nearest(good, 5) is good


def test_a_mesh_of_other_devices_is_refused() -> None:
    with pytest.raises(
        ValueError,
        match="mesh fsdp=16,tensor=4 must have the 16 devices of v5e:4x4, got 64",
    ):
        check_mesh(DAPO, parse_topology("v5e:4x4"))
    check_mesh(replace(DAPO, mesh="auto"), POD)
    own = replace(DAPO, sampler=replace(DAPO.sampler, mesh="tensor=8"))
    check_mesh(replace(own, mesh="fsdp=14,tensor=4"), POD)
    with pytest.raises(
        ValueError,
        match=r"fsdp=16,tensor=4 and sampler\.mesh tensor=8 must have the 64 .* got 72",
    ):
        check_mesh(own, POD)
    with pytest.raises(ValueError, match=r"sampler\.mesh needs a mesh with sizes"):
        check_mesh(replace(own, mesh="auto"), POD)
