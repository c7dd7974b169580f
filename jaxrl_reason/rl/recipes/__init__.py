"""Published systems, one frozen value each: a method, its settings, its sources.

A recipe is nothing but a composition: `RECIPES["vapo"].build(max_new_tokens)` is a
`Method` like one of your own, and `dataclasses.replace` makes a variant of it. Each
module of this folder holds what belongs to one published method, beside its recipes;
`RECIPES` finds every `Recipe` that stands in one, so a file here is all it takes to add
one.

Example:
  >>> from jaxrl_reason.rl.recipes import RECIPES
  >>> dapo = RECIPES["dapo"]
  >>> dapo.settings.learning_rate, dapo.settings.clip
  (1e-06, (0.2, 0.28))
  >>> dapo.build(20480).dynamic_sampling.fraction
  1.0

`RECIPES` are those of the RL loop; `OFFLINE` of `jaxrl_reason.offline.offline_recipes`
those that learn from examples or pairs, `STAGED` of `staged_recipes` the runs whose
settings change on the way; rStar-Math's `PPM` is in `reward_models.reward_methods`, the
prover-verifier game in `game.game_settings`.
"""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from jaxrl_reason.rl.recipes.recipe import Recipe


def _found() -> Iterator[Recipe]:
    """Every recipe of every module, alone or in a tuple, a file after the other."""
    for module in pkgutil.iter_modules(__path__):
        names = vars(importlib.import_module(f"{__name__}.{module.name}"))
        for value in names.values():
            for one in value if isinstance(value, tuple) else (value,):
                if isinstance(one, Recipe) and one.module == module.name:
                    yield one


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {recipe.name: recipe for recipe in _found()}
)

__all__ = ["RECIPES"]
