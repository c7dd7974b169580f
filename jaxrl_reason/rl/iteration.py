"""One iteration of reinforcement learning, from problems to an updated policy."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxrl_reason.learner.packing import TrainBatch
from jaxrl_reason.learner.state import TrainState
from jaxrl_reason.rl.collect import Collected, collect_groups, sample_groups
from jaxrl_reason.rl.method import Advantages, Experience
from jaxrl_reason.rl.minibatches import RolloutBatch, run_updates, score_sequences
from jaxrl_reason.rl.rl_learner import RLLearner, RLState
from jaxrl_reason.rl.rollout_metrics import probability_metrics, rollout_metrics
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.metrics import Pairs, Row, finish_metrics
from jaxrl_reason.runs.monitor import PhaseTimer


def rl_iteration(
    learner: RLLearner,
    state: RLState,
    problems: Iterator[Sequence[Any]],
    timer: PhaseTimer,
) -> tuple[RLState, Row, Collected]:
    """One step: roll out, score, estimate advantages, update several times.

    Args:
      learner: the compiled pieces.
      state: of the run; its policy and what components train are donated.
      problems: batches of `prompts_per_step` problems.
      timer: gets the seconds of each phase.

    Returns:
      The new state, the step's metrics, and what was collected.

    Raises:
      NoSignalError: dynamic sampling did not fill the batch within its bound.
    """
    s, method = learner.settings, learner.method

    # Problems -> graded groups of responses; refilled until the batch is full.
    collected = collect_groups(
        partial(draw_groups, learner, state, timer),
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
        batch = split_rollouts(learner, state, rollouts)

        # Old log-probs: the policy before its first update. Reference log-probs, and
        # what components add (values, rewards of tokens), where the method reads them.
        row: Row = {}
        experience = score_rollouts(learner, state, batch)
        for component in learner.components:
            state, more, metrics = component.before_advantages(
                learner, state, batch, experience
            )
            experience = replace(experience, inputs={**experience.inputs, **more})
            row |= metrics
        estimate = jax.device_get(learner.advantages(experience))

        # The updates of other models: a critic's, towards the returns.
        for component in learner.components:
            state, metrics = component.after_advantages(
                learner, state, batch, experience, estimate
            )
            row |= metrics

        # Several updates per rollout: from the second on, ratios differ from 1.
        row |= {"policy/learning_rate": 0.0, "policy/updates": 0}
        if state.step >= s.value_pretraining_steps:
            done = int(state.policy.step)
            row["policy/learning_rate"] = float(learner.optimizer.schedule()(done))
            row["policy/updates"] = len(batch.minibatches)
            policy, pairs = update_policy(learner, state, batch, experience, estimate)
            state = replace(state, policy=policy)
            row |= finish_metrics(pairs, "policy")

    row |= rollout_metrics(collected)
    row |= probability_metrics(
        experience, rollouts, state.step, mismatch=s.old_logprobs == "trainer"
    )
    row |= {f"controller/{name}": x for name, x in state.controls.items()}
    controls: Row = {}
    for component in learner.components:
        controls |= component.next_controls(state.controls, row)
    state = replace(
        state,
        controls=controls,
        surplus=collected.surplus,
        step=state.step + 1,
        draws=state.draws + collected.rounds,
    )
    return state, row, collected


def draw_groups(
    learner: RLLearner,
    state: RLState,
    timer: PhaseTimer,
    problems: Sequence[Any],
    draw: int,
) -> Rollouts:
    """One round of sampling and grading with the current policy."""
    sample = partial(
        sample_groups,
        task=learner.task,
        params=learner.model_params(state),
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
        rollouts = component.extend_rollouts(learner, sample, rollouts)
    return rollouts


def split_rollouts(
    learner: RLLearner, state: RLState, rollouts: Rollouts
) -> RolloutBatch:
    """The step's mini-batches, in an order that follows from the seed and the step."""
    in_loss = ~rollouts.failed  # [P, G]
    if learner.method.loss_rows is not None:
        in_loss = in_loss & learner.method.loss_rows(rollouts)
    loss_rows = in_loss.reshape(-1)  # [B]
    rng = np.random.default_rng((learner.settings.seed, state.step))
    minibatches = learner.plan.split(rollouts, rng, loss_rows)
    return RolloutBatch(rollouts, loss_rows, minibatches, rng)


