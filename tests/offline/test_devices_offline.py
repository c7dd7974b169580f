"""A round of iterative DPO and of RFT on eight virtual devices, as on one."""

import pytest

SCRIPT = """
    import dataclasses, json
    import jax
    import numpy as np
    from jaxrl_reason.models import Transformer
    from jaxrl_reason.sharding import ShardingRules, make_mesh
    from jaxrl_reason.offline.iterative import iterative_dpo_round, rft_round
    from jaxrl_reason.sharding import BatchSharding
    from jaxrl_reason.offline.preference_training import build_preference_learner
    from jaxrl_reason.offline.preference_methods import irpo
    from jaxrl_reason.offline.sample_rounds import build_round_sampler
    from jaxrl_reason.learner.state import OptimizerSettings, init_state
    from jaxrl_reason.learner.sft import build_sft_learner
    from tests.rl.helpers import *
    from tests.offline.test_iterative import EXAMPLES, PAIRS, PROBLEMS, ROUND

    optimizer = OptimizerSettings(learning_rate=3e-3)
    pairs = dataclasses.replace(PAIRS, epochs=1, rows_per_micro_batch=4)
    examples = dataclasses.replace(EXAMPLES, rows_per_micro_batch=4)

    def run(mesh, leaders=(None, None)):
        rules = ShardingRules()
        batch_sharding = BatchSharding(mesh, rules)
        model = Transformer(CONFIG, constrain=rules.constrainer(mesh))
        policy = init_state(random_params(batch_sharding), optimizer.build())
        sampler = build_round_sampler(model, LuckyTask(), ROUND, batch_sharding)
        learner = build_preference_learner(
            model, irpo(), pairs, optimizer, batch_sharding
        )
        tuned = build_sft_learner(model, examples, optimizer, batch_sharding)
        # Eight devices start every update from the state that one had.
        learner, tuned = (
            dataclasses.replace(x, update=FollowedUpdate(x.update, leader))
            for x, leader in zip((learner, tuned), leaders, strict=True)
        )
        state, row, rollouts = iterative_dpo_round(
            sampler, learner, policy, PROBLEMS, round_index=0, max_pairs=4
        )
        _, more, _ = rft_round(
            sampler, tuned, optimizer, policy, PROBLEMS, round_index=0
        )
        devices = len(state.params["embedding"].sharding.device_set)
        return rollouts.tokens, [row, more], (learner.update, tuned.update), devices

    one = run(make_mesh(devices=jax.devices()[:1]))
    eight = run(make_mesh(data=2, fsdp=2, tensor=2), one[2])
    print(json.dumps({
        "same_tokens": bool(np.array_equal(one[0], eight[0])),
        "rows": [one[1], eight[1]],
        "updates": [len(update.states) for update in eight[2]],
        "gradients": [update.gradient_error() for update in eight[2]],
        "sharded_over": eight[3],
    }))
"""


@pytest.fixture(scope="module")
def found(eight_devices_run):
    return eight_devices_run(SCRIPT)


def test_the_same_responses_are_sampled_and_learnt(found):
    assert found["same_tokens"]
    assert found["sharded_over"] == 8
    for one, eight in zip(*found["rows"], strict=True):
        assert one.keys() == eight.keys()
        for name, value in one.items():
            assert eight[name] == pytest.approx(value, rel=1e-5, abs=1e-5), name


def test_gradients_are_equal(found):
    assert min(found["updates"]) > 0
    assert max(found["gradients"]) < 1e-5
