"""Pass rates: of rollouts, and of all problems under the current model."""

from collections.abc import Callable, Sequence
from typing import Any

from jaxrl_reason.data.pass_rates import PassRates, Rule, kept_ids
from jaxrl_reason.rl.heldout import HeldoutEvaluation
from jaxrl_reason.rl.iteration import model_params
from jaxrl_reason.rl.rl_learner import RLLearner, RLState
from jaxrl_reason.rl.rollouts import Rollouts


def pass_rates(rollouts: Rollouts) -> PassRates:
    """Numbers of right and of graded answers in each group, in order.

    A response on which the grader failed is not counted: it is neither right nor wrong.
    """
    judged = ~rollouts.failed
    correct = (rollouts.correct & judged).sum(axis=1)
    return PassRates(rollouts.problem_ids, correct, judged.sum(axis=1))


def measure_pass_rates(
    learner: RLLearner, params: Any, problems: Sequence[Any]
) -> PassRates:
    """Pass rates of a model on problems, G samples each.

    It uses the training's sampler at its shapes, so that nothing is compiled; its
    random numbers are those of evaluations, so that training is unaffected.

    Args:
      learner: of the run; its settings have G, the length limit and the temperature.
      params: of the policy.
      problems: at least one.
    """
    s = learner.settings
    evaluation = HeldoutEvaluation(
        task=learner.task,
        problems=problems,
        sample=learner.sample,
        num_samples=s.group_size,
        chunk=s.prompts_per_step,
        prompt_width=s.prompt_width,
        seed=s.seed,
        batch_sharding=learner.batch_sharding,
        place=learner.place,
    )
    return pass_rates(evaluation.run(params))


def keep_by_pass_rate(
    problems: Sequence[Any], rule: Rule
) -> Callable[[RLLearner, RLState], list[int]]:
    """For `Stage.prepare`: ids of problems, filtered by the policy's pass rates.

    Before each stage Skywork-OR1 drops the problems that the model always solves (arXiv
    2505.22312): `keep_by_pass_rate(problems, not_solved)`.

    Args:
      problems: of the stage.
      rule: of `jaxrl_reason.data.strategies`.

    Returns:
      f(learner, state) -> ids. It raises a ValueError if fewer problems are kept than a
      batch needs.
    """

    def prepare(learner: RLLearner, state: RLState) -> list[int]:
        rates = measure_pass_rates(learner, model_params(learner, state), problems)
        ids = kept_ids(rates, rule)
        if len(ids) < learner.settings.prompts_per_step:
            raise ValueError(
                f"a stage's filter must keep prompts_per_step problems "
                f"({learner.settings.prompts_per_step}) or more, got {len(ids)} of "
                f"{len(problems)}"
            )
        return ids

    return prepare
