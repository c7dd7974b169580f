"""Metrics of a round of the prover-verifier game (on the host, NumPy)."""

import numpy as np

from jaxrl_reason.game.game_settings import GameSettings
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.metrics_log import Row


def game_metrics(
    helpful: Rollouts,
    sneaky: Rollouts,
    helpful_scores: np.ndarray,
    sneaky_scores: np.ndarray,
) -> Row:
    """Metrics of a round, on solutions that the verifier has not seen.

    Args:
      helpful: groups of the helpful role.
      sneaky: groups of the sneaky role, for the same problems.
      helpful_scores: [P, G] of the round's verifier.
      sneaky_scores: [P, G].

    Returns:
      In the group `game`, for each role its fraction of right solutions
      (`helpful_accuracy`), the mean score of right and of wrong ones
      (`helpful_score_correct`), and how often the verifier puts a right solution above
      a wrong one to the same problem (`helpful_verifier_accuracy`, ties half);
      `fooled_fraction`: sneaky wrong solutions that score at least as high as
      right helpful ones to the same problem, of `fooled_pairs` pairs. Undefined
      values are left out.
    """
    row: Row = {}
    for name, r, scores in (
        ("helpful", helpful, helpful_scores),
        ("sneaky", sneaky, sneaky_scores),
    ):
        right, wrong = r.correct & ~r.failed, ~r.correct & ~r.failed
        row[f"game/{name}_accuracy"] = float(right.sum() / max(1, (~r.failed).sum()))
        row[f"game/{name}_score"] = float(scores.mean())
        for kind, rows in (("correct", right), ("wrong", wrong)):
            if rows.any():
                row[f"game/{name}_score_{kind}"] = float(scores[rows].mean())
        won, tied, pairs = _contest(scores, right, scores, wrong)
        if pairs:
            row[f"game/{name}_verifier_accuracy"] = (won + 0.5 * tied) / pairs
    won, _, pairs = _contest(
        helpful_scores,
        helpful.correct & ~helpful.failed,
        sneaky_scores,
        ~sneaky.correct & ~sneaky.failed,
    )
    row["game/fooled_pairs"] = pairs
    if pairs:
        row["game/fooled_fraction"] = 1.0 - won / pairs
    return row


def _contest(
    a: np.ndarray, in_a: np.ndarray, b: np.ndarray, in_b: np.ndarray
) -> tuple[int, int, int]:
    """Numbers of pairs within a problem: a above b, equal, all; [P, G] each."""
    there = in_a[:, :, None] & in_b[:, None, :]
    above, equal = a[:, :, None] > b[:, None, :], a[:, :, None] == b[:, None, :]
    return int((above & there).sum()), int((equal & there).sum()), int(there.sum())


def no_longer_convinces(row: Row, settings: GameSettings) -> bool:
    """The stop rule: sneaky wrong solutions no longer score like right ones.

    False where there was nothing to compare.

    >>> row = {"game/fooled_fraction": 0.01}
    >>> no_longer_convinces(row, GameSettings(stop_fraction=0.05))
    True
    """
    return (
        "game/fooled_fraction" in row
        and row["game/fooled_fraction"] <= settings.stop_fraction
    )
