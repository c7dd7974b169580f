"""RLOO (arXiv 2402.14740) and OPO (2505.23585): REINFORCE with a group's baseline."""

import jax.numpy as jnp

from jaxrl_reason.losses import opo_advantages, rloo_advantages, rloo_loss
from jaxrl_reason.rl.method import Advantages, Estimator, Experience, Method
from jaxrl_reason.rl.recipes.ppo import rewards_minus_kl
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy


def rloo(kl_coef: float) -> Estimator:
    """RLOO (arXiv 2402.14740) on sequence rewards that include the KL of all tokens."""

    def advantages(x: Experience) -> Advantages:
        rewards = jnp.sum(rewards_minus_kl(x, kl_coef), axis=1)
        found = rloo_advantages(rewards, x.group_ids, num_groups=x.num_groups)
        return Advantages(found)

    return advantages


def _rloo(max_new_tokens: int) -> Method:
    return Method(
        name="rloo",
        loss=rloo_loss,
        advantages=rloo(0.001),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
        needs_reference=True,
    )


RLOO = Recipe(
    name="rloo",
    sources=("2402.14740",),
    build=_rloo,
    title="RLOO",
    family="reinforce",
    made_of=Composition(
        "`rloo_advantages`",
        "`policy_gradient`",
        "`sequence_sum_mean`",
        "the KL of the response in its reward",
    ),
    anchor="rloo",
    settings=Published(notes="the KL of the whole response in its reward"),
    not_published=(
        "KL coefficient for reasoning: 0.001 here",
        "learning rate, batch, updates, length limit, temperature",
    ),
)


def opo(x: Experience) -> Advantages:
    """OPO (arXiv 2505.23585): the group's length-weighted mean as the baseline."""
    found = opo_advantages(x.rewards, x.lengths, x.group_ids, num_groups=x.num_groups)
    return Advantages(found)


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
    title="OPO",
    family="reinforce",
    made_of=Composition("`opo_advantages`", "`policy_gradient`", "`sequence_sum_mean`"),
    anchor="opo",
    settings=Published(notes="the baseline is weighted by length"),
    not_published=(
        "read as verl's estimator: the loss is RLOO's here",
        "learning rate, batch, updates, length limit, temperature",
    ),
)
