"""On-policy distillation (arXiv 2306.08543, 2601.02780): a teacher for every token."""

from collections.abc import Callable

import numpy as np

from jaxrl_reason.losses import (
    distillation_advantages,
    grpo_advantages,
    reinforce_loss,
)
from jaxrl_reason.rl.method import Advantages, Experience, Method
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.rl.teacher import Teacher


def opd(
    *,
    coef: float = 1.0,
    outcome: bool = False,
    choose: Callable[[Rollouts], np.ndarray] | None = None,
) -> Method:
    """The student samples; a token's log-ratio to the teacher is its advantage.

    A_t = coef (log pi_teacher - log pi_old), with `outcome` plus GRPO's advantage of
    the rewards; the objective is REINFORCE's, averaged over tokens. In the papers a
    step is one update; with several per rollout no ratio corrects them.
    `with_importance_weights(opd(), masked_importance_weights)` weights tokens as
    MiMo-V2-Flash does. The teachers are passed to `build_rl_learner`.

    Args:
      coef: coefficient of the teacher's term, >= 0.
      outcome: whether rewards count too; without, groups of one are allowed.
      choose: f(Rollouts) -> [P], the teacher of each prompt, if there are several.

    Example:
      >>> from jaxrl_reason.rl.recipes.opd import opd
      >>> opd().name, opd().min_group_size, opd(outcome=True).min_group_size
      ('opd', 1, 2)
    """

    def advantages(x: Experience) -> Advantages:
        rewarded = None
        if outcome:
            rewarded = grpo_advantages(x.rewards, x.group_ids, num_groups=x.num_groups)
        found = distillation_advantages(
            x.old_logprobs,
            x["teacher_logprobs"],
            x.mask,
            coef=coef,
            outcome_advantages=rewarded,
        )
        return Advantages(found)

    return Method(
        name="opd",
        loss=reinforce_loss,
        advantages=advantages,
        loss_inputs=("entropy",),
        min_group_size=2 if outcome else 1,
        components=(Teacher(choose),),
    )
