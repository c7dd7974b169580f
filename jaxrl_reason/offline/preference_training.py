"""Offline preference training: one optimiser step per batch of pairs.

The reference is frozen, so its log-probs are computed once per batch, before the first
update. If it is the initial policy, no second model is kept in memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.learner.forward import logprobs_of
from jaxrl_reason.learner.packing import TrainBatch
from jaxrl_reason.learner.state import OptimizerSettings, TrainState
from jaxrl_reason.learner.update import Metrics, Objective
from jaxrl_reason.losses import Counts, sequence_logprobs
from jaxrl_reason.models import Transformer
from jaxrl_reason.offline.pair_learner import PairLearner, build_pair_learner
from jaxrl_reason.offline.preference_batch import Pair, PreferenceSettings, pack_pairs
from jaxrl_reason.offline.preference_methods import PreferenceMethod
from jaxrl_reason.runs.metrics_log import (
    Pairs,
    Row,
    add_metrics,
    finish_metrics,
)
from jaxrl_reason.sharding import BatchSharding

Params = Any


@dataclass(frozen=True)
class PairBatch:
    """The packed pairs of one update on the host, with the reference's log-probs.

    Attributes:
      batch: the packed pairs.
      num_active: number of micro-batches that hold pairs.
    """

    batch: TrainBatch
    num_active: int


def build_preference_learner(
    model: Transformer,
    method: PreferenceMethod,
    settings: PreferenceSettings,
    optimizer: OptimizerSettings,
    batch_sharding: BatchSharding,
) -> PairLearner[PreferenceMethod]:
    """Builds the jitted functions; nothing is compiled yet.

    Raises:
      ValueError: prompt and response do not fit the model's context, or the mesh does
        not divide the rows of a micro-batch.
    """
    logprobs = logprobs_of(model, 1.0)
    return build_pair_learner(
        logprobs,
        preference_objective(logprobs, method),
        method,
        settings,
        optimizer,
        batch_sharding,
        context_length=model.config.context_length,
    )


def preference_objective(
    logprobs: Callable[[Params, TrainBatch], jax.Array], method: PreferenceMethod
) -> Objective:
    """The method's loss on a packed micro-batch of pairs.

    The mean is over the pairs of the whole mini-batch: its groups, as `pack_pairs`
    numbers them.

    Args:
      logprobs: (params, batch) -> [Q, T] of the response tokens.
      method: the loss and its inputs.
    """

    def objective(
        params: Params, batch: TrainBatch, counts: Counts
    ) -> tuple[jax.Array, Metrics]:
        mask = batch.mask
        policy = halves(sequence_logprobs(logprobs(params, batch), mask))
        reference: tuple[jax.Array, ...] = ()
        if method.needs_reference:
            reference = halves(sequence_logprobs(batch["ref_logprobs"], mask))
        chosen_lengths, rejected_lengths = halves(mask.sum(axis=1))
        lengths = {
            "chosen_lengths": chosen_lengths,
            "rejected_lengths": rejected_lengths,
        }
        valid = (chosen_lengths > 0) & (rejected_lengths > 0)
        loss, metrics = method.loss(
            *policy,
            *reference,
            **{name: lengths[name] for name in method.lengths},
            **method.settings,
            valid=valid,
            num_pairs=counts.groups,
        )
        return loss, {**metrics, **likelihoods(policy, valid)}

    return objective


def halves(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[2B] of adjacent slots -> chosen [B] and rejected [B]."""
    both = x.reshape(-1, 2)
    return both[:, 0], both[:, 1]


def likelihoods(policy: tuple[jax.Array, jax.Array], valid: jax.Array) -> Metrics:
    """Log-probs of whole responses; both may fall while DPO's margin rises."""
    names = ("chosen_logprob", "rejected_logprob")
    pairs = jnp.sum(valid, dtype=jnp.float32)
    return {
        name: (jax.lax.stop_gradient(x).sum(where=valid), pairs)
        for name, x in zip(names, policy, strict=True)
    }


def prepare_pairs(
    learner: PairLearner[PreferenceMethod],
    pairs: Sequence[Pair],
    reference: Params | None,
) -> PairBatch:
    """Packs the pairs of one update and computes the reference's log-probs, once.

    Args:
      learner: the compiled functions.
      pairs: at most `pairs_per_update`.
      reference: parameters; None for a method that needs none.

    Raises:
      ValueError: the pairs do not fit, or a needed reference is missing.
    """
    batch, plan = pack_pairs(learner.settings, pairs)
    if learner.method.needs_reference:
        if reference is None:
            raise ValueError(f"{learner.method.name} must have a reference, got None")
        scores = learner.score(
            reference, learner.batch_sharding.put_batch(batch, axis=1), plan.num_active
        )
        batch = batch.with_inputs(ref_logprobs=learner.batch_sharding.fetch(scores))
    return PairBatch(batch, plan.num_active)


def preference_update(
    learner: PairLearner[PreferenceMethod], state: TrainState, prepared: PairBatch
) -> tuple[TrainState, Metrics]:
    """One optimiser step; the state is donated, the metric pairs stay on the device."""
    return learner.update(
        state,
        learner.batch_sharding.put_batch(prepared.batch, axis=1),
        prepared.num_active,
    )


def train_on_pairs(
    learner: PairLearner[PreferenceMethod],
    state: TrainState,
    pairs: Sequence[Pair],
    reference: Params | None = None,
) -> tuple[TrainState, Row]:
    """Trains for some epochs on the pairs, in shuffled batches of nearly equal size.

    Args:
      learner: the compiled functions.
      state: to start from; donated.
      pairs: at least one.
      reference: parameters of the frozen reference; the initial ones of `state` if left
        out, without a copy.

    Returns:
      The state, and the metrics over all updates with the number of `updates` and
      `pairs`.

    Raises:
      ValueError: there are no pairs, or some do not fit.
    """
    if not pairs:
        raise ValueError("pairs must hold at least one pair, got none")
    rng = np.random.default_rng(learner.settings.seed)
    frozen = state.params if reference is None else reference
    # Prepare all batches before the first update, which changes and donates the
    # parameters.
    prepared = [
        prepare_pairs(learner, [pairs[i] for i in places], frozen)
        for places in even_batches(len(pairs), learner.settings.pairs_per_update, rng)
    ]
    total: Pairs = {}
    for _ in range(learner.settings.epochs):
        for i in rng.permutation(len(prepared)):
            state, metrics = preference_update(learner, state, prepared[i])
            total = add_metrics(total, metrics)
    updates = learner.settings.epochs * len(prepared)
    row = finish_metrics(total, "preference")
    return state, row | {"preference/updates": updates, "preference/pairs": len(pairs)}


def even_batches(number: int, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Indices 0 .. number - 1, shuffled, in the fewest batches of at most `size`.

    Their sizes differ by at most one: a small last batch would give its few examples as
    much weight as a full one gives to many.

    >>> [len(b) for b in even_batches(10, 4, np.random.default_rng(0))]
    [4, 3, 3]
    """
    return np.array_split(rng.permutation(number), -(-number // size))
