"""One call of every public function: arrays chosen by the names of its arguments.

A function that is added finds its arrays here if its arguments have the usual names;
what else it needs stands under its own name. `test_every_mesh.py` goes through
`losses.__all__` and fails where a name has no call.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxrl_reason.losses as lib

B, T, S, V, D, K, GROUPS = 8, 16, 8, 24, 6, 3, 3
Array = np.ndarray

# On the host, of no arrays: the same on any mesh.
NO_ARRAYS = {"Counts", "majority_answer", "majority_at_k"}


class Call(NamedTuple):
    """A function, its arrays [B, ...] or of other shapes, and what is no array."""

    function: Callable
    arrays: dict[str, Any]
    settings: dict[str, Any]


def usual_arrays(length: int = T) -> dict[str, Any]:
    """Arrays by the names that arguments have everywhere."""
    rng = np.random.default_rng(0)

    def floats(*shape: int, low: float = -1.0, high: float = 1.0) -> Array:
        return rng.uniform(low, high, shape).astype(np.float32)

    lengths = rng.integers(3, length + 1, B)
    lengths[2] = 0
    mask = (np.arange(length) < lengths[:, None]) & (rng.random((B, length)) > 0.1)
    logprobs = floats(B, length, low=-3.0, high=-0.1)
    step_ends = np.sort(rng.integers(0, length, (B, S)), axis=1).astype(np.int32)
    near = {
        name: (logprobs + 0.3 * floats(B, length)).astype(np.float32)
        for name in (
            "old_logprobs",
            "ref_logprobs",
            "sampler_logprobs",
            "teacher_logprobs",
        )
    }
    rows = {
        name: floats(B, low=low, high=high)
        for name, low, high in (
            ("advantages", -2, 2),
            ("greedy_rewards", 0, 1),
            ("scores", -1, 1),
            ("policy_chosen", -9, -4),
            ("policy_rejected", -9, -4),
            ("ref_chosen", -9, -4),
            ("ref_rejected", -9, -4),
            ("chosen_lengths", 4, 9),
            ("rejected_lengths", 4, 9),
            ("correct_scores", -1, 1),
            ("wrong_scores", -1, 1),
            ("labels", 0, 1),
        )
    }
    tokens = {
        name: floats(B, length)
        for name in ("values", "old_values", "returns", "token_rewards")
    }
    return {
        "logprobs": logprobs,
        **near,
        **rows,
        **tokens,
        "x": floats(B, length, low=0.5, high=1.5),  # sums of it do not cancel
        "mask": mask,
        "group_ids": np.array([0, 1, 0, 2, 1, 0, 2, 2], np.int32),
        "rewards": rng.integers(0, 3, B).astype(np.float32),
        "lengths": lengths.astype(np.int32),
        "correct": rng.integers(0, 2, B),
        "truncated": rng.integers(0, 2, B),
        "helpful": rng.integers(0, 2, B),
        "outcomes": rng.integers(0, 2, B).astype(np.float32),
        "valid": np.array([1, 1, 1, 0, 1, 1, 1, 1]),
        "entropy": floats(B, length, low=0.0, high=2.0),
        "weights": floats(B, length, low=0.2, high=2.0),
        "divergence": floats(B, length, low=0.0, high=2.0),
        "process_rewards": floats(B, length),
        "tokens": rng.integers(0, 4, (B, length)).astype(np.int32),
        "step_scores": floats(B, S, low=0.0),
        "step_ends": step_ends,
        "step_mask": rng.random((B, S)) > 0.2,
        "step_rewards": floats(B, S, low=0.0),
        "step_ids": np.sort(rng.integers(0, S, (B, length)), axis=1).astype(np.int32),
        "state_ids": rng.integers(0, 4, (B, S)).astype(np.int32),
        "squared_probs": floats(B, length, low=0.2, high=0.9),
        "reward_components": rng.integers(0, 3, (B, K)).astype(np.float32),
        "chosen_scores": floats(B, 4),
        "rejected_scores": floats(B, 5),
        "logits": floats(B, length, V, low=-3.0, high=3.0),
        "teacher_logits": floats(B, length, V, low=-3.0, high=3.0),
        "hidden": floats(B, length, D),
        "unembed": floats(D, V),
        "teacher_hidden": floats(B, length, D),
        "teacher_unembed": floats(D, V),
        "teacher_ids": rng.integers(0, K, B).astype(np.int32),
        "seed_correct": rng.integers(0, 2, B),
        "variant_correct": rng.integers(0, 2, (B, length)),
        "accuracy": floats(B, low=0.5),
        "perturbed_accuracy": floats(B, low=0.1),
        "num_samples": np.full(B, 16),
        "num_correct": rng.integers(0, 17, B),
        "pass_rates": floats(B, length, low=0.0),
        "passed": rng.integers(0, 2, (B, length)),
        "levels": rng.integers(0, 3, (B, length)).astype(np.int32),
        "chosen_mask": rng.random((B, 4)) > 0.3,
        "rejected_mask": rng.random((B, 5)) > 0.3,
        "has_teacher": rng.integers(0, 2, B),
        "losses": floats(B, low=0.1),
        "previous_losses": floats(B, low=0.1),
        "log_variances": floats(B),
        "gradients": [floats(B, length) for _ in range(3)],
        "coef": np.float32(0.1),
        "kl": np.float32(0.2),
    }


def settings() -> dict[str, Any]:
    """What is no array, by the names that arguments have everywhere."""
    return {
        "num_groups": GROUPS,
        "num_states": 4,
        "num_pairs": B - 1,
        "length": 8.0,
        "ratio_high": 2.0,
        "low": 0.5,
        "high": 2.0,
        "fraction": 0.3,
        "delta": 0.05,
        "mean": 0.8,
        "n": 2,
        "penalty": -1.0,
        "max_length": 12,
        "cache_length": 6,
        "k": 4,
        "target": 0.1,
        "horizon": 100.0,
        "num_samples": np.float32(8),
        "edges": (0.7, 0.3),
        "scores": (0.2, 0.3, 0.5),
        "chunk_size": 24,
        "log_ratio_low": -0.2,
        "log_ratio_high": 0.2,
        "pull_coef": 0.1,
    }


def own_arguments(usual: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Arguments that mean something else in one function, or that it alone needs."""
    key = {"key": jax.random.key(0)}
    all_terms = {
        "ref_logprobs": usual["ref_logprobs"],
        "kl_coef": 0.1,
        "entropy": usual["entropy"],
        "entropy_coef": 0.01,
        "weights": usual["weights"],
    }
    vector = usual["losses"]
    teachers = np.stack([usual["teacher_logprobs"]] * K)
    few = {name: np.asarray(usual["logits"])[..., :4] for name in ("logprobs",)}
    return {
        "ppo_loss": all_terms,
        "grpo_loss": {"ref_logprobs": usual["ref_logprobs"]},
        "batch_counts": {"group_ids": usual["group_ids"], "num_groups": GROUPS},
        "gae": {"rewards": usual["token_rewards"], "gamma": 0.9, "lam": 0.8},
        "turn_gae": {"rewards": usual["token_rewards"], "gamma": 0.9, "lam": 0.8},
        "discounted_returns": {"rewards": usual["token_rewards"], "gamma": 0.9},
        "clip_cov": {**key, "low": -1.0, "high": 1.0},
        "clip_cov_loss": {**key, "low": -1.0, "high": 1.0},
        "clip_cov_tokens": {**key, "low": -1.0, "high": 1.0},
        "kl_cov": {"fraction": 0.3},
        "kl_cov_loss": {"fraction": 0.3},
        "high_entropy_mask": {"fraction": 0.3},
        "kl_in_reward": {"coef": 0.1},
        "pcgrad": key,
        "pcgrad_coefficients": key,
        "combine_gradients": {"weights": np.array([0.2, 0.3, 0.5], np.float32)},
        "weighted_sum": {"weights": vector[::-1].copy()},
        "tchebycheff": {"weights": vector[::-1].copy()},
        "smooth_tchebycheff": {"weights": vector[::-1].copy()},
        "adaptive_entropy_update": {"entropy": np.float32(0.1)},
        "pass_at_k": {"num_samples": usual["num_samples"]},
        "difficulty_reward": {"scores": (0.2, 0.3, 0.5)},
        "rejection_mask": {"low": 0.9, "high": 1.1},
        "token_repetition_penalty": {"n": 2},
        "repetition_penalty": {"penalty": -1.0},
        "select_teacher": {"teacher_logprobs": teachers},
        "top_k_jsd": {
            "logprobs": few["logprobs"] - 5.0,
            "teacher_logprobs": few["logprobs"][::-1] - 5.0,
        },
        "pairwise_ranking_loss": {
            "chosen_mask": usual["chosen_mask"],
            "rejected_mask": usual["rejected_mask"],
            "num_steps": 7,
        },
        "gdpo_advantages": {"weights": np.array([1.0, 0.5, 2.0], np.float32)},
        "chunked_logprobs": {"chunk_size": 24, "temperature": 0.7},
        "token_logprobs": {"temperature": 0.7},
        "chunked_jsd": {"chunk_size": 24},
        "asp": {"valid": usual["mask"]},
    }


