"""Published systems that train in stages or select problems during training.

A `StagedRecipe` holds what changes from stage to stage; `scaled_stages` builds its
stages at other sizes. Settings that do not change (clip, KL, batch) are in its
`recipe`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from jaxrl_reason.data.adaptive_streams import EasyPoolStream, HistoryResampling
from jaxrl_reason.data.pass_rates import Rule, with_ids
from jaxrl_reason.data.pipeline import ProblemStream
from jaxrl_reason.data.strategies import (
    LIGHT_R1_BAND,
    accuracy_band,
    hard_set,
    mixed_outcomes,
    not_solved,
)
from jaxrl_reason.learner.state import OptimizerSettings
from jaxrl_reason.rl.pass_rate_filter import keep_by_pass_rate
from jaxrl_reason.rl.problem_batches import ProblemBatches
from jaxrl_reason.rl.recipes.deepscaler import DEEPSCALER
from jaxrl_reason.rl.recipes.light_r1 import LIGHT_R1
from jaxrl_reason.rl.recipes.mimo import MIMO
from jaxrl_reason.rl.recipes.open_reasoner_zero import OPEN_REASONER_ZERO
from jaxrl_reason.rl.recipes.recipe import Recipe
from jaxrl_reason.rl.recipes.skywork_or1 import SKYWORK_OR1
from jaxrl_reason.rl.recipes.srpo import SRPO
from jaxrl_reason.rl.rl_settings import RLSettings
from jaxrl_reason.rl.stage_parts import Stage


@dataclass(frozen=True)
class PublishedStage:
    """One stage as given by the sources; None for what they do not give.

    Attributes:
      name: unique in its recipe.
      problems: its data, in words.
      max_new_tokens: length limit of a response.
      group_size: G.
      learning_rate: of the policy.
      steps: rollouts of this stage.
      keep: which problems to keep, by the policy's pass rates at the stage's start.
    """

    name: str
    problems: str
    max_new_tokens: int | None = None
    group_size: int | None = None
    learning_rate: float | None = None
    steps: int | None = None
    keep: Rule | None = None


@dataclass(frozen=True)
class StagedRecipe:
    """A published system's stages and data.

    Attributes:
      recipe: the method, its settings and its sources.
      stages: in their order.
      stream: (problems, *, batch_size, seed) -> the stream of every stage.
      data_filter: which problems to keep, by a fixed model's pass rates before the run.
      not_published: what the sources do not give, and what is done here instead.
    """

    recipe: Recipe
    stages: tuple[PublishedStage, ...]
    stream: Callable[..., ProblemBatches] = ProblemStream
    data_filter: Rule | None = None
    not_published: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.recipe.name


def scaled_stages(
    staged: StagedRecipe,
    settings: RLSettings,
    optimizer: OptimizerSettings,
    problems: Sequence[list[Any]],
    *,
    limits: Sequence[int],
    critic_optimizer: OptimizerSettings | None = None,
) -> tuple[Stage, ...]:
    """The stages of a recipe at other sizes.

    What changes from stage to stage is kept: group sizes and learning rates have the
    published ratio to those of the first stage, filters and streams are the recipe's.
    The rest, including the steps, comes from `settings`.

    Args:
      staged: the recipe. Its `data_filter` needs a fixed model's pass rates: apply it
        to the problems first (`kept_ids`, `with_ids`).
      settings: of the first stage; `row_width` must hold the longest limit.
      optimizer: of the first stage.
      problems: one set per stage.
      limits: `max_new_tokens`, one per stage.
      critic_optimizer: for a method with a critic.

    Raises:
      ValueError: there is not one entry of `problems` and of `limits` per stage.
    """
    count = len(staged.stages)
    if len(problems) != count or len(limits) != count:
        raise ValueError(
            f"{staged.name} has {count} stages and needs as many sets of problems and "
            f"limits, got {len(problems)} and {len(limits)}"
        )
    stages = []
    for index, (published, own) in enumerate(zip(staged.stages, problems, strict=True)):
        own_settings = replace(
            settings,
            max_new_tokens=limits[index],
            group_size=round(
                settings.group_size * _ratio_to_first(staged, index, "group_size")
            ),
        )
        rate = optimizer.learning_rate * _ratio_to_first(staged, index, "learning_rate")
        seed = settings.seed + index
        keep = published.keep
        stages.append(
            Stage(
                name=published.name,
                settings=own_settings,
                method=staged.recipe.build(limits[index]),
                optimizer=replace(optimizer, learning_rate=rate),
                problems=partial(_open, staged.stream, own, own_settings, seed),
                prepare=None if keep is None else keep_by_pass_rate(own, keep),
                critic_optimizer=critic_optimizer,
            )
        )
    return tuple(stages)


def _ratio_to_first(staged: StagedRecipe, index: int, name: str) -> float:
    """A published setting of a stage divided by the first's; 1 if unpublished."""
    first, own = (getattr(staged.stages[k], name) for k in (0, index))
    return own / first if own and first else 1.0


