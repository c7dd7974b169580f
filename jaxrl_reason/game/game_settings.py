"""Settings of the prover-verifier game, and what is not published."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GameSettings:
    """Settings of the game.

    Attributes:
      rounds: the largest number of rounds.
      steps_per_round: RL steps of the prover against one verifier.
      max_pairs: pairs of a right and a wrong solution per problem, for the verifier.
      kind: of `prover_rewards`, "src" or "cgc".
      penalty: of "cgc".
      stop_fraction: the game stops when at most this fraction of the sneaky wrong
        solutions scores as high as right helpful ones to the same problem.
      seed: for the verifier's pairs and their order.
    """

    rounds: int = 4
    steps_per_round: int = 30
    max_pairs: int = 8
    kind: str = "src"
    penalty: float = -2.0
    stop_fraction: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "steps_per_round", "max_pairs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.kind not in ("src", "cgc"):
            raise ValueError(f"kind must be src or cgc, got {self.kind!r}")
        if not 0 <= self.stop_fraction <= 1:
            raise ValueError(
                f"stop_fraction must be in [0, 1], got {self.stop_fraction}"
            )
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")


@dataclass(frozen=True)
class GameRecipe:
    """The game as published.

    Attributes:
      name: for tables and logs.
      sources: arXiv ids.
      settings: the published ones, and for the rest those of `not_published`.
      not_published: what the sources do not give, and what is done here instead.
      not_built: parts that are not here.
    """

    name: str
    sources: tuple[str, ...]
    settings: GameSettings
    not_published: tuple[str, ...] = ()
    not_built: tuple[str, ...] = ()


PROVER_VERIFIER = GameRecipe(
    name="prover_verifier",
    sources=("2407.13692",),
    settings=GameSettings(),
    not_published=(
        "penalty of the rewards cgc: -2 here, from a secondary source",
        "lam, the weight of the verifier's squared scores: 0.01 here",
        "rounds, steps per round, pairs per problem: not in our sources",
        "whether the prover restarts in each round: here it continues",
        "when sneaky solutions no longer convince: at most 5% of the pairs here",
    ),
)
