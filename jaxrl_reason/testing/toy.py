"""A policy of a few dozen parameters that a loss trains to write three words.

The policy is a table of logits, one row per prompt and position. A prompt has one right
response, of 1, 2 or 4 letters and an end token. The reward is the fraction of the
target that is right before the first error. Groups of 32, GRPO's advantages, Adam, and
two updates per rollout, so that the second has ratios other than 1. Apart from the loss
it is all NumPy: a loss in torch is trained by the same steps on the same random
numbers.
"""

from typing import NamedTuple

import numpy as np

from jaxrl_reason.testing.arrays import NUM_GROUPS, Arrays
from jaxrl_reason.testing.evaluate import Loss

LENGTHS = (1, 2, 4)
_LETTERS, _WIDTH, _GROUP = 5, 6, 32  # the end token is 0, letters are 1 to 5
_UPDATES, _RATE = 2, 0.1
_VOCABULARY = _LETTERS + 1


class Curve(NamedTuple):
    """The curves of a toy run.

    Attributes:
      accuracy: fraction of responses that are the target with its end token, by step.
      reward: mean reward, by step.
    """

    accuracy: np.ndarray
    reward: np.ndarray


def _log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def learn(loss: Loss, seed: int, steps: int = 60) -> Curve:
    """Trains a table with a loss.

    Args:
      loss: the wrapped loss.
      seed: of the targets and of every draw.
      steps: rollouts.

    Returns:
      The curve.
    """
    rng = np.random.default_rng(seed)
    targets = np.zeros((NUM_GROUPS, _WIDTH), int)
    for row, length in zip(targets, LENGTHS, strict=True):
        row[:length] = rng.integers(1, _VOCABULARY, length)
    logits = np.zeros((NUM_GROUPS, _WIDTH, _VOCABULARY))
    start = logits.copy()
    groups = np.repeat(np.arange(NUM_GROUPS), _GROUP)
    adam = _Adam(logits.shape)
    accuracy, reward = np.zeros(steps), np.zeros(steps)
    for step in range(steps):
        tokens, mask = _sample(rng, logits[groups])
        scores, right = _grade(tokens, mask, targets[groups])
        accuracy[step], reward[step] = right.mean(), scores.mean()
        batch = _batch(loss, logits, start, tokens, mask, scores, right)
        for _ in range(_UPDATES):
            batch["logprobs"] = _of_tokens(logits[groups], tokens).astype(np.float32)
            slope = loss.run(batch).grad
            if not np.isfinite(slope).all():
                accuracy[step:] = reward[step:] = np.nan
                return Curve(accuracy, reward)
            logits = logits - adam.update(_to_logits(slope, logits, tokens, groups))
    return Curve(accuracy, reward)


def _sample(
    rng: np.random.Generator, logits: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [B, T], and the mask up to the first end token."""
    noise = rng.gumbel(size=logits.shape)
    tokens = (logits + noise).argmax(-1)
    before = np.cumsum(tokens == 0, axis=1) - (tokens == 0)
    return tokens, before == 0


def _grade(
    tokens: np.ndarray, mask: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The fraction right before the first error, and whether all is right."""
    lengths = (targets > 0).sum(1) + 1  # with the end token
    agree = np.cumprod((tokens == targets) & mask, axis=1)
    reached = np.minimum(agree.sum(1), lengths)
    return reached / lengths, reached == lengths


def _of_tokens(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    found = np.take_along_axis(_log_softmax(logits), tokens[..., None], -1)
    return found[..., 0]


def _batch(
    loss: Loss,
    logits: np.ndarray,
    start: np.ndarray,
    tokens: np.ndarray,
    mask: np.ndarray,
    scores: np.ndarray,
    right: np.ndarray,
) -> Arrays:
    """The arrays of a rollout, with the loss's inputs."""
    groups = np.repeat(np.arange(NUM_GROUPS), _GROUP)
    by_group = scores.reshape(NUM_GROUPS, _GROUP)
    centred = by_group - by_group.mean(1, keepdims=True)
    advantages = (centred / (by_group.std(1, ddof=1, keepdims=True) + 1e-6)).ravel()
    old = _of_tokens(logits[groups], tokens)
    every = _log_softmax(logits[groups])
    made = {
        "old_logprobs": old,
        "advantages": np.repeat(advantages[:, None], _WIDTH, 1),
        "entropy": -(np.exp(every) * every).sum(-1),
        "ref_logprobs": _of_tokens(start[groups], tokens),
        "weights": np.ones_like(old),
    }
    arrays: Arrays = {
        name: made.get(name, old).astype(np.float32)
        for name in ("old_logprobs", "advantages", *loss.inputs)
        if name in made or name.endswith("_logprobs")
    }
    arrays |= {"mask": mask, "group_ids": groups.astype(np.int32)}
    if "selected" in loss.inputs:
        arrays["selected"] = np.zeros_like(mask)
    if "correct" in loss.inputs:
        arrays["correct"] = right
    return arrays


def _to_logits(
    slope: np.ndarray, logits: np.ndarray, tokens: np.ndarray, groups: np.ndarray
) -> np.ndarray:
    """dL/dlogits from dL/dlogprob: slope (one-hot - probabilities) for each token."""
    probabilities = np.exp(_log_softmax(logits[groups]))
    own = np.eye(_VOCABULARY)[tokens] - probabilities
    found = np.zeros_like(logits)
    np.add.at(found, groups, slope[..., None] * own)
    return found


class _Adam:
    """Adam, whose steps do not depend on the scale of a loss."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.mean, self.square, self.count = np.zeros(shape), np.zeros(shape), 0

    def update(self, gradient: np.ndarray) -> np.ndarray:
        self.count += 1
        self.mean += 0.1 * (gradient - self.mean)
        self.square += 0.05 * (gradient**2 - self.square)
        mean = self.mean / (1 - 0.9**self.count)
        square = self.square / (1 - 0.95**self.count)
        return _RATE * mean / (np.sqrt(square) + 1e-12)


def interval(curves: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The 95% bootstrap interval of the mean over seeds, by step.

    Args:
      curves: [seeds, steps].
      seed: of the resampling.

    Returns:
      Lower and upper bound, [steps] each.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(curves), (2000, len(curves)))
    low, high = np.percentile(curves[chosen].mean(1), [2.5, 97.5], axis=0)
    return low, high
