"""SRPO (arXiv 2504.14286): truncated responses have no advantage."""

from functools import partial

import jax.numpy as jnp

from jaxrl_reason.losses import dapo_loss, grpo_advantages
from jaxrl_reason.rl.method import Advantages, Experience, Method
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy, with_format_reward


def grpo_without_truncated(x: Experience) -> Advantages:
    """GRPO's advantages, 0 for truncated responses (SRPO, 2504.14286).

    Their tokens stay in the denominators, unlike those of overlong filtering.
    """
    found = grpo_advantages(x.rewards, x.group_ids, num_groups=x.num_groups)
    return Advantages(jnp.where(x.truncated, 0.0, found))


def _srpo(max_new_tokens: int) -> Method:
    return Method(
        name="srpo",
        loss=partial(dapo_loss, clip_low=0.2, clip_high=0.2),
        advantages=grpo_without_truncated,
        rewards=with_format_reward(binary_accuracy, 1.0),
        loss_inputs=("entropy",),
    )


SRPO = Recipe(
    name="srpo",
    sources=("2504.14286",),
    build=_srpo,
    title="SRPO",
    family="group",
    made_of=Composition(
        "`grpo_advantages`, 0 for truncated responses",
        "`clipped_surrogate`",
        "`token_mean`",
        "reward for the format; `HistoryResampling`",
    ),
    settings=Published(
        learning_rate=1e-6,
        prompts=256,
        group_size=32,
        kl_coef=0.0,
        notes="AdamW betas 0.9 and 0.95; truncated responses have advantage 0",
    ),
    not_published=(
        "clip: 0.2 here",
        "rewards of accuracy and format: 1 each here",
        "the penalty for mixed languages: left out",
        "updates, length limit, temperature",
    ),
    not_built=("its stages and history resampling, which are in `recipes.staged`",),
)
