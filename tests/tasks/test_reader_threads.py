"""A reader that would wait for ever for threads that it does not get."""

import resource

import pytest

from jaxrl_reason.data import pipeline
from jaxrl_reason.tasks.countdown import CountdownSettings
from jaxrl_reason.tasks.reader_threads import (
    check_reader_threads,
    free_address_space,
    reader_bytes,
)


@pytest.fixture
def little_room():
    """A limit of the address space a hundred megabytes above what is in use."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    check_reader_threads.cache_clear()
    resource.setrlimit(resource.RLIMIT_AS, (2**50, before[1]))
    used = 2**50 - free_address_space()
    resource.setrlimit(resource.RLIMIT_AS, (used + 100 * 2**20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
    check_reader_threads.cache_clear()


def test_too_little_room_is_an_error_and_no_silence(little_room, tmp_path, monkeypatch):
    assert 0 < free_address_space() < reader_bytes()
    said = r"ulimit -v\) must leave [\d,]+ MiB for the 64 threads .*got (9\d|100)"
    with pytest.raises(ValueError, match=said):
        check_reader_threads()
    # The countdown puzzles, before their first file is opened.
    monkeypatch.setattr(pipeline, "_builder", lambda *given: _Prepared(tmp_path))
    with pytest.raises(ValueError, match="must leave"):
        pipeline.open_split(CountdownSettings(), tmp_path, "train")


def test_without_a_limit_there_is_room():
    check_reader_threads.cache_clear()
    check_reader_threads()


class _Prepared:
    """A builder of a dataset that must not be read."""

    def __init__(self, folder):
        self.data_dir = folder
        self.info = self
        self.splits = ("train",)
