"""A method: a value that holds the functions that the loop calls."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import numpy as np
from chex import Array
from flax import struct

from jaxrl_reason.learner.objective_weights import Combine
from jaxrl_reason.rl.components import Component
from jaxrl_reason.rl.rollouts import Rewards, Rollouts, signed_accuracy

LossFn = Callable[..., tuple[jax.Array, dict[str, tuple[jax.Array, jax.Array]]]]
# What the loop itself can pass to a loss by keyword; components can add more.
LOSS_INPUTS = ("entropy", "ref_logprobs", "sampler_logprobs", "group_ids", "correct")


@struct.dataclass
class Experience:
    """The inputs of an advantage estimator: B = P * G sequences, T tokens.

    The fields exist for every method. Other arrays are in `inputs` by name: from the
    loop `sampler_logprobs` [B, T], `correct` [B], `ref_logprobs` [B, T] if the method
    has a reference and `reward_components` [B, R] if it has several rewards; from
    components what they document, for example the critic's `values` [B, T].

    Attributes:
      rewards: [B] shaped sequence rewards.
      lengths: [B] response tokens.
      truncated: [B] True where the length limit stopped the response.
      mask: [B, T] True on response tokens.
      group_ids: [B] the prompt of each response.
      old_logprobs: [B, T] at the start of the update.
      num_groups: number of prompts.
      inputs: other arrays, by name.
    """

    rewards: Array
    lengths: Array
    truncated: Array
    mask: Array
    group_ids: Array
    old_logprobs: Array
    num_groups: int = struct.field(pytree_node=False)
    inputs: Mapping[str, Array] = struct.field(default_factory=dict)

    def __getitem__(self, name: str) -> Array:
        """An input by its name.

        Raises:
          ValueError: neither the loop nor a component provides it for this method.
        """
        if name not in self.inputs:
            raise ValueError(
                f"the method must have what gives {name!r} to its advantages, "
                f"got {sorted(self.inputs)}"
            )
        return self.inputs[name]


@struct.dataclass
class Advantages:
    """Advantages [B] or [B, T], or [B, T, K] for K objectives; value targets [B, T].

    Attributes:
      advantages: [B], [B, T] or [B, T, K].
      returns: [B, T] targets of a critic.
      value_mask: [B, T] bool, the tokens that a critic learns on; all if left out.
      metrics: what the estimator says of its work: [] by name.
    """

    advantages: Array
    returns: Array | None = None
    value_mask: Array | None = None
    metrics: Mapping[str, Array] = struct.field(default_factory=dict)


Estimator = Callable[[Experience], Advantages]


def grouped(estimator: Callable[..., jax.Array]) -> Estimator:
    """Adapts an estimator (rewards, group_ids, *, num_groups) -> [B] to the loop."""

    def advantages(x: Experience) -> Advantages:
        return Advantages(estimator(x.rewards, x.group_ids, num_groups=x.num_groups))

    return advantages


def groups_with_signal(rollouts: Rollouts) -> np.ndarray:
    """[P] bool: some graded answers right and some wrong.

    The filter of dynamic sampling (arXiv 2503.14476 eq. 11) uses the accuracy, not the
    shaped reward.
    """
    judged = ~rollouts.failed  # [P, G]
    right, wrong = rollouts.correct & judged, ~rollouts.correct & judged
    return right.any(axis=1) & wrong.any(axis=1)


@dataclass(frozen=True)
class DynamicSampling:
    """Sample more until enough groups carry signal (arXiv 2503.14476 Algorithm 1).

    Attributes:
      keep_groups: f(Rollouts) -> [P] bool, which groups have signal.
      fraction: of the batch that must have signal. With 1 no other groups are kept, and
        the surplus starts the next step's batch; below 1, groups without signal fill
        the rest.
    """

    keep_groups: Callable[[Rollouts], np.ndarray] = groups_with_signal
    fraction: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction must be in (0, 1], got {self.fraction}")


@dataclass(frozen=True)
class CombinedGradients:
    """The gradients of K objectives of one mini-batch, combined for one update.

    Attributes:
      combine: weights the gradients of K objectives, one for each `[..., k]` of the
        advantages [B, T, K]; takes K passes over each mini-batch (`objective_weights`).
      num_objectives: K.
    """

    combine: Combine
    num_objectives: int

    def __post_init__(self) -> None:
        if self.num_objectives < 2:
            raise ValueError(f"num_objectives must be >= 2, got {self.num_objectives}")


@dataclass(frozen=True)
class Method:
    """One algorithm for the RL loop.

    Attributes:
      name: for logs.
      loss: f(logprobs, old_logprobs, advantages, mask, counts, **inputs) -> (scalar,
        metrics), everything [B, T]; the scalar is the micro-batch's part.
      advantages: f(Experience) -> Advantages; traced once.
      rewards: f(Rollouts) -> [P, G] on the host, before the group filter; or components
        [P, G, R], whose sum is the reward.
      loss_inputs: which of entropy, ref_logprobs, sampler_logprobs, group_ids (with
        num_groups) and correct ([B], with the positive_counts of the mini-batch) the
        loss gets by keyword; those of components need not be named.
      needs_reference: advantages read ref_logprobs (KL in the reward).
      min_group_size: 1 if the advantages do not compare the responses of a group.
      dynamic_sampling: which groups are kept and how many are needed; one unfiltered
        round if left out.
      loss_rows: f(Rollouts) -> [P, G] bool, which responses count in the loss; the
        others stay in their group's statistics.
      components: a critic, a reward model, ... (`jaxrl_reason.rl.components`).
      gradients: how the gradients of several objectives are combined.
    """

    name: str
    loss: LossFn
    advantages: Estimator
    rewards: Rewards = signed_accuracy
    loss_inputs: tuple[str, ...] = ()
    needs_reference: bool = False
    min_group_size: int = 2
    dynamic_sampling: DynamicSampling | None = None
    loss_rows: Callable[[Rollouts], np.ndarray] | None = None
    components: tuple[Component, ...] = ()
    gradients: CombinedGradients | None = None

    def __post_init__(self) -> None:
        for name in self.loss_inputs:
            if name not in LOSS_INPUTS:
                raise ValueError(
                    f"loss_inputs must be among {', '.join(LOSS_INPUTS)}, got {name!r}"
                )
        names = [component.name for component in self.components]
        if len(set(names)) < len(names):
            raise ValueError(f"components must be of different kinds, got {names}")
        if self.gradients is not None and {"selection", "controller"} & set(names):
            raise ValueError(
                f"several gradients exclude a choice of tokens and a controller, "
                f"got both in {self.name!r}"
            )

    @property
    def uses_reference(self) -> bool:
        """Whether a frozen reference model is needed."""
        return (
            self.needs_reference
            or "ref_logprobs" in self.loss_inputs
            or any(component.needs_reference for component in self.components)
        )

    @property
    def all_loss_inputs(self) -> tuple[str, ...]:
        """The keyword inputs of the loss: the loop's, then those of components."""
        given = (name for c in self.components for name in c.loss_inputs)
        return (*self.loss_inputs, *given)


def not_truncated(rollouts: Rollouts) -> np.ndarray:
    """[P, G]: responses that ended by themselves; the others are left out of the loss.

    For `Method.loss_rows`: overlong filtering (arXiv 2503.14476).
    """
    return ~rollouts.truncated
