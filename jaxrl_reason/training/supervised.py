"""The supervised stage: next-token prediction on packed traces."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxrl_reason.models import Transformer
from jaxrl_reason.training.batch import TrainBatch
from jaxrl_reason.training.minibatches import Placement
from jaxrl_reason.training.objectives import supervised_objective
from jaxrl_reason.training.packing import Packing, PackingShape, pack_sequences
from jaxrl_reason.training.state import OptimizerSettings, TrainState
from jaxrl_reason.training.update import make_update

# One example: prompt tokens and response tokens.
Example = tuple[Sequence[int], Sequence[int]]


@dataclass(frozen=True)
class SupervisedSettings:
    """Sizes of the supervised stage.

    An update takes `examples_per_update` examples, packed into as many micro-batches as
    they need. Small ones fit a core's cache, which counts for more on a CPU than large
    matrix products.
    """

    updates: int = 1200
    examples_per_update: int = 40
    rows_per_micro_batch: int = 4
    row_width: int = 104
    slots_per_row: int = 8
    max_response: int = 96
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if name != "seed" and getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")

    @property
    def shape(self) -> PackingShape:
        """Of a micro-batch."""
        return PackingShape(
            self.rows_per_micro_batch, self.row_width, self.slots_per_row
        )

    @property
    def num_micro(self) -> int:
        """Micro-batches for the worst case, one example a row."""
        return -(-self.examples_per_update // self.rows_per_micro_batch)


@dataclass(frozen=True)
class SupervisedParts:
    """The compiled pieces of the supervised stage."""

    settings: SupervisedSettings
    place: Placement
    learning_rate: Callable[[Any], Any]
    update: Callable[..., tuple[TrainState, Any]]


def build_supervised(
    model: Transformer,
    settings: SupervisedSettings,
    optimizer: OptimizerSettings,
    place: Placement,
) -> SupervisedParts:
    """Builds the jitted update; nothing is compiled yet."""
    place.check(settings.shape)
    if settings.max_response > model.config.context_length:
        raise ValueError(
            f"max_response must be at most the model's context_length "
            f"({model.config.context_length}), got {settings.max_response}"
        )
    update = make_update(supervised_objective(model), optimizer.build(), num_groups=1)
    return SupervisedParts(settings, place, optimizer.schedule(), update)


def pack_examples(
    settings: SupervisedSettings, examples: Sequence[Example]
) -> tuple[TrainBatch, Packing]:
    """Packs the examples of one update."""
    return pack_sequences(
        [np.asarray(p, np.int32) for p, _ in examples],
        [np.asarray(r, np.int32) for _, r in examples],
        settings.shape,
        num_micro=settings.num_micro,
        response_width=settings.max_response,
    )


def supervised_update(
    parts: SupervisedParts, state: TrainState, examples: Sequence[Example]
) -> tuple[TrainState, Any, int]:
    """One update on a batch of examples; (state, metric pairs, tokens trained on).

    The state is donated. The pairs stay on the device, so that the next batch is
    packed while this one is trained on.
    """
    batch, plan = pack_examples(parts.settings, examples)
    tokens = sum(len(p) + len(r) for p, r in examples)
    state, pairs = parts.update(state, parts.place.rows(batch), plan.live)
    return state, pairs, tokens
