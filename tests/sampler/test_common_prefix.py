"""What all prompts begin with is read and kept once, and changes no token."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxrl_reason.sampler import (
    BatchSettings,
    common_prefix,
    make_batch_sampler,
    make_sampler,
)
from jaxrl_reason.sampler.prefixes import SharedSoFar
from tests.models.numpy_transformer import VARIANTS, build
from tests.sampler.small import (
    BATCH,
    CHANGING,
    KEYS,
    LENGTHS,
    SAMPLES,
    SETTINGS,
    SMALL,
    TOKENS,
    WIDTH,
    check_same,
)

SHARED = tuple(TOKENS[0, :3].tolist())
ALIKE = np.concatenate([np.tile(TOKENS[:1, :3], (len(TOKENS), 1)), TOKENS[:, 3:]], 1)
LENGTHS_ALIKE = np.array([6, 4, 5, 6, 5])


@pytest.mark.parametrize("name", ["", "everything", "windows"])
@pytest.mark.parametrize(
    "batch",
    [BATCH, replace(CHANGING, slots_per_group=1, prompt_widths=(8,), cache_block=4)],
)
def test_a_common_beginning_is_read_once(name: str, batch: BatchSettings) -> None:
    model, params = build(VARIANTS[name] if name else SMALL)
    wanted = make_sampler(model, SETTINGS, SAMPLES)(params, ALIKE, LENGTHS_ALIKE, KEYS)
    batch = replace(batch, common_prefix=SHARED)
    made = make_batch_sampler(model, SETTINGS, SAMPLES, batch)
    check_same(made(params, ALIKE, LENGTHS_ALIKE, KEYS), jax.device_get(wanted))


def test_a_common_beginning_is_kept_once_and_compiled_by_the_warm_up() -> None:
    batch = replace(BATCH, common_prefix=SHARED, cache_block=0)
    made, params = (
        make_batch_sampler(build(SMALL)[0], SETTINGS, SAMPLES, batch),
        build(SMALL)[1],
    )
    made.warm_up(params, KEYS)
    jitted = [*vars(made._programs).values(), made._reader.prefill]
    before = [f._cache_size() for f in jitted]
    made(params, ALIKE, LENGTHS_ALIKE, KEYS)
    assert [f._cache_size() for f in jitted] == before
    cache = made._start(params, ALIKE, LENGTHS_ALIKE, KEYS).slots.cache
    assert cache.common[0].keys.shape == (1, SMALL.num_kv_heads, 1, SMALL.head_dim, 3)
    assert cache.prompts[0].size == WIDTH - 3


def test_a_prompt_with_another_beginning_is_refused() -> None:
    tokens, lengths = TOKENS.copy(), LENGTHS.copy()
    tokens[:, :2], lengths[:] = tokens[0, :2], 4
    tokens[3, 1] += 1
    lengths[1] = 2  # does not go on
    batch = replace(BATCH, common_prefix=tuple(tokens[0, :2].tolist()))
    made = make_batch_sampler(build(SMALL)[0], SETTINGS, SAMPLES, batch)
    said = (
        r"begin with common_prefix \(2 tokens\) and be longer, got others at \[1, 3\]"
    )
    with pytest.raises(ValueError, match=said):
        made(build(SMALL)[1], tokens, lengths, KEYS)
    with pytest.raises(ValueError, match=said.replace("1, 3", "0")):
        made(build(SMALL)[1], tokens[:1, :1], lengths[:1] * 0 + 1, KEYS[:SAMPLES])


def test_what_prompts_have_in_common() -> None:
    rows = [[*range(20), 30], [*range(20), 31, 32], [*range(18), 40, 41]]
    assert common_prefix(rows) == tuple(range(18))
    assert common_prefix([rows[0], rows[0]]) == tuple(range(20))  # each goes on
    assert (
        common_prefix(rows[:1]) == common_prefix([]) == common_prefix([[], [1]]) == ()
    )
    shared = SharedSoFar()
    assert shared(rows[:1]) == ()
    assert shared(rows[:2]) == tuple(range(20))
    assert shared([rows[0]]) == tuple(range(20))
    assert shared([list(range(20))]) == tuple(range(19))
    assert shared(rows) == tuple(range(18))
    assert shared([[1, 2]]) == shared(rows) == ()


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shorter than .* \(6\), got 6 tokens"):
        replace(BATCH, common_prefix=(1,) * 6)
    with pytest.raises(ValueError, match=r"common_prefix .* \(37\), got \[37\]"):
        make_batch_sampler(
            build(SMALL)[0], SETTINGS, SAMPLES, replace(BATCH, common_prefix=(1, 37))
        )
