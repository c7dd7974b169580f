"""What a method is: a value that says which functions the loop calls with what."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from chex import Array
from flax import struct

from jaxrl_reason.learner.objective_weights import Combine
from jaxrl_reason.losses import group_signal
from jaxrl_reason.rl.rewards import Rewards, signed_accuracy, without_failed
from jaxrl_reason.rl.rollouts import Rollouts

LossFn = Callable[..., tuple[jax.Array, dict[str, tuple[jax.Array, jax.Array]]]]
LOSS_INPUTS = (
    "entropy",
    "ref_logprobs",
    "sampler_logprobs",
    "group_ids",
    "correct",
    "weights",
    "selected",
)


@struct.dataclass
class Experience:
    """What an advantage estimator may look at: B = P * G sequences, T tokens."""

    rewards: Array  # [B] shaped sequence rewards
    lengths: Array  # [B] response tokens
    mask: Array  # [B, T] True on response tokens
    group_ids: Array  # [B]
    old_logprobs: Array  # [B, T]
    ref_logprobs: Array | None  # [B, T] if the method has a reference
    values: Array | None  # [B, T] if the method has a critic
    num_groups: int = struct.field(pytree_node=False)
    truncated: Array | None = None  # [B] stopped by the length limit
    components: Array | None = None  # [B, R] if the method has several rewards
    greedy_rewards: Array | None = None  # [B] if the method has a greedy baseline
    reward_logprobs: Array | None = None  # [B, T] if it has an implicit reward
    controls: Mapping[str, Array] = struct.field(default_factory=dict)


@struct.dataclass
class Advantages:
    """Advantages [B] or [B, T], or [B, T, K] for K objectives; value targets [B, T]."""

    advantages: Array
    returns: Array | None = None


Estimator = Callable[[Experience], Advantages]


def grouped(estimator: Callable[..., jax.Array]) -> Estimator:
    """An estimator (rewards, group_ids, *, num_groups) -> [B] for the loop."""

    def advantages(x: Experience) -> Advantages:
        return Advantages(estimator(x.rewards, x.group_ids, num_groups=x.num_groups))

    return advantages


@dataclass(frozen=True)
class Controller:
    """Coefficients that move from step to step, an entropy bonus say.

    Attributes:
      start: its state before the first step, by name; an advantage estimator finds the
        state in `Experience.controls`, and so do the metrics of the step.
      coefficients: state -> what the loss is handed by keyword, as scalars that are
        traced.
      step: f(state, metrics of the step) -> state of the next step.
    """

    start: Mapping[str, float] = field(hash=False)
    coefficients: Callable[[Mapping[str, float]], Mapping[str, float]]
    step: Callable[[Mapping[str, float], Mapping[str, float]], Mapping[str, float]]


@dataclass(frozen=True)
class Method:
    """One algorithm for the RL loop.

    Attributes:
      name: for logs.
      loss: f(logprobs, old_logprobs, advantages, mask, counts, **inputs) -> (scalar,
        metrics), everything [B, T]; the scalar is the micro-batch's share.
      advantages: f(Experience) -> Advantages; traced once.
      rewards: f(Rollouts) -> [P, G] on the host, before the group filter; or the
        components [P, G, R] of which the reward is the sum.
      loss_inputs: which of entropy, ref_logprobs, sampler_logprobs, group_ids (with
        num_groups), correct ([B], with the positive_counts of the mini-batch), weights
        and selected the loss is handed by keyword. A reference model is kept in memory
        only if ref_logprobs is among these or `needs_reference`.
      needs_reference: advantages read ref_logprobs (KL in the reward).
      min_group_size: 1 where the advantages do not come from comparing a group.
      dynamic_sampling: keep only groups with signal, sample more until the batch is
        full, keep the surplus.
      keep_groups: f(Rollouts) -> [P] bool, the groups that count as having signal;
        those whose answers are neither all right nor all wrong if left out.
      min_signal_share: sample more until this share of the batch has signal; groups
        without it fill the rest. `dynamic_sampling` is a share of 1.
      overlong_filtering: truncated responses do not count in the loss.
      loss_rows: f(Rollouts) -> [P, G] bool, which responses count in the loss; the
        others stay in the statistics of their group.
      greedy_baseline: one greedy response a prompt is sampled beside the group, for
        `Experience.greedy_rewards`; nothing is trained on it.
      weights: f(old_logprobs, sampler_logprobs, mask) -> [B, T], once a rollout, for
        the input of that name: a rollout correction.
      selected: f(logprobs, old_logprobs, advantages, mask, key) -> [N, T] bool, once a
        mini-batch and whole, for the input of that name; costs a forward pass of the
        policy as it is before that update.
      value_loss: f(values, old_values, returns, mask) -> [B, T]; None means no critic.
      implicit_reward_loss: f(logprobs, ref_logprobs, mask, labels, counts) -> (scalar,
        metrics) that trains a second language model on outcomes before the advantages
        are made, for `Experience.reward_logprobs`; None means no such model.
      controller: coefficients that move from step to step.
      combine: weighs the gradients of K objectives, one for each `[..., k]` of the
        advantages [B, T, K]; K passes over each mini-batch (`objective_weights`).
      num_objectives: K.
    """

    name: str
    loss: LossFn
    advantages: Estimator
    rewards: Rewards = signed_accuracy
    loss_inputs: tuple[str, ...] = ()
    needs_reference: bool = False
    min_group_size: int = 2
    dynamic_sampling: bool = False
    keep_groups: Callable[[Rollouts], np.ndarray] | None = None
    min_signal_share: float = 0.0
    overlong_filtering: bool = False
    loss_rows: Callable[[Rollouts], np.ndarray] | None = None
    greedy_baseline: bool = False
    weights: Callable[..., jax.Array] | None = None
    selected: Callable[..., jax.Array] | None = None
    value_loss: Callable[..., jax.Array] | None = None
    implicit_reward_loss: LossFn | None = None
    controller: Controller | None = None
    combine: Combine | None = None
    num_objectives: int = 1

    def __post_init__(self) -> None:
        for name in self.loss_inputs:
            if name not in LOSS_INPUTS:
                raise ValueError(
                    f"loss_inputs must be among {', '.join(LOSS_INPUTS)}, got {name!r}"
                )
        for name in ("weights", "selected"):
            if (name in self.loss_inputs) != (getattr(self, name) is not None):
                raise ValueError(
                    f"{name} must be a function where it is among loss_inputs, and "
                    f"only there, got {getattr(self, name)!r}"
                )
        if (self.combine is not None) != (self.num_objectives > 1):
            raise ValueError(
                f"combine must be given for several objectives, and only there, got "
                f"{self.combine!r} for {self.num_objectives}"
            )
        if self.combine is not None and (self.selected or self.controller):
            raise ValueError(
                f"combine excludes selected and a controller, got it in {self.name!r}"
            )
        if not 0 <= self.min_signal_share <= 1:
            raise ValueError(
                f"min_signal_share must be in [0, 1], got {self.min_signal_share}"
            )
        if self.keep_groups is not None and not self.signal_share:
            raise ValueError(
                "keep_groups needs dynamic_sampling or a min_signal_share, got neither"
            )

    @property
    def uses_reference(self) -> bool:
        """Whether a frozen reference model has to be kept."""
        return (
            self.needs_reference
            or "ref_logprobs" in self.loss_inputs
            or self.implicit_reward_loss is not None
        )

    @property
    def signal_share(self) -> float:
        """The share of a batch's groups that must have signal."""
        return 1.0 if self.dynamic_sampling else self.min_signal_share


def rows_in_loss(method: Method, rollouts: Rollouts) -> np.ndarray:
    """[P, G] bool: the responses that count in the method's loss."""
    counted = ~rollouts.failed
    if method.overlong_filtering:
        counted = counted & ~rollouts.truncated
    if method.loss_rows is not None:
        counted = counted & method.loss_rows(rollouts)
    return counted


def groups_with_signal(correct: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """[P, G] bool each -> [P] bool: some judged answers right and some wrong.

    The filter of dynamic sampling (arXiv 2503.14476 eq. 11) looks at accuracy, not at
    the shaped reward.
    """
    p, g = correct.shape
    ids = jnp.repeat(jnp.arange(p), g)
    flat = without_failed(correct, failed).reshape(-1)
    return np.asarray(group_signal(jnp.asarray(flat), ids, num_groups=p))


def kept_groups(method: Method, rollouts: Rollouts) -> np.ndarray:
    """[P] bool: the groups that count as having signal; all where nobody asks."""
    if not method.signal_share:
        return np.ones(rollouts.num_prompts, bool)
    if method.keep_groups is None:
        return groups_with_signal(rollouts.correct, rollouts.failed)
    return np.asarray(method.keep_groups(rollouts), bool)