def _open(
    stream: Callable[..., ProblemBatches],
    problems: list[Any],
    settings: RLSettings,
    seed: int,
    kept: list[int] | None,
) -> ProblemBatches:
    """A stage's stream over the problems kept for it, or over all if that is None."""
    own = problems if kept is None else with_ids(problems, kept)
    return stream(own, batch_size=settings.prompts_per_step, seed=seed)


_NO_STEPS = "steps of each stage"

DEEPSCALER_STAGES = StagedRecipe(
    recipe=DEEPSCALER,
    stages=(
        PublishedStage("8k", "40k problems", 8192, 8, 1e-6, steps=1040),
        PublishedStage("16k", "the same", 16384, 16, 1e-6, steps=480),
        PublishedStage("24k", "the same", 24576, 16, 1e-6),
    ),
    not_published=(
        "steps of the third stage",
        "thresholds of its filter, neither too high nor too low: none here",
        "whether the reference or the optimiser is reset: neither here",
    ),
)

SKYWORK_OR1_STAGES = StagedRecipe(
    recipe=SKYWORK_OR1,
    stages=tuple(
        PublishedStage(
            f"{limit // 1024}k",
            "105k mathematical problems and 13.7k of code",
            limit,
            16,
            1e-6,
            keep=not_solved,
        )
        for limit in (8192, 16384, 32768)
    ),
    data_filter=mixed_outcomes,
    not_published=(
        _NO_STEPS,
        "with which length limit the model is evaluated before a stage: its own here",
        "whether what was dropped before may come back: here each stage chooses again",
    ),
)

SRPO_STAGES = StagedRecipe(
    recipe=SRPO,
    stages=(
        PublishedStage("mathematics", "hard mathematics only", None, 32, 1e-6),
        PublishedStage("code", "mathematics and code", None, 32, 1e-6),
    ),
    stream=HistoryResampling,
    not_published=(
        _NO_STEPS + ", length limit",
        "in which stage history is resampled: in both here",
        "what happens when fewer problems than a batch remain: all come back here",
    ),
)

OPEN_REASONER_ZERO_STAGES = StagedRecipe(
    recipe=OPEN_REASONER_ZERO,
    stages=(
        PublishedStage("all", "129k problems", 8000, 64, 1e-6, steps=1100),
        PublishedStage(
            "hard",
            "about 13k, solved in fewer than 4 of 64 tries",
            8000,
            64,
            3e-7,
            steps=100,
            keep=hard_set,
        ),
    ),
    not_published=(
        "how the learning rate comes down to 3e-7: at once here",
        "whose 64 samples: those of the policy at the start of the stage here",
    ),
)

MIMO_STAGES = StagedRecipe(
    recipe=MIMO,
    stages=(PublishedStage("all", "130k problems", 32768, None, 1e-6),),
    stream=EasyPoolStream,
    data_filter=partial(accuracy_band, low=0.0, high=0.9),
    not_published=(
        "when the pool is turned on: late in the paper, at once here",
        "which strong model decides what is beyond solving: all of it stays here",
        "steps",
    ),
)

LIGHT_R1_STAGES = StagedRecipe(
    recipe=LIGHT_R1,
    stages=(
        PublishedStage("all", "9k of Big-Math, 1k hard of DeepScaleR", 24000, 8, 1e-6),
    ),
    data_filter=partial(accuracy_band, low=LIGHT_R1_BAND[0], high=LIGHT_R1_BAND[1]),
    not_published=(
        "steps: about 220, 3 epochs, are reported",
        "the lower end of the band: 0.25 in the paper and here, 0.2 in a file's name",
    ),
)

STAGED: Mapping[str, StagedRecipe] = MappingProxyType(
    {
        staged.name: staged
        for staged in (
            DEEPSCALER_STAGES,
            SKYWORK_OR1_STAGES,
            SRPO_STAGES,
            OPEN_REASONER_ZERO_STAGES,
            MIMO_STAGES,
            LIGHT_R1_STAGES,
        )
    }
)
