"""Frozen models of any size, with the policy's vocabulary, that score its tokens.

A `Teacher` gives a log-prob for each sampled token: an input of the advantages, so it
works with any reward and any loss. A `TeacherDivergence` compares its distribution over
the whole vocabulary with the policy's, token by token: an input of the loss, through
which the gradient flows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import numpy as np

from jaxrl_reason.learner.distillation import divergence_forward
from jaxrl_reason.learner.forward import hidden_states, logprobs_of
from jaxrl_reason.learner.packing import TrainBatch
from jaxrl_reason.learner.update import make_scorer
from jaxrl_reason.losses import select_teacher
from jaxrl_reason.models import Transformer
from jaxrl_reason.rl.components import (
    Component,
    ComponentLearner,
    FrozenModel,
    LearnerSetup,
    PolicyForward,
)
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
    the rollouts. The models are passed to `build_rl_learner`.

    Attributes:
      choose: f(Rollouts) -> [P] int, the teacher of each prompt; the first one if left
        out.
    """

    name: ClassVar[str] = "teacher"
    reads_teachers: ClassVar[bool] = True
    choose: Callable[[Rollouts], np.ndarray] | None = None

    def build(self, setup: LearnerSetup) -> "TeacherScores":
        """Builds the jitted forward passes.

        Raises:
          ValueError: there is no teacher, or one with another vocabulary or a context
          that is too short.
        """
        _check_teachers(setup)
        if len(setup.teachers) > 1 and self.choose is None:
            raise ValueError(
                f"several teachers need `choose`, which gives each prompt's teacher, "
                f"got {len(setup.teachers)} without it"
            )
        scorers = tuple(
            make_scorer(logprobs_of(teacher.model, setup.settings.temperature))
            for teacher in setup.teachers
        )
        params = tuple(teacher.params for teacher in setup.teachers)
        return TeacherScores(self.choose, scorers, params)


@dataclass(frozen=True, eq=False)
class TeacherScores(ComponentLearner):
    """The compiled functions of the teachers.

    Attributes:
      choose: of the component.
      scorers: one jitted forward pass per teacher.
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
        """Each sequence's log-probs under its teacher, and the KL to it as a metric."""
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
        # Sequences left out of the loss are in no mini-batch, so they have no scores.
        mask = experience.mask & batch.loss_rows[:, None]
        gap = np.where(mask, experience.old_logprobs - logprobs, 0.0)
        row = {"teacher/kl": float(gap.sum() / max(mask.sum(), 1))}
        return state, {"teacher_logprobs": logprobs}, row


@dataclass(frozen=True)
class TeacherDivergence(Component):
    """A teacher's whole distributions beside the policy's: the loss's `divergence`.

    Each mini-batch has a forward pass of the teacher of its own, whose hidden states
    [K, M, S, E] are all that is kept of it; `chunked_jsd` compares the two at the
    temperature of the rollouts. The model is handed to `build_rl_learner`.

    Attributes:
      beta: of `generalized_jsd`.
    """

    name: ClassVar[str] = "teacher"
    loss_inputs: ClassVar[tuple[str, ...]] = ("divergence",)
    reads_teachers: ClassVar[bool] = True
    beta: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta must be in [0, 1], got {self.beta}")

    def build(self, setup: LearnerSetup) -> "TeacherStates":
        """The jitted forward pass.

        Raises:
          ValueError: there is not one teacher, or it cannot read the policy's tokens.
        """
        _check_teachers(setup)
        if len(setup.teachers) > 1:
            raise ValueError(
                f"whole distributions are compared with one teacher's, "
                f"got {len(setup.teachers)}"
            )
        (teacher,) = setup.teachers
        forward = divergence_forward(
            setup.model,
            teacher.model,
            beta=self.beta,
            temperature=setup.settings.temperature,
        )
        states = make_scorer(partial(hidden_states, teacher.model))
        return TeacherStates(teacher, states, forward)


@dataclass(frozen=True, eq=False)
class TeacherStates(ComponentLearner):
    """The compiled pieces of a teacher whose distributions are read.

    Attributes:
      teacher: the frozen model.
      states: its forward pass, to hidden states; jitted.
      forward: the policy's pass, with the divergence.
    """

    name: ClassVar[str] = "teacher"
    teacher: FrozenModel
    states: Callable[..., jax.Array]
    forward: PolicyForward

    def policy_forward(self) -> PolicyForward:
        """With the divergence from the teacher."""
        return self.forward

    def frozen_params(self, state: "RLState") -> Mapping[str, Any]:
        """The teacher's, for its output head."""
        return {"teacher": self.teacher.params}

    def minibatch_inputs(
        self,
        learner: "RLLearner",
        state: "RLState",
        batch: RolloutBatch,
        minibatch: TrainBatch,
        update: int,
    ) -> dict[str, jax.Array]:
        """The teacher's hidden states, in the columns of the policy's rows."""
        num_active = batch.minibatches[update].plan.num_active
        hidden = self.states(self.teacher.params, minibatch, num_active)
        return {"teacher_hidden": hidden}


def _check_teachers(setup: LearnerSetup) -> None:
    if not setup.teachers:
        raise ValueError("a method with a teacher needs one, got none")
    for teacher in setup.teachers:
        _check_teacher(teacher.model, setup)


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
