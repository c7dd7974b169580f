"""A vocabulary and heads that the mesh does not divide: the numbers of one device."""

from typing import Any

import pytest

SCRIPT = """
    import dataclasses, json, pathlib, sys
    import jax
    import numpy as np
    import optax
    from jax.sharding import NamedSharding, PartitionSpec
    from jaxrl_reason.learner.forward import policy_logprobs
    from jaxrl_reason.learner.state import abstract_state, init_model_state
    from jaxrl_reason.models import Transformer
    from jaxrl_reason.models.params import decode_logits, decode_params
    from jaxrl_reason.runs.checkpoints import CheckpointFolder
    from jaxrl_reason.sampler import (
        BatchSettings, SamplingSettings, make_batch_sampler, make_sampler,
        sampling_keys,
    )
    from jaxrl_reason.sharding import ShardingRules, make_mesh
    from tests.learner.test_forward import PackingShape, packed
    from tests.models.numpy_transformer import TINY, tokens_of

    rules, adam = ShardingRules(), optax.adam(0.1)
    eight = make_mesh(data=2, fsdp=2, tensor=2)
    meshes = {"one": make_mesh(devices=jax.devices()[:1]), "eight": eight,
              # More devices than key and value heads.
              "tensor": make_mesh(tensor=4, devices=jax.devices()[:4])}
    batch, _ = packed(PackingShape(rows=8, width=12, slots=1))
    prompts, lengths = np.asarray(tokens_of(4, 6)), np.array([6, 2, 4, 5])
    # Keeps more tokens than there are, but not the padding.
    settings = SamplingSettings(max_new_tokens=10, eos_token_ids=(3,), top_k=37)
    slots = BatchSettings(8, (6,), slots_per_group=2, top_logprobs=37)

    def run(config, mesh):
        model = Transformer(config, constrain=rules.constrainer(mesh))
        state = init_model_state(model, adam, jax.random.key(0), mesh, rules)
        params = state.params

        def loss(params):
            found = policy_logprobs(model, params, batch, 0.7)
            return found[0].sum() - 2 * found[1].sum(), found

        step = jax.jit(jax.value_and_grad(loss, has_aux=True))
        rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
        given = jax.device_put((prompts, lengths), rows)
        keys = sampling_keys(0, 0, np.arange(4), 4)
        batched = make_batch_sampler(model, settings, 4, slots)(params, *given, keys)
        alone = make_sampler(model, settings, 4)(params, *given, keys)
        return state, {
            "step": step(params),
            "sampled": [alone.tokens, batched.tokens],
            "logprobs": [alone.logprobs, batched.logprobs],
            "top_logprobs": batched.top_logprobs.logprobs,
        }

    def worst(a, b):
        pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        return max(
            float(np.abs(np.asarray(x) - y).max() / max(1, np.abs(y).max()))
            for x, y in pairs
        )

    report = {}
    for name, tied in {"tensor": True, "eight": False}.items():
        config = dataclasses.replace(TINY, tie_embeddings=tied)
        one, expected = jax.device_get(run(config, meshes["one"]))
        state, found = run(config, meshes[name])
        report[name] = {
            "init": worst(jax.device_get(state), one),
            **{k: worst(jax.device_get(found[k]), expected[k]) for k in found},
        }
    model = Transformer(config, rules.constrainer(eight))
    path = CheckpointFolder(sys.argv[1])
    path.save(0, state, fingerprint={})
    target = abstract_state(Transformer(config), adam, meshes["one"], rules)
    report["restored"] = worst(jax.device_get(path.restore(target, {}).state), one)

    decode = decode_params(model, state.params, np.ones(1, np.int32), 4)
    logits = decode_logits(model, decode, np.ones((4, 24), np.float32))
    report["shard"] = decode.head.sharding.shard_shape(decode.head.shape)
    report["padding"] = np.isneginf(logits).sum(axis=0).tolist()
    print(json.dumps(report))
"""
CASES = ["tensor", "eight"]


@pytest.fixture(scope="module")
def report(eight_devices_run: Any, tmp_path_factory: Any) -> Any:
    return eight_devices_run(SCRIPT, str(tmp_path_factory.mktemp("checkpoints")))


@pytest.mark.parametrize("case", CASES)
def test_parameters_begin_with_the_same_values(report: Any, case: str) -> None:
    assert report[case]["init"] == 0


@pytest.mark.parametrize("case", CASES)
def test_logprobs_entropies_and_gradients_are_those_of_one_device(
    report: Any, case: str
) -> None:
    assert report[case]["step"] < 1e-5


@pytest.mark.parametrize("case", CASES)
def test_the_same_tokens_are_sampled(report: Any, case: str) -> None:
    assert report[case]["sampled"] == 0
    assert report[case]["logprobs"] < 1e-5
    assert report[case]["top_logprobs"] < 1e-5


def test_a_checkpoint_of_one_mesh_is_read_on_another(report: Any) -> None:
    assert report["restored"] == 0


def test_the_head_is_split_and_its_padding_never_drawn(report: Any) -> None:
    assert report["shard"] == [12, 19]
    assert report["padding"] == [0] * 37 + [4]
