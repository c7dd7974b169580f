"""VC-PPO (arXiv 2503.01491): one lambda for the policy, one for the critic."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxrl_reason.losses import gae, ppo_loss, rewards_at_end, value_loss, whiten
from jaxrl_reason.rl.critic import Critic, rewards_seen
from jaxrl_reason.rl.method import Advantages, Estimator, Experience, Method
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import signed_accuracy


def decoupled_gae(
    actor_lambda: Callable[[jax.Array], float | jax.Array],
    *,
    critic_lambda: float = 1.0,
    gamma: float = 1.0,
) -> Estimator:
    """GAE twice over the same values: one lambda for the policy, one for the critic.

    VC-PPO, arXiv 2503.01491. `actor_lambda` is a function of the response lengths [B]
    that returns a scalar or [B]. The policy's advantages are whitened over the batch.
    """

    def advantages(x: Experience) -> Advantages:
        rewards = rewards_at_end(rewards_seen(x), x.mask)
        lengths = jnp.asarray(x.lengths)
        estimate = partial(
            gae,
            rewards,
            x["values"],
            x.mask,
            gamma=gamma,
            bootstrap=x.inputs.get("bootstrap"),
        )
        actor, _ = estimate(lam=actor_lambda(lengths))
        _, returns = estimate(lam=critic_lambda)
        return Advantages(whiten(actor, x.mask), returns)

    return advantages


def _vc_ppo(max_new_tokens: int) -> Method:
    return Method(
        name="vc_ppo",
        loss=partial(ppo_loss, clip_low=0.2, clip_high=0.2),
        advantages=decoupled_gae(lambda lengths: 0.95, critic_lambda=1.0),
        rewards=signed_accuracy,
        loss_inputs=("entropy",),
        min_group_size=1,
        components=(Critic(partial(value_loss, clip=None)),),
    )


VC_PPO = Recipe(
    name="vc_ppo",
    sources=("2503.01491",),
    build=_vc_ppo,
    title="VC-PPO",
    family="critic",
    made_of=Composition(
        "`gae` twice: 0.95 for the policy, 1 for the critic",
        "`clipped_surrogate`",
        "`token_mean`",
        "critic; `value_pretraining_steps`",
    ),
    settings=Published(notes="lambda 0.95 for the policy, 1 for the critic, gamma 1"),
    not_published=(
        "learning rate, batch, number of `value_pretraining_steps`",
        "clip: 0.2 here; the loss mean: over tokens here",
        "whether advantages are whitened (here they are) and values clipped (not here)",
    ),
)
