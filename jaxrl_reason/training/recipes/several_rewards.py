"""Systems with more than one reward for a response: token by token, or by component."""

from functools import partial

from jaxrl_reason.losses import grpo_loss, implicit_prm_loss, ppo_loss
from jaxrl_reason.training.methods import (
    Method,
    accuracy_and_format,
    binary_accuracy,
)
from jaxrl_reason.training.recipes.estimators import gdpo, middling_groups, prime
from jaxrl_reason.training.recipes.recipe import Published, Recipe


def _prime(max_new_tokens: int) -> Method:
    return Method(
        name="prime",
        loss=partial(ppo_loss, clip_low=0.2, clip_high=0.2),
        advantages=prime(beta=0.05),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
        dynamic_sampling=True,
        keep_groups=middling_groups,
        overlong_filtering=True,
        implicit_reward_loss=partial(implicit_prm_loss, beta=0.05),
    )


PRIME = Recipe(
    name="prime",
    sources=("2502.01456", "2412.01981"),
    build=_prime,
    settings=Published(
        learning_rate=5e-7,
        prompts=64,
        group_size=4,
        max_new_tokens=(3072,),
        notes="of verl's recipe; the reward model 1e-6 and clip of its gradient at 10",
    ),
    not_published=(
        "clip: 0.2 here; the loss mean: over tokens here",
        "weights of process and outcome: 1 and 1 here, 5 and 5 in verl's recipe, which "
        "whitens the advantages afterwards",
        "a KL of 0.001 in the reward of verl's recipe: left out",
        "updates, temperature",
    ),
)


def _gdpo(max_new_tokens: int) -> Method:
    return Method(
        name="gdpo",
        loss=partial(grpo_loss, clip_low=0.2, clip_high=0.2),
        advantages=gdpo,
        rewards=accuracy_and_format,
        loss_inputs=("entropy",),
    )


GDPO = Recipe(
    name="gdpo",
    sources=("2601.05242",),
    build=_gdpo,
    settings=Published(notes="the advantages alone: GRPO for several rewards"),
    not_published=(
        "read as an estimator: the loss is GRPO's here, clip 0.2, no KL",
        "the rewards are accuracy and format here",
        "learning rate, batch, updates, length limit, temperature: not in what we read",
    ),
)
