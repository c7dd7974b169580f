"""Eight virtual devices: the same tokens, losses and metrics as one (1e-5)."""

import pytest

# Two steps of PPO (policy and critic) and of DAPO on one device and on eight, then a
# resume on eight; all in one process, which prints what the tests look at.
SCRIPT = """
    import dataclasses, json, pathlib, sys
    import jax
    import numpy as np
    from jaxrl_reason.models import Transformer
    from jaxrl_reason.sharding import ShardingRules, make_mesh
    from jaxrl_reason.runs.checkpoints import CheckpointFolder
    from jaxrl_reason.rl.heldout import build_heldout_evaluation
    from jaxrl_reason.rl.rl_loop import resume_rl, save_rl
    from jaxrl_reason.rl.method import DynamicSampling
    from jaxrl_reason.rl.recipes.ppo import ppo
    from jaxrl_reason.sampler import weight_placement
    from jaxrl_reason.sharding import BatchSharding
    from jaxrl_reason.runs.monitor import CompileCounter
    from jaxrl_reason.rl.rl_learner import build_rl_learner, init_rl_state
    from jaxrl_reason.learner.state import OptimizerSettings, init_state
    from tests.rl.helpers import *
    from tests.rl.loop_helpers import hooks

    out, path = {}, pathlib.Path(sys.argv[1])
    settings = dataclasses.replace(SETTINGS, rows_per_micro_batch=4)
    optimizer = OptimizerSettings(learning_rate=3e-3)
    # With a critic, and with groups left over for the next step.
    method = dataclasses.replace(ppo(), dynamic_sampling=DynamicSampling())

    def same_layout(a, b):
        pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        return all(x.sharding.is_equivalent_to(y.sharding, y.ndim) for x, y in pairs)

    def run(mesh, leader):
        rules = ShardingRules()
        batch_sharding = BatchSharding(mesh, rules)
        model = Transformer(CONFIG, constrain=rules.constrainer(mesh))
        learner = build_rl_learner(
            model, LuckyTask(), method, settings, optimizer, batch_sharding,
            place=weight_placement(model, "whole"),
        )
        policy = init_state(random_params(batch_sharding), optimizer.build())
        fresh = init_rl_state(learner, policy)
        stream = EndlessProblems(4)
        # Eight devices start every update from the state that one had.
        (critic,) = learner.components
        updates = [
            FollowedUpdate(update, led)
            for update, led in zip((learner.update, critic.update), leader, strict=True)
        ]
        critic = dataclasses.replace(critic, update=updates[1])
        followed = dataclasses.replace(
            learner, update=updates[0], components=(critic,)
        )
        state, rows, seen = run_steps(followed, fresh, stream, 2)
        return learner, policy, model, state, stream, rows, seen, updates

    results, updates = {}, (None, None)
    for name, mesh in {
        "one": make_mesh(devices=jax.devices()[:1]),
        "eight": make_mesh(data=2, fsdp=2, tensor=2),
    }.items():
        learner, policy, model, state, stream, rows, seen, updates = run(mesh, updates)
        results[name] = rows, seen
    fresh = init_rl_state(learner, policy)
    out["layout_kept"] = same_layout(
        (fresh.policy, fresh.models["critic"]), (state.policy, state.models["critic"])
    )
    out["sharded_over"] = len(state.policy.params["embedding"].sharding.device_set)
    out["split"] = str(state.policy.params["embedding"].sharding.shard_shape((12, 16)))
    out["rows"] = [results[name][0] for name in ("one", "eight")]
    out["surplus"] = sum(row["groups/surplus"] for row in rows)
    out["same_tokens"] = all(
        np.array_equal(a.fresh.tokens, b.fresh.tokens)
        for a, b in zip(results["one"][1], results["eight"][1], strict=True)
    )
    out["updates"] = [len(update.states) for update in updates]
    out["gradients"] = [update.gradient_error() for update in updates]

    # A third step, straight on and resumed from a checkpoint of the second.
    used = hooks(path)
    save_rl(used, state, stream)
    used.log.close()
    again = init_rl_state(learner, policy)
    found = resume_rl(used.checkpoints, used.fingerprint, again, EndlessProblems(4))
    out["resumed_layout"] = same_layout(
        (found.policy, found.models["critic"]), (state.policy, state.models["critic"])
    )
    resumed_stream = EndlessProblems(4)
    resumed_stream.set_state(stream.get_state())
    with CompileCounter() as compiles:
        state, (row,), _ = run_steps(learner, state, stream, 1)
        found, (other,), _ = run_steps(learner, found, resumed_stream, 1)
    out["compiled"] = compiles.names_since(0)
    out["resumed_row"] = [row, other]
    out["resumed_parameters"] = same_trees(state.policy, found.policy)

    # Nine problems on a mesh that splits a batch in four.
    evaluation = build_heldout_evaluation(
        model, LuckyTask(), [Toy(i) for i in range(9)], num_samples=4,
        temperature=1.0, max_new_tokens=6, prompt_width=3, batch_size=24, seed=0,
        batch_sharding=learner.batch_sharding, place=learner.place,
    )
    evaluation = dataclasses.replace(evaluation, sample=learner.sample)
    out["evaluated"] = evaluation.run(policy.params).problem_ids.tolist()

    out["errors"] = {}
    for name in ("rows_per_micro_batch", "prompts_per_step"):
        wrong = dataclasses.replace(settings, updates_per_rollout=1, **{name: 6})
        try:
            build_rl_learner(
                model, LuckyTask(), method, wrong, optimizer, learner.batch_sharding
            )
        except ValueError as error:
            out["errors"][name] = str(error)
    print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def found(eight_devices_run, tmp_path_factory):
    return eight_devices_run(SCRIPT, str(tmp_path_factory.mktemp("run")))


def test_the_same_tokens_are_sampled(found):
    assert found["same_tokens"]
    assert found["surplus"] > 0


def test_losses_and_metrics_are_equal(found):
    one, eight = found["rows"]
    assert [row.keys() for row in one] == [
        row.keys() - {"sampler/reshard_bytes"} for row in eight
    ]
    for row, other in zip(one, eight, strict=True):
        assert row.keys() >= {
            *("policy/loss", "policy/grad_norm", "policy/approx_kl_k3", "critic/loss"),
        }
        for name, value in row.items():
            assert other[name] == pytest.approx(value, rel=1e-5, abs=1e-5), name


def test_gradients_are_equal(found):
    # Of policy and critic, four updates each.
    assert found["updates"] == [4, 4]
    assert max(found["gradients"]) < 1e-5


def test_parameters_are_sharded_and_stay_where_they_were(found):
    assert found["sharded_over"] == 8
    assert found["split"] == "(6, 8)"
    assert found["layout_kept"]


def test_a_resumed_run_goes_on_as_if_nothing_had_been(found):
    assert found["resumed_layout"]
    assert found["resumed_parameters"]
    assert found["resumed_row"][0] == found["resumed_row"][1]


def test_after_the_second_step_nothing_compiles(found):
    assert found["compiled"] == []


def test_an_evaluation_of_any_number_of_problems(found):
    assert found["evaluated"] == list(range(9))


def test_a_mesh_that_does_not_divide_the_batch_is_refused(found):
    four = "must be a positive multiple of 4 (mesh data=2 x fsdp=2), got 6"
    assert found["errors"] == {
        "rows_per_micro_batch": f"rows of a micro-batch {four}",
        "prompts_per_step": f"prompts_per_step {four}",
    }
