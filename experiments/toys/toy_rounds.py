"""The setup of `setup.py` in rounds: preference training, RFT and STaR.

    from experiments.toys.toy_rounds import ROUNDS, run_rounds

    accuracies = run_rounds("irpo", seed=0, rounds=15)

A round samples, grades, trains with a fresh optimiser, and the next samples with what
came of it; the accuracy of a round is that of its samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from types import MappingProxyType

from experiments.toys.toy_setup import SETUP, ToySetup, one_device, sft_policy
from experiments.toys.toy_tasks import EndlessProblems, Toy
from jaxrl_reason.learner.sft import SFTLearner, build_sft_learner
from jaxrl_reason.learner.state import OptimizerSettings, TrainState
from jaxrl_reason.models import Transformer
from jaxrl_reason.offline.iterative import iterative_dpo_round, rft_round, star_round
from jaxrl_reason.offline.pair_learner import PairLearner
from jaxrl_reason.offline.preference_batch import PreferenceSettings
from jaxrl_reason.offline.preference_methods import (
    PreferenceMethod,
    dpo,
    ipo,
    irpo,
    nca,
    orpo,
    robust_dpo,
    simpo,
)
from jaxrl_reason.offline.preference_training import (
    build_preference_learner,
)
from jaxrl_reason.offline.sample_rounds import (
    RoundSampler,
    RoundSettings,
    build_round_sampler,
)
from jaxrl_reason.rl.collect import NoSignalError
from jaxrl_reason.runs.metrics_log import Row

# The published settings of each, all on pairs of the policy's own responses.
PREFERENCE: Mapping[str, PreferenceMethod] = MappingProxyType(
    {
        "dpo": dpo(),
        "cdpo": dpo(label_smoothing=0.1),
        "robust_dpo": robust_dpo(),
        "ipo": ipo(),
        "simpo": simpo(),
        "orpo": orpo(),
        "nca": nca(),
        "irpo": irpo(),
    }
)
ROUNDS = (*PREFERENCE, "rft", "star")
PROMPTS = 18  # a round
PAIRS = PreferenceSettings(
    pairs_per_update=16,
    rows_per_micro_batch=8,
    row_width=64,
    pairs_per_row=2,
    max_prompt=1,
    max_response=15,
)

# Below the setup's rate, at which cDPO lost the right responses with the wrong ones.
PAIRS_OPTIMIZER = OptimizerSettings(learning_rate=1e-3)


def run_rounds(
    name: str, seed: int, *, rounds: int, setup: ToySetup = SETUP
) -> list[float]:
    """Accuracy of the samples of each round, from the fine-tuned model on.

    It ends early where a round finds nothing to learn from.

    Raises:
      NoSignalError: that is the first.
    """
    sampler = _sampler(setup)
    sampler = replace(sampler, settings=replace(sampler.settings, seed=seed))
    policy = sft_policy(setup, seed)
    problems = EndlessProblems(PROMPTS)
    found: list[float] = []
    for i in range(rounds):
        try:
            policy, row = _round(name, sampler, policy, next(problems), i, setup, seed)
        except NoSignalError as error:
            if not found:
                raise
            print(f"{name}, seed {seed}, after {i} rounds: {error}")
            break
        found.append(row["reward/accuracy"])
    return found


def _round(
    name: str,
    sampler: RoundSampler,
    policy: TrainState,
    problems: Sequence[Toy],
    index: int,
    setup: ToySetup,
    seed: int,
) -> tuple[TrainState, Row]:
    if name in PREFERENCE:
        learner = _pair_learner(name, setup)
        state, row, _ = iterative_dpo_round(
            sampler, learner, policy, problems, round_index=index
        )
        return state, row
    tools = sampler, _fine_tuning(setup), setup.optimizer, policy
    if name == "rft":
        state, row, _ = rft_round(*tools, problems, round_index=index, epochs=2)
    else:
        base = sft_policy(setup, seed)
        state, row, _ = star_round(*tools, base, problems, round_index=index, epochs=8)
    return state, row


@cache
def _sampler(setup: ToySetup) -> RoundSampler:
    s = setup.settings
    settings = RoundSettings(
        prompts_per_call=s.prompts_per_step,
        group_size=s.group_size,
        prompt_width=s.prompt_width,
        max_new_tokens=s.max_new_tokens,
    )
    return build_round_sampler(
        Transformer(setup.model), setup.task, settings, one_device()
    )


@cache
def _pair_learner(name: str, setup: ToySetup) -> PairLearner[PreferenceMethod]:
    return build_preference_learner(
        Transformer(setup.model),
        PREFERENCE[name],
        PAIRS,
        PAIRS_OPTIMIZER,
        one_device(),
    )


@cache
def _fine_tuning(setup: ToySetup) -> SFTLearner:
    return build_sft_learner(
        Transformer(setup.model), setup.sft, setup.optimizer, one_device()
    )
