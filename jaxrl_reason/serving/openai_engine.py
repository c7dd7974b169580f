"""A rollout engine behind an OpenAI-style endpoint, as vLLM serves it."""

import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.models import Params, Transformer
from jaxrl_reason.sampler import Completions, SamplingSettings
from jaxrl_reason.sampler.sample_loop import check_sampling
from jaxrl_reason.serving.completions import PATH, Response, ServerSampling
from jaxrl_reason.serving.endpoint import Endpoint, EngineError
from jaxrl_reason.serving.transport import WeightTransport
from jaxrl_reason.weights import hf_tensors


class OpenAIEngine:
    """Draws rollouts by HTTP; a `RolloutEngine`.

    Each response is a separate request with a seed from its key, so that a draw does
    not depend on other requests, if the server's draws do not.

    The version of a rollout is the older of those that the server reports before and
    after it, so a server that lags is not assumed to be up to date.

    Args:
      model: the policy, for names, shapes and limits of its weights.
      settings: how to draw.
      num_samples: G.
      endpoint: of the server.
      served_model: the name the server serves the model under.
      transport: sends the weights there.
      logprobs: which log-probs the server reports, see `ServerSampling`.
      version_path: GET answers {"weight_version": "7"}. With None the server is
        assumed to have the weights that were sent last.
      connections: requests in flight.
      dtype: of the weights sent; None is the model's param_dtype.

    Raises:
      ValueError: settings, model, num_samples and log-probs do not fit together.
    """

    def __init__(
        self,
        model: Transformer,
        settings: SamplingSettings,
        num_samples: int,
        *,
        endpoint: Endpoint,
        served_model: str,
        transport: WeightTransport,
        logprobs: str = "raw",
        version_path: str | None = "/weight_info",
        connections: int = 64,
        dtype: str | None = None,
    ) -> None:
        check_sampling(model, settings, num_samples)
        if connections < 1:
            raise ValueError(f"connections must be >= 1, got {connections}")
        self.model, self.settings, self.num_samples = model, settings, num_samples
        self.endpoint, self.transport = endpoint, transport
        self.version_path, self.connections = version_path, connections
        self.dtype = dtype
        self.sampling = ServerSampling(
            served_model, settings, model.config.vocab_size, logprobs
        )
        self._version: int | None = None
        self._leaf: weakref.ref[Any] | None = None

    def update_weights(self, params: Params, version: int) -> None:
        """Send the parameters to the server, unless it has them already.

        Args:
          params: of the policy, whole in this process.
          version: the step whose policy it is, >= 0.

        Raises:
          EngineError: the server did not take them. Nothing is drawn until it does.
        """
        if version < 0:
            raise ValueError(f"version must be >= 0, got {version}")
        if self._version == version and self._has(params):
            return
        self._version = None
        tensors = hf_tensors(self.model.config, params, dtype=self.dtype)
        self.transport.send(tensors, version)
        # An array is known again by what it is; nothing is kept alive for that.
        self._version, self._leaf = version, weakref.ref(jax.tree.leaves(params)[0])

    def __call__(
        self,
        params: Params,
        prompt_tokens: jax.Array,
        prompt_lengths: jax.Array,
        keys: jax.Array,
    ) -> Completions:
        """Draw G responses to each of P prompts.

        Args:
          params: those sent last.
          prompt_tokens: [P, Tp] ids, right-padded.
          prompt_lengths: [P] tokens of each prompt, from 1 to Tp.
          keys: [P*G] from `sampling_keys`.

        Returns:
          Completions of B = P*G rows as NumPy arrays, with `policy_version`.

        Raises:
          ValueError: the parameters were not sent, or a shape does not fit.
          EngineError: the server fails, or its answers are not to be used.
        """
        if self._version is None or not self._has(params):
            raise ValueError("params must be those sent last, got others")
        prompts = self._prompts(prompt_tokens, prompt_lengths)
        rows = len(prompts) * self.num_samples
        if keys.shape != (rows,):
            raise ValueError(
                f"keys must be one per response, ({rows},), got {keys.shape}"
            )
        before = self._served_version(self._version)
        responses = self._draw(prompts, request_seeds(keys))
        after = self._served_version(self._version)
        return gather(responses, self.settings.max_new_tokens, min(before, after))

    def _has(self, params: Params) -> bool:
        return self._leaf is not None and self._leaf() is jax.tree.leaves(params)[0]

    def _prompts(self, tokens: Any, lengths: Any) -> list[list[int]]:
        tokens, lengths = np.asarray(tokens), np.asarray(lengths)
        width = tokens.shape[1]
        check_sampling(self.model, self.settings, self.num_samples, prompt_width=width)
        if lengths.min(initial=1) < 1 or lengths.max(initial=1) > width:
            raise ValueError(f"prompt_lengths must be from 1 to {width}, got {lengths}")
        return [row[:n].tolist() for row, n in zip(tokens, lengths, strict=True)]

    def _served_version(self, sent: int) -> int:
        if self.version_path is None:
            return sent
        answer = self.endpoint.request("GET", self.version_path)
        said = answer.get("weight_version") if isinstance(answer, dict) else None
        text = str(said)
        if not text.isdecimal() or int(text) > sent:
            raise EngineError(
                f"GET {self.endpoint.url}{self.version_path} must report a "
                f"weight_version that was sent (up to {sent}), "
                f"got {said!r}"
            )
        return int(text)

    def _draw(
        self, prompts: Sequence[list[int]], seeds: Sequence[int]
    ) -> list[Response]:
        """All responses in their order, or the first failure."""
        stop = threading.Event()
        failures: list[Exception] = []

        def one(row: int) -> list[Response]:
            """The response, or nothing once another request has failed."""
            if stop.is_set():
                return []
            prompt = prompts[row // self.num_samples]
            try:
                body = self.sampling.request(prompt, seeds[row])
                answer = self.endpoint.request("POST", PATH, body, stop=stop)
                return [self.sampling.response(answer, prompt)]
            except Exception as error:
                failures.append(error)
                # Here, or this thread would begin the next before others hear of it.
                stop.set()
                raise

        with ThreadPoolExecutor(self.connections) as pool:
            futures = [pool.submit(one, row) for row in range(len(seeds))]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:  # those under way end their try, no more
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
        if failures:
            raise failures[0]
        return [response for future in futures for response in future.result()]


def request_seeds(keys: jax.Array) -> list[int]:
    """One seed per key, of the 31 bits that servers take.

    >>> from jaxrl_reason.sampler import sampling_keys
    >>> seeds = request_seeds(sampling_keys(0, 0, jnp.arange(2), 2))
    >>> len(set(seeds)), all(0 <= seed < 2**31 for seed in seeds)
    (4, True)
    """
    bits = jax.vmap(lambda key: jax.random.bits(key, dtype=jnp.uint32))(keys)
    return (np.asarray(bits) >> 1).tolist()


def gather(responses: Sequence[Response], width: int, version: int) -> Completions:
    """Completions [B, width] of single responses, all drawn with one version."""
    rows = len(responses)
    arrays: dict[str, Any] = {
        "tokens": np.zeros((rows, width), np.int32),
        "logprobs": np.zeros((rows, width), np.float32),
        "lengths": np.array([len(r.tokens) for r in responses], np.int32),
        "truncated": np.array([r.truncated for r in responses], bool),
        "policy_version": np.full(rows, version, np.int32),
    }
    for row, response in enumerate(responses):
        arrays["tokens"][row, : len(response.tokens)] = response.tokens
        arrays["logprobs"][row, : len(response.tokens)] = response.logprobs
    return Completions(**arrays)
