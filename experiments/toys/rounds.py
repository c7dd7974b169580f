"""The bench of `bench.py` in rounds: preference training, RFT and STaR.

    from experiments.toys.rounds import ROUNDS, run_rounds

    accuracies = run_rounds("irpo", seed=0, rounds=15)

A round samples, grades, trains with a fresh optimiser, and the next samples with what
came of it; the accuracy of a round is that of its samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from types import MappingProxyType

from experiments.toys.bench import BENCH, Bench, one_device, primed_policy
from experiments.toys.tasks import EndlessProblems, Toy
from jaxrl_reason.models import Transformer
from jaxrl_reason.training.collect import NoSignalError
from jaxrl_reason.training.metrics import Row
from jaxrl_reason.training.offline.iterative import (
    iterative_dpo_round,
    rft_round,
    star_round,
)
from jaxrl_reason.training.offline.preference import PreferenceParts, build_preference
from jaxrl_reason.training.offline.preference_batch import PreferenceSettings
from jaxrl_reason.training.offline.preference_methods import (
    PreferenceMethod,
    dpo,
    ipo,
    irpo,
    nca,
    orpo,
    robust_dpo,
    simpo,
)
from jaxrl_reason.training.offline.sample_rounds import (
    RoundSampler,
    RoundSettings,
    build_round_sampler,
)
from jaxrl_reason.training.state import OptimizerSettings, TrainState
from jaxrl_reason.training.supervised import SupervisedParts, build_supervised

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

# Below the bench's rate, at which cDPO lost the right responses with the wrong ones.
PAIRS_OPTIMIZER = OptimizerSettings(learning_rate=1e-3)


def run_rounds(
    name: str, seed: int, *, rounds: int, bench: Bench = BENCH
) -> list[float]:
    """Accuracy of the samples of each round, from the primed model on.

    It ends early where a round finds nothing to learn from.

    Raises:
      NoSignalError: that is the first.
    """
    sampler = _sampler(bench)
    sampler = replace(sampler, settings=replace(sampler.settings, seed=seed))
    policy = primed_policy(bench, seed)
    problems = EndlessProblems(PROMPTS)
    found: list[float] = []
    for i in range(rounds):
        try:
            policy, row = _round(name, sampler, policy, next(problems), i, bench, seed)
        except NoSignalError as error:
            if not found:
                raise
            print(f"{name}, seed {seed}, after {i} rounds: {error}")
            break
        found.append(row["accuracy"])
    return found


def _round(
    name: str,
    sampler: RoundSampler,
    policy: TrainState,
    problems: Sequence[Toy],
    index: int,
    bench: Bench,
    seed: int,
) -> tuple[TrainState, Row]:
    if name in PREFERENCE:
        parts = _pair_parts(name, bench)
        state, row, _ = iterative_dpo_round(
            sampler, parts, policy, problems, round_index=index
        )
        return state, row
    tools = sampler, _fine_tuning(bench), bench.optimizer, policy
    if name == "rft":
        state, row, _ = rft_round(*tools, problems, round_index=index, epochs=2)
    else:
        base = primed_policy(bench, seed)
        state, row, _ = star_round(*tools, base, problems, round_index=index, epochs=8)
    return state, row


@cache
def _sampler(bench: Bench) -> RoundSampler:
    s = bench.settings
    settings = RoundSettings(
        prompts_per_call=s.prompts_per_step,
        group_size=s.group_size,
        prompt_width=s.prompt_width,
        max_new_tokens=s.max_new_tokens,
    )
    return build_round_sampler(
        Transformer(bench.model), bench.task, settings, one_device()
    )


@cache
def _pair_parts(name: str, bench: Bench) -> PreferenceParts:
    return build_preference(
        Transformer(bench.model),
        PREFERENCE[name],
        PAIRS,
        PAIRS_OPTIMIZER,
        one_device(),
    )


@cache
def _fine_tuning(bench: Bench) -> SupervisedParts:
    return build_supervised(
        Transformer(bench.model), bench.priming, bench.optimizer, one_device()
    )
