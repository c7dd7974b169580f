"""One DAPO step: ours against trl's GRPOTrainer(loss_type="dapo").

    pip install 'jaxrl-reason[benchmarks]'
    python experiments/benchmarks/step_against_trl.py --model MODEL.gguf
    python experiments/benchmarks/step_against_trl.py --model MODEL.gguf --steps 1 \
        --dtypes float32 --micro-batches 8 --checkpointing False

A step is a rollout of P prompts with G samples each at temperature 1, grading, and one
AdamW update over all of them: clip bounds 0.2 and 0.28, no KL, no dynamic sampling, a
reward of 1 or -1 from the same grader. Both sides have the same weights, prompts in the
same order, and EOS tokens; each samples for itself, so lengths differ a little and are
in the table.

Every setting runs in a process of its own, so that its peak memory is its own. First
each setting makes a step that is not counted and one that is. Then the fastest of ours
and the fastest of trl's in each type take turns, `--steps` each; medians count.
Types of trl: "float32"; "mixed" is float32 weights under bfloat16 autocast, trl's own
default; "bfloat16" has weights and AdamW in bfloat16 too.
"""

import json
import sys
import tempfile
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import tyro

# Run as a script, this file's folder is on the path, not the root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from experiments.benchmarks import peers
from experiments.benchmarks.step_turns import compare
from experiments.benchmarks.step_workers import OurOptions, Setting, Trl, WorkOptions


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
      model: a .gguf file or a Hugging Face folder.
      work: the step.
      ours: our settings to try.
      steps: counted turns of the finalists.
      dtypes: trl's to try, of "float32", "mixed" and "bfloat16"; none leaves it out.
      micro_batches: trl's per_device_train_batch_size to try; the rest of the P * G
        responses is gradient accumulation.
      checkpointing: trl's gradient_checkpointing to try (its default is on).
      json: where to write the result, if anywhere.
    """

    model: Path
    work: WorkOptions = field(default_factory=WorkOptions)
    ours: OurOptions = field(default_factory=OurOptions)
    steps: int = 5
    dtypes: tuple[str, ...] = ("float32", "mixed", "bfloat16")
    micro_batches: tuple[int, ...] = (32, 8)
    checkpointing: tuple[bool, ...] = (False, True)
    json: Path | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be >= 1, got {self.steps}")
        for size in self.micro_batches:
            if self.work.responses % size:
                raise ValueError(
                    f"micro_batches must divide the responses of a step "
                    f"({self.work.responses}), got {size}"
                )


def settings_of(options: Options) -> list[Setting]:
    """All settings to try."""
    theirs = product(options.dtypes, options.micro_batches, options.checkpointing)
    return [*options.ours.settings(), *(Trl(*chosen) for chosen in theirs)]


def main(options: Options) -> dict[str, Any]:
    """Measure, print, and write what was asked for."""
    if options.dtypes:
        peers.need("torch", "transformers", "trl")
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work.into(options.model, Path(scratch))
        result = compare(
            peers.wide_console(), work, settings_of(options), options.steps
        )
    result = {"model": options.model.name, **result}
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return result


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
