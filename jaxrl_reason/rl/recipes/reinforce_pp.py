"""REINFORCE++ (arXiv 2501.03262), its baseline variant, and Logic-RL."""

from functools import partial

import numpy as np

from jaxrl_reason.losses import (
    ppo_loss,
    reinforce_pp_advantages,
    reinforce_pp_baseline_advantages,
)
from jaxrl_reason.rl.method import Advantages, Estimator, Experience, Method
from jaxrl_reason.rl.recipes.ppo import rewards_minus_kl
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import Rollouts, binary_accuracy


def reinforce_pp(kl_coef: float) -> Estimator:
    """REINFORCE++ (arXiv 2501.03262), with k1 in the token rewards."""

    def advantages(x: Experience) -> Advantages:
        return Advantages(reinforce_pp_advantages(rewards_minus_kl(x, kl_coef), x.mask))

    return advantages


def _reinforce_pp(max_new_tokens: int) -> Method:
    return Method(
        name="reinforce_pp",
        loss=partial(ppo_loss, clip_low=0.2, clip_high=0.2),
        advantages=reinforce_pp(0.001),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
        min_group_size=1,
        needs_reference=True,
    )


REINFORCE_PP = Recipe(
    name="reinforce_pp",
    sources=("2501.03262",),
    build=_reinforce_pp,
    title="REINFORCE++",
    family="reinforce",
    made_of=Composition(
        "`reinforce_pp_advantages`",
        "`clipped_surrogate` 0.2 / 0.2",
        "`token_mean`",
        "k1 in the token rewards",
    ),
    settings=Published(clip=(0.2, 0.2), notes="k1 in the token rewards"),
    not_published=(
        "KL coefficient, 0.001 to 0.01 in use: 0.001 here",
        "learning rate, batch, updates, length limit, temperature",
    ),
)


def reinforce_pp_baseline(x: Experience) -> Advantages:
    """REINFORCE++-baseline: minus the group's mean, whitened over all tokens."""
    found = reinforce_pp_baseline_advantages(
        x.rewards, x.group_ids, x.mask, num_groups=x.num_groups
    )
    return Advantages(found)


def _reinforce_pp_baseline(max_new_tokens: int) -> Method:
    return Method(
        name="reinforce_pp_baseline",
        loss=partial(
            ppo_loss, clip_low=0.2, clip_high=0.2, kl_coef=0.001, kl_estimator="k2"
        ),
        advantages=reinforce_pp_baseline,
        rewards=binary_accuracy,
        loss_inputs=("entropy", "ref_logprobs"),
    )


REINFORCE_PP_BASELINE = Recipe(
    name="reinforce_pp_baseline",
    sources=("2501.03262",),
    build=_reinforce_pp_baseline,
    title="REINFORCE++-baseline",
    family="reinforce",
    made_of=Composition(
        "`reinforce_pp_baseline_advantages`",
        "`clipped_surrogate` 0.2 / 0.2",
        "`token_mean`",
        "KL loss k2",
    ),
    anchor="reinforce-baseline",
    settings=Published(clip=(0.2, 0.2), notes="KL loss k2, OpenRLHF's choice"),
    not_published=(
        "KL coefficient, 0.001 to 0.01 in use: 0.001 here",
        "learning rate, batch, updates, length limit, temperature",
    ),
)


def logic_rewards(rollouts: Rollouts) -> np.ndarray:
    """Logic-RL's totals (arXiv 2502.14768): right 3, wrong -0.5, bad format -3.

    An unreadable answer, -1 there, counts as a wrong one here; a task that
    distinguishes them can grade with `jaxrl_reason.grading.logic_reward`.
    """
    answers = np.where(rollouts.correct, 3.0, -0.5)
    return np.where(rollouts.format_ok, answers, -3.0).astype(np.float32)


def _logic_rl(max_new_tokens: int) -> Method:
    return Method(
        name="logic_rl",
        loss=partial(
            ppo_loss, clip_low=0.2, clip_high=0.2, kl_coef=0.001, kl_estimator="k3"
        ),
        advantages=reinforce_pp(0.0),
        rewards=logic_rewards,
        loss_inputs=("entropy", "ref_logprobs"),
        min_group_size=1,
    )


LOGIC_RL = Recipe(
    name="logic_rl",
    sources=("2502.14768",),
    build=_logic_rl,
    title="Logic-RL",
    family="reinforce",
    made_of=Composition(
        "`reinforce_pp_advantages`",
        "`clipped_surrogate` 0.2 / 0.2",
        "`token_mean`",
        "KL loss k3; rewards 3, -0.5, -3",
    ),
    anchor="logic-rl",
    settings=Published(
        learning_rate=4e-7,
        prompts=8,
        group_size=8,
        max_new_tokens=(4096,),
        temperature=0.7,
        clip=(0.2, 0.2),
        kl_coef=0.001,
        notes="3600 steps; rewards 3, -0.5, -1 (unreadable), -3 (bad format)",
    ),
    not_published=("the loss mean: over tokens here", "updates"),
)
