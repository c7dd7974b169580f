"""Limits, speeds, the text and the page of a verdict."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from jaxrl_reason.aot.collectives import Collective
from jaxrl_reason.aot.links import Span, exchange_seconds, span_of
from jaxrl_reason.aot.search import candidates
from jaxrl_reason.aot.topology import parse_topology
from jaxrl_reason.aot.verdict import (
    Verdict,
    expected_speed,
    time_limits,
    verdict_text,
)
from jaxrl_reason.aot.verdict_page import ranking_text, write_verdict
from jaxrl_reason.train.presets import PRESETS
from tests.aot.aot_helpers import made_up

pytestmark = pytest.mark.fast

DAPO = PRESETS["dapo-qwen2.5-32b"]
POD = parse_topology("v5p:4x4x4")


class Device:
    def __init__(self, number: int, *coords: int) -> None:
        self.id, self.coords = number, coords


def test_limits_and_speed() -> None:
    limits = time_limits(made_up(), POD.chip)
    assert limits.by_name == {"compute": 2.0, "memory": 1.0, "interconnect": 0.5}
    assert (limits.bottleneck, limits.overlapped, limits.in_turn) == ("compute", 2, 3.5)
    speed = expected_speed(made_up(), POD.chip)
    assert speed.seconds == (2, 3.5)
    assert speed.tokens == (2000, 3500)
    assert speed.utilisation == pytest.approx((1.5 / 3.5, 0.75))


def test_links_of_a_torus() -> None:
    gather = Collective("all-gather", ("fsdp",), 4, 4e9, 1, "")
    side = [Device(i, i, 0, 0) for i in range(4)]
    assert span_of(side, POD) == Span(links=2)  # closed: both ways round
    assert span_of(side[:2], POD) == Span(links=1)
    assert span_of(side[::2], POD) == Span(links=0.5)  # shares links with others
    plane = [Device(4 * j + i, i, j, 0) for i in range(4) for j in range(4)]
    assert span_of(plane, POD) == Span(links=4)
    # 3 GB over two links of 100 GB/s.
    assert exchange_seconds(gather, Span(links=2), POD) == pytest.approx(0.015)
    permute = replace(gather, kind="collective-permute")
    assert exchange_seconds(permute, Span(links=2), POD) == pytest.approx(0.04)


def test_nodes_of_gpus() -> None:
    nodes = parse_topology("h100:16")
    devices = [Device(i) for i in range(16)]
    assert span_of(devices, nodes) == Span(nodes=2, per_node=8)
    assert span_of(devices[::8], nodes) == Span(nodes=2, per_node=1)
    gather = Collective("all-gather", ("fsdp",), 16, 8e9, 1, "")
    # Half of it crosses 8 ports of 50 GB/s; 7/8 goes through the switch at 450 GB/s.
    assert exchange_seconds(gather, Span(nodes=2, per_node=8), nodes) == pytest.approx(
        max(4 / 400, 7 / 450)
    )
    sum_ = replace(gather, kind="all-reduce", group=2)
    assert exchange_seconds(sum_, Span(nodes=2, per_node=1), nodes) == pytest.approx(
        2 * 4 / 50
    )


def test_the_text_says_what_a_person_wants_to_know() -> None:
    steps = (made_up("score"), made_up(), made_up("sample", besides=2e9))
    text = verdict_text(Verdict(DAPO, POD, steps))
    assert "dapo of Qwen/Qwen2.5-32B on v5p:4x4x4, mesh fsdp=4: fits" in text
    assert "peak 7.00 of 102.80 GB a device" in text
    assert text.count("and 2.00 GB of the training state held besides") == 1
    assert "parameters 1.00 + optimizer 2.00 + temporaries 2.00" in text
    assert "all-gather over fsdp: 3 of together 9.00 GB, 0.500 s" in text
    assert "bottleneck: compute" in text
    assert "expect 2,000 to 3,500 tokens a second, MFU 42.9 to 75%" in text
    # 16 updates, 16 scores and 16 times 512 responses, of 2 to 3.5 s.
    assert "(16 score, 16 update, 16 sample; 8192 responses of full length)" in text
    assert "96 to 168 s" in text.replace("96.0", "96")


def test_a_sampler_on_its_own_devices_works_meanwhile() -> None:
    """16 updates of 2 to 3.5 s, beside 16 calls of a sampler that take as long."""
    sampler = replace(DAPO.sampler, mesh="tensor=8")
    sample = made_up("sample", mesh={"data": 1, "fsdp": 1, "tensor": 8}, besides=0.0)
    in_turn = Verdict(replace(DAPO, sampler=sampler), POD, (made_up(), sample))
    assert in_turn.iteration_seconds == (64, 112)
    assert "mesh fsdp=4 and tensor=8: fits" in verdict_text(in_turn)
    rl = replace(DAPO.rl, async_level=1)
    ahead = replace(in_turn, settings=replace(DAPO, sampler=sampler, rl=rl))
    assert ahead.iteration_seconds == (32, 56)
    assert "full length, sampling at the same time): 32 to 56 s" in verdict_text(ahead)


def test_models_that_are_not_compiled_are_named() -> None:
    ppo = Verdict(replace(DAPO, method="ppo"), POD, (made_up(),))
    assert "not compiled: the models of critic" in verdict_text(ppo)
    assert "not compiled" not in verdict_text(Verdict(DAPO, POD, (made_up(),)))


def test_what_does_not_fit_says_so() -> None:
    large = made_up(fits=False, peak=2e11, traffic=(), memory_bytes=0)
    text = verdict_text(Verdict(DAPO, POD, (large,), "nearest that fits: --x"))
    assert "does not fit" in text
    assert "more than the 102.80 GB of a device" in text
    assert "nearest that fits: --x" in text
    assert "iteration" not in text


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_verdict(path, Verdict(DAPO, POD, (made_up("score"), made_up())))
    page = path.read_text()
    names = re.findall(r'alt="([^"]+)"', page)
    assert [name.split()[0] for name in names] == ["Memory", "Time", "Exchanges"]
    assert "<td>update</td><td>5.00 of 102.8</td><td>compute</td>" in page
    assert "http" not in page
    assert '<span class="yes">fits</span>' in page
    write_verdict(path, Verdict(DAPO, POD, (made_up(fits=False, traffic=()),)))
    assert re.findall(r'alt="([^"]+)"', path.read_text()) == ["Memory of a device"]


def test_a_ranking_has_a_line_for_each() -> None:
    first, second = candidates(DAPO, POD)[:2]
    found = [(first, made_up()), (second, made_up(fits=False, peak=2e11))]
    lines = ranking_text(found, POD).splitlines()
    assert re.search(r"2,000 +42.9% +5.00  --mesh", lines[1])
    assert re.search(r"- +- +200.00  --mesh", lines[2])
