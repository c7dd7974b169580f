"""One iteration of reinforcement learning, from problems to an updated policy."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxrl_reason.learner.packing import TrainBatch
from jaxrl_reason.learner.state import TrainState
from jaxrl_reason.losses import mismatch_metrics, mismatch_peaks
from jaxrl_reason.models import with_lora
from jaxrl_reason.rl.collect import (
    Collected,
    collect_groups,
    rollout_metrics,
    sample_groups,
)
from jaxrl_reason.rl.method import Advantages, Experience
from jaxrl_reason.rl.minibatches import RolloutBatch, run_updates, score_sequences
from jaxrl_reason.rl.partial_rollouts import PartialRounds, finder
from jaxrl_reason.rl.rl_learner import RLLearner, RLState
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.metrics_log import PhaseTimer, Row, finish_metrics
from jaxrl_reason.sampler import StrictSampler


def rl_iteration(
    learner: RLLearner,
    state: RLState,
    problems: Iterator[Sequence[Any]],
    timer: PhaseTimer,
) -> tuple[RLState, Row, Collected]:
    """One step: roll out, score, estimate advantages, update several times.

    Args:
      learner: the compiled functions.
      state: of the run; its policy and the models of components are donated.
      problems: batches of `prompts_per_step` problems.
      timer: records the seconds of each phase.

    Returns:
      The new state, the step's metrics, and what was collected.

    Raises:
      NoSignalError: dynamic sampling did not fill the batch in `max_rounds` rounds.
    """
    collected = collect(learner, state, problems, timer)
    state, row = train_step(learner, state, collected, timer)
    return state, row, collected


def collect(
    learner: RLLearner,
    state: RLState,
    problems: Iterator[Sequence[Any]],
    timer: PhaseTimer,
) -> Collected:
    """Problems -> graded groups of responses; refilled until the batch is full.

    Args:
      learner: the compiled functions.
      state: its policy draws; its surplus starts the batch.
      problems: batches of `prompts_per_step` problems.
      timer: records the seconds of each phase.

    Raises:
      NoSignalError: as `rl_iteration`.
    """
    params = model_params(learner, state)
    if learner.place is not None:  # one copy for all rounds, freed before the updates
        with timer("reshard"):
            params = learner.place(params)
    draw: Callable[[Sequence[Any], int], Rollouts]
    draw, rounds = partial(draw_groups, learner, state, params, timer), None
    if learner.partial is not None:
        draw = rounds = PartialRounds(
            learner.partial,
            params,
            state.step,
            finder(problems),
            timer,
            state.unfinished,
        )
    found = collect_groups(
        draw,
        problems,
        learner.method,
        num_prompts=learner.settings.prompts_per_step,
        surplus=state.surplus,
        first_draw=state.draws,
        max_rounds=learner.settings.max_rounds,
    )
    return found if rounds is None else replace(found, unfinished=rounds.unfinished)


def train_step(
    learner: RLLearner, state: RLState, collected: Collected, timer: PhaseTimer
) -> tuple[RLState, Row]:
    """Everything of `rl_iteration` after the rollouts: the new state and its metrics.

    Args:
      learner: the compiled functions.
      state: its policy and the models of components are donated.
      collected: the groups to train on, drawn by this policy or an earlier one.
      timer: records the seconds of "train".
    """
    s, method = learner.settings, learner.method
    rollouts = collected.rollouts
    row = rollout_metrics(collected)
    if learner.place is not None:
        moved = learner.place.bytes_received(model_params(learner, state))
        row["sampler/reshard_bytes"] = float(moved)
    with timer("train"):
        # Packed mini-batches of whole groups, in an order fixed by the seed and the
        # step. Responses left out of the loss stay in the group statistics.
        in_loss = ~rollouts.failed  # [P, G]
        if method.loss_rows is not None:
            in_loss = in_loss & method.loss_rows(rollouts)
        loss_rows = in_loss.reshape(-1)  # [B]
        rng = np.random.default_rng((s.seed, state.step))
        order = rng.permutation(len(in_loss)).reshape(s.updates_per_rollout, -1)
        minibatches = learner.plan.pack(rollouts, order, loss_rows)
        batch = RolloutBatch(rollouts, loss_rows, minibatches, rng)

        # Old log-probs: the policy before its first update. Reference log-probs and the
        # inputs of components (values, token rewards), if the method reads them.
        experience = score_rollouts(learner, state, batch)
        for component in learner.components:
            state, more, metrics = component.before_advantages(
                learner, state, batch, experience
            )
            experience = replace(experience, inputs={**experience.inputs, **more})
            row |= metrics
        estimate = jax.device_get(learner.advantages(experience))
        row |= {f"advantages/{name}": float(x) for name, x in estimate.metrics.items()}

        # The updates of other models, such as a critic's on the returns.
        for component in learner.components:
            state, metrics = component.after_advantages(
                learner, state, batch, experience, estimate
            )
            row |= metrics

        # Several updates per rollout: from the second update on, ratios differ from 1.
        row |= {"policy/learning_rate": 0.0, "policy/updates": 0}
        if state.step >= s.value_pretraining_steps:
            state, metrics = update_policy(learner, state, batch, experience, estimate)
            row |= metrics

    row |= probability_metrics(
        experience,
        rollouts,
        state.step,
        async_level=s.async_level,
        mismatch=s.old_logprobs != "sampler",
    )
    row |= {f"controller/{name}": x for name, x in state.controls.items()}
    controls: Row = {}
    for component in learner.components:
        controls |= component.next_controls(state.controls, row)
    state = replace(
        state,
        controls=controls,
        surplus=collected.surplus,
        unfinished=collected.unfinished,
        step=state.step + 1,
        draws=state.draws + collected.rounds,
    )
    return state, row


def draw_groups(
    learner: RLLearner,
    state: RLState,
    params: Any,
    timer: PhaseTimer,
    problems: Sequence[Any],
    draw: int,
) -> Rollouts:
    """One round of sampling and grading with the current policy's parameters."""
    sample = partial(
        sample_groups,
        task=learner.task,
        params=params,
        problems=problems,
        prompt_width=learner.settings.prompt_width,
        seed=learner.settings.seed,
        draw=draw,
        policy_step=state.step,
        batch_sharding=learner.batch_sharding,
        timer=timer,
    )
    rollouts = sample(sample=learner.sample, group_size=learner.settings.group_size)
    for component in learner.components:
        rollouts = component.extend_rollouts(learner, sample, problems, rollouts)
    return rollouts


