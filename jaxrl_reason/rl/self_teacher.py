"""The policy as its own teacher, where it has read how the prompt is answered well.

A right response to the same prompt stands before the prompt (SDPO, arXiv 2601.20802),
or a demonstration (SDFT, arXiv 2601.19897). What the policy then predicts at each token
of its own response is distilled into the policy without that context.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import numpy as np
import optax

from jaxrl_reason.learner.distillation import divergence_forward
from jaxrl_reason.learner.forward import hidden_states
from jaxrl_reason.learner.packing import (
    PackingShape,
    TrainBatch,
    pack_sequences,
)
from jaxrl_reason.learner.state import TrainState, init_state
from jaxrl_reason.learner.update import make_scorer
from jaxrl_reason.rl.components import (
    Component,
    ComponentLearner,
    LearnerSetup,
    PolicyForward,
)
from jaxrl_reason.rl.method import Experience
from jaxrl_reason.rl.minibatches import Minibatch, MinibatchPlan, RolloutBatch
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.metrics_log import Row

if TYPE_CHECKING:
    from jaxrl_reason.rl.rl_learner import RLLearner, RLState

# [P][G] token ids of what each response's teacher reads, None where it has no teacher.
Demonstrations = Sequence[Sequence[np.ndarray | None]]


def ask_again(prompt: np.ndarray, demonstration: np.ndarray) -> np.ndarray:
    """The prompt, a good response to it, and the prompt once more, as tokens.

    Of a chat: a turn of the user, one of the assistant, and the user asks again. So it
    suits any tokenizer and any template. For words of your own decode both, write the
    text and encode it.

    Args:
      prompt: [n] ids.
      demonstration: [m] ids, with the end token where it has one.

    Returns:
      [2 n + m] ids.

    Example:
      >>> import numpy as np
      >>> from jaxrl_reason.rl.self_teacher import ask_again
      >>> print(ask_again(np.array([5]), np.array([4, 3, 1])))
      [5 4 3 1 5]
    """
    return np.concatenate([prompt, demonstration, prompt])


def right_siblings(rollouts: Rollouts) -> Demonstrations:
    """For each response the first right one of its group that is not itself."""
    right = rollouts.correct & ~rollouts.failed  # [P, G]
    found: list[list[np.ndarray | None]] = []
    for p, of_group in enumerate(right):
        first, second = [*np.flatnonzero(of_group)[:2], -1, -1][:2]
        chosen = [second if g == first else first for g in range(len(of_group))]
        found.append(
            [
                None if g < 0 else rollouts.tokens[p, g, : rollouts.lengths[p, g]]
                for g in chosen
            ]
        )
    return found


@dataclass(frozen=True)
class WorkedResponses:
    """The demonstration of each problem, the same for all responses to it.

    Attributes:
      responses: problem id -> token ids, with the end token.
    """

    responses: Mapping[int, Sequence[int]]

    def __call__(self, rollouts: Rollouts) -> Demonstrations:
        """Those of a rollout's problems."""
        g = rollouts.lengths.shape[1]
        shown = (self.responses.get(int(i)) for i in rollouts.problem_ids)
        return [[None if x is None else np.asarray(x, np.int32)] * g for x in shown]

    @property
    def longest(self) -> int:
        """Tokens of the longest one."""
        return max(map(len, self.responses.values()), default=0)


