"""Systems with GRPO's kind of advantages: the mean of the group as the baseline."""

from functools import partial

from jaxrl_reason.losses import (
    batch_std_advantages,
    dapo_loss,
    grpo_advantages,
    grpo_loss,
    ppo_loss,
)
from jaxrl_reason.rl.coefficient_controllers import entropy_controller
from jaxrl_reason.rl.methods import (
    Method,
    binary_accuracy,
    dr_grpo,
    grouped,
    with_format_reward,
)
from jaxrl_reason.rl.recipes.estimators import (
    formatted_accuracy,
    grpo_without_truncated,
    rows_with_signal,
)
from jaxrl_reason.rl.recipes.recipe import Published, Recipe

_VERL_MEAN = "the loss mean: verl's default of its time, here over tokens"


def _grpo_token_mean(name: str, kl_coef: float) -> Method:
    """GRPO's advantages under PPO's loss with a KL term, as verl ran it in early 2025.

    Right in the task's format counts 1, anything else 0.
    """
    return Method(
        name=name,
        loss=partial(ppo_loss, clip_low=0.2, clip_high=0.2, kl_coef=kl_coef),
        advantages=grouped(grpo_advantages),
        rewards=formatted_accuracy,
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
    not_built=("its reward model, whose place the task's grader takes",),
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
    settings=Published(
        prompts=512,
        group_size=16,
        updates=16,
        max_new_tokens=(32768,),
        temperature=1.0,
        clip=(10.0, 10.0),
        kl_coef=0.001,
        notes="32 prompts an update; the limit of later in training",
    ),
    not_published=(
        "learning rate",
        "how eps = 10 is used: here it is the clip, which is then practically off",
        "weight of the format reward: 1 here",
    ),
)


def _dr_grpo(max_new_tokens: int) -> Method:
    return dr_grpo(length=max_new_tokens)


DR_GRPO = Recipe(
    name="dr_grpo",
    sources=("2503.20783",),
    build=_dr_grpo,
    settings=Published(
        learning_rate=1e-6,
        prompts=128,
        group_size=8,
        max_new_tokens=(3000,),
        temperature=1.0,
        clip=(0.2, 0.2),
        kl_coef=0.0,
        notes="Oat-Zero; one epoch over a rollout; truncated responses get 0",
    ),
    not_published=("updates in that epoch",),
)


def _light_r1(max_new_tokens: int) -> Method:
    return _grpo_token_mean("light_r1", kl_coef=0.001)


LIGHT_R1 = Recipe(
    name="light_r1",
    sources=("2503.10460",),
    build=_light_r1,
    settings=Published(
        learning_rate=1e-6,
        prompts=128,
        group_size=8,
        updates=1,
        max_new_tokens=(24000,),
        temperature=1.0,
        clip=(0.2, 0.2),
        kl_coef=0.001,
        notes="the RL stage of the 14B model; pass rate 0.25 to 0.625",
    ),
    not_published=(
        _VERL_MEAN,
        "the modified cosine length reward: left out",
        "the clip of importance weights: left out",
    ),
    not_built=("the SFT and DPO stages before",),
)


def _deepscaler(max_new_tokens: int) -> Method:
    return _grpo_token_mean("deepscaler", kl_coef=0.001)


DEEPSCALER = Recipe(
    name="deepscaler",
    sources=(),
    build=_deepscaler,
    settings=Published(
        learning_rate=1e-6,
        prompts=128,
        group_size=8,
        updates=2,
        max_new_tokens=(8192, 16384, 24576),
        temperature=0.6,
        clip=(0.2, 0.2),
        kl_coef=0.001,
        notes="agentica's repository; group size 16 from the second stage on",
    ),
    not_published=(_VERL_MEAN, "thresholds of its data filter"),
    not_built=("its stages, which are in `recipes.staged`",),
)


