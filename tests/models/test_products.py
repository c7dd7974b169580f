"""Products in a narrower type: values, gradients, and the forms that XLA gets."""

import math
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.learner.narrow_head import narrow_logprobs
from jaxrl_reason.models import (
    Transformer,
    TransformerConfig,
    abstract_params,
    init_params,
)
from jaxrl_reason.models.decode_step import through_layers
from jaxrl_reason.models.params import decode_params
from jaxrl_reason.models.products import product, product_with_rows
from jaxrl_reason.sharding import ShardingRules, make_mesh

pytestmark = pytest.mark.fast

CONFIG = TransformerConfig(
    vocab_size=40,
    hidden_size=32,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=16,
    mlp_dim=48,
    context_length=64,
)


def rounded(x):
    """As a product's side is."""
    return np.asarray(jnp.asarray(x, jnp.bfloat16).astype(jnp.float32), np.float64)


def draw(*shape):
    return jax.random.normal(jax.random.key(sum(shape)), shape)


# An odd number of columns has a form of its own, and so has a long sum.
@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize(("n", "i", "o"), [(5, 32, 48), (3, 33, 3000)])
def test_value_and_gradients_are_those_of_rounded_sides(n, i, o, by_row):
    x, w, slope = draw(n, i), draw(*((o, i) if by_row else (i, o))), draw(n, o)
    of = product_with_rows if by_row else product

    @jax.jit
    def run(x, w, slope):
        y, back = jax.vjp(lambda x, w: of(x, w, "bfloat16"), x, w)
        return y, *back(slope)

    y, dx, dw = run(x, w, slope)

    a, b, s = rounded(x), rounded(w), rounded(slope)
    b = b.T if by_row else b
    found, wanted = (y, dx, dw.T if by_row else dw), (a @ b, s @ b.T, a.T @ s)
    for got, want in zip(found, wanted, strict=True):
        assert got.dtype == jnp.float32
        # Sums in float32: far from the 4e-3 of rounding the result.
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)


def test_products_have_the_form_that_is_multiplied_in_bfloat16():
    """Sums in float32 over the left side's last axis: others are widened on a CPU."""
    x, w, slope = draw(64, 64), draw(64, 96), draw(64, 96)

    def gradients(x, w, slope):
        return jax.vjp(lambda x, w: product(x, w, "bfloat16"), x, w)[1](slope)

    text = str(jax.make_jaxpr(gradients)(x, w, slope))
    assert re.findall(r"dimension_numbers=\(\(\[(\d)\]", text) == ["1", "1", "1"]
    assert text.count("preferred_element_type=float32") == 3


def test_no_type_is_the_product_as_it_was():
    x, w = draw(3, 32), draw(32, 8)
    assert jnp.array_equal(product(x, w), x @ w)
    assert jnp.array_equal(product(x, w, "float32"), x @ w)


def test_only_the_sides_of_products_are_rounded():
    """A model's states stay float32, as near as bfloat16 sides can be."""
    model, tokens = Transformer(CONFIG), jnp.arange(20)[None] % 40
    narrow = Transformer(replace(CONFIG, matmul_dtype="bfloat16"))

    @jax.jit
    def run(key):
        params = init_params(model, key)
        rows = tokens, tokens, 0 * tokens + 1
        return [m.apply({"params": params}, *rows) for m in (model, narrow)]

    wide, found = run(jax.random.key(0))
    assert found.dtype == jnp.float32
    assert 1e-4 < jnp.max(jnp.abs(found - wide)) < 0.1
    assert jnp.any(found != found.astype(jnp.bfloat16).astype(jnp.float32))


def test_decoding_holds_matrices_in_their_type_and_nothing_else():
    model = Transformer(replace(CONFIG, matmul_dtype="bfloat16", attention_bias=True))
    params = abstract_params(model)
    held = jax.eval_shape(
        lambda params: decode_params(model, params, jnp.zeros(1, jnp.int32), 8), params
    )
    layer = held.layers[0]["attention"]
    assert layer["query"].dtype == held.head.dtype == jnp.bfloat16
    assert layer["query_bias"].dtype == held.embedding.dtype == jnp.float32


