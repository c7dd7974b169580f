"""One iteration of reinforcement learning, from problems to an updated policy."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxrl_reason.learner.state import TrainState
from jaxrl_reason.rl.collect import (
    Collected,
    SampleFn,
    collect_groups,
    compute_rewards,
    sample_groups,
)
from jaxrl_reason.rl.critic import critic_metrics, update_critic
from jaxrl_reason.rl.implicit_reward import update_implicit_reward
from jaxrl_reason.rl.method import Advantages, Experience, rows_in_loss
from jaxrl_reason.rl.minibatches import Minibatch, score_sequences
from jaxrl_reason.rl.rl_learner import RLLearner, RLState
from jaxrl_reason.rl.rollout_metrics import rollout_metrics, sampler_metrics
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.metrics import (
    Pairs,
    Row,
    add_metrics,
    finish_metrics,
)
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
      state: of the run; its policy and critic are donated.
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
        counted = rows_in_loss(method, rollouts).reshape(-1)
        rng = np.random.default_rng((s.seed, state.step))
        minibatches = learner.plan.split(rollouts, rng, counted)

        # Old log-probs: the policy before its first update. Reference log-probs and
        # values only if the method has use for them.
        seen = score_rollouts(learner, state, rollouts, minibatches)
        state, seen, pairs = learn_rewards(learner, state, rollouts, seen, minibatches)
        row = finish_metrics(pairs, "reward_model")
        estimate = jax.device_get(learner.advantages(seen))

        # The critic's updates, in mini-batches of its own if it makes more of them.
        critic_batches = minibatches
        if learner.critic is not None and learner.critic.plan != learner.plan:
            critic_batches = learner.critic.plan.split(rollouts, rng, counted)
        state, pairs = learn_values(learner, state, seen, estimate, critic_batches)
        row |= finish_metrics(pairs, "critic")

        # Several updates a rollout: from the second on, ratios differ from 1.
        row |= {"policy/learning_rate": 0.0, "policy/updates": 0}
        fields = training_fields(learner, seen, estimate, rollouts)
        if state.step >= s.value_pretraining_steps:
            done = int(state.policy.step)
            row["policy/learning_rate"] = float(learner.optimizer.schedule()(done))
            row["policy/updates"] = len(minibatches)
            policy, pairs = run_updates(learner, state, minibatches, fields)
            state = replace(state, policy=policy)
            row |= finish_metrics(pairs, "policy")

    row |= rollout_metrics(collected)
    row |= probability_metrics(seen)
    row["rollout/policy_lag"] = float((state.step - rollouts.policy_step).mean())
    if s.old_logprobs == "trainer":
        row |= sampler_mismatch(rollouts, seen, state.step)
    if seen.values is not None and estimate.returns is not None:
        row |= critic_metrics(seen.values, estimate.returns, np.asarray(seen.mask))
    row |= {f"controller/{name}": x for name, x in state.controls.items()}
    state = replace(
        state,
        controls=next_controls(learner, state, row),
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

    def draw_with(sample: SampleFn, group_size: int) -> Rollouts:
        return sample_groups(
            learner.task,
            sample,
            learner.model_params(state),
            problems,
            group_size=group_size,
            prompt_width=learner.settings.prompt_width,
            seed=learner.settings.seed,
            draw=draw,
            policy_step=state.step,
            batch_sharding=learner.batch_sharding,
            timer=timer,
        )

    rollouts = draw_with(learner.sample, learner.settings.group_size)
    if learner.sample_greedy is None:
        return rollouts
    greedy = draw_with(learner.sample_greedy, 1)
    return replace(rollouts, greedy_rewards=greedy_rewards(learner, greedy, rollouts))


def greedy_rewards(
    learner: RLLearner, greedy: Rollouts, rollouts: Rollouts
) -> np.ndarray:
    """[P] rewards of the greedy responses.

    One that nobody could judge is no baseline: the mean of the prompt's samples stands
    in for it.
    """
    found = compute_rewards(learner.method, greedy)
    samples = compute_rewards(learner.method, rollouts).rewards.mean(axis=1)
    return np.where(found.failed[:, 0], samples, found.rewards[:, 0])


def score_rollouts(
    learner: RLLearner, state: RLState, rollouts: Rollouts, minibatches: list[Minibatch]
) -> Experience:
    """Forward passes over the rollouts: all that an advantage estimator may look at."""
    s, batch_sharding = learner.settings, learner.batch_sharding
    ref_logprobs, values, greedy = None, None, rollouts.greedy_rewards
    old = old_logprobs(learner, state, rollouts, minibatches)
    if state.reference is not None:
        ref_logprobs = score_sequences(
            learner.score, state.reference, minibatches, batch_sharding
        )
    if learner.critic is not None and state.critic is not None:
        values = score_sequences(
            learner.critic.values, state.critic.params, minibatches, batch_sharding
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
        components=(
            rollouts.components.reshape(s.sequences, -1)
            if rollouts.components is not None
            else None
        ),
        greedy_rewards=np.repeat(greedy, s.group_size) if greedy is not None else None,
        controls={name: np.float32(x) for name, x in state.controls.items()},
    )


def old_logprobs(
    learner: RLLearner, state: RLState, rollouts: Rollouts, minibatches: list[Minibatch]
) -> np.ndarray:
    """[B, T] log-probs of the policy before its first update.

    Where the settings take the sampler's, only those of an earlier policy's groups are
    computed.
    """
    params = learner.model_params(state)
    if learner.settings.old_logprobs == "trainer":
        return score_sequences(
            learner.score, params, minibatches, learner.batch_sharding
        )
    old = np.array(rollouts.sampler_logprobs.reshape(-1, rollouts.width))
    stale = np.flatnonzero(rollouts.policy_step != state.step)
    if stale.size:
        size = learner.plan.groups_per_minibatch
        parted = [stale[i : i + size] for i in range(0, stale.size, size)]
        counted = np.ones(len(old), bool)
        packed = [learner.plan.pack(rollouts, groups, counted) for groups in parted]
        rows = np.concatenate([m.index for m in packed])
        old[rows] = score_sequences(
            learner.score, params, packed, learner.batch_sharding
        )[rows]
    return old


def learn_rewards(
    learner: RLLearner,
    state: RLState,
    rollouts: Rollouts,
    seen: Experience,
    minibatches: list[Minibatch],
) -> tuple[RLState, Experience, Pairs]:
    """Trains an implicit reward model on the outcomes, then asks it for the rewards."""
    if learner.implicit_reward is None or state.reward_model is None:
        return state, seen, {}
    fields = {
        "ref_logprobs": np.asarray(seen.ref_logprobs),
        "correct": rollouts.correct.reshape(-1),
    }
    model, pairs = update_implicit_reward(
        learner.implicit_reward,
        state.reward_model,
        minibatches,
        fields,
        learner.batch_sharding,
    )
    logprobs = score_sequences(
        learner.score, model.params, minibatches, learner.batch_sharding
    )
    seen = replace(seen, reward_logprobs=logprobs)
    return replace(state, reward_model=model), seen, pairs


def learn_values(
    learner: RLLearner,
    state: RLState,
    seen: Experience,
    estimate: Advantages,
    minibatches: list[Minibatch],
) -> tuple[RLState, Pairs]:
    """The critic's updates towards the returns of the estimate."""
    if learner.critic is None or state.critic is None:
        return state, {}
    fields = {
        "returns": np.asarray(estimate.returns),
        "old_values": np.asarray(seen.values),
    }
    critic, pairs = update_critic(
        learner.critic, state.critic, minibatches, fields, learner.batch_sharding
    )
    return replace(state, critic=critic), jax.device_get(pairs)


