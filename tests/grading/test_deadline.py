"""Calls in this process that hang, raise or end the program."""

import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxrl_reason.grading.deadline import call_each, outcome_of

SECONDS = 0.1


@pytest.fixture(autouse=True)
def no_alarm():
    """That of pytest-timeout rests, so that a call can have one."""
    before = signal.setitimer(signal.ITIMER_REAL, 0)
    yield
    signal.setitimer(signal.ITIMER_REAL, *before)


def spin():
    while True:
        time.sleep(0)


def wait():
    time.sleep(3600)


def backtrack():
    re.match(r"(a+)+$", "a" * 40 + "b")


def answer():
    return 1


def call(function):
    return function()


def elsewhere(run):
    """The result of a function that another thread runs."""
    found = []
    thread = threading.Thread(target=lambda: found.append(run()))
    thread.start()
    thread.join(30)
    return found[0]


@pytest.mark.parametrize("hangs", [spin, wait, backtrack])
def test_a_call_that_hangs_is_late_and_the_others_are_made(hangs):
    handler = signal.getsignal(signal.SIGALRM)
    found = call_each(call, [[answer], [hangs], [answer]], SECONDS)
    assert [x.value for x in found] == [1, None, 1]
    assert [x.late for x in found] == [False, True, False]
    assert found[1].error == "not done after 0.1 seconds"
    assert signal.getsignal(signal.SIGALRM) is handler


def test_so_it_is_in_a_thread_which_a_loop_then_leaves():
    found = elsewhere(lambda: call_each(call, [[answer], [spin], [answer]], SECONDS))
    assert [x.value for x in found] == [1, None, 1]
    for _ in range(100):  # the exception comes at its next line
        if not any(x.name == "jaxrl-call" for x in threading.enumerate()):
            return
        time.sleep(0.05)
    pytest.fail("the loop goes on")


def test_a_call_that_waits_in_c_leaves_no_exception_open(tmp_path):
    """One that its thread never takes would make a profiler wait for ever."""
    script = f"""
import time, threading, jax
from jaxrl_reason.grading.deadline import call_each
late = []
run = lambda: late.extend(x.late for x in call_each(time.sleep, [[3600]], 0.1))
thread = threading.Thread(target=run)
thread.start(); thread.join()
assert late == [True]
jax.profiler.start_trace({str(tmp_path)!r})
jax.profiler.stop_trace()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_an_alarm_of_somebody_else_is_left_alone():
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *given: rang.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        found = call_each(call, [[answer], [wait]], SECONDS)
        assert [x.late for x in found] == [False, True]
        time.sleep(0.2)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rang == [1]


def test_after_three_late_calls_the_others_get_a_part_of_the_deadline():
    began = time.monotonic()
    found = call_each(call, [[wait]] * 20, 0.2)
    assert all(x.late for x in found)
    assert [x.seconds for x in found] == [0.2] * 3 + [0.005] * 17
    assert time.monotonic() - began < 1.5


def test_a_call_may_not_end_the_program_but_a_person_may():
    class Panic(BaseException):
        """As a Rust library raises it."""

    class Silent(Exception):
        def __str__(self):
            raise ValueError("no text")

    for error, said in (
        (SystemExit(3), "SystemExit: 3"),
        (Panic("index"), "Panic: index"),
        (Silent(), "Silent"),
    ):

        def fails(error=error):
            raise error

        assert outcome_of(fails, ()).error.startswith(said)
    with pytest.raises(KeyboardInterrupt):
        call_each(call, [[lambda: signal.raise_signal(signal.SIGINT)]], SECONDS)
