"""Where the reward functions of a run are called."""

import pytest

from jaxrl_reason.cli.train import read_settings
from jaxrl_reason.train.task_rewards import function_reward


@pytest.mark.parametrize("where", ["workers", "process"])
def test_only_a_function_in_this_process_may_use_its_devices(tmp_path, where):
    place = f"{tmp_path}/mine.py:full"
    (tmp_path / "mine.py").write_text("def full(prompt, response, row): return 1.0\n")
    flags = ["--task", "sums.jsonl", "--reward", place, "--rewards.where", where]
    reward = function_reward(read_settings(flags), place)
    assert reward.name == "full"
    assert reward.needs_devices == (where == "process")
    reward.close()
