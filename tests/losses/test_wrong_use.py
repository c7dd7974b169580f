"""Wrong use of a public function is a clear ValueError while tracing.

Every function that takes arrays of a batch is called with arrays that fit, chosen by
the names of its arguments, and then with one of them of another rank, of fewer rows or
of the wrong type. A new function is found by itself. Settings out of range are refused
in the tests of each function.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_reason.losses as lib
from tests.losses.battery import Batch, Case, random_batch
from tests.losses.every_loss import LOSSES

BATCH = random_batch(0)
# By NumPy: what is computed at import is computed in every run of any test.
COUNTS = lib.Counts(*np.ones(3, np.int32), np.ones(4, np.int32))
B, T = BATCH.mask.shape
ROWS, TOKENS = np.ones(B, np.float32), -np.ones((B, T), np.float32)
EACH_TOKEN = """logprobs old_logprobs ref_logprobs sampler_logprobs x values old_values
    returns token_rewards process_rewards entropy weights teacher_logprobs
    divergence"""
EACH_ROW = """rewards greedy_rewards lengths correct outcomes labels truncated scores
    helpful policy_chosen policy_rejected ref_chosen ref_rejected chosen_lengths
    rejected_lengths correct_scores wrong_scores valid"""


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


FITTING: dict[str, Any] = {
    **dict.fromkeys(words(EACH_TOKEN), TOKENS),
    **dict.fromkeys(words(EACH_ROW), ROWS),
    "advantages": ROWS,
    "mask": BATCH.mask,
    "group_ids": BATCH.group_ids,
    "num_groups": 4,
    "counts": COUNTS,
    "positive_counts": COUNTS,
    "num_pairs": B,
    "tokens": np.ones((B, T), np.int32),
    "step_scores": np.ones((B, 2), np.float32),
    "step_ends": np.ones((B, 2), np.int32),
    "step_mask": np.ones((B, 2), bool),
    "step_rewards": np.ones((B, 2), np.float32),
    "state_ids": np.zeros((B, 2), np.int32),
    "step_ids": np.zeros((B, T), np.int32),
    "num_states": 3,
    "squared_probs": np.full((B, T), 0.5, np.float32),
    "log_ratio_low": -1.0,
    "log_ratio_high": 1.0,
    "pull_coef": 0.1,
    "reward_components": np.ones((B, 2), np.float32),
    "chosen_scores": np.ones((B, 2), np.float32),
    "rejected_scores": np.ones((B, 3), np.float32),
    "logits": np.ones((B, T, 5), np.float32),
    "hidden": np.ones((B, T, 3), np.float32),
    "unembed": np.ones((3, 5), np.float32),
    "teacher_logits": np.ones((B, T, 5), np.float32),
    "teacher_hidden": np.ones((B, T, 4), np.float32),
    "teacher_unembed": np.ones((4, 5), np.float32),
    "teacher_ids": np.zeros(B, np.int32),
    "length": 8.0,
    "ratio_high": 2.0,
    "low": 0.5,
    "high": 2.0,
    "fraction": 0.5,
    "coef": 0.1,
    "delta": 0.5,
    "cap": 2.0,
    "n": 2,
    "penalty": -1.0,
    "beta": 0.1,
    "gamma": 0.5,
    "max_length": 8,
}
# What a function takes beside these, or under the same name.
OTHERS = {
    "discounted_returns": {"rewards": TOKENS},
    "gae": {"rewards": TOKENS},
    "turn_gae": {"rewards": TOKENS},
    "select_teacher": {"teacher_logprobs": np.stack([TOKENS, TOKENS])},
    "normalize_weights": {"mean": 1.0},
    "rejection_mask": {"low": 0.5, "high": 2.0},
    "clip_cov": {"key": jax.random.key(0)},
    "clip_cov_loss": {"key": jax.random.key(0)},
    "clip_cov_tokens": {"key": jax.random.key(0)},
}
# These take numbers, lists or arrays of any shape, and have refusals of their own.
NO_BATCH = set(
    words("""adaptive_entropy_update adaptive_kl_update asp avg_at_k combine_gradients
    count_pairs count_steps difficulty_levels difficulty_reward dwa_weights
    length_adaptive_lambda majority_answer majority_at_k mgda_weights pass_at_k pcgrad
    pcgrad_coefficients pdr smooth_tchebycheff soft_overlong_penalty tchebycheff
    uncertainty_weighting weighted_sum""")
)
FUNCTIONS = [name for name in lib.__all__ if name not in NO_BATCH and name != "Counts"]
LOGPROBS = ("logprobs", "old_logprobs", "ref_logprobs", "sampler_logprobs")
OPTIONAL = {"valid", "num_pairs"}  # given where a function has them


def fitting(name: str) -> dict[str, Any]:
    """The arguments that a function needs, and the optional arrays among them."""
    parameters = inspect.signature(getattr(lib, name)).parameters.values()
    own = OTHERS.get(name, {})
    known = {**FITTING, **own}
    wanted = OPTIONAL | own.keys()
    return {
        p.name: known[p.name]
        for p in parameters
        if p.default is p.empty or p.name in wanted
    }


def trace(name: str, arguments: dict[str, Any]) -> None:
    """Traced in its arrays: an error must not need their values."""
    arrays = {k: v for k, v in arguments.items() if isinstance(v, np.ndarray)}
    rest = {k: v for k, v in arguments.items() if k not in arrays}
    jax.eval_shape(lambda given: getattr(lib, name)(**given, **rest), arrays)


def wrong(name: str) -> dict[str, dict[str, Any]]:
    """Arguments with one of them wrong, by what is wrong."""
    good = fitting(name)
    arrays = [k for k, v in good.items() if isinstance(v, np.ndarray)]
    bad = {}
    for k in arrays:
        if len(arrays) > 1:  # one array alone may be a part of the batch
            bad[f"{k} of another rank"] = {k: good[k][None]}
            if len(good[k]) == B:  # not an axis of teachers
                bad[f"{k} with fewer rows"] = {k: good[k][:-1]}
        if k in LOGPROBS:
            bad[f"{k} of integers"] = {k: good[k].astype(np.int32)}
        if k == "group_ids":
            bad[f"{k} of floats"] = {k: good[k].astype(np.float32)}
    for k in good.keys() & {"counts", "num_groups"}:
        bad[f"no {k}"] = {k: None}
    return {what: {**good, **change} for what, change in bad.items()}


WRONG = [(name, what) for name in FUNCTIONS for what in sorted(wrong(name))]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_fitting_arrays_are_taken(name: str) -> None:
    trace(name, fitting(name))


@pytest.mark.parametrize(("name", "what"), WRONG)
def test_wrong_arrays_are_refused(name: str, what: str) -> None:
    with pytest.raises(ValueError, match=r" must .*got "):
        trace(name, wrong(name)[what])


def test_the_functions_without_a_batch_are_few() -> None:
    assert set(lib.__all__) >= NO_BATCH
    assert len(FUNCTIONS) > 70


def integers(b: Batch) -> Batch:
    return b._replace(x=b.x.astype(np.int32))


def narrow(b: Batch) -> Batch:
    return b._replace(mask=b.mask[:, :-1])


@pytest.mark.parametrize("case", LOSSES, ids=str)
def test_every_policy_loss_refuses(case: Case) -> None:
    changed = {
        "integers": (integers(BATCH), COUNTS),
        "one row": (BATCH._replace(x=BATCH.x[0]), COUNTS),
        "fewer rows": (BATCH._replace(x=BATCH.x[:-1]), COUNTS),
        "another rank": (BATCH._replace(x=BATCH.x[None]), COUNTS),
        "a narrow mask": (narrow(BATCH), COUNTS),
        "counts that are a number": (BATCH, 8),
    }
    for b, counts in changed.values():
        with pytest.raises(ValueError, match=r"must .*, got "):
            jax.eval_shape(lambda x, b=b, c=counts: case.loss(x, b, c), b.x)


CLIPPED = [
    n
    for n in FUNCTIONS
    if {"clip_low", "ratio_high"} & set(inspect.signature(getattr(lib, n)).parameters)
]


@pytest.mark.parametrize("name", CLIPPED)
def test_bounds_out_of_range_are_refused(name: str) -> None:
    function: Callable = getattr(lib, name)
    parameters = inspect.signature(function).parameters
    bad = {
        "clip_low": (-0.1, np.nan, np.inf),
        "clip_high": (-0.1, np.nan, np.inf),
        "dual_clip": (1.0, 0.5, np.nan),
        "ratio_low": (-0.1, 1.5, np.nan),
        "ratio_high": (0.5, np.nan, np.inf),
    }
    for setting in bad.keys() & parameters.keys():
        for value in bad[setting]:
            with pytest.raises(ValueError, match=f"{setting} must be .*, got {value}"):
                trace(name, {**fitting(name), setting: value})


def test_group_ids_need_the_number_of_groups() -> None:
    with pytest.raises(ValueError, match="group_ids must come with num_groups, got"):
        lib.batch_counts(BATCH.mask, BATCH.group_ids)
    with pytest.raises(ValueError, match="num_groups must come with group_ids, got"):
        lib.batch_counts(BATCH.mask, num_groups=4)
    with pytest.raises(ValueError, match="num_groups must be a static integer"):
        jax.jit(lambda n: lib.grpo_advantages(ROWS, BATCH.group_ids, num_groups=n))(4)
    counts = lib.batch_counts(BATCH.mask)
    with pytest.raises(ValueError, match=r"counts must .*, got"):
        lib.prompt_mean(TOKENS, BATCH.mask, BATCH.group_ids, counts, num_groups=4)


@pytest.mark.parametrize(
    "function",
    [
        lib.pcgrad,
        lib.pcgrad_coefficients,
        lib.mgda_weights,
        lambda none: lib.combine_gradients(none, jnp.zeros(0)),
        lambda none: lib.dwa_weights(none, none),
        lambda none: lib.uncertainty_weighting(none, none),
        lambda none: lib.weighted_sum(none, none),
        lambda none: lib.tchebycheff(none, none, ideal=none),
        lambda none: lib.smooth_tchebycheff(none, none, ideal=none),
    ],
)
def test_an_empty_list_is_refused(function: Callable) -> None:
    with pytest.raises(ValueError, match=r"must hold at least one .*, got"):
        function([])
