"""Responses of a model of this library to the questions of a benchmark."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax.numpy as jnp

from jaxrl_reason.evaluation.decoding import Decoding, Generate, Response
from jaxrl_reason.models import Params, Transformer
from jaxrl_reason.pretrained.reading import model_digest, read_model
from jaxrl_reason.pretrained.text_generation import CACHE_LENGTHS, WIDTH_STEP
from jaxrl_reason.sampler import (
    BatchSettings,
    SamplingSettings,
    make_batch_sampler,
    sampling_keys,
)
from jaxrl_reason.sampler.prefixes import SharedSoFar
from jaxrl_reason.sampler.sample_loop import pad_prompts
from jaxrl_reason.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class PretrainedModel:
    """A model to evaluate.

    Attributes:
      tokenizer: the model's tokenizer.
      model: the transformer.
      params: its parameters.
      digest: identifies the model, see `model_digest`.
    """

    tokenizer: Tokenizer
    model: Transformer
    params: Params
    digest: str


def load_model(path: str, *, dtype: str = "float32") -> PretrainedModel:
    """Reads a model and its tokenizer.

    Args:
      path: a Hugging Face folder, a .gguf file or a hub id.
      dtype: of activations and products.

    Returns:
      The model.

    Raises:
      ValueError: nothing readable is at the path.
    """
    loaded, tokenizer = read_model(path, dtype=dtype)
    return PretrainedModel(
        tokenizer, Transformer(loaded.config), loaded.params, model_digest(loaded.path)
    )


def make_generate(
    loaded: PretrainedModel,
    eos_token_ids: tuple[int, ...],
    *,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
) -> Generate:
    """The model's responses, by the library's batch sampler.

    A question's responses depend only on the seed, its id and the decoding. There may
    be more questions than are sampled at once: one takes the slot of another that has
    ended. A common prefix of all prompts (a template, worked examples) is prefilled
    once.

    Args:
      loaded: the model.
      eos_token_ids: ids that end a response.
      max_new_tokens: the longest response.
      batch_size: responses sampled at the same time.
      seed: for sampling.

    Returns:
      The function.
    """

    @cache
    def sampler(
        decoding: Decoding, widths: tuple[int, ...], shared: tuple[int, ...]
    ) -> Callable[..., Any]:
        settings = SamplingSettings(
            max_new_tokens=max_new_tokens,
            eos_token_ids=eos_token_ids,
            temperature=decoding.temperature,
            top_k=decoding.top_k,
            top_p=decoding.top_p,
        )
        batch = BatchSettings(
            slots=batch_size,
            prompt_widths=widths,
            common_prefix=shared,
            shrink_to=(batch_size // 4,) if batch_size >= 4 else (),
            cache_lengths=CACHE_LENGTHS,
            cache_dtype=loaded.model.config.dtype,
        )
        return make_batch_sampler(loaded.model, settings, decoding.num_samples, batch)

    longest = loaded.model.config.context_length - max_new_tokens
    shared = SharedSoFar()

    def generate(
        prompts: Sequence[Sequence[int]],
        problem_ids: Sequence[int],
        decoding: Decoding,
    ) -> list[list[Response]]:
        tokens, lengths = pad_prompts(
            prompts,
            problem_ids,
            longest,
            multiple_of=WIDTH_STEP,
            limit="the model's context less max_new_tokens",
        )
        widths = prompt_widths(tokens.shape[1], longest)
        ids = jnp.asarray(problem_ids, jnp.uint32)
        keys = sampling_keys(seed, 0, ids, decoding.num_samples)
        draw = sampler(decoding, widths, shared(prompts))
        done = draw(loaded.params, tokens, lengths, keys)
        responses = [
            Response(row[:length].tolist(), bool(truncated))
            for row, length, truncated in zip(
                done.tokens, done.lengths, done.truncated, strict=True
            )
        ]
        n = decoding.num_samples
        return [responses[i * n : (i + 1) * n] for i in range(len(prompts))]

    return generate


def prompt_widths(width: int, longest: int) -> tuple[int, ...]:
    """The widths of a sampler for prompts of up to `width` tokens.

    The widest doubles from 64 up to `longest`, so that calls with prompts of other
    lengths rarely need another sampler.

    >>> prompt_widths(192, 10_000), prompt_widths(100, 100)
    ((64, 128, 192, 256), (64, 100))
    """
    widest = WIDTH_STEP
    while widest < width:
        widest *= 2
    return (*range(WIDTH_STEP, min(widest, longest), WIDTH_STEP), min(widest, longest))
