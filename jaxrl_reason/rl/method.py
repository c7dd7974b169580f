"""What a method is: a value that says which functions the loop calls with what."""

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
# What the loop itself can hand a loss by keyword; components give more.
LOSS_INPUTS = ("entropy", "ref_logprobs", "sampler_logprobs", "group_ids", "correct")


@struct.dataclass
class Experience:
    """What an advantage estimator may look at: B = P * G sequences, T tokens.

    The fields are those of every method. What else there is stands in `inputs` by name:
    of the loop `sampler_logprobs` [B, T], `correct` [B], `ref_logprobs` [B, T] if the
    method has a reference and `reward_components` [B, R] if it has several rewards; of
    a component what it says, the critic's `values` [B, T] for example.

    Attributes:
      rewards: [B] shaped sequence rewards.
      lengths: [B] response tokens.
      truncated: [B] stopped by the length limit.
      mask: [B, T] True on response tokens.
      group_ids: [B] which prompt a response answers.
      old_logprobs: [B, T] at the start of the update.
      num_groups: prompts.
      inputs: what else there is, by name.
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
          ValueError: neither the loop nor a component gives it for this method.
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
      returns: [B, T] what a critic is to say.
    """

    advantages: Array
    returns: Array | None = None


Estimator = Callable[[Experience], Advantages]


def grouped(estimator: Callable[..., jax.Array]) -> Estimator:
    """An estimator (rewards, group_ids, *, num_groups) -> [B] for the loop."""

    def advantages(x: Experience) -> Advantages:
        return Advantages(estimator(x.rewards, x.group_ids, num_groups=x.num_groups))

    return advantages


def groups_with_signal(rollouts: Rollouts) -> np.ndarray:
    """[P] bool: some judged answers right and some wrong.

    The filter of dynamic sampling (arXiv 2503.14476 eq. 11) looks at accuracy, not at
    the shaped reward.
    """
    judged = ~rollouts.failed  # [P, G]
    right, wrong = rollouts.correct & judged, ~rollouts.correct & judged
    return right.any(axis=1) & wrong.any(axis=1)


@dataclass(frozen=True)
class DynamicSampling:
    """Sample more until enough groups carry signal (arXiv 2503.14476 Algorithm 1).

    Attributes:
      keep_groups: f(Rollouts) -> [P] bool, the groups that count as having signal.
      fraction: of the batch that must have signal. 1 keeps no other groups, and the
        surplus starts the next step's batch; below 1 groups without signal fill the
        rest.
    """

    keep_groups: Callable[[Rollouts], np.ndarray] = groups_with_signal
    fraction: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction must be in (0, 1], got {self.fraction}")


@dataclass(frozen=True)
class CombinedGradients:
    """K gradients of one mini-batch, an objective each, combined for one update.

    Attributes:
      combine: weighs the gradients of K objectives, one for each `[..., k]` of the
        advantages [B, T, K]; K passes over each mini-batch (`objective_weights`).
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
      rewards: f(Rollouts) -> [P, G] on the host, before the group filter; or the
        components [P, G, R] of which the reward is the sum.
      loss_inputs: which of entropy, ref_logprobs, sampler_logprobs, group_ids (with
        num_groups) and correct ([B], with the positive_counts of the mini-batch) the
        loss is handed by keyword; those of components need not be named.
      needs_reference: advantages read ref_logprobs (KL in the reward).
      min_group_size: 1 where the advantages do not come from comparing a group.
      dynamic_sampling: which groups are kept and how many of them are looked for; one
        round as it comes if left out.
      loss_rows: f(Rollouts) -> [P, G] bool, which responses count in the loss; the
        others stay in the statistics of their group.
      components: a critic, a reward model, ... (`jaxrl_reason.rl.components`).
      gradients: several objectives, their gradients combined.
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
        """Whether a frozen reference model has to be kept."""
        return (
            self.needs_reference
            or "ref_logprobs" in self.loss_inputs
            or any(component.needs_reference for component in self.components)
        )

    @property
    def all_loss_inputs(self) -> tuple[str, ...]:
        """What the loss is handed by keyword: the loop's inputs, then components'."""
        given = (name for c in self.components for name in c.loss_inputs)
        return (*self.loss_inputs, *given)


def not_truncated(rollouts: Rollouts) -> np.ndarray:
    """[P, G]: responses that ended by themselves; the others are out of the loss.

    For `Method.loss_rows`: overlong filtering (arXiv 2503.14476).
    """
    return ~rollouts.truncated
