"""Frozen models that say how likely they find each token that the policy sampled.

They may be of any size; the vocabulary is the policy's. What they say is an input of
the advantages, so a teacher may stand beside any reward and any loss.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import numpy as np

from jaxrl_reason.learner.forward import logprobs_of
from jaxrl_reason.learner.update import make_scorer
from jaxrl_reason.losses import select_teacher
from jaxrl_reason.models import Transformer
from jaxrl_reason.rl.components import Component, ComponentLearner, LearnerSetup
from jaxrl_reason.rl.method import Experience
from jaxrl_reason.rl.minibatches import RolloutBatch, score_sequences
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.metrics_log import Row

if TYPE_CHECKING:
    from jaxrl_reason.rl.rl_learner import RLLearner, RLState

Params = Any


@dataclass(frozen=True)
class Teacher(Component):
    """Teachers score each rollout (`distillation_advantages`).

    An estimator reads `experience["teacher_logprobs"]` [B, T], at the temperature of
    the rollouts. The models are handed to `build_rl_learner`.

    Attributes:
      choose: f(Rollouts) -> [P] int, which of several teachers a prompt has; the first
        one if left out.
    """

    name: ClassVar[str] = "teacher"
    reads_teachers: ClassVar[bool] = True
    choose: Callable[[Rollouts], np.ndarray] | None = None

    def build(self, setup: LearnerSetup) -> "TeacherScores":
        """The jitted forward passes.

        Raises:
          ValueError: there is no teacher, or one that cannot read the policy's tokens.
        """
        if not setup.teachers:
            raise ValueError("a method with a teacher needs one, got none")
        if len(setup.teachers) > 1 and self.choose is None:
            raise ValueError(
                f"several teachers need `choose`, which says whose each prompt is, "
                f"got {len(setup.teachers)} without it"
            )
        for teacher in setup.teachers:
            _check_teacher(teacher.model, setup)
        scorers = tuple(
            make_scorer(logprobs_of(teacher.model, setup.settings.temperature))
            for teacher in setup.teachers
        )
        params = tuple(teacher.params for teacher in setup.teachers)
        return TeacherScores(self.choose, scorers, params)


@dataclass(frozen=True, eq=False)
class TeacherScores(ComponentLearner):
    """The compiled pieces of the teachers.

    Attributes:
      choose: of the component.
      scorers: a forward pass each; jitted.
      params: of each teacher.
    """

    name: ClassVar[str] = "teacher"
    choose: Callable[[Rollouts], np.ndarray] | None
    scorers: tuple[Callable[..., jax.Array], ...]
    params: tuple[Params, ...]

    def before_advantages(
        self,
        learner: "RLLearner",
        state: "RLState",
        batch: RolloutBatch,
        experience: Experience,
    ) -> "tuple[RLState, dict[str, np.ndarray], Row]":
        """Each sequence's log-probs under its teacher, and how far the policy is."""
        scored = [
            score_sequences(scorer, params, batch.minibatches, learner.batch_sharding)
            for scorer, params in zip(self.scorers, self.params, strict=True)
        ]
        logprobs = scored[0]
        if self.choose is not None:
            of_prompts = np.asarray(self.choose(batch.rollouts))  # [P]
            ids = np.repeat(of_prompts, batch.rollouts.lengths.shape[1])  # [B]
            if ids.min() < 0 or ids.max() >= len(scored):
                raise ValueError(
                    f"choose must give numbers of teachers below {len(scored)}, "
                    f"got {sorted(set(of_prompts.tolist()))}"
                )
            logprobs = np.asarray(
                select_teacher(np.stack(scored), ids, experience.mask)
            )
        # Sequences out of the loss are in no mini-batch and were scored by nobody.
        mask = experience.mask & batch.loss_rows[:, None]
        gap = np.where(mask, experience.old_logprobs - logprobs, 0.0)
        row = {"teacher/kl": float(gap.sum() / max(mask.sum(), 1))}
        return state, {"teacher_logprobs": logprobs}, row


def _check_teacher(teacher: Transformer, setup: LearnerSetup) -> None:
    policy, settings = setup.model.config, setup.settings
    if teacher.config.vocab_size != policy.vocab_size:
        raise ValueError(
            f"a teacher must have the policy's vocabulary ({policy.vocab_size}), "
            f"got {teacher.config.vocab_size}"
        )
    needed = settings.prompt_width + settings.max_new_tokens
    if teacher.config.context_length < needed:
        raise ValueError(
            f"a teacher's context must hold prompt and response ({needed} tokens), "
            f"got {teacher.config.context_length}"
        )
