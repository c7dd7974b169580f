"""Sampling and grading of the offline rounds, and the training data from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxrl_reason.data.preference_pairs import PreferencePairs
from jaxrl_reason.learner.sft import Example
from jaxrl_reason.models import Transformer
from jaxrl_reason.offline.preference_batch import Pair
from jaxrl_reason.rl.collect import SampleFn, sample_groups
from jaxrl_reason.rl.rollouts import Rollouts, concatenate
from jaxrl_reason.runs.metrics_log import PhaseTimer, Row
from jaxrl_reason.sampler import SamplingSettings, make_sampler
from jaxrl_reason.sampler.settings import check_temperature
from jaxrl_reason.sharding import BatchSharding, check_batch
from jaxrl_reason.tasks.task import Task, TaskWrapper
from jaxrl_reason.text.tokenizer import Tokenizer

Params = Any


@dataclass(frozen=True)
class RoundSettings:
    """How a round samples; lengths in tokens.

    IRPO (arXiv 2404.19733) has 30 samples per prompt.

    Attributes:
      prompts_per_call: number of prompts that are sampled at once.
      group_size: responses per prompt.
      prompt_width: of padded prompts.
      max_new_tokens: the longest response.
      temperature: sampling temperature.
      seed: for sampling.
    """

    prompts_per_call: int = 24
    group_size: int = 30
    prompt_width: int = 8
    max_new_tokens: int = 104
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("prompts_per_call", "group_size", "prompt_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        check_temperature("temperature", self.temperature)
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")


@dataclass(frozen=True)
class RoundSampler:
    """A task with its compiled sampler.

    Attributes:
      task: makes prompts and grades responses.
      sample: the compiled sampler.
      settings: how a round samples.
      batch_sharding: sharding of the prompts.
    """

    task: Task
    sample: SampleFn
    settings: RoundSettings
    batch_sharding: BatchSharding


def build_round_sampler(
    model: Transformer,
    task: Task,
    settings: RoundSettings,
    batch_sharding: BatchSharding,
) -> RoundSampler:
    """Builds the jitted sampler; nothing is compiled yet.

    Raises:
      ValueError: prompt and response do not fit the model's context, or the mesh does
        not divide the prompts of a call.
    """
    check_batch(
        batch_sharding.mesh,
        batch_sharding.rules,
        settings.prompts_per_call,
        "prompts_per_call",
    )
    needed = settings.prompt_width + settings.max_new_tokens
    if needed > model.config.context_length:
        raise ValueError(
            f"prompt_width + max_new_tokens must be at most the model's context_length "
            f"({model.config.context_length}), got {needed}"
        )
    sampling = SamplingSettings(
        max_new_tokens=settings.max_new_tokens,
        eos_token_ids=task.eos_token_ids,
        temperature=settings.temperature,
    )
    sample = make_sampler(model, sampling, settings.group_size)
    return RoundSampler(task, sample, settings, batch_sharding)


def sample_round(
    sampler: RoundSampler,
    params: Params,
    problems: Sequence[Any],
    *,
    draw: int,
    task: Task | None = None,
) -> Rollouts:
    """Samples and grades G responses to each problem, `prompts_per_call` at a time.

    Args:
      sampler: the compiled functions.
      params: of the policy.
      problems: P distinct problems, a multiple of `prompts_per_call`.
      draw: with the seed, the problem and the sample it fixes the randomness.
      task: used in place of the sampler's own.

    Raises:
      ValueError: P is not a multiple of `prompts_per_call`.
    """
    s = sampler.settings
    if not problems or len(problems) % s.prompts_per_call:
        raise ValueError(
            f"problems must be a multiple of prompts_per_call "
            f"({s.prompts_per_call}), got {len(problems)}"
        )
    parts = [
        sample_groups(
            task=task or sampler.task,
            sample=sampler.sample,
            params=params,
            problems=problems[first : first + s.prompts_per_call],
            group_size=s.group_size,
            prompt_width=s.prompt_width,
            seed=s.seed,
            draw=draw,
            policy_step=draw,
            batch_sharding=sampler.batch_sharding,
            timer=PhaseTimer(),
        )
        for first in range(0, len(problems), s.prompts_per_call)
    ]
    return concatenate(parts)


@dataclass(frozen=True)
class HintedTask(TaskWrapper):
    """A task whose prompts contain the answer: STaR's rationalisation.

    Attributes:
      hint: problem -> prompt tokens with the answer.
    """

    hint: Callable[[Any], list[int]]

    def prompt_tokens(self, problem: Any) -> list[int]:
        """The prompt with the hint."""
        return self.hint(problem)


def prompt_of(rollouts: Rollouts, p: int) -> list[int]:
    """Prompt tokens without padding."""
    return rollouts.prompt_tokens[p, : rollouts.prompt_lengths[p]].tolist()


def response_of(rollouts: Rollouts, p: int, g: int) -> list[int]:
    """Response tokens without padding, the EOS token included."""
    return rollouts.tokens[p, g, : rollouts.lengths[p, g]].tolist()


def response_texts(rollouts: Rollouts, tokenizer: Tokenizer) -> list[list[str]]:
    """P lists of G texts."""
    return [
        [tokenizer.decode(response_of(rollouts, p, g)) for g in range(len(group))]
        for p, group in enumerate(rollouts.tokens)
    ]


def as_pairs(rollouts: Rollouts, places: PreferencePairs) -> list[Pair]:
    """The pairs of `build_pairs`, as tokens."""
    found = zip(
        places.prompt.tolist(),
        places.chosen.tolist(),
        places.rejected.tolist(),
        strict=True,
    )
    return [
        Pair(
            prompt_of(rollouts, p),
            response_of(rollouts, p, i),
            response_of(rollouts, p, j),
        )
        for p, i, j in found
    ]


def as_examples(rollouts: Rollouts, kept: np.ndarray) -> list[Example]:
    """The kept responses [P, G] with their prompts."""
    return [
        (prompt_of(rollouts, p), response_of(rollouts, p, g))
        for p, g in np.argwhere(kept).tolist()
    ]


def round_metrics(rollouts: Rollouts) -> Row:
    """Metrics of a round's initial policy from its sampled responses."""
    judged = ~rollouts.failed
    return {
        "reward/accuracy": float(rollouts.correct.sum() / max(1, judged.sum())),
        "rollout/truncated_fraction": float(rollouts.truncated.mean()),
        "reward/grader_failed_fraction": float(rollouts.failed.mean()),
        "rollout/length_mean": float(rollouts.lengths.mean()),
        "groups/solved_fraction": float(rollouts.correct.any(axis=1).mean()),
    }
