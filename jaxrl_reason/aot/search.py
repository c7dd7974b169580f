"""Other settings of a run: all that are worth compiling, and the nearest smaller ones.

What is worth compiling is estimated without a compiler, from parameters and rows:
states that do not fit are left out, the rest is ranked by a time of its own.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jaxrl_reason.aot.known_models import model_shape
from jaxrl_reason.aot.topology import Topology, parse_topology
from jaxrl_reason.models import TransformerConfig
from jaxrl_reason.train.train_settings import TrainSettings

REMATS = ("none", "dots", "full")
# Passes over the model in units of a forward pass, and what a layer keeps a column in
# units of D numbers, for each remat.
_PASSES = {"none": 3.0, "dots": 3.2, "full": 4.0}
_KEPT = {"none": 34.0, "dots": 18.0, "full": 1.0}
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


def meshes(devices: int, config: TransformerConfig) -> Iterator[tuple[int, int, int]]:
    """Sizes of data, fsdp and tensor that divide the model.

    Args:
      devices: in all.
      config: of the model.
    """
    for tensor in (1, 2, 4, 8, 16):
        if devices % tensor or config.num_heads % tensor or config.mlp_dim % tensor:
            continue
        rest = devices // tensor
        for data in (1, 2, 4, 8, 16, 32, 64):
            if rest % data == 0 and config.hidden_size % (rest // data) == 0:
                yield data, rest // data, tensor


def candidates(settings: TrainSettings, topology: Topology) -> list[Candidate]:
    """Settings whose state fits, the quickest by estimate first.

    Args:
      settings: of the run; all but mesh, remat and rows of a micro-batch stay.
      topology: the devices.

    Raises:
      ValueError: no mesh divides the model, or none has room for its state.
    """
    config = model_shape(settings.model.source)
    found = []
    for data, fsdp, tensor in meshes(topology.num_devices, config):
        for remat in REMATS:
            for rows in (1, 2, 4):
                sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
                found.append(_candidate(settings, topology, config, sizes, remat, rows))
    found = [x for x in found if x.memory < topology.chip.memory]
    if not found:
        raise ValueError(
            f"the state of {settings.model.source} must fit {topology} on some mesh, "
            f"got none"
        )
    return sorted(found, key=lambda x: x.seconds)


def _candidate(
    settings: TrainSettings,
    topology: Topology,
    config: TransformerConfig,
    sizes: dict[str, int],
    remat: Any,
    rows: int,
) -> Candidate:
    data, fsdp, tensor = sizes["data"], sizes["fsdp"], sizes["tensor"]
    chip, width = topology.chip, settings.rl.row_width
    parameters = parameter_count(config)
    columns = rows * width  # of a device's micro-batch
    kept = _KEPT[remat] * columns * config.hidden_size * 2 * config.num_layers
    memory = _STATE_BYTES * parameters / (fsdp * tensor) + kept / tensor
    # Of one row of a device: the more rows share a gather, the less each pays.
    compute = _PASSES[remat] * 2 * parameters * width / tensor / chip.peak_flops
    gathers = 3 if remat == "none" else 4
    weights = gathers * 2 * parameters / tensor * (fsdp > 1)
    sums = 4 * 2 * columns * config.hidden_size * 2 * config.num_layers * (tensor > 1)
    speed = chip.link * max(1, chip.dimensions)
    seconds = compute + (weights + sums) / speed / rows
    # A row's share of devices: with more tensor, fewer rows at a time.
    seconds *= tensor / topology.num_devices
    mesh = ",".join(f"{name}={size}" for name, size in sizes.items() if size > 1)
    changed = with_flags(settings, mesh or "data=1", remat, rows * data * fsdp)
    flags = (
        f"--mesh {changed.mesh} --model.remat {remat} "
        f"--rl.rows-per-micro-batch {rows * data * fsdp}"
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


def simpler(
    settings: TrainSettings, topology: Topology, step: str
) -> Iterator[tuple[str, TrainSettings, Topology]]:
    """Settings that need less memory, the nearest first, each with its change in words.

    What costs least comes first, and later ones keep the earlier changes: compute
    activations again, fewer rows or slots at a time, parameters over all devices in
    place of copies, more devices a row, and then a slice of twice the size. Those whose
    training state alone is too large are left out.

    Args:
      settings: that do not fit.
      topology: the devices.
      step: that does not fit.
    """
    for option in _changes(settings, topology, step):
        _, changed, slice_ = option
        state = state_bytes(settings.model.source, _sizes(changed, slice_))
        if state < slice_.chip.memory:
            yield option


def state_bytes(model: str, sizes: Mapping[str, int]) -> float:
    """Bytes a device of a model's parameters, moments and gradients, by estimate.

    Args:
      model: as `model_shape` takes it.
      sizes: of the mesh.
    """
    parameters = parameter_count(model_shape(model))
    return _STATE_BYTES * parameters / (sizes["fsdp"] * sizes["tensor"])


def _changes(
    settings: TrainSettings, topology: Topology, step: str
) -> Iterator[tuple[str, TrainSettings, Topology]]:
    config, start = model_shape(settings.model.source), settings
    sizes, slice_ = _sizes(settings, topology), topology
    remat, rows = settings.model.remat, settings.rl.rows_per_micro_batch
    slots = settings.sampler.slots

    def option() -> tuple[str, TrainSettings, Topology]:
        mesh = ",".join(f"{name}={size}" for name, size in sizes.items() if size > 1)
        if sizes == _sizes(start, topology):
            mesh = start.mesh
        changed = with_flags(start, mesh or "data=1", remat, rows)
        sampler = dataclasses.replace(start.sampler, slots=slots)
        changed = dataclasses.replace(changed, sampler=sampler)
        pairs = (
            ("--topology", str(topology), str(slice_)),
            ("--mesh", start.mesh, changed.mesh),
            ("--model.remat", start.model.remat, remat),
            ("--rl.rows-per-micro-batch", start.rl.rows_per_micro_batch, rows),
            ("--sampler.slots", start.sampler.slots, slots),
        )
        words = (f"{flag} {new}" for flag, old, new in pairs if old != new)
        return " ".join(words), changed, slice_

    if step == "update" and remat != "full":
        remat = "full"
        yield option()
    while step != "sample" and rows % (2 * sizes["data"] * sizes["fsdp"]) == 0:
        rows //= 2
        yield option()
    # As many groups as the batch axes split, at least.
    while step == "sample" and slots >= 2 * start.rl.group_size * (
        sizes["data"] * sizes["fsdp"]
    ):
        slots //= 2
        yield option()
    if sizes["data"] > 1 and config.hidden_size % (sizes["data"] * sizes["fsdp"]) == 0:
        sizes = {**sizes, "fsdp": sizes["data"] * sizes["fsdp"], "data": 1}
        yield option()
    while _splits(config, 2 * sizes["tensor"]) and sizes["fsdp"] % 2 == 0:
        sizes = {**sizes, "fsdp": sizes["fsdp"] // 2, "tensor": 2 * sizes["tensor"]}
        rows = max(rows // 2, sizes["data"] * sizes["fsdp"])
        yield option()
    while (more := larger(slice_)) is not None:
        times = more.num_devices // slice_.num_devices
        slice_, sizes = more, {**sizes, "fsdp": times * sizes["fsdp"]}
        if config.hidden_size % sizes["fsdp"]:
            return
        rows = max(rows, sizes["data"] * sizes["fsdp"])
        yield option()


def larger(topology: Topology) -> Topology | None:
    """A slice, or nodes, of twice the size; None past the largest.

    Args:
      topology: any.

    Example:
      >>> str(larger(parse_topology("v5p:4x4x4")))
      'v5p:8x4x4'
      >>> larger(parse_topology("v5e:16x16")) is None
      True
    """
    shape = list(topology.shape)
    if topology.chip.dimensions and max(shape) == 1:
        shape[:2] = [2, 2]
    else:
        shape[shape.index(min(shape))] *= 2
    try:
        return parse_topology(str(dataclasses.replace(topology, shape=tuple(shape))))
    except ValueError:
        return None


def _splits(config: TransformerConfig, tensor: int) -> bool:
    return config.num_heads % tensor == 0 and config.mlp_dim % tensor == 0


def _sizes(settings: TrainSettings, topology: Topology) -> dict[str, int]:
    """The sizes of a run's mesh, all three of them."""
    if settings.mesh == "auto":
        return {"data": topology.num_devices, "fsdp": 1, "tensor": 1}
    given = dict(part.split("=") for part in settings.mesh.split(",") if part)
    return {name: int(given.get(name, 1)) for name in ("data", "fsdp", "tensor")}
