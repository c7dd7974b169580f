"""Settings of a Countdown run, and what all of its stages share."""

import dataclasses
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxrl_reason.data.pipeline import ProblemStream, load_split
from jaxrl_reason.learner.sft import (
    Example,
    SFTLearner,
    SFTSettings,
    build_sft_learner,
)
from jaxrl_reason.learner.state import OptimizerSettings
from jaxrl_reason.models import Transformer, TransformerConfig
from jaxrl_reason.rl.heldout import HeldoutEvaluation, build_heldout_evaluation
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.recipes import RECIPES
from jaxrl_reason.rl.recipes.dapo import DapoSettings, dapo
from jaxrl_reason.rl.recipes.dr_grpo import dr_grpo
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.recipes.ppo import ppo
from jaxrl_reason.rl.rewards import with_format_reward
from jaxrl_reason.rl.rl_learner import RLLearner, RLSettings, build_rl_learner
from jaxrl_reason.runs.run_folder import to_plain
from jaxrl_reason.sharding import BatchSharding, ShardingRules, make_mesh, parse_mesh
from jaxrl_reason.tasks.countdown import CountdownSettings, CountdownTask, Problem
from jaxrl_reason.tasks.countdown_traces import (
    TraceSettings,
    make_trace,
    max_trace_tokens,
)


@dataclass(frozen=True)
class ModelSettings:
    """Shape of the transformer; the vocabulary comes from the task."""

    hidden_size: int = 128
    num_layers: int = 3
    num_heads: int = 4
    num_kv_heads: int = 4
    head_dim: int = 32
    mlp_dim: int = 384

    def config(self, vocab_size: int, context_length: int) -> TransformerConfig:
        """The transformer's own config."""
        return TransformerConfig(
            vocab_size=vocab_size,
            context_length=context_length,
            scan_unroll=self.num_layers,
            **dataclasses.asdict(self),
        )


# Built with the run's own settings; all other names are recipes, built as published.
_OWN = ("dapo", "grpo", "dr_grpo", "ppo")


def method_names() -> list[str]:
    """What may be asked for by name."""
    return [*_OWN, *(name for name in RECIPES if name not in _OWN)]


