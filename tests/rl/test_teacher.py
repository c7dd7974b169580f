"""A teacher of another size judges every token that the policy samples."""

import dataclasses
from functools import cache

import jax
import numpy as np
import pytest

from experiments.toys import toy_setup
from experiments.toys.toy_setup import one_device
from experiments.toys.toy_tasks import EndlessProblems
from jaxrl_reason.losses import token_logprobs
from jaxrl_reason.models import Transformer, unembedding
from jaxrl_reason.rl.components import FrozenModel
from jaxrl_reason.rl.iteration import rl_iteration, score_rollouts
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.minibatches import RolloutBatch
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.recipes.opd import opd
from jaxrl_reason.rl.rl_learner import RLLearner, build_rl_learner, init_rl_state
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.metrics_log import PhaseTimer, Row
from tests.rl.helpers import (
    CONFIG,
    OPTIMIZER,
    SETTINGS,
    LuckyTask,
    first_policy,
    tiny_model,
)

WIDER = dataclasses.replace(CONFIG, hidden_size=24, num_layers=1, mlp_dim=40)
ONE_UPDATE = dataclasses.replace(
    SETTINGS, updates_per_rollout=1, group_size=8, prompts_per_step=8
)
SLOWER = dataclasses.replace(OPTIMIZER, learning_rate=1e-2)


@cache
def teacher(seed: int = 0) -> FrozenModel:
    """Wider and not as deep as the policy."""
    return FrozenModel(Transformer(WIDER), toy_setup.random_params(WIDER, seed))


def learner(method: Method, *teachers: FrozenModel) -> RLLearner:
    return build_rl_learner(
        tiny_model(),
        LuckyTask(),
        method,
        ONE_UPDATE,
        SLOWER,
        one_device(),
        teachers=teachers,
    )


def run(pieces: RLLearner, steps: int) -> list[Row]:
    state = init_rl_state(pieces, first_policy())
    problems, rows = EndlessProblems(ONE_UPDATE.prompts_per_step), []
    for _ in range(steps):
        state, row, _ = rl_iteration(pieces, state, problems, PhaseTimer())
        rows.append(row)
    return rows


def in_order(pieces: RLLearner, rollouts: Rollouts) -> RolloutBatch:
    """Mini-batches of the groups as they come, every response in the loss."""
    rows = np.ones(rollouts.lengths.size, bool)
    order = np.arange(len(rollouts.problem_ids))
    order = order.reshape(pieces.plan.num_minibatches, -1)
    packed = pieces.plan.pack(rollouts, order, rows)
    return RolloutBatch(rollouts, rows, packed, np.random.default_rng(0))


def test_the_student_comes_to_its_teacher() -> None:
    """No reward: the KL to the teacher falls to less than a half."""
    distances = [row["teacher/kl"] for row in run(learner(opd(), teacher()), 25)]
    assert np.mean(distances[-5:]) < 0.5 * np.mean(distances[:2])


def test_a_teacher_that_is_the_policy_teaches_nothing() -> None:
    policy = FrozenModel(tiny_model(), jax.tree.map(np.array, first_policy().params))
    (row,) = run(learner(opd(), policy), 1)
    assert abs(row["teacher/kl"]) < 1e-6
    assert row["policy/grad_norm"] < 1e-5
    (other,) = run(learner(opd(), teacher()), 1)
    assert other["policy/grad_norm"] > 1e-2


def test_the_scores_are_the_teachers() -> None:
    """Against a plain forward pass over prompt and response, one row at a time."""
    pieces, model = learner(opd(), teacher()), teacher()
    state = init_rl_state(pieces, first_policy())
    _, _, collected = rl_iteration(
        pieces, state, EndlessProblems(ONE_UPDATE.prompts_per_step), PhaseTimer()
    )
    state = init_rl_state(pieces, first_policy())
    batch = in_order(pieces, collected.rollouts)
    experience = score_rollouts(pieces, state, batch)
    (component,) = pieces.components
    _, found, row = component.before_advantages(pieces, state, batch, experience)
    rollouts = collected.rollouts
    prompts = np.repeat(rollouts.prompt_tokens, ONE_UPDATE.group_size, axis=0)
    starts = np.repeat(rollouts.prompt_lengths, ONE_UPDATE.group_size)
    responses = rollouts.tokens.reshape(len(prompts), -1)
    for i, (prompt, n) in enumerate(zip(prompts, starts, strict=True)):
        length = int(experience.lengths[i])
        tokens = np.concatenate([prompt[:n], responses[i, :length]])[None]
        positions, segments = np.arange(tokens.size)[None], np.ones_like(tokens)
        hidden = model.model.apply(
            {"params": model.params}, tokens, positions, segments
        )
        logits = hidden @ unembedding(model.model, model.params)
        every = token_logprobs(logits[:, :-1], tokens[:, 1:])[0]
        np.testing.assert_allclose(
            found["teacher_logprobs"][i, :length], every[n - 1 :], atol=1e-5
        )
    gap = (experience.old_logprobs - found["teacher_logprobs"])[experience.mask]
    assert row["teacher/kl"] == pytest.approx(gap.mean(), abs=1e-6)


def test_each_prompt_has_the_teacher_that_is_chosen() -> None:
    """Two teachers, chosen by the problem: each row is as with that teacher alone."""
    both = teacher(0), teacher(1)
    method = opd(choose=lambda rollouts: rollouts.problem_ids % 2)
    pieces = learner(method, *both)
    state = init_rl_state(pieces, first_policy())
    _, _, collected = rl_iteration(
        pieces, state, EndlessProblems(ONE_UPDATE.prompts_per_step), PhaseTimer()
    )
    found = []
    for one in (pieces, *(learner(opd(), x) for x in both)):
        state = init_rl_state(one, first_policy())
        batch = in_order(one, collected.rollouts)
        experience = score_rollouts(one, state, batch)
        (component,) = one.components
        _, inputs, _ = component.before_advantages(one, state, batch, experience)
        found.append(np.where(experience.mask, inputs["teacher_logprobs"], 0.0))
    odd = np.repeat(collected.rollouts.problem_ids % 2 == 1, ONE_UPDATE.group_size)
    assert odd.any()
    assert not odd.all()
    np.testing.assert_array_equal(found[0], np.where(odd[:, None], found[2], found[1]))


def test_rewards_may_count_beside_the_teacher() -> None:
    rows = run(learner(opd(outcome=True, coef=0.1), teacher()), 2)
    assert all(np.isfinite(row["policy/loss"]) for row in rows)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="a method with a teacher needs one, got none"):
        learner(opd())
    with pytest.raises(ValueError, match="several teachers need `choose`"):
        learner(opd(), teacher(0), teacher(1))
    for change, message in (
        ({"vocab_size": 13}, r"the policy's vocabulary \(12\), got 13"),
        ({"context_length": 5}, r"prompt and response \(9 tokens\), got 5"),
    ):
        model = FrozenModel(Transformer(dataclasses.replace(WIDER, **change)), {})
        with pytest.raises(ValueError, match=message):
            learner(opd(), model)
    wrong = learner(opd(choose=lambda rollouts: rollouts.problem_ids + 7), *[teacher()])
    with pytest.raises(ValueError, match="choose must give numbers of teachers"):
        run(wrong, 1)


def test_a_teacher_without_a_method_that_asks_it_is_refused() -> None:
    with pytest.raises(ValueError, match="teachers are for a method with a Teacher"):
        learner(grpo(kl_coef=0), teacher())
