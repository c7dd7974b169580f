"""DPPO (arXiv 2602.04879): a trust region on the token's probability."""

from functools import partial

from jaxrl_reason.losses import binary_kl, binary_tv, dppo_loss, grpo_advantages
from jaxrl_reason.rl.method import Method, grouped
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy

LOSSES = {
    "dppo": partial(dppo_loss, divergence=binary_tv, delta_low=0.2, delta_high=0.2),
    "dppo_kl": partial(
        dppo_loss, divergence=binary_kl, delta_low=0.05, delta_high=0.05
    ),
}


def _method(name: str) -> Method:
    return Method(
        name=name,
        loss=LOSSES[name],
        advantages=grouped(grpo_advantages),
        rewards=binary_accuracy,
        # The region is around the policy that sampled, as its own engine reports it.
        loss_inputs=("entropy", "sampler_logprobs"),
    )


def _dppo(max_new_tokens: int) -> Method:
    return _method("dppo")


def _dppo_kl(max_new_tokens: int) -> Method:
    return _method("dppo_kl")


SETTINGS = Published(
    learning_rate=1e-6,
    prompts=256,
    group_size=16,
    updates=8,
    max_new_tokens=(16384,),
    temperature=1.0,
    notes="of its mixture of experts, appendix E; delta 0.2 of TV, 0.05 of KL",
)
NOT_PUBLISHED = (
    "whether advantages are divided by their standard deviation: they are here",
    "the loss mean: over tokens here, verl's default",
)

DPPO = Recipe(
    name="dppo",
    sources=("2602.04879",),
    build=_dppo,
    title="DPPO",
    family="objective",
    made_of=Composition(
        "`grpo_advantages`",
        "`dppo` with `binary_tv` 0.2, about the sampler's log-probs",
        "`token_mean`",
    ),
    settings=SETTINGS,
    not_published=NOT_PUBLISHED,
    not_built=("the cap of 5 on the ratio, a second truncation in its appendix",),
)

DPPO_KL = Recipe(
    name="dppo_kl",
    sources=("2602.04879",),
    build=_dppo_kl,
    title="DPPO, binary KL",
    family="objective",
    made_of=Composition(
        "`grpo_advantages`",
        "`dppo` with `binary_kl` 0.05, about the sampler's log-probs",
        "`token_mean`",
    ),
    settings=SETTINGS,
    not_published=NOT_PUBLISHED,
    not_built=DPPO.not_built,
)
