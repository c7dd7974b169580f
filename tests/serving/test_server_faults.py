"""Servers that fail: busy, down, slow; and endpoints that cannot be."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from jaxrl_reason.serving import (
    Endpoint,
    EngineError,
)
from tests.serving.engine_helpers import always, choice, drawn, drawn_from, engine_at
from tests.serving.servers import served


def test_a_busy_server_is_asked_again():
    troubles = iter([(500, "oh"), (429, "slow down"), (503, b"")])
    asked = set()

    def answer(method, path, body):
        # One trouble each: a request that gets all three has no try left.
        first = body["seed"] not in asked
        asked.add(body["seed"])
        return next(troubles, (200, choice())) if first else (200, choice())

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


OK = b"HTTP/1.1 200 OK\r\n"
# What a server sends: once, then again and again.
HOLDING = {
    "silent": (b"", b""),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a status line byte by byte": (b"HTTP/1.1 2", b"0"),
    "a header byte by byte": (OK + b"X: ", b"a"),
    "a body byte by byte": (OK + b"Content-Length: 1000000\r\n\r\n", b" "),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "trailers": (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: a\r\n"),
}


@contextlib.contextmanager
def sending(first: bytes, then: bytes, pause: float = 0.01) -> Iterator[str]:
    """A server that takes one request after another and sends these bytes; its URL."""
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.sendall(first)
            while not over.wait(pause):
                connection.sendall(then)

    def accept() -> None:
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                threads.append(
                    threading.Thread(target=serve, args=listener.accept()[:1])
                )
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.02)
        threads = [threading.Thread(target=accept)]
        threads[0].start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            for thread in threads:
                thread.join()


@pytest.mark.parametrize("kind", HOLDING)
def test_no_server_holds_us_past_the_deadline(kind):
    with sending(*HOLDING[kind]) as url:
        endpoint = Endpoint(url, timeout_seconds=0.2, tries=1)
        start = time.monotonic()
        with pytest.raises(EngineError, match=r"failed 1 times.*[Tt]ime"):
            endpoint.request("POST", "/x", {})
        assert 0.1 < time.monotonic() - start < 1


def test_a_handshake_ends_at_the_deadline():
    with sending(b"", b"") as url:
        endpoint = Endpoint(url.replace("http", "https"), timeout_seconds=0.2, tries=1)
        start = time.monotonic()
        with pytest.raises(EngineError, match=r"failed 1 times.*[Tt]imed? ?out"):
            endpoint.request("GET", "/x")
        assert time.monotonic() - start < 1


def test_a_request_that_nobody_reads_ends_at_the_deadline():
    with sending(b"", b"") as url:
        endpoint = Endpoint(url, timeout_seconds=0.3, tries=1)
        start = time.monotonic()
        with pytest.raises(EngineError, match=r"failed 1 times.*[Tt]ime"):
            endpoint.request("POST", "/x", "x" * 2**25)
        assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (OK + b"Content-Length: 1000000000000\r\n\r\n", b" " * 2**16),
        (OK + b"\r\n", b" " * 2**16),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2**11),
    ],
)
def test_an_answer_has_a_largest_size(first, then):
    with sending(first, then, pause=0.0) as url:
        endpoint = Endpoint(url, timeout_seconds=20, tries=3, largest_answer=2**20)
        start = time.monotonic()
        with pytest.raises(EngineError, match=r"GET http.*/x must answer .* 1048576 b"):
            endpoint.request("GET", "/x")
        assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "localhost:8000"}, "url must be"),
        ({"url": "ftp://host"}, "url must be"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"largest_answer": 0}, "largest_answer must be >= 1, got 0"),
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
