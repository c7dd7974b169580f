"""A bench for methods: a tiny model, a toy task, the real loop, seconds a run.

    from experiments.toys.bench import BENCH, run_method
    from jaxrl_reason.training.methods import grpo

    method = grpo(kl_coef=0)  # or your own Method(name="mine", loss=my_loss, ...)
    for seed in (0, 1, 2):
        rows = run_method(method, seed, steps=30)
        print(rows[0]["accuracy"], rows[-1]["accuracy"])

A row is what the loop logs in one step. For another task or other sizes,
`dataclasses.replace` the bench. The seeds of one method object share what it compiles
(two calls of `grpo` are two objects); all methods of a bench share sampler and scorer.

A seed fixes the first parameters, the traces that prime them, and the samples, and two
methods with the same seed start from the same primed model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import jax
import numpy as np

from experiments.toys.tasks import CountDown, EndlessProblems, Toy, ToyTask
from jaxrl_reason.models import (
    Transformer,
    TransformerConfig,
    abstract_params,
    param_axes,
)
from jaxrl_reason.sharding import ShardingRules, make_mesh, tree_shardings
from jaxrl_reason.training.method import Method
from jaxrl_reason.training.methods import grpo
from jaxrl_reason.training.metrics import Row
from jaxrl_reason.training.minibatches import Placement
from jaxrl_reason.training.monitor import PhaseTimer
from jaxrl_reason.training.rl import rl_iteration
from jaxrl_reason.training.rl_parts import (
    RLParts,
    RLSettings,
    build_rl,
    start_rl,
)
from jaxrl_reason.training.state import OptimizerSettings, TrainState, placed_state
from jaxrl_reason.training.supervised import (
    SupervisedParts,
    SupervisedSettings,
    build_supervised,
    supervised_update,
)


@dataclass(frozen=True)
class Bench:
    """What a method is tried on; frozen, so that compiled pieces are found again.

    Attributes:
      task: gives problems, grades, and traces to prime from.
      model: the transformer.
      settings: of the RL loop; the seed of the run replaces theirs, and their number of
        steps is not used.
      optimizer: of the policy, which starts anew after priming.
      priming: supervised updates on the task's traces.
      priming_optimizer: of these.
      critic_optimizer: of a critic, None for that of the policy.
    """

    task: ToyTask
    model: TransformerConfig
    settings: RLSettings
    optimizer: OptimizerSettings
    priming: SupervisedSettings
    priming_optimizer: OptimizerSettings
    critic_optimizer: OptimizerSettings | None = None


BENCH = Bench(
    task=CountDown(),
    model=TransformerConfig(
        vocab_size=12,
        width=16,
        num_layers=2,
        num_heads=2,
        num_kv_heads=2,
        head_dim=8,
        mlp_width=32,
        context_length=24,
    ),
    settings=RLSettings(
        prompts_per_step=9,
        group_size=8,
        updates_per_rollout=3,
        prompt_width=1,
        max_new_tokens=15,
        rows_per_micro_batch=8,
        row_width=64,
        slots_per_row=8,
    ),
    optimizer=OptimizerSettings(learning_rate=3e-3),
    priming=SupervisedSettings(
        updates=150,
        examples_per_update=16,
        row_width=64,
        max_response=15,
    ),
    priming_optimizer=OptimizerSettings(learning_rate=1e-2),
)


def run_method(
    method: Method,
    seed: int,
    *,
    steps: int,
    bench: Bench = BENCH,
    parts: RLParts | None = None,
    until: Callable[[Sequence[Row]], bool] | None = None,
) -> list[Row]:
    """One run of the real loop from the primed model; the rows of its steps.

    Args:
      method: what is tried.
      seed: of the parameters, the priming and the samples.
      steps: RL steps.
      bench: task, model and settings.
      parts: of `method_parts`, if it is called anyway; built here otherwise, and found
        again for the next seed.
      until: of the rows so far; stops the run once it is true.

    Returns:
      The loop's metrics of each step, with the step's number, from 1, and the tokens
      sampled up to it.

    Raises:
      NoSignalError: dynamic sampling did not fill a batch (a task learned to the end
        gives no more signal: stop before, with `until`).
    """
    parts = parts or method_parts(method, bench)
    parts = replace(parts, settings=replace(parts.settings, seed=seed))
    state = start_rl(parts, primed_policy(bench, seed))
    problems = EndlessProblems(bench.settings.prompts_per_step)
    rows: list[Row] = []
    for step in range(1, steps + 1):
        state, row, _ = rl_iteration(parts, state, problems, PhaseTimer())
        row["tokens_sampled"] = sampled_tokens(row, bench) + (
            rows[-1]["tokens_sampled"] if rows else 0.0
        )
        rows.append({"step": step, **row})
        if until is not None and until(rows):
            break
    return rows


def sampled_tokens(row: Row, bench: Bench) -> float:
    """Response tokens of a step, those of groups that were filtered out included."""
    return row["groups_generated"] * bench.settings.group_size * row["length_mean"]


@cache
def method_parts(method: Method, bench: Bench = BENCH) -> RLParts:
    """`build_rl` for the bench; the sampler and the scorer are the same for all."""
    parts = build_rl(
        Transformer(bench.model),
        bench.task,
        method,
        bench.settings,
        bench.optimizer,
        one_device(),
        bench.critic_optimizer,
    )
    no_critic = replace(
        bench.settings, critic_updates_per_rollout=0, value_pretraining_steps=0
    )
    shared = _sampler_and_scorer(bench.model, no_critic, bench.task.end_tokens)
    return replace(parts, sample=shared.sample, score=shared.score)


@cache
def _sampler_and_scorer(
    model: TransformerConfig, settings: RLSettings, end_tokens: tuple[int, ...]
) -> RLParts:
    """Parts of any method and task: these two depend on neither."""
    return build_rl(
        Transformer(model),
        CountDown(end_tokens=end_tokens),
        grpo(kl_coef=0),
        settings,
        OptimizerSettings(),
        one_device(),
    )


def primed_policy(bench: Bench, seed: int) -> TrainState:
    """The model after supervision on the task's traces. Safe to share: see `start_rl`.

    The RL settings do not matter to it, so that benches with others share it.
    """
    return _primed(
        bench.task, bench.model, bench.priming, bench.priming_optimizer, seed
    )


@cache
def _primed(
    task: ToyTask,
    model: TransformerConfig,
    settings: SupervisedSettings,
    optimizer: OptimizerSettings,
    seed: int,
) -> TrainState:
    parts = _priming_parts(model, settings, optimizer)
    state = placed_state(random_params(model, seed), optimizer.build())
    rng = np.random.default_rng((seed, 1))
    for _ in range(settings.updates):
        numbers = rng.integers(2**31, size=settings.examples_per_update)
        problems = [Toy(int(n)) for n in numbers]
        examples = [(task.prompt_tokens(p), task.trace(p, rng)) for p in problems]
        state, _, _ = supervised_update(parts, state, examples)
    return state


@cache
def _priming_parts(
    model: TransformerConfig,
    settings: SupervisedSettings,
    optimizer: OptimizerSettings,
) -> SupervisedParts:
    return build_supervised(Transformer(model), settings, optimizer, one_device())


def random_params(config: TransformerConfig, seed: int) -> Any:
    """First parameters, drawn by NumPy: `init_params` takes seconds to compile."""
    rng = np.random.default_rng(seed)
    model, place = Transformer(config), one_device()
    shapes = abstract_params(model)

    def draw(path: Any, x: Any) -> np.ndarray:
        if "scale" in path[-1].key:  # of a norm
            return np.ones(x.shape, np.float32)
        return 0.2 * rng.standard_normal(x.shape, np.float32)

    params = jax.tree_util.tree_map_with_path(draw, shapes)
    axes = param_axes(model)
    return jax.device_put(params, tree_shardings(place.mesh, place.rules, axes, shapes))


@cache
def one_device() -> Placement:
    """A mesh of the first device."""
    return Placement(make_mesh(devices=jax.devices()[:1]), ShardingRules())


def tiny(bench: Bench = BENCH) -> Bench:
    """A bench of few and short updates, for a test of a script."""
    return replace(
        bench,
        priming=replace(bench.priming, updates=40, examples_per_update=8),
        settings=replace(
            bench.settings, prompts_per_step=3, group_size=4, max_rounds=40
        ),
    )
