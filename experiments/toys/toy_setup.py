"""A setup for methods: a tiny model, a toy task, the real loop, seconds per run.

    from experiments.toys.toy_setup import SETUP, run_method
    from jaxrl_reason.rl.recipes.grpo import grpo

    method = grpo(kl_coef=0)  # or your own Method(name="mine", loss=my_loss, ...)
    for seed in (0, 1, 2):
        rows = run_method(method, seed, steps=30)
        print(rows[0]["reward/accuracy"], rows[-1]["reward/accuracy"])

A row is what the loop logs in one step. For another task or other sizes,
`dataclasses.replace` the setup. The seeds of one method object share what it compiles
(two calls of `grpo` are two objects); all methods of a setup share sampler and scorer.

A seed fixes the first parameters, the traces that they learn from, and the samples, and
two methods with the same seed start from the same fine-tuned model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import jax
import numpy as np

from experiments.toys.toy_tasks import CountDown, EndlessProblems, Toy, ToyTask
from jaxrl_reason.learner.sft import (
    SFTLearner,
    SFTSettings,
    build_sft_learner,
    sft_update,
)
from jaxrl_reason.learner.state import OptimizerSettings, TrainState, init_state
from jaxrl_reason.models import (
    Transformer,
    TransformerConfig,
    abstract_params,
    param_axes,
)
from jaxrl_reason.rl.iteration import rl_iteration
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.rl_learner import RLLearner, build_rl_learner, init_rl_state
from jaxrl_reason.rl.rl_settings import RLSettings
from jaxrl_reason.runs.metrics_log import PhaseTimer, Row
from jaxrl_reason.sharding import (
    BatchSharding,
    ShardingRules,
    make_mesh,
    tree_shardings,
)
from jaxrl_reason.sharding.processes import put


@dataclass(frozen=True)
class ToySetup:
    """What a method is tried on; frozen, so that compiled pieces are found again.

    Attributes:
      task: gives problems, grades, and traces to learn from.
      model: the transformer.
      settings: of the RL loop; the seed of the run replaces theirs, and their number of
        steps is not used.
      optimizer: of the policy, which starts anew after it.
      sft: supervised updates on the task's traces.
      sft_optimizer: of these.
      critic_optimizer: of a critic, None for that of the policy.
    """

    task: ToyTask
    model: TransformerConfig
    settings: RLSettings
    optimizer: OptimizerSettings
    sft: SFTSettings
    sft_optimizer: OptimizerSettings
    critic_optimizer: OptimizerSettings | None = None


SETUP = ToySetup(
    task=CountDown(),
    model=TransformerConfig(
        vocab_size=12,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        num_kv_heads=2,
        head_dim=8,
        mlp_dim=32,
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
    sft=SFTSettings(
        updates=150,
        examples_per_update=16,
        row_width=64,
        max_response=15,
    ),
    sft_optimizer=OptimizerSettings(learning_rate=1e-2),
)


def run_method(
    method: Method,
    seed: int,
    *,
    steps: int,
    setup: ToySetup = SETUP,
    learner: RLLearner | None = None,
    until: Callable[[Sequence[Row]], bool] | None = None,
) -> list[Row]:
    """One run of the real loop from the fine-tuned model; the rows of its steps.

    Args:
      method: what is tried.
      seed: of the parameters, the fine-tuning and the samples.
      steps: RL steps.
      setup: task, model and settings.
      learner: of `method_learner`, if it is called anyway; built here else, and found
        again for the next seed.
      until: of the rows so far; stops the run once it is true.

    Returns:
      The loop's metrics of each step, with the step's number, from 1, and the tokens
      sampled up to it.

    Raises:
      NoSignalError: dynamic sampling did not fill a batch (a task learned to the end
        gives no more signal: stop before, with `until`).
    """
    learner = learner or method_learner(method, setup)
    learner = replace(learner, settings=replace(learner.settings, seed=seed))
    state = init_rl_state(learner, sft_policy(setup, seed))
    problems = EndlessProblems(setup.settings.prompts_per_step)
    rows: list[Row] = []
    for step in range(1, steps + 1):
        state, row, _ = rl_iteration(learner, state, problems, PhaseTimer())
        row["rollout/tokens_so_far"] = sampled_tokens(row, setup) + (
            rows[-1]["rollout/tokens_so_far"] if rows else 0.0
        )
        rows.append({"step": step, **row})
        if until is not None and until(rows):
            break
    return rows


def sampled_tokens(row: Row, setup: ToySetup) -> float:
    """Response tokens of a step, those of groups that were filtered out included."""
    return (
        row["groups/sampled"] * setup.settings.group_size * row["rollout/length_mean"]
    )


@cache
def method_learner(method: Method, setup: ToySetup = SETUP) -> RLLearner:
    """The setup's learner; the sampler and the scorer are the same for all."""
    learner = build_rl_learner(
        Transformer(setup.model),
        setup.task,
        method,
        setup.settings,
        setup.optimizer,
        one_device(),
        setup.critic_optimizer,
    )
    no_critic = replace(
        setup.settings,
        critic_updates_per_rollout=0,
        value_pretraining_steps=0,
        bootstrap_truncated=False,
    )
    shared = _sampler_and_scorer(setup.model, no_critic, setup.task.eos_token_ids)
    return replace(learner, sample=shared.sample, score=shared.score)


