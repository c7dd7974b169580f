"""Sampling responses: settings, keys, filters, the decode loop, and slots."""

from jaxrl_reason.sampler.batch_sampler import (
    BatchSampler,
    OnTokens,
    make_batch_sampler,
)
from jaxrl_reason.sampler.next_tokens import sampling_keys
from jaxrl_reason.sampler.own_devices import OwnDevicesSampler
from jaxrl_reason.sampler.prefixes import common_prefix
from jaxrl_reason.sampler.rollout_engine import RolloutEngine
from jaxrl_reason.sampler.sample_loop import Sampler, make_sampler, sample
from jaxrl_reason.sampler.settings import (
    BatchSettings,
    Completions,
    SamplingSettings,
    TopLogprobs,
)
from jaxrl_reason.sampler.stops import StopCheck, stop_sequences, stop_strings
from jaxrl_reason.sampler.strict_sampler import StrictSampler
from jaxrl_reason.sampler.weight_placement import WeightPlacement, weight_placement

__all__ = [
    "BatchSampler",
    "BatchSettings",
    "Completions",
    "OnTokens",
    "OwnDevicesSampler",
    "RolloutEngine",
    "Sampler",
    "SamplingSettings",
    "StopCheck",
    "StrictSampler",
    "TopLogprobs",
    "WeightPlacement",
    "common_prefix",
    "make_batch_sampler",
    "make_sampler",
    "sample",
    "sampling_keys",
    "stop_sequences",
    "stop_strings",
    "weight_placement",
]
