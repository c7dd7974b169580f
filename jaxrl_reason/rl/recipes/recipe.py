"""What a recipe is: a published system as one value."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxrl_reason.rl.method import Method


@dataclass(frozen=True)
class Published:
    """Settings as the sources give them; None where they do not.

    Attributes:
      learning_rate: of the policy.
      critic_learning_rate: of the critic, where there is one.
      prompts: P, prompts per rollout.
      group_size: G, responses per prompt; of several stages the first.
      updates: optimiser steps per rollout.
      critic_updates: those of the critic, where they differ.
      value_pretraining_steps: rollouts from which the critic alone learns, at first.
      max_new_tokens: response limit in tokens, one per stage.
      temperature: of the rollouts.
      clip: (low, high) of the ratio, as distances from 1 unless the objective says
        otherwise.
      kl_coef: weight of the KL to the reference, 0 for none.
      notes: whatever else the source gives.
    """

    learning_rate: float | None = None
    critic_learning_rate: float | None = None
    prompts: int | None = None
    group_size: int | None = None
    updates: int | None = None
    critic_updates: int | None = None
    value_pretraining_steps: int | None = None
    max_new_tokens: tuple[int, ...] | None = None
    temperature: float | None = None
    clip: tuple[float, float] | None = None
    kl_coef: float | None = None
    notes: str = ""


@dataclass(frozen=True)
class Composition:
    """What a method is made of, for the docs: a choice in each column.

    Attributes:
      advantages: of the whole batch.
      objective: per token.
      reduction: to one number.
      extras: whatever the loop does besides.
    """

    advantages: str
    objective: str
    reduction: str
    extras: str = ""


# The tables of docs/losses/methods/index.md, in their order.
FAMILIES = ("critic", "group", "objective", "reinforce", "several")


@dataclass(frozen=True)
class Recipe:
    """A published system: its method, composed of parts, and its settings.

    Attributes:
      name: for tables and logs.
      sources: arXiv ids.
      build: max_new_tokens -> Method. The settings that belong to the method (clip, KL,
        coefficients) are in it; those of the run (learning rate, batch) are yours to
        take from `settings`.
      settings: as published.
      not_published: what the sources do not give, and what is done here instead.
      not_built: parts of the system that `build` does not hold.
      title: as its authors call it; empty for a variant that has no row of its own.
      family: the table of methods that its row stands in.
      made_of: that row's columns.
      anchor: the section of its page, where that holds more than one method.
    """

    name: str
    sources: tuple[str, ...]
    build: Callable[[int], Method]
    settings: Published
    not_published: tuple[str, ...] = ()
    not_built: tuple[str, ...] = ()
    title: str = ""
    family: str = ""
    made_of: Composition | None = None
    anchor: str = ""

    def __post_init__(self) -> None:
        if self.title and (self.family not in FAMILIES or self.made_of is None):
            raise ValueError(
                f"a recipe with a title must say what it is made_of and have a family "
                f"among {', '.join(FAMILIES)}, got {self.family!r} in {self.name!r}"
            )

    @property
    def module(self) -> str:
        """The module that it is written in, and its page under docs/losses/methods."""
        return self.build.__module__.rpartition(".")[2]
