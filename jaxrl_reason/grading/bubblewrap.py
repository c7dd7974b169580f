"""A sandbox of Linux namespaces: bubblewrap, and limits that a program cannot raise."""

import contextlib
import itertools
import json
import math
import os
import platform
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxrl_reason.grading.sandbox import (
    ENDED,
    FLOODED,
    LATE,
    PROGRAM,
    RAISED,
    START_SECONDS,
    SandboxError,
    SandboxJob,
    SandboxLimits,
    SandboxRun,
    finished,
)
from jaxrl_reason.grading.sandbox_program import READY
from jaxrl_reason.grading.seccomp_filter import seccomp_filter

_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache")
_PYTHON = Path("/python")
_ENVIRONMENT = {
    "PATH": "/usr/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "LD_LIBRARY_PATH": str(_PYTHON / "lib"),
}
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
# Users of nobody: the limit on processes counts those of a user. A number for each run.
_FIRST_USER, _USERS = 60_600, 500
_user = itertools.count(os.getpid())


@dataclass(frozen=True)
class Bubblewrap:
    """Runs programs by `bwrap`: no network, no home, nothing writable but memory.

    A run has namespaces of its own. It sees this Python and /usr, read-only, four
    devices and an empty folder in memory; no /proc, no variables of this process. What
    it has started ends with it. Started as root, each run becomes another user, without
    rights; started as somebody else, it is in a user namespace.

    Attributes:
      limits: of each run.

    Raises:
      SandboxError: there is no bubblewrap.
    """

    limits: SandboxLimits = field(default_factory=SandboxLimits)
    name = "bubblewrap"

    def __post_init__(self) -> None:
        if shutil.which("bwrap") is None:
            raise SandboxError(
                "bubblewrap must be installed (Linux; apt-get install bubblewrap)"
            )
        if seccomp_filter() is None:
            raise SandboxError(
                "bubblewrap needs the system calls of x86_64 or aarch64, got "
                f"{platform.machine()}"
            )

    def run(self, job: SandboxJob) -> SandboxRun:
        """Runs one program.

        Args:
          job: the program.

        Returns:
          Its output and how it ended.
        """
        with tempfile.TemporaryFile() as given, _readable(self._filter) as rules:
            # The job on the first line, then what the program reads.
            given.write(json.dumps(self._described(job)).encode() + b"\n")
            given.write(job.stdin.encode("utf-8", "surrogatepass"))
            given.seek(0)
            process = subprocess.Popen(
                [*self._command[:1], "--seccomp", str(rules), *self._command[1:]],
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_ENVIRONMENT,
                pass_fds=[rules],
                start_new_session=True,
            )
        try:
            output, how = self._read(process)
        finally:
            # The first process of the namespace dies with bwrap, all others with it.
            process.kill()
            status = process.wait()
            assert process.stdout is not None
            process.stdout.close()
        if how == ENDED and status != 0:
            how = RAISED
        return finished(self.name, output, how)

    def _read(self, process: "subprocess.Popen[bytes]") -> tuple[bytes, str]:
        """What the process says until it ends or must be stopped."""
        assert process.stdout is not None
        output, end = bytearray(), time.monotonic() + START_SECONDS
        is_ready, most = False, len(READY) + self.limits.output_bytes
        while True:
            left = max(0.0, end - time.monotonic())
            if not select.select([process.stdout], [], [], left)[0]:
                return bytes(output), LATE
            part = os.read(process.stdout.fileno(), 2**16)
            output += part
            if not is_ready and output.startswith(READY):
                is_ready, end = True, time.monotonic() + self.limits.seconds
            if len(output) > most:
                return bytes(output[:most]), FLOODED
            if not part:
                break
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:  # its output is closed, and it goes on
            return bytes(output), LATE
        return bytes(output), ENDED

    def _described(self, job: SandboxJob) -> dict[str, Any]:
        limits, is_root = self.limits, os.geteuid() == 0
        return {
            "program": job.program,
            "steps": job.steps,
            "values": job.values,
            "user": _FIRST_USER + next(_user) % _USERS if is_root else None,
            "limits": {
                "AS": limits.memory_bytes,
                # bwrap itself is one more of the same user.
                "NPROC": limits.processes + (not is_root),
                "FSIZE": limits.file_bytes,
                "CPU": math.ceil(limits.seconds) + 1,
                "NOFILE": 64,
                "CORE": 0,
            },
        }

    @cached_property
    def _filter(self) -> bytes:
        return seccomp_filter() or b""

    @cached_property
    def _command(self) -> list[str]:
        """Of bwrap and of Python inside it."""
        command = ["bwrap", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
        command += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
        if os.geteuid() == 0:  # for becoming another user, which ends these two as well
            command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        else:
            command += ["--unshare-user"]
        python = Path(sys.base_prefix).resolve()
        for path in map(Path, _SYSTEM):
            if path.is_symlink():
                command += ["--symlink", str(path.readlink()), str(path)]
            elif path.exists():
                command += ["--ro-bind", str(path), str(path)]
        binary = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
        # It may be in a home that others may not enter.
        if not python.is_relative_to("/usr"):
            command += ["--ro-bind", str(python), str(_PYTHON)]
            binary = _PYTHON / binary.relative_to(python)
        for device in _DEVICES:
            command += ["--dev-bind", device, device]
        if _tmpfs_has_a_size():
            command += ["--size", str(self.limits.file_bytes), "--tmpfs", "/tmp"]
            command += ["--chmod", "1777", "/tmp", "--chdir", "/tmp"]
        command += ["--remount-ro", "/", str(binary), "-I", "-S", "-B", "-c", PROGRAM]
        return command


@contextlib.contextmanager
def _readable(data: bytes) -> Iterator[int]:
    """A descriptor from which a few bytes can be read."""
    read, write = os.pipe()
    try:
        os.write(write, data)
        os.close(write)
        yield read
    finally:
        os.close(read)


def _tmpfs_has_a_size() -> bool:
    """Whether bwrap can limit a folder in memory, as it can since 0.7."""
    done = subprocess.run(
        ["bwrap", "--help"], capture_output=True, text=True, check=False
    )
    return "--size" in done.stdout
