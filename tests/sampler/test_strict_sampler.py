"""Strict log-probs: the same bits in batches of any size and order, drawn or given."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.rl.iteration import rl_iteration
from jaxrl_reason.rl.rl_learner import build_rl_learner
from jaxrl_reason.rl.rl_settings import RLSettings
from jaxrl_reason.runs.metrics_log import PhaseTimer
from jaxrl_reason.sampler import StrictSampler, make_sampler, sampling_keys
from tests.models.numpy_transformer import TINY, build, tokens_of
from tests.rl.helpers import (
    OPTIMIZER,
    SETTINGS,
    LuckyTask,
    first_policy,
    one_device,
    tiny_model,
    toy_dapo,
    toy_state,
)
from tests.rl.loop_helpers import stream
from tests.sampler.small import SETTINGS as SAMPLING
from tests.sampler.small import WIDTH, check_same

COUNT = 64
TOKENS = np.asarray(tokens_of(COUNT, WIDTH))
LENGTHS = np.random.default_rng(0).integers(1, WIDTH + 1, COUNT)
KEYS = sampling_keys(0, 1, jnp.arange(COUNT), 1)


@pytest.fixture(scope="module")
def strict():
    """The sampler, its parameters, and 64 responses of one batch."""
    model, params = build(TINY)
    sampler = StrictSampler(model, SAMPLING, 1)
    return sampler, params, sampler(params, TOKENS, LENGTHS, KEYS)


@pytest.mark.parametrize("size", [1, 3, 8, 24])
def test_a_batch_of_any_size_and_order_gives_the_same_bits(strict, size):
    sampler, params, wanted = strict
    order = np.random.default_rng(size).permutation(COUNT)[:size]
    got = sampler(params, TOKENS[order], LENGTHS[order], KEYS[order])
    for name in ("tokens", "logprobs", "lengths", "truncated"):
        np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name)[order])


def test_it_draws_what_the_plain_sampler_draws(strict):
    _, params, wanted = strict
    plain = make_sampler(build(TINY)[0], SAMPLING, 1)
    check_same(plain(params, TOKENS, LENGTHS, KEYS), wanted)


@pytest.mark.parametrize("size", [1, 5, 64])
def test_given_tokens_get_the_bits_of_drawn_ones(strict, size):
    sampler, params, wanted = strict
    order = np.random.default_rng(size).permutation(COUNT)[:size]
    scores = sampler.score(
        params,
        TOKENS[order],
        LENGTHS[order],
        wanted.tokens[order],
        wanted.lengths[order],
    )
    np.testing.assert_array_equal(scores, wanted.logprobs[order])


def test_the_trainer_s_log_probs_are_the_sampler_s():
    settings = dataclasses.replace(SETTINGS, old_logprobs="strict")
    learner = build_rl_learner(
        tiny_model(), LuckyTask(), toy_dapo(), settings, OPTIMIZER, one_device()
    )
    state, problems, timer = toy_state(learner), stream(), PhaseTimer()
    for _ in range(2):
        state, row, collected = rl_iteration(learner, state, problems, timer)
        assert row["sampler/logprob_diff_max"] == 0.0
        assert row["sampler/kl_k3"] == 0.0
    fresh = collected.fresh
    trained = learner.sample.score(
        first_policy().params,
        fresh.prompt_tokens,
        fresh.prompt_lengths,
        fresh.tokens.reshape(-1, settings.max_new_tokens),
        fresh.lengths.reshape(-1),
    )
    # Another policy, other numbers: it is computed and not copied.
    assert np.abs(trained - fresh.sampler_logprobs.reshape(trained.shape)).max() > 1e-4


@pytest.mark.fast
def test_what_cannot_be_strict_is_refused():
    with pytest.raises(ValueError, match="in one piece, got partial_tokens 4"):
        RLSettings(old_logprobs="strict", partial_tokens=4)
    with pytest.raises(ValueError, match="rows must be >= 1, got 0"):
        StrictSampler(tiny_model(), SAMPLING, 1, rows=0)
    settings = dataclasses.replace(SETTINGS, old_logprobs="strict")
    with pytest.raises(ValueError, match="a sampler of its own, got function"):
        build_rl_learner(
            tiny_model(),
            LuckyTask(),
            toy_dapo(),
            settings,
            OPTIMIZER,
            one_device(),
            sample=lambda *given: None,
        )


def test_it_is_for_one_device(eight_devices_run):
    found = eight_devices_run("""
        import json
        from jaxrl_reason.models import Transformer
        from jaxrl_reason.sampler import SamplingSettings, StrictSampler
        from jaxrl_reason.sharding import Constrainer, ShardingRules, make_mesh
        from tests.rl.helpers import CONFIG

        model = Transformer(CONFIG, Constrainer(make_mesh(data=8), ShardingRules()))
        try:
            StrictSampler(model, SamplingSettings(4, (1,)), 1)
        except ValueError as error:
            print(json.dumps(str(error)))
    """)
    assert found == ("strict log-probs need a model on one device (mesh data=1), got 8")
