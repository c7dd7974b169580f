"""Recipes by name, and a step of each on the toy task."""

import dataclasses

import jax
import numpy as np
import optax

from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.recipes import RECIPES
from jaxrl_reason.runs.metrics_log import finish_metrics
from tests.rl.helpers import (
    SETTINGS,
    EndlessProblems,
    copied,
    run_steps,
    toy_learner,
    toy_state,
)

# Two updates of one rollout and the sampler and scorer of the other tests.
LIMIT = SETTINGS.max_new_tokens


def built(name: str, max_new_tokens: int = LIMIT) -> Method:
    return RECIPES[name].build(max_new_tokens)


UPDATES: dict = {}  # compiled once for all methods of one loss and its inputs


def shared_learner(method: Method):
    """A learner whose update is compiled once for all methods of its loss."""
    learner = toy_learner(method)
    loss = method.loss
    keywords = tuple(getattr(loss, "keywords", {}).items())
    loss = getattr(loss, "func", loss)
    key = (loss, keywords, method.all_loss_inputs, method.gradients and method.name)
    update = UPDATES.setdefault(key, learner.update)
    return dataclasses.replace(learner, update=update)


def one_step(method: Method):
    learner = shared_learner(method)
    state = toy_state(learner)
    start = copied(state)
    stream = EndlessProblems(SETTINGS.prompts_per_step)
    state, (row,), (found,) = run_steps(learner, state, stream, 1)
    return start, state, row, found


def first_update(method: Method):
    """The metrics of a step's first update, and its gradient: Adam's first moment."""
    learner, seen = shared_learner(method), []

    def update(policy, batch, num_active):
        policy, metrics = learner.update(policy, batch, num_active)
        gradient = optax.tree_utils.tree_get(policy.opt_state, "mu")
        seen.append((finish_metrics(metrics), copied(gradient)))
        return policy, metrics

    stream = EndlessProblems(SETTINGS.prompts_per_step)
    recorded = dataclasses.replace(learner, update=update)
    run_steps(recorded, toy_state(learner), stream, 1)
    return seen[0]


def moved(before, after) -> bool:
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return all((np.asarray(a) != np.asarray(b)).any() for a, b in pairs)


def trained(method: Method) -> set[str]:
    """The models beside the policy."""
    return {c.name for c in method.components if c.trains_model}
