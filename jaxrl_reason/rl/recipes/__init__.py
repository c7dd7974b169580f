"""Published systems, one frozen value each: a method, its settings, its sources.

A recipe is nothing but a composition: `RECIPES["vapo"].build(max_new_tokens)` is a
`Method` like one of your own, and `dataclasses.replace` makes a variant of it.

Example:
  >>> from jaxrl_reason.rl.recipes import DAPO
  >>> DAPO.settings.learning_rate, DAPO.settings.clip
  (1e-06, (0.2, 0.28))
  >>> DAPO.build(20480).dynamic_sampling
  True

`RECIPES` are those of the RL loop; `OFFLINE` of `jaxrl_reason.offline.offline_recipes`
those that learn from examples or pairs,
`STAGED` the runs whose settings change on the way; rStar-Math's `PPM` is in
`reward_models.reward_methods`, the prover-verifier game in `game.game_settings`.
"""

from collections.abc import Mapping
from types import MappingProxyType

from jaxrl_reason.rl.recipes.baseline_recipes import (
    GPG,
    LOGIC_RL,
    OPO,
    REINFORCE_PP,
    REINFORCE_PP_BASELINE,
    REMAX,
    RLOO,
)
from jaxrl_reason.rl.recipes.critic_recipes import (
    OPEN_REASONER_ZERO,
    PPO,
    VAPO,
    VC_PPO,
)
from jaxrl_reason.rl.recipes.dapo_ladder import DAPO, DAPO_LADDER
from jaxrl_reason.rl.recipes.group_relative import (
    DEEPSCALER,
    DEEPSEEKMATH,
    DR_GRPO,
    INTELLECT_2,
    LIGHT_R1,
    LITE_PPO,
    MIMO,
    R1_ZERO,
    SKYWORK_OR1,
    SRPO,
)
from jaxrl_reason.rl.recipes.multi_reward_recipes import (
    GDPO,
    MGDA,
    PCGRAD,
    PRIME,
)
from jaxrl_reason.rl.recipes.objective_recipes import (
    CISPO,
    CLIP_COV,
    GMPO,
    GSPO,
    KL_COV,
    SAPO,
)
from jaxrl_reason.rl.recipes.recipe import Published, Recipe, with_importance_weights
from jaxrl_reason.rl.recipes.staged_recipes import STAGED

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            DEEPSEEKMATH,
            R1_ZERO,
            DR_GRPO,
            DAPO,
            *DAPO_LADDER,
            SRPO,
            SKYWORK_OR1,
            LIGHT_R1,
            DEEPSCALER,
            MIMO,
            LITE_PPO,
            INTELLECT_2,
            PPO,
            OPEN_REASONER_ZERO,
            VC_PPO,
            VAPO,
            REINFORCE_PP,
            REINFORCE_PP_BASELINE,
            LOGIC_RL,
            RLOO,
            REMAX,
            OPO,
            GPG,
            GSPO,
            CISPO,
            GMPO,
            SAPO,
            KL_COV,
            CLIP_COV,
            PRIME,
            GDPO,
            PCGRAD,
            MGDA,
        )
    }
)

__all__ = [
    "CISPO",
    "CLIP_COV",
    "DAPO",
    "DAPO_LADDER",
    "DEEPSCALER",
    "DEEPSEEKMATH",
    "DR_GRPO",
    "GDPO",
    "GMPO",
    "GPG",
    "GSPO",
    "INTELLECT_2",
    "KL_COV",
    "LIGHT_R1",
    "LITE_PPO",
    "LOGIC_RL",
    "MGDA",
    "MIMO",
    "OPEN_REASONER_ZERO",
    "OPO",
    "PCGRAD",
    "PPO",
    "PRIME",
    "R1_ZERO",
    "RECIPES",
    "REINFORCE_PP",
    "REINFORCE_PP_BASELINE",
    "REMAX",
    "RLOO",
    "SAPO",
    "SKYWORK_OR1",
    "SRPO",
    "STAGED",
    "VAPO",
    "VC_PPO",
    "Published",
    "Recipe",
    "with_importance_weights",
]
