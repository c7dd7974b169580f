"""`jaxrl-reason train --distributed` as two processes on one machine."""

import json
import shlex

import pytest

from jaxrl_reason.cli.train import main, read_command
from jaxrl_reason.runs.run_folder import RunFolder
from tests.cli.tiny_runs import TINY, numbers

SCRIPT = """
    import json, os
    from jaxrl_reason.cli.main import main
    folder, flags, more = arguments
    os.chdir(folder)
    processes = ["--coordinator-address", address, "--process-id", str(index)]
    processes += ["--distributed", "--num-processes", str(count)]
    more = json.loads(more) if index else []
    main(["train", *processes, *json.loads(flags), *more])
"""
# Fine-tuning, a stage with its evaluations and a reward of one's own.
FLAGS = shlex.split("""
    --mesh data=2 --method srpo --stages.limits 4 4 --rl.steps 1 --eval.every 2
    --reward reward.py:parity --sft.updates 10
""")


@pytest.fixture
def pair(processes_run, folder):
    """Runs the command in that folder as two processes, the second with more flags."""

    def run(name, *flags, second=()):
        every = [*TINY, *FLAGS, "--run-dir", name, *flags]
        arguments = (str(folder), json.dumps(every), json.dumps(second))
        return processes_run(SCRIPT, 2, *arguments)

    return run


def test_a_whole_run_of_two_processes(pair, folder):
    first, second = pair("two")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    rows = numbers(folder / "two")
    assert [row["run/stage"] for row in rows] == [1, 2]
    report = json.loads((folder / "two" / "report.json").read_text())
    assert report["finished"]
    assert report["steps"] == 2
    assert RunFolder(folder / "two").config()["devices"]["processes"] == 2
    # Once, and by the first alone.
    assert first.stdout.count("curves: ") == 1
    said = [x for x in second.stdout.splitlines() if x and not x.startswith("[Gloo]")]
    assert (said, second.stderr) == ([], "")


def test_other_settings_are_named_before_anything_is_trained(pair, folder):
    for process in pair("unlike", second=["--rl.group-size", "8"]):
        assert process.returncode == 1
        said = "process 1 differs: rl.group_size: process 0 4, process 1 8"
        assert said in process.stderr
    assert not (folder / "unlike").exists()


def test_flags_of_processes_need_distributed():
    with pytest.raises(ValueError, match="process_id need --distributed"):
        main([*TINY, "--process-id", "1"])
    with pytest.raises(ValueError, match="stuck_after must be above 0, got 0"):
        read_command([*TINY, "--distributed", "--stuck-after", "0"])
