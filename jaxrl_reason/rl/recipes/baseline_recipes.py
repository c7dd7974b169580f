"""Systems without a critic and without GRPO's deviation: REINFORCE and its kin."""

from functools import partial

from jaxrl_reason.losses import gpg_advantages, gpg_loss, ppo_loss, rloo_loss
from jaxrl_reason.rl.methods import Method, binary_accuracy, grouped
from jaxrl_reason.rl.recipes.estimators import (
    logic_rewards,
    opo,
    reinforce_pp,
    reinforce_pp_baseline,
    remax,
    rloo,
)
from jaxrl_reason.rl.recipes.recipe import Published, Recipe

_KL = 0.001
_NO_RUN = "learning rate, batch, updates, length limit, temperature"


def _reinforce_pp(max_new_tokens: int) -> Method:
    return Method(
        name="reinforce_pp",
        loss=partial(ppo_loss, clip_low=0.2, clip_high=0.2),
        advantages=reinforce_pp(_KL),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
        min_group_size=1,
        needs_reference=True,
    )


REINFORCE_PP = Recipe(
    name="reinforce_pp",
    sources=("2501.03262",),
    build=_reinforce_pp,
    settings=Published(clip=(0.2, 0.2), notes="k1 in the token rewards"),
    not_published=("KL coefficient, 0.001 to 0.01 in use: 0.001 here", _NO_RUN),
)


def _reinforce_pp_baseline(max_new_tokens: int) -> Method:
    return Method(
        name="reinforce_pp_baseline",
        loss=partial(
            ppo_loss, clip_low=0.2, clip_high=0.2, kl_coef=_KL, kl_estimator="k2"
        ),
        advantages=reinforce_pp_baseline,
        rewards=binary_accuracy,
        loss_inputs=("entropy", "ref_logprobs"),
    )


REINFORCE_PP_BASELINE = Recipe(
    name="reinforce_pp_baseline",
    sources=("2501.03262",),
    build=_reinforce_pp_baseline,
    settings=Published(clip=(0.2, 0.2), notes="KL loss k2, OpenRLHF's choice"),
    not_published=("KL coefficient, 0.001 to 0.01 in use: 0.001 here", _NO_RUN),
)


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


def _rloo(max_new_tokens: int) -> Method:
    return Method(
        name="rloo",
        loss=rloo_loss,
        advantages=rloo(_KL),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
        needs_reference=True,
    )


RLOO = Recipe(
    name="rloo",
    sources=("2402.14740",),
    build=_rloo,
    settings=Published(notes="the KL of the whole response in its reward"),
    not_published=("KL coefficient for reasoning: 0.001 here", _NO_RUN),
)


def _remax(max_new_tokens: int) -> Method:
    return Method(
        name="remax",
        loss=rloo_loss,
        advantages=remax,
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
        min_group_size=1,
        greedy_baseline=True,
    )


REMAX = Recipe(
    name="remax",
    sources=("2310.10505",),
    build=_remax,
    settings=Published(group_size=1, notes="one greedy response more a prompt"),
    not_published=(
        "the KL in the token rewards: left out",
        "learning rate, batch, updates, length limit, temperature: not in what we read",
    ),
)


def _opo(max_new_tokens: int) -> Method:
    return Method(
        name="opo",
        loss=rloo_loss,
        advantages=opo,
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
    )


OPO = Recipe(
    name="opo",
    sources=("2505.23585",),
    build=_opo,
    settings=Published(notes="the baseline is weighted by length"),
    not_published=("read as verl's estimator: the loss is RLOO's here", _NO_RUN),
)


def _gpg(max_new_tokens: int) -> Method:
    return Method(
        name="gpg",
        loss=gpg_loss,
        advantages=grouped(gpg_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
        min_signal_share=0.6,
    )


GPG = Recipe(
    name="gpg",
    sources=("2504.02546",),
    build=_gpg,
    settings=Published(
        learning_rate=3e-6,
        group_size=8,
        max_new_tokens=(2048,),
        kl_coef=0.0,
        notes="the limit is that of the demonstration script; at most 20 rounds",
    ),
    not_published=(
        "the share of groups that must have signal: 0.6 as in a table, 0.5 in the code",
        "prompts, updates, temperature",
    ),
)
