"""Our side of the step comparisons."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks import peers
from experiments.benchmarks.step_work import (
    CLIP_HIGH,
    CLIP_LOW,
    QUESTIONS,
    Ours,
    Step,
    Work,
    batches,
)
from jaxrl_reason.learner.state import OptimizerSettings, init_state
from jaxrl_reason.models import Transformer
from jaxrl_reason.rl.iteration import rl_iteration
from jaxrl_reason.rl.recipes.dapo import DapoSettings, dapo
from jaxrl_reason.rl.rl_learner import build_rl_learner, init_rl_state
from jaxrl_reason.rl.rl_settings import RLSettings
from jaxrl_reason.runs.metrics_log import PhaseTimer
from jaxrl_reason.sampler import (
    BatchSettings,
    SamplingSettings,
    make_batch_sampler,
    sampling_keys,
)
from jaxrl_reason.sharding import BatchSharding, ShardingRules, make_mesh


def serve_ours(pipe: Any, work: Work, setting: Ours) -> None:
    """`rl_iteration` for each request."""
    learner, state = build_ours(work, setting)
    problems, timer = batches(work), PhaseTimer()
    while pipe.recv() is not None:
        start, cpu = time.perf_counter(), time.process_time()
        state, _, collected = rl_iteration(learner, state, problems, timer)
        jax.block_until_ready(state.policy.params)
        found = collected.rollouts
        pipe.send(
            Step(
                seconds=time.perf_counter() - start,
                cpu_seconds=time.process_time() - cpu,
                phases={
                    k.removeprefix("time/").removesuffix("_s"): s
                    for k, s in timer.take().items()
                },
                responses=found.lengths.size,
                tokens=int(np.sum(found.lengths)),
                correct=int(np.sum(found.correct)),
            )
        )


def build_ours(work: Work, setting: Ours) -> tuple[Any, Any]:
    """The compiled pieces and the state of step 0."""
    mesh, rules = make_mesh(data=1, devices=jax.devices()[:1]), ShardingRules()
    loaded = peers.load_ours(
        work.folder,
        mesh=mesh,
        rules=rules,
        dtype=setting.dtype,
        matmul_dtype=setting.matmuls,
        remat=setting.remat,
    )
    model = Transformer(loaded.config, constrain=rules.constrainer(mesh))
    task = peers.load_task(work.folder, work.instruction)
    longest = max(len(task.prompt_tokens(q)) for q in peers.questions(QUESTIONS))
    width = -(-longest // 16) * 16
    method = dapo(
        DapoSettings(CLIP_LOW, CLIP_HIGH, dynamic_sampling=False, soft_overlong=False),
        max_new_tokens=work.max_new_tokens,
    )
    sample = our_sampler(work, setting, model, task.eos_token_ids, width)
    if sample is not None:  # what it compiles on the way would count
        keys = sampling_keys(0, 0, jnp.arange(work.prompts), work.samples)
        sample.warm_up(loaded.params, keys)
    learner = build_rl_learner(
        model,
        task,
        method,
        RLSettings(
            prompts_per_step=work.prompts,
            group_size=work.samples,
            updates_per_rollout=1,
            prompt_width=width,
            max_new_tokens=work.max_new_tokens,
            rows_per_micro_batch=setting.rows,
            row_width=setting.row_width,
            slots_per_row=16,
            # Both samplers multiply as the trainer does; trl makes no pass either.
            old_logprobs="sampler",
        ),
        OptimizerSettings(learning_rate=work.learning_rate),
        BatchSharding(mesh, rules),
        sample=sample,
    )
    # The run's optimiser is made by init_rl_state; an empty one stands in until then.
    return learner, init_rl_state(learner, init_state(loaded.params, optax.identity()))


def our_sampler(
    work: Work, setting: Ours, model: Any, ends: tuple[int, ...], width: int
) -> Any:
    """The batch sampler, or None for the plain one."""
    if setting.sampler == "plain":
        return None
    slots = work.prompts * work.samples
    # A program for each count: finer steps and a growing cache gain nothing at this
    # size and cost 60 MB a program.
    fewer = {slots * n // 4 for n in (1, 2, 3)} - {0}
    batch = BatchSettings(slots, (width,), shrink_to=tuple(sorted(fewer, reverse=True)))
    settings = SamplingSettings(work.max_new_tokens, ends)
    return make_batch_sampler(model, settings, work.samples, batch)