def model_params(learner: RLLearner, state: RLState) -> Any:
    """The parameters to apply the model with; with LoRA, the factors on their base."""
    if learner.lora is None or state.base is None:
        return state.policy.params
    return with_lora(state.base, state.policy.params, learner.lora.settings)


def score_rollouts(
    learner: RLLearner, state: RLState, batch: RolloutBatch
) -> Experience:
    """Forward passes over the rollouts, for the inputs of the advantage estimator.

    Old log-probs are those of the policy before its first update. If the settings use
    the sampler's, only those of groups left over from earlier steps are recomputed.
    """
    rollouts, put = batch.rollouts, learner.batch_sharding
    p, g, t = rollouts.tokens.shape
    sampler_logprobs = rollouts.sampler_logprobs.reshape(-1, t)  # [B, T]
    inputs = {
        "sampler_logprobs": sampler_logprobs,
        "correct": rollouts.correct.reshape(-1),
    }
    params = model_params(learner, state)
    if learner.settings.old_logprobs == "trainer":
        old = score_sequences(learner.score, params, batch.minibatches, put)
    elif isinstance(learner.sample, StrictSampler):
        old = learner.sample.score(
            params,
            rollouts.prompt_tokens,
            rollouts.prompt_lengths,
            rollouts.tokens.reshape(-1, t),
            rollouts.lengths.reshape(-1),
        )
    else:
        old = rescore_stale(learner, state, params, rollouts)
    if state.reference is not None:
        inputs["ref_logprobs"] = score_sequences(
            learner.score, state.reference, batch.minibatches, put
        )
    for name, x in rollouts.extras.items():
        inputs[name] = x.reshape(-1, *x.shape[2:])  # [P, G, ...] -> [B, ...]
    lengths = rollouts.lengths.reshape(-1)
    return Experience(
        rewards=rollouts.rewards.reshape(-1),
        lengths=lengths,
        truncated=rollouts.truncated.reshape(-1),
        mask=np.arange(t) < lengths[:, None],
        group_ids=np.repeat(np.arange(p), g),
        old_logprobs=old,
        num_groups=p,
        inputs=inputs,
    )


