"""A recipe: a published system as one value."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxrl_reason.rl.method import Method


@dataclass(frozen=True)
class Published:
    """Settings as given by the sources; None for those that they do not give.

    Attributes:
      learning_rate: of the policy.
      critic_learning_rate: of the critic, if there is one.
      prompts: P, prompts per rollout.
      group_size: G, responses per prompt; of several stages the first.
      updates: optimiser steps per rollout.
      critic_updates: those of the critic, if they differ.
      value_pretraining_steps: first rollouts, on which only the critic is trained.
      max_new_tokens: response limit in tokens, one per stage.
      temperature: of the rollouts.
      clip: (low, high) of the ratio, as distances from 1 unless the objective says
        otherwise.
      kl_coef: coefficient of the KL to the reference, 0 for none.
      notes: other settings that the source gives.
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
    """The parts of a method, for the tables of the docs.

    Attributes:
      advantages: of the whole batch.
      objective: per token.
      reduction: to one number.
      extras: what else the loop does.
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
      not_built: parts of the system that `build` does not include.
      title: its authors' name for it; empty for a variant without its own row.
      family: the table of methods that holds its row.
      made_of: the columns of that row.
      anchor: the section of its page, if the page has more than one method.
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
        """The name of its module, and of its page under docs/losses/methods."""
        return self.build.__module__.rpartition(".")[2]
