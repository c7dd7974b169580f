"""Every mesh of virtual devices against one device: tokens, losses, gradient norms.

    python experiments/conformance/meshes.py
    python experiments/conformance/meshes.py --kinds dapo ppo --meshes fsdp=2,tensor=2

One device runs some RL steps. Then each mesh runs the same steps; each of its updates
starts from the state that one device had, since rounding alone makes two trajectories
part. Its tokens must be the same, its metrics within 1e-5 (relative, above 1e-5), and
its last state, restored from a checkpoint of one device, equal to the bit.
"""

import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
)
os.environ["JAX_CPU_ENABLE_ASYNC_DISPATCH"] = "false"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
import tyro

# Run as a script, this file's folder is on the path, not the one two above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from experiments.toys.toy_setup import SETUP, random_params
from experiments.toys.toy_tasks import EndlessProblems
from jaxrl_reason.learner.state import abstract, init_state
from jaxrl_reason.models import LoraSettings, Transformer
from jaxrl_reason.rl.iteration import rl_iteration
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.recipes.dapo import DapoSettings, dapo
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.recipes.ppo import ppo
from jaxrl_reason.rl.rl_learner import (
    RLLearner,
    RLState,
    build_rl_learner,
    init_rl_state,
)
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.metrics_log import PhaseTimer, Row
from jaxrl_reason.sampler import BatchSettings, SamplingSettings, make_batch_sampler
from jaxrl_reason.sharding import BatchSharding, ShardingRules, parse_mesh

MODEL = replace(
    SETUP.model, num_heads=8, num_kv_heads=2, hidden_size=32, mlp_dim=64, head_dim=4
)
SETTINGS = replace(SETUP.settings, prompts_per_step=8, updates_per_rollout=2)
BOUND = 1e-5
MESHES = (
    "data=2",
    "fsdp=2",
    "tensor=2",
    "context=2",
    "fsdp=4",
    "tensor=4",
    "data=2,fsdp=2",
    "fsdp=2,tensor=2",
    "fsdp=2,context=2",
    "data=8",
    "fsdp=8",
    "tensor=8",
    "data=2,tensor=4",
    "data=2,fsdp=2,tensor=2",
    "fsdp=2,context=2,tensor=2",
)


@dataclass(frozen=True)
class Kind:
    """What a run consists of.

    Attributes:
      method: how it learns.
      slots: of a batch sampler; 0 for the plain one.
      lora: low-rank factors, if only these are trained.
      limits: the length limit of each stage, for a run in stages.
    """

    method: Callable[[], Method]
    slots: int = 0
    lora: LoraSettings | None = None
    limits: tuple[int, ...] = ()


def _plain() -> Method:
    settings = DapoSettings(dynamic_sampling=False, overlong_cache=4)
    return dapo(settings, max_new_tokens=SETTINGS.max_new_tokens)


KINDS = {
    "dapo": Kind(_plain),
    "slots": Kind(_plain, slots=16),
    "ppo": Kind(ppo),
    "grpo": Kind(lambda: grpo(kl_coef=0.05)),
    "lora": Kind(_plain, lora=LoraSettings(rank=4)),
    "stages": Kind(_plain, limits=(8, SETTINGS.max_new_tokens)),
}


@dataclass(frozen=True)
class Options:
    """What is compared.

    Attributes:
      kinds: of runs: dapo, slots (a batch sampler), ppo (a critic), grpo (a reference),
        lora and stages.
      meshes: sizes of their axes.
      steps: RL steps of each run.
    """

    kinds: tuple[str, ...] = tuple(KINDS)
    meshes: tuple[str, ...] = MESHES
    steps: int = 20


@dataclass(frozen=True)
class Ran:
    """One device's or a mesh's run: after each update its state, each step's rest."""

    states: dict[str, list[Any]]
    rows: list[Row]
    tokens: list[np.ndarray]
    last: RLState


def followed(update: Callable[..., Any], made: list[Any], led: list[Any] | None) -> Any:
    """An update that keeps its states in `made` and goes on from those of `led`."""

    def run(state: Any, *args: Any, **given: Any) -> Any:
        state, metrics = update(state, *args, **given)
        made.append(jax.tree.map(np.array, state))
        if led is not None:
            state = jax.tree.map(
                lambda x, y: jax.device_put(y, x.sharding), state, led[len(made) - 1]
            )
        return state, metrics

    return run


