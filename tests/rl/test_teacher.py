"""A teacher of another size judges every token that the policy samples."""

import dataclasses
from functools import cache
from typing import Any

import jax
import numpy as np
import optax
import pytest

from experiments.toys import toy_setup
from experiments.toys.toy_tasks import EndlessProblems
from jaxrl_reason.losses import (
    batch_counts,
    generalized_jsd,
    gkd_loss,
    token_logprobs,
)
from jaxrl_reason.models import Transformer
from jaxrl_reason.rl.components import FrozenModel
from jaxrl_reason.rl.iteration import rl_iteration, score_rollouts
from jaxrl_reason.rl.minibatches import RolloutBatch
from jaxrl_reason.rl.recipes.gkd import gkd
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.recipes.opd import opd
from jaxrl_reason.rl.rl_learner import RLLearner, init_rl_state
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.rl.teacher import TeacherDivergence
from jaxrl_reason.runs.metrics_log import PhaseTimer
from tests.rl.helpers import CONFIG, first_policy, tiny_model
from tests.rl.teacher_helpers import ONE_UPDATE, learner, padded, plain_logits, run

WIDER = dataclasses.replace(CONFIG, hidden_size=24, num_layers=1, mlp_dim=40)


@cache
def teacher(seed: int = 0) -> FrozenModel:
    """Wider and not as deep as the policy."""
    return FrozenModel(Transformer(WIDER), toy_setup.random_params(WIDER, seed))


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
    logits = plain_logits(model.model, model.params, collected.rollouts)
    tokens = collected.rollouts.tokens.reshape(experience.mask.shape)
    every = np.asarray(token_logprobs(logits, tokens))
    np.testing.assert_allclose(
        found["teacher_logprobs"][experience.mask], every[experience.mask], atol=1e-5
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


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_gkd_is_the_divergence_of_all_logits(beta: float) -> None:
    """Loss and gradient of a step, packed and in chunks, are those written plainly."""
    frozen = teacher()
    pieces = learner(gkd(beta=beta), frozen)
    state = init_rl_state(pieces, first_policy())
    problems = EndlessProblems(ONE_UPDATE.prompts_per_step)
    _, row, collected = rl_iteration(pieces, state, problems, PhaseTimer())
    rollouts = collected.rollouts
    teachers = plain_logits(frozen.model, frozen.params, rollouts)
    mask = padded(rollouts)[2]

    @jax.jit
    def loss(params: Any) -> jax.Array:
        logits = plain_logits(tiny_model(), params, rollouts)
        each = generalized_jsd(logits, teachers, beta=beta)
        return gkd_loss(each, mask, batch_counts(mask))[0]

    value, slope = jax.value_and_grad(loss)(first_policy().params)
    assert row["policy/loss"] == pytest.approx(float(value), rel=1e-5)
    assert row["policy/grad_norm"] == pytest.approx(
        float(optax.tree.norm(slope)), rel=1e-4
    )


def test_gkd_brings_the_student_to_its_teacher() -> None:
    rows = run(learner(gkd(), teacher()), 15)
    distances = [row["policy/teacher_divergence"] for row in rows]
    assert np.mean(distances[-3:]) < 0.5 * np.mean(distances[:2])


def test_gkd_has_nothing_to_learn_of_itself() -> None:
    policy = FrozenModel(tiny_model(), jax.tree.map(np.array, first_policy().params))
    (row,) = run(learner(gkd(), policy), 1)
    assert abs(row["policy/teacher_divergence"]) < 1e-6
    assert row["policy/grad_norm"] < 1e-4


def test_gkd_has_one_teacher_and_a_beta_between_its_ends() -> None:
    with pytest.raises(ValueError, match="a method with a teacher needs one, got none"):
        learner(gkd())
    with pytest.raises(ValueError, match="compared with one teacher's, got 2"):
        learner(gkd(), teacher(0), teacher(1))
    with pytest.raises(ValueError, match=r"beta must be in \[0, 1\], got 1.5"):
        gkd(beta=1.5)


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


@dataclasses.dataclass(frozen=True)
class Other(TeacherDivergence):
    name = "other"


def test_one_component_alone_may_replace_the_policys_pass() -> None:
    method = gkd()
    both = dataclasses.replace(method, components=(*method.components, Other()))
    with pytest.raises(ValueError, match="may replace the policy's pass, got 2 in"):
        learner(both, teacher())
