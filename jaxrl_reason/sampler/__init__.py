"""Sampling responses: settings, keys, filters and the decode loop."""

from jaxrl_reason.sampler.decode import Sampler, make_sampler, sample
from jaxrl_reason.sampler.keys import sampling_keys
from jaxrl_reason.sampler.settings import Completions, SamplingSettings

__all__ = [
    "Completions",
    "Sampler",
    "SamplingSettings",
    "make_sampler",
    "sample",
    "sampling_keys",
]
