"""A preference method as a value: a loss on pairs, its settings and its inputs.

The functions build the published ones from `jaxrl_reason.losses`; a method of your own
is `PreferenceMethod("mine", my_loss, {"beta": 0.2})` in your file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jax

from jaxrl_reason.losses import (
    dpo_loss,
    hinge_loss,
    ipo_loss,
    irpo_loss,
    length_normalised_dpo_loss,
    nca_loss,
    orpo_loss,
    robust_dpo_loss,
    simpo_loss,
)

LENGTHS = ("chosen_lengths", "rejected_lengths")
PairLoss = Callable[..., tuple[jax.Array, dict[str, tuple[jax.Array, jax.Array]]]]


@dataclass(frozen=True)
class PreferenceMethod:
    """One algorithm for `jaxrl_reason.offline.preference_training`.

    Attributes:
      name: for logs.
      loss: f(policy_chosen, policy_rejected, [ref_chosen, ref_rejected], **lengths,
        **settings, valid=, num_pairs=) -> (scalar, metrics), everything [B] and the
        log-probs sums over tokens; the scalar is the micro-batch's part of the mean
        over pairs.
      settings: keyword arguments of the loss.
      needs_reference: whether the loss takes the log-probs of a reference.
      lengths: which of chosen_lengths and rejected_lengths it takes.
    """

    name: str
    loss: PairLoss
    settings: Mapping[str, float] = field(default_factory=dict)
    needs_reference: bool = True
    lengths: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.lengths:
            if name not in LENGTHS:
                raise ValueError(
                    f"lengths must be among {', '.join(LENGTHS)}, got {name!r}"
                )


def dpo(*, beta: float = 0.1, label_smoothing: float = 0.0) -> PreferenceMethod:
    """DPO (arXiv 2305.18290 eq. 7); with `label_smoothing` conservative DPO.

    >>> dpo(beta=0.3).settings
    {'beta': 0.3, 'label_smoothing': 0.0}
    """
    settings = {"beta": beta, "label_smoothing": label_smoothing}
    return PreferenceMethod("dpo", dpo_loss, settings)


def robust_dpo(*, beta: float = 0.1, label_smoothing: float = 0.1) -> PreferenceMethod:
    """Robust DPO (arXiv 2403.00409): unbiased for this fraction of flipped labels."""
    settings = {"beta": beta, "label_smoothing": label_smoothing}
    return PreferenceMethod("robust_dpo", robust_dpo_loss, settings)


def ipo(*, beta: float = 0.1) -> PreferenceMethod:
    """IPO (arXiv 2310.12036 eq. 17) on sums of log-probs; beta is the paper's tau."""
    return PreferenceMethod("ipo", ipo_loss, {"beta": beta})


def hinge(*, beta: float = 0.1) -> PreferenceMethod:
    """The hinge loss of RSO (arXiv 2309.06657)."""
    return PreferenceMethod("hinge", hinge_loss, {"beta": beta})


def nca(*, beta: float = 0.01) -> PreferenceMethod:
    """NCA for pairs (arXiv 2402.05369); Light-R1 (2503.10460) has beta 0.3."""
    return PreferenceMethod("nca", nca_loss, {"beta": beta})


def length_normalised_dpo(*, beta: float = 5.0) -> PreferenceMethod:
    """DPO on log-ratios per token (Tulu 3, arXiv 2411.15124)."""
    return PreferenceMethod(
        "length_normalised_dpo",
        length_normalised_dpo_loss,
        {"beta": beta},
        lengths=LENGTHS,
    )


def irpo(*, beta: float = 0.1, alpha: float = 1.0) -> PreferenceMethod:
    """DPO and the likelihood of the chosen response (IRPO, arXiv 2404.19733 eq. 1)."""
    return PreferenceMethod(
        "irpo", irpo_loss, {"beta": beta, "alpha": alpha}, lengths=("chosen_lengths",)
    )


def simpo(*, beta: float = 2.5, gamma: float = 1.375) -> PreferenceMethod:
    """SimPO (arXiv 2405.14734 eq. 6): no reference; gamma is 0.55 beta in its code."""
    return PreferenceMethod(
        "simpo",
        simpo_loss,
        {"beta": beta, "gamma": gamma},
        needs_reference=False,
        lengths=LENGTHS,
    )


def orpo(*, lam: float = 0.1) -> PreferenceMethod:
    """ORPO (arXiv 2403.07691 eq. 6 and 7): no reference, no prior supervised stage."""
    return PreferenceMethod(
        "orpo", orpo_loss, {"lam": lam}, needs_reference=False, lengths=LENGTHS
    )
