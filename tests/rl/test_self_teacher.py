"""The policy learns from what it says itself once it has read a good response."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from experiments.toys.toy_setup import one_device
from experiments.toys.toy_tasks import EndlessProblems
from jaxrl_reason.losses import (
    batch_counts,
    generalized_jsd,
    sdpo_loss,
    token_logprobs,
)
from jaxrl_reason.models import LoraSettings
from jaxrl_reason.rl.iteration import rl_iteration
from jaxrl_reason.rl.recipes.sdpo import sdft, sdpo
from jaxrl_reason.rl.rl_learner import build_rl_learner, init_rl_state
from jaxrl_reason.rl.self_teacher import (
    SelfTeacher,
    WorkedResponses,
    ask_again,
    right_siblings,
)
from jaxrl_reason.runs.metrics_log import PhaseTimer
from jaxrl_reason.runs.monitor import CompileCounter
from tests.rl.helpers import (
    OPTIMIZER,
    SETTINGS,
    LuckyTask,
    fake_rollouts,
    first_policy,
    tiny_model,
)
from tests.rl.teacher_helpers import ONE_UPDATE, learner, padded, plain_logits

SDPO = sdpo(update_rate=0.5)


def test_a_right_response_reads_another_one() -> None:
    """None where the group has no right response but itself, or it is unjudged."""
    right = [[0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 0]]
    rollouts = fake_rollouts(right)
    rollouts.failed[3, 0] = True
    chosen = [[1, 3, 1, 1], [2, 2, None, 2], [None] * 4, [1, 2, 1, 1]]
    found = right_siblings(rollouts)
    for p, row in enumerate(chosen):
        for g, one in enumerate(row):
            if one is None:
                assert found[p][g] is None
            else:
                expected = rollouts.tokens[p, one, : rollouts.lengths[p, one]]
                np.testing.assert_array_equal(found[p][g], expected)
    taught = [[one is not None for one in row] for row in chosen]
    np.testing.assert_array_equal(SelfTeacher().has_teacher(rollouts), taught)


def test_demonstrations_are_the_problems_own() -> None:
    rollouts = fake_rollouts([[0, 1], [1, 1]], first_id=7)
    worked = WorkedResponses({8: [3, 4, 1], 9: [5]})
    found = worked(rollouts)
    assert found[0] == [None, None]
    assert [list(x) for x in found[1]] == [[3, 4, 1]] * 2
    assert worked.longest == 3


def test_a_step_is_the_loss_written_plainly() -> None:
    """Value and gradient: the informed prompts, no packing, all logits at once.

    In the second step the teacher is no longer the policy, and nothing is compiled.
    """
    pieces = learner(SDPO)
    state = init_rl_state(pieces, first_policy())
    problems = EndlessProblems(ONE_UPDATE.prompts_per_step)
    policies = [jax.tree.map(np.array, state.policy.params)]
    state, _, _ = rl_iteration(pieces, state, problems, PhaseTimer())
    policies.append(jax.tree.map(np.array, state.policy.params))
    with CompileCounter() as compiles:
        state, row, collected = rl_iteration(pieces, state, problems, PhaseTimer())
    assert not compiles.count
    teacher = jax.tree.map(lambda a, b: 0.5 * a + 0.5 * b, *policies)
    kept = state.models["teacher"].params
    for found, expected in zip(*map(jax.tree.leaves, (kept, teacher)), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)

    rollouts = collected.rollouts
    shown = [one for group in right_siblings(rollouts) for one in group]
    taught = np.array([one is not None for one in shown])
    assert 0 < taught.sum() < len(taught)
    assert row["teacher/taught_fraction"] == pytest.approx(taught.mean())
    tokens, starts, mask = padded(rollouts)
    prompts = [tokens[i, :n] for i, n in enumerate(starts)]
    informed = [
        p if one is None else ask_again(p, one)
        for p, one in zip(prompts, shown, strict=True)
    ]
    teachers = plain_logits(tiny_model(), teacher, rollouts, informed)
    responses = rollouts.tokens.reshape(mask.shape)
    counts = batch_counts(mask & taught[:, None])

    @jax.jit
    def loss(params):
        logits = plain_logits(tiny_model(), params, rollouts)
        logprobs = token_logprobs(logits, responses)
        each = generalized_jsd(logits, teachers, beta=0.5)
        return sdpo_loss(each, logprobs, logprobs, mask, counts, has_teacher=taught)[0]

    value, slope = jax.value_and_grad(loss)(policies[1])
    assert row["policy/loss"] == pytest.approx(float(value), rel=1e-4)
    norm = float(optax.tree.norm(slope))
    assert row["policy/grad_norm"] == pytest.approx(norm, rel=1e-3)


def test_demonstrations_teach_their_problems_alone() -> None:
    """SDFT: where no problem has one, nothing is learned."""
    problems = EndlessProblems(ONE_UPDATE.prompts_per_step)
    rows = []
    for shown in ({0: [7, 1], 3: [8, 1]}, {}):
        pieces = learner.__wrapped__(sdft(shown))
        state = init_rl_state(pieces, first_policy())
        problems.set_state({"next": 0})
        _, row, _ = rl_iteration(pieces, state, problems, PhaseTimer())
        rows.append(row)
    assert rows[0]["teacher/taught_fraction"] == 2 / ONE_UPDATE.prompts_per_step
    assert rows[0]["policy/grad_norm"] > 1e-4
    assert rows[1]["teacher/taught_fraction"] == rows[1]["policy/grad_norm"] == 0


def test_what_does_not_fit_is_refused() -> None:
    long = dataclasses.replace(SETTINGS, max_new_tokens=8, row_width=40)
    with pytest.raises(ValueError, match=r"a response \(22 tokens\), got 20"):
        build_rl_learner(
            tiny_model().clone(
                config=dataclasses.replace(tiny_model().config, context_length=20)
            ),
            LuckyTask(),
            sdpo(),
            long,
            OPTIMIZER,
            one_device(),
        )
    lora = LoraSettings(rank=2, alpha=4.0)
    pieces = (tiny_model(), LuckyTask(), sdpo(), SETTINGS, OPTIMIZER, one_device())
    with pytest.raises(ValueError, match="nothing but the policy"):
        build_rl_learner(*pieces, lora=lora)
    narrow = learner(sdpo(context_width=3))
    state = init_rl_state(narrow, first_policy())
    with pytest.raises(ValueError, match=r"at most 3 tokens \(context_width\), got"):
        rl_iteration(narrow, state, EndlessProblems(8), PhaseTimer())
    with pytest.raises(ValueError, match=r"update_rate must be in \[0, 1\], got 2"):
        sdpo(update_rate=2)
