"""The table of docs/aot.md: one update of three models on seven kinds of devices.

    pip install -e '.[tpu-aot,cuda-aot]'
    python experiments/benchmarks/aot_table.py              # compiles what is missing
    python experiments/benchmarks/aot_table.py --only 0.5b  # or a part of it

DAPO on rows of 4,096 tokens, one row at a time for each group of devices that shares
one; parameters and AdamW in float32, products in bfloat16, full rematerialisation. One
compilation takes a minute or several, and at --effort O1 a third of that, for a peak
that is not comparable: the table marks it. Results are kept in docs/aot_table.json,
from which the table is written; delete it to compile all again.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxrl_reason.aot.chips import CHIPS
from jaxrl_reason.aot.compile_step import CompileRequest, compile_step
from jaxrl_reason.aot.topology import parse_topology
from jaxrl_reason.aot.verdict import expected_speed, time_limits
from jaxrl_reason.rl.rl_settings import RLSettings
from jaxrl_reason.train.group_settings import SamplerSettings
from jaxrl_reason.train.model_settings import ModelSettings
from jaxrl_reason.train.train_settings import TrainSettings

DOCS = Path(__file__).parents[2] / "docs"
RESULTS, PAGE = DOCS / "aot_table.json", DOCS / "aot.md"
BEGIN, END = "<!-- table of experiments/benchmarks/aot_table.py -->", "<!-- end -->"
WIDTH = 4096


@dataclass(frozen=True)
class Cell:
    """A model on devices; rows are those of a micro-batch."""

    model: str
    topology: str
    mesh: str
    rows: int

    @property
    def name(self) -> str:
        return f"{self.model} {self.topology} {self.mesh}"


SMALL = ("v5e:2x4", "v5p:2x2x2", "v6e:2x4", "tpu7x:2x2x1", "h100:8", "h200:8", "b200:8")
LARGE = (
    "v5e:8x8",
    "v5p:4x4x4",
    "v6e:8x8",
    "tpu7x:2x4x4",
    "h100:64",
    "h200:64",
    "b200:64",
)
CELLS = (
    *(Cell("qwen2.5-0.5b", x, "fsdp=8", 8) for x in SMALL),
    *(Cell("qwen2.5-7b", x, "fsdp=64", 64) for x in LARGE),
    Cell("qwen2.5-32b", "v5e:16x16", "fsdp=32,tensor=8", 32),
    *(Cell("qwen2.5-32b", x, "fsdp=16,tensor=4", 16) for x in LARGE[1:]),
)


def settings_of(cell: Cell) -> TrainSettings:
    return TrainSettings(
        mesh=cell.mesh,
        model=ModelSettings(cell.model, dtype="bfloat16", remat="full"),
        rl=RLSettings(
            prompts_per_step=cell.rows,
            group_size=2,
            updates_per_rollout=1,
            prompt_width=1024,
            max_new_tokens=WIDTH - 1024,
            rows_per_micro_batch=cell.rows,
            row_width=WIDTH,
            slots_per_row=1,
        ),
        sampler=SamplerSettings(slots=0),
    )


def measure(cell: Cell, effort: str) -> dict[str, Any]:
    topology = parse_topology(cell.topology)
    step = compile_step(CompileRequest(settings_of(cell), topology, "update", effort))
    found: dict[str, Any] = {
        "effort": effort,
        "peak": step.peak,
        "fits": step.fits,
        "exchanged": sum(x.payload for x in step.traffic),
        "versions": dict(step.versions),
        "seconds": step.seconds,
    }
    if step.fits:
        speed = expected_speed(step, topology.chip)
        found |= {
            "bottleneck": time_limits(step, topology.chip).bottleneck,
            "tokens": speed.tokens,
            "mfu": speed.utilisation,
        }
    return found


def table(results: dict[str, Any]) -> str:
    """Markdown of what was measured, and a line of what was not."""
    lines = [
        "| model | devices | mesh | peak GB of | exchanged GB | bottleneck "
        "| tokens/s | MFU |",
        "|---|---|---|---|---|---|---|---|",
    ]
    missing, versions = [], set[str]()
    for cell in CELLS:
        found = results.get(cell.name)
        if found is None:
            missing.append(f"{cell.model} on {cell.topology}")
            continue
        versions |= {f"{k} {v}" for k, v in found["versions"].items()}
        memory = CHIPS[cell.topology.partition(":")[0]].memory / 1e9
        peak = f"{found['peak'] / 1e9:.2f} of {memory:.1f}"
        if found.get("effort", "default") != "default":
            peak += f" ({found['effort']})"
        start = f"| {cell.model} | {cell.topology} | {cell.mesh} | {peak} "
        if not found["fits"]:
            lines.append(f"{start}| - | does not fit | - | - |")
            continue
        tokens = " to ".join(f"{x:,.0f}" for x in found["tokens"])
        mfu = " to ".join(f"{100 * x:.0f}" for x in found["mfu"])
        lines.append(
            f"{start}| {found['exchanged'] / 1e9:.1f} | {found['bottleneck']} "
            f"| {tokens} | {mfu}% |"
        )
    said = f"Compiled with {', '.join(sorted(versions))}." if versions else ""
    if missing:
        said += f" Not compiled: {', '.join(missing)}."
    return "\n".join([*lines, "", said])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="part of a cell's name")
    parser.add_argument("--effort", default="default", help="of XLA: O1 is quicker")
    given = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for cell in CELLS:
        if cell.name in results or given.only not in cell.name:
            continue
        try:
            results[cell.name] = measure(cell, given.effort)
        except ValueError as error:
            print(f"{cell.name}: {error}")
            continue
        print(f"{cell.name}: {results[cell.name]}", flush=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{table(results)}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
