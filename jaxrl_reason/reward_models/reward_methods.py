"""A ranking method as a value: a loss on scores, its settings and its head.

The functions build the published ones from `jaxrl_reason.losses`; one of your own is
`RankingMethod("mine", my_loss)` in your file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import jax

from jaxrl_reason.losses import pairwise_ranking_loss, verifier_loss

RankingLoss = Callable[..., tuple[jax.Array, dict[str, tuple[jax.Array, jax.Array]]]]


@dataclass(frozen=True)
class RankingMethod:
    """How `jaxrl_reason.reward_models.reward_model` trains a reward model.

    Attributes:
      name: for logs.
      loss: f(chosen_scores [S, W], rejected_scores [S, L], *, chosen_mask,
        rejected_mask, num_steps) -> (scalar, metrics); S comparisons, the scalar is the
        micro-batch's part of the mean over the `num_steps` of the mini-batch.
      candidates: (W, L), the largest number of responses on each side of a comparison.
      tanh: whether scores are the tanh of the head, in [-1, 1].
    """

    name: str
    loss: RankingLoss
    candidates: tuple[int, int] = (1, 1)
    tanh: bool = False

    def __post_init__(self) -> None:
        if min(self.candidates) < 1:
            raise ValueError(f"candidates must be >= 1, got {self.candidates}")


def bradley_terry() -> RankingMethod:
    """-log sigmoid(r_w - r_l) per pair: the usual reward model."""
    return RankingMethod("bradley_terry", pairwise_ranking_loss)


def _verifier_loss(
    chosen_scores: jax.Array,
    rejected_scores: jax.Array,
    *,
    chosen_mask: jax.Array,
    rejected_mask: jax.Array,
    num_steps: jax.Array,
    lam: float,
) -> tuple[jax.Array, dict[str, tuple[jax.Array, jax.Array]]]:
    return verifier_loss(
        chosen_scores[:, 0],
        rejected_scores[:, 0],
        lam=lam,
        valid=chosen_mask[:, 0] & rejected_mask[:, 0],
        num_pairs=num_steps,
    )


def verifier(*, lam: float = 0.01) -> RankingMethod:
    """The verifier of the prover-verifier game (arXiv 2407.13692), with a penalty.

    >>> verifier().candidates
    (1, 1)
    """
    return RankingMethod("verifier", partial(_verifier_loss, lam=lam))


def process_preference() -> RankingMethod:
    """rStar-Math's process preference model (arXiv 2501.04519 eq. 4): tanh, 2 x 2.

    The mean over the pairs of each step, then over steps.
    """
    return RankingMethod(
        "process_preference", pairwise_ranking_loss, candidates=(2, 2), tanh=True
    )


@dataclass(frozen=True)
class RankingRecipe:
    """A published reward model: method, settings, and what is not published.

    Attributes:
      name: for tables and logs.
      sources: arXiv ids.
      method: how it is trained.
      settings: as published, including those of the data.
      not_published: what the sources do not give, and what is done here instead.
      not_built: parts of the system that are not here.
    """

    name: str
    sources: tuple[str, ...]
    method: RankingMethod
    settings: Mapping[str, float | str] = field(default_factory=dict)
    not_published: tuple[str, ...] = ()
    not_built: tuple[str, ...] = ()


PPM = RankingRecipe(
    name="ppm",
    sources=("2501.04519",),
    method=process_preference(),
    settings={
        "positives per step": 2,
        "negatives per step": 2,
        "UCT constant": 2,
        "depth of the search": 16,
        "candidates per step": 8,
        "rollouts of the search": "8, then 16, then 64 to 128",
        "rounds": 4,
        "problems": 747_000,
    },
    not_published=(
        "learning rate, batch, epochs: not in our sources",
        "a positive whose Q is not above a negative's: left out here",
    ),
    not_built=("the tree search that makes the Q values, and its code execution",),
)
