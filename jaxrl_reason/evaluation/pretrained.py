"""The joint to real models: a path becomes a tokenizer and a `Generate`."""

import hashlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from jaxrl_reason.evaluation.decoding import Decoding, Generate, Response
from jaxrl_reason.models import Params, Transformer
from jaxrl_reason.sampler import (
    BatchSettings,
    SamplingSettings,
    make_batch_sampler,
    sampling_keys,
)
from jaxrl_reason.sampler.prefixes import SharedSoFar
from jaxrl_reason.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jaxrl_reason.text.text_tokenizer import TextTokenizer
    from jaxrl_reason.weights import Pretrained

# Prompts are padded to a multiple of this, so that few shapes are compiled.
WIDTH_STEP = 64
# Short responses pay for a short cache; each size is compiled when it is reached.
RINGS = (128, 512, 2048, 8192)
# Read of a weight file to tell it from another of its size.
_SAMPLE_BYTES = 2**20


@dataclass(frozen=True)
class PretrainedModel:
    """A model to evaluate.

    Attributes:
        tokenizer: its tokenizer.
        model: the transformer.
        params: its parameters.
        digest: tells it from other models, see `model_digest`.
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
        ImportError: this installation cannot read weights or tokenizers.
        ValueError: nothing readable is at the path.
    """
    loaded, tokenizer = read_model(path, dtype=dtype)
    return PretrainedModel(
        tokenizer, Transformer(loaded.config), loaded.params, model_digest(loaded.path)
    )


def read_model(path: str, **settings: Any) -> "tuple[Pretrained, TextTokenizer]":
    """Reads a model's weights and its tokenizer, wherever they lie.

    Args:
        path: a Hugging Face folder, a .gguf file or a hub id.
        **settings: as of `load_pretrained`.

    Returns:
        Both.

    Raises:
        ImportError: this installation cannot read weights or tokenizers.
        ValueError: nothing readable is at the path.
    """
    try:
        weights: Any = importlib.import_module("jaxrl_reason.weights")
        text: Any = importlib.import_module("jaxrl_reason.text.load")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"reading a model needs {error.name}, which this installation lacks"
        ) from error
    loaded = weights.load_pretrained(path, **settings)
    return loaded, text.load_tokenizer(loaded.path, vocab_size=loaded.config.vocab_size)


def make_generate(
    loaded: PretrainedModel,
    eos_token_ids: tuple[int, ...],
    *,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
) -> Generate:
    """The model's responses, by the library's batch sampler.

    A question's responses depend on the seed, its id and the decoding only. More
    questions than are drawn at once are welcome: one takes the place of another that
    has ended. What all prompts begin with (a template, worked examples) is read once.

    Args:
        loaded: the model.
        eos_token_ids: ids that end a response.
        max_new_tokens: the longest response.
        batch_size: responses drawn side by side.
        seed: of the samples.

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
            rings=RINGS,
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
        tokens, lengths = pad_prompts(prompts, problem_ids, longest)
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

    The widest doubles from 64 to `longest`, so that calls with prompts of other lengths
    seldom need another sampler.

    >>> prompt_widths(192, 10_000), prompt_widths(100, 100)
    ((64, 128, 192, 256), (64, 100))
    """
    widest = WIDTH_STEP
    while widest < width:
        widest *= 2
    return (*range(WIDTH_STEP, min(widest, longest), WIDTH_STEP), min(widest, longest))


def pad_prompts(
    prompts: Sequence[Sequence[int]], problem_ids: Sequence[int], longest: int
) -> tuple[np.ndarray, np.ndarray]:
    """Prompts as one array.

    Args:
        prompts: token ids.
        problem_ids: of the questions, for the error.
        longest: tokens that a prompt may have.

    Returns:
        [P, W] ids, padded on the right to a multiple of 64 or to `longest`, and [P]
        lengths.

    Raises:
        ValueError: a prompt is empty or too long; names the question.

    Example:
        >>> tokens, lengths = pad_prompts([[5, 6, 7]], [0], 100)
        >>> tokens.shape, lengths.tolist()
        ((1, 64), [3])
    """
    for prompt, problem_id in zip(prompts, problem_ids, strict=True):
        if not 1 <= len(prompt) <= longest:
            raise ValueError(
                f"a prompt must have 1 to {longest} tokens (the model's context less "
                f"max_new_tokens), got {len(prompt)} for problem {problem_id}"
            )
    width = max(len(prompt) for prompt in prompts)
    width = min(-(-width // WIDTH_STEP) * WIDTH_STEP, longest)
    tokens = np.zeros((len(prompts), width), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    return tokens, np.array([len(prompt) for prompt in prompts], np.int32)


def model_digest(path: str | Path) -> str:
    """Tells the files of one model from those of another.

    Names, sizes, and of every file the first and last MiB: a file of many gigabytes is
    not read whole.

    Args:
        path: a file, or a folder whose files are taken, not those of its folders.

    Returns:
        SHA-256 in hexadecimal.
    """
    path = Path(path)
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name}\n{size}\n".encode())
        with open(file, "rb") as stream:
            digest.update(stream.read(_SAMPLE_BYTES))
            stream.seek(max(size - _SAMPLE_BYTES, 0))
            digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()
