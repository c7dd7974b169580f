"""What the comparisons with transformers and trl share: model, questions, lengths.

The peers are extras: `pip install 'jaxrl-reason[benchmarks]'`.
"""

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from jaxrl_reason.tasks.questions import Question, QuestionTask
from jaxrl_reason.tasks.word_arithmetic import (
    ArithmeticSettings,
    arithmetic,
    generate_questions,
)
from jaxrl_reason.text.load import load_tokenizer, save_tokenizer

# `jaxrl_reason.weights` is imported where it is used: a peer's process, whose memory is
# measured, should hold no jax.


def need(*modules: str, extra: str = "jaxrl-reason[benchmarks]") -> None:
    """Leave with one sentence if a peer is not installed; `extra` is what brings it."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"This comparison needs {' and '.join(missing)}: pip install '{extra}'."
        )


def wide_console() -> Console:
    """A console whose tables are not shortened in a file or a narrow terminal."""
    return Console(width=max(140, Console().width))


def hugging_face_folder(path: Path, folder: Path) -> Path:
    """The model as a float32 folder that transformers loads.

    Args:
      path: a .gguf file or a folder; a folder is taken as it is.
      folder: where to write, absent or empty.

    Returns:
      The folder to load.
    """
    from jaxrl_reason.weights import export_hf, load_pretrained

    if path.is_dir():
        return path
    loaded = load_pretrained(path)
    tokenizer = load_tokenizer(path, vocab_size=loaded.config.vocab_size)
    export_hf(
        folder,
        loaded.config,
        loaded.params,
        # A GGUF names one of its EOS tokens.
        special=replace(loaded.special, eos_token_ids=tokenizer.eos_token_ids),
        family=loaded.family,
    )
    save_tokenizer(tokenizer, folder)
    return folder


def load_ours(path: Path, **settings: Any) -> Any:
    """The model with room for the benchmark's context and no more."""
    from jaxrl_reason.weights import load_pretrained

    return load_pretrained(path, context_length=512, **settings)


def load_task(path: Path, instruction: str) -> QuestionTask:
    """Two-number arithmetic in the model's chat template."""
    return arithmetic(load_tokenizer(path), instruction)


def questions(count: int) -> tuple[Question, ...]:
    """The first training questions: plus and minus, four ways of asking."""
    settings = ArithmeticSettings(operations=("plus", "minus"), num_phrases=4)
    return generate_questions(settings)["train"][:count]


def padded_left(prompts: Sequence[Sequence[int]], pad: int) -> tuple[Any, Any]:
    """Token ids [P, Tp] and attention mask [P, Tp], padded on the left."""
    width = max(len(prompt) for prompt in prompts)
    tokens = np.full((len(prompts), width), pad, np.int64)
    mask = np.zeros((len(prompts), width), np.int64)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = prompt
        mask[row, width - len(prompt) :] = 1
    return tokens, mask


def real_lengths(tokens: np.ndarray, eos_token_ids: Sequence[int]) -> np.ndarray:
    """[B] tokens up to and with the first EOS token of responses [B, T].

    >>> real_lengths(np.array([[5, 2, 2], [5, 6, 7]]), (2,)).tolist()
    [2, 3]
    """
    ended = np.isin(tokens, np.asarray(eos_token_ids))
    first = np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, tokens.shape[1])
    return np.asarray(first)
