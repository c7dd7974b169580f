import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxrl_reason.runs.interrupt import AT_ONCE, REQUEUE, GracefulInterrupt

STOPS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]


@pytest.mark.parametrize("number", STOPS)
def test_the_first_signal_is_a_wish_and_the_second_an_order(number, capfd):
    before = signal.getsignal(number)
    with GracefulInterrupt("saving", signals=["USR1"]) as interrupt:
        assert not interrupt.requested
        os.kill(os.getpid(), number)
        assert interrupt.requested
        assert f"{signal.Signals(number).name}: saving" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


@pytest.fixture
def ctrl_c():
    """Python's own handler, also where the tests run in the background without it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_handlers_are_put_back_after_an_error(ctrl_c):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError), GracefulInterrupt():
        raise RuntimeError
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_off_the_main_thread_it_does_nothing():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work():
        with GracefulInterrupt() as interrupt:
            seen.append((interrupt.requested, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def test_a_signal_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with GracefulInterrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interrupt.requested
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_is_gone_is_no_error():
    read, write = os.pipe()
    os.close(read)  # writing to it fails
    kept = os.dup(2)
    os.dup2(write, 2)
    try:
        with GracefulInterrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interrupt.requested
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(write)


# Hashing leaves no instruction of the main thread between which a handler could run, as
# waiting for a device does.
BUSY = """
import hashlib, os, sys, time
from jaxrl_reason.runs import interrupt
interrupt._PATIENCE = 0.5
grace, held = float(sys.argv[1]), sys.argv[2]
def save():
    if held == "hangs":
        time.sleep(60)
    os.write(1, b"saved ")
    return 7 if held == "held" else None
with interrupt.GracefulInterrupt(signals=["USR2"], grace=grace) as stop:
    if held != "nothing":
        stop.hold(save)
    os.write(1, b"ready ")
    hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000_000)
    raise SystemExit(3)
"""


def busy(*signals, grace=0.0, held="nothing"):
    """The status, the outputs and the seconds of a process after signals to it."""
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY, str(grace), held],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.read(6) == b"ready "
    start = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(0.3)
    try:
        output, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    return process.returncode, output + errors, time.monotonic() - start


def test_a_second_signal_ends_a_process_that_does_not_answer():
    status, said, _ = busy(signal.SIGTERM, signal.SIGUSR2)
    assert status == AT_ONCE == 130
    assert b"SIGTERM: finishing this step" in said


@pytest.mark.parametrize(
    ("held", "where"),
    [
        ("held", b"auto goes on from step 7\n"),
        ("none", b"auto starts this stage again\n"),
        ("nothing", b"auto goes on from the newest checkpoint\n"),
        ("hangs", b"auto goes on from the newest checkpoint\n"),  # as a disk may
    ],
)
def test_a_step_that_does_not_end_within_the_grace_period_is_given_up(held, where):
    status, said, seconds = busy(signal.SIGUSR2, grace=1.5, held=held)
    assert status == REQUEUE == 75
    assert 1 < seconds < 10
    assert (b"saved" in said) == (held in ("held", "none"))
    assert b"SIGUSR2: this step has not ended within 1.5 seconds" in said
    assert where in said


def test_a_step_that_ends_in_time_is_not_given_up():
    saved = []
    with GracefulInterrupt("saving", grace=0.6) as interrupt:
        interrupt.hold(lambda: saved.append(1) or 1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested
        time.sleep(0.3)
    time.sleep(0.6)  # past the deadline, and still here
    assert saved == [1]
