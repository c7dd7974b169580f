"""Which sampled responses to fine-tune on: RFT and STaR, on the host.

Rejection-sampling fine-tuning (RFT, arXiv 2308.01825) samples many responses per
problem, keeps the correct ones that differ in their reasoning, and trains on them and
the original data. STaR (arXiv 2203.14465) iterates: keep the correct ones, give the
answer as a hint if there is none, and fine-tune the base model in every round.
"""

import re
from collections.abc import Hashable, Sequence

import numpy as np

# Runs of arithmetic characters; one character class, so the time is linear.
_ARITHMETIC = re.compile(r"[0-9.,+\-*/()=×÷ ]+")


def correct_and_complete(
    correct: np.ndarray, truncated: np.ndarray, *, failed: np.ndarray | None = None
) -> np.ndarray:
    """Responses to train on.

    A truncated response is left out even if its answer is right: it would teach the
    model not to stop. One whose grader failed is neither right nor wrong.

    Args:
      correct: [P, G] bool, the accuracy, before any shaping of rewards.
      truncated: [P, G] bool, stopped by the length limit.
      failed: [P, G] bool, the grader failed; none if left out.

    Returns:
      [P, G] bool.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> correct, truncated = np.array([[1, 1, 0]]), np.array([[0, 1, 0]])
      >>> correct_and_complete(correct, truncated).tolist()
      [[True, False, False]]
    """
    right = _groups("correct", correct)
    kept = right & ~_groups("truncated", truncated, right.shape)
    return kept if failed is None else kept & ~_groups("failed", failed, right.shape)


def deduplicate_and_cap(
    keep: np.ndarray,
    signatures: Sequence[Sequence[Hashable]],
    *,
    max_per_prompt: int,
    seed: int,
    problem_ids: Sequence[int] | np.ndarray | None = None,
) -> np.ndarray:
    """At most `max_per_prompt` responses per prompt, no two with the same signature.

    Of equal signatures the first is kept. Above the cap, which keeps easy prompts from
    dominating the data, a random subset is kept that depends only on the seed and the
    problem: the same in any batch and order.

    Args:
      keep: [P, G] bool, of `correct_and_complete`.
      signatures: P lists of G: what makes two responses equal, such as their text,
        token ids (a tuple) or `equation_signature`.
      max_per_prompt: >= 1.
      seed: >= 0.
      problem_ids: [P] whole numbers >= 0; the prompts' positions if left out.

    Returns:
      [P, G] bool, a subset of `keep`.

    Raises:
      ValueError: shapes differ, or a number is out of its range.

    Example:
      >>> keep = np.array([[True, True, True, False]])
      >>> texts = [["2*3=6", "2*3=6", "3+3=6", "5"]]
      >>> deduplicate_and_cap(keep, texts, max_per_prompt=4, seed=0).tolist()
      [[True, False, True, False]]
    """
    if max_per_prompt < 1:
        raise ValueError(f"max_per_prompt must be >= 1, got {max_per_prompt}")
    keep = _groups("keep", keep)
    sizes = [len(group) for group in signatures]
    if sizes != [keep.shape[1]] * keep.shape[0]:
        raise ValueError(
            f"signatures must be {keep.shape[0]} lists of {keep.shape[1]}, "
            f"got lists of {sizes}"
        )
    out = np.zeros_like(keep)
    for p, rng in enumerate(prompt_generators(seed, problem_ids, keep.shape[0])):
        first: dict[Hashable, int] = {}
        for g in np.flatnonzero(keep[p]).tolist():
            first.setdefault(signatures[p][g], g)
        distinct = np.array(list(first.values()), int)
        out[p, rng.permutation(distinct)[:max_per_prompt]] = True
    return out


def equation_signature(text: str) -> tuple[str, ...]:
    """The equations of a solution, in order, without spaces: RFT's reasoning path.

    Two solutions with the same list are the same path in different words.

    Args:
      text: of a response.

    Returns:
      The runs of digits and signs that contain an =.

    Example:
      >>> equation_signature("So 2 * 3 = 6, then we add: 6+1=7.")
      ('2*3=6', '6+1=7')
    """
    runs = (run.replace(" ", "").strip(".,") for run in _ARITHMETIC.findall(text))
    return tuple(run for run in runs if "=" in run.strip("="))


def needs_hint(
    correct: np.ndarray, truncated: np.ndarray, *, failed: np.ndarray | None = None
) -> np.ndarray:
    """Prompts without a response to train on, which STaR rationalises.

    They are sampled again with the answer in the prompt; correct responses are then
    trained on with the prompt without the hint. A prompt for which every grade failed
    is not among them: nothing is known about it.

    Args:
      correct: [P, G] bool.
      truncated: [P, G] bool.
      failed: [P, G] bool; none if left out.

    Returns:
      [P] bool.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> needs_hint(np.array([[0, 1], [0, 0]]), np.zeros((2, 2))).tolist()
      [False, True]
    """
    kept = correct_and_complete(correct, truncated, failed=failed)
    unknown = np.zeros_like(kept) if failed is None else _groups("failed", failed)
    return np.logical_not(kept.any(axis=1) | unknown.all(axis=1))


def prompt_generators(
    seed: int, problem_ids: Sequence[int] | np.ndarray | None, prompts: int
) -> list[np.random.Generator]:
    """One random generator per prompt, from only the seed and the problem's id.

    Args:
      seed: >= 0.
      problem_ids: [P] integers >= 0; the positions if left out.
      prompts: P.

    Returns:
      P generators.

    Raises:
      ValueError: there are not P ids, or a number is negative.
    """
    ids = list(range(prompts)) if problem_ids is None else [int(i) for i in problem_ids]
    if len(ids) != prompts:
        raise ValueError(f"problem_ids must be {prompts} numbers, got {len(ids)}")
    if seed < 0 or min(ids, default=0) < 0:
        raise ValueError(f"seed and problem_ids must be >= 0, got {seed} and {ids}")
    return [np.random.default_rng([seed, i]) for i in ids]


def _groups(
    name: str, x: np.ndarray, shape: tuple[int, ...] | None = None
) -> np.ndarray:
    """[P, G] as bool."""
    x = np.asarray(x).astype(bool)
    if x.ndim != 2 or (shape is not None and x.shape != shape):
        raise ValueError(
            f"{name} must have shape {list(shape) if shape else '[P, G]'}, "
            f"got {list(x.shape)}"
        )
    return x
