"""The rewards that a run's settings name."""

from collections.abc import Callable, Sequence
from functools import partial

from jaxrl_reason.grading.load_function import load_function
from jaxrl_reason.grading.reward_call import inspect_reward
from jaxrl_reason.grading.worker_pool import WorkerError
from jaxrl_reason.sharding import BatchSharding
from jaxrl_reason.tasks.function_reward import WORKER_SECONDS, FunctionReward
from jaxrl_reason.tasks.grade_responses import GRADE_SECONDS
from jaxrl_reason.tasks.reward_functions import (
    AnswerReward,
    InProcessReward,
    Reward,
    Weighted,
)
from jaxrl_reason.train.judge_setup import build_judge
from jaxrl_reason.train.reward_settings import ANSWER, JUDGE
from jaxrl_reason.train.train_settings import TrainSettings

# The names of what every reward may ask for besides prompt, response and row.
CONTEXT = ("tokens", "max_tokens", "truncated", "step")


def build_rewards(
    settings: TrainSettings, batch_sharding: BatchSharding
) -> tuple[Weighted, ...]:
    """The rewards with their weights.

    A function is loaded now, so that an error in its file appears before anything is
    trained.

    Args:
      settings: of the run.
      batch_sharding: its mesh holds a judge.

    Raises:
      ValueError: a function cannot be loaded, or asks for what there is not.
    """
    own: dict[str, Callable[[], Reward]] = {
        ANSWER: AnswerReward,
        JUDGE: lambda: build_judge(settings, batch_sharding),
    }
    return tuple(
        Weighted(own.get(place, partial(function_reward, settings, place))(), weight)
        for place, weight in settings.named_rewards
    )


def function_reward(settings: TrainSettings, place: str) -> Reward:
    """A user's function as a reward.

    Args:
      settings: of the run.
      place: of the function.

    Raises:
      ValueError: as `build_rewards`.
    """
    s = settings.rewards
    reward: InProcessReward | FunctionReward
    if s.where == "process":
        function = load_function(place)
        # It may run programs on the devices: nobody knows what a function does.
        name, seconds = place.rpartition(":")[2], s.deadline or GRADE_SECONDS
        reward = InProcessReward(function, name, needs_devices=True, deadline=seconds)
        needed = inspect_reward(function).needed
    else:
        seconds = s.deadline or WORKER_SECONDS
        reward = FunctionReward(place, seconds, s.workers or None, s.memory_mb * 2**20)
        try:
            needed = reward.about.needed
        except WorkerError as error:
            raise ValueError(f"reward {place} must be usable: {error}") from error
    try:
        check_context(settings, place, needed)
    except ValueError:
        reward.close()
        raise
    return reward


def check_context(settings: TrainSettings, place: str, needed: Sequence[str]) -> None:
    """Raises for a function that asks for what there is not."""
    known = (*CONTEXT, "correct") if settings.grades_answers else CONTEXT
    for name in needed:
        if name not in known:
            more = "; correct needs the reward answer" if name == "correct" else ""
            raise ValueError(
                f"reward {place} may ask for {', '.join(known)}, got {name}{more}"
            )
