"""The settings of a training run: one tree, checked when it is built."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jaxrl_reason.learner.sft import SFTSettings
from jaxrl_reason.learner.state import OptimizerSettings
from jaxrl_reason.rl.recipes.dapo import DapoSettings
from jaxrl_reason.rl.rl_settings import RLSettings
from jaxrl_reason.runs.run_folder import to_plain
from jaxrl_reason.runs.trackers import TRACKERS
from jaxrl_reason.runs.warning_signs import WarningSettings, check_causes
from jaxrl_reason.tasks.countdown import CountdownSettings
from jaxrl_reason.tasks.countdown_traces import TraceSettings
from jaxrl_reason.tasks.function_reward import read_spec
from jaxrl_reason.tasks.gsm_symbolic import SymbolicSettings
from jaxrl_reason.tasks.gym_task import GymSettings
from jaxrl_reason.tasks.knights_knaves import KnightsSettings
from jaxrl_reason.tasks.word_arithmetic import ArithmeticSettings
from jaxrl_reason.train.group_settings import (
    CheckpointSettings,
    EvalSettings,
    ExportSettings,
    GameFlags,
    OfflineSettings,
    SamplerSettings,
    StageSettings,
    StopSettings,
)
from jaxrl_reason.train.methods import kind_of
from jaxrl_reason.train.model_settings import ModelSettings
from jaxrl_reason.train.reward_settings import (
    ANSWER,
    JUDGE,
    JudgeSettings,
    RewardSettings,
)
from jaxrl_reason.train.settings_checks import check_settings
from jaxrl_reason.train.task_settings import BENCHMARKS, TaskSettings

# What only affects memory, time and the number of steps.
_PACKING = ("rows_per_micro_batch", "row_width", "slots_per_row")
_NOT_IN_A_FINGERPRINT = {
    "rl": ("max_rounds", *_PACKING),
    "sft": ("max_response", *_PACKING),
    # Rows count by what is in them, not by where they are: `Problems.digests`.
    "task": (
        *("data", "heldout", "data_dir", "text"),
        *("extract", "answers", "algebra_deadline"),
    ),
    "offline": ("rounds", "epochs", "pairs", "steps"),
    "game": ("rounds",),
    "judge": ("endpoint", "served_model", "batch_size", "budget"),
}


@dataclass(frozen=True)
class TrainSettings:
    """A run: its model, its task, its method and its sizes.

    `--help` lists the settings by group; docs/train.md explains them.

    Attributes:
      method: the training method: a recipe of docs/recipes.md (dapo, grpo,
        gspo, vapo, ...), an offline one (sft, rft, star, dpo, irpo, ...), a
        reward model (bradley_terry, verifier, ppm) or the game (prover_verifier).
      seed: for the parameters, the order of questions and all sampling; the stages' own
        seeds are added to it.
      name: of the run, for its folder; the task's name if left out.
      run_dir: folder of the run; runs/<name>-<method>-seed<seed> if left out.
      resume: never: start a new run; the folder must not have one. must: continue from
        the newest checkpoint. auto: either, as needed by a script that is requeued;
        damaged checkpoints are set aside.
      resume_step: continue from this step's checkpoint instead of the newest.
      mesh: sizes of the device mesh, such as data=2,fsdp=2,tensor=1; auto shards the
        rows over all available devices. A CPU is split into virtual devices as needed.
      sequence_parallel: devices of the axis tensor share the columns of rows between
        the blocks of a layer, which takes less memory for long rows (docs/sharding.md).
      dataset_dir: cache of countdown's prepared problems.
      trackers: wandb, trackio or mlflow, which also get every row; each is an extra of
        the package.
      tracker_project: project of the trackers.
      profile: the step to trace for xprof, to `profile/` in the run's folder; 0 for
        none. The first steps compile.
      stop_on: causes of warnings that end the run, with everything saved: loss_spike,
        entropy_at_0, reward_at_0, reward_at_1, sampler_drift, truncated, zero_gradient,
        skipped_update, failed_grades (docs/runs.md).
      max_skipped_updates: updates in a row with gradients that are not finite, after
        which the run stops.
      save_every: steps between checkpoints.
      keep: how many checkpoints to keep.
      sft_from: folder of another run, whose fine-tuned model to use instead of training
        one.
      sft_base: folder of another run, whose fine-tuned model is the start of this run's
        fine-tuning: one base model, tuned in several styles.
      trace: function of your own, my_file.py:my_trace, that writes the responses of
        fine-tuning; it gets a problem, a random generator and the settings of the
        traces group (docs/train.md).
      reward: rewards in place of right and wrong: functions of your own,
        my_file.py:my_function, `answer` for the task's own grade, `judge` for a model's
        (docs/own_reward.md). Several are summed; `:WEIGHT` behind one is its weight.
      teacher: a model to distil from, for opd by its log-probs of the sampled tokens,
        for gkd by its full distributions: a folder, a .gguf file or a hub id; of any
        size, with the policy's vocabulary.
      reward_model: folder of a run that trained a reward model on the same model and
        task; its scores are the rewards.
      format_reward: added to the reward of a response in the task's format.
      critic_learning_rate: of a critic or an implicit reward model; 0 for the policy's.
      cosine: cosine decay of the learning rates over their stage.
    """

    method: str = "dapo"
    seed: int = 0
    name: str | None = None
    run_dir: Path | None = None
    resume: Literal["never", "must", "auto"] = "never"
    resume_step: int | None = None
    mesh: str = "auto"
    sequence_parallel: bool = False
    dataset_dir: Path = Path("runs/datasets")
    trackers: tuple[str, ...] = ()
    tracker_project: str = "jaxrl_reason"
    profile: int = 0
    stop_on: tuple[str, ...] = ()
    max_skipped_updates: int = 3
    save_every: int = 10
    keep: int = 3
    sft_from: Path | None = None
    sft_base: Path | None = None
    trace: str | None = None
    reward: tuple[str, ...] = ()
    teacher: str | None = None
    reward_model: Path | None = None
    format_reward: float = 0.0
    critic_learning_rate: float = 0.0
    cosine: bool = False
    model: ModelSettings = field(default_factory=lambda: ModelSettings("3x128"))
    task: TaskSettings = field(default_factory=lambda: TaskSettings("countdown"))
    rl: RLSettings = field(
        default_factory=lambda: RLSettings(
            prompts_per_step=16,
            group_size=8,
            updates_per_rollout=2,
            prompt_width=0,
            row_width=0,
            max_new_tokens=256,
        )
    )
    optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(learning_rate=1e-5, warmup_updates=4)
    )
    dapo: DapoSettings = field(default_factory=DapoSettings)
    rewards: RewardSettings = field(default_factory=RewardSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
    stop: StopSettings = field(default_factory=StopSettings)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    eval: EvalSettings = field(default_factory=EvalSettings)
    sft: SFTSettings = field(
        default_factory=lambda: SFTSettings(updates=0, row_width=0, max_response=0)
    )
    sft_optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(learning_rate=1e-5, warmup_updates=10)
    )
    stages: StageSettings = field(default_factory=StageSettings)
    offline: OfflineSettings = field(default_factory=OfflineSettings)
    game: GameFlags = field(default_factory=GameFlags)
    countdown: CountdownSettings = field(default_factory=CountdownSettings)
    traces: TraceSettings = field(default_factory=lambda: TraceSettings(max_value=None))
    arithmetic: ArithmeticSettings = field(default_factory=ArithmeticSettings)
    gsm_symbolic: SymbolicSettings = field(default_factory=SymbolicSettings)
    knights_knaves: KnightsSettings = field(default_factory=KnightsSettings)
    reasoning_gym: GymSettings = field(default_factory=GymSettings)
    export: ExportSettings = field(default_factory=ExportSettings)
    warnings: WarningSettings = field(default_factory=WarningSettings)

    def __post_init__(self) -> None:
        for name, lowest in (
            ("save_every", 1),
            ("keep", 1),
            ("seed", 0),
            ("profile", 0),
            ("max_skipped_updates", 1),
        ):
            if getattr(self, name) < lowest:
                raise ValueError(
                    f"{name} must be >= {lowest}, got {getattr(self, name)}"
                )
        for tracker in self.trackers:
            if tracker not in TRACKERS:
                names = ", ".join(TRACKERS)
                raise ValueError(f"trackers must be of {names}, got {tracker!r}")
        check_causes("stop_on", self.stop_on)
        if self.critic_learning_rate < 0:
            raise ValueError(
                f"critic_learning_rate must be >= 0, got {self.critic_learning_rate}"
            )
        check_settings(self)

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        name = self.name or self.task.short_name
        return self.run_dir or Path("runs", f"{name}-{self.method}-seed{self.seed}")

    @property
    def named_rewards(self) -> tuple[tuple[str, float], ...]:
        """The place or name of each reward, and its weight."""
        return tuple(read_spec(text) for text in self.reward)

    @property
    def grades_answers(self) -> bool:
        """Whether the answers of the questions are read and compared."""
        named = [place for place, _ in self.named_rewards]
        return not named or ANSWER in named

    @property
    def has_judge(self) -> bool:
        """Whether a judge is among the rewards."""
        return JUDGE in [place for place, _ in self.named_rewards]

    @property
    def last_step(self) -> int | None:
        """The number of a finished run's last row; None if it is not known yet."""
        return {
            "rl": self.last_step_of_rl,
            "examples": self.sft.updates,
            "rounds": self.offline.rounds,
            "reward_model": self.offline.epochs,
            "game": None,
        }[kind_of(self.method)]

    @property
    def trace_settings(self) -> TraceSettings:
        """Settings of countdown's traces, by default with the puzzles' range."""
        if self.traces.max_value is not None:
            return self.traces
        return dataclasses.replace(self.traces, max_value=self.countdown.max_value)

    def sft_schedule(self) -> OptimizerSettings:
        """The optimiser of fine-tuning with its decay."""
        return self._decayed(self.sft_optimizer, self.sft.updates)

    def rl_schedule(self) -> OptimizerSettings:
        """The RL optimiser with its decay."""
        steps = max(0, self.last_step_of_rl - self.rl.value_pretraining_steps)
        return self._decayed(self.optimizer, steps * self.rl.updates_per_rollout)

    def critic_schedule(self) -> OptimizerSettings:
        """The optimiser of a model that is trained besides the policy."""
        updates = self.rl.critic_updates_per_rollout or self.rl.updates_per_rollout
        rate = self.critic_learning_rate or self.optimizer.learning_rate
        optimizer = dataclasses.replace(self.optimizer, learning_rate=rate)
        return self._decayed(optimizer, self.last_step_of_rl * updates)

    @property
    def last_step_of_rl(self) -> int:
        """The number of RL steps in all stages."""
        return self.rl.steps * max(1, len(self.stages.limits))

    def _decayed(self, optimizer: OptimizerSettings, updates: int) -> OptimizerSettings:
        decay = updates if self.cosine else optimizer.decay_updates
        return dataclasses.replace(optimizer, decay_updates=decay)

    def sft_fingerprint(self) -> dict[str, Any]:
        """What a checkpoint of the fine-tuned model depends on."""
        found: dict[str, Any] = {"seed": self.seed, "model": self.model.fingerprint()}
        found["task"] = self._group("task")
        if not (self.task.is_generated or self.task.source in BENCHMARKS):
            found["task"]["source"] = "own questions"
        if self.task.is_generated:
            found[self.task.source] = to_plain(getattr(self, self.task.source))
        if self.sft.updates:
            for name in ("sft_optimizer", "cosine", "trace_settings"):
                found[name.removesuffix("_settings")] = to_plain(getattr(self, name))
            found["sft"] = self._group("sft")
            # Checkpoints of runs without them do not have them.
            words = found["trace"].pop("words")
            if words:
                found["words"] = words
            if self.trace is not None:
                found["trace_function"] = self.trace
        return found

    def _group(self, name: str) -> dict[str, Any]:
        """The settings of a group on which a checkpoint depends."""
        plain: dict[str, Any] = to_plain(getattr(self, name))
        for left_out in _NOT_IN_A_FINGERPRINT[name]:
            del plain[left_out]
        return plain

    def fingerprint(self) -> dict[str, Any]:
        """What a checkpoint of the stages after fine-tuning depends on."""
        names = ("method", "optimizer", "critic_learning_rate")
        found = {name: to_plain(getattr(self, name)) for name in names}
        # As checkpoints have it that were written when there was one at most.
        alone = self.reward[0] if self.reward else None
        found["reward"] = alone if len(self.reward) < 2 else list(self.reward)
        rl = self._group("rl")
        if not self.cosine:
            del rl["steps"]  # their number may be raised
        found |= {"rl": rl, "format_reward": self.format_reward}
        if self.has_judge:
            found["judge"] = self._group("judge")
        if self.reward_model is not None:
            found["reward_model"] = str(self.reward_model)
        kind = kind_of(self.method)
        if kind in ("rounds", "reward_model", "game"):
            found["offline"] = self._group("offline")
            if kind != "reward_model":  # whose epochs are its steps
                found["offline"]["epochs"] = self.offline.epochs
        if kind == "game":
            found["game"] = self._group("game")
        if self.method == "dapo":
            found["dapo"] = to_plain(self.dapo)
        return self.sft_fingerprint() | found
