"""The work of one call of a step at full lengths: operations, tokens, iterations.

Every response is taken to be as long as the limit allows, so that rows are full and
all micro-batches are needed: the dearest call that the settings allow.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from jaxrl_reason.aot.flops import Flops, count_flops
from jaxrl_reason.aot.run_steps import RunSteps, prompts_at_once
from jaxrl_reason.models.chunked_attention import BLOCK
from jaxrl_reason.sampler.sample_loop import stage_ends
from jaxrl_reason.train.train_settings import TrainSettings


@dataclass(frozen=True)
class CallWork:
    """What the settings make of one call.

    Attributes:
      micro_batches: that hold sequences.
      columns: of a row: the width of packed ones, or prompt and response.
      tokens: of prompts and responses.
      stages: tokens decoded in each stage of the sampler's cache.
    """

    micro_batches: int
    columns: int
    tokens: int
    stages: tuple[int, ...]

    def trips(self, limit: int | None, op_name: str) -> float:
        """Iterations of a loop of the compiled program whose end it computes.

        In attention a block of queries needs half of the blocks of keys, and its own.

        Args:
          limit: the number that its condition compares with, if there is one.
          op_name: where it stands in the traced function.
        """
        if "/attention/" in op_name:
            return (math.ceil(self.columns / BLOCK) + 1) / 2
        if limit is not None and self.stages:
            return self.stages[min(limit // max(self.stages), len(self.stages)) - 1]
        return self.micro_batches

    def loops(self, number: int, first: int) -> float:
        """Iterations of loop `number` of the traced function, which starts at `first`.

        Args:
          number: of the loop, in the order in which they stand.
          first: what it counts from.
        """
        if self.stages:
            return self.stages[number]
        return self.micro_batches - first


def call_work(step: str, run: TrainSettings) -> CallWork:
    """The work of a step of a run.

    Args:
      step: one of `STEPS`.
      run: settings of the run.

    Example:
      >>> from jaxrl_reason.train.presets import PRESETS
      >>> work = call_work("update", PRESETS["dapo-qwen2.5-32b"])
      >>> work.micro_batches, work.tokens
      (32, 11534336)
    """
    settings = run.rl
    longest = settings.prompt_width + settings.max_new_tokens
    if step == "sample":
        ends = [1, *stage_ends(settings.max_new_tokens)]
        stages = tuple(b - a for a, b in pairwise(ends))
        sequences = prompts_at_once(run) * settings.group_size
        return CallWork(1, longest, sequences * longest, stages)
    sequences = settings.sequences // settings.updates_per_rollout
    in_row = min(settings.slots_per_row, settings.row_width // longest)
    rows = math.ceil(sequences / in_row)
    micro_batches = math.ceil(rows / settings.rows_per_micro_batch)
    return CallWork(micro_batches, settings.row_width, sequences * longest, ())


def model_and_executed(
    step: str, as_run: RunSteps, without_remat: RunSteps, work: CallWork
) -> tuple[float, float]:
    """Operations of the model, and those that are executed, over all devices.

    A pass backward is twice the pass forward (arXiv 2001.08361, section 2.1). Attention
    counts the pairs of columns of a full causal row.

    Args:
      step: one of `STEPS`.
      as_run: the run's functions, with attention that holds all pairs.
      without_remat: the same, without computing anything again.
      work: of the step.
    """
    executed = _count(step, as_run, work)
    if step == "sample":
        return executed, executed
    forward = _count("score", without_remat, work)
    return (3 * forward if step == "update" else forward), executed


def _count(step: str, steps: RunSteps, work: CallWork) -> float:
    function, arguments = steps.calls[step]
    jaxpr: Any = function.trace(*arguments).jaxpr
    flops: Flops = count_flops(jaxpr, work.loops)
    # A sampler's loop makes all pairs with its cache; only training skips half.
    return flops.dense + flops.pairs if work.stages else flops.causal(work.columns)
