"""A toy task, a tiny model and the compiled pieces that the tests of training share."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import numpy as np
import optax

from experiments.toys import toy_setup
from experiments.toys.toy_setup import one_device
from experiments.toys.toy_tasks import EndlessProblems, Toy
from jaxrl_reason.learner.packing import Packing, TrainBatch
from jaxrl_reason.learner.state import OptimizerSettings, TrainState, init_state
from jaxrl_reason.models import Transformer, TransformerConfig
from jaxrl_reason.rl.iteration import rl_iteration
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.recipes.dapo import DapoSettings, dapo
from jaxrl_reason.rl.rl_learner import (
    RLLearner,
    RLState,
    build_rl_learner,
    init_rl_state,
)
from jaxrl_reason.rl.rl_settings import RLSettings
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.metrics_log import PhaseTimer, Row, finish_metrics
from jaxrl_reason.sharding import BatchSharding
from jaxrl_reason.tasks.task import Graded, Step

VOCAB = 12
ENDS = (1, 2)
LUCKY = (7, 8, 9)


class NumberTokenizer:
    """Token n is the text of n; 0 pads, 1 ends."""

    vocab_size, pad_token_id, eos_token_id = VOCAB, 0, 1

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


@dataclass(frozen=True)
class LuckyTask:
    """Right is a response that starts with a lucky token and ends by itself.

    A model that knows nothing is right one time in six; there are two EOS tokens.
    """

    name: str = "lucky"
    tokenizer: NumberTokenizer = dataclasses.field(default_factory=NumberTokenizer)
    eos_token_ids: tuple[int, ...] = ENDS

    def prompt_tokens(self, problem: Toy) -> list[int]:
        return [3 + problem.problem_id % 4] * (1 + problem.problem_id % 3)

    def grade(self, problem: Toy, response_text: str, truncated: bool) -> Graded:
        first = response_text.split()[0]
        lucky = int(first) in LUCKY
        return Graded(lucky and not truncated, not truncated, first)

    def steps(self, problem: Toy, response_text: str) -> list[Step]:
        """Each token is a step, and its state the token before."""
        words = response_text.split()
        ends = np.cumsum([len(word) + 1 for word in words]) - 1
        before = ["", *words[:-1]]
        return [Step(int(end), word) for end, word in zip(ends, before, strict=True)]


CONFIG = TransformerConfig(
    vocab_size=VOCAB,
    hidden_size=16,
    num_layers=2,
    num_heads=2,
    num_kv_heads=2,
    head_dim=8,
    mlp_dim=32,
    context_length=24,
)
SETTINGS = RLSettings(
    steps=8,
    prompts_per_step=4,
    group_size=4,
    updates_per_rollout=2,
    prompt_width=3,
    max_new_tokens=6,
    rows_per_micro_batch=2,
    row_width=20,
    slots_per_row=4,
)
OPTIMIZER = OptimizerSettings(learning_rate=3e-2)


def tiny_model() -> Transformer:
    return Transformer(CONFIG)


def toy_dapo(**switches: Any) -> Method:
    settings = DapoSettings(overlong_cache=3, **switches)
    return dapo(settings, max_new_tokens=SETTINGS.max_new_tokens)


def random_params(batch_sharding: BatchSharding, seed: int = 7) -> Any:
    """The tiny model's parameters on a mesh."""
    return toy_setup.random_params(CONFIG, seed, batch_sharding)


def pack_inputs(batch: TrainBatch, plan: Packing, **inputs: np.ndarray) -> TrainBatch:
    """A packed batch with inputs [B, ...], each in the slot of its sequence."""
    return batch.with_inputs(**{name: plan.place(x) for name, x in inputs.items()})


@cache
def first_policy() -> TrainState:
    """An untrained policy; init_rl_state copies it, so nothing donates it."""
    return init_state(random_params(one_device()), OPTIMIZER.build())


@cache
def shared_pieces(temperature: float) -> RLLearner:
    settings = dataclasses.replace(SETTINGS, temperature=temperature)
    return build_rl_learner(
        tiny_model(), LuckyTask(), toy_dapo(), settings, OPTIMIZER, one_device()
    )


def toy_learner(
    method: Method,
    settings: RLSettings = SETTINGS,
    optimizer: OptimizerSettings = OPTIMIZER,
) -> RLLearner:
    """A learner with the sampler and the scorer of the other tests, compiled once.

    For settings of the same shapes only.
    """
    learner = build_rl_learner(
        tiny_model(), LuckyTask(), method, settings, optimizer, one_device()
    )
    shared = shared_pieces(settings.temperature)
    return dataclasses.replace(learner, sample=shared.sample, score=shared.score)


