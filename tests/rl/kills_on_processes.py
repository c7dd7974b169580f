"""Two processes that are one run, of which a random one is killed, or both.

A kill takes half a minute, so that the suite, which collects only `test_*.py`, leaves
them out:

    python -m pytest tests/rl/kills_on_processes.py --kills 10
"""

import pytest

from tests.rl.kill_helpers import kill_at_random, pair_killed


@pytest.mark.timeout(3600)
def test_kill_9_of_one_process_or_both_changes_nothing(tmp_path, root, pytestconfig):
    cache, straight = tmp_path / "compiled", tmp_path / "straight"
    straight.mkdir()
    pair_killed(straight, cache, root, None, "background")

    def start(path, moment, how, draw):
        which = draw.choice([(0,), (1,), (0, 1)])
        running, seconds = pair_killed(path, cache, root, moment, how, which)
        # JAX misses a dead process after 100.
        assert moment is None or seconds < 150
        return running

    kill_at_random(tmp_path, straight, pytestconfig.getoption("--kills"), start)
