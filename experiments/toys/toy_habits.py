"""Countdown for the claim on habits: a base model tuned in a style, then RL.

    rows = run_habits(habits, seed=0, steps=12, folder=Path("runs/habits"))

The first row, of step 0, is the held-out evaluation before RL. Rows of evaluated steps
have `heldout/...`: the accuracy and the behaviours of greedy answers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import jax
import numpy as np

from experiments.toys.toy_habit_traces import base_response
from experiments.toys.toy_setup import one_device, random_params
from jaxrl_reason.data.pipeline import ProblemStream
from jaxrl_reason.learner.sft import (
    SFTLearner,
    SFTSettings,
    build_sft_learner,
    sft_update,
)
from jaxrl_reason.learner.state import OptimizerSettings, TrainState, init_state
from jaxrl_reason.models import Transformer, TransformerConfig
from jaxrl_reason.rl.heldout import HeldoutEvaluation, build_heldout_evaluation
from jaxrl_reason.rl.iteration import rl_iteration
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.rl_learner import RLLearner, build_rl_learner, init_rl_state
from jaxrl_reason.rl.rl_settings import RLSettings
from jaxrl_reason.rl.task_metrics import task_metrics
from jaxrl_reason.runs.metrics_log import PhaseTimer, Row
from jaxrl_reason.tasks.countdown import (
    CountdownSettings,
    CountdownTask,
    Problem,
    generate_problems,
)
from jaxrl_reason.tasks.countdown_behaviours import GOAL
from jaxrl_reason.tasks.countdown_traces import TraceSettings

# (problem, rng, settings) -> a response.
Style = Callable[[Problem, np.random.Generator, TraceSettings], str]


@dataclass(frozen=True)
class HabitSetup:
    """What the arms of a seed share; frozen, so that compiled pieces are found again.

    Attributes:
      puzzles: which there are; the arms are measured on the test split.
      traces: how styles search.
      model: the transformer.
      rl: sizes of RL.
      optimizer: of RL.
      base: updates of the model that all arms start from.
      tuned: updates in an arm's style.
      base_optimizer: of the former.
      tuned_optimizer: of the latter.
      heldout: problems that are measured.
      every: steps between evaluations.
      split: that the problems are of.
    """

    puzzles: CountdownSettings
    traces: TraceSettings
    model: TransformerConfig
    rl: RLSettings
    optimizer: OptimizerSettings
    base: SFTSettings
    tuned: SFTSettings
    base_optimizer: OptimizerSettings
    tuned_optimizer: OptimizerSettings
    heldout: int = 256
    every: int = 5
    split: str = "test"


LIMIT = 104
PUZZLES = CountdownSettings(
    max_number=8,
    max_value=15,
    validation_fraction=0.2,
    test_fraction=0.25,
    hold_out="pairs",
)
HABITS = HabitSetup(
    puzzles=PUZZLES,
    traces=TraceSettings((0.65, 0.0, 0.0, 0.0, 0.35), random_tries=0.1, max_value=15),
    model=TransformerConfig(
        vocab_size=CountdownTask.with_symbols(PUZZLES, [GOAL]).tokenizer.vocab_size,
        hidden_size=96,
        num_layers=3,
        num_heads=3,
        num_kv_heads=3,
        head_dim=32,
        mlp_dim=288,
        context_length=LIMIT + 8,
        scan_unroll=3,
    ),
    rl=RLSettings(
        prompts_per_step=16,
        group_size=16,
        updates_per_rollout=4,
        prompt_width=6,
        max_new_tokens=LIMIT,
        rows_per_micro_batch=4,
        row_width=224,
        slots_per_row=8,
    ),
    optimizer=OptimizerSettings(learning_rate=2e-4),
    base=SFTSettings(
        updates=1500, examples_per_update=32, row_width=112, max_response=LIMIT
    ),
    tuned=SFTSettings(
        updates=300, examples_per_update=32, row_width=112, max_response=LIMIT
    ),
    base_optimizer=OptimizerSettings(
        learning_rate=3e-3, warmup_updates=50, decay_updates=1500
    ),
    tuned_optimizer=OptimizerSettings(
        learning_rate=1e-3, warmup_updates=20, decay_updates=300
    ),
)


def run_habits(
    style: Style,
    method: Method,
    seed: int,
    steps: int,
    folder: Path | None = None,
    setup: HabitSetup = HABITS,
) -> list[Row]:
    """An arm: the seed's base model, tuned in a style, trained by a method.

    Args:
      style: of the traces.
      method: of RL.
      seed: of everything.
      steps: of RL.
      folder: where the seed's base model is kept for its other arms.
      setup: sizes.

    Returns:
      The rows of steps 0 to `steps`.
    """
    task, heldout = task_of(setup.puzzles), evaluation(setup)
    learner = rl_learner(method, setup)
    learner = replace(learner, settings=replace(learner.settings, seed=seed))
    base = base_params(setup, seed, folder)
    state = init_rl_state(learner, fine_tune(setup, base, style, seed))
    problems = list(generate_problems(setup.puzzles)["train"])
    by_id = {p.problem_id: p for p in problems}
    stream = ProblemStream(problems, batch_size=setup.rl.prompts_per_step, seed=seed)
    rows = [{"step": 0, **heldout_row(heldout, state.policy.params)}]
    for step in range(1, steps + 1):
        state, row, found = rl_iteration(learner, state, stream, PhaseTimer())
        metrics = task_metrics(task, by_id, found.fresh)
        row |= {f"task/{name}": x for name, x in metrics.items()}
        if step % setup.every == 0 or step == steps:
            row |= heldout_row(heldout, state.policy.params)
        rows.append({"step": step, **row})
    return rows


def heldout_row(heldout: HeldoutEvaluation, params: object) -> Row:
    """Accuracy, length and behaviours of greedy answers."""
    responses = heldout.run(params)
    by_id = {p.problem_id: p for p in heldout.problems}
    found = {
        "accuracy": float(responses.correct.mean()),
        "length": float(responses.lengths.mean()),
        **task_metrics(heldout.task, by_id, responses),
    }
    return {f"heldout/{name}": x for name, x in found.items()}


def base_params(setup: HabitSetup, seed: int, folder: Path | None) -> dict:
    """The parameters of a seed's base model, from the folder if they are there."""
    file = None if folder is None else folder / f"base-seed{seed}.npz"
    params = random_params(setup.model, seed)
    if file is None or not file.is_file():
        learner = sft_learner(setup.model, setup.base, setup.base_optimizer)
        state = init_state(params, setup.base_optimizer.build())
        params = train(learner, state, setup, base_response, (seed, 1)).params
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(f".{np.random.default_rng().integers(2**31)}.npz")
            np.savez(part, *map(np.asarray, jax.tree.leaves(params)))
            part.replace(file)
        return params
    with np.load(file) as saved:
        leaves = [saved[name] for name in saved.files]
    like = jax.tree.leaves(params)
    placed = [jax.device_put(x, y.sharding) for x, y in zip(leaves, like, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(params), placed)


def fine_tune(setup: HabitSetup, params: dict, style: Style, seed: int) -> TrainState:
    """The base model after further updates on traces in a style."""
    learner = sft_learner(setup.model, setup.tuned, setup.tuned_optimizer)
    params = jax.tree.map(jax.numpy.copy, params)  # updates donate them
    state = init_state(params, setup.tuned_optimizer.build())
    return train(learner, state, setup, style, (seed, 2))


def train(
    learner: SFTLearner,
    state: TrainState,
    setup: HabitSetup,
    style: Style,
    seed: tuple[int, int],
) -> TrainState:
    """All updates of a learner on new traces, each puzzle's numbers in any order."""
    task, problems = task_of(setup.puzzles), generate_problems(setup.puzzles)["train"]
    rng = np.random.default_rng(seed)
    for _ in range(learner.settings.updates):
        drawn = rng.integers(len(problems), size=learner.settings.examples_per_update)
        examples = []
        for index in drawn.tolist():
            one = problems[index]
            one = replace(one, numbers=tuple(rng.permutation(one.numbers).tolist()))
            response = task.tokenizer.encode(style(one, rng, setup.traces))
            examples.append((task.prompt_tokens(one), response))
        state, _, _ = sft_update(learner, state, examples)
    return state


@cache
def task_of(puzzles: CountdownSettings) -> CountdownTask:
    """The task, with the word for goals."""
    return CountdownTask.with_symbols(puzzles, [GOAL])


@cache
def sft_learner(
    model: TransformerConfig, settings: SFTSettings, optimizer: OptimizerSettings
) -> SFTLearner:
    """The compiled update of fine-tuning."""
    return build_sft_learner(Transformer(model), settings, optimizer, one_device())


@cache
def rl_learner(method: Method, setup: HabitSetup) -> RLLearner:
    """The compiled functions of RL."""
    return build_rl_learner(
        Transformer(setup.model),
        task_of(setup.puzzles),
        method,
        setup.rl,
        setup.optimizer,
        one_device(),
    )


@cache
def evaluation(setup: HabitSetup) -> HeldoutEvaluation:
    """Greedy answers to problems of the split, evenly spaced."""
    problems = generate_problems(setup.puzzles)[setup.split]
    chosen = np.linspace(0, len(problems) - 1, min(setup.heldout, len(problems)))
    return build_heldout_evaluation(
        Transformer(setup.model),
        task_of(setup.puzzles),
        [problems[int(i)] for i in chosen],
        num_samples=1,
        temperature=0.0,
        max_new_tokens=setup.rl.max_new_tokens,
        prompt_width=setup.rl.prompt_width,
        batch_size=setup.heldout,
        seed=0,
        batch_sharding=one_device(),
    )


def tiny(setup: HabitSetup = HABITS) -> HabitSetup:
    """A setup of a few short updates, for a test of a script."""
    return replace(
        setup,
        model=replace(
            setup.model,
            hidden_size=16,
            num_layers=1,
            num_heads=1,
            num_kv_heads=1,
            head_dim=16,
            mlp_dim=32,
        ),
        rl=replace(setup.rl, prompts_per_step=2, group_size=2, updates_per_rollout=1),
        base=replace(setup.base, updates=1, examples_per_update=4),
        tuned=replace(setup.tuned, updates=1, examples_per_update=4),
        heldout=4,
    )
