from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.sampler import SamplingSettings, sampling_keys


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be >= 1, got 0"),
        ({"eos_token_ids": (3, -1)}, r"eos_token_ids must be >= 0, got \(3, -1\)"),
        ({"temperature": -1.0}, r"temperature must be from 0.001 on .* got -1.0"),
        ({"temperature": 1e-30}, r"temperature must be from 0.001 on .* got 1e-30"),
        (
            {"temperature": float("nan")},
            r"temperature must be from 0.001 on .* got nan",
        ),
        ({"top_k": -2}, "top_k must be >= 0, got -2"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1, got 1.5"),
        ({"min_p": -0.1}, "min_p must be from 0 to 1, got -0.1"),
    ],
)
def test_bad_values_name_field_rule_and_value(
    change: dict[str, Any], message: str
) -> None:
    good: dict[str, Any] = {"max_new_tokens": 4, "eos_token_ids": (1,)}
    with pytest.raises(ValueError, match=message):
        SamplingSettings(**{**good, **change})


def data(keys: jax.Array) -> np.ndarray:
    return np.asarray(jax.random.key_data(keys))


def test_keys_follow_the_prompt_and_not_its_place() -> None:
    keys = data(sampling_keys(0, 5, jnp.array([7, 3, 9]), 4)).reshape(3, 4, 2)
    moved = data(sampling_keys(0, 5, jnp.array([9, 7]), 4)).reshape(2, 4, 2)
    np.testing.assert_array_equal(moved[0], keys[2])
    np.testing.assert_array_equal(moved[1], keys[0])
    fewer = data(sampling_keys(0, 5, jnp.array([7]), 2))
    np.testing.assert_array_equal(fewer, keys[0, :2])


def test_keys_differ_by_seed_step_prompt_and_sample() -> None:
    many = [
        data(sampling_keys(seed, step, jnp.arange(5), 6))
        for seed in range(3)
        for step in range(3)
    ]
    assert len(np.unique(np.concatenate(many), axis=0)) == 3 * 3 * 5 * 6


def test_keys_can_be_made_under_jit() -> None:
    made = jax.jit(lambda step, ids: sampling_keys(1, step, ids, 2))(3, jnp.arange(2))
    np.testing.assert_array_equal(
        data(made), data(sampling_keys(1, 3, jnp.arange(2), 2))
    )


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="num_samples must be >= 1, got 0"):
        sampling_keys(0, 0, jnp.arange(2), 0)
