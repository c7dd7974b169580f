"""Stages, their compiled functions, and the position of a run in them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from numpy.typing import ArrayLike

from jaxrl_reason.learner.state import OptimizerSettings
from jaxrl_reason.models import Transformer
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.partial_rollouts import finder
from jaxrl_reason.rl.problem_batches import AdaptiveBatches, ProblemBatches
from jaxrl_reason.rl.rl_learner import RLLearner, RLState, build_rl_learner
from jaxrl_reason.rl.rl_settings import RLSettings
from jaxrl_reason.runs.metrics_log import Row
from jaxrl_reason.runs.run_folder import to_plain
from jaxrl_reason.sampler import WeightPlacement
from jaxrl_reason.sharding import BatchSharding
from jaxrl_reason.tasks.task import Task


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
      name: for the progress bar and the checkpoints; unique in the run.
      settings: of the stage; its `steps` are those of this stage only.
      method: built for the stage's length limit.
      optimizer: of the policy. Moments and the number of updates, which drives the
        schedule, come from the previous stage.
      problems: what `prepare` returned (None without it) -> the stage's problems, in
        batches of `prompts_per_step`. Called again on resume.
      prepare: f(learner, state), called once before the stage with its compiled
        functions and its initial state; for example `keep_by_pass_rate`. Its result is
        saved in every checkpoint of the stage as JSON, so use lists, not tuples.
      critic_optimizer: of a critic; the policy's if left out.
      fresh_optimizer: reset the optimisers to update 0 without moments.
      fresh_reference: the stage's initial policy becomes the reference, for it and
        later stages. Otherwise the reference does not change.
    """

    name: str
    settings: RLSettings
    method: Method
    optimizer: OptimizerSettings
    problems: Callable[[Any], ProblemBatches]
    prepare: Callable[[RLLearner, RLState], Any] | None = None
    critic_optimizer: OptimizerSettings | None = None
    fresh_optimizer: bool = False
    fresh_reference: bool = False


@dataclass(frozen=True)
class StagedRun:
    """Stages and the compiled functions of each, built once by `build_stages`.

    In `learner` the settings' `steps` is the last step of the stage, counted in the
    run.

    Attributes:
      stages: in their order.
      learner: the compiled functions of each.
    """

    stages: tuple[Stage, ...]
    learner: tuple[RLLearner, ...]

    def first_step(self, index: int) -> int:
        """The number of steps before a stage."""
        return self.learner[index].settings.steps - self.stages[index].settings.steps

    def fingerprint(self, index: int, common: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that a checkpoint depends on: of this stage and earlier ones.

        Later stages may still be changed.
        """
        done = {s.name: _fingerprint(s) for s in self.stages[: index + 1]}
        return {**common, "stage": self.stages[index].name, "stages": done}


@dataclass(frozen=True)
class InStage:
    """The position of a run in stages.

    Attributes:
      index: of the stage, from 0.
      state: of the loop.
      problems: of the stage.
      dropped: surplus groups of the previous stage that this one cannot use.
    """

    index: int
    state: RLState
    problems: "StageProblems"
    dropped: int = 0


class StageProblems:
    """A stage's problems; their state includes the result of `Stage.prepare`."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def open(self, prepared: Any) -> Self:
        """Opens the stream with the result of `Stage.prepare`."""
        self._prepared = prepared
        self._source = self._stage.problems(prepared)
        return self

    def __iter__(self) -> Iterator[Sequence[Any]]:
        return self

    def __next__(self) -> Sequence[Any]:
        return next(self._source)

    def observe(
        self, problem_ids: ArrayLike, num_correct: ArrayLike, num_samples: ArrayLike
    ) -> Row:
        """Passes outcomes to the stream, if it is adaptive."""
        if not isinstance(self._source, AdaptiveBatches):
            return {}
        return self._source.observe(problem_ids, num_correct, num_samples)

    def find(self, problem_id: int) -> Any:
        """The problem of a number, if the stream can tell."""
        return finder(self._source)(problem_id)

    def get_state(self) -> dict[str, Any]:
        """JSON-able state of the stream."""
        return {"prepared": self._prepared, "source": self._source.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Opens the stream again, without calling `prepare`, and moves it there."""
        self.open(state["prepared"])._source.set_state(state["source"])


def build_stages(
    model: Transformer,
    task: Task,
    stages: Sequence[Stage],
    batch_sharding: BatchSharding,
    place: WeightPlacement | None = None,
) -> StagedRun:
    """Builds the functions of every stage, so that errors appear before the first.

    `place` is that of `build_rl_learner`.

    Raises:
      ValueError: no stages, two of the same name, a fresh reference for a method
      without one, or settings that `build_rl_learner` rejects.
    """
    names = [stage.name for stage in stages]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"stages must have different names, got {names}")
    learner, last = [], 0
    for stage in stages:
        if stage.fresh_reference and not stage.method.uses_reference:
            raise ValueError(
                "fresh_reference needs a method with a reference, got "
                f"{stage.method.name} in stage {stage.name}"
            )
        last += stage.settings.steps
        settings = replace(stage.settings, steps=last)
        learner.append(
            build_rl_learner(
                model,
                task,
                stage.method,
                settings,
                stage.optimizer,
                batch_sharding,
                stage.critic_optimizer,
                place=place,
            )
        )
    return StagedRun(tuple(stages), tuple(learner))


def _fingerprint(stage: Stage) -> dict[str, Any]:
    names = ("settings", "optimizer", "critic_optimizer", "fresh_optimizer")
    plain = {name: to_plain(getattr(stage, name)) for name in names}
    # `max_rounds` may be changed after a run that found no signal.
    del plain["settings"]["max_rounds"]
    return plain | {
        "fresh_reference": stage.fresh_reference,
        "method": stage.method.name,
    }