def test_a_decode_step_multiplies_with_large_matrices_as_they_are_held():
    """Held as [out, in], and transposed by no step."""
    config, tokens = replace(CONFIG, matmul_dtype="bfloat16"), jnp.arange(3)

    def run(config):
        model = Transformer(config)
        params = init_params(model, jax.random.key(0))
        held = decode_params(model, params, jnp.zeros(1, jnp.int32), 8)

        @jax.jit
        def step(held):
            rope = tuple(x[:3, 0] for x in held.rope)  # [3, 1, H/2]
            attend = lambda q, k, v, layer: (q, None)  # noqa: E731
            return through_layers(model, held, tokens, rope, attend)[0]

        return held, step(held), step.lower(held).compile().as_text()

    _, wide, _ = run(CONFIG)
    held, narrow, program = run(config)
    assert 0 < jnp.max(jnp.abs(narrow - wide)) < 0.1
    for name, shape in (("gate", (48, 32)), ("up", (48, 32)), ("down", (32, 48))):
        assert held.layers[0]["mlp"][name].shape == shape
    assert not re.search(r"= bf16\[\d+,\d+\]\S* (transpose|copy)\(", program)


def test_another_type_is_refused():
    with pytest.raises(ValueError, match="matmul_dtype must be None or one of"):
        replace(CONFIG, matmul_dtype="float16")


def test_a_head_in_blocks_has_the_gradients_of_one_block():
    """In a loop XLA swapped the sides of a product, and then had none for it."""
    hidden, unembed = draw(1, 64, 48), draw(48, 512)
    tokens = jnp.arange(64)[None] % 512

    def gradients(chunk_size):
        def total(hidden, unembed):
            found = narrow_logprobs(
                "bfloat16", hidden, unembed, tokens, chunk_size=chunk_size
            )
            return sum(jnp.sum(x**2) for x in found)

        # The model's head stands the other way round.
        run = jax.jit(jax.grad(lambda h, w: total(h, w.T), argnums=(0, 1)))
        return run(hidden, unembed.T)

    for got, want in zip(gradients(16), gradients(64), strict=True):
        scale = float(jnp.max(jnp.abs(want)))
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * scale)


def kept_by_the_scan(**change):
    """Shapes of what the forward scan over layers keeps for the backward pass."""
    mesh = make_mesh(data=1, devices=jax.devices()[:1])
    constrain = ShardingRules().constrainer(mesh)
    model = Transformer(replace(CONFIG, attention="chunked", **change), constrain)
    params = init_params(model, jax.random.key(0))
    columns = jnp.arange(160)[None]

    def total(params):
        hidden = model.apply(
            {"params": params}, columns % 40, columns, jnp.ones_like(columns)
        )
        return jnp.sum(hidden)

    jaxpr = jax.make_jaxpr(jax.grad(total))(params)
    forward = next(e for e in jaxpr.eqns if e.primitive.name == "scan")
    carries = forward.params["num_carry"]
    return [x.aval.shape[1:] for x in forward.outvars[carries:]]


@pytest.mark.parametrize(
    "narrow", [{}, {"matmul_dtype": "bfloat16"}, {"dtype": "bfloat16"}]
)
def test_no_copy_of_a_matrix_is_kept_for_the_backward_pass(narrow):
    # Gradients of 160 rows hold nothing of the sizes that matrices have.
    matrices = {32 * 32, 32 * 16, 32 * 48}
    for remat in ("none", "dots", "full"):
        sizes = {math.prod(x) for x in kept_by_the_scan(remat=remat, **narrow)}
        assert not sizes & matrices, remat


@pytest.mark.parametrize("narrow", [{}, {"matmul_dtype": "bfloat16"}])
def test_dots_keeps_what_products_and_attention_give(narrow):
    sizes = [math.prod(x) // 160 for x in kept_by_the_scan(remat="dots", **narrow)]
    # The block's input; queries, keys, values, context, its logs, output; gate and up.
    # `down` is not needed: nothing but a sum reads it.
    assert sorted(sizes) == sorted([32, 32, 16, 16, 32, 2, 32, 48, 48])
    assert kept_by_the_scan(remat="full", **narrow) == [(1, 160, 32)]
