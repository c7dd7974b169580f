"""LUSPO (arXiv 2602.05261): GSPO with each loss times the response's length."""

from functools import partial

from jaxrl_reason.losses import grpo_advantages, luspo_loss
from jaxrl_reason.rl.method import Method, grouped
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy


def _luspo(max_new_tokens: int) -> Method:
    return Method(
        name="luspo",
        loss=partial(luspo_loss, clip_low=2e-3, clip_high=2.5e-3),
        advantages=grouped(grpo_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
    )


LUSPO = Recipe(
    name="luspo",
    sources=("2602.05261",),
    build=_luspo,
    title="LUSPO",
    family="objective",
    made_of=Composition(
        "`grpo_advantages`", "`gspo` 2e-3 / 2.5e-3", "`sequence_sum_mean`"
    ),
    settings=Published(
        learning_rate=1e-6,
        prompts=128,
        group_size=8,
        updates=8,
        max_new_tokens=(32768,),
        temperature=1.0,
        clip=(2e-3, 2.5e-3),
        notes="mini-batches of 16, top-p 0.7, warm-up over 20 rollouts",
    ),
    not_published=("KL: none here",),
    not_built=("its rewards for the format, 0.5, and for the length",),
)
