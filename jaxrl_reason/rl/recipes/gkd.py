"""GKD (arXiv 2306.13649): a teacher's distributions on the student's samples."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_reason.losses import gkd_loss
from jaxrl_reason.rl.method import Advantages, Experience, Method
from jaxrl_reason.rl.teacher import TeacherDivergence


def gkd(*, beta: float = 0.5) -> Method:
    """The student samples and comes closer to the teacher's distribution of each token.

    `gkd_loss` of D_beta, over the whole vocabulary. Purely on-policy, the paper's
    lambda = 1: the loop trains on what the policy samples. Nothing is rewarded, and
    rewards only serve the metrics. The teacher is handed to `build_rl_learner`.

    Args:
      beta: 0 is the forward KL, 1 the reverse one, between them the generalised JSD.

    Example:
      >>> from jaxrl_reason.rl.recipes.gkd import gkd
      >>> gkd().min_group_size, gkd().all_loss_inputs
      (1, ('divergence',))
    """
    return Method(
        name="gkd",
        loss=_loss,
        advantages=no_advantages,
        min_group_size=1,
        components=(TeacherDivergence(beta),),
    )


def no_advantages(x: Experience) -> Advantages:
    """Zeros, for a loss that reads none."""
    return Advantages(jnp.zeros_like(x.rewards))


def _loss(
    logprobs: jax.Array,
    old_logprobs: jax.Array,
    advantages: jax.Array,
    mask: jax.Array,
    counts: Any,
    *,
    divergence: jax.Array,
) -> tuple[jax.Array, dict[str, tuple[jax.Array, jax.Array]]]:
    return gkd_loss(divergence, mask, counts)