@dataclass(frozen=True)
class Config:
    """Settings of the run; the defaults are the main job."""

    seed: int = 0
    """Seed of the parameters, the traces, the order of problems and the samples; the
    stages' own seeds are added to it."""
    run_dir: Path | None = None
    """Folder of the run; runs/countdown-<method>-seed<seed> if left out."""
    resume: bool = False
    """Go on from the newest checkpoint in the run's folder."""
    resume_step: int | None = None
    """With --resume: go on from this RL step's checkpoint instead of the newest."""
    sft_from: Path | None = None
    """Folder of another run whose fine-tuned model is used instead of training one."""
    method: str = "dapo"
    """Which algorithm trains the model after that: dapo, grpo, dr_grpo, ppo, or a
    recipe of docs/recipes.md by its name, vapo or gspo for example."""
    mesh: str = "auto"
    """Sizes of the device mesh, such as data=2,fsdp=2,tensor=1; auto spreads the rows
    over all devices there are. A CPU is split into as many virtual devices as asked."""
    data_dir: Path = Path("runs/datasets")
    """Where the problem set is prepared once and kept."""
    eval_split: Literal["test", "validation"] = "test"
    """Held-out problems that accuracy is measured on; tune on validation."""
    eval_problems: int = 512
    """How many of them."""
    eval_every: int = 5
    """RL steps between greedy evaluations."""
    save_every: int = 10
    """RL steps between checkpoints."""
    task: CountdownSettings = field(
        default_factory=lambda: CountdownSettings(max_number=12, max_value=30)
    )
    """Which puzzles."""
    traces: TraceSettings = field(
        default_factory=lambda: TraceSettings(
            budget_weights=(0.65, 0.0, 0.0, 0.0, 0.0, 0.35),
            random_tries=0.1,
            max_value=30,
        )
    )
    """How the solver that writes the traces for fine-tuning searches."""
    model: ModelSettings = field(default_factory=ModelSettings)
    sft: SFTSettings = field(default_factory=SFTSettings)
    sft_optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(learning_rate=3e-3, warmup_updates=50)
    )
    rl: RLSettings = field(default_factory=RLSettings)
    rl_optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(learning_rate=3e-4, warmup_updates=8)
    )
    critic_learning_rate: float = 0.0
    """Of a critic or an implicit reward model; 0 takes the policy's."""
    cosine: bool = True
    """Let both learning rates fall by a cosine over their stage."""
    format_reward: float = 0.0
    """Added to the reward of a response that keeps the think and answer tags."""
    dapo: DapoSettings = field(default_factory=DapoSettings)
    """The four parts of DAPO, each a switch."""

    def __post_init__(self) -> None:
        for name in ("eval_problems", "eval_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.method not in method_names():
            names = ", ".join(method_names())
            raise ValueError(f"method must be one of {names}, got {self.method!r}")
        if self.critic_learning_rate < 0:
            raise ValueError(
                f"critic_learning_rate must be >= 0, got {self.critic_learning_rate}"
            )
        if self.resume_step is not None and not self.resume:
            raise ValueError("resume_step needs --resume, got it without")

    def sft_schedule(self) -> OptimizerSettings:
        """The optimiser of fine-tuning with its decay."""
        return self._decayed(self.sft_optimizer, self.sft.updates)

    def rl_schedule(self) -> OptimizerSettings:
        """The RL optimiser with its decay."""
        steps = max(0, self.rl.steps - self.rl.value_pretraining_steps)
        updates = steps * self.rl.updates_per_rollout
        return self._decayed(self.rl_optimizer, updates)

    def critic_schedule(self) -> OptimizerSettings:
        """The optimiser of a model that learns beside the policy."""
        rl = self.rl
        updates = rl.critic_updates_per_rollout or rl.updates_per_rollout
        rate = self.critic_learning_rate or self.rl_optimizer.learning_rate
        optimizer = dataclasses.replace(self.rl_optimizer, learning_rate=rate)
        return self._decayed(optimizer, rl.steps * updates)

    def _decayed(self, optimizer: OptimizerSettings, updates: int) -> OptimizerSettings:
        decay = updates if self.cosine else optimizer.decay_updates
        return dataclasses.replace(optimizer, decay_updates=decay)

    @property
    def folder(self) -> Path:
        """Where the run is kept."""
        return self.run_dir or Path("runs", f"countdown-{self.method}-seed{self.seed}")

    def build_method(self) -> Method:
        """The algorithm as a value."""
        limit = self.rl.max_new_tokens
        if self.method in _OWN:
            method = {
                "dapo": lambda: dapo(self.dapo, max_new_tokens=limit),
                "dr_grpo": lambda: dr_grpo(length=limit),
                "grpo": grpo,
                "ppo": ppo,
            }[self.method]()
        else:
            method = RECIPES[self.method].build(limit)
        if not self.format_reward:
            return method
        rewards = with_format_reward(method.rewards, self.format_reward)
        return dataclasses.replace(method, rewards=rewards)

    def model_fingerprint(self) -> dict[str, Any]:
        """What a checkpoint of the fine-tuned model depends on."""
        names = (
            "seed",
            "task",
            "traces",
            "model",
            "sft",
            "sft_optimizer",
            "cosine",
        )
        return {name: to_plain(getattr(self, name)) for name in names}

    def rl_fingerprint(self) -> dict[str, Any]:
        """What a checkpoint of the RL stage depends on."""
        names = ("method", "rl", "rl_optimizer", "critic_learning_rate", "dapo")
        settings = {name: to_plain(getattr(self, name)) for name in names}
        settings["format_reward"] = self.format_reward
        # How long to look for signal may be changed when there was none.
        del settings["rl"]["max_rounds"]
        return self.model_fingerprint() | settings


@dataclass(frozen=True)
class Setup:
    """What all stages of a Countdown run share."""

    config: Config
    task: CountdownTask
    model: Transformer
    batch_sharding: BatchSharding
    supervised: SFTLearner
    rl: RLLearner
    train_problems: list[Problem]
    heldout_problems: list[Problem]
    greedy: HeldoutEvaluation
    sampled: HeldoutEvaluation

    def accuracies(self, params: Any) -> dict[str, float]:
        """Greedy accuracy and avg@8 at temperature 1 on the held-out problems."""
        return {
            "greedy": self.greedy.accuracy(params),
            "avg_at_8": self.sampled.accuracy(params),
        }


def build_mesh(sizes: str) -> jax.sharding.Mesh:
    """The mesh asked for; a CPU is split into as many virtual devices as it takes.

    Virtual devices are for tests of sharding. Two on two cores would be a quarter
    quicker than one on both, but XLA's CPU collectives can wait for each other for ever
    when several steps are in flight on so few threads; hence one step at a time.
    """
    if sizes == "auto":
        return make_mesh(data=len(jax.devices()))
    wanted = math.prod(int(n) for n in re.findall(r"=\s*(\d+)", sizes))
    if wanted > 1:
        jax.config.update("jax_num_cpu_devices", wanted)
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    return parse_mesh(sizes)


def set_up(config: Config) -> Setup:
    """Problems, task, model and mesh; refuses what does not fit together."""
    mesh, rules = build_mesh(config.mesh), ShardingRules()
    batch_sharding = BatchSharding(mesh, rules)
    task = CountdownTask.with_symbols(config.task)
    longest = max(config.rl.max_new_tokens, config.sft.max_response)
    context = config.rl.prompt_width + longest
    model = Transformer(
        config.model.config(task.tokenizer.vocab_size, context),
        constrain=rules.constrainer(mesh),
    )
    longest = max(max_trace_tokens(n, config.traces) for n in config.task.numbers)
    if longest > config.sft.max_response:
        raise ValueError(
            f"sft.max_response must hold the longest trace ({longest} tokens), "
            f"got {config.sft.max_response}"
        )
    train = load_split(config.task, config.data_dir, "train")
    heldout = load_split(config.task, config.data_dir, config.eval_split)
    # Spread over the whole split, which is in the order of the problems' numbers.
    chosen = np.linspace(0, len(heldout) - 1, min(config.eval_problems, len(heldout)))
    problems = [heldout[int(i)] for i in chosen]

    def evaluation(num_samples: int, temperature: float) -> HeldoutEvaluation:
        return build_heldout_evaluation(
            model,
            task,
            problems,
            num_samples=num_samples,
            temperature=temperature,
            max_new_tokens=config.rl.max_new_tokens,
            prompt_width=config.rl.prompt_width,
            batch_size=512,
            seed=config.seed,
            batch_sharding=batch_sharding,
        )

    # Built before anything is trained, so that what does not fit shows now.
    return Setup(
        config=config,
        task=task,
        model=model,
        batch_sharding=batch_sharding,
        supervised=build_sft_learner(
            model, config.sft, config.sft_schedule(), batch_sharding
        ),
        rl=build_rl_learner(
            model,
            task,
            config.build_method(),
            dataclasses.replace(config.rl, seed=config.seed + config.rl.seed),
            config.rl_schedule(),
            batch_sharding,
            critic_optimizer=config.critic_schedule(),
            reward_optimizer=config.critic_schedule(),
        ),
        train_problems=train,
        heldout_problems=problems,
        greedy=evaluation(1, 0.0),
        sampled=evaluation(8, 1.0),
    )


def in_random_order(problem: Problem, rng: np.random.Generator) -> Problem:
    """The same puzzle, its numbers in another order: another prompt, other traces.

    Few puzzles, seen often, would be learned by heart and not by calculation.
    """
    numbers = tuple(int(n) for n in rng.permutation(problem.numbers))
    return dataclasses.replace(problem, numbers=numbers)


def trace_examples(setup: Setup) -> Callable[[int], list[Example]]:
    """Update number -> its examples: problems from the stream's order, fresh traces."""
    config, encode = setup.config, setup.task.tokenizer.encode
    seed = config.seed + config.sft.seed
    stream = ProblemStream(
        setup.train_problems, batch_size=config.sft.examples_per_update, seed=seed
    )
    origin = stream.get_state()

    def examples(update: int) -> list[Example]:
        if stream.get_state()["next_batch"] != update:
            stream.set_state({**origin, "next_batch": update})
        rng = np.random.default_rng((seed, update))
        problems = [in_random_order(problem, rng) for problem in next(stream)]
        return [
            (
                setup.task.prompt_tokens(problem),
                encode(make_trace(problem, rng, config.traces)),
            )
            for problem in problems
        ]

    return examples
