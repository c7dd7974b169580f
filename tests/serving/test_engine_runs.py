"""RL steps with a serving engine: the same run if it is exact, corrected if it lags."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxrl_reason.rl.iteration import rl_iteration
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.rollout_correction import with_importance_weights
from jaxrl_reason.runs.metrics_log import PhaseTimer
from jaxrl_reason.sampler import RolloutEngine, SamplingSettings, sampling_keys
from jaxrl_reason.serving import Endpoint, FolderTransport, OpenAIEngine
from tests.rl.helpers import (
    ENDS,
    SETTINGS,
    EndlessProblems,
    FollowedUpdate,
    copied,
    one_device,
    same_trees,
    tiny_model,
    toy_learner,
    toy_state,
)
from tests.serving.servers import PolicyServer, served

STEPS = 3
CAP = 2.0
SAMPLING = SamplingSettings(SETTINGS.max_new_tokens, ENDS)


class KnownSeeds(OpenAIEngine):
    """The adapter, but the server is told which key each seed is made of."""

    server: PolicyServer

    def __call__(self, params, prompt_tokens, prompt_lengths, keys, **more):
        self.server.learn(keys)
        return super().__call__(params, prompt_tokens, prompt_lengths, keys, **more)


@dataclasses.dataclass
class Run:
    rows: list
    collected: list
    starts: list  # parameters at the start of each step
    end: object
    weights: list  # (old, sampler, mask) and the weights of each step
    update: FollowedUpdate
    server: PolicyServer | None = None
    kept: list = dataclasses.field(default_factory=list)


@pytest.fixture(scope="module")
def learner():
    return toy_learner(with_importance_weights(grpo(kl_coef=0)))


def run_with(learner, sample=None, leader=None):
    """Steps of one policy, with what the correction was computed from.

    With a leader, every update starts from the state that the leader's had.
    """
    (correction,) = learner.components
    weighed, weigh = [], correction.weights

    def weights(*args):
        found = weigh(*args)
        weighed.append((*map(np.asarray, args), np.asarray(found)))
        return found

    update = FollowedUpdate(learner.update, leader)
    learner = dataclasses.replace(
        learner,
        sample=sample or learner.sample,
        components=(dataclasses.replace(correction, weights=weights),),
        update=update,
    )
    state, stream = toy_state(learner), EndlessProblems(SETTINGS.prompts_per_step)
    rows, collected, starts = [], [], []
    for _ in range(STEPS):
        timer = PhaseTimer()
        starts.append(copied(state.policy.params))
        state, row, found = rl_iteration(learner, state, stream, timer)
        rows.append(row | timer.take())
        collected.append(found.rollouts)
    end = copied(state.policy.params)
    return Run(rows, collected, starts, end, weighed, update)


def served_run(learner, folder, leader=None, **options):
    server = PolicyServer(lag=options.pop("lag", 0))
    with served(server) as url:
        endpoint = Endpoint(url, timeout_seconds=60.0, tries=1)
        engine = KnownSeeds(
            tiny_model(),
            SAMPLING,
            SETTINGS.group_size,
            endpoint=endpoint,
            served_model="tiny",
            transport=FolderTransport(endpoint, folder),
            connections=4,
            **options,
        )
        engine.server = server
        run = run_with(learner, engine, leader)
    run.server, run.kept = server, sorted(path.name for path in folder.iterdir())
    return run


@pytest.fixture(scope="module")
def own(learner):
    return run_with(learner)


@pytest.fixture(scope="module")
def exact(learner, own, tmp_path_factory):
    return served_run(learner, tmp_path_factory.mktemp("exact"), own.update)


@pytest.fixture(scope="module")
def late(learner, tmp_path_factory):
    return served_run(learner, tmp_path_factory.mktemp("late"), lag=1)


def test_an_exact_server_gives_the_run_of_our_own_sampler(own, exact):
    for one, other in zip(own.collected, exact.collected, strict=True):
        assert np.array_equal(one.tokens, other.tokens)
        assert np.array_equal(one.lengths, other.lengths)
        assert np.array_equal(one.truncated, other.truncated)
        assert np.array_equal(one.policy_step, other.policy_step)
        np.testing.assert_allclose(
            one.sampler_logprobs, other.sampler_logprobs, atol=1e-6
        )
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), own.starts[0], own.end)
    assert min(jax.tree.leaves(moved)) > 1e-3
    assert exact.update.gradient_error() < 1e-5
    for one, other in zip(own.update.metrics, exact.update.metrics, strict=True):
        assert other == pytest.approx(one, rel=1e-5, abs=1e-5)


def test_the_weights_move_to_the_server_every_step(exact):
    assert exact.server.versions == [0, 1, 2]
    for loaded, params in zip(exact.server.loaded, exact.starts, strict=True):
        assert same_trees(copied(loaded), params)
    assert exact.kept == ["version-00000001", "version-00000002"]
    order = [path for path in exact.server.paths if path != "/v1/completions"][:5]
    assert order == [
        "/collective_rpc",
        "/reset_prefix_cache",
        "/update_weight_version",
        "/weight_info",
        "/weight_info",
    ]
    assert all(row["time/weight_sync_s"] > 0 for row in exact.rows)


def test_versions_and_mismatch_of_an_exact_server(own, exact):
    for step, (row, found) in enumerate(zip(exact.rows, exact.collected, strict=True)):
        assert found.policy_step.tolist() == [step] * SETTINGS.prompts_per_step
        assert row["rollout/policy_lag"] == 0
        assert row["sampler/logprob_diff_max"] < 1e-5
    assert "time/weight_sync_s" not in own.rows[0]


def test_a_late_server_is_believed_and_corrected(late):
    # It answers with the policy of the step before, from the second step on.
    steps = [set(found.policy_step.tolist()) for found in late.collected]
    assert steps == [{0}, {0}, {1}]
    assert [row["rollout/policy_lag"] for row in late.rows] == [0, 1, 1]
    # Sampler and trainer have the same parameters in the first step only.
    assert ["sampler/logprob_diff_max" in row for row in late.rows] == [
        True,
        False,
        False,
    ]
    for step, (old, sampler, mask, weights) in enumerate(late.weights):
        expected = np.minimum(np.exp(old - sampler), CAP) * mask
        np.testing.assert_allclose(weights, expected, rtol=1e-5)
        away = np.abs(weights[mask] - 1).max()
        assert away < 1e-4 if step == 0 else away > 0.05


def test_the_late_servers_log_probs_are_those_of_the_policy_it_names(learner, late):
    found, batch_sharding = late.collected[1], one_device()
    ids = jax.numpy.asarray(found.problem_ids, jax.numpy.uint32)
    keys = sampling_keys(SETTINGS.seed, 1, ids, SETTINGS.group_size)
    inputs = batch_sharding.put_batch((found.prompt_tokens, found.prompt_lengths, keys))
    done = jax.device_get(learner.sample(late.server.loaded[0], *inputs))
    assert np.array_equal(done.tokens.reshape(found.tokens.shape), found.tokens)
    np.testing.assert_allclose(
        done.logprobs.reshape(found.tokens.shape), found.sampler_logprobs, atol=1e-6
    )


def test_a_late_server_that_is_not_asked_passes_for_fresh(learner, tmp_path):
    # The mutant: versions assumed. The mismatch metrics are what is left to see it.
    run = served_run(learner, tmp_path, lag=1, version_path=None)
    assert [row["rollout/policy_lag"] for row in run.rows] == [0, 0, 0]
    assert run.rows[0]["sampler/logprob_diff_max"] < 1e-5
    assert run.rows[1]["sampler/logprob_diff_max"] > 0.05


def test_samplers_and_engines_are_told_apart(learner):
    assert not isinstance(learner.sample, RolloutEngine)
    assert issubclass(OpenAIEngine, RolloutEngine)
