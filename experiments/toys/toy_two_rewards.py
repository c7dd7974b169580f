"""Arms of claims with two rewards: a right answer, and few tokens.

ARMS = {"GDPO": two_rewards(gdpo, partial(right_and_cheap, cost=1.0)), ...}
"""

from dataclasses import replace
from functools import partial

import numpy as np

from experiments.toys.toy_arms import ToyArm
from experiments.toys.toy_setup import SETUP
from experiments.toys.toy_tasks import CountDown
from jaxrl_reason.losses import grpo_advantages, grpo_loss
from jaxrl_reason.rl.method import Estimator, Method, grouped
from jaxrl_reason.rl.rollouts import Rewards, Rollouts

# Steps down of 1 to 3: a problem has right responses of several lengths, the shortest
# of at most four tokens.
STRIDES = replace(SETUP, task=CountDown(max_step=3))
SUM = grouped(grpo_advantages)


def right_alone(rollouts: Rollouts) -> np.ndarray:
    """[P, G, 1] 1 for a right answer."""
    return rollouts.correct[..., None].astype(np.float32)


def right_and_short(rollouts: Rollouts, *, limit: int) -> np.ndarray:
    """[P, G, 2] 1 for a right answer, and 1 for at most `limit` tokens."""
    both = (rollouts.correct, rollouts.lengths <= limit)
    return np.stack(both, axis=-1).astype(np.float32)


def right_and_cheap(rollouts: Rollouts, *, cost: float) -> np.ndarray:
    """[P, G, 2] 1 for a right answer, and minus `cost` for each token."""
    both = (rollouts.correct, -cost * rollouts.lengths)
    return np.stack(both, axis=-1).astype(np.float32)


def two_rewards(advantages: Estimator, rewards: Rewards) -> ToyArm:
    """GRPO's loss with this estimator on these rewards."""
    method = Method(
        name="two_rewards",
        loss=partial(grpo_loss, clip_low=0.2, clip_high=0.2),
        advantages=advantages,
        rewards=rewards,
        loss_inputs=("entropy",),
    )
    return ToyArm(method, STRIDES)
