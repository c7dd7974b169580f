r"""What log-probs round to: operations that depend on the batch, and samplers that do.

    python experiments/conformance/strict_numbers.py
    python experiments/conformance/strict_numbers.py \
      --hidden 576 --mlp 1536 --vocab 8192

The first table has the operations of a forward pass: the largest difference of a row's
result in a batch of fewer rows from that in a batch of 64 (`=` for the same bits), and
whether the result depends on the row's place in the batch. The second has attention
over the same keys in wider caches and at other columns. The third compares, for batches
of 1, 8 and 64 responses in two orders, the log-probs of each sampler with those of 64,
and with the trainer's of the same tokens, and has the seconds that they take.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

# Run as a script, this file's folder is on the path, not the one two above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from jaxrl_reason.learner.forward import logprobs_of
from jaxrl_reason.learner.packing import PackingShape, pack_sequences
from jaxrl_reason.learner.update import make_scorer
from jaxrl_reason.models import Transformer, TransformerConfig, init_params
from jaxrl_reason.sampler import (
    Completions,
    SamplingSettings,
    StrictSampler,
    make_sampler,
    sampling_keys,
)

ROWS = 64
COUNTS = (1, 2, 4, 8, 16, 32)
CACHES = ((48, 0), (64, 0), (128, 0), (64, 1), (64, 8), (64, 16))


@dataclass(frozen=True)
class Sizes:
    """Of the model and the responses.

    Attributes:
      hidden: D.
      mlp: F.
      vocab: V.
      layers: L.
      prompt: tokens of the longest prompt.
      response: tokens of the longest response.
    """

    hidden: int = 64
    mlp: int = 256
    vocab: int = 151
    layers: int = 2
    prompt: int = 16
    response: int = 32

    def config(self) -> TransformerConfig:
        """The model's."""
        return TransformerConfig(
            vocab_size=self.vocab,
            hidden_size=self.hidden,
            num_layers=self.layers,
            num_heads=4,
            num_kv_heads=2,
            head_dim=16,
            mlp_dim=self.mlp,
            context_length=self.prompt + self.response,
        )


def shown(difference: float) -> str:
    """A difference, `=` for none."""
    return f"{difference:.0e}" if difference else "="


def most(first: Any, second: Any) -> float:
    """The largest absolute difference."""
    return float(np.abs(np.asarray(first) - np.asarray(second)).max())


