"""The judge of a run: its model on the run's devices, or behind a server."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxrl_reason.judges.judge import Judge
from jaxrl_reason.judges.judge_reward import JudgeReward
from jaxrl_reason.judges.rubric import USUAL, read_rubric
from jaxrl_reason.models import Transformer
from jaxrl_reason.pretrained.reading import check_tokenizer
from jaxrl_reason.sampler import SamplingSettings, make_sampler
from jaxrl_reason.sampler.sample_loop import check_sampling
from jaxrl_reason.serving import Endpoint, OpenAIEngine
from jaxrl_reason.serving.transport import Tensors
from jaxrl_reason.sharding import BatchSharding, check_batch
from jaxrl_reason.sharding.processes import count
from jaxrl_reason.tasks.questions import all_eos_token_ids
from jaxrl_reason.text.load import load_tokenizer
from jaxrl_reason.train.reward_settings import JudgeSettings
from jaxrl_reason.train.train_settings import TrainSettings
from jaxrl_reason.weights import find_model, load_pretrained
from jaxrl_reason.weights.pretrained import read_model_config

# What the judge has answered, in the run's folder.
MEMORY = "judge.jsonl"


@dataclass(frozen=True)
class FixedWeights:
    """A transport for a server that has its weights: it sends nothing."""

    def send(self, tensors: Tensors, version: int) -> None:
        """Nothing to do.

        Args:
          tensors: not read.
          version: not read.
        """


def build_judge(settings: TrainSettings, batch_sharding: BatchSharding) -> JudgeReward:
    """The reward of the judge.

    Args:
      settings: of the run.
      batch_sharding: its mesh holds the model, unless a server does.

    Raises:
      ValueError: the model, the rubric or the number of processes does not fit.
    """
    s = settings.judge
    assert s.model is not None  # checked with the settings
    if count() > 1:
        raise ValueError(f"a judge is for a run of one process, got {count()}")
    rubric = USUAL if s.rubric is None else read_rubric(s.rubric)
    path = find_model(s.model)
    tokenizer = load_tokenizer(path)
    sampling = SamplingSettings(
        max_new_tokens=s.max_new_tokens,
        eos_token_ids=all_eos_token_ids(tokenizer),
        temperature=s.temperature,
    )
    sample: Any
    if s.endpoint is not None:
        sample, params = served(s, path, sampling), {"none": jnp.zeros(())}
    else:
        mesh, rules = batch_sharding.mesh, batch_sharding.rules
        dtype = settings.model.dtype
        read = load_pretrained(
            path, mesh=mesh, rules=rules, dtype=dtype, param_dtype=dtype
        )
        check_tokenizer(tokenizer, read.config.vocab_size, path)
        model = Transformer(read.config, constrain=rules.constrainer(mesh))
        check_sampling(model, sampling, 1, prompt_width=s.prompt_width)
        check_batch(mesh, rules, s.batch_size, "judge.batch_size")
        sample, params = make_sampler(model, sampling, 1), read.params
    judge = Judge(
        sample,
        params,
        tokenizer,
        prompt_width=s.prompt_width,
        batch_size=s.batch_size,
        seed=settings.seed,
        budget=s.budget,
        memory=settings.folder / MEMORY,
    )
    return JudgeReward(
        judge,
        s.kind,
        rubric,
        reference=s.reference or settings.task.answer,
        swap=s.swap,
        thinking=s.thinking,
        secret=str(settings.seed),
        needs_devices=s.endpoint is None,
    )


def served(s: JudgeSettings, path: Path, sampling: SamplingSettings) -> OpenAIEngine:
    """A server that has the judge's weights, as a rollout engine."""
    assert s.endpoint is not None
    model = Transformer(read_model_config(path))
    check_sampling(model, sampling, 1, prompt_width=s.prompt_width)
    return OpenAIEngine(
        model,
        sampling,
        1,
        endpoint=Endpoint(s.endpoint),
        served_model=s.served_model,
        transport=FixedWeights(),
        logprobs="raw" if s.temperature in (0, 1) else "processed",
        version_path=None,
    )
