"""Distillation on the toy: a student of the setup, a wider teacher.

The teacher is fine-tuned and then trained by GRPO on the toy task until it is mostly
right. The student is only fine-tuned, and sees no reward after that: what it learns,
the teacher taught it, by its log-probs of the student's tokens (opd) or by its whole
distributions (gkd).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

from experiments.toys.toy_setup import (
    SETUP,
    ToySetup,
    method_learner,
    one_device,
    sft_policy,
)
from experiments.toys.toy_tasks import EndlessProblems
from jaxrl_reason.models import Transformer
from jaxrl_reason.rl.components import FrozenModel
from jaxrl_reason.rl.iteration import rl_iteration
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.recipes.gkd import gkd
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.recipes.opd import opd
from jaxrl_reason.rl.rl_learner import RLLearner, build_rl_learner, init_rl_state
from jaxrl_reason.runs.metrics_log import PhaseTimer

TAUGHT: Mapping[str, Callable[[], Method]] = {"opd": opd, "gkd": gkd}
# Steps of GRPO that make a teacher.
TEACHER_STEPS = 40


def wider(setup: ToySetup) -> ToySetup:
    """The teacher's setup: one and a half times as wide."""
    size = setup.model.hidden_size * 3 // 2
    return replace(
        setup, model=replace(setup.model, hidden_size=size, mlp_dim=2 * size)
    )


@cache
def toy_teacher(setup: ToySetup = SETUP, steps: int = TEACHER_STEPS) -> FrozenModel:
    """A teacher that has learned the task; the same one for all students."""
    of_teacher = wider(setup)
    learner = method_learner(grpo(kl_coef=0), of_teacher)
    state = init_rl_state(learner, sft_policy(of_teacher, 100))
    problems = EndlessProblems(setup.settings.prompts_per_step)
    for _ in range(steps):
        state, _, _ = rl_iteration(learner, state, problems, PhaseTimer())
    return FrozenModel(Transformer(of_teacher.model), state.policy.params)


@cache
def student_learner(
    name: str, setup: ToySetup = SETUP, teacher_steps: int = TEACHER_STEPS
) -> RLLearner:
    """Distillation from that teacher, one update per rollout."""
    teacher = toy_teacher(setup, teacher_steps)
    return build_rl_learner(
        Transformer(setup.model),
        setup.task,
        TAUGHT[name](),
        replace(setup.settings, updates_per_rollout=1),
        setup.optimizer,
        one_device(),
        teachers=(teacher,),
    )
