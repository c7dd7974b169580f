"""An engine, its server's answers, and rollouts drawn from it."""

import jax
import numpy as np

from jaxrl_reason.sampler import SamplingSettings, sampling_keys
from jaxrl_reason.serving import (
    Endpoint,
    OpenAIEngine,
)
from tests.rl.helpers import ENDS, first_policy, tiny_model
from tests.serving.servers import served

SAMPLING = SamplingSettings(4, ENDS)
PROMPTS = np.array([[3, 0], [4, 5]], np.int32)
LENGTHS = np.array([1, 2], np.int32)
KEYS = sampling_keys(0, 0, jax.numpy.arange(2), 2)


class Nowhere:
    """A transport that only counts."""

    def __init__(self):
        self.sent = []

    def send(self, tensors, version):
        self.sent.append((version, dict(tensors)))


def choice(**changes):
    said = {
        "token_ids": [7, 1],
        "logprobs": {"token_logprobs": [-0.5, -0.25]},
        "finish_reason": "stop",
    }
    said |= changes
    return {"choices": [{k: v for k, v in said.items() if v is not None}]}


def engine_at(url, transport=None, *, settings=SAMPLING, tries=3, **options):
    endpoint = Endpoint(url, timeout_seconds=5.0, tries=tries, backoff_seconds=0.001)
    options = {"version_path": None, "connections": 2} | options
    return OpenAIEngine(
        tiny_model(),
        settings,
        2,
        endpoint=endpoint,
        served_model="tiny",
        transport=transport or Nowhere(),
        **options,
    )


def drawn(engine):
    params = first_policy().params
    engine.update_weights(params, 3)
    return engine(params, PROMPTS, LENGTHS, KEYS)


def drawn_from(answer, **options):
    with served(answer) as url:
        return drawn(engine_at(url, **options))


def always(said, status=200):
    return lambda method, path, body: (status, said)