def rescore_stale(
    learner: RLLearner, state: RLState, params: Any, rollouts: Rollouts
) -> np.ndarray:
    """[B, T] the sampler's log-probs; recomputed for groups of earlier steps."""
    old = np.array(rollouts.sampler_logprobs.reshape(-1, rollouts.tokens.shape[-1]))
    oldest = state.step - learner.settings.async_level
    stale = np.flatnonzero(rollouts.policy_step < oldest)
    if stale.size:
        size = learner.plan.groups_per_minibatch
        parted = [stale[i : i + size] for i in range(0, stale.size, size)]
        packed = learner.plan.pack(rollouts, parted, np.ones(len(old), bool))
        rows = np.concatenate([m.index for m in packed])
        scores = score_sequences(learner.score, params, packed, learner.batch_sharding)
        old[rows] = scores[rows]
    return old


def update_policy(
    learner: RLLearner,
    state: RLState,
    batch: RolloutBatch,
    experience: Experience,
    estimate: Advantages,
) -> tuple[RLState, Row]:
    """One optimiser step of the policy per mini-batch."""
    advantages = np.asarray(estimate.advantages)  # [B], [B, T] or [B, T, K]
    if advantages.ndim == 1:
        advantages = np.where(experience.mask, advantages[:, None], 0.0)
    inputs = {"old_logprobs": experience.old_logprobs, "advantages": advantages}
    for name in learner.loss_inputs:
        if name in experience.inputs:
            inputs[name] = experience.inputs[name]
    given: dict[str, Any] = {}
    frozen: dict[str, Any] = {}
    for component in learner.components:
        given |= component.coefficients(state.controls)
        frozen |= component.frozen_params(state)
    if frozen:
        given["frozen"] = frozen
    if learner.lora is not None:
        given["base"] = state.base

    def more_inputs(
        policy: TrainState, minibatch: TrainBatch, update: int
    ) -> Mapping[str, Any]:
        now, found = replace(state, policy=policy), dict[str, Any]()
        for component in learner.components:
            found |= component.minibatch_inputs(learner, now, batch, minibatch, update)
        return found

    done = int(state.policy.step)
    policy, pairs = run_updates(
        learner.update,
        state.policy,
        batch.minibatches,
        inputs,
        learner.batch_sharding,
        more_inputs if learner.components else None,
        **given,
    )
    row = finish_metrics(pairs, "policy") | {
        "policy/learning_rate": float(learner.learning_rate(done)),
        "policy/updates": len(batch.minibatches),
    }
    return replace(state, policy=policy), row


def probability_metrics(
    experience: Experience,
    rollouts: Rollouts,
    step: int,
    *,
    async_level: int = 0,
    mismatch: bool,
) -> Row:
    """Metrics of the policy and of the sampler from the old log-probs.

    `entropy_sampled` is the mean of -log p over the tokens of the batch, an estimate of
    the entropy that needs no pass over the vocabulary; `reference_kl_k1` is the mean of
    old minus reference log-prob.

    The difference between the sampler's and the trainer's log-probs: the means of
    `losses.mismatch_metrics` and the largest difference; the effective sample size
    mean(u)^2 / mean(u^2) of the weights u = old / sampler, 1 when they agree. All over
    the groups drawn for this step: earlier ones were drawn with other parameters.
    """
    mask, old = np.asarray(experience.mask), np.asarray(experience.old_logprobs)
    row = {
        "policy/entropy_sampled": float(-old[mask].mean()),
        "rollout/policy_lag": float((step - rollouts.policy_step).mean()),
    }
    if "token_steps" in experience.inputs:
        lag = (step - experience.inputs["token_steps"])[mask]
        row["rollout/token_policy_lag"] = float(lag.mean())
    if "ref_logprobs" in experience.inputs:
        minus_ref = (old - experience.inputs["ref_logprobs"])[mask]
        row["policy/reference_kl_k1"] = float(minus_ref.mean())
    newest = rollouts.policy_step >= step - async_level  # [P]
    fresh = mask & newest[experience.group_ids][:, None]
    if not mismatch or not fresh.any():
        return row
    sampler = np.asarray(experience.inputs["sampler_logprobs"])
    pairs = mismatch_metrics(old, sampler, fresh)
    mean = {name: float(total / count) for name, (total, count) in pairs.items()}
    peaks = mismatch_peaks(old, sampler, fresh)
    ess = mean["sampler_weight"] ** 2 / mean["sampler_weight_square"]
    return row | {
        "sampler/logprob_diff_mean": mean["sampler_diff"],
        "sampler/logprob_diff_max": float(peaks["sampler_diff_max"]),
        "sampler/kl_k1": mean["sampler_k1"],
        "sampler/kl_k3": mean["sampler_k3"],
        "sampler/ess_fraction": ess,
    }
