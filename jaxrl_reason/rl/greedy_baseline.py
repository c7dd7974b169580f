"""A greedy baseline: one greedy response per prompt, graded but not trained on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from jaxrl_reason.rl.collect import SampleFn, compute_rewards
from jaxrl_reason.rl.components import Component, ComponentLearner, LearnerSetup
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.sampler import SamplingSettings, make_sampler

if TYPE_CHECKING:
    from jaxrl_reason.rl.rl_learner import RLLearner


@dataclass(frozen=True)
class GreedyBaseline(Component):
    """One greedy response per prompt besides the group (ReMax, arXiv 2310.10505).

    An estimator reads `experience["greedy_rewards"]` [B], the reward of the greedy
    response to the same prompt.
    """

    name: ClassVar[str] = "greedy"

    def build(self, setup: LearnerSetup) -> "GreedySampler":
        """Builds a second sampler with temperature 0."""
        settings = SamplingSettings(
            max_new_tokens=setup.settings.max_new_tokens,
            eos_token_ids=setup.task.eos_token_ids,
            temperature=0.0,
        )
        return GreedySampler(make_sampler(setup.sampled or setup.model, settings, 1))


@dataclass(frozen=True)
class GreedySampler(ComponentLearner):
    """The compiled sampler of the greedy responses.

    Attributes:
      sample: the compiled sampler.
    """

    name: ClassVar[str] = "greedy"
    sample: SampleFn

    def extend_rollouts(
        self,
        learner: "RLLearner",
        sample: Callable[..., Rollouts],
        problems: Sequence[Any],
        rollouts: Rollouts,
    ) -> Rollouts:
        """Adds `greedy_rewards` [P, G], equal within a group."""
        greedy = sample(sample=self.sample, group_size=1)
        baseline = greedy_rewards(learner.method, greedy, rollouts)
        repeated = np.repeat(baseline[:, None], rollouts.lengths.shape[1], axis=1)
        extras = {**rollouts.extras, "greedy_rewards": repeated}
        return replace(rollouts, extras=extras)


def greedy_rewards(method: Method, greedy: Rollouts, rollouts: Rollouts) -> np.ndarray:
    """[P] rewards of the greedy responses.

    If one could not be graded, the mean of the prompt's samples replaces it.
    """
    found = compute_rewards(method, greedy)
    samples = compute_rewards(method, rollouts).rewards.mean(axis=1)
    return np.where(found.failed[:, 0], samples, found.rewards[:, 0])
