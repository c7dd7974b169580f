"""A teacher's hidden states beside the policy's, on a mesh as on one device."""

from functools import partial
from typing import Any

import jax
import numpy as np

from jaxrl_reason.learner.distillation import head_jsd
from jaxrl_reason.learner.forward import hidden_states
from jaxrl_reason.learner.packing import PackingShape, pack_sequences
from jaxrl_reason.learner.update import make_scorer
from jaxrl_reason.models import Transformer
from jaxrl_reason.sharding import no_constraint
from tests.learner.test_forward import PROMPTS, RESPONSES, WIDTH
from tests.rl.helpers import CONFIG, first_policy

SCRIPT = """
    import json
    import jax
    import numpy as np
    from jaxrl_reason.learner.distillation import head_jsd
    from jaxrl_reason.losses import chunked_jsd
    from jaxrl_reason.sharding import ShardingRules, make_mesh

    rng = np.random.default_rng(0)
    shapes = (8, 6, 16), (16, 26), (8, 6, 24), (24, 26)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    pull = rng.random((8, 6), np.float32)

    def step(function):
        def loss(hidden, head, *teacher):
            found = function(hidden, head, *teacher)
            return (pull * found).sum(), found
        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))

    settings = {"beta": 0.5, "temperature": 0.7, "chunk_size": 2}
    plain = lambda *x: chunked_jsd(*x, **settings)
    expected = jax.tree.map(np.asarray, step(plain)(*arrays))
    report = {}
    axes = ("batch", "sequence", None), ("embed", "vocab")
    for name, sizes in {
        "fsdp": {"fsdp": 8},
        "data": {"data": 2, "fsdp": 4},
        "tensor": {"data": 2, "fsdp": 2, "tensor": 2},
        "columns": {"data": 4, "tensor": 2},
        "uneven columns": {"data": 2, "tensor": 4},
    }.items():
        rules = ShardingRules(sequence="tensor" if "columns" in name else None)
        constrain = rules.constrainer(make_mesh(**sizes))
        placed = [
            jax.device_put(x, constrain.sharding(of, x.shape))
            for x, of in zip(arrays, axes * 2, strict=True)
        ]
        function = head_jsd(constrain, **settings)
        found = step(function)(*placed)
        pairs = zip(*map(jax.tree.leaves, (found, expected)), strict=True)
        report[name] = max(
            float(np.abs(np.asarray(x) - y).max() / np.abs(y).max()) for x, y in pairs
        )
    print(json.dumps(report))
"""


def test_a_mesh_gives_the_divergence_and_gradient_of_one_device(
    eight_devices_run: Any,
) -> None:
    report = eight_devices_run(SCRIPT)
    assert report.keys() == {"fsdp", "data", "tensor", "columns", "uneven columns"}
    assert max(report.values()) <= 1e-6


def test_without_a_mesh_it_is_the_loss_of_the_library() -> None:
    assert head_jsd(no_constraint, beta=0.5).keywords == {"beta": 0.5}  # type: ignore[attr-defined]


def test_hidden_states_of_active_micro_batches_alone() -> None:
    batch, plan = pack_sequences(
        PROMPTS,
        RESPONSES,
        PackingShape(rows=2, width=12, slots=1),
        num_micro=4,
        response_width=WIDTH,
    )
    assert plan.num_active > 1
    model, params = Transformer(CONFIG), first_policy().params
    states = make_scorer(partial(hidden_states, model))(params, batch, 1)
    assert states.shape == (*batch.tokens.shape, CONFIG.hidden_size)
    assert not np.asarray(states[1:]).any()
    first = jax.tree.map(lambda x: x[0], batch)
    expected = model.apply(
        {"params": params},
        first.tokens,
        first.positions,
        first.segment_ids,
        first.branch_ids,
    )
    np.testing.assert_allclose(states[0], expected, atol=1e-5)