def toy_state(learner: RLLearner) -> RLState:
    return init_rl_state(learner, first_policy())


def run_steps(
    learner: RLLearner, state: RLState, problems: EndlessProblems, steps: int
) -> tuple[RLState, list[Row], list[Any]]:
    """Iterations one after the other: the state, the rows and what was collected."""
    rows, seen, timer = [], [], PhaseTimer()
    for _ in range(steps):
        state, row, collected = rl_iteration(learner, state, problems, timer)
        rows.append(row)
        seen.append(collected)
    return state, rows, seen


def hang() -> None:
    """As a grader may; an exception from outside ends it."""
    for _ in range(100_000):
        time.sleep(0.01)


class Recorder:
    """Calls a function and keeps what it was called with and what came out."""

    def __init__(self, function):
        self.function, self.calls = function, []

    def __call__(self, *args):
        result = self.function(*args)
        self.calls.append((args, result))
        return result


def no_update(policy, batch, num_active):
    return policy, {}


def fake_rollouts(
    correct: Any,
    *,
    lengths: Any = None,
    truncated: Any = None,
    width: int = 6,
    first_id: int = 0,
    seed: int = 0,
) -> Rollouts:
    """Groups with random tokens and given grades; prompts of one to three tokens."""
    rng = np.random.default_rng(seed)
    correct = np.asarray(correct, bool)
    p, g = correct.shape
    if lengths is None:
        lengths = rng.integers(1, width + 1, (p, g))
    lengths = np.asarray(lengths)
    mask = np.arange(width) < lengths[..., None]
    if truncated is None:
        truncated = np.zeros((p, g), bool)
    prompt_lengths = rng.integers(1, 4, p)
    inside = np.arange(3) < prompt_lengths[:, None]
    return Rollouts(
        problem_ids=np.arange(first_id, first_id + p),
        prompt_tokens=np.where(inside, rng.integers(3, VOCAB, (p, 3)), 0),
        prompt_lengths=prompt_lengths,
        tokens=np.where(mask, rng.integers(0, VOCAB, (p, g, width)), 0),
        sampler_logprobs=np.where(mask, -rng.random((p, g, width)), 0.0),
        lengths=lengths,
        truncated=np.asarray(truncated, bool),
        correct=correct,
        format_ok=np.ones((p, g), bool),
        failed=np.zeros((p, g), bool),
        unchecked=np.zeros((p, g), bool),
        rewards=np.zeros((p, g), np.float32),
        policy_step=np.zeros(p, np.int64),
    )


def same_trees(a: Any, b: Any) -> bool:
    """Whether two trees hold the same bits."""
    leaves, other = jax.tree.leaves(a), jax.tree.leaves(b)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    return all(np.array_equal(x, y) for x, y in zip(leaves, other, strict=True))


def copied(tree: Any) -> Any:
    """The arrays of a tree on the host, which survive a donation."""
    return jax.tree.map(np.array, tree)


class FollowedUpdate:
    """An update whose results are kept and, with a leader, replaced by the leader's.

    Two compiled programs make the same update but for rounding, and Adam sets no bound
    to what becomes of it: of a gradient near zero only the sign is left. A follower
    starts every update from the state that its leader had, so that what the two make of
    it can be compared.
    """

    def __init__(
        self, update: Callable[..., Any], leader: "FollowedUpdate | None" = None
    ) -> None:
        self.update, self.leader = update, leader
        self.states: list[Any] = []  # after each update, on the host
        self.metrics: list[Row] = []

    def __call__(self, state: Any, batch: Any, num_active: Any, **given: Any) -> Any:
        state, metrics = self.update(state, batch, num_active, **given)
        self.states.append(copied(state))
        self.metrics.append(finish_metrics(metrics))
        if self.leader is not None:
            made = self.leader.states[len(self.states) - 1]
            state = jax.tree.map(
                lambda x, y: jax.device_put(y, x.sharding), state, made
            )
        return state, metrics

    def gradient_error(self) -> float:
        """The largest distance from the leader's gradients, in parts of the largest.

        Read off Adam's first moments, which have the same past.
        """
        worst = 0.0
        for states in zip(self.states, self.leader.states, strict=True):
            moments = (optax.tree_utils.tree_get(x.opt_state, "mu") for x in states)
            pairs = list(zip(*map(jax.tree.leaves, moments), strict=True))
            apart = max(np.abs(mine - its).max() for mine, its in pairs)
            largest = max(np.abs(its).max() for _, its in pairs)
            # Without a signal all are zero.
            worst = max(worst, float(apart / largest) if apart else 0.0)
        return worst
