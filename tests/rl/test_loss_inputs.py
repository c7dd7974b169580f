"""What the loop hands to a loss: weights, right answers, chosen tokens."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason import losses
from jaxrl_reason.rl.method import DynamicSampling, Experience
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.rollout_correction import (
    RolloutCorrection,
    with_importance_weights,
)
from jaxrl_reason.rl.token_selection import TokenSelection
from tests.rl.helpers import (
    SETTINGS,
    EndlessProblems,
    run_steps,
    same_trees,
    toy_learner,
    toy_state,
)
from tests.rl.recipe_arrays import NAMED, clipped, k3, loss_of, rows, tokens
from tests.rl.recipe_helpers import built, first_update, trained

# What the loop hands to a loss: weights, right answers, chosen tokens.


class Recorder:
    """Leaves the policy alone and keeps the batches of every update."""

    def __init__(self) -> None:
        self.batches: list = []

    def __call__(self, policy, batch, num_active, **_):
        self.batches.append(batch)
        return policy, {}


@cache
def batches_of(name: str, weighed: bool = False):
    method = built(name)
    if weighed:
        shifted = partial(losses.importance_weights, cap=1.5)
        method = with_importance_weights(method, lambda o, s, m: shifted(o, s - 0.1, m))
    record = Recorder()
    learner = toy_learner(method)
    others = tuple(c for c in learner.components if c.name != "critic")
    learner = dataclasses.replace(learner, update=record, components=others)
    if "critic" in trained(method):
        learner = dataclasses.replace(learner, advantages=lambda x: flat_estimate(x))
    stream = EndlessProblems(SETTINGS.prompts_per_step)
    _, _, (found,) = run_steps(learner, toy_state(learner), stream, 1)
    return record.batches, found.rollouts


def flat_estimate(x: Experience):
    return grpo(kl_coef=0).advantages(x)


def test_right_answers_reach_the_loss_with_their_rows() -> None:
    batches, rollouts = batches_of("vapo")
    tokens = sum(int((b.mask & b["correct"][..., None]).sum()) for b in batches)
    assert tokens == int(rollouts.lengths[rollouts.correct].sum())
    assert all("correct" not in b.inputs for b in batches_of("gspo")[0])


@pytest.mark.parametrize("name", ["gspo", "vapo"])
def test_importance_weights_fit_every_recipe(name: str) -> None:
    batches, _ = batches_of(name, weighed=True)
    for batch in batches:
        weights, mask = np.asarray(batch["weights"]), np.asarray(batch.mask)
        np.testing.assert_allclose(weights[mask], np.exp(0.1), rtol=1e-3)
        assert not weights[~mask].any()


def test_weights_multiply_the_objective_alone() -> None:
    plain, weighed = built("deepseekmath"), with_importance_weights(built("dapo"))
    terms = clipped(0.2, 0.28) * NAMED["weights"]
    # The terms cancel: what rounds is their size, not that of their mean.
    size = tokens(np.abs(terms))
    assert loss_of(weighed) == pytest.approx(tokens(terms), abs=1e-6 * size)
    both = with_importance_weights(plain)
    terms = clipped(0.2, 0.2) * NAMED["weights"] + 0.04 * k3()
    size = rows(np.abs(terms))
    assert loss_of(both) == pytest.approx(rows(terms), abs=1e-6 * size)
    with pytest.raises(ValueError, match="one kind of weights, got 'dapo' again"):
        with_importance_weights(weighed)


def test_a_step_with_importance_weights_of_1_is_the_plain_step() -> None:
    # Here the sampler and the trainer agree, but for rounding. Gradients are compared,
    # not what Adam makes of them: near zero that is the sign, times the learning rate.
    method = dataclasses.replace(
        built("gspo"), dynamic_sampling=DynamicSampling()
    )  # all with signal
    row, plain = first_update(method)
    other, weighed = first_update(with_importance_weights(method))
    assert other == pytest.approx(row, rel=1e-4, abs=1e-5)
    size = max(np.abs(x).max() for x in jax.tree.leaves(plain))
    assert size > 1e-3
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(weighed), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5 * size)


def test_tokens_are_chosen_in_the_whole_mini_batch() -> None:
    # Chosen inside each micro-batch there would be one a micro-batch: with so few
    # tokens the fraction rounds up to one.
    batches, _ = batches_of("kl_cov")
    for batch in batches:
        assert int((np.asarray(batch.mask).any((1, 2))).sum()) > 1
        chosen = np.asarray(batch["selected"])
        assert chosen.sum() == 1
        assert (chosen <= np.asarray(batch.mask)).all()
        shape = (-1, chosen.shape[-1])
        wanted = losses.kl_cov_tokens(
            *(
                jnp.reshape(x, shape)
                for x in (batch["old_logprobs"], batch["advantages"], batch.mask)
            )
        )
        # Nothing was updated, so that the policy of now is the old one.
        np.testing.assert_array_equal(chosen.reshape(shape), wanted)


def test_clip_cov_draws_the_same_tokens_again() -> None:
    first = [np.asarray(b["selected"]) for b in batches_of("clip_cov")[0]]
    batches_of.cache_clear()
    again = [np.asarray(b["selected"]) for b in batches_of("clip_cov")[0]]
    assert same_trees(first, again)


GIVES = {"weights": RolloutCorrection, "selected": TokenSelection}


@pytest.mark.parametrize("name", GIVES)
def test_an_input_and_its_function_come_together(name: str) -> None:
    method, component = grpo(kl_coef=0), GIVES[name]
    with pytest.raises(ValueError, match=f"loss_inputs must be among .* got '{name}'"):
        dataclasses.replace(method, loss_inputs=(name,))
    given = dataclasses.replace(method, components=(component(print),))
    assert given.all_loss_inputs == (*method.loss_inputs, name)
