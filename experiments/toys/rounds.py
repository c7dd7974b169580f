"""The bench of `bench.py` in rounds: preference training, RFT and STaR.

    from experiments.toys.rounds import ROUNDS, run_rounds

    accuracies = run_rounds("irpo", seed=0, rounds=15)

A round samples, grades, trains with a fresh optimiser, and the next samples with what
came of it; the accuracy of a round is that of its samples.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType

from experiments.toys.bench import BENCH, Bench, one_device, primed_policy
from experiments.toys.tasks import EndlessProblems
from jaxrl_reason.models import Transformer
from jaxrl_reason.training.iterative import iterative_dpo_round, rft_round, star_round
from jaxrl_reason.training.preference import PreferenceParts, build_preference
from jaxrl_reason.training.preference_batch import PreferenceSettings
from jaxrl_reason.training.preference_methods import (
    PreferenceMethod,
    dpo,
    ipo,
    irpo,
    nca,
    orpo,
    robust_dpo,
    simpo,
)
from jaxrl_reason.training.sample_rounds import (
    RoundSampler,
    RoundSettings,
    build_round_sampler,
)
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


def run_rounds(
    name: str, seed: int, *, rounds: int, bench: Bench = BENCH
) -> list[float]:
    """Accuracy of the samples of each round, from the primed model on.

    Raises:
      NoSignalError: a round has nothing to learn from.
    """
    sampler = _sampler(bench)
    sampler = replace(sampler, settings=replace(sampler.settings, seed=seed))
    policy = base = primed_policy(bench, seed)
    problems = EndlessProblems(PROMPTS)
    found = []
    for i in range(rounds):
        batch = next(problems)
        if name in PREFERENCE:
            policy, row, _ = iterative_dpo_round(
                sampler, _pair_parts(name, bench), policy, batch, round_index=i
            )
        elif name == "rft":
            policy, row, _ = rft_round(
                sampler,
                _fine_tuning(bench),
                bench.optimizer,
                policy,
                batch,
                round_index=i,
                epochs=2,
            )
        else:
            policy, row, _ = star_round(
                sampler,
                _fine_tuning(bench),
                bench.optimizer,
                policy,
                base,
                batch,
                round_index=i,
                epochs=8,
            )
        found.append(row["accuracy"])
    return found


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
        bench.optimizer,
        one_device(),
    )


@cache
def _fine_tuning(bench: Bench) -> SupervisedParts:
    return build_supervised(
        Transformer(bench.model), bench.priming, bench.optimizer, one_device()
    )
