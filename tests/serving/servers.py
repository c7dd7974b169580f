"""Servers that run inside the test: a scripted one, and one with a policy."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_reason.serving.openai_engine import request_seeds
from jaxrl_reason.weights.loading import load_params
from jaxrl_reason.weights.safetensors_folder import SafetensorsFolder
from tests.rl.helpers import (
    SETTINGS,
    first_policy,
    one_device,
    shared_pieces,
    tiny_model,
)

# (method, path, body) -> (status, answer): bytes as they are, all else as JSON;
# status 0 hangs up
Answer = Callable[[str, str, Any], tuple[int, Any]]


@contextlib.contextmanager
def served(
    answer: Answer, headers: list[dict[str, str]] | None = None
) -> Iterator[str]:
    """Serves a function on a free port; the URL. Keeps the headers it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            if headers is not None:
                headers.append(dict(self.headers))
            status, said = answer(self.command, self.path, body)
            if not status:
                return
            data = said if isinstance(said, bytes) else json.dumps(said).encode()
            with contextlib.suppress(OSError):  # the client may have given up
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        do_GET = do_POST = handle_any

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class PolicyServer:
    """What a vLLM server does for the adapter, with the tiny model of the tests.

    It draws with our sampler under the key that a seed belongs to, so with the right
    weights it gives the very tokens of a run without a server. With `lag` it serves
    the weights of that many hand-overs ago, as one that reads them in the background.
    """

    def __init__(self, lag: int = 0) -> None:
        self.lag = lag
        self.folders: list[str] = []
        self.versions: list[int] = []
        self.loaded: list[Any] = []
        self.paths: list[str] = []
        self.keys: dict[int, jax.Array] = {}
        self.lock = threading.Lock()

    def learn(self, keys: jax.Array) -> None:
        """Remembers which key a seed was made of."""
        self.keys |= dict(zip(request_seeds(keys), keys, strict=True))

    def __call__(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        with self.lock:
            self.paths.append(path)
            if path == "/v1/completions":
                return 200, self.complete(body)
            if path == "/collective_rpc":
                assert body["method"] == "reload_weights"
                folder = body["kwargs"]["weights_path"]
                self.folders.append(folder)
                self.loaded.append(read_weights(folder))
                return 200, {"results": [None]}
            if path == "/reset_prefix_cache":
                return 200, b""
            if path == "/update_weight_version":
                self.versions.append(int(body["new_version"]))
                return 200, {"success": True}
            assert (method, path) == ("GET", "/weight_info")
            return 200, {"weight_version": str(self.versions[self.now])}

    @property
    def now(self) -> int:
        """Which hand-over's weights are served."""
        return max(0, len(self.loaded) - 1 - self.lag)

    def complete(self, body: Any) -> Any:
        """One response, drawn by the sampler that the training tests compile."""
        prompt, rows = body["prompt"], SETTINGS.prompts_per_step
        tokens = np.zeros((rows, SETTINGS.prompt_width), np.int32)
        tokens[:, : len(prompt)] = prompt
        keys = jax.numpy.stack([self.keys[body["seed"]]] * SETTINGS.sequences)
        inputs = (tokens, np.full(rows, len(prompt), np.int32), keys)
        sample = shared_pieces(SETTINGS.temperature).sample
        done = sample(self.loaded[self.now], *one_device().put_batch(inputs))
        done = jax.device_get(done)
        size = int(done.lengths[0])
        return {
            "choices": [
                {
                    "index": 0,
                    "text": "never looked at",
                    "token_ids": done.tokens[0, :size].tolist(),
                    "prompt_token_ids": prompt,
                    "logprobs": {
                        "token_logprobs": done.logprobs[0, :size].tolist(),
                    },
                    "finish_reason": "length" if done.truncated[0] else "stop",
                }
            ]
        }


def read_weights(folder: str) -> Any:
    """Parameters out of a folder of safetensors, placed as those of the tests."""
    shardings = jax.tree.map(lambda x: x.sharding, first_policy().params)
    with contextlib.closing(SafetensorsFolder(Path(folder))) as source:
        return load_params(source, tiny_model(), shardings)
