"""Claims of knights and knaves: their truth, their words, puzzles with one solution."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

KINDS = ("not", "and", "or", "if", "iff")
_TRIES = 20_000


@dataclass(frozen=True)
class Claim:
    """A sentence about who is a knight.

    Attributes:
      kind: "knight" or "knave" of a single person, or one of `KINDS`.
      person: number of the person.
      parts: the sentences that it is made of.
    """

    kind: str
    person: int = -1
    parts: tuple["Claim", ...] = ()

    def holds(self, knights: np.ndarray) -> np.ndarray:
        """Whether it is true.

        Args:
          knights: [..., n] bool, who is a knight.

        Returns:
          [...] bool.
        """
        if not self.parts:
            return np.asarray(knights[..., self.person] == (self.kind == "knight"))
        found = [part.holds(knights) for part in self.parts]
        if self.kind == "not":
            return ~found[0]
        if self.kind == "and":
            return found[0] & found[1]
        if self.kind == "or":
            return found[0] | found[1]
        return found[0] == found[1] if self.kind == "iff" else ~found[0] | found[1]

    def words(self, names: Sequence[str]) -> str:
        """The sentence in English.

        Args:
          names: of the people.

        Example:
          >>> both = (Claim("knight", 0), Claim("knave", 1))
          >>> Claim("if", parts=both).words(("Ada", "Ben"))
          'if Ada is a knight then Ben is a knave'
        """
        if not self.parts:
            return f"{names[self.person]} is a {self.kind}"
        # Brackets, since "and" and "or" have no order in English.
        said = [
            f"({part.words(names)})" if part.parts else part.words(names)
            for part in self.parts
        ]
        if self.kind == "not":
            return f"it is not true that {said[0]}"
        if self.kind == "if":
            return f"if {said[0]} then {said[1]}"
        joint = {"and": " and ", "or": " or ", "iff": " if and only if "}[self.kind]
        return joint.join(said)


def solutions(claims: Sequence[Claim]) -> list[tuple[bool, ...]]:
    """Every way in which knights tell the truth and knaves lie.

    Args:
      claims: of each person, in order.

    Returns:
      For each way, who is a knight.

    Example:
      >>> solutions([Claim("knave", 1), Claim("knight", 0)])
      []
      >>> solutions([Claim("knave", 1), Claim("knave", 0)])
      [(False, True), (True, False)]
    """
    every = np.array(list(product((False, True), repeat=len(claims))))  # [2^n, n]
    said = np.stack([claim.holds(every) for claim in claims], axis=-1)
    found = every[(said == every).all(axis=-1)]
    return [tuple(knights) for knights in found.tolist()]


def draw_claims(
    rng: np.random.Generator, people: int, depth: int
) -> tuple[tuple[Claim, ...], tuple[bool, ...]]:
    """A puzzle with exactly one solution.

    Args:
      rng: draws claims until there is exactly one solution.
      people: how many.
      depth: of the deepest sentence; 1 for "Ada is a knight and Ben is a knave".

    Returns:
      The claim of each person, and who is a knight.
    """
    for _ in range(_TRIES):
        claims = tuple(_claim(rng, people, speaker, depth) for speaker in range(people))
        found = solutions(claims)
        if len(found) == 1:
            return claims, found[0]
    raise RuntimeError(f"a puzzle of {people} must exist, got none in {_TRIES} draws")


def _claim(rng: np.random.Generator, people: int, speaker: int, depth: int) -> Claim:
    if depth == 0 or rng.random() < 0.25:
        # Nobody says anything about only themselves.
        others = [person for person in range(people) if person != speaker]
        return _single(rng, others)
    kind = KINDS[int(rng.integers(len(KINDS)))]
    if kind == "not":
        return Claim(kind, parts=(_claim(rng, people, speaker, depth - 1),))
    # A sentence about two people, one of whom may be the speaker.
    if depth == 1:
        first, second = rng.choice(people, 2, replace=False).tolist()
        return Claim(kind, parts=(_single(rng, [first]), _single(rng, [second])))
    while True:
        parts = tuple(_claim(rng, people, speaker, depth - 1) for _ in range(2))
        # "Ada is a knight and Ada is a knave" is no puzzle.
        if any(part.parts for part in parts) or parts[0].person != parts[1].person:
            return Claim(kind, parts=parts)


def _single(rng: np.random.Generator, people: Sequence[int]) -> Claim:
    kind = "knight" if rng.random() < 0.5 else "knave"
    return Claim(kind, people[int(rng.integers(len(people)))])
