"""Ways of drawing the same responses: our samplers and transformers' generate."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import peers
from jaxrl_reason.models import Transformer
from jaxrl_reason.sampler import (
    BatchSettings,
    SamplingSettings,
    common_prefix,
    make_batch_sampler,
    make_sampler,
    sampling_keys,
)
from jaxrl_reason.tasks.word_arithmetic import INSTRUCTION


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
      model: a .gguf file or a Hugging Face folder.
      prompts: P.
      samples: G.
      max_new_tokens: the limit of a response.
      instruction: stands behind each question; it decides how long responses are.
      slots: slot counts of our batch sampler to try.
      slots_per_group: slots that share a prompt's cache.
      common_prefix: whether what all prompts begin with is read once.
      shrink: fractions of the slots that a run shrinks to at its end.
      cache_lengths: response columns of the cache while all responses are short.
      cache_dtypes: cache types of our batch sampler to try.
      matmuls: types of our matrix products to try, of "float32" and "bfloat16".
      plain: whether our plain sampler takes part.
      torch_dtypes: types of transformers' model to try; none leaves it out.
      torch_batches: responses that `generate` draws at once, to try.
      continuous: whether transformers' continuous batching takes part.
      repeats: turns, of which the best counts; after the first only the fastest of
        each side take more.
      minutes: no turn after the first of all begins if it would end later.
      seed: of both samplers' draws.
      json: where to write the result, if anywhere.
    """

    model: Path
    prompts: int = 32
    samples: int = 8
    max_new_tokens: int = 128
    instruction: str = INSTRUCTION
    slots: tuple[int, ...] = (256,)
    slots_per_group: int = 1
    common_prefix: bool = True
    shrink: tuple[float, ...] = (
        *(n / 8 for n in range(7, 0, -1)),
        *(3 / 16, 1 / 16, 1 / 32),
    )
    cache_lengths: tuple[int, ...] = (32, 64, 96)
    cache_dtypes: tuple[str, ...] = ("float32",)
    matmuls: tuple[str, ...] = ("float32", "bfloat16")
    plain: bool = False
    torch_dtypes: tuple[str, ...] = ("float32", "bfloat16")
    torch_batches: tuple[int, ...] = (256,)
    continuous: bool = False
    repeats: int = 3
    minutes: float = 9.0
    seed: int = 0
    json: Path | None = None

    def __post_init__(self) -> None:
        for name in ("prompts", "samples", "max_new_tokens", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        for batch in self.torch_batches:
            if batch < self.samples:
                raise ValueError(
                    f"torch_batches must hold a group ({self.samples}), got {batch}"
                )


@dataclass(frozen=True)
class Runner:
    """One way of drawing all responses: seed -> [B] lengths.

    `warm_up` is a shorter run that is not counted, None for `run` itself.
    """

    name: str
    rows: int
    run: Callable[[int], np.ndarray]
    ours: bool = False
    warm_up: Callable[[int], np.ndarray] | None = None


def our_runners(options: Options, prompts: Any, ends: tuple[int, ...]) -> list[Runner]:
    """The plain sampler and the batch sampler in every setting asked for."""
    made = []
    for matmuls in options.matmuls:
        made += runners_of(options, matmuls, prompts, ends)
    return made


def runners_of(
    options: Options, matmuls: str, prompts: Any, ends: tuple[int, ...]
) -> list[Runner]:
    """Those with one type of matrix products."""
    loaded = peers.load_ours(options.model, matmul_dtype=matmuls)
    model, params = Transformer(loaded.config), loaded.params
    settings = SamplingSettings(options.max_new_tokens, ends)
    tokens, lengths = prompts
    prefix = shared_beginning(options, tokens, lengths)
    total = options.prompts * options.samples

    def draw(sampler: Callable[..., Any], seed: int) -> np.ndarray:
        ids = jnp.arange(options.prompts)
        keys = sampling_keys(seed, 0, ids, options.samples)
        done = sampler(params, tokens, lengths, keys)
        return np.asarray(jax.device_get(done).lengths)

    made = []
    if options.plain:
        plain = make_sampler(model, settings, options.samples)
        name = f"ours, {matmuls} products, plain"
        made.append(Runner(name, total, partial(draw, plain), True))
    for slots in sorted({min(slots, total) for slots in options.slots}):
        for dtype in options.cache_dtypes:
            group = options.slots_per_group
            fewer = {int(part * slots) // group * group for part in options.shrink}
            batch = BatchSettings(
                slots,
                (tokens.shape[1],),
                common_prefix=prefix,
                slots_per_group=group,
                shrink_to=tuple(sorted(fewer - {0, slots}, reverse=True)),
                cache_lengths=tuple(
                    n for n in options.cache_lengths if n < options.max_new_tokens
                ),
                cache_dtype=dtype,
            )
            sampler = make_batch_sampler(model, settings, options.samples, batch)
            name = f"ours, {matmuls} products, {slots} slots, {dtype} cache"
            made.append(Runner(name, slots, partial(draw, sampler), True))
    return made


def shared_beginning(options: Options, tokens: Any, lengths: Any) -> tuple[int, ...]:
    """What all prompts begin with, if it is to be read once."""
    if not options.common_prefix:
        return ()
    return common_prefix(
        row[:n].tolist() for row, n in zip(tokens, lengths, strict=True)
    )


def their_runners(
    options: Options, prompts: list[list[int]], folder: Path, ends: tuple[int, ...]
) -> list[Runner]:
    """transformers' generate in every type and batch size, and generate_batch."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    pad = AutoTokenizer.from_pretrained(folder).pad_token_id
    how = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=options.max_new_tokens,
        eos_token_id=list(ends),
        pad_token_id=ends[0] if pad is None else pad,
        num_return_sequences=options.samples,
    )
    made = []
    for dtype in options.torch_dtypes:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype)
        ).eval()
        total = options.prompts * options.samples
        for batch in sorted({min(n, total) for n in options.torch_batches}):
            run = partial(generate, model, how, prompts, batch // options.samples)
            # Nothing is compiled: a few tokens touch all that later runs need.
            few = GenerationConfig(**{**how.to_diff_dict(), "max_new_tokens": 4})
            short = partial(generate, model, few, prompts, batch // options.samples)
            name = f"transformers, {dtype}, {batch} rows"
            made.append(Runner(name, batch, run, warm_up=short))
        if options.continuous:
            run = partial(generate_continuously, model, how, prompts)
            made.append(Runner(f"transformers, {dtype}, continuous", total, run))
    return made


def generate(
    model: Any, how: Any, prompts: list[list[int]], at_once: int, seed: int
) -> np.ndarray:
    """[B] lengths of what `generate` draws, so many prompts at once."""
    import torch

    torch.manual_seed(seed)
    found = []
    for start in range(0, len(prompts), at_once):
        few = prompts[start : start + at_once]
        tokens, mask = (
            torch.from_numpy(x) for x in peers.padded_left(few, how.pad_token_id)
        )
        with torch.inference_mode():
            out = model.generate(
                input_ids=tokens, attention_mask=mask, generation_config=how
            )
        drawn = out[:, tokens.shape[1] :].numpy()
        found.append(peers.real_lengths(drawn, how.eos_token_id))
    return np.concatenate(found)


def generate_continuously(
    model: Any, how: Any, prompts: list[list[int]], seed: int
) -> np.ndarray:
    """[B] lengths of what `generate_batch` draws."""
    from transformers import ContinuousBatchingConfig

    longest = max(map(len, prompts)) + how.max_new_tokens
    total = len(prompts) * how.num_return_sequences
    page = 64
    settings = ContinuousBatchingConfig(
        page_size=page,
        # Left alone, they follow the memory of the machine.
        num_blocks=total * -(-longest // page),
        max_batch_tokens=max(512, total),
        max_requests_per_batch=total,
        seed=seed,
    )
    out = model.generate_batch(
        prompts, generation_config=how, continuous_batching_config=settings
    )
    if len(out) != total:
        raise RuntimeError(
            f"generate_batch must give {total} responses, got {len(out)}"
        )
    return np.array([len(x.generated_tokens) for x in out.values()])
