"""One iteration of reinforcement learning, from problems to an updated policy."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxrl_reason.training.batch import Rollouts
from jaxrl_reason.training.collect import Collected, collect_groups, sample_groups
from jaxrl_reason.training.methods import Experience, rows_in_loss
from jaxrl_reason.training.metrics import Pairs, Row, add_metrics, finish_metrics
from jaxrl_reason.training.minibatches import Minibatch, score_sequences
from jaxrl_reason.training.monitor import PhaseTimer
from jaxrl_reason.training.rl_parts import RLParts, RLState
from jaxrl_reason.training.rollout_metrics import mismatch_metrics, rollout_metrics
from jaxrl_reason.training.state import TrainState


def rl_iteration(
    parts: RLParts, state: RLState, problems: Iterator[Sequence[Any]], timer: PhaseTimer
) -> tuple[RLState, Row, Collected]:
    """One step: roll out, score, estimate advantages, update several times.

    Args:
      parts: the compiled pieces.
      state: of the run; its policy and critic are donated.
      problems: batches of `prompts_per_step` problems.
      timer: gets the seconds of each phase.

    Returns:
      The new state, the step's metrics, and what was collected.

    Raises:
      NoSignalError: dynamic sampling did not fill the batch within its bound.
    """
    s, method = parts.settings, parts.method

    # Problems -> graded groups of responses; refilled until the batch is full.
    collected = collect_groups(
        partial(draw_groups, parts, state, timer),
        problems,
        method,
        num_prompts=s.prompts_per_step,
        surplus=state.surplus,
        first_draw=state.draws,
        max_rounds=s.max_rounds,
    )
    rollouts = collected.rollouts
    with timer("train"):
        # Mini-batches of whole groups, packed. Responses out of the loss stay in the
        # group statistics.
        counted = rows_in_loss(method, rollouts).reshape(-1)
        rng = np.random.default_rng((s.seed, state.step))
        minibatches = parts.plan.split(rollouts, rng, counted)

        # Old log-probs: the policy before its first update. Reference log-probs and
        # values only if the method has use for them.
        seen = look_at_rollouts(parts, state, rollouts, minibatches)
        estimate = jax.device_get(parts.advantages(seen))

        # Several updates a rollout: from the second on, ratios differ from 1.
        fields = training_fields(parts, seen, estimate, rollouts)
        learning_rate = float(parts.learning_rate(int(state.policy.step)))
        policy, critic, pairs = run_updates(parts, state, minibatches, fields)
        row = finish_metrics(pairs)

    fresh = np.repeat(rollouts.policy_step == state.step, s.group_size)[:, None]
    row |= rollout_metrics(collected)
    row |= mismatch_metrics(
        fields["sampler_logprobs"],
        fields["old_logprobs"],
        np.asarray(seen.mask) & fresh,
    )
    row |= {"learning_rate": learning_rate, "updates": len(minibatches)}
    state = replace(
        state,
        policy=policy,
        critic=critic,
        surplus=collected.surplus,
        step=state.step + 1,
        draws=state.draws + collected.rounds,
    )
    return state, row, collected


def draw_groups(
    parts: RLParts,
    state: RLState,
    timer: PhaseTimer,
    problems: Sequence[Any],
    draw: int,
) -> Rollouts:
    """One round of sampling and grading with the current policy."""
    return sample_groups(
        parts.task,
        parts.sample,
        state.policy.params,
        problems,
        group_size=parts.settings.group_size,
        prompt_width=parts.settings.prompt_width,
        seed=parts.settings.seed,
        draw=draw,
        policy_step=state.step,
        place=parts.place,
        timer=timer,
    )


def look_at_rollouts(
    parts: RLParts, state: RLState, rollouts: Rollouts, minibatches: list[Minibatch]
) -> Experience:
    """Forward passes over the rollouts: all that an advantage estimator may look at."""
    s = parts.settings
    ref_logprobs, values = None, None
    old = score_sequences(parts.score, state.policy.params, minibatches, parts.place)
    if state.reference is not None:
        ref_logprobs = score_sequences(
            parts.score, state.reference, minibatches, parts.place
        )
    if parts.values is not None and state.critic is not None:
        values = score_sequences(
            parts.values, state.critic.params, minibatches, parts.place
        )
    return Experience(
        rewards=rollouts.rewards.reshape(-1),
        lengths=rollouts.lengths.reshape(-1),
        mask=rollouts.mask().reshape(s.sequences, -1),
        group_ids=np.repeat(np.arange(s.prompts_per_step), s.group_size),
        old_logprobs=old,
        ref_logprobs=ref_logprobs,
        values=values,
        num_groups=s.prompts_per_step,
        truncated=rollouts.truncated.reshape(-1),
    )


def training_fields(
    parts: RLParts, seen: Experience, estimate: Any, rollouts: Rollouts
) -> dict[str, np.ndarray]:
    """Arrays [B, T] or [B] of the TrainBatch, those that the method uses."""
    advantages = estimate.advantages
    sampler = rollouts.sampler_logprobs.reshape(seen.mask.shape)
    weights, correct = None, None
    if parts.weights is not None:
        weights = parts.weights(seen.old_logprobs, sampler, seen.mask)
    if "correct" in parts.method.loss_inputs:
        correct = rollouts.correct.reshape(-1)
    if advantages.ndim == 1:
        advantages = np.where(seen.mask, advantages[:, None], 0.0)
    fields = {
        "sampler_logprobs": sampler,
        "old_logprobs": seen.old_logprobs,
        "ref_logprobs": seen.ref_logprobs,
        "advantages": advantages,
        "returns": estimate.returns,
        "old_values": seen.values if estimate.returns is not None else None,
        "weights": weights,
        "correct": correct,
    }
    return {name: np.asarray(x) for name, x in fields.items() if x is not None}


def run_updates(
    parts: RLParts,
    state: RLState,
    minibatches: list[Minibatch],
    fields: dict[str, np.ndarray],
) -> tuple[TrainState, TrainState | None, Pairs]:
    """One optimiser step a mini-batch, for the policy and for a critic."""
    policy, critic = state.policy, state.critic
    pairs: Pairs = {}
    for i, minibatch in enumerate(minibatches):
        full = minibatch.with_fields(**fields)
        batch, live = parts.place.rows(full.batch), full.plan.live
        if parts.select is not None:
            # Tokens are chosen with the whole mini-batch and the policy of now.
            key = jax.random.key(parts.settings.seed)
            key = jax.random.fold_in(key, state.step * len(minibatches) + i)
            now = parts.score(policy.params, batch, live)
            chosen = parts.select(now, batch, key)
            batch = parts.place.rows(replace(batch, selected=chosen))
        policy, metrics = parts.update(policy, batch, live)
        pairs = add_metrics(pairs, metrics)
        if parts.update_critic is not None and critic is not None:
            critic, metrics = parts.update_critic(critic, batch, live)
            metrics = {f"critic_{name}": pair for name, pair in metrics.items()}
            pairs = add_metrics(pairs, metrics)
    return policy, critic, jax.device_get(pairs)
