"""A sampler on devices of its own: the same run, while the others train."""

import numpy as np
import pytest

from jaxrl_reason.models import param_axes
from jaxrl_reason.sampler import OwnDevicesSampler, RolloutEngine, sampling_keys
from tests.rl.helpers import (
    SETTINGS,
    copied,
    first_policy,
    one_device,
    shared_pieces,
    tiny_model,
)

SCRIPT = """
    import dataclasses
    import json
    import tempfile
    from pathlib import Path

    import jax

    from jaxrl_reason.learner.state import init_state
    from jaxrl_reason.models import Transformer, param_axes
    from jaxrl_reason.rl.rl_learner import build_rl_learner, init_rl_state
    from jaxrl_reason.rl.rl_loop import train_rl
    from jaxrl_reason.rl.rollouts_ahead import overlaps
    from jaxrl_reason.runs.metrics_log import read_metrics
    from jaxrl_reason.sampler import OwnDevicesSampler, SamplingSettings, make_sampler
    from jaxrl_reason.sharding import BatchSharding, ShardingRules, make_mesh
    from jaxrl_reason.train.devices import build_sampler_mesh
    from tests.rl import helpers, loop_helpers

    RULES, DEVICES = ShardingRules(), jax.devices()
    SETTINGS = dataclasses.replace(helpers.SETTINGS, steps=3, async_level=1)

    def model_on(mesh):
        return Transformer(helpers.CONFIG, constrain=RULES.constrainer(mesh))

    def sampler_on(mesh):
        sampling = SamplingSettings(SETTINGS.max_new_tokens, helpers.ENDS)
        sample = make_sampler(model_on(mesh), sampling, SETTINGS.group_size)
        axes = param_axes(model_on(mesh))
        return OwnDevicesSampler(sample, axes, BatchSharding(mesh, RULES))

    def run(mesh, sample=None):
        training = BatchSharding(mesh, RULES)
        learner = build_rl_learner(
            model_on(mesh), helpers.LuckyTask(), helpers.toy_dapo(), SETTINGS,
            helpers.OPTIMIZER, training, sample=sample,
        )
        params = helpers.random_params(training)
        policy = init_state(params, helpers.OPTIMIZER.build())
        with tempfile.TemporaryDirectory() as path:
            hooks = loop_helpers.hooks(Path(path))
            with hooks.log:
                last = train_rl(
                    learner,
                    init_rl_state(learner, policy),
                    loop_helpers.stream(),
                    hooks,
                )
            rows = read_metrics(Path(path) / "metrics.jsonl")
        return helpers.copied(last.policy), rows, overlaps(learner)

    one = make_mesh(devices=DEVICES[:1])
    alone, rows, _ = run(one)
    another = sampler_on(make_mesh(devices=DEVICES[5:6]))
    beside, rows_beside, overlapped = run(one, another)
    split = make_mesh(fsdp=2, devices=DEVICES[:2])
    drawing = sampler_on(build_sampler_mesh("data=2,tensor=2", split))
    _, rows_split, _ = run(split, drawing)
    timeless = loop_helpers.timeless
    try:
        refused = build_sampler_mesh("tensor=8", split)
    except ValueError as error:
        refused = str(error)
    print(json.dumps({
        "same_bits": helpers.same_trees(alone, beside),
        "same_rows": timeless(rows) == timeless(rows_beside),
        "overlapped": overlapped,
        "synced": ["time/weight_sync_s" in row for row in rows_beside],
        "lag": [row["rollout/policy_lag"] for row in rows_split],
        "diff": max(row["sampler/logprob_diff_mean"] for row in rows_split[:1]),
        "devices": sorted(
            d.id for d in drawing.batch_sharding.mesh.devices.flat
        ),
        "refused": refused,
    }))
"""


@pytest.fixture(scope="module")
def found(eight_devices_run):
    return eight_devices_run(SCRIPT)


def test_a_run_is_the_same_to_the_bit_wherever_the_sampler_is(found):
    assert found["same_bits"]
    assert found["same_rows"]


def test_drawing_overlaps_with_training_and_the_copy_is_timed(found):
    assert found["overlapped"]
    assert all(found["synced"])


def test_a_mesh_of_several_devices_draws_for_another(found):
    assert found["devices"] == [2, 3, 4, 5]
    assert found["lag"][0] == 0.0
    assert all(lag >= 1.0 for lag in found["lag"][1:])
    # The first batch is of the policy that is trained: rounding only.
    assert found["diff"] < 1e-5


def test_too_few_devices_are_refused(found):
    assert found["refused"] == (
        "sampler.mesh tensor=8 needs 8 devices beside the 2 of mesh, got 6"
    )


@pytest.mark.fast
def test_it_draws_with_the_parameters_of_its_last_update():
    plain, params = shared_pieces(1.0).sample, first_policy().params
    own = OwnDevicesSampler(plain, param_axes(tiny_model()), one_device())
    assert isinstance(own, RolloutEngine)
    keys = sampling_keys(0, 0, np.arange(2), SETTINGS.group_size)
    inputs = (np.full((2, 3), 4, np.int32), np.array([3, 2], np.int32), keys)
    own.update_weights(params, 3)
    drawn = own(None, *inputs)
    np.testing.assert_array_equal(drawn.tokens, plain(params, *inputs).tokens)
    assert drawn.policy_version.tolist() == [3] * len(keys)
    other = {**params, "embedding": -params["embedding"]}
    own.update_weights(other, 3)  # the version that it has
    np.testing.assert_array_equal(own(None, *inputs).tokens, copied(drawn.tokens))
    own.update_weights(other, 4)
    assert (own(None, *inputs).tokens != drawn.tokens).any()
