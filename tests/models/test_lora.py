"""Factors act as w + s a b, begin at nothing, and their base has no gradient."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import jaxprs_in_params

from jaxrl_reason.models import (
    LORA_TARGETS,
    LoraSettings,
    Params,
    Transformer,
    abstract_lora,
    abstract_params,
    init_lora,
    lora_axes,
    merge_lora,
    param_axes,
    with_lora,
)
from jaxrl_reason.models.layers import GatedMLP
from jaxrl_reason.sharding import ShardingRules
from tests.models.numpy_transformer import TINY, VARIANTS, forward, tokens_of

# No two of its matrices have one shape but gate and up.
MODEL = Transformer(replace(VARIANTS["everything"], mlp_dim=44))
SETTINGS = LoraSettings(rank=3, alpha=4.5)
TOKENS = tokens_of(2, 7)
OUT = np.random.default_rng(5).normal(size=(2, 7, TINY.hidden_size)).astype("f")


def hidden(params: Params) -> jax.Array:
    positions = jnp.broadcast_to(jnp.arange(7)[None], TOKENS.shape)
    ones = jnp.ones_like(TOKENS)
    x: jax.Array = MODEL.apply({"params": params}, TOKENS, positions, ones)
    return x


def loss(params: Params) -> tuple[jax.Array, jax.Array]:
    x = hidden(params)
    return jnp.sum(x * OUT), x


# Value, hidden states and gradient: of every parameter, and of the factors alone.
dense = jax.jit(jax.value_and_grad(loss, has_aux=True))
low_rank = jax.jit(
    jax.value_and_grad(lambda f, base: loss(with_lora(base, f, SETTINGS)), has_aux=True)
)


merge = jax.jit(merge_lora, static_argnums=2)


def drawn(shapes: Params, *, b: float = 0.2) -> Params:
    """Random arrays, by NumPy, which compiles nothing; factors b of this size."""
    rng = np.random.default_rng(3)

    def draw(path: Any, x: Any) -> jax.Array:
        name = path[-1].key
        size = b if name.endswith("_lora_b") else 0.2
        x = size * rng.standard_normal(x.shape) + (name == "scale")
        return jnp.asarray(x.astype(np.float32))

    return jax.tree_util.tree_map_with_path(draw, shapes)


def factors_of(settings: LoraSettings, *, b: float) -> Params:
    return drawn(abstract_lora(MODEL, settings), b=b)


BASE = drawn(abstract_params(MODEL))
TRAINED = factors_of(SETTINGS, b=0.1)


def numpy_merged(base: Params, factors: Params, scale: float) -> Params:
    """w + s a b, one matrix and one layer at a time, in float64."""
    merged = jax.tree.map(lambda x: np.array(x, np.float64), base)
    for part, found in factors.items():
        for target in LORA_TARGETS:
            if f"{target}_lora_a" in found:
                a, b = (np.asarray(found[f"{target}_lora_{x}"], float) for x in "ab")
                for w, one, two in zip(
                    merged["layers"][part][target], a, b, strict=True
                ):
                    w += scale * np.tensordot(one, two, axes=1)
    return merged


def test_fresh_factors_change_nothing() -> None:
    factors = factors_of(SETTINGS, b=0.0)
    (_, plain), _ = dense(BASE)
    (_, beside), grads = low_rank(factors, BASE)
    np.testing.assert_array_equal(beside, plain)
    # What moves first is b: while b is zero, a has no gradient.
    for found in grads.values():
        for name, grad in found.items():
            assert bool(jnp.any(grad != 0)) == name.endswith("_b"), name


def test_values_are_those_of_the_merged_matrices() -> None:
    merged = merge(BASE, TRAINED, SETTINGS)
    wanted = numpy_merged(BASE, TRAINED, 1.5)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6), merged, wanted
    )
    (_, beside), _ = low_rank(TRAINED, BASE)
    (_, plain), _ = dense(merged)
    np.testing.assert_allclose(beside, plain, rtol=0, atol=1e-5)
    # 1e-4: a whole transformer in float32 against float64.
    for row, tokens in zip(beside, TOKENS, strict=True):
        written_out = forward(MODEL.config, wanted, tokens)
        np.testing.assert_allclose(row, written_out, rtol=0, atol=1e-4)
    (_, untouched), _ = dense(BASE)
    assert np.abs(plain - untouched).max() > 0.1


def test_gradients_follow_from_the_dense_gradient() -> None:
    """y = x (w + s a b): da = s dw b^T and db = s a^T dw."""
    _, whole = dense(merge(BASE, TRAINED, SETTINGS))
    _, grads = low_rank(TRAINED, BASE)
    assert jax.tree.structure(grads) == jax.tree.structure(TRAINED)
    for part, found in grads.items():
        for target in {name[: -len("_lora_a")] for name in found}:
            dw = np.asarray(whole["layers"][part][target], np.float64)
            a, b = (np.asarray(TRAINED[part][f"{target}_lora_{x}"]) for x in "ab")
            dw = dw.reshape(2, np.prod(a.shape[1:-1]), -1)
            flat_a, flat_b = a.reshape(2, -1, 3), b.reshape(2, 3, -1)
            da = 1.5 * np.einsum("lio,lro->lir", dw, flat_b)
            db = 1.5 * np.einsum("lir,lio->lro", flat_a, dw)
            for x, wanted in (("a", da), ("b", db)):
                got = np.asarray(found[f"{target}_lora_{x}"]).reshape(wanted.shape)
                # 1e-5 of the largest: two ways of rounding through two layers.
                limit = 1e-5 * np.abs(wanted).max()
                np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=limit)


def made_shapes(function: Any, *args: Any) -> list[tuple[int, ...]]:
    """The shapes of all arrays that a function makes, inside of loops too."""
    found: list[tuple[int, ...]] = []

    def walk(jaxpr: Any) -> None:
        for equation in jaxpr.eqns:
            found.extend(v.aval.shape for v in equation.outvars)
            jax.tree.map(walk, list(jaxprs_in_params(equation.params)))

    walk(jax.make_jaxpr(function)(*args).jaxpr)
    return found


@pytest.mark.fast
def test_no_array_of_the_size_of_a_frozen_stack_is_made() -> None:
    stack = BASE["layers"]["mlp"]["gate"].shape
    grad = jax.grad(lambda f: loss(with_lora(BASE, f, SETTINGS))[0])
    assert stack not in made_shapes(grad, TRAINED)
    # Merging before the forward pass is the mutant: its gradient is a dense one.
    grad = jax.grad(lambda f: loss(merge_lora(BASE, f, SETTINGS))[0])
    assert made_shapes(grad, TRAINED).count(stack) > 2


def test_a_target_of_the_rank_is_learned() -> None:
    """One feed-forward layer, for speed, learns another that factors away from it."""
    settings = LoraSettings(rank=2, alpha=2.0, targets=("gate", "up", "down"))
    goal, start = (factors_of(settings, b=b) for b in (0.3, 0.0))
    start["mlp"] = jax.tree.map(lambda x: -x[::-1], start["mlp"])  # another a
    x = OUT

    def apply(factors: Params) -> jax.Array:
        params = with_lora(BASE, factors, settings)["layers"]["mlp"]
        first = jax.tree.map(lambda x: x[0], params)
        y: jax.Array = GatedMLP(MODEL.config).apply({"params": first}, x)
        return y

    wanted, optimizer = apply(goal), optax.adam(2e-2)

    @jax.jit
    def step(factors: Params, state: Any) -> Any:
        def error(factors: Params) -> jax.Array:
            return jnp.mean((apply(factors) - wanted) ** 2)

        value, grads = jax.value_and_grad(error)(factors)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(factors, updates), state, value

    factors, state, errors = start, optimizer.init(start), []
    for _ in range(300):
        factors, state, value = step(factors, state)
        errors.append(float(value))
    assert errors[-1] < 1e-2 * errors[0], (errors[0], errors[-1])


@pytest.mark.fast
@pytest.mark.parametrize("targets", [LORA_TARGETS, ("output", "up")])
def test_shapes_axes_and_values_agree(targets: tuple[str, ...]) -> None:
    settings = LoraSettings(rank=3, targets=targets)
    made = jax.jit(partial(init_lora, MODEL, settings))(jax.random.key(0))
    said, axes = abstract_lora(MODEL, settings), lora_axes(MODEL, settings)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), made) == jax.tree.map(
        lambda x: (x.shape, x.dtype), said
    )
    names = [name for found in made.values() for name in found]
    assert sorted(names) == sorted(f"{t}_lora_{x}" for t in targets for x in "ab")
    of_base, rules = param_axes(MODEL)["layers"], ShardingRules()
    for part, found in made.items():
        for name, x in found.items():
            own, matrix = axes[part][name], name[: -len("_lora_a")]
            assert len(own) == x.ndim
            assert x.shape[own.index(None)] == 3
            rules.spec(own)
            # Without the rank, a has the first axes of the matrix and b the last.
            rest = tuple(axis for axis in own if axis is not None)
            if name.endswith("_a"):
                assert rest == of_base[part][matrix][: len(rest)]
                width = np.prod(x.shape[1:-1])
                assert float(x.std()) == pytest.approx(width**-0.5, rel=0.25)
            else:
                assert rest[1:] == of_base[part][matrix][1 - len(rest) :]
                assert not x.any()


@pytest.mark.fast
def test_a_bfloat16_base_has_float32_factors_and_merges_into_its_own_type() -> None:
    config = replace(MODEL.config, param_dtype="bfloat16", dtype="bfloat16")
    said = abstract_lora(Transformer(config), SETTINGS)
    assert {x.dtype for x in jax.tree.leaves(said)} == {jnp.dtype("float32")}
    base = jax.tree.map(lambda x: x.astype(jnp.bfloat16), BASE)
    merged = merge(base, TRAINED, SETTINGS)
    assert {x.dtype for x in jax.tree.leaves(merged)} == {jnp.dtype("bfloat16")}
    wanted = numpy_merged(base, TRAINED, 1.5)
    # Half a step of bfloat16: the sum is rounded once.
    near = partial(np.testing.assert_allclose, rtol=2**-8, atol=1e-6)
    jax.tree.map(near, jax.tree.map(lambda x: np.float64(x), merged), wanted)


@pytest.mark.fast
def test_the_base_is_not_copied() -> None:
    beside = with_lora(BASE, TRAINED, SETTINGS)
    for name in ("embedding", "head", "final_norm"):
        assert beside[name] is BASE[name]
    for part in ("attention", "mlp"):
        for name, x in BASE["layers"][part].items():
            assert beside["layers"][part][name] is x


@pytest.mark.fast
def test_the_scale() -> None:
    assert LoraSettings(rank=16, alpha=8.0).scale == 0.5
    assert LoraSettings(rank=16, alpha=8.0, rank_stabilized=True).scale == 2.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rank": 0}, "rank must be a whole number >= 1, got 0"),
        ({"rank": 2.0}, "rank must be a whole number >= 1, got 2.0"),
        ({"rank": True}, "rank must be a whole number >= 1, got True"),
        ({"alpha": 0.0}, "alpha must be > 0 and finite, got 0.0"),
        ({"alpha": float("nan")}, "alpha must be > 0 and finite, got nan"),
        ({"targets": ()}, r"among \('query', .*\), got \(\)"),
        ({"targets": ("query", "query")}, r"different names .* got \('query', 'query"),
        ({"targets": ("head",)}, r"got \('head',\)"),
        ({"targets": "query"}, "must be a tuple .* got 'query'"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoraSettings(**wrong)


def test_a_rank_above_a_side_of_a_matrix_is_refused() -> None:
    settings = LoraSettings(rank=17, targets=("gate", "key"))
    message = r"at most the smaller side of key \(16\), got 17"
    with pytest.raises(ValueError, match=message):
        abstract_lora(Transformer(TINY), settings)
