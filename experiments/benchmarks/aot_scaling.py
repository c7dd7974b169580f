"""Weak scaling from compiled programs: the same rows a device on 16 to 1,024 chips.

    pip install -e '.[tpu-aot]'
    python experiments/benchmarks/aot_scaling.py             # the slices in SLICES
    python experiments/benchmarks/aot_scaling.py --effort O1 # quicker

One DAPO update of Qwen3-8B on TPU v5p, one row of 4,096 tokens a device in each of two
micro-batches; parameters, moments and gradients are split over at most 256 chips, and
more chips have copies. It prints for each slice what a device exchanges and the time
limits of a call from public peaks: how they grow from slice to slice is what the
exchanges add, since a device has the same work on each. Nothing was timed on such
chips.
"""

import argparse

from jaxrl_reason.aot.compile_step import CompiledStep, CompileRequest, compile_step
from jaxrl_reason.aot.topology import parse_topology
from jaxrl_reason.aot.verdict import time_limits
from jaxrl_reason.rl.rl_settings import RLSettings
from jaxrl_reason.train.group_settings import SamplerSettings
from jaxrl_reason.train.model_settings import ModelSettings
from jaxrl_reason.train.train_settings import TrainSettings

SLICES = ("v5p:2x2x4", "v5p:4x8x8", "v5p:8x8x16")
WIDTH, PROMPT = 4096, 1024


def settings_of(model: str, devices: int) -> TrainSettings:
    """One row a device at a time, two micro-batches."""
    parts = min(devices, 256)
    return TrainSettings(
        mesh=f"data={devices // parts},fsdp={parts}",
        model=ModelSettings(model, dtype="bfloat16", remat="full"),
        rl=RLSettings(
            prompts_per_step=devices,
            group_size=2,
            updates_per_rollout=1,
            prompt_width=PROMPT,
            max_new_tokens=WIDTH - PROMPT,
            rows_per_micro_batch=devices,
            row_width=WIDTH,
            slots_per_row=1,
        ),
        sampler=SamplerSettings(slots=0),
    )


def row(step: CompiledStep, first: tuple[float, float] | None) -> str:
    """A line of the table; `first` are the seconds of the first slice."""
    topology = parse_topology(step.topology)
    limits = time_limits(step, topology.chip)
    seconds = (limits.overlapped, limits.in_turn)
    grown = [now / then for now, then in zip(seconds, first or seconds, strict=True)]
    cells = (
        str(topology.num_devices),
        step.topology,
        f"{step.peak / 1e9:.2f}",
        f"{sum(x.payload for x in step.traffic) / 1e9:.1f}",
        f"{sum(x.sent for x in step.traffic) / 1e9:.1f}",
        *(f"{x:.2f}" for x in limits.by_name.values()),
        f"{seconds[0]:.2f} to {seconds[1]:.2f}",
        " to ".join(f"{x:.2f}" for x in sorted(grown)),
    )
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| chips | slice | peak GB | exchanged GB | sent GB | compute s | memory s "
    "| interconnect s | call s | of the first |\n" + "|---" * 10 + "|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="qwen3-8b")
    parser.add_argument("--slices", nargs="+", default=SLICES)
    parser.add_argument("--effort", default="default", help="of XLA: O1 is quicker")
    given = parser.parse_args()
    print(HEAD, flush=True)
    first = None
    for name in given.slices:
        topology = parse_topology(name)
        settings = settings_of(given.model, topology.num_devices)
        step = compile_step(CompileRequest(settings, topology, "update", given.effort))
        print(row(step, first), flush=True)
        limits = time_limits(step, topology.chip)
        first = first or (limits.overlapped, limits.in_turn)


if __name__ == "__main__":
    main()