def training_fields(
    learner: RLLearner, seen: Experience, estimate: Any, rollouts: Rollouts
) -> dict[str, np.ndarray]:
    """Arrays [B, T] or [B] of the TrainBatch, those that the method uses."""
    advantages = estimate.advantages
    sampler = rollouts.sampler_logprobs.reshape(seen.mask.shape)
    weights, correct = None, None
    if learner.weights is not None:
        weights = learner.weights(seen.old_logprobs, sampler, seen.mask)
    if "correct" in learner.method.loss_inputs:
        correct = rollouts.correct.reshape(-1)
    if advantages.ndim == 1:
        advantages = np.where(seen.mask, advantages[:, None], 0.0)
    fields = {
        "sampler_logprobs": sampler,
        "old_logprobs": seen.old_logprobs,
        "ref_logprobs": seen.ref_logprobs,
        "advantages": advantages,
        "weights": weights,
        "correct": correct,
    }
    return {name: np.asarray(x) for name, x in fields.items() if x is not None}


def run_updates(
    learner: RLLearner,
    state: RLState,
    minibatches: list[Minibatch],
    fields: dict[str, np.ndarray],
) -> tuple[TrainState, Pairs]:
    """One optimiser step of the policy a mini-batch."""
    policy, given = state.policy, dict[str, Any](coefficients(learner, state))
    if learner.lora is not None:
        given["base"] = state.base
    pairs: Pairs = {}
    for i, minibatch in enumerate(minibatches):
        full = minibatch.with_fields(**fields)
        batch, live = (
            learner.batch_sharding.put_micro_batches(full.batch),
            full.plan.live,
        )
        if learner.select is not None:
            # Tokens are chosen with the whole mini-batch and the policy of now.
            key = jax.random.key(learner.settings.seed)
            key = jax.random.fold_in(jax.random.fold_in(key, state.step), i)
            params = learner.model_params(replace(state, policy=policy))
            now = learner.score(params, batch, live)
            chosen = learner.select(now, batch, key)
            batch = learner.batch_sharding.put_micro_batches(
                replace(batch, selected=chosen)
            )
        policy, metrics = learner.update(policy, batch, live, **given)
        pairs = add_metrics(pairs, metrics)
    return policy, jax.device_get(pairs)


def probability_metrics(seen: Experience) -> Row:
    """What the old log-probs say of the policy.

    `entropy_sampled` is the mean of -log p over the tokens of the batch, an estimate of
    the entropy that needs no pass over the vocabulary; `reference_kl_k1` the mean of
    old minus reference log-prob.
    """
    mask = np.asarray(seen.mask)
    row = {"policy/entropy_sampled": float(-seen.old_logprobs[mask].mean())}
    if seen.ref_logprobs is not None:
        row["policy/reference_kl_k1"] = float(
            (seen.old_logprobs - seen.ref_logprobs)[mask].mean()
        )
    return row


def sampler_mismatch(rollouts: Rollouts, seen: Experience, step: int) -> Row:
    """How far sampler and trainer are apart on the groups sampled now.

    Those of an earlier step were sampled with other parameters.
    """
    mask = np.asarray(seen.mask)
    sampler = rollouts.sampler_logprobs.reshape(mask.shape)
    fresh = np.repeat(rollouts.policy_step == step, rollouts.group_size)[:, None]
    return sampler_metrics(seen.old_logprobs, sampler, mask & fresh)


def coefficients(learner: RLLearner, state: RLState) -> Row:
    """What the method's controller says for this step, by name."""
    controller = learner.method.controller
    return dict(controller.coefficients(state.controls)) if controller else {}


def next_controls(learner: RLLearner, state: RLState, row: Row) -> Row:
    """The controller's state after a step with these metrics."""
    controller = learner.method.controller
    return dict(controller.step(state.controls, row)) if controller else {}
