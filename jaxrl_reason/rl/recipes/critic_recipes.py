"""Systems with a critic: PPO, Open-Reasoner-Zero, VC-PPO and VAPO."""

from dataclasses import replace
from functools import partial

from jaxrl_reason.losses import (
    length_adaptive_lambda,
    ppo_loss,
    value_loss,
    vapo_loss,
)
from jaxrl_reason.rl.methods import (
    Method,
    binary_accuracy,
    ppo,
    signed_accuracy,
)
from jaxrl_reason.rl.recipes.estimators import decoupled_gae, finished_accuracy
from jaxrl_reason.rl.recipes.recipe import Published, Recipe


def _ppo(max_new_tokens: int) -> Method:
    return replace(ppo(clip=0.2, kl_coef=0.001), rewards=binary_accuracy)


PPO = Recipe(
    name="ppo",
    sources=("1707.06347", "1506.02438"),
    build=_ppo,
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


def _open_reasoner_zero(max_new_tokens: int) -> Method:
    method = ppo(gamma=1.0, lam=1.0, clip=0.2, value_clip=0.2)
    return replace(method, name="open_reasoner_zero", rewards=finished_accuracy)


OPEN_REASONER_ZERO = Recipe(
    name="open_reasoner_zero",
    sources=("2503.24290",),
    build=_open_reasoner_zero,
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


def _vc_ppo(max_new_tokens: int) -> Method:
    return Method(
        name="vc_ppo",
        loss=partial(ppo_loss, clip_low=0.2, clip_high=0.2),
        advantages=decoupled_gae(lambda lengths: 0.95, critic_lambda=1.0),
        rewards=signed_accuracy,
        loss_inputs=("entropy",),
        min_group_size=1,
        value_loss=partial(value_loss, clip=None),
    )


VC_PPO = Recipe(
    name="vc_ppo",
    sources=("2503.01491",),
    build=_vc_ppo,
    settings=Published(notes="lambda 0.95 for the policy, 1 for the critic, gamma 1"),
    not_published=(
        "learning rate, batch, number of `value_pretraining_steps`",
        "clip: 0.2 here; the loss mean: over tokens here",
        "whether advantages are whitened (here they are) and values clipped (not here)",
    ),
)


def _vapo(max_new_tokens: int) -> Method:
    return Method(
        name="vapo",
        loss=partial(vapo_loss, clip_low=0.2, clip_high=0.28, positive_coef=0.1),
        advantages=decoupled_gae(
            partial(length_adaptive_lambda, alpha=0.05), critic_lambda=1.0
        ),
        rewards=signed_accuracy,
        loss_inputs=("entropy", "correct"),
        min_group_size=1,
        value_loss=partial(value_loss, clip=None),
    )


VAPO = Recipe(
    name="vapo",
    sources=("2504.05118",),
    build=_vapo,
    settings=Published(
        learning_rate=1e-6,
        critic_learning_rate=2e-6,
        prompts=512,
        group_size=16,
        updates=16,
        temperature=1.0,
        clip=(0.2, 0.28),
        kl_coef=0.0,
        value_pretraining_steps=50,
        notes="alpha 0.05, positive examples 0.1",
    ),
    not_published=(
        "rewards: +1 and -1 here, not confirmed by a source",
        "lambda below 20 tokens: 0 here",
        "length limit",
        "whether advantages are whitened (here they are) and values clipped (not here)",
    ),
    not_built=("a critic that starts from a reward model",),
)
