"""Under a mesh the output head is gathered once, not once a chunk of tokens."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from jaxrl_reason.learner.forward import head_logprobs
from jaxrl_reason.losses import chunked_logprobs
from jaxrl_reason.sharding import ShardingRules, make_mesh, no_constraint

# The plain form, left to the compiler, is kept as the mutant.
SCRIPT = """
    import dataclasses, json
    import jax
    import numpy as np
    from jaxrl_reason.losses import chunked_logprobs
    from jaxrl_reason.models import Transformer, abstract_params
    from jaxrl_reason.sharding import BatchSharding, ShardingRules, make_mesh
    from jaxrl_reason.learner.forward import policy_logprobs, squared_probs_of
    from jaxrl_reason.learner.forward import head_logprobs
    from tests.losses.jaxprs import primitives
    from tests.rl.helpers import CONFIG, random_params
    from tests.learner.test_forward import PackingShape, packed

    report, rng = {}, np.random.default_rng(0)
    hidden = rng.normal(size=(8, 6, 16)).astype(np.float32)
    head = rng.normal(size=(16, 26)).astype(np.float32)
    tokens = rng.integers(0, 26, (8, 6))
    pulls = rng.normal(size=(2, 8, 6)).astype(np.float32)

    def step(function, out=None):
        def loss(hidden, head):
            found = function(hidden, head, tokens, temperature=0.7, chunk_size=2)
            return (pulls[0] * found[0] + pulls[1] * found[1]).sum(), found
        grad = jax.value_and_grad(loss, (0, 1), has_aux=True)
        return jax.jit(grad, out_shardings=out)

    def difference(found):
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
        return max(np.abs(np.asarray(x) - y).max() / np.abs(y).max() for x, y in pairs)

    def look(mesh, rules, function):
        axes = ("batch", "sequence", None), ("embed", "vocab")
        shardings = tuple(rules.sharding(mesh, a) for a in axes)
        arrays = jax.device_put((hidden, head), shardings)
        compiled = step(function, ((None, None), shardings)).lower(*arrays).compile()
        return float(difference(compiled(*arrays))), compiled.as_text()

    expected = jax.tree.map(np.asarray, step(chunked_logprobs)(hidden, head))
    rules = ShardingRules()
    sequence = dataclasses.replace(rules, sequence="tensor")
    meshes = {
        "fsdp": (make_mesh(fsdp=8), rules),
        "data": (make_mesh(data=2, fsdp=4), rules),
        "tensor": (make_mesh(data=2, fsdp=2, tensor=2), rules),
        "sequence": (make_mesh(data=2, fsdp=2, tensor=2), sequence),
    }
    for name, (mesh, of) in meshes.items():
        report[name] = look(mesh, of, head_logprobs(of.constrainer(mesh)))
    report["mutant"] = look(*meshes["data"], chunked_logprobs)

    batch, _ = packed(PackingShape(rows=8, width=12, slots=1))
    model = Transformer(CONFIG, constrain=rules.constrainer(meshes["data"][0]))
    report["training"] = primitives(
        lambda params: policy_logprobs(model, params, batch, 1.0),
        abstract_params(model),
    )
    params = random_params(BatchSharding(*meshes["data"]))
    squares = [
        jax.jit(squared_probs_of(of, 0.7))(x, batch)
        for of, x in ((model, params), (Transformer(CONFIG), jax.device_get(params)))
    ]
    apart = np.abs(squares[0] - jax.device_get(squares[1]))[batch.mask]
    report["squared_probs"] = float(apart.max())
    print(json.dumps(report))
"""

COLLECTIVE = re.compile(
    r" = (\S+|\(.*?\)) "
    r"(all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)"
    r"(?:-start)?\(.*?replica_groups=(\S+),"
)


def computations(text: str) -> dict[str, list[str]]:
    """Name -> instructions of every computation of a compiled program."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        head = re.match(r"(?:ENTRY )?%?([\w.-]+) \(.*\{$", line)
        if head:
            current = found.setdefault(head[1], [])
        elif found:
            current.append(line)
    return found


def collectives(text: str) -> Iterator[tuple[str, str, bool]]:
    """Operation, type of its result, and whether it stands in a loop.

    Sums over groups of one device move nothing and are left out.
    """
    bodies = computations(text)
    waiting = re.findall(r"(?:body|condition)=%?([\w.-]+)", text)
    looped = set()
    while waiting:
        name = waiting.pop()
        if name not in looped:
            looped.add(name)
            called = r"(?:body|condition|calls|to_apply)=%?([\w.-]+)"
            waiting += re.findall(called, "\n".join(bodies[name]))
    for name, lines in bodies.items():
        for kind, operation, groups in COLLECTIVE.findall("\n".join(lines)):
            if not re.fullmatch(r"\{(\{\d+\},?)+\}", groups):
                yield operation, re.sub(r"\{[\d,]*\}", "", kind), name in looped


@pytest.fixture(scope="module")
def report(eight_devices_run: Any) -> Any:
    return eight_devices_run(SCRIPT)


@pytest.mark.parametrize("name", ["fsdp", "data", "tensor", "sequence"])
def test_values_and_gradients_are_those_of_one_device(report: Any, name: str) -> None:
    assert report[name][0] <= 1e-6


def test_one_gather_and_one_scatter_of_the_head(report: Any) -> None:
    scalar = ("all-reduce", "f32[]", False)  # the loss
    assert sorted(collectives(report["fsdp"][1])) == sorted(
        [("all-gather", "f32[16,26]", False), ("reduce-scatter", "f32[2,26]", False)]
        + [scalar]
    )
    # Each copy of the parameters adds its partial gradient to the other's.
    assert sorted(collectives(report["data"][1])) == sorted(
        [("all-gather", "f32[16,26]", False), ("reduce-scatter", "f32[4,26]", False)]
        + [("all-reduce", "f32[4,26]", False), scalar]
    )


def test_a_vocabulary_over_other_devices_stays_there(report: Any) -> None:
    found = list(collectives(report["tensor"][1]))
    assert found.count(("all-gather", "f32[16,13]", False)) == 1
    assert found.count(("reduce-scatter", "f32[8,13]", False)) == 1
    assert not [kind for _, kind, _ in found if "26" in kind]
    # One number a token, and the gradient of the chunk's hidden states.
    looped = [kind for _, kind, looped in found if looped]
    assert looped
    assert not [kind for kind in looped if "13" in kind]


def test_the_compiler_alone_gathers_and_sums_in_the_loop(report: Any) -> None:
    found = collectives(report["mutant"][1])
    looped = [(operation, kind) for operation, kind, looped in found if looped]
    # The head's gradient, as it is or transposed.
    assert {"f32[4,26]", "f32[26,4]"} & {k for op, k in looped if op == "all-reduce"}
    assert len(looped) > 1


def test_training_takes_this_way(report: Any) -> None:
    # One of them looks up embeddings.
    assert report["training"].count("shard_map") == 3


def test_squared_probs_take_it_too(report: Any) -> None:
    assert report["squared_probs"] <= 1e-5


def test_without_split_tokens_nothing_changes() -> None:
    assert head_logprobs(no_constraint) is chunked_logprobs
    constrain = ShardingRules().constrainer(make_mesh())
    assert head_logprobs(constrain) is chunked_logprobs
