import json

import pytest

from jaxrl_reason.runs.clock import StageClock


def test_a_resumed_run_adds_to_the_seconds_that_stand_in_its_folder(tmp_path):
    path = tmp_path / "wall_seconds.json"
    first = StageClock(path)
    first.add("sft", 3.0)
    with pytest.raises(KeyboardInterrupt), first("rl"):
        raise KeyboardInterrupt
    assert set(json.loads(path.read_text())) == {"sft", "rl"}
    second = StageClock(path)
    second.add("sft", 4.0)
    assert second.seconds["sft"] == 7.0
    assert second.seconds["rl"] == first.seconds["rl"]
