"""Servers that fail: busy, down, slow; and endpoints that cannot be."""

import time

import pytest

from jaxrl_reason.serving import (
    Endpoint,
    EngineError,
)
from jaxrl_reason.serving.endpoint import read_whole
from tests.serving.engine_helpers import always, choice, drawn, drawn_from, engine_at
from tests.serving.servers import served


def test_a_busy_server_is_asked_again():
    troubles = iter([(500, "oh"), (429, "slow down"), (503, b"")])

    def answer(method, path, body):
        return next(troubles, (200, choice()))

    assert drawn_from(answer).lengths.tolist() == [2] * 4


def test_tries_end_with_url_and_status():
    asked = []

    def answer(method, path, body):
        asked.append(body["seed"])
        return 500, {"error": "out of memory"}

    message = r"POST http://127.*/v1/completions failed 3 times.*500.*out of memory"
    with pytest.raises(EngineError, match=message):
        drawn_from(answer, connections=1)
    # The others are not even begun.
    assert len(asked) <= 6


@pytest.mark.fast
def test_a_refusal_is_final():
    asked = []

    def answer(method, path, body):
        asked.append(path)
        return 404, {"error": "no such model"}

    with pytest.raises(EngineError, match=r"refused with status 404.*no such model"):
        drawn_from(answer, connections=1)
    assert len(asked) == 1


def test_a_server_that_is_down():
    with served(always(choice())) as url:
        pass
    with pytest.raises(EngineError, match=r"failed 3 times.*ConnectionRefused"):
        drawn(engine_at(url))


def test_a_server_that_hangs_up():
    with pytest.raises(EngineError, match=r"failed 3 times.*RemoteDisconnected"):
        drawn_from(always(b"", status=0))


def test_a_slow_server_times_out():
    def answer(method, path, body):
        time.sleep(0.4)
        return 200, choice()

    with served(answer) as url:
        endpoint = Endpoint(url, timeout_seconds=0.1, tries=2, backoff_seconds=0.0)
        start = time.monotonic()
        with pytest.raises(EngineError, match=r"failed 2 times.*[Tt]ime"):
            endpoint.request("POST", "/v1/completions", {})
        assert time.monotonic() - start < 2


def test_a_server_that_drips_does_not_hold_us():
    class Dripping:
        def read1(self, size):
            time.sleep(0.02)
            return b"x"

    with pytest.raises(TimeoutError, match="not complete in time"):
        read_whole(Dripping(), time.monotonic() + 0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "localhost:8000"}, "url must be"),
        ({"url": "ftp://host"}, "url must be"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"tries": 0}, "tries must be >= 1, got 0"),
        ({"backoff_seconds": -1}, "backoff_seconds"),
    ],
)
def test_an_endpoint_is_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        Endpoint(**({"url": "http://host:1"} | settings))


def test_a_key_travels_in_the_header_and_not_in_the_text():
    headers = []
    with served(always({}), headers) as url:
        endpoint = Endpoint(f"{url}/prefix", api_key="secret")
        assert endpoint.request("POST", "/x", {"a": 1}) == {}
    assert headers[0]["Authorization"] == "Bearer secret"
    assert "secret" not in repr(endpoint)
