"""Folders of runs with evaluations."""

import json
from pathlib import Path

from jaxrl_reason.runs.forecast import sigmoid
from jaxrl_reason.runs.metrics_log import MetricsLog


def write_run(
    path: Path, *, count: int, asymptote: float = 0.6, devices: int = 1
) -> Path:
    """A run of `count` evaluations, one in five steps, that starts at 25%."""
    path.mkdir(parents=True)
    config = {"settings": {}, "devices": {"count": devices}}
    (path / "config.json").write_text(json.dumps(config))
    before = {"greedy": {"value": 0.25, "low": 0.19, "high": 0.32, "count": 200}}
    (path / "before.json").write_text(json.dumps(before))
    with MetricsLog(path, tensorboard=False) as log:
        for step in range(1, 5 * count + 1):
            row = {"time/step_s": 3.0, "rollout/tokens": 1000.0}
            if step % 5 == 0:
                right = float(sigmoid(step, 0.25, asymptote, 1.5, 10.0))
                row |= {"heldout/accuracy": right, "time/step_s": 4.0}
                row["time/evaluate_s"] = 1.0
            log.write(step, row)
    return path
