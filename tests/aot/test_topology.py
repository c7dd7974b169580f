"""Slices and nodes: what is read, what is refused, which sides are closed."""

import pytest

from jaxrl_reason.aot import topology
from jaxrl_reason.aot.chips import CHIPS
from jaxrl_reason.aot.gpu_targets import target_config
from jaxrl_reason.aot.topology import check_installed, parse_topology

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("text", "devices", "wraps"),
    [
        ("v5e:16x16", 256, (True, True)),
        ("v6e:8x16", 128, (False, True)),
        ("v5e:4x4", 16, (False, False)),
        ("v5p:4x4x4", 64, (True, True, True)),
        ("v4:2x2x4", 16, (False, False, False)),
        ("tpu7x:4x4x4", 128, (True, True, True)),
        ("v5e:1x1", 1, (False, False)),
    ],
)
def test_slices(text: str, devices: int, wraps: tuple[bool, ...]) -> None:
    found = parse_topology(text)
    assert (found.num_devices, found.wraps, str(found)) == (devices, wraps, text)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("v5p", "a topology is written like"),
        ("v9:2x2", "chips are v4, v5e"),
        ("v5p:4x4", "a slice of v5p has 3 sides"),
        ("v5e:32x32", "at most 256 chips"),
        ("v5e:3x4", "even first sides"),
        ("v5p:0x4x4", "even first sides"),
        ("h100:12", "whole nodes of 8"),
        ("h100:8x8", "whole nodes of 8"),
    ],
)
def test_what_is_no_slice_is_refused_in_a_sentence(text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule) as error:
        parse_topology(text)
    assert "\n" not in str(error.value)


def test_a_compiler_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(topology, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"jaxrl-reason\[tpu-aot\]"):
        check_installed("tpu")
    with pytest.raises(ValueError, match=r"jaxrl-reason\[cuda-aot\]"):
        check_installed("cuda")


def test_every_gpu_has_a_target_of_about_its_memory_and_bandwidth() -> None:
    for chip in CHIPS.values():
        if chip.platform != "cuda":
            continue
        lines = target_config(chip.name).splitlines()
        fields = dict(line.strip().split(": ") for line in lines if line[:2] == "  ")
        assert float(fields["device_memory_size"]) == pytest.approx(
            chip.memory, rel=0.07
        )
        assert float(fields["memory_bandwidth"]) == pytest.approx(
            chip.bandwidth, rel=0.01
        )
