"""Another rule of attention, written in one function, holds wherever there is one."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import chunked_logprobs
from jaxrl_reason.models import Transformer, unembedding
from jaxrl_reason.models.attention import mask_scores
from jaxrl_reason.sampler import make_batch_sampler, make_sampler
from tests.models.numpy_transformer import build
from tests.sampler.small import (
    BATCH,
    KEYS,
    LENGTHS,
    SAMPLES,
    SETTINGS,
    SMALL,
    TOKENS,
    WIDTH,
    check_same,
)

CAP = 0.2
# Of its own, so that nothing is compiled for it yet.
CONFIG = replace(SMALL, context_length=63)


def soft_cap(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """Scores bent into (-CAP, CAP), as Gemma 2 has it."""
    return mask_scores(CAP * jnp.tanh(scores / CAP), mask)


def test_a_soft_cap_is_one_change(monkeypatch: pytest.MonkeyPatch) -> None:
    _, params = build(SMALL)
    model, settings = Transformer(CONFIG), replace(SETTINGS, eos_token_ids=())

    def trainer(tokens: jax.Array) -> jax.Array:
        """Log-probs [B, T] of responses [B, T], by the training forward."""
        rows = np.zeros((len(tokens), WIDTH + tokens.shape[1]), np.int32)
        starts = np.repeat(LENGTHS, SAMPLES)
        for b, start in enumerate(starts):
            rows[b, :start] = TOKENS[b // SAMPLES, :start]
            rows[b, start : start + tokens.shape[1]] = tokens[b]
        columns = np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
        hidden = model.apply(
            {"params": params}, jnp.asarray(rows), columns, np.ones_like(rows)
        )
        at = starts[:, None] - 1 + np.arange(tokens.shape[1])[None]
        hidden = jnp.take_along_axis(hidden, at[..., None], axis=1)
        return chunked_logprobs(hidden, unembedding(model, params), tokens)[0]

    monkeypatch.setattr("jaxrl_reason.models.attention.mask_scores", soft_cap)
    got = make_sampler(model, settings, SAMPLES)(params, TOKENS, LENGTHS, KEYS)
    capped = trainer(got.tokens)
    np.testing.assert_allclose(got.logprobs, capped, atol=1e-5)
    batch = make_batch_sampler(model, settings, SAMPLES, BATCH)
    check_same(batch(params, TOKENS, LENGTHS, KEYS), got)
    monkeypatch.undo()
    assert float(jnp.abs(trainer(got.tokens) - capped).max()) > 1e-3
