"""One HTTP request and its answer, within a deadline and a size.

The timeout of a socket is that of one wait: a server that sends a byte before each runs
out, or interim answers without end, holds its client for ever. Here every wait gets
what is left of the time for the whole exchange, and every byte that arrives counts.
"""

import contextlib
import io
import socket
import ssl
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPSConnection
from typing import Any
from urllib.parse import SplitResult

CHUNK = 1 << 16


class AnswerTooLarge(Exception):
    """A server sends more than it may."""


def send_request(
    url: SplitResult,
    method: str,
    path: str,
    body: bytes | None,
    headers: Mapping[str, str],
    *,
    timeout_seconds: float,
    largest_answer: int,
) -> tuple[int, bytes]:
    """Sends one request on a new connection and reads the whole answer.

    Args:
      url: scheme, host and port of the server.
      method: "GET" or "POST".
      path: begins with "/".
      body: of the request.
      headers: of the request.
      timeout_seconds: from the first packet to the last byte of the answer. Only the
        system's look-up of the host's name has a deadline of its own.
      largest_answer: bytes that the server may send, headers included.

    Returns:
      The status and the body of the answer.

    Raises:
      TimeoutError: the answer is not complete in time.
      AnswerTooLarge: the answer is too large.
      OSError, http.client.HTTPException: there is no connection, or no HTTP answer.
    """
    deadline = _Deadline(timeout_seconds)
    secure = url.scheme == "https"
    port = url.port or (443 if secure else 80)
    context = ssl.create_default_context() if secure else None
    connection = (
        HTTPConnection(url.hostname or "", url.port)
        if context is None
        else HTTPSConnection(url.hostname or "", url.port, context=context)
    )
    with contextlib.ExitStack() as stack:
        wire = stack.enter_context(_dial(url.hostname or "", port, deadline))
        if context is not None:
            wire.settimeout(deadline.left())  # of the whole handshake
            wire = context.wrap_socket(wire, server_hostname=url.hostname)
            stack.enter_context(wire)
        connection.sock = _BoundedSocket(wire, deadline, largest_answer)
        connection.request(method, path, body=body, headers=dict(headers))
        with connection.getresponse() as answer:
            chunks = []
            while chunk := answer.read1(CHUNK):
                chunks.append(chunk)
            return answer.status, b"".join(chunks)


class _Deadline:
    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds that are left, above 0.

        Raises:
          TimeoutError: none are.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer was not complete in time")
        return left


def _dial(host: str, port: int, deadline: _Deadline) -> socket.socket:
    """A connection to the first address of a host that takes one."""
    error = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        wire = socket.socket(family, kind, protocol)
        try:
            wire.settimeout(deadline.left())
            wire.connect(address)
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return wire
        except OSError as failed:
            wire.close()
            error = failed
    raise error


class _BoundedSocket:
    """What http.client uses of a socket, for one exchange."""

    def __init__(self, wire: socket.socket, deadline: _Deadline, limit: int) -> None:
        self._wire, self._deadline, self._limit = wire, deadline, limit

    def sendall(self, data: Any) -> None:
        """Sends all of the data."""
        rest = memoryview(data)
        while rest:
            self._wire.settimeout(self._deadline.left())
            rest = rest[self._wire.send(rest) :]

    def makefile(self, mode: str) -> io.BufferedReader:
        """A file to read the answer from."""
        del mode  # http.client only reads
        return io.BufferedReader(
            _BoundedReader(self._wire, self._deadline, self._limit)
        )

    def close(self) -> None:
        """Nothing: http.client closes before it has read, `send_request` afterwards."""


class _BoundedReader(io.RawIOBase):
    """The bytes that a socket receives."""

    def __init__(self, wire: socket.socket, deadline: _Deadline, limit: int) -> None:
        self._wire, self._deadline = wire, deadline
        self._limit, self._received = limit, 0

    def readable(self) -> bool:
        """That it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer with what has arrived, after a wait if nothing has."""
        self._wire.settimeout(self._deadline.left())
        count = self._wire.recv_into(buffer)
        self._received += count
        if self._received > self._limit:
            raise AnswerTooLarge(f"more than {self._limit} bytes")
        return count
