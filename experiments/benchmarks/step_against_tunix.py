"""One DAPO step: ours against google-tunix's DAPOLearner.

    pip install google-tunix -e .
    python experiments/benchmarks/step_against_tunix.py --model MODEL.gguf
    python experiments/benchmarks/step_against_tunix.py --model MODEL.gguf --steps 1 \
        --micro-batches 4 --packed 0 --remat False

The step is that of `step_against_trl.py`, which see, for its turns too: the same
weights, prompts in the same order, EOS tokens, clip bounds and grader. Both run in
float32. tunix has its vanilla rollout engine and its Llama 3 model, and trains on what
the rollout left of a response, which is without the EOS token. No reference model:
DAPOConfig's own `beta=None` asks for its log-probs but has no use for them, so here it
is 0.
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
from experiments.benchmarks.step_workers import OurOptions, Setting, Tunix, WorkOptions


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
      model: a .gguf file or a Hugging Face folder.
      work: the step.
      ours: our settings to try.
      steps: counted turns of the finalists.
      micro_batches: tunix's train_micro_batch_size, in prompts, to try; none leaves
        it out.
      packed: tunix's max_seq_token_per_tpu to try, 0 for padded rows.
      remat: whether tunix recomputes decoder layers, to try.
      json: where to write the result, if anywhere.
    """

    model: Path
    work: WorkOptions = field(default_factory=WorkOptions)
    ours: OurOptions = field(default_factory=OurOptions)
    steps: int = 5
    micro_batches: tuple[int, ...] = (4,)
    packed: tuple[int, ...] = (0, 512)
    remat: tuple[bool, ...] = (False,)
    json: Path | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be >= 1, got {self.steps}")
        for size in self.micro_batches:
            if self.work.prompts % size:
                raise ValueError(
                    f"micro_batches must divide the prompts of a step "
                    f"({self.work.prompts}), got {size}"
                )


def settings_of(options: Options) -> list[Setting]:
    """All settings to try."""
    theirs = product(options.micro_batches, options.packed, options.remat)
    return [*options.ours.settings(), *(Tunix(*chosen) for chosen in theirs)]


def main(options: Options) -> dict[str, Any]:
    """Measure, print, and write what was asked for."""
    if options.micro_batches:
        peers.need("tunix", extra="google-tunix")
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