def score_rollouts(
    learner: RLLearner, state: RLState, batch: RolloutBatch
) -> Experience:
    """Forward passes over the rollouts: what every advantage estimator may look at."""
    rollouts, size = batch.rollouts, batch.rollouts.num_prompts
    inputs = {
        "sampler_logprobs": rollouts.sampler_logprobs.reshape(-1, rollouts.width),
        "correct": rollouts.correct.reshape(-1),
    }
    old = old_logprobs(learner, state, batch)  # [B, T]
    if state.reference is not None:
        inputs["ref_logprobs"] = score_sequences(
            learner.score, state.reference, batch.minibatches, learner.batch_sharding
        )
    for name, x in rollouts.extras.items():
        inputs[name] = x.reshape(-1, *x.shape[2:])  # [P, G, ...] -> [B, ...]
    return Experience(
        rewards=rollouts.rewards.reshape(-1),
        lengths=rollouts.lengths.reshape(-1),
        truncated=rollouts.truncated.reshape(-1),
        mask=rollouts.mask().reshape(old.shape),
        group_ids=np.repeat(np.arange(size), rollouts.group_size),
        old_logprobs=old,
        num_groups=size,
        inputs=inputs,
    )


def old_logprobs(learner: RLLearner, state: RLState, batch: RolloutBatch) -> np.ndarray:
    """[B, T] log-probs of the policy before its first update.

    Where the settings take the sampler's, only those of an earlier policy's groups are
    computed.
    """
    rollouts, params = batch.rollouts, learner.model_params(state)
    score = partial(score_sequences, learner.score, params)
    if learner.settings.old_logprobs == "trainer":
        return score(batch.minibatches, learner.batch_sharding)
    old = np.array(rollouts.sampler_logprobs.reshape(-1, rollouts.width))
    stale = np.flatnonzero(rollouts.policy_step != state.step)
    if stale.size:
        size = learner.plan.groups_per_minibatch
        parted = [stale[i : i + size] for i in range(0, stale.size, size)]
        counted = np.ones(len(old), bool)
        packed = [learner.plan.pack(rollouts, groups, counted) for groups in parted]
        rows = np.concatenate([m.index for m in packed])
        old[rows] = score(packed, learner.batch_sharding)[rows]
    return old


def update_policy(
    learner: RLLearner,
    state: RLState,
    batch: RolloutBatch,
    experience: Experience,
    estimate: Advantages,
) -> tuple[TrainState, Pairs]:
    """One optimiser step of the policy per mini-batch, on what its loss reads."""
    advantages = np.asarray(estimate.advantages)  # [B], [B, T] or [B, T, K]
    if advantages.ndim == 1:
        advantages = np.where(experience.mask, advantages[:, None], 0.0)
    inputs = {"old_logprobs": experience.old_logprobs, "advantages": advantages}
    for name in learner.method.all_loss_inputs:
        if name in experience.inputs:
            inputs[name] = experience[name]
    given: dict[str, Any] = {}
    for component in learner.components:
        given |= component.coefficients(state.controls)
    if learner.lora is not None:
        given["base"] = state.base

    def more_inputs(
        policy: TrainState, minibatch: TrainBatch, live: Any, update: int
    ) -> Mapping[str, Any]:
        now, found = replace(state, policy=policy), dict[str, Any]()
        for component in learner.components:
            found |= component.minibatch_inputs(learner, now, minibatch, live, update)
        return found

    return run_updates(
        learner.update,
        state.policy,
        batch.minibatches,
        inputs,
        learner.batch_sharding,
        more_inputs if learner.components else None,
        **given,
    )
