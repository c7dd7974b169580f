"""Where a step's loss comes from: its part in every response and every token.

A loss of this library returns the part that is due to the rows and tokens it is given
(`losses.reductions`): so the part of one response is the loss of its row alone, and the
part of one token that of its row with every other token masked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.learner.forward import policy_logprobs
from jaxrl_reason.learner.packing import TrainBatch
from jaxrl_reason.learner.update import make_scorer
from jaxrl_reason.losses import batch_counts
from jaxrl_reason.models import Transformer
from jaxrl_reason.rl.components import ComponentLearner
from jaxrl_reason.rl.iteration import model_params
from jaxrl_reason.rl.method import Advantages, Experience, Method
from jaxrl_reason.rl.minibatches import RolloutBatch
from jaxrl_reason.rl.rl_learner import RLLearner, RLState
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.metrics_log import Row

# Parts add up in another order than the loss itself.
_CLOSE = 1e-4


@dataclass(frozen=True)
class UpdateLosses:
    """One update: N responses of T tokens, in the order of the mini-batch.

    Attributes:
      index: [N] rows of the step's batch.
      logprobs: [N, T] of the policy before the update.
      mask: [N, T] True on the tokens in the loss.
      advantages: [N, T].
      responses: [N] part of the loss; None for a loss that needs what a component adds.
      tokens: [N, T] likewise; None also for a loss that is no sum over tokens.
    """

    index: np.ndarray
    logprobs: np.ndarray
    mask: np.ndarray
    advantages: np.ndarray
    responses: np.ndarray | None
    tokens: np.ndarray | None


class LossRecorder(ComponentLearner):
    """Keeps what the updates of one step were made of; changes none of it.

    Args:
      model: the policy's.
      method: of the run.
      temperature: of its log-probs.
      num_groups: of a mini-batch.
    """

    name: ClassVar[str] = "loss_recorder"

    def __init__(
        self, model: Transformer, method: Method, temperature: float, num_groups: int
    ) -> None:
        def both(params: Any, batch: TrainBatch) -> jax.Array:
            found = policy_logprobs(model, params, batch, temperature)
            return jnp.stack(found, axis=-1)  # [Q, T, 2]

        self._score = make_scorer(both)
        self._method, self._num_groups = method, num_groups
        self.rollouts: Rollouts | None = None
        self.experience: Experience | None = None
        self.updates: list[UpdateLosses] = []

    def after_advantages(
        self,
        learner: RLLearner,
        state: RLState,
        batch: RolloutBatch,
        experience: Experience,
        estimate: Advantages,
    ) -> tuple[RLState, Row]:
        """Keeps the step's batch."""
        self.rollouts, self.experience, self.updates = batch.rollouts, experience, []
        return state, {}

    def minibatch_inputs(
        self,
        learner: RLLearner,
        state: RLState,
        batch: RolloutBatch,
        minibatch: TrainBatch,
        update: int,
    ) -> dict[str, jax.Array]:
        """Keeps an update; gives the loss nothing."""
        packed = batch.minibatches[update]
        place = (packed.plan.micro, packed.plan.slot)
        params = model_params(learner, state)
        scored = self._score(params, minibatch, jnp.asarray(packed.plan.num_active))
        logprobs, entropy = np.moveaxis(
            np.asarray(jax.device_get(scored))[place], -1, 0
        )
        held = jax.device_get(minibatch)
        mask = np.asarray(held.mask)[place]
        inputs = {name: np.asarray(x)[place] for name, x in held.inputs.items()}
        given = {
            **inputs,
            "entropy": entropy,
            "group_ids": np.asarray(held.group_ids)[place],
        }
        controls: dict[str, float] = {}
        for component in learner.components:
            controls |= component.coefficients(state.controls)
        parts = loss_parts(
            self._method, logprobs, mask, given, controls, num_groups=self._num_groups
        )
        self.updates.append(
            UpdateLosses(packed.index, logprobs, mask, inputs["advantages"], *parts)
        )
        return {}


def loss_parts(
    method: Method,
    logprobs: np.ndarray,
    mask: np.ndarray,
    given: Mapping[str, np.ndarray],
    controls: Mapping[str, float],
    *,
    num_groups: int,
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The part of every response and of every token in the loss of a mini-batch.

    Args:
      method: whose loss it is.
      logprobs: [N, T].
      mask: [N, T] bool.
      given: arrays [N, ...] by name: old_logprobs, advantages, and those of
        `method.all_loss_inputs`.
      controls: scalars that the loss gets by keyword.
      num_groups: of the mini-batch.

    Returns:
      [N] and [N, T], zero outside the mask. None twice if the loss reads what is not in
      `given`; None for the tokens if theirs do not add up to their response's, as where
      a ratio belongs to a whole response.
    """
    names = method.all_loss_inputs
    if method.gradients is not None or not set(names) <= set(given):
        return None, None
    counts = batch_counts(mask, given["group_ids"], num_groups=num_groups)
    fixed: dict[str, Any] = dict(controls)
    if "group_ids" in names:
        fixed["num_groups"] = num_groups
    if "correct" in names:
        right = mask & given["correct"].astype(bool)[:, None]
        fixed["positive_counts"] = batch_counts(
            right, given["group_ids"], num_groups=num_groups
        )

    def part(row: Mapping[str, jax.Array], kept: jax.Array) -> jax.Array:
        one = {name: x[None] for name, x in row.items()}
        loss, _ = method.loss(
            one["logprobs"],
            one["old_logprobs"],
            one["advantages"],
            kept[None],
            counts,
            **{name: one[name] for name in names},
            **fixed,
        )
        return loss

    def of_row(row: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        alone = jnp.eye(mask.shape[1], dtype=bool) & row["mask"][None]  # [T, T]
        return part(row, row["mask"]), jax.vmap(partial(part, row))(alone)

    wanted = {"old_logprobs", "advantages", *names}
    rows = {name: jnp.asarray(given[name]) for name in wanted}
    rows |= {"logprobs": jnp.asarray(logprobs), "mask": jnp.asarray(mask)}
    # Row by row: the masks of all tokens of all responses would be T times the batch.
    responses, tokens = jax.device_get(jax.jit(partial(jax.lax.map, of_row))(rows))
    total = tokens.sum(axis=1)
    scale = np.abs(tokens).sum(axis=1) + np.abs(responses)
    adds_up = np.abs(total - responses) <= _CLOSE * scale + 1e-12
    return responses, tokens if adds_up.all() else None


def recording(learner: RLLearner, model: Transformer) -> tuple[RLLearner, LossRecorder]:
    """The learner with a recorder among its components, and the recorder.

    Args:
      learner: of the run.
      model: the policy's.
    """
    recorder = LossRecorder(
        model,
        learner.method,
        learner.settings.temperature,
        learner.plan.groups_per_minibatch,
    )
    return replace(learner, components=(*learner.components, recorder)), recorder
