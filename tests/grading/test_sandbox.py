"""Programs in a sandbox: honest ones pass, hostile ones change and learn nothing."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jaxrl_reason.grading import sandbox as sandbox_module
from jaxrl_reason.grading.bubblewrap import Bubblewrap
from jaxrl_reason.grading.code_grader import (
    find_program,
    grade_program,
    grade_programs,
)
from jaxrl_reason.grading.code_tests import CodeTests, ScriptTest, assert_tests
from jaxrl_reason.grading.sandbox import (
    ENDED,
    FLOODED,
    LATE,
    RAISED,
    Sandbox,
    SandboxError,
    SandboxJob,
    SandboxLimits,
    SandboxRun,
    open_sandbox,
)
from jaxrl_reason.grading.sandbox_program import NotPlain, decode, encode
from jaxrl_reason.grading.seccomp_filter import seccomp_filter
from tests.grading.hostile_programs import HOSTILE

TESTS = assert_tests(["assert add(1, 2) == 3", "assert add(-1, 1) == 0"])
ADD = "def add(a, b):\n    return a + b\n"
HOSTILE_SECONDS = 0.6
MARK = "sandbox-secret"


@pytest.fixture(scope="module", params=["bubblewrap", "wasm"])
def kind(request: pytest.FixtureRequest) -> str:
    try:
        # A first run compiles the guest; a slow machine is no fault of a program.
        open_sandbox(request.param, SandboxLimits(seconds=60))
    except SandboxError as error:
        pytest.skip(str(error))
    return str(request.param)


@pytest.fixture(scope="module")
def sandbox(kind: str) -> Sandbox:
    return open_sandbox(kind, SandboxLimits(seconds=60))


class Watch:
    """What a program outside could have done to this machine."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.sockets = []
        for family, kind, place in (
            (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            (socket.AF_INET, socket.SOCK_DGRAM, None),
            (socket.AF_UNIX, socket.SOCK_STREAM, str(folder / "s")),
            (socket.AF_UNIX, socket.SOCK_STREAM, "\0jaxrl-reason-hostile"),
        ):
            listener = socket.socket(family, kind)
            # Both kinds listen at one port.
            listener.bind(place or self.sockets[0].getsockname())
            if kind == socket.SOCK_STREAM:
                listener.listen()
            listener.setblocking(False)
            self.sockets.append(listener)
        self.names = {
            "PORT": str(self.sockets[0].getsockname()[1]),
            "SOCKET": str(folder / "s"),
            "HOME": str(self.home),
        }

    def aimed(self, program: str) -> str:
        for name, place in self.names.items():
            program = program.replace(name, place)
        return program

    def caught(self) -> list[str]:
        found = [str(path) for path in self.home.iterdir()]
        for listener in self.sockets:
            try:
                if listener.type == socket.SOCK_STREAM:
                    listener.accept()
                else:
                    listener.recv(9)
                found.append(f"reached {listener.getsockname()}")
            except BlockingIOError:
                pass
        places = ("/", "/root", "/etc", "/usr", "/tmp", "/var/tmp", "/dev/shm")
        names = ("caught", "stolen", "json.py", "sitecustomize.py", "result.json")
        paths = (Path(place, name) for place in places for name in names)
        return found + [str(path) for path in paths if os.path.lexists(path)]

    def close(self) -> None:
        for listener in self.sockets:
            listener.close()


def processes() -> set[int]:
    """Processes of this machine that a sandbox has started."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"What runs inside a sandbox" in command:
            found.add(int(folder.name))
    return found


@pytest.fixture(scope="module")
def hostile(
    kind: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """The grade of every hostile program, and what was seen outside."""
    watch = Watch(tmp_path_factory.mktemp("watched"))
    limits = SandboxLimits(seconds=HOSTILE_SECONDS, memory_bytes=256 * 2**20)
    sandbox = open_sandbox(kind, limits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOSTILE_API_KEY", MARK)
        programs = [find_program(watch.aimed(p)) for p in HOSTILE.values()]
        start = time.monotonic()
        grades = grade_programs(sandbox, [(p, TESTS) for p in programs], workers=2)
        seconds = time.monotonic() - start
    yield {
        "grades": dict(zip(HOSTILE, grades, strict=True)),
        "caught": watch.caught(),
        "seconds": seconds,
    }
    watch.close()


@pytest.mark.parametrize("name", HOSTILE)
def test_no_hostile_program_passes(hostile: dict[str, Any], name: str) -> None:
    assert not hostile["grades"][name].correct


def test_hostile_programs_reach_nothing(hostile: dict[str, Any]) -> None:
    assert len(HOSTILE) >= 61
    assert hostile["caught"] == []
    for _ in range(50):  # the kernel may take a moment to end a namespace
        if not processes():
            break
        time.sleep(0.1)
    assert processes() == set()


def test_hostile_programs_are_stopped_in_time(hostile: dict[str, Any]) -> None:
    # Two at once; what a loaded machine adds to each run stands in front.
    assert hostile["seconds"] < (4 + HOSTILE_SECONDS) * len(HOSTILE) / 2


def test_honest_programs_pass(sandbox: Sandbox) -> None:
    texts = [
        "import math",
        "assert add(1, 2) == 3, 'small'",
        "assert sorted([add(1, 1), add(0, 1)]) == [1, 2]",
        "assert math.isclose(add(0.1, 0.2), 0.3)",
        "def test_texts():\n    said = add('a', 'b')\n    assert said == 'ab'",
        "assert not add(0, 0)",
        "assert add([1], [(2,)]) == [1, (2,)]",
    ]
    tests = assert_tests(texts)
    good, bad = grade_programs(
        sandbox, [(ADD, tests), (ADD.replace("a + b", "a + a"), tests)], workers=1
    )
    assert good.correct
    assert bad.passed == (False, False, False, False, True, False)


def test_a_program_of_many_parts_runs(sandbox: Sandbox) -> None:
    program = (
        "from collections import deque\nfrom dataclasses import dataclass\n"
        "from heapq import nsmallest\n"
        "@dataclass\nclass Sum:\n    left: int\n    right: int\n"
        "    def value(self): return sum(deque([self.left, self.right]))\n"
        "def add(a, b):\n    print('working')\n    return Sum(a, b).value()\n"
        "if __name__ == '__main__':\n    raise SystemExit(1)\n"
    )
    assert grade_program(sandbox, program, TESTS).correct


def test_a_script_reads_and_writes(sandbox: Sandbox) -> None:
    program = "import sys\nn = int(input())\nprint(sum(map(int, sys.stdin)) / n)\n"
    run = sandbox.run(SandboxJob(program, "2\n3\n4\n"))
    assert run == SandboxRun(b"3.5\n", ENDED)
    run = sandbox.run(SandboxJob("print(open(0).read()[::-1])", "héll"))
    assert run == SandboxRun("lléh\n".encode(), ENDED)
    failed = sandbox.run(SandboxJob("print(1, flush=True)\nraise ValueError"))
    assert failed == SandboxRun(b"1\n", RAISED)


def test_how_a_run_is_stopped(kind: str) -> None:
    sandbox = open_sandbox(kind, SandboxLimits(seconds=0.3, output_bytes=1000))
    assert sandbox.run(SandboxJob("while True: pass")) == SandboxRun(b"", LATE)
    flood = "try:\n    while True: print('A' * 99, flush=True)\nfinally:\n    pass"
    run = sandbox.run(SandboxJob(flood))
    assert (run.how, len(run.output)) == (FLOODED, 1000)


def test_a_program_may_change_what_it_is_given(sandbox: Sandbox) -> None:
    tests = assert_tests(["x = [1]", "assert add(x, 2) is None", "assert x == [1, 2]"])
    right = "def add(a, b):\n    a.append(b)"
    assert grade_program(sandbox, right, tests).correct
    wrong = "def add(a, b):\n    pass"
    assert grade_program(sandbox, wrong, tests).passed == (True, False)


def test_script_tests_all_or_some(sandbox: Sandbox) -> None:
    scripts = tuple(ScriptTest(f"{n}\n", f"{2 * n}\n") for n in (0, 3, 2))
    tests = CodeTests(scripts=scripts)
    square = "n = int(input())\nprint(n * n)"
    grade = grade_program(sandbox, square, tests, partial=True)
    assert (grade.passed, grade.correct) == ((True, False, True), False)
    assert grade.fraction == pytest.approx(2 / 3)
    # The rest is not run once one has failed.
    assert grade_program(sandbox, square, tests).passed == (True, False, False)
    assert grade_program(sandbox, None, tests).passed == (False,) * 3


def test_a_sandbox_that_does_not_start_is_no_wrong_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not seccomp_filter():
        pytest.skip("bubblewrap needs x86_64 or aarch64")
    monkeypatch.setattr("shutil.which", lambda name: "/bin/false")
    monkeypatch.setattr(Bubblewrap, "_command", ["/bin/false"])
    with pytest.raises(SandboxError, match="must start a program, got none: raised"):
        Bubblewrap().run(SandboxJob("print(1)"))


def test_no_sandbox_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("jaxrl_reason.grading.wasm_python.find_spec", lambda name: None)
    with pytest.raises(SandboxError, match=r"apt-get install bubblewrap.*\[sandbox\]"):
        open_sandbox()
    with pytest.raises(ValueError, match="auto, bubblewrap or wasm, got 'none'"):
        open_sandbox("none")
    with pytest.raises(ValueError, match="sandbox seconds must be > 0, got 0"):
        SandboxLimits(seconds=0)


def test_values_survive_the_way_out() -> None:
    values = [
        *(None, True, 0, -(10**5000), 0.1, float("inf"), 1j, "é\ud800", b"\0"),
        *([1, (2, {3})], {(1, 2): frozenset({4}), "a": []}),
    ]
    for value in values:
        assert decode(encode(value)) == value
        assert type(decode(encode(value))) is type(value)
    assert type(decode(encode(type("Sub", (int,), {})(3)))) is int


@pytest.mark.parametrize(
    "coded",
    [
        ["x"],
        [],
        None,
        3,
        ["i", "z"],
        ["i"],
        ["e", [["l", []]]],
        ["k", "exit"],
        ["q", 1],
    ],
)
def test_what_is_no_value_is_refused(coded: Any) -> None:
    with pytest.raises(NotPlain):
        decode(coded)


def test_a_filter_for_each_machine() -> None:
    ours = seccomp_filter("x86_64"), seccomp_filter("aarch64")
    assert None not in ours
    assert ours[0] != ours[1]
    assert seccomp_filter("s390x") is None


def test_the_program_inside_is_that_of_the_library() -> None:
    assert "What runs inside a sandbox" in sandbox_module.PROGRAM