def _skywork_or1(max_new_tokens: int) -> Method:
    return Method(
        name="skywork_or1",
        loss=partial(ppo_loss, clip_low=0.2, clip_high=0.2),
        advantages=grouped(grpo_advantages),
        rewards=formatted_accuracy,
        loss_inputs=("entropy",),
        loss_rows=rows_with_signal,
        controller=entropy_controller(target=0.2, step=1e-4, low=0.0, high=0.005),
    )


SKYWORK_OR1 = Recipe(
    name="skywork_or1",
    sources=("2505.22312",),
    build=_skywork_or1,
    settings=Published(
        learning_rate=1e-6,
        prompts=256,
        group_size=16,
        updates=1,
        max_new_tokens=(8192, 16384, 32768),
        temperature=1.0,
        clip=(0.2, 0.2),
        kl_coef=0.0,
        notes="entropy target 0.2, step 1e-4, coefficient in [0, 0.005]",
    ),
    not_published=("the paper's closed form of the entropy coefficient",),
    not_built=("its stages, which are in `recipes.staged`",),
)


def _srpo(max_new_tokens: int) -> Method:
    return Method(
        name="srpo",
        loss=partial(dapo_loss, clip_low=0.2, clip_high=0.2),
        advantages=grpo_without_truncated,
        rewards=with_format_reward(binary_accuracy, 1.0),
        loss_inputs=("entropy",),
    )


SRPO = Recipe(
    name="srpo",
    sources=("2504.14286",),
    build=_srpo,
    settings=Published(
        learning_rate=1e-6,
        prompts=256,
        group_size=32,
        kl_coef=0.0,
        notes="AdamW betas 0.9 and 0.95; truncated responses have advantage 0",
    ),
    not_published=(
        "clip: 0.2 here",
        "rewards of accuracy and format: 1 each here",
        "the penalty for mixed languages: left out",
        "updates, length limit, temperature",
    ),
    not_built=("its stages and history resampling, which are in `recipes.staged`",),
)


def _mimo(max_new_tokens: int) -> Method:
    return Method(
        name="mimo",
        loss=partial(dapo_loss, clip_low=0.2, clip_high=0.28),
        advantages=grouped(grpo_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
        dynamic_sampling=True,
    )


MIMO = Recipe(
    name="mimo",
    sources=("2505.07608",),
    build=_mimo,
    settings=Published(
        learning_rate=1e-6,
        prompts=512,
        updates=16,
        max_new_tokens=(32768,),
        temperature=1.0,
        kl_coef=0.0,
        notes="mini-batch 32; 10% of the draws from the solved pool (`EasyPoolStream`)",
    ),
    not_published=(
        "clip: DAPO's 0.2 and 0.28 here",
        "group size",
        "scores of the difficulty levels (`difficulty_reward`), for code only",
    ),
)


def _lite_ppo(max_new_tokens: int) -> Method:
    return Method(
        name="lite_ppo",
        loss=partial(ppo_loss, clip_low=0.2, clip_high=0.2),
        advantages=grouped(batch_std_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
    )


LITE_PPO = Recipe(
    name="lite_ppo",
    sources=("2508.08221",),
    build=_lite_ppo,
    settings=Published(notes="the batch's deviation, mean over tokens"),
    not_published=("all but the advantages and the mean; clip 0.2 here",),
)


def _intellect_2(max_new_tokens: int) -> Method:
    return Method(
        name="intellect_2",
        loss=partial(
            grpo_loss, clip_low=0.2, clip_high=0.2, dual_clip=4.0, kl_coef=0.001
        ),
        advantages=grouped(grpo_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy", "ref_logprobs"),
    )


INTELLECT_2 = Recipe(
    name="intellect_2",
    sources=("2505.07291",),
    build=_intellect_2,
    settings=Published(
        learning_rate=3e-7,
        group_size=16,
        clip=(0.2, 0.2),
        kl_coef=0.001,
        notes="clipped on two sides, delta 4",
    ),
    not_published=("the loss mean: over sequences here", "prompts, updates, limit"),
)
