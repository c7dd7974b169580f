"""A task's own metrics of rollouts: of a step, or of a held-out evaluation."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.metrics_log import Row
from jaxrl_reason.tasks.task import (
    MeasuresResponses,
    ResponseText,
    Task,
    TaskWrapper,
)

# Of every run; a task's metric of the same name would hide one.
METRICS = ("accuracy", "grader_failed_fraction", "ungradable")


def task_metrics(task: Task, problems: Mapping[int, Any], rollouts: Rollouts) -> Row:
    """What a task that measures responses says of all of them, by name.

    Args:
      task: measures, or a task inside it does.
      problems: problem id -> problem.
      rollouts: P groups of G responses.

    Returns:
      Its numbers; empty for a task that measures nothing.

    Raises:
      ValueError: the task returns something that is not finite numbers by name.
    """
    inner: Any = task
    while not isinstance(inner, MeasuresResponses):
        if not isinstance(inner, TaskWrapper):
            return {}
        inner = inner.task
    decode, group = task.tokenizer.decode, rollouts.lengths.shape[1]
    texts = [
        ResponseText(decode(tokens[:length].tolist()), int(length), bool(cut))
        for tokens, length, cut in zip(
            rollouts.tokens.reshape(-1, rollouts.tokens.shape[-1]),
            rollouts.lengths.reshape(-1),
            rollouts.truncated.reshape(-1),
            strict=True,
        )
    ]
    asked = [problems[int(i)] for i in rollouts.problem_ids for _ in range(group)]
    found = inner.measure(asked, texts)
    for name, value in found.items():
        if name in METRICS:
            raise ValueError(
                f"a task's metric must not be called {', '.join(METRICS)}, got {name}"
            )
        if not isinstance(value, int | float | np.number) or not math.isfinite(value):
            raise ValueError(
                f"a task's metrics must be finite numbers, got {value!r:.80} of {name}"
            )
    return {name: float(value) for name, value in found.items()}


def under(group: str, metrics: Row) -> Row:
    """Metrics as they stand in a row, `group/name`.

    Args:
      group: name of the section.
      metrics: by name.

    Example:
      >>> under("task", {"backtracking": 1.5})
      {'task/backtracking': 1.5}
    """
    return {f"{group}/{name}": value for name, value in metrics.items()}
