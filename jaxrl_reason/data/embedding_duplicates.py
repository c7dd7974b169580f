"""Prompts that mean the same in other words, by an embedding of the user's choice."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

_BLOCK = 4096  # rows of a block of similarities: 64 MiB in float32


def embedding_duplicates(vectors: np.ndarray, threshold: float) -> dict[int, int]:
    """Rows whose cosine with an earlier kept row reaches a threshold.

    cos(a, b) = a.b / (|a| |b|), in float32. DeepScaleR drops duplicates by such an
    embedding (all-MiniLM-L6-v2) and does not publish its threshold. Work grows with the
    square of the number of rows, in products of blocks that run on the accelerator
    where there is one.

    Args:
      vectors: [R, D] one embedding per prompt; may be a memory map.
      threshold: in (0, 1]; 0.9 to 0.95 is usual.

    Returns:
      Position of each row to drop -> position of the kept row that it repeats. The
      first of similar rows is kept.

    Raises:
      ValueError: the threshold is out of range, or a vector is zero or not finite.

    Example:
      >>> embedding_duplicates(np.array([[1.0, 0], [0, 1], [3, 0.1]]), 0.9)
      {2: 0}
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], got {threshold}")
    dropped: dict[int, int] = {}
    gone = np.zeros(len(vectors), bool)
    for begin, block in _unit_blocks(vectors):
        for start, earlier in _unit_blocks(vectors[: begin + len(block)]):
            hits = np.asarray(_similar(block, earlier, threshold))
            for row, column in np.argwhere(hits).tolist():
                later, first = begin + row, start + column
                # In order of the later row and then of the first: a row that is gone
                # drops no other.
                if first < later and not gone[first] and not gone[later]:
                    gone[later] = True
                    dropped[later] = first
    return dropped


def _unit_blocks(vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for begin in range(0, len(vectors), _BLOCK):
        block = np.asarray(vectors[begin : begin + _BLOCK], np.float32)
        lengths = np.linalg.norm(block, axis=1, keepdims=True)
        wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
        if len(wrong):
            raise ValueError(
                "an embedding must be finite and not zero, got "
                f"{float(lengths[wrong[0], 0])} as the length of row {begin + wrong[0]}"
            )
        yield begin, block / lengths


@jax.jit
def _similar(a: jax.Array, b: jax.Array, threshold: float) -> jax.Array:
    """[A, B] whether two rows of unit length are similar."""
    cosines = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    return cosines >= threshold - 1e-6
