"""Rollouts from serving engines: an HTTP adapter and a weight transport."""

from jaxrl_reason.serving.completions import ServerSampling
from jaxrl_reason.serving.endpoint import Endpoint, EngineError
from jaxrl_reason.serving.openai_engine import OpenAIEngine
from jaxrl_reason.serving.transport import (
    FolderTransport,
    WeightTransport,
    vllm_requests,
)

__all__ = [
    "Endpoint",
    "EngineError",
    "FolderTransport",
    "OpenAIEngine",
    "ServerSampling",
    "WeightTransport",
    "vllm_requests",
]