@cache
def _sampler_and_scorer(
    model: TransformerConfig, settings: RLSettings, eos_token_ids: tuple[int, ...]
) -> RLLearner:
    """Parts of any method and task: these two depend on neither."""
    return build_rl_learner(
        Transformer(model),
        CountDown(eos_token_ids=eos_token_ids),
        grpo(kl_coef=0),
        settings,
        OptimizerSettings(),
        one_device(),
    )


def sft_policy(setup: ToySetup, seed: int) -> TrainState:
    """The model after supervision on the task's traces; `init_rl_state` copies it.

    The RL settings do not matter to it, so that setups with others share it.
    """
    return _fine_tuned(setup.task, setup.model, setup.sft, setup.sft_optimizer, seed)


@cache
def _fine_tuned(
    task: ToyTask,
    model: TransformerConfig,
    settings: SFTSettings,
    optimizer: OptimizerSettings,
    seed: int,
) -> TrainState:
    learner = _sft_learner(model, settings, optimizer)
    state = init_state(random_params(model, seed), optimizer.build())
    rng = np.random.default_rng((seed, 1))
    for _ in range(settings.updates):
        numbers = rng.integers(2**31, size=settings.examples_per_update)
        problems = [Toy(int(n)) for n in numbers]
        examples = [(task.prompt_tokens(p), task.trace(p, rng)) for p in problems]
        state, _, _ = sft_update(learner, state, examples)
    return state


@cache
def _sft_learner(
    model: TransformerConfig,
    settings: SFTSettings,
    optimizer: OptimizerSettings,
) -> SFTLearner:
    return build_sft_learner(Transformer(model), settings, optimizer, one_device())


def random_params(
    config: TransformerConfig, seed: int, batch_sharding: BatchSharding | None = None
) -> Any:
    """First parameters, drawn by NumPy: `init_params` takes seconds to compile.

    Args:
      config: of the model.
      seed: of the draws.
      batch_sharding: the mesh they live on; one device if None.

    Returns:
      The parameters.
    """
    rng = np.random.default_rng(seed)
    model, batch_sharding = Transformer(config), batch_sharding or one_device()
    shapes = abstract_params(model)

    def draw(path: Any, x: Any) -> np.ndarray:
        if "scale" in path[-1].key:  # of a norm
            return np.ones(x.shape, np.float32)
        return 0.2 * rng.standard_normal(x.shape, np.float32)

    params = jax.tree_util.tree_map_with_path(draw, shapes)
    axes = param_axes(model)
    mesh, rules = batch_sharding.mesh, batch_sharding.rules
    return jax.tree.map(put, params, tree_shardings(mesh, rules, axes, shapes))


@cache
def one_device() -> BatchSharding:
    """A mesh of the first device."""
    return BatchSharding(make_mesh(devices=jax.devices()[:1]), ShardingRules())


def tiny(setup: ToySetup = SETUP) -> ToySetup:
    """A setup of few and short updates, for a test of a script."""
    return replace(
        setup,
        sft=replace(setup.sft, updates=40, examples_per_update=8),
        settings=replace(
            setup.settings, prompts_per_step=3, group_size=4, max_rounds=40
        ),
    )
