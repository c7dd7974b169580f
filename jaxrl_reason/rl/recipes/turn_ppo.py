"""Turn-PPO (arXiv 2512.17008): PPO whose actions are turns, or steps, not tokens."""

from functools import partial

from jaxrl_reason.losses import (
    ppo_loss,
    rewards_at_end,
    rewards_at_steps,
    turn_gae,
    value_loss,
    whiten,
)
from jaxrl_reason.rl.critic import Critic, rewards_seen
from jaxrl_reason.rl.method import Advantages, Estimator, Experience, Method
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.response_steps import ResponseSteps
from jaxrl_reason.rl.rollouts import binary_accuracy


def turn_level_gae(*, gamma: float = 0.99, lam: float = 0.9) -> Estimator:
    """GAE over the steps of a response (Turn-PPO, arXiv 2512.17008).

    The critic learns on the first token of each step; its values on the others play no
    part. Advantages are whitened over the batch.
    """

    def advantages(x: Experience) -> Advantages:
        of_steps = rewards_at_steps(
            x["step_rewards"], x["step_ends"], x["state_ids"] >= 0, x.mask
        )
        found, targets, first = turn_gae(
            of_steps + rewards_at_end(rewards_seen(x), x.mask),
            x["values"],
            x.mask,
            turn_ids=x["step_ids"],
            gamma=gamma,
            lam=lam,
            bootstrap=x.inputs.get("bootstrap"),
        )
        return Advantages(whiten(found, x.mask), targets, value_mask=first)

    return advantages


def _turn_ppo(max_new_tokens: int) -> Method:
    return Method(
        name="turn_ppo",
        loss=partial(ppo_loss, clip_low=0.2, clip_high=0.2),
        advantages=turn_level_gae(),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
        min_group_size=1,
        components=(ResponseSteps(), Critic(partial(value_loss, clip=None))),
    )


TURN_PPO = Recipe(
    name="turn_ppo",
    sources=("2512.17008",),
    build=_turn_ppo,
    title="Turn-PPO",
    family="critic",
    made_of=Composition(
        "`turn_gae` over steps, whitened",
        "`clipped_surrogate` 0.2 / 0.2",
        "`token_mean`",
        "critic, on the first token of each step; `ResponseSteps`",
    ),
    settings=Published(
        notes="gamma 0.99 and lambda 0.9 per turn; a critic that learns faster"
    ),
    not_published=(
        "learning rates, batch, limits: not in our sources, which are summaries",
        "clip: 0.2 here; values unclipped, advantages whitened here",
    ),
    not_built=(
        "its clip of whole turns: tokens are clipped here",
        "environments that answer: a response is one conversation, its steps the turns",
    ),
)
