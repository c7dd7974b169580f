"""Systems with more than one reward for a response: token by token, or by component."""

from functools import partial

from jaxrl_reason.learner.objective_weights import (
    Combine,
    pcgrad_weights,
    shortest_weights,
)
from jaxrl_reason.losses import (
    grpo_advantages,
    grpo_loss,
    implicit_prm_loss,
    ppo_loss,
)
from jaxrl_reason.rl.methods import Method, accuracy_and_format, binary_accuracy
from jaxrl_reason.rl.recipes.estimators import (
    by_component,
    gdpo,
    middling_groups,
    prime,
)
from jaxrl_reason.rl.recipes.recipe import Published, Recipe


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


def _gradients_of_rewards(name: str, combine: Combine) -> Method:
    """GRPO on each reward, their gradients combined: one backward pass a reward."""
    return Method(
        name=name,
        loss=partial(grpo_loss, clip_low=0.2, clip_high=0.2),
        advantages=by_component(grpo_advantages),
        rewards=accuracy_and_format,
        loss_inputs=("entropy",),
        combine=combine,
        num_objectives=2,
    )


def _pcgrad(max_new_tokens: int) -> Method:
    return _gradients_of_rewards("pcgrad", pcgrad_weights())


def _mgda(max_new_tokens: int) -> Method:
    return _gradients_of_rewards("mgda", shortest_weights())


_NOT_FOR_RL = (
    "not made for language models: the policy loss of each reward is GRPO's here, "
    "clip 0.2, no KL; the rewards are accuracy and format",
    "learning rate, batch, updates, length limit, temperature",
)
PCGRAD = Recipe(
    name="pcgrad",
    sources=("2001.06782",),
    build=_pcgrad,
    settings=Published(notes="gradients lose what points against another one"),
    not_published=_NOT_FOR_RL,
)
MGDA = Recipe(
    name="mgda",
    sources=("1810.04650",),
    build=_mgda,
    settings=Published(notes="the shortest vector in the gradients' convex hull"),
    not_published=_NOT_FOR_RL,
)
