"""JSON over HTTP with a deadline and a bounded number of attempts."""

import json
import threading
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from jaxrl_reason.serving.http_request import AnswerTooLarge, send_request

SHOWN = 200  # characters of an answer quoted in an error
BUSY = 429


class EngineError(RuntimeError):
    """A serving engine cannot be reached, refuses, or returns an unusable answer."""


class _TryAgain(Exception):
    """An error that another attempt may not have."""


@dataclass(frozen=True)
class Endpoint:
    """The address of a server, and how long to wait for it.

    After a refused or broken connection, a timeout, status 429 or a 5xx a request is
    retried, first after `backoff_seconds`, then after twice as long, and so on. The
    environment's proxies are not used and redirects are not followed.

    Attributes:
      url: http or https, without the path of an API: "http://localhost:8000".
      timeout_seconds: of one attempt, from the connection to the answer's last byte.
      tries: the largest number of attempts.
      backoff_seconds: the first pause.
      api_key: sent as a bearer token.
      largest_answer: bytes of an answer, headers included. A response of 100,000 tokens
        has 10 to 20 million.

    Raises:
      ValueError: a value breaks a rule; the message names field, rule and value.
    """

    url: str
    timeout_seconds: float = 600.0
    tries: int = 5
    backoff_seconds: float = 0.5
    api_key: str | None = field(default=None, repr=False)
    largest_answer: int = 2**25

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        web = parts.scheme in ("http", "https")
        if not web or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"url must be http(s)://host[:port], got {self.url!r}")
        if not 0 < self.timeout_seconds < float("inf"):
            raise ValueError(
                f"timeout_seconds must be above 0 and finite, "
                f"got {self.timeout_seconds}"
            )
        if self.tries < 1:
            raise ValueError(f"tries must be >= 1, got {self.tries}")
        if self.largest_answer < 1:
            raise ValueError(f"largest_answer must be >= 1, got {self.largest_answer}")
        if not 0 <= self.backoff_seconds < float("inf"):
            raise ValueError(
                f"backoff_seconds must be >= 0 and finite, got {self.backoff_seconds}"
            )

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        stop: threading.Event | None = None,
    ) -> Any:
        """Sends a request, with body and answer in JSON.

        Args:
          method: "GET" or "POST".
          path: begins with "/".
          body: a JSON value; None sends no body.
          stop: once it is set, there are no more attempts.

        Returns:
          The answer, None if it is empty.

        Raises:
          EngineError: no attempts are left, the server refuses (another 4xx), or the
          answer is too large or not JSON; the message names URL and status.
        """
        stop = stop or threading.Event()
        what = f"{method} {self.url.rstrip('/')}{path}"
        for attempt in range(1, self.tries + 1):
            try:
                return self._try(what, method, path, body)
            except _TryAgain as trouble:
                pause = self.backoff_seconds * 2 ** (attempt - 1)
                if attempt == self.tries or stop.wait(pause):
                    raise EngineError(
                        f"{what} failed {attempt} times, the last with {trouble}"
                    ) from trouble.__cause__
        raise AssertionError("unreachable")

    def _try(self, what: str, method: str, path: str, body: Any) -> Any:
        try:
            status, data = self._send(method, path, body)
        except AnswerTooLarge as error:
            raise EngineError(
                f"{what} must answer with at most {self.largest_answer} bytes, got more"
            ) from error
        except (OSError, HTTPException) as error:  # TimeoutError is an OSError
            raise _TryAgain(f"no answer ({error!r})") from error
        quoted = repr(data[:SHOWN].decode(errors="replace"))
        if status == BUSY or status >= 500:
            raise _TryAgain(f"status {status}: {quoted}")
        if not 200 <= status < 300:
            raise EngineError(f"{what} was refused with status {status}: {quoted}")
        try:
            return json.loads(data) if data.strip() else None
        except (ValueError, RecursionError) as error:
            raise EngineError(
                f"{what} must answer in JSON, got status {status}: {quoted}"
            ) from error

    def _send(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        """One request on a new connection: the status and the whole answer."""
        headers = {"Accept": "application/json", "Connection": "close"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        parts = urlsplit(self.url)
        return send_request(
            parts,
            method,
            parts.path.rstrip("/") + path,
            data,
            headers,
            timeout_seconds=self.timeout_seconds,
            largest_answer=self.largest_answer,
        )
