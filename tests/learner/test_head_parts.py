"""A large head in parts gives what `chunked_logprobs` gives, on any mesh."""

from typing import Any

import pytest

from jaxrl_reason.learner.head_parts import PART, number_of_parts

SCRIPT = """
    import dataclasses, json
    import jax
    import numpy as np
    from jaxrl_reason.learner.head_parts import logprobs_by_parts
    from jaxrl_reason.losses import chunked_logprobs
    from jaxrl_reason.sharding import ShardingRules, parse_mesh

    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(8, 6, 16)).astype(np.float32)
    head = rng.normal(size=(16, 28)).astype(np.float32)
    tokens = rng.integers(0, 26, (8, 6))
    tokens[0, 0] = -100
    pulls = rng.normal(size=(2, 8, 6)).astype(np.float32)

    def step(function, *given):
        def loss(hidden, head):
            found = function(*given, hidden, head, tokens, temperature=0.7,
                             chunk_size=2, vocab_size=26)
            return (pulls[0] * found[0] + pulls[1] * found[1]).sum(), found
        found = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(hidden, head)
        return [np.asarray(x) for x in jax.tree.leaves(found)]

    def difference(text, parts, **of):
        rules = dataclasses.replace(ShardingRules(), **of)
        got = step(logprobs_by_parts, rules.constrainer(parse_mesh(text)), parts)
        pairs = zip(got, expected, strict=True)
        return float(max(np.abs(x - y).max() / np.abs(y).max() for x, y in pairs))

    expected = step(chunked_logprobs)
    print(json.dumps([
        difference("data=2,fsdp=4", 5),
        difference("data=2,fsdp=2,tensor=2", 3, sequence="tensor"),
        difference("fsdp=4,context=2", 7, embed=("fsdp", "context")),
    ]))
"""


@pytest.mark.fast
def test_parts_are_few_and_small() -> None:
    assert number_of_parts(PART) == 1
    assert number_of_parts(PART + 2) == 2
    assert number_of_parts(3 * PART) == 3


def test_parts_give_what_the_whole_gives(eight_devices_run: Any) -> None:
    assert max(eight_devices_run(SCRIPT)) < 1e-6
