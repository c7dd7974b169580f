"""Runs of `jaxrl-reason train` at toy size: their flags, their reward, their rows."""

import shlex

from jaxrl_reason.runs.metrics_log import read_metrics

# One-digit sums; fine-tuning teaches to answer with some digit and to end.
TINY = shlex.split("""
    --task sums.jsonl --task.question problem --task.answer solution
    --task.response said --task.instruction ''
    --model 1x16 --model.head-dim 8 --sampler.slots 0
    --sft.updates 60 --sft.examples-per-update 8 --sft-optimizer.learning-rate 0.02
    --rl.steps 2 --rl.prompts-per-step 4 --rl.group-size 4 --rl.max-new-tokens 4
    --rl.rows-per-micro-batch 2 --rl.max-rounds 30 --optimizer.learning-rate 0.01
    --dapo.overlong-cache 2 --eval.problems 4 --eval.samples 2 --eval.every 1
    --save-every 1 --offline.pairs-per-update 8
""")
REWARD = """
def parity(prompt, response, row):
    assert prompt == row["problem"]
    right = response.isdigit() and int(response) % 2 == row["solution"] % 2
    return {"parity": float(right), "short": 0.1 * (len(response) == 1)}
"""


def numbers(run):
    """The rows of a run but for what differs from process to process."""
    varying = ("time/", "_per_s", "memory")
    return [
        {k: v for k, v in row.items() if not any(word in k for word in varying)}
        for row in read_metrics(run / "metrics.jsonl")
    ]
