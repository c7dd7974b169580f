"""PCGrad (arXiv 2001.06782) and MGDA (1810.04650): one gradient per reward."""

from collections.abc import Callable
from functools import partial

import jax

from jaxrl_reason.learner.multi_objective import component_advantages
from jaxrl_reason.learner.objective_weights import (
    Combine,
    pcgrad_weights,
    shortest_weights,
)
from jaxrl_reason.losses import grpo_advantages, grpo_loss
from jaxrl_reason.rl.method import (
    Advantages,
    CombinedGradients,
    Estimator,
    Experience,
    Method,
)
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import accuracy_and_format


def by_component(estimator: Callable[..., jax.Array]) -> Estimator:
    """Advantages [B, T, K] of each reward separately, for `Method.gradients`."""

    def advantages(x: Experience) -> Advantages:
        found = component_advantages(
            estimator,
            x["reward_components"],
            x.mask,
            x.group_ids,
            num_groups=x.num_groups,
        )
        return Advantages(found)

    return advantages


def _gradients_of_rewards(name: str, combine: Combine) -> Method:
    """GRPO on each reward with combined gradients: one backward pass per reward."""
    return Method(
        name=name,
        loss=partial(grpo_loss, clip_low=0.2, clip_high=0.2),
        advantages=by_component(grpo_advantages),
        rewards=accuracy_and_format,
        loss_inputs=("entropy",),
        gradients=CombinedGradients(combine, num_objectives=2),
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
    title="PCGrad",
    family="several",
    made_of=Composition(
        "`grpo_advantages` of each reward",
        "`clipped_surrogate` of each",
        "`sequence_mean`",
        "one gradient per reward, combined by `pcgrad_coefficients`",
    ),
    anchor="pcgrad",
    settings=Published(notes="conflicting components of the gradients are removed"),
    not_published=_NOT_FOR_RL,
)


MGDA = Recipe(
    name="mgda",
    sources=("1810.04650",),
    build=_mgda,
    title="MGDA",
    family="several",
    made_of=Composition(
        "`grpo_advantages` of each reward",
        "`clipped_surrogate` of each",
        "`sequence_mean`",
        "one gradient per reward, combined by `mgda_weights`",
    ),
    anchor="mgda",
    settings=Published(notes="the shortest vector in the gradients' convex hull"),
    not_published=_NOT_FOR_RL,
)
