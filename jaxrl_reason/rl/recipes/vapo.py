"""VAPO (arXiv 2504.05118): VC-PPO with a lambda that increases with the length."""

from functools import partial

from jaxrl_reason.losses import length_adaptive_lambda, value_loss, vapo_loss
from jaxrl_reason.rl.critic import Critic
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.recipes.vc_ppo import decoupled_gae
from jaxrl_reason.rl.rollouts import signed_accuracy


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
        components=(Critic(partial(value_loss, clip=None)),),
    )


VAPO = Recipe(
    name="vapo",
    sources=("2504.05118",),
    build=_vapo,
    title="VAPO",
    family="critic",
    made_of=Composition(
        "`gae` twice: `length_adaptive_lambda` for the policy, 1 for the critic",
        "`clipped_surrogate` 0.2 / 0.28, and 0.1 `nll` of right responses",
        "`token_mean`",
        "critic, clip-higher; `value_pretraining_steps`",
    ),
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
