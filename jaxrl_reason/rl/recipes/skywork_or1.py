"""Skywork-OR1 (arXiv 2505.22312): an entropy bonus under control, in stages."""

from functools import partial

import numpy as np

from jaxrl_reason.losses import grpo_advantages, ppo_loss
from jaxrl_reason.rl.controller import entropy_controller
from jaxrl_reason.rl.method import Method, grouped, groups_with_signal
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import Rollouts, formatted_accuracy


def rows_with_signal(rollouts: Rollouts) -> np.ndarray:
    """[P, G]: responses of groups that are neither all right nor all wrong."""
    keep = groups_with_signal(rollouts)
    return np.repeat(keep[:, None], rollouts.lengths.shape[1], axis=1)


def _skywork_or1(max_new_tokens: int) -> Method:
    return Method(
        name="skywork_or1",
        loss=partial(ppo_loss, clip_low=0.2, clip_high=0.2),
        advantages=grouped(grpo_advantages),
        rewards=formatted_accuracy,
        loss_inputs=("entropy",),
        loss_rows=rows_with_signal,
        components=(entropy_controller(target=0.2, step=1e-4, low=0.0, high=0.005),),
    )


SKYWORK_OR1 = Recipe(
    name="skywork_or1",
    sources=("2505.22312",),
    build=_skywork_or1,
    title="Skywork-OR1",
    family="group",
    made_of=Composition(
        "`grpo_advantages`",
        "`clipped_surrogate` 0.2 / 0.2",
        "`token_mean`",
        "groups without signal are masked, in the denominator too; "
        "`entropy_controller`",
    ),
    settings=Published(
        learning_rate=1e-6,
        prompts=256,
        group_size=16,
        updates=1,
        max_new_tokens=(8192, 16384, 32768),
        temperature=1.0,
        clip=(0.2, 0.2),
        kl_coef=0.0,
        notes="entropy target 0.2, step 1e-4, coefficient in [0, 0.005]",
    ),
    not_published=("the paper's closed form of the entropy coefficient",),
    not_built=("its stages, which are in `recipes.staged`",),
)
