"""The files of docs/preemption, with a scheduler that only pretends."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from jaxrl_reason.cli.train import read_command
from jaxrl_reason.runs.interrupt import AT_ONCE, REQUEUE

COUNT = "n=$(cat n 2>/dev/null || echo 0); echo $((n + 1)) > n; "


def script(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


def call(root: Path, folder: Path, name: str, *given: str, **more: str) -> int:
    """The status of a file of docs/preemption, with programs of a folder."""
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "REQUEUE_SECONDS": "0", **more}
    file = root / "docs" / "preemption" / name
    return subprocess.run(
        ["bash", str(file), *given],
        cwd=folder,
        env=environment,
        timeout=60,
        check=False,
    ).returncode


def test_the_statuses_of_the_page(root: Path) -> None:
    page = (root / "docs" / "preemption.md").read_text(encoding="utf-8")
    for status in (0, 1, 2, REQUEUE, AT_ONCE):
        assert f"| {status} |" in page


@pytest.mark.parametrize(("last", "times"), [(0, 3), (1, 3)])
def test_the_loop_starts_again_after_75_only(
    root: Path, tmp_path: Path, last: int, times: int
) -> None:
    script(tmp_path, "train", f"{COUNT} [ $n -lt 2 ] && exit 75; exit {last}")
    assert call(root, tmp_path, "requeue.sh", "./train", "--x", "a b") == last
    assert (tmp_path / "n").read_text() == f"{times}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_loop_ends_it(
    root: Path, tmp_path: Path, number: signal.Signals
) -> None:
    ends = "trap 'exit 75' TERM INT; touch ready; while true; do sleep 0.1; done"
    script(tmp_path, "train", ends)
    loop = subprocess.Popen(
        ["bash", str(root / "docs/preemption/requeue.sh"), "./train"],
        cwd=tmp_path,
        start_new_session=True,
    )
    while not (tmp_path / "ready").exists():
        time.sleep(0.05)
    loop.send_signal(number)
    if number == signal.SIGINT:  # a terminal sends it to all, but bash ignores it there
        time.sleep(0.3)
        subprocess.run(["pkill", "-TERM", "-P", str(loop.pid)], check=True)
    assert loop.wait(timeout=20) == 75


@pytest.mark.parametrize("status", [75, 0, 1])
def test_slurm_requeues_after_75_only(root: Path, tmp_path: Path, status: int) -> None:
    script(tmp_path, "srun", f'echo "$@" > args; exit {status}')
    script(tmp_path, "scontrol", 'echo "$@" > requeued')
    given = {"SLURM_JOB_ID": "17", "RUN_DIR": "run"}
    assert call(root, tmp_path, "slurm.sh", "--seed", "3", **given) == status
    asked = tmp_path / "requeued"
    assert asked.exists() == (status == 75)
    if asked.exists():
        assert asked.read_text() == "requeue 17\n"
    _, *flags = (tmp_path / "args").read_text().split("train ")[1].split()
    settings, processes = read_command(["--distributed", *flags])
    assert processes.distributed
    assert settings.resume == "auto"
    assert settings.seed == 3
    assert settings.stop.signals == ("USR1",)


def test_a_jobset_restarts_without_counting_after_75(root: Path) -> None:
    file = root / "docs" / "preemption" / "jobset.yaml"
    spec = yaml.safe_load(file.read_text(encoding="utf-8"))["spec"]
    (rule,) = spec["failurePolicy"]["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [REQUEUE]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    settings, processes = read_command([*container["command"][2:], *container["args"]])
    assert processes.distributed
    assert settings.resume == "auto"
    assert settings.stop.grace_seconds < pod["terminationGracePeriodSeconds"]


GCLOUD = """
echo "$*" >> calls
case "$*" in
  *describe*) cat state 2>/dev/null ;;
  *create*) echo ACTIVE > state ;;
  *delete*) rm -f state ;;
  *ssh*)
    {count}
    case $n in
      0) echo SUSPENDED > state; exit 255 ;;
      1) echo "worker: run-status=75"; exit 1 ;;
      *) echo "worker: run-status={last}" ;;
    esac ;;
esac
"""


@pytest.mark.parametrize("last", [0, 1])
def test_a_queued_resource_is_asked_for_again(
    root: Path, tmp_path: Path, last: int
) -> None:
    script(tmp_path, "gcloud", GCLOUD.format(count=COUNT, last=last))
    given = {"NAME": "r", "ZONE": "z", "TYPE": "v6e-16", "VERSION": "v", "TMPDIR": "."}
    command = ("jaxrl-reason", "train", "--resume", "auto")
    assert call(root, tmp_path, "tpu_queued_resource.sh", *command, **given) == last
    calls = (tmp_path / "calls").read_text().splitlines()
    done = [line.split()[3] for line in calls if "describe" not in line]
    asked = ["delete", "create", "ssh"]  # preempted; interrupted; the end
    assert done == [*asked, *asked, "ssh", *(["delete"] if last == 0 else [])]
    assert "jaxrl-reason train --resume auto; echo run-status=$?" in "".join(calls)