@dataclass(frozen=True)
class SelfTeacher(Component):
    """The policy's moving average, informed: gives the loss its `divergence`.

    It scores the responses that have a demonstration; the others should be out of the
    loss (`has_teacher`). Before each update a forward pass over the informed sequences
    of the mini-batch, packed by themselves in shapes that never change.

    Attributes:
      demonstrate: f(Rollouts) -> what the teacher reads, a response each.
      context: f(prompt, demonstration) -> the informed prompt, token ids.
      context_width: the longest informed prompt; 0 for that of `ask_again`.
      update_rate: the part of the policy in the teacher, once per rollout: 1 makes it
        the policy that sampled, 0 the first one for ever.
      beta: of `generalized_jsd`.
    """

    name: ClassVar[str] = "teacher"
    loss_inputs: ClassVar[tuple[str, ...]] = ("divergence",)
    keeps_params: ClassVar[bool] = True
    demonstrate: Callable[[Rollouts], Demonstrations] = right_siblings
    context: Callable[[np.ndarray, np.ndarray], np.ndarray] = ask_again
    context_width: int = 0
    update_rate: float = 0.05
    beta: float = 0.5

    def __post_init__(self) -> None:
        for name in ("update_rate", "beta"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if self.context_width < 0:
            raise ValueError(f"context_width must be >= 0, got {self.context_width}")

    def informed_width(self, prompt_width: int, max_new_tokens: int) -> int:
        """The longest prompt that the teacher reads, in tokens."""
        longest = max_new_tokens
        if isinstance(self.demonstrate, WorkedResponses):
            longest = self.demonstrate.longest
        return self.context_width or 2 * prompt_width + longest

    def has_teacher(self, rollouts: Rollouts) -> np.ndarray:
        """[P, G] bool: the responses with a demonstration, for `Method.loss_rows`."""
        shown = self.demonstrate(rollouts)
        return np.array([[one is not None for one in group] for group in shown])

    def build(self, setup: LearnerSetup) -> "SelfTeacherLearner":
        """The jitted passes.

        Raises:
          ValueError: the model's context does not hold informed prompt and response.
        """
        s = setup.settings
        width = self.informed_width(s.prompt_width, s.max_new_tokens)
        needed = width + s.max_new_tokens
        if needed > setup.model.config.context_length:
            raise ValueError(
                f"the model's context_length must hold what the teacher reads and a "
                f"response ({needed} tokens), got {setup.model.config.context_length}"
            )
        plan = MinibatchPlan.build(
            num_prompts=s.prompts_per_step,
            group_size=s.group_size,
            num_minibatches=s.updates_per_rollout,
            shape=PackingShape(
                s.rows_per_micro_batch, max(s.row_width, needed), s.slots_per_row
            ),
            max_sequence=needed,
        )
        score = make_scorer(partial(hidden_states, setup.model))

        @jax.jit
        def states(
            params: Any, informed: TrainBatch, num_active: jax.Array, source: jax.Array
        ) -> jax.Array:
            hidden = score(params, informed, num_active)  # [K', M', S', D]
            return hidden.reshape(-1, hidden.shape[-1])[source]  # [K, M, S, D]

        @jax.jit
        def follow(teacher: Any, policy: Any) -> Any:
            return optax.incremental_update(policy, teacher, self.update_rate)

        forward = divergence_forward(
            setup.model, setup.model, beta=self.beta, temperature=s.temperature
        )
        return SelfTeacherLearner(self, plan, width, states, follow, forward)


@dataclass(frozen=True, eq=False)
class SelfTeacherLearner(ComponentLearner):
    """The compiled pieces of a self-teacher.

    Attributes:
      component: its settings.
      plan: shapes of the informed mini-batches.
      width: tokens of an informed prompt at most.
      states: f(params, informed, num_active, source) -> hidden states in the columns of
        the policy's rows; jitted.
      follow: f(teacher, policy) -> the moving average; jitted.
      forward: the policy's pass, with the divergence.
    """

    name: ClassVar[str] = "teacher"
    component: SelfTeacher
    plan: MinibatchPlan
    width: int
    states: Callable[..., jax.Array]
    follow: Callable[[Any, Any], Any]
    forward: PolicyForward

    def init_model(self, policy: TrainState) -> TrainState:
        """The policy, copied; nothing trains it."""
        return init_state(policy.params, optax.identity(), copy=True)

    def policy_forward(self) -> PolicyForward:
        """With the divergence from the teacher."""
        return self.forward

    def frozen_params(self, state: "RLState") -> Mapping[str, Any]:
        """The teacher's, for its output head."""
        return {"teacher": state.models[self.name].params}

    def before_advantages(
        self,
        learner: "RLLearner",
        state: "RLState",
        batch: RolloutBatch,
        experience: Experience,
    ) -> "tuple[RLState, dict[str, np.ndarray], Row]":
        """The teacher takes its step towards the policy that sampled."""
        old = state.models[self.name]
        new = replace(old, params=self.follow(old.params, state.policy.params))
        state = replace(state, models={**state.models, self.name: new})
        return state, {}, {"teacher/taught_fraction": float(batch.loss_rows.mean())}

    def minibatch_inputs(
        self,
        learner: "RLLearner",
        state: "RLState",
        batch: RolloutBatch,
        minibatch: TrainBatch,
        update: int,
    ) -> dict[str, jax.Array]:
        """The informed teacher's hidden states, in the columns of the policy's rows."""
        put = partial(learner.batch_sharding.put_batch, axis=1)
        informed, num_active, source = self.inform(batch, batch.minibatches[update])
        params = state.models[self.name].params
        hidden = self.states(params, put(informed), num_active, put(source))
        return {"teacher_hidden": hidden}

    def inform(
        self, batch: RolloutBatch, m: Minibatch
    ) -> tuple[TrainBatch, int, np.ndarray]:
        """Packs what the teacher reads of a mini-batch.

        Returns:
          The informed sequences, packed; their micro-batches; for each column [K, M, S]
          of the policy's rows the column of theirs, of all in one line, that predicts
          the same token. Elsewhere it is column 0.

        Raises:
          ValueError: an informed prompt is too long.
        """
        rollouts = batch.rollouts
        shown = self.component.demonstrate(rollouts)
        g, t = rollouts.tokens.shape[1:]
        taught, prompts, responses = list[int](), [], []
        for n, i in enumerate(m.index):
            of_response = shown[i // g][i % g]
            if of_response is None or not batch.loss_rows[i]:
                continue
            p, length = i // g, rollouts.lengths[i // g, i % g]
            prompt = rollouts.prompt_tokens[p, : rollouts.prompt_lengths[p]]
            prompts.append(self.component.context(prompt, of_response))
            responses.append(rollouts.tokens[p, i % g, :length])
            taught.append(n)
        longest = max(map(len, prompts), default=0)
        if longest > self.width:
            raise ValueError(
                f"what a teacher reads must have at most {self.width} tokens "
                f"(context_width), got {longest}"
            )
        # Responses that read the same share its tokens in their row.
        ids: dict[bytes, int] = {}
        informed, plan = pack_sequences(
            prompts,
            responses,
            self.plan.shape,
            num_micro=self.plan.num_micro,
            response_width=t,
            prompt_ids=np.array(
                [ids.setdefault(np.asarray(x).tobytes(), len(ids)) for x in prompts],
                int,
            ),
        )
        source = np.zeros(m.batch.tokens.shape, np.int32)  # [K, M, S]
        shape = self.plan.shape
        for n, k, row, slot, response in zip(
            taught, plan.micro, plan.row, plan.slot, responses, strict=True
        ):
            steps = np.arange(len(response))
            own = m.batch.starts[m.plan.micro[n], m.plan.slot[n]]
            line = (k * shape.rows + row) * shape.width + informed.starts[k, slot]
            source[m.plan.micro[n], m.plan.row[n], own + steps] = line + steps
        return informed, plan.num_active, source
