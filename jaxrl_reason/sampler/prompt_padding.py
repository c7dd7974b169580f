"""Prompts of different lengths as one array."""

from collections.abc import Sequence

import numpy as np


def pad_prompts(
    prompts: Sequence[Sequence[int]],
    problem_ids: Sequence[int],
    longest: int,
    *,
    multiple_of: int | None = None,
    limit: str = "",
) -> tuple[np.ndarray, np.ndarray]:
    """Prompts as one array, padded on the right with zeros.

    Args:
      prompts: token ids.
      problem_ids: of the problems, for the error.
      longest: tokens that a prompt may have.
      multiple_of: the width is the least multiple of this that holds every prompt, at
        most `longest`; None for `longest` itself.
      limit: where `longest` comes from, for the error.

    Returns:
      [P, W] ids and [P] lengths, int32.

    Raises:
      ValueError: a prompt is empty or too long; names the problem.

    Example:
      >>> tokens, lengths = pad_prompts([[5, 6, 7], [8]], [0, 1], 4)
      >>> tokens.tolist(), lengths.tolist()
      ([[5, 6, 7, 0], [8, 0, 0, 0]], [3, 1])
      >>> pad_prompts([[5, 6, 7]], [0], 100, multiple_of=64)[0].shape
      (1, 64)
    """
    for prompt, problem_id in zip(prompts, problem_ids, strict=True):
        if not 1 <= len(prompt) <= longest:
            raise ValueError(
                f"a prompt must have 1 to {longest} tokens{limit and f' ({limit})'}, "
                f"got {len(prompt)} for problem {problem_id}"
            )
    lengths = np.array([len(prompt) for prompt in prompts], np.int32)
    width = longest
    if multiple_of is not None:
        width = min(-(-int(lengths.max()) // multiple_of) * multiple_of, longest)
    tokens = np.zeros((len(prompts), width), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    return tokens, lengths