def operations(sizes: Sizes) -> dict[str, tuple[Callable[..., Any], jax.Array]]:
    """Functions of rows, each of which should be computed from its row alone."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape).astype(np.float32))

    d, f, v = sizes.hidden, sizes.mlp, sizes.vocab
    width = sizes.prompt + sizes.response
    up, down, head = normal(d, f) / d**0.5, normal(f, d) / f**0.5, normal(d, v) / d**0.5
    keys = normal(ROWS, 2, width, 16)
    return {
        "product D x F": (lambda x: x @ up, normal(ROWS, d)),
        "product F x D": (lambda x: x @ down, normal(ROWS, f)),
        "product D x V": (lambda x: x @ head, normal(ROWS, d)),
        "mean square of D (norm)": (
            lambda x: x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-5),
            normal(ROWS, d),
        ),
        "softmax over the columns": (jax.nn.softmax, normal(ROWS, width)),
        "log-softmax over V": (lambda x: jax.nn.log_softmax(x)[:, 1], normal(ROWS, v)),
        "silu(x) x": (lambda x: jax.nn.silu(x) * x, normal(ROWS, f)),
        "scores of one query": (
            lambda q: jnp.einsum("bkh,bkth->bkt", q, keys[: len(q)]),
            normal(ROWS, 2, 16),
        ),
    }


def print_operations(sizes: Sizes) -> None:
    """The first table."""
    heads = " | ".join(f"{count} rows" for count in COUNTS)
    print(f"| operation | {heads} | other place |\n|---|{'---|' * (len(COUNTS) + 1)}")
    for name, (function, x) in operations(sizes).items():
        run = jax.jit(function)
        whole = run(x)
        found = [shown(most(run(x[:n]), whole[:n])) for n in COUNTS]
        place = "-"
        if "query" not in name:  # whose keys stay in their rows
            place = shown(most(jnp.roll(run(jnp.roll(x, 3, 0)), -3, 0), whole))
        print(f"| {name} | {' | '.join(found)} | {place} |")


def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, first: int, n: int
) -> jax.Array:
    """Over n columns of a cache, from the first on."""
    at = jnp.arange(k.shape[2])[None, None]
    scores = jnp.einsum("bkh,bkth->bkt", q, k)
    scores = jnp.where((at >= first) & (at < first + n), scores, -1e30)
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    context = jnp.einsum("bkt,bkth->bkh", weights, v)
    return context / weights.sum(-1, keepdims=True)


def print_attention() -> None:
    """The second table."""
    rng = np.random.default_rng(1)
    n = 40
    shapes = ((8, 2, 16), (8, 2, n, 16), (8, 2, n, 16))
    q, k, v = (jnp.asarray(rng.normal(size=x).astype(np.float32)) for x in shapes)
    run = jax.jit(attention, static_argnums=(3, 4))
    whole = run(q, k, v, 0, n)
    print("\n| 40 keys in a cache of | from column | difference |\n|---|---|---|")
    for width, first in CACHES:
        pad = ((0, 0), (0, 0), (first, width - n - first), (0, 0))
        other = run(q, jnp.pad(k, pad), jnp.pad(v, pad), first, n)
        print(f"| {width} columns | {first} | {shown(most(other, whole))} |")


def trainer_logprobs(
    model: Transformer,
    params: Any,
    prompts: np.ndarray,
    lengths: np.ndarray,
    got: Completions,
) -> np.ndarray:
    """[B, T] of the packed pass that a trainer makes."""
    size = got.tokens.shape[1]
    batch, plan = pack_sequences(
        [p[:n] for p, n in zip(prompts, lengths, strict=True)],
        [t[:n] for t, n in zip(got.tokens, got.lengths, strict=True)],
        PackingShape(rows=4, width=2 * (prompts.shape[1] + size), slots=8),
        num_micro=-(-len(prompts) // 4),
        response_width=size,
    )
    score = make_scorer(logprobs_of(model, 1.0))
    found = np.asarray(score(params, batch, jnp.asarray(plan.num_active)))
    return np.where(batch.mask, found, 0)[plan.micro, plan.slot]


def print_samplers(sizes: Sizes) -> None:
    """The third table."""
    model = Transformer(sizes.config())
    params = jax.jit(partial(init_params, model))(jax.random.key(0))
    params = jax.tree.map(lambda x: x * 2, params)  # far from an even distribution
    settings = SamplingSettings(max_new_tokens=sizes.response, eos_token_ids=(1,))
    rng = np.random.default_rng(2)
    prompts = rng.integers(2, sizes.vocab, (ROWS, sizes.prompt)).astype(np.int32)
    lengths = rng.integers(1, sizes.prompt + 1, ROWS).astype(np.int32)
    keys = sampling_keys(0, 0, jnp.arange(ROWS), 1)
    strict = StrictSampler(model, settings, 1)
    score = partial(strict.score, params)
    samplers: Any = (("plain", make_sampler(model, settings, 1)), ("strict", strict))
    print("\n| sampler | batch | order | against 64 | against the trainer | seconds |")
    print("|---|---|---|---|---|---|")
    for name, sampler in samplers:
        whole = jax.device_get(sampler(params, prompts, lengths, keys))
        for size in (1, 8, ROWS):
            for order in (np.arange(size), rng.permutation(ROWS)[:size]):
                read, sizes_read = prompts[order], lengths[order]
                jax.block_until_ready(
                    sampler(params, read, sizes_read, keys[order])
                )  # compiles
                start = time.perf_counter()
                got = jax.device_get(sampler(params, read, sizes_read, keys[order]))
                seconds = time.perf_counter() - start
                if name == "strict":
                    again = score(read, sizes_read, got.tokens, got.lengths)
                else:
                    again = trainer_logprobs(model, params, read, sizes_read, got)
                others = (got.tokens != whole.tokens[order]).any()
                print(
                    f"| {name} | {size} | {'mixed' if order[0] else 'straight'} | "
                    f"{shown(most(got.logprobs, whole.logprobs[order]))}"
                    f"{', other tokens' if others else ''} | "
                    f"{shown(most(got.logprobs, again))} | {seconds:.3f} |"
                )
    packed = trainer_logprobs(model, params, prompts, lengths, whole)
    print(f"\nstrict against the packed pass: {shown(most(packed, whole.logprobs))}")


if __name__ == "__main__":
    chosen = tyro.cli(Sizes, description=__doc__)
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {chosen}\n")
    print_operations(chosen)
    print_attention()
    print_samplers(chosen)
