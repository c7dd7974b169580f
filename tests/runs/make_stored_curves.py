"""Makes stored_curves.json: accuracies over the steps of real, short runs.

Run from the repository's root, for about a quarter of an hour:

    python -m tests.runs.make_stored_curves

A curve is a run of the real loop on a toy (experiments/toys/): the accuracy of samples
to a fixed set of problems, before the first step and after every few steps, and the
response tokens that training had sampled by then. The runs were chosen for variety
before any was looked at: fast and slow ones, six methods, several tasks, a reward that
knows nothing, and rates at which learning is not smooth. The method of the forecast and
its drift were chosen on the runs of `CHOSEN_ON`; those of `LATER`, with other seeds,
were made after that.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.toys.toy_arms import LOST, coin_rewards
from experiments.toys.toy_setup import (
    SETUP,
    ToySetup,
    method_learner,
    one_device,
    sampled_tokens,
    sft_policy,
)
from experiments.toys.toy_tasks import CountDown, EndlessProblems, Toy
from jaxrl_reason.models import Transformer
from jaxrl_reason.rl.collect import NoSignalError
from jaxrl_reason.rl.heldout import HeldoutEvaluation, build_heldout_evaluation
from jaxrl_reason.rl.iteration import rl_iteration
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.recipes import RECIPES
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.rl_learner import init_rl_state
from jaxrl_reason.runs.metrics_log import PhaseTimer

FILE = Path(__file__).with_name("stored_curves.json")
PROBLEMS, SAMPLES = 18, 16  # of an evaluation
EVALUATIONS = 30


def with_rate(setup: ToySetup, rate: float) -> ToySetup:
    return replace(setup, optimizer=replace(setup.optimizer, learning_rate=rate))


SLOPPY = replace(SETUP, task=CountDown(sloppiness=0.5, name="sloppy_count_down"))
SETUPS = {
    "count down": SETUP,
    "count down, slow": with_rate(SETUP, 5e-4),
    "count down, fast": with_rate(SETUP, 1e-2),
    "sloppy": with_rate(SLOPPY, 2e-3),
    "sloppy, small groups": replace(
        with_rate(SLOPPY, 2e-3), settings=replace(SETUP.settings, group_size=4)
    ),
    "strides": replace(SETUP, task=CountDown(max_step=3, sloppiness=0.6)),
    "loses the thread": LOST,
}
METHODS = {
    "grpo": lambda limit: grpo(kl_coef=0),
    "coin": lambda limit: replace(grpo(kl_coef=0), rewards=coin_rewards, name="coin"),
    **{
        name: RECIPES[name].build
        for name in ("dr_grpo", "gspo", "rloo", "cispo", "reinforce_pp")
    },
}


@dataclass(frozen=True)
class Kind:
    """Runs that differ in their seed: setup, method, seeds, steps to an evaluation."""

    setup: str
    method: str
    seeds: tuple[int, ...]
    every: int = 2


CHOSEN_ON = (
    Kind("count down", "grpo", (0, 1, 2)),
    Kind("count down", "gspo", (0, 1)),
    Kind("count down", "reinforce_pp", (0, 1)),
    Kind("count down, slow", "grpo", (0, 1), 4),
    Kind("count down, slow", "cispo", (0, 1), 4),
    Kind("count down, fast", "grpo", (0, 1), 1),
    Kind("sloppy", "grpo", (0, 1)),
    Kind("sloppy", "rloo", (0, 1)),
    Kind("loses the thread", "grpo", (0, 1)),
    Kind("loses the thread", "dr_grpo", (0, 1)),
    Kind("count down", "coin", (0, 1)),
)
LATER = (
    Kind("count down", "cispo", (3, 4)),
    Kind("count down, slow", "reinforce_pp", (3, 4), 4),
    Kind("count down, fast", "gspo", (3, 4), 1),
    Kind("sloppy", "dr_grpo", (3, 4)),
    Kind("sloppy, small groups", "grpo", (3, 4)),
    Kind("strides", "grpo", (3, 4)),
    Kind("loses the thread", "rloo", (3, 4)),
    Kind("count down", "coin", (3, 4)),
)


def evaluation(setup: ToySetup) -> HeldoutEvaluation:
    limit = setup.settings.max_new_tokens
    return build_heldout_evaluation(
        Transformer(setup.model),
        setup.task,
        [Toy(i) for i in range(PROBLEMS)],
        num_samples=SAMPLES,
        temperature=1.0,
        max_new_tokens=limit,
        prompt_width=setup.settings.prompt_width,
        batch_size=PROBLEMS * SAMPLES,
        seed=0,
        batch_sharding=one_device(),
    )


def curve(
    setup: ToySetup,
    method: Method,
    heldout: HeldoutEvaluation,
    seed: int,
    steps: int,
    every: int,
) -> Iterator[tuple[int, float, float]]:
    """(step, tokens sampled so far, accuracy); it ends where no signal is left."""
    learner = method_learner(method, setup)
    learner = replace(learner, settings=replace(learner.settings, seed=seed))
    state = init_rl_state(learner, sft_policy(setup, seed))
    problems = EndlessProblems(setup.settings.prompts_per_step)
    tokens = 0.0
    yield 0, tokens, heldout.accuracy(state.policy.params)
    for step in range(1, steps + 1):
        try:
            state, row, _ = rl_iteration(learner, state, problems, PhaseTimer())
        except NoSignalError:
            return
        tokens += sampled_tokens(row, setup)
        if step % every == 0:
            yield step, tokens, heldout.accuracy(state.policy.params)


def curves_of(kind: Kind) -> Iterator[dict[str, Any]]:
    setup = SETUPS[kind.setup]
    method = METHODS[kind.method](setup.settings.max_new_tokens)
    heldout = evaluation(setup)
    for seed in kind.seeds:
        run = curve(setup, method, heldout, seed, kind.every * EVALUATIONS, kind.every)
        steps, tokens, accuracies = np.array(list(run)).T
        yield {
            "name": f"{kind.method}, {kind.setup}, seed {seed}",
            "samples": PROBLEMS * SAMPLES,
            "steps": steps.astype(int).tolist(),
            "tokens": tokens.round().astype(int).tolist(),
            "accuracy": accuracies.round(4).tolist(),
        }


def main() -> None:
    found = []
    for kind in (*CHOSEN_ON, *LATER):
        for one in curves_of(kind):
            found.append({**one, "later": kind in LATER})
            print(one["name"], one["accuracy"][::5], flush=True)
    lines = ",\n".join(json.dumps(one) for one in found)
    FILE.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
