"""Other meshes, remat and micro-batches of a run that are worth compiling.

What is worth compiling is estimated without a compiler, from parameters and rows:
states that do not fit are left out, the rest is ranked by a time of its own.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from jaxrl_reason.aot.chips import Chip
from jaxrl_reason.aot.known_models import model_shape
from jaxrl_reason.aot.mesh_sizes import mesh_text, own_devices, shares, splits
from jaxrl_reason.aot.topology import Topology
from jaxrl_reason.models import TransformerConfig
from jaxrl_reason.sharding import MESH_AXES
from jaxrl_reason.train.train_settings import TrainSettings

REMATS = ("none", "dots", "full")
# Passes over the model in units of a forward pass; and what a layer keeps a column in
# units of D numbers, in its residual stream and of its heads and hidden units.
_PASSES = {"none": 3.0, "dots": 3.2, "full": 4.0}
_KEPT = {"none": (4.0, 30.0), "dots": (2.0, 16.0), "full": (1.0, 0.0)}
# Of parameters: the number, two moments and a gradient, in float32.
_STATE_BYTES = 16


@dataclass(frozen=True)
class Candidate:
    """Settings that may be worth compiling.

    Attributes:
      settings: of the run.
      flags: what differs, as flags.
      seconds: of an update, estimated.
      memory: bytes a device, estimated.
    """

    settings: TrainSettings
    flags: str
    seconds: float
    memory: float


def parameter_count(config: TransformerConfig) -> int:
    """The number of a transformer's parameters, without biases and norms.

    Args:
      config: of the model.
    """
    heads = 2 * config.num_heads + 2 * config.num_kv_heads
    layer = config.hidden_size * (heads * config.head_dim + 3 * config.mlp_dim)
    ends = 1 if config.tie_embeddings else 2
    ends *= config.vocab_size * config.hidden_size
    return config.num_layers * layer + ends


def meshes(
    devices: int, config: TransformerConfig, width: int
) -> Iterator[dict[str, int]]:
    """Sizes of the mesh axes that divide the model and its rows.

    Args:
      devices: in all.
      config: of the model.
      width: columns of a row.
    """
    for tensor, context in product((1, 2, 4, 8, 16), repeat=2):
        if devices % (tensor * context) or not splits(config, tensor):
            continue
        rest = devices // (tensor * context)
        for data in (1, 2, 4, 8, 16, 32, 64):
            sizes = (data, rest // data, context, tensor)
            named = dict(zip(MESH_AXES, sizes, strict=True))
            if rest % data == 0 and shares(config, width, named):
                yield named


def candidates(settings: TrainSettings, topology: Topology) -> list[Candidate]:
    """Settings whose state fits, the quickest by estimate first.

    Args:
      settings: of the run; all but mesh, remat and rows of a micro-batch stay.
      topology: the devices; those of a sampler's own mesh are not for the training.

    Raises:
      ValueError: no mesh divides the model, or none has room for its state.
    """
    config = model_shape(settings.model.source)
    devices = topology.num_devices - own_devices(settings)
    found = [
        _candidate(settings, topology.chip, config, sizes, remat, rows)
        for sizes in meshes(devices, config, settings.rl.row_width)
        for remat in REMATS
        for rows in (1, 2, 4)
    ]
    found = [x for x in found if x.memory < topology.chip.memory]
    if not found:
        raise ValueError(
            f"the state of {settings.model.source} must fit {topology} on some mesh, "
            f"got none"
        )
    return sorted(found, key=lambda x: x.seconds)


def _candidate(
    settings: TrainSettings,
    chip: Chip,
    config: TransformerConfig,
    sizes: dict[str, int],
    remat: Any,
    rows: int,
) -> Candidate:
    tensor, context = sizes["tensor"], sizes["context"]
    of_weights = sizes["fsdp"] * context
    width = settings.rl.row_width / context  # of a device
    parameters = parameter_count(config)
    columns = rows * width  # of a device's micro-batch
    residual, inner = _KEPT[remat]
    kept = residual / (tensor if settings.sequence_parallel else 1) + inner / tensor
    kept *= columns * config.hidden_size * 2 * config.num_layers
    memory = state_bytes(settings.model.source, sizes) + kept
    # Of one row of a device: the more rows share a gather, the less each pays.
    compute = _PASSES[remat] * 2 * parameters * width / tensor / chip.peak_flops
    gathers = 3 if remat == "none" else 4
    weights = gathers * 2 * parameters / tensor * (of_weights > 1)
    sums = 4 * 2 * columns * config.hidden_size * 2 * config.num_layers * (tensor > 1)
    # Keys and values of whole rows, gathered in each pass, and their gradients.
    heads = 2 * config.num_kv_heads * config.head_dim / tensor
    keys = gathers * 2 * rows * settings.rl.row_width * heads * config.num_layers
    speed = chip.link * max(1, chip.dimensions)
    seconds = compute + (weights + sums + keys * (context > 1)) / speed / rows
    # A row's share of devices: the more have a row together, the fewer rows at a time.
    seconds *= tensor * context / math.prod(sizes.values())
    changed = with_flags(
        settings, mesh_text(sizes), remat, rows * sizes["data"] * sizes["fsdp"]
    )
    flags = (
        f"--mesh {changed.mesh} --model.remat {remat} "
        f"--rl.rows-per-micro-batch {changed.rl.rows_per_micro_batch}"
    )
    return Candidate(changed, flags, seconds, memory)


def with_flags(
    settings: TrainSettings, mesh: str, remat: Any, rows: int
) -> TrainSettings:
    """The settings with another mesh, remat and number of rows."""
    return dataclasses.replace(
        settings,
        mesh=mesh,
        model=dataclasses.replace(settings.model, remat=remat),
        rl=dataclasses.replace(settings.rl, rows_per_micro_batch=rows),
    )


def state_bytes(model: str, sizes: Mapping[str, int]) -> float:
    """Bytes a device of a model's parameters, moments and gradients, by estimate.

    Args:
      model: as `model_shape` takes it.
      sizes: of the mesh.
    """
    parameters = parameter_count(model_shape(model))
    parts = sizes["fsdp"] * sizes["context"] * sizes["tensor"]
    return _STATE_BYTES * parameters / parts
