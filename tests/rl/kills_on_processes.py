"""Two processes that are one run, of which a random one is killed, or both.

A kill takes half a minute, so that the suite, which collects only `test_*.py`, leaves
them out:

    python -m pytest tests/rl/kills_on_processes.py --kills 10
"""

import random
import time

import pytest

from tests.rl.kill_helpers import assert_same_folders, pair_killed


@pytest.mark.timeout(3600)
def test_kill_9_of_one_process_or_both_changes_nothing(tmp_path, root, pytestconfig):
    cache, straight = tmp_path / "compiled", tmp_path / "straight"
    straight.mkdir()
    pair_killed(straight, cache, root, None, "background")
    left, number = pytestconfig.getoption("--kills"), 0
    seed = time.time_ns()
    print(f"seed {seed}")
    draw = random.Random(seed)
    while left:
        path = tmp_path / f"{number}"
        path.mkdir()
        how = "at once" if number % 2 else "background"
        number += 1
        running = True
        while running and left:
            moment = (draw.randint(1, 3), draw.uniform(0, 0.3))
            which = draw.choice([(0,), (1,), (0, 1)])
            running, seconds = pair_killed(path, cache, root, moment, how, which)
            assert seconds < 150  # JAX misses a dead process after 100
            left -= running
        if running:
            pair_killed(path, cache, root, None, how)
        assert_same_folders(path, straight)
