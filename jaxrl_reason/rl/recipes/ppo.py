"""PPO with a critic (arXiv 1707.06347) and GAE (1506.02438)."""

from dataclasses import replace
from functools import partial

import jax

from jaxrl_reason.losses import (
    gae,
    kl_in_reward,
    ppo_loss,
    rewards_at_end,
    value_loss,
    whiten,
)
from jaxrl_reason.rl.controller import Controller
from jaxrl_reason.rl.critic import Critic, rewards_seen
from jaxrl_reason.rl.method import Advantages, Experience, Method
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy


def rewards_minus_kl(x: Experience, coef: float) -> jax.Array:
    """[B, T]: the sequence reward on the last token, k1 to the reference on each.

    A `kl_controller` of the method adjusts `coef`, unless it is 0.
    """
    rewards = rewards_at_end(rewards_seen(x), x.mask)
    if not coef:
        return rewards
    coef = x.inputs.get("kl_coef", coef)
    return kl_in_reward(rewards, x.old_logprobs, x["ref_logprobs"], x.mask, coef=coef)


def ppo(
    *,
    gamma: float = 1.0,
    lam: float = 1.0,
    clip: float = 0.2,
    value_clip: float | None = 0.5,
    kl_coef: float = 0.0,
    controller: Controller | None = None,
) -> Method:
    """PPO with a critic (arXiv 1707.06347) and GAE (1506.02438).

    The defaults are verl's. `kl_coef` subtracts the k1 penalty against the reference
    from the token rewards (arXiv 1909.08593); with 0 there is no reference model. A
    `controller` with a "kl_coef" adjusts that coefficient at each step
    (`kl_controller`).
    """
    if controller is not None and not kl_coef:
        raise ValueError(f"a controller needs a kl_coef > 0, got {kl_coef}")

    def advantages(x: Experience) -> Advantages:
        rewards = rewards_minus_kl(x, kl_coef)
        adv, returns = gae(
            rewards,
            x["values"],
            x.mask,
            gamma=gamma,
            lam=lam,
            bootstrap=x.inputs.get("bootstrap"),
        )
        return Advantages(whiten(adv, x.mask), returns)

    critic = Critic(partial(value_loss, clip=value_clip))
    return Method(
        name="ppo",
        loss=partial(ppo_loss, clip_low=clip, clip_high=clip),
        advantages=advantages,
        loss_inputs=("entropy",),
        needs_reference=kl_coef != 0,
        min_group_size=1,
        components=(critic,) if controller is None else (critic, controller),
    )


def _ppo(max_new_tokens: int) -> Method:
    return replace(ppo(clip=0.2, kl_coef=0.001), rewards=binary_accuracy)


PPO = Recipe(
    name="ppo",
    sources=("1707.06347", "1506.02438"),
    build=_ppo,
    title="PPO",
    family="critic",
    made_of=Composition(
        "`gae`, whitened",
        "`clipped_surrogate` 0.2 / 0.2",
        "`token_mean`",
        "critic; k1 in the token rewards",
    ),
    settings=Published(
        learning_rate=1e-6,
        critic_learning_rate=1e-5,
        prompts=256,
        group_size=4,
        max_new_tokens=(1024,),
        temperature=1.0,
        clip=(0.2, 0.2),
        kl_coef=0.001,
        notes="of a run on Countdown with verl: mini-batch 128, KL in the reward",
    ),
    not_published=("updates: the mini-batch is of prompts or of responses",),
)
