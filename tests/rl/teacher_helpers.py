"""Learners of methods with a teacher, and logits written without packing."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.toys.toy_setup import one_device
from experiments.toys.toy_tasks import EndlessProblems
from jaxrl_reason.learner.forward import logprobs_of
from jaxrl_reason.learner.update import make_scorer
from jaxrl_reason.models import Transformer, unembedding
from jaxrl_reason.rl.collect import SampleFn
from jaxrl_reason.rl.components import FrozenModel
from jaxrl_reason.rl.iteration import rl_iteration
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.rl_learner import RLLearner, build_rl_learner, init_rl_state
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.metrics_log import PhaseTimer, Row
from jaxrl_reason.sampler import SamplingSettings, make_sampler
from tests.rl.helpers import (
    OPTIMIZER,
    SETTINGS,
    LuckyTask,
    first_policy,
    tiny_model,
)

ONE_UPDATE = dataclasses.replace(
    SETTINGS, updates_per_rollout=1, group_size=8, prompts_per_step=8
)
SLOWER = dataclasses.replace(OPTIMIZER, learning_rate=1e-2)


@cache
def sampler() -> SampleFn:
    """The same one for all learners here: it takes longest to compile."""
    sampling = SamplingSettings(
        max_new_tokens=ONE_UPDATE.max_new_tokens,
        eos_token_ids=LuckyTask().eos_token_ids,
        temperature=ONE_UPDATE.temperature,
    )
    return make_sampler(tiny_model(), sampling, ONE_UPDATE.group_size)


@cache
def scorer() -> Callable[..., jax.Array]:
    return make_scorer(logprobs_of(tiny_model(), ONE_UPDATE.temperature))


@cache
def learner(method: Method, *teachers: FrozenModel) -> RLLearner:
    pieces = build_rl_learner(
        tiny_model(),
        LuckyTask(),
        method,
        ONE_UPDATE,
        SLOWER,
        one_device(),
        sample=sampler(),
        teachers=teachers,
    )
    return dataclasses.replace(pieces, score=scorer())


def run(pieces: RLLearner, steps: int) -> list[Row]:
    state = init_rl_state(pieces, first_policy())
    problems, rows = EndlessProblems(ONE_UPDATE.prompts_per_step), []
    for _ in range(steps):
        state, row, _ = rl_iteration(pieces, state, problems, PhaseTimer())
        rows.append(row)
    return rows


def padded(
    rollouts: Rollouts, prompts: Sequence[np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prompt and response, a row each: tokens [B, S], starts [B], mask [B, T]."""
    _, g, t = rollouts.tokens.shape
    if prompts is None:
        pairs = zip(rollouts.prompt_tokens, rollouts.prompt_lengths, strict=True)
        prompts = [prompt[:n] for prompt, n in pairs for _ in range(g)]
    starts = np.array([len(prompt) for prompt in prompts])
    responses, lengths = rollouts.tokens.reshape(-1, t), rollouts.lengths.reshape(-1)
    tokens = np.zeros((len(starts), starts.max() + t), np.int32)
    for row, prompt, response in zip(tokens, prompts, responses, strict=True):
        row[: len(prompt)], row[len(prompt) : len(prompt) + t] = prompt, response
    return tokens, starts, np.arange(t) < lengths[:, None]


def plain_logits(
    model: Transformer,
    params: Any,
    rollouts: Rollouts,
    prompts: Sequence[np.ndarray] | None = None,
) -> jax.Array:
    """[B, T, V] of the response tokens, nothing packed; other prompts if given."""
    tokens, starts, mask = padded(rollouts, prompts)
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    hidden = model.apply({"params": params}, tokens, positions, np.ones_like(tokens))
    columns = starts[:, None] - 1 + np.arange(mask.shape[1])
    logits = hidden @ unembedding(model, params)
    return jnp.take_along_axis(logits, columns[..., None], axis=1)
