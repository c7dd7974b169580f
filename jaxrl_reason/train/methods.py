"""A method by its name: its recipe, and its kind of training."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from jaxrl_reason.game.game_settings import PROVER_VERIFIER
from jaxrl_reason.offline.offline_recipes import OFFLINE
from jaxrl_reason.reward_models.reward_methods import (
    PPM,
    RankingMethod,
    bradley_terry,
    verifier,
)
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.recipes import RECIPES
from jaxrl_reason.rl.recipes.dapo import DapoSettings, dapo
from jaxrl_reason.rl.recipes.dr_grpo import dr_grpo
from jaxrl_reason.rl.recipes.gkd import gkd
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.recipes.opd import opd
from jaxrl_reason.rl.recipes.ppo import ppo
from jaxrl_reason.rl.recipes.sdpo import sdft, sdpo
from jaxrl_reason.rl.rollouts import with_format_reward

# Problem id -> token ids of a worked response.
Demonstrations = Mapping[int, Sequence[int]]
Kind = Literal["rl", "examples", "rounds", "reward_model", "game"]

# Built with the run's settings; other recipes are built as published.
_OWN = ("dapo", "grpo", "dr_grpo", "ppo")
# Learning from a teacher, where every value of `RECIPES` learns from rewards and is
# built from nothing but a length limit.
DISTILLED: Mapping[str, Callable[[Demonstrations], Method]] = {
    "opd": lambda _: opd(),
    "gkd": lambda _: gkd(),
    "sdpo": lambda _: sdpo(),
    "sdft": sdft,
}
# Those whose teacher is a model of the run's settings.
TAUGHT = tuple(
    name
    for name, build in DISTILLED.items()
    if any(component.reads_teachers for component in build({}).components)
)
_EXAMPLES = ("sft", "light_r1_sft")
REWARD_MODELS: dict[str, Callable[[], RankingMethod]] = {
    "bradley_terry": bradley_terry,
    "verifier": verifier,
    PPM.name: lambda: PPM.method,
}


def method_names() -> list[str]:
    """All method names, in the order of the kinds."""
    rl = [*_OWN, *(name for name in RECIPES if name not in _OWN), *DISTILLED]
    return [*rl, *OFFLINE, *REWARD_MODELS, PROVER_VERIFIER.name]


def kind_of(name: str) -> Kind:
    """The kind of training that a method needs.

    >>> kind_of("gspo"), kind_of("irpo"), kind_of("prover_verifier")
    ('rl', 'rounds', 'game')

    Raises:
      ValueError: there is no such method.
    """
    if name in _OWN or name in RECIPES or name in DISTILLED:
        return "rl"
    if name in _EXAMPLES:
        return "examples"
    if name in OFFLINE:
        return "rounds"
    if name in REWARD_MODELS:
        return "reward_model"
    if name == PROVER_VERIFIER.name:
        return "game"
    names = ", ".join(method_names())
    raise ValueError(f"method must be one of {names}, got {name!r}")


def build_method(
    name: str,
    *,
    max_new_tokens: int,
    dapo_settings: DapoSettings,
    demonstrations: Demonstrations = MappingProxyType({}),
) -> Method:
    """A method of the RL loop.

    Args:
      name: of `RECIPES` or `DISTILLED`.
      max_new_tokens: the length limit of a response.
      dapo_settings: the parts of DAPO, for that method only.
      demonstrations: of problems by their ids, for sdft only.
    """
    if name in DISTILLED:
        return DISTILLED[name](demonstrations)
    own: dict[str, Callable[[], Method]] = {
        "dapo": lambda: dapo(dapo_settings, max_new_tokens=max_new_tokens),
        "dr_grpo": lambda: dr_grpo(length=max_new_tokens),
        "grpo": grpo,
        "ppo": ppo,
    }
    build = own.get(name, lambda: RECIPES[name].build(max_new_tokens))
    return build()


def add_format_reward(method: Method, weight: float) -> Method:
    """Adds `weight` to the reward of a response in the task's format."""
    if not weight:
        return method
    rewards = with_format_reward(method.rewards, weight)
    return dataclasses.replace(method, rewards=rewards)