def is_array(value: Any) -> bool:
    return all(
        isinstance(leaf, np.ndarray | np.floating) for leaf in jax.tree.leaves(value)
    )


def every_call(length: int = T) -> dict[str, Call]:
    """A call for each public name whose arguments are known here."""
    usual = usual_arrays(length)
    counts = lib.batch_counts(usual["mask"], usual["group_ids"], num_groups=GROUPS)
    positive = usual["mask"] & (usual["correct"] != 0)[:, None]
    # Settings first: `scores` and others are arrays elsewhere.
    known = {
        **settings(),
        **usual,
        "counts": counts,
        "positive_counts": lib.batch_counts(positive),
    }
    own = own_arguments(usual)
    calls = {}
    for name in sorted(set(lib.__all__) - NO_ARRAYS):
        function = getattr(lib, name)
        parameters = inspect.signature(function).parameters.values()
        mine = own.get(name, {})
        names = [
            p.name
            for p in parameters
            if p.default is p.empty or p.name in {"valid", "num_pairs", *mine}
        ]
        if not all(n in mine or n in known for n in names):
            continue
        given = {n: mine.get(n, known.get(n)) for n in names}
        arrays = {n: v for n, v in given.items() if is_array(v) and n != "counts"}
        arrays.pop("positive_counts", None)
        rest = {n: v for n, v in given.items() if n not in arrays}
        calls[name] = Call(function, arrays, rest)
    return calls
