"""Published systems, one frozen value each: a method, its settings, its sources.

A recipe is only a composition: `RECIPES["vapo"].build(max_new_tokens)` is a `Method`
like one of your own, and `dataclasses.replace` makes a variant of it. Each module of
this folder holds one published method and its recipes; `RECIPES` collects every
`Recipe` in them, so adding one takes only a file here.

Example:
  >>> from jaxrl_reason.rl.recipes import RECIPES
  >>> dapo = RECIPES["dapo"]
  >>> dapo.settings.learning_rate, dapo.settings.clip
  (1e-06, (0.2, 0.28))
  >>> dapo.build(20480).dynamic_sampling.fraction
  1.0

`RECIPES` are those of the RL loop; `OFFLINE` in `jaxrl_reason.offline.offline_recipes`
are those that learn from examples or pairs, `STAGED` in `staged_recipes` the runs whose
settings change between stages; rStar-Math's `PPM` is in `reward_models.reward_methods`,
the prover-verifier game in `game.game_settings`.
"""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from jaxrl_reason.rl.recipes.recipe import Recipe


def _found() -> Iterator[Recipe]:
    """Every recipe of every module, single or in a tuple, file by file."""
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
