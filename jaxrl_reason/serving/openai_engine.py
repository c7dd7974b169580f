"""A rollout engine for an OpenAI-style endpoint, such as vLLM's."""

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
from jaxrl_reason.sampler.rollout_engine import OnResponse
from jaxrl_reason.sampler.sample_loop import check_sampling
from jaxrl_reason.serving.completions import PATH, Response, ServerSampling
from jaxrl_reason.serving.endpoint import Endpoint, EngineError
from jaxrl_reason.serving.transport import WeightTransport
from jaxrl_reason.weights import hf_tensors


class OpenAIEngine:
    """A `RolloutEngine` that samples by HTTP.

    Each response is a separate request with a seed from its key, so that it does not
    depend on other requests, if the server's sampling does not.

    The version of a rollout is the older of those that the server reports before and
    after it, so a lagging server is not assumed to be up to date.

    Args:
      model: the policy, for names, shapes and limits of its weights.
      settings: how to draw.
      num_samples: G.
      endpoint: of the server.
      served_model: the server's name for the model.
      transport: sends the weights to the server.
      logprobs: the kind of log-probs that the server reports, see `ServerSampling`.
      version_path: a GET returns {"weight_version": "7"}. With None the server is
        assumed to have the weights that were sent last.
      connections: number of requests in flight.
      dtype: of the weights sent; None for the model's param_dtype.

    Raises:
      ValueError: settings, model, num_samples and log-probs do not fit together.
    """

    reports_responses = True

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
        """Sends the parameters to the server, unless it has them already.

        Args:
          params: of the policy, all of them in this process.
          version: the step of this policy, >= 0.

        Raises:
          EngineError: the server did not accept them. Nothing is sampled until it does.
        """
        if version < 0:
            raise ValueError(f"version must be >= 0, got {version}")
        if self._version == version and self._has(params):
            return
        self._version = None
        tensors = hf_tensors(self.model.config, params, dtype=self.dtype)
        self.transport.send(tensors, version)
        # Arrays are recognised by identity, without keeping them alive.
        self._version, self._leaf = version, weakref.ref(jax.tree.leaves(params)[0])

    def __call__(
        self,
        params: Params,
        prompt_tokens: jax.Array,
        prompt_lengths: jax.Array,
        keys: jax.Array,
        *,
        on_response: OnResponse | None = None,
    ) -> Completions:
        """Draws G responses to each of P prompts.

        Args:
          params: those sent last.
          prompt_tokens: [P, Tp] ids, right-padded.
          prompt_lengths: [P] tokens of each prompt, from 1 to Tp.
          keys: [P*G] from `sampling_keys`.
          on_response: called with each response when it is complete, from a thread.

        Returns:
          Completions of B = P*G rows as NumPy arrays, with `policy_version`.

        Raises:
          ValueError: the parameters were not sent, or a shape does not fit.
          EngineError: the server fails, or its answers are unusable.
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
        responses = self._draw(prompts, request_seeds(keys), on_response)
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
        self,
        prompts: Sequence[list[int]],
        seeds: Sequence[int],
        on_response: OnResponse | None,
    ) -> list[Response]:
        """All responses in order, or the first failure."""
        stop = threading.Event()
        failures: list[Exception] = []

        def one(row: int) -> list[Response]:
            """The response, or None once another request has failed."""
            if stop.is_set():
                return []
            prompt = prompts[row // self.num_samples]
            try:
                body = self.sampling.request(prompt, seeds[row])
                answer = self.endpoint.request("POST", PATH, body, stop=stop)
                found = self.sampling.response(answer, prompt)
                if on_response is not None:
                    on_response(row, found.tokens, found.truncated)
                return [found]
            except Exception as error:
                failures.append(error)
                # Here, so that this thread does not start the next before others are
                # told.
                stop.set()
                raise

        with ThreadPoolExecutor(self.connections) as pool:
            futures = [pool.submit(one, row) for row in range(len(seeds))]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:  # requests in flight finish their attempt
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
        if failures:
            raise failures[0]
        return [response for future in futures for response in future.result()]


def request_seeds(keys: jax.Array) -> list[int]:
    """One 31-bit seed per key, as servers accept.

    >>> from jaxrl_reason.sampler import sampling_keys
    >>> seeds = request_seeds(sampling_keys(0, 0, jnp.arange(2), 2))
    >>> len(set(seeds)), all(0 <= seed < 2**31 for seed in seeds)
    (4, True)
    """
    bits = jax.vmap(lambda key: jax.random.bits(key, dtype=jnp.uint32))(keys)
    return (np.asarray(bits) >> 1).tolist()


def gather(responses: Sequence[Response], width: int, version: int) -> Completions:
    """Completions [B, width] of single responses, all from one version."""
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
