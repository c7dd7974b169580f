"""Arms of claims that learn from a teacher.

ARMS = {"distillation": TaughtArm(opd(), SETUP, teacher_setup=SETUP), ...}
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from experiments.toys.toy_arms import ToyArm
from experiments.toys.toy_setup import SETUP, ToySetup, one_device, run_method
from experiments.toys.toy_teacher import toy_teacher
from jaxrl_reason.models import Transformer
from jaxrl_reason.rl.rl_learner import RLLearner, build_rl_learner
from jaxrl_reason.runs.metrics_log import Row


@dataclass(frozen=True)
class TaughtArm(ToyArm):
    """A method with a teacher that GRPO has trained on the same task.

    Attributes:
      teacher_setup: that of GRPO.
      teacher_steps: of GRPO; with 0 the teacher is only fine-tuned.
    """

    teacher_setup: ToySetup = SETUP
    teacher_steps: int = 0


def run_taught_arm(
    arm: TaughtArm,
    seed: int,
    steps: int,
    until: Callable[[Sequence[Row]], bool] | None = None,
) -> list[Row]:
    """The rows of a run.

    Args:
      arm: what is run.
      seed: of the student; the teacher is the same for all.
      steps: at most.
      until: of the rows so far; stops the run once it is true.
    """
    learner = _taught_learner(arm)
    return run_method(
        arm.method, seed, steps=steps, setup=arm.setup, learner=learner, until=until
    )


@cache
def _taught_learner(arm: TaughtArm) -> RLLearner:
    setup = arm.setup
    teacher = toy_teacher(arm.teacher_setup, arm.teacher_steps)
    return build_rl_learner(
        Transformer(setup.model),
        setup.task,
        arm.method,
        setup.settings,
        setup.optimizer,
        one_device(),
        teachers=(teacher,),
    )
