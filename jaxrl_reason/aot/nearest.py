"""Settings that need less memory than a run's own, the nearest first."""

import dataclasses
from collections.abc import Iterator, Mapping

from jaxrl_reason.aot.known_models import model_shape
from jaxrl_reason.aot.mesh_sizes import (
    batch_parts,
    mesh_text,
    run_sizes,
    shares,
    splits,
)
from jaxrl_reason.aot.search import state_bytes, with_flags
from jaxrl_reason.aot.topology import Topology, parse_topology
from jaxrl_reason.models import TransformerConfig
from jaxrl_reason.sharding import mesh_sizes
from jaxrl_reason.train.train_settings import TrainSettings


def simpler(
    settings: TrainSettings, topology: Topology, step: str
) -> Iterator[tuple[str, TrainSettings, Topology]]:
    """Settings that need less memory, the nearest first, each with its change in words.

    What costs least comes first, and later ones keep the earlier changes: compute
    activations again, split what is kept of them over tensor, fewer rows or slots at a
    time, parameters over all devices in place of copies, more devices a row (its heads,
    then its columns), and then a slice of twice the size. Those whose training state
    alone is too large are left out.

    Args:
      settings: that do not fit.
      topology: the devices.
      step: that does not fit.
    """
    for option in _changes(settings, topology, step):
        _, changed, slice_ = option
        state = state_bytes(settings.model.source, run_sizes(changed, slice_))
        if state < slice_.chip.memory:
            yield option


def _changes(
    settings: TrainSettings, topology: Topology, step: str
) -> Iterator[tuple[str, TrainSettings, Topology]]:
    config, start = model_shape(settings.model.source), settings
    now, slice_ = settings, topology
    sizes, trains = run_sizes(settings, topology), step != "sample"
    # A sampler's own devices: this step's mesh is theirs.
    own = bool(settings.sampler.mesh) and not trains
    if own:
        sizes = mesh_sizes(settings.sampler.mesh)

    def option() -> tuple[str, TrainSettings, Topology]:
        pairs = (
            ("--topology", str(topology), str(slice_)),
            ("--mesh", start.mesh, now.mesh),
            ("--model.remat", start.model.remat, now.model.remat),
            (
                "--rl.rows-per-micro-batch",
                start.rl.rows_per_micro_batch,
                now.rl.rows_per_micro_batch,
            ),
            ("--sampler.slots", start.sampler.slots, now.sampler.slots),
            ("--sampler.mesh", start.sampler.mesh, now.sampler.mesh),
        )
        words = [f"{flag} {new}" for flag, old, new in pairs if old != new]
        if now.sequence_parallel and not start.sequence_parallel:
            words.append("--sequence-parallel")
        return " ".join(words), now, slice_

    def meshed(sizes: Mapping[str, int]) -> TrainSettings:
        if own:
            sampler = dataclasses.replace(now.sampler, mesh=mesh_text(sizes))
            return dataclasses.replace(now, sampler=sampler)
        rows = now.rl.rows_per_micro_batch
        before, after = (batch_parts(x) for x in (run_sizes(now, slice_), sizes))
        if after != before:
            rows = max(rows * after // before, after)
        return with_flags(now, mesh_text(sizes), now.model.remat, rows)

    if step == "update" and now.model.remat != "full":
        now = with_flags(now, now.mesh, "full", now.rl.rows_per_micro_batch)
        yield option()
    if step == "update" and sizes["tensor"] > 1 and not now.sequence_parallel:
        now = dataclasses.replace(now, sequence_parallel=True)
        yield option()
    while trains and now.rl.rows_per_micro_batch % (2 * batch_parts(sizes)) == 0:
        rows = now.rl.rows_per_micro_batch // 2
        now = with_flags(now, now.mesh, now.model.remat, rows)
        yield option()
    # As many groups as the batch axes split, at least.
    fewest = 2 * start.rl.group_size * batch_parts(sizes)
    while not trains and now.sampler.slots >= fewest:
        sampler = dataclasses.replace(now.sampler, slots=now.sampler.slots // 2)
        now = dataclasses.replace(now, sampler=sampler)
        yield option()
    for changed in _other_meshes(sizes, config, start.rl.row_width, trains):
        sizes, now = changed, meshed(changed)
        yield option()
    while (more := larger(slice_)) is not None:
        times = more.num_devices // slice_.num_devices
        both = _grown(now, slice_, times, config)
        if both is None:
            return
        slice_, now = more, both
        yield option()


def _other_meshes(
    sizes: dict[str, int], config: TransformerConfig, width: int, trains: bool
) -> Iterator[dict[str, int]]:
    """Meshes of as many devices with less on each, each from the last."""
    fsdp = sizes["data"] * sizes["fsdp"]
    whole = {**sizes, "fsdp": fsdp, "data": 1}
    if sizes["data"] > 1 and shares(config, width, whole):
        sizes = whole
        yield sizes
    for axis in ("tensor", "context") if trains else ("tensor",):
        while sizes["fsdp"] % 2 == 0:
            more = {**sizes, "fsdp": sizes["fsdp"] // 2, axis: 2 * sizes[axis]}
            if not splits(config, more["tensor"]) or not shares(config, width, more):
                break
            sizes = more
            yield sizes


def _grown(
    settings: TrainSettings, topology: Topology, times: int, config: TransformerConfig
) -> TrainSettings | None:
    """The settings with more fsdp on so many times the devices; None if not divided."""
    sizes = run_sizes(settings, topology)
    sizes["fsdp"] *= times
    if not shares(config, settings.rl.row_width, sizes):
        return None
    rows = max(settings.rl.rows_per_micro_batch, batch_parts(sizes))
    changed = with_flags(settings, mesh_text(sizes), settings.model.remat, rows)
    if not settings.sampler.mesh:
        return changed
    own = mesh_sizes(settings.sampler.mesh)
    own["fsdp"] *= times
    sampler = dataclasses.replace(settings.sampler, mesh=mesh_text(own))
    return dataclasses.replace(changed, sampler=sampler)


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
