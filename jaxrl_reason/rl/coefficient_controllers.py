"""Coefficients that follow a measurement from step to step, as values for a method."""

from collections.abc import Mapping

from jaxrl_reason.losses import adaptive_entropy_update, adaptive_kl_update
from jaxrl_reason.rl.method import Controller

State = Mapping[str, float]


def entropy_controller(
    *, target: float = 0.2, step: float = 1e-4, low: float = 0.0, high: float = 0.005
) -> Controller:
    """Skywork-OR1's weight of the entropy bonus (arXiv 2505.22312), from 0 on.

    The entropy is measured as the released code does, -mean(old log-probs) of the batch
    just trained on, so the weight lags by one step. The loss must take `entropy_coef`
    and have `entropy` among its inputs.
    """

    def follow(state: State, row: State) -> State:
        bonus, used = adaptive_entropy_update(
            state["entropy_bonus"],
            row["policy/entropy_sampled"],
            target=target,
            step=step,
            low=low,
            high=high,
        )
        return {"entropy_bonus": float(bonus), "entropy_coef": float(used)}

    return Controller(
        start={"entropy_bonus": 0.0, "entropy_coef": 0.0},
        coefficients=lambda state: {"entropy_coef": state["entropy_coef"]},
        step=follow,
    )


def kl_controller(
    *, start: float, target: float, horizon: float, num_samples: int
) -> Controller:
    """The adaptive weight of a KL in the reward (arXiv 1909.08593).

    It follows `policy/reference_kl_k1`, the mean of old minus reference log-prob over
    the tokens; an advantage estimator reads `Experience.controls["kl_coef"]`.

    Args:
      start: the first weight.
      target: of the KL, in nats a token.
      horizon: samples over which the weight may change by a fifth.
      num_samples: responses a step.
    """

    def follow(state: State, row: State) -> State:
        coef = adaptive_kl_update(
            state["kl_coef"],
            row["policy/reference_kl_k1"],
            target=target,
            horizon=horizon,
            num_samples=num_samples,
        )
        return {"kl_coef": float(coef)}

    return Controller(
        start={"kl_coef": start}, coefficients=lambda state: {}, step=follow
    )
