"""Open-Reasoner-Zero (arXiv 2503.24290): PPO with gamma 1, lambda 1 and no KL."""

from dataclasses import replace

import numpy as np

from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.recipes.ppo import ppo
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import Rollouts


def finished_accuracy(rollouts: Rollouts) -> np.ndarray:
    """1 for a right answer in a response that ended by itself, else 0."""
    return (rollouts.correct & ~rollouts.truncated).astype(np.float32)


def _open_reasoner_zero(max_new_tokens: int) -> Method:
    method = ppo(gamma=1.0, lam=1.0, clip=0.2, value_clip=0.2)
    return replace(method, name="open_reasoner_zero", rewards=finished_accuracy)


OPEN_REASONER_ZERO = Recipe(
    name="open_reasoner_zero",
    sources=("2503.24290",),
    build=_open_reasoner_zero,
    title="Open-Reasoner-Zero",
    family="critic",
    made_of=Composition(
        "`gae` with gamma and lambda 1, whitened",
        "`clipped_surrogate` 0.2 / 0.2",
        "`token_mean`",
        "critic; only a response that ended is right",
    ),
    settings=Published(
        learning_rate=1e-6,
        critic_learning_rate=5e-6,
        prompts=128,
        group_size=64,
        updates=1,
        max_new_tokens=(8000,),
        temperature=1.0,
        clip=(0.2, 0.2),
        kl_coef=0.0,
        critic_updates=12,
        notes="50 updates of warm-up",
    ),
    not_built=("its random value head: here the head starts at 0",),
)
