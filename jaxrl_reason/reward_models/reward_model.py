"""Reward models: a transformer with a scalar head, trained to rank responses.

The score of a response is the head's value at its last token. Evaluated at every token,
the same model is a process reward model: `score_tokens` gives its score after each.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.learner.forward import critic_values
from jaxrl_reason.learner.packing import TrainBatch, pack_sequences
from jaxrl_reason.learner.state import OptimizerSettings, TrainState
from jaxrl_reason.learner.update import Metrics, Objective
from jaxrl_reason.losses import Counts
from jaxrl_reason.models import ValueModel
from jaxrl_reason.offline.pair_learner import PairLearner, build_pair_learner
from jaxrl_reason.offline.preference_batch import PreferenceSettings
from jaxrl_reason.offline.preference_training import even_batches
from jaxrl_reason.reward_models.reward_batch import Comparison, pack_comparisons
from jaxrl_reason.reward_models.reward_methods import RankingMethod
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.metrics_log import (
    Pairs,
    Row,
    add_metrics,
    finish_metrics,
)
from jaxrl_reason.sharding import BatchSharding

Params = Any


def build_reward_model_learner(
    model: ValueModel,
    method: RankingMethod,
    settings: PreferenceSettings,
    optimizer: OptimizerSettings,
    batch_sharding: BatchSharding,
) -> PairLearner[RankingMethod]:
    """Builds the jitted functions; nothing is compiled yet.

    Args:
      model: the reward model.
      method: the loss on scores and the head.
      settings: sizes; its pairs are comparisons, of W + L responses each.
      optimizer: of each training run.
      batch_sharding: places batches on the mesh.

    Raises:
      ValueError: prompt and response do not fit the model's context, a comparison does
        not fit into a row, or the mesh does not divide the rows of a micro-batch.
    """
    longest = sum(method.candidates) * (settings.max_prompt + settings.max_response)
    if settings.row_width < longest:
        raise ValueError(
            f"row_width must hold all responses of a comparison, each with its prompt "
            f"({longest} tokens), got {settings.row_width}"
        )

    def scores(params: Params, batch: TrainBatch) -> jax.Array:
        return token_scores(model, params, batch, tanh=method.tanh)

    return build_pair_learner(
        scores,
        ranking_objective(scores, method),
        method,
        settings,
        optimizer,
        batch_sharding,
        context_length=model.config.context_length,
    )


def token_scores(
    model: ValueModel, params: Params, batch: TrainBatch, *, tanh: bool = False
) -> jax.Array:
    """The head's value after each response token, [Q, T] float32.

    A critic's values are those before each token, one column to the left.
    """
    after = replace(batch, starts=batch.starts + 1)
    values = critic_values(model, params, after)
    return jnp.tanh(values) if tanh else values


def last_scores(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """[B, T] scores after each token -> [B] scores of whole responses.

    The last token is the mask's last True; 0 for a row without tokens.

    >>> scores = jnp.array([[1.0, 2.0, 9.0], [4.0, 9.0, 9.0]])
    >>> print(last_scores(scores, jnp.array([[1, 1, 0], [1, 0, 0]], bool)))
    [2. 4.]
    """
    later = jnp.cumsum(mask[:, ::-1], axis=1)[:, ::-1]  # unmasked tokens left
    return jnp.sum(jnp.where(mask & (later == 1), scores, 0.0), axis=1)


def ranking_objective(
    scores: Callable[[Params, TrainBatch], jax.Array], method: RankingMethod
) -> Objective:
    """The method's loss on a packed micro-batch of comparisons.

    Args:
      scores: (params, batch) -> [Q, T], scores after each response token.
      method: the loss and the number of candidates.
    """
    chosen, k = method.candidates[0], sum(method.candidates)

    def objective(
        params: Params, batch: TrainBatch, counts: Counts
    ) -> tuple[jax.Array, Metrics]:
        mask = batch.mask
        last = last_scores(scores(params, batch), mask).reshape(-1, k)
        there = mask.any(axis=1).reshape(-1, k)
        return method.loss(
            last[:, :chosen],
            last[:, chosen:],
            chosen_mask=there[:, :chosen],
            rejected_mask=there[:, chosen:],
            num_steps=counts.groups,
        )

    return objective


def train_on_comparisons(
    learner: PairLearner[RankingMethod],
    state: TrainState,
    comparisons: Sequence[Comparison],
    *,
    seed: int | None = None,
) -> tuple[TrainState, Row]:
    """Trains for some epochs on the comparisons, in shuffled batches of similar size.

    Args:
      learner: the compiled functions.
      state: to start from; donated.
      comparisons: at least one.
      seed: for the order; that of the settings if left out.

    Returns:
      The state, and the metrics of the last epoch, with the number of `updates` of all
      epochs and of `comparisons`.

    Raises:
      ValueError: there are no comparisons, or some do not fit.
    """
    if not comparisons:
        raise ValueError("comparisons must hold at least one, got none")
    s = learner.settings
    rng = np.random.default_rng(s.seed if seed is None else seed)
    updates = 0
    total: Pairs = {}
    for _ in range(s.epochs):
        total = {}
        for places in even_batches(len(comparisons), s.pairs_per_update, rng):
            chosen = [comparisons[i] for i in places]
            batch, plan = pack_comparisons(s, chosen, learner.method.candidates)
            state, metrics = learner.update(
                state, learner.batch_sharding.put_batch(batch, axis=1), plan.num_active
            )
            total = add_metrics(total, metrics)
            updates += 1
    row = finish_metrics(total, "reward_model")
    row["reward_model/updates"] = updates
    row["reward_model/comparisons"] = len(comparisons)
    return state, row


def score_tokens(
    learner: PairLearner[RankingMethod], params: Params, rollouts: Rollouts
) -> np.ndarray:
    """Scores after each token of sampled responses, [P, G, T]; 0 past the end.

    Batches have a fixed shape, so any number of rollouts compiles once.

    Raises:
      ValueError: a prompt or a response is longer than the settings say, or empty.
    """
    s = learner.settings
    for name, lengths, limit in (
        ("prompt", rollouts.prompt_lengths, s.max_prompt),
        ("response", rollouts.lengths, s.max_response),
    ):
        if lengths.min() < 1 or lengths.max() > limit:
            raise ValueError(
                f"a {name} must have 1 to {limit} tokens to be scored, "
                f"got one of {lengths.min() if lengths.min() < 1 else lengths.max()}"
            )
    p, g, t = rollouts.tokens.shape
    prompts = [
        rollouts.prompt_tokens[i, :n] for i, n in enumerate(rollouts.prompt_lengths)
    ]
    lengths = rollouts.lengths.reshape(-1)
    rows_of_tokens = rollouts.tokens.reshape(-1, t)
    responses = [x[:n] for x, n in zip(rows_of_tokens, lengths, strict=True)]
    shape = replace(s.shape, slots=sum(learner.method.candidates) * s.pairs_per_row)
    # This many always fit: packing leaves at most one row with fewer than a row holds.
    size = max(1, s.num_micro * shape.rows - 1)
    size *= min(shape.slots, shape.width // (s.max_prompt + s.max_response))
    out = np.zeros((p * g, max(t, s.max_response)), np.float32)
    for first in range(0, p * g, size):
        rows = slice(first, min(first + size, p * g))
        batch, plan = pack_sequences(
            [prompts[i // g] for i in range(rows.start, rows.stop)],
            responses[rows],
            shape,
            num_micro=s.num_micro,
            response_width=s.max_response,
        )
        found = learner.score(
            params, learner.batch_sharding.put_batch(batch, axis=1), plan.num_active
        )
        out[rows, : s.max_response] = learner.batch_sharding.fetch(found)[
            plan.micro, plan.slot
        ]
    mask = np.arange(t) < rollouts.lengths[..., None]  # [P, G, T]
    return np.where(mask, out[:, :t].reshape(p, g, t), np.float32(0))


def reward_model_scores(
    learner: PairLearner[RankingMethod], params: Params, rollouts: Rollouts
) -> np.ndarray:
    """Scores of whole responses [P, G]: a reward for `Method.rewards`.

    `lambda rollouts: reward_model_scores(learner, state.params, rollouts)` is one.

    Raises:
      ValueError: as `score_tokens`.
    """
    scores = score_tokens(learner, params, rollouts)
    last = rollouts.lengths[..., None] - 1
    return np.take_along_axis(scores, last, axis=2)[..., 0]