def run(kind: Kind, sizes: str, steps: int, leader: Ran | None) -> Ran:
    """Some RL steps on a mesh, in one stage or several."""
    mesh, rules = parse_mesh(sizes), ShardingRules()
    placed = BatchSharding(mesh, rules)
    model = Transformer(MODEL, constrain=rules.constrainer(mesh))
    states: dict[str, list[Any]] = {"policy": []}
    params = random_params(MODEL, 0, placed)
    policy = init_state(params, SETUP.optimizer.build())
    problems, rows, tokens = EndlessProblems(SETTINGS.prompts_per_step), [], []
    state: RLState | None = None
    stages = kind.limits or (SETTINGS.max_new_tokens,)
    for limit in stages:
        learner = learner_of(kind, model, placed, limit)
        learner = follow(learner, states, None if leader is None else leader.states)
        begun = init_rl_state(learner, policy)
        # As a stage begins: other shapes, the same policy and counters.
        state = begun if state is None else replace(state, surplus=None)
        for _ in range(steps // len(stages)):
            state, row, collected = rl_iteration(learner, state, problems, PhaseTimer())
            rows.append(row)
            tokens.append(collected.fresh.tokens)
    assert state is not None
    return Ran(states, rows, tokens, state)


def learner_of(
    kind: Kind, model: Transformer, placed: BatchSharding, limit: int
) -> RLLearner:
    """The compiled functions for one length limit."""
    settings = replace(SETTINGS, max_new_tokens=limit)
    sample: Any = None
    if kind.slots:
        sampling = SamplingSettings(limit, SETUP.task.eos_token_ids, temperature=1.0)
        batch = BatchSettings(kind.slots, (settings.prompt_width,))
        sample = make_batch_sampler(model, sampling, settings.group_size, batch)
    return build_rl_learner(
        model,
        SETUP.task,
        kind.method(),
        settings,
        SETUP.optimizer,
        placed,
        sample=sample,
        lora=kind.lora,
    )


def follow(
    learner: RLLearner, made: dict[str, list[Any]], led: dict[str, list[Any]] | None
) -> RLLearner:
    """The learner with every update of a model followed."""

    def wrapped(name: str, part: Any) -> Any:
        own = made.setdefault(name, [])
        update = followed(part.update, own, None if led is None else led[name])
        return replace(part, update=update)

    components = tuple(
        wrapped(c.name, c) if hasattr(c, "update") else c for c in learner.components
    )
    policy: RLLearner = wrapped("policy", learner)
    return replace(policy, components=components)


def differences(ran: Ran, leader: Ran) -> Iterator[tuple[str, float]]:
    """The largest relative distance of each metric."""
    for row, other in zip(ran.rows, leader.rows, strict=True):
        for name, value in other.items():
            if not name.startswith("time/"):
                yield name, abs(row[name] - value) / max(abs(value), 1.0)


def restores(ran: Ran, leader: Ran) -> bool:
    """Whether a checkpoint of one device is the same to the bit on the mesh."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = CheckpointFolder(Path(folder))
        checkpoints.save(1, {"policy": leader.last.policy})
        target = abstract({"policy": ran.last.policy})
        found = checkpoints.restore(target, {}, 1).state
        leaves = zip(
            jax.tree.leaves(found),
            jax.tree.leaves({"policy": leader.last.policy}),
            jax.tree.leaves({"policy": ran.last.policy}),
            strict=True,
        )
        return all(
            np.array_equal(x, y) and x.sharding.is_equivalent_to(z.sharding, x.ndim)
            for x, y, z in leaves
        )


def main(options: Options) -> int:
    """Runs all, prints a line for each; the number of those that differ."""
    wrong = 0
    for name, sizes in itertools.product(options.kinds, ("", *options.meshes)):
        if not sizes:
            leader = run(KINDS[name], sizes, options.steps, None)
            continue
        ran = run(KINDS[name], sizes, options.steps, leader)
        apart: dict[str, float] = {}
        for metric, distance in differences(ran, leader):
            apart[metric] = max(apart.get(metric, 0.0), distance)
        worst = max(apart, key=lambda metric: apart[metric])
        same = all(map(np.array_equal, ran.tokens, leader.tokens))
        bits = restores(ran, leader)
        right = same and bits and apart[worst] <= BOUND
        wrong += not right
        print(
            f"{name:6} {sizes:24} tokens {'same' if same else 'DIFFER'}, "
            f"norm {apart['policy/grad_norm']:.1e}, loss {apart['policy/loss']:.1e}, "
            f"worst {apart[worst]:.1e} ({worst}), restored "
            f"{'to the bit' if bits else 'OTHERWISE'}{'' if right else '  <--'}",
            flush=True,
        )
    return wrong


if __name__ == "__main__":
    raise SystemExit(min(1, main(tyro.cli(Options, description=__doc__))))
