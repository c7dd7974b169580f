"""One DAPO step: ours against trl's GRPOTrainer or google-tunix's DAPOLearner.

    pip install -e '.[benchmarks]'
    python experiments/benchmarks/step_against_peer.py --model MODEL.gguf trl
    python experiments/benchmarks/step_against_peer.py --model MODEL.gguf --steps 1 \
        trl --dtypes float32 --micro-batches 8 --checkpointing False
    pip install google-tunix
    python experiments/benchmarks/step_against_peer.py --model MODEL.gguf tunix

A step is a rollout of P prompts with G samples each at temperature 1, grading, and one
AdamW update over all of them: clip bounds 0.2 and 0.28, no KL, no dynamic sampling, a
reward of 1 or -1 from the same grader. Both sides have the same weights, prompts in the
same order, and EOS tokens; each samples for itself, so lengths differ a little and are
in the table.

Every setting runs in a process of its own, so that its peak memory is its own. First
each setting makes a step that is not counted and one that is. Then the fastest of ours
and the fastest of the peer's in each type take turns, `--steps` each; medians count.

Types of trl, which trains with loss_type="dapo": "float32"; "mixed" is float32 weights
under bfloat16 autocast, trl's own default; "bfloat16" has weights and AdamW in bfloat16
too. tunix runs in float32, with its vanilla rollout engine and its Llama 3 model, and
trains on what the rollout left of a response, which is without the EOS token. No
reference model there: DAPOConfig's own `beta=None` asks for its log-probs but has no
use for them, so here it is 0.
"""

import json
import sys
import tempfile
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import tyro

# Run as a script, this file's folder is on the path, not the root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from experiments.benchmarks import peers
from experiments.benchmarks.step_turns import compare
from experiments.benchmarks.step_work import (
    OurOptions,
    Setting,
    Trl,
    Tunix,
    WorkOptions,
)


@dataclass(frozen=True)
class TrlOptions:
    """Compare with trl.

    Attributes:
      dtypes: of "float32", "mixed" and "bfloat16"; none leaves trl out.
      micro_batches: per_device_train_batch_size to try; the rest of the P * G
        responses is gradient accumulation.
      checkpointing: gradient_checkpointing to try (trl's default is on).
    """

    dtypes: tuple[str, ...] = ("float32", "mixed", "bfloat16")
    micro_batches: tuple[int, ...] = (32, 8)
    checkpointing: tuple[bool, ...] = (False, True)

    def settings(self) -> list[Setting]:
        """All settings to try."""
        tried = product(self.dtypes, self.micro_batches, self.checkpointing)
        return [Trl(*chosen) for chosen in tried]

    def need(self) -> None:
        """Leave with one sentence where trl is not installed."""
        peers.need("torch", "transformers", "trl")

    def check(self, work: WorkOptions) -> None:
        """Refuse micro-batches that do not divide the step."""
        check_divides("responses", work.responses, self.micro_batches)


@dataclass(frozen=True)
class TunixOptions:
    """Compare with google-tunix.

    Attributes:
      micro_batches: train_micro_batch_size, in prompts, to try; none leaves tunix
        out.
      packed: max_seq_token_per_tpu to try, 0 for padded rows.
      remat: whether decoder layers are recomputed, to try.
    """

    micro_batches: tuple[int, ...] = (4,)
    packed: tuple[int, ...] = (0, 512)
    remat: tuple[bool, ...] = (False,)

    def settings(self) -> list[Setting]:
        """All settings to try."""
        tried = product(self.micro_batches, self.packed, self.remat)
        return [Tunix(*chosen) for chosen in tried]

    def need(self) -> None:
        """Leave with one sentence where tunix is not installed."""
        peers.need("tunix", extra="google-tunix")

    def check(self, work: WorkOptions) -> None:
        """Refuse micro-batches that do not divide the step."""
        check_divides("prompts", work.prompts, self.micro_batches)


def check_divides(name: str, count: int, sizes: tuple[int, ...]) -> None:
    """Refuse sizes of micro-batches that do not divide what a step has."""
    for size in sizes:
        if count % size:
            raise ValueError(
                f"micro_batches must divide the {name} of a step ({count}), got {size}"
            )


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
      model: a .gguf file or a Hugging Face folder.
      peer: whom to compare with.
      work: the step.
      ours: our settings to try.
      steps: counted turns of the finalists.
      json: where to write the result, if anywhere.
    """

    model: Path
    peer: (
        Annotated[TrlOptions, tyro.conf.subcommand("trl")]
        | Annotated[TunixOptions, tyro.conf.subcommand("tunix")]
    )
    work: WorkOptions = field(default_factory=WorkOptions)
    ours: OurOptions = field(default_factory=OurOptions)
    steps: int = 5
    json: Path | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be >= 1, got {self.steps}")
        self.peer.check(self.work)


def main(options: Options) -> dict[str, Any]:
    """Measure, print, and write what was asked for."""
    theirs = options.peer.settings()
    if theirs:
        options.peer.need()
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work.into(options.model, Path(scratch))
        settings = [*options.ours.settings(), *theirs]
        result = compare(peers.wide_console(), work, settings, options.steps)
    result = {"model": options.model.name, **result}
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return result


if __name__ == "__main__":
    main(
        tyro.cli(
            Options, description=__doc__, config=(tyro.conf.OmitSubcommandPrefixes,)
        )
    )
