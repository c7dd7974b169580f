"""Two processes: none is left waiting, and the message names who is to blame."""

import re
from typing import Any

import pytest

from jaxrl_reason.sharding.lifetime import joined, stuck_message

# One process misbehaves while the other waits for it: in an exchange, or, as XLA does,
# in a collective.
SCRIPT = """
    import os, time
    import jax
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec
    from jaxrl_reason.sharding import lifetime
    from jaxrl_reason.sharding.agreement import exchange
    from jaxrl_reason.sharding.processes import fetch, put

    def misbehave(how):
        if how == "raises":
            raise KeyError("a bug")
        if how == "sleeps":
            time.sleep(600)
        if how == "leaves":
            lifetime.leave_together("given up", 75)
        if how == "dies":
            # SIGTERM, which JAX would swallow, or SIGKILL.
            os.kill(os.getpid(), 15 if where == "exchange" else 9)

    culprit, how, where = int(arguments[0]), arguments[1], arguments[2]
    lifetime._SILENT = 4
    # In a collective only the one that sleeps finds it out, and ends the collective.
    aware = where == "exchange" or index == culprit
    with join(stuck_after=5 if how == "sleeps" and aware else 600):
        parted = NamedSharding(jax.make_mesh((2,), ("x",)), PartitionSpec("x"))
        x = put(np.arange(4.0), parted)
        assert fetch(x).tolist() == [0, 1, 2, 3]
        if index == culprit:
            misbehave(how)
        if where == "collective":
            fetch(x)
        else:
            exchange("there", 1)
"""


@pytest.mark.parametrize("where", ["exchange", "collective"])
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("raises", "process 1 failed: KeyError: 'a bug'"),
        ("sleeps", r"process 1 has been stuck for 5 seconds: it is in misbehave \(.*"),
        ("dies", "process 1 (failed: no sign of life for 4 seconds|has died)"),
    ],
)
def test_the_others_end_and_name_it(
    processes_run: Any, how: str, said: str, where: str
) -> None:
    first, second = processes_run(SCRIPT, 2, "1", how, where, timeout=60)
    assert (first.returncode, second.returncode == 0) == (1, False)
    assert re.search(f"^error: {said}", first.stderr, re.MULTILINE), first.stderr
    if how == "raises":
        assert "Traceback" in second.stderr


def test_the_others_end_where_the_leader_dies(processes_run: Any) -> None:
    leader, other = processes_run(SCRIPT, 2, "0", "dies", "exchange", timeout=60)
    assert leader.returncode == -15
    assert other.returncode not in (0, None)


@pytest.mark.parametrize(("culprit", "where"), [("0", "exchange"), ("1", "collective")])
def test_one_that_leaves_takes_the_other_along(
    processes_run: Any, culprit: str, where: str
) -> None:
    pair = processes_run(SCRIPT, 2, culprit, "leaves", where, timeout=60)
    assert [process.returncode for process in pair] == [75, 75]
    assert pair[1 - int(culprit)].stderr.endswith("given up\n")


def test_processes_at_different_places_are_told(processes_run: Any) -> None:
    script = """
    from jaxrl_reason.sharding.agreement import exchange
    with join():
        exchange(f"place {index}", None)
    """
    for process in processes_run(script, 2, timeout=60):
        assert process.returncode == 1
        assert "must meet at the same place, got {0: 'place 0', 1: 'place 1'}" in (
            process.stderr
        )


@pytest.mark.fast
def test_where_all_wait_all_are_named() -> None:
    same = {0: '[3, 9, "a"]', 1: '[3, 8, "b"]', 2: '[3, 8, "c"]'}
    assert stuck_message(same, 9) == (
        "all processes have been stuck for 9 seconds: process 0 is in a; "
        "process 1 is in b; process 2 is in c"
    )
    two = same | {0: '[4, 9, "a"]'}
    assert stuck_message(two, 9).startswith("processes 1, 2 have been stuck")


@pytest.mark.fast
def test_a_limit_of_no_time_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="stuck_after must be above 0 seconds, got 0"),
        joined(stuck_after=0),
    ):
        pass
