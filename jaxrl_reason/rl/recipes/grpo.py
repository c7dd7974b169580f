"""GRPO (arXiv 2402.03300), as DeepSeekMath and DeepSeek-R1-Zero ran it."""

from functools import partial

from jaxrl_reason.losses import grpo_advantages, grpo_loss
from jaxrl_reason.rl.method import Method, grouped
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy, with_format_reward


def grpo(*, clip: float = 0.2, kl_coef: float = 0.001) -> Method:
    """GRPO (arXiv 2402.03300); the KL coefficient is DeepSeek-R1's (2501.12948).

    With `kl_coef=0` there is no reference model.
    """
    loss = partial(grpo_loss, clip_low=clip, clip_high=clip)
    if kl_coef == 0:
        return Method("grpo", loss, grouped(grpo_advantages), loss_inputs=("entropy",))
    return Method(
        name="grpo",
        loss=partial(loss, kl_coef=kl_coef),
        advantages=grouped(grpo_advantages),
        loss_inputs=("entropy", "ref_logprobs"),
    )


def _deepseekmath(max_new_tokens: int) -> Method:
    return Method(
        name="deepseekmath",
        loss=partial(grpo_loss, clip_low=0.2, clip_high=0.2, kl_coef=0.04),
        advantages=grouped(grpo_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy", "ref_logprobs"),
    )


DEEPSEEKMATH = Recipe(
    name="deepseekmath",
    sources=("2402.03300",),
    build=_deepseekmath,
    title="GRPO, DeepSeekMath",
    family="group",
    made_of=Composition(
        "`grpo_advantages`", "`clipped_surrogate`", "`sequence_mean`", "KL loss k3"
    ),
    anchor="deepseekmath",
    settings=Published(
        learning_rate=1e-6,
        prompts=16,
        group_size=64,
        updates=1,
        max_new_tokens=(1024,),
        kl_coef=0.04,
        notes="batch of 1024, read as responses",
    ),
    not_published=("clip: 0.2 here", "temperature"),
    not_built=("its reward model, replaced by the task's grader",),
)


def _r1_zero(max_new_tokens: int) -> Method:
    return Method(
        name="r1_zero",
        loss=partial(grpo_loss, clip_low=10.0, clip_high=10.0, kl_coef=0.001),
        advantages=grouped(grpo_advantages),
        rewards=with_format_reward(binary_accuracy, 1.0),
        loss_inputs=("entropy", "ref_logprobs"),
    )


R1_ZERO = Recipe(
    name="r1_zero",
    sources=("2501.12948",),
    build=_r1_zero,
    title="DeepSeek-R1-Zero",
    family="group",
    made_of=Composition(
        "`grpo_advantages`",
        "`clipped_surrogate` 10 / 10",
        "`sequence_mean`",
        "KL loss k3; reward for the format",
    ),
    anchor="deepseek-r1-zero",
    settings=Published(
        prompts=512,
        group_size=16,
        updates=16,
        max_new_tokens=(32768,),
        temperature=1.0,
        clip=(10.0, 10.0),
        kl_coef=0.001,
        notes="32 prompts per update; the limit of later in training",
    ),
    not_published=(
        "learning rate",
        "how eps = 10 is used: here it is the clip, which is then practically off",
        "weight of the format reward: 1 here",
    ),
)
