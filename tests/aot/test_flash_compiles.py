"""A run's update with the kernel for GPUs, compiled for cards that are not there."""

import re
from collections import Counter
from pathlib import Path

import pytest

from jaxrl_reason.aot.compile_step import CompileRequest, compile_step
from jaxrl_reason.aot.topology import check_installed, parse_topology
from tests.aot.aot_helpers import tiny_run


def test_an_update_holds_the_three_kernels(tmp_path: Path) -> None:
    try:
        check_installed("cuda")
    except ValueError as error:
        pytest.skip(str(error))
    text = tmp_path / "update.hlo"
    settings = tiny_run(tmp_path, row_width=256)
    topology = parse_topology("h100:4")
    compile_step(CompileRequest(settings, topology, "update", "O1", text))
    calls = [
        line
        for line in text.read_text("utf-8").splitlines()
        if 'custom_call_target="__gpu$xla.gpu.triton"' in line
    ]
    names = [re.findall(r"shard_map/(flash_\w+)/", line) for line in calls]
    found = Counter(name for part in names for name in part)
    times = found["flash_backward_keys"]
    # Forward twice: full rematerialisation.
    assert found == {
        "flash_forward": 2 * times,
        "flash_backward_queries": times,
        "flash_backward_keys": times,
    }
    assert times > 0
    # Of the four rows of a micro-batch and the four heads, two each.
    assert all(re.search(r"\[2,256,2,16\]", line) for line in calls)
