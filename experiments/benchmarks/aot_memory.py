"""Peak memory a device of one step of a large run, compiled with no such hardware.

    pip install -e '.[tpu-aot]'
    python experiments/benchmarks/aot_memory.py 7b-v5e
    python experiments/benchmarks/aot_memory.py 32b-v5p --hlo 32b.hlo
    python experiments/benchmarks/aot_memory.py 32b-v5p --sequence-parallel
    python experiments/benchmarks/aot_memory.py        # lists the cases

Parameters and AdamW in float32, products in bfloat16, full rematerialisation. A case is
the library's own step for the settings in `CASES`, compiled by libtpu for the slice
(one to five minutes on two cores; --effort O1 is quicker, its peak is not comparable).
It prints the peak in GB (1e9 bytes) a device, what it is made of, and the bound that
the case is held to. Figures repeat exactly within one version of jax and libtpu.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from jaxrl_reason.aot.call_work import call_work
from jaxrl_reason.aot.compile_step import CompileRequest, compile_step
from jaxrl_reason.aot.topology import parse_topology
from jaxrl_reason.rl.rl_settings import RLSettings
from jaxrl_reason.train.group_settings import SamplerSettings
from jaxrl_reason.train.model_settings import ModelSettings
from jaxrl_reason.train.train_settings import TrainSettings


@dataclass(frozen=True)
class Case:
    """A step and the GB a device that it may take."""

    model: str
    topology: str
    mesh: str
    rows: int
    bound: float
    width: int = 4096
    step: str = "update"


CASES = {
    "7b-v5e": Case("qwen2.5-7b", "v5e:16x16", "fsdp=256", 256, 3.9),
    "7b-v5p": Case("qwen2.5-7b", "v5p:4x4x4", "fsdp=64", 64, 5.0),
    "32b-v5e": Case("qwen2.5-32b", "v5e:16x16", "fsdp=32,tensor=8", 32, 5.4),
    "32b-v5p": Case("qwen2.5-32b", "v5p:4x4x4", "fsdp=16,tensor=4", 16, 9.7),
    "32b-v5p-long": Case(
        "qwen2.5-32b", "v5p:4x4x4", "fsdp=16,tensor=4", 16, 25, width=20480
    ),
    "7b-h100": Case("qwen2.5-7b", "h100:64", "fsdp=64", 64, 5.6),
    "32b-sampler": Case(
        "qwen2.5-32b",
        "v5p:4x4x4",
        "fsdp=8,tensor=8",
        256,
        5.0,
        width=2048,
        step="sample",
    ),
}


def settings_of(case: Case) -> TrainSettings:
    """Full rows of one response each, in two micro-batches; a sampler has one round."""
    prompt, sampled = 1024, case.step == "sample"
    return TrainSettings(
        method="reinforce_pp" if sampled else "dapo",
        mesh=case.mesh,
        model=ModelSettings(case.model, dtype="bfloat16", remat="full"),
        rl=RLSettings(
            prompts_per_step=case.rows,
            group_size=1 if sampled else 2,
            updates_per_rollout=1,
            prompt_width=prompt,
            max_new_tokens=case.width - prompt,
            rows_per_micro_batch=case.rows,
            row_width=case.width,
            slots_per_row=1,
        ),
        sampler=SamplerSettings(slots=0),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", nargs="?", choices=CASES)
    parser.add_argument("--hlo", type=Path, help="file for the compiled program")
    parser.add_argument("--effort", default="default", help="of XLA: O1 is quicker")
    parser.add_argument("--sequence-parallel", action="store_true")
    given = parser.parse_args()
    if given.case is None:
        for name, case in CASES.items():
            print(f"{name:<13}{case}")
        return
    case = CASES[given.case]
    settings = settings_of(case)
    found = compile_step(
        CompileRequest(
            replace(settings, sequence_parallel=given.sequence_parallel),
            parse_topology(case.topology),
            case.step,
            given.effort,
            given.hlo,
        )
    )
    print(f"{given.case}: peak {found.peak / 1e9:.2f} GB a device, bound {case.bound}")
    for name, held in found.parts.items():
        print(f"  {name:<12}{held / 1e9:6.2f}")
    for x in found.traffic:
        if x.payload > 1e8:
            axes = "+".join(x.axes)
            print(f"  {x.kind} over {axes}: {x.payload / 1e9:.2f} GB, {x.count:.0f}")
    sent = sum(x.payload for x in found.traffic) / 1e9
    number = call_work(case.step, settings).micro_batches
    print(f"  exchanges {sent:.1f} GB in {number} micro-batches")
    if case.step == "sample":
        gathered = sum(x.payload for x in found.traffic if x.kind == "all-gather")
        print(f"  gathered a token {gathered / (case.width - 1024) / 1e9:.3f} GB")
    print(f"  compiled in {found.seconds:.0f} s with {dict(found.versions)}")


if __name__ == "__main__":
    main()
