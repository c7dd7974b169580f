import json

import pytest

from jaxrl_reason.training.stage_clock import StageClock


def test_a_resumed_run_adds_to_the_seconds_that_stand_in_its_folder(tmp_path):
    path = tmp_path / "wall_seconds.json"
    first = StageClock(path)
    first.add("priming", 3.0)
    with pytest.raises(KeyboardInterrupt), first("rl"):
        raise KeyboardInterrupt
    assert set(json.loads(path.read_text())) == {"priming", "rl"}
    second = StageClock(path)
    second.add("priming", 4.0)
    assert second.seconds["priming"] == 7.0
    assert second.seconds["rl"] == first.seconds["rl"]
