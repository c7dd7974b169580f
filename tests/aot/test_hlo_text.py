"""Programs as XLA prints them: loops, fusions, asynchronous exchanges."""

from typing import Any

import pytest

from jaxrl_reason.aot.collectives import find_collectives, group_of
from jaxrl_reason.aot.hlo_text import Execution, Instruction, executions, parse_program
from jaxrl_reason.aot.memory_traffic import memory_traffic

pytestmark = pytest.mark.fast

MESH = {"data": 1, "fsdp": 4, "tensor": 2}
# A scan of 28 layers in a loop whose end is computed, as a TPU's program has it.
TPU = """\
HloModule jit_update, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%start (p0: bf16[2,64]) -> (bf16[2,64], bf16[8,64]) {
  %p0 = bf16[2,64]{1,0} parameter(0)
  %all-gather.1 = bf16[8,64]{1,0:T(8,128)(2,1)} all-gather(%p0), channel_id=7, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, dimensions={0}, use_global_device_ids=true
  ROOT %custom-call.1 = (bf16[2,64]{1,0}, bf16[8,64]{1,0}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%done (p0.1: bf16[2,64], p1: bf16[8,64]) -> bf16[8,64] {
  %p0.1 = bf16[2,64]{1,0} parameter(0)
  %p1 = bf16[8,64]{1,0} parameter(1)
  %all-gather.2 = bf16[8,64]{1,0:S(1)} all-gather(%p0.1), channel_id=7, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, dimensions={0}, use_global_device_ids=true
  ROOT %custom-call.2 = bf16[8,64]{1,0} custom-call(%p0.1, %p1, %all-gather.2), custom_call_target="AsyncCollectiveDone"
}

%slice (p0.2: bf16[28,2,64], p1.2: s32[]) -> bf16[2,64] {
  %p0.2 = bf16[28,2,64]{2,1,0} parameter(0)
  %p1.2 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %dynamic-slice.1 = bf16[1,2,64]{2,1,0} dynamic-slice(%p0.2, %p1.2, %zero, %zero), dynamic_slice_sizes={1,2,64}
  ROOT %bitcast.1 = bf16[2,64]{1,0} bitcast(%dynamic-slice.1)
}

%layer (arg: (s32[], bf16[28,2,64])) -> (s32[], bf16[28,2,64]) {
  %arg = (s32[]{:T(128)}, bf16[28,2,64]{2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %w = bf16[28,2,64]{2,1,0} get-tuple-element(%arg), index=1
  %fusion.1 = bf16[2,64]{1,0} fusion(%w, %i), kind=kLoop, calls=%slice
  %fusion.2 = (bf16[2,64]{1,0}, bf16[8,64]{1,0}) fusion(%fusion.1), kind=kCustom, calls=%start
  %get.1 = bf16[8,64]{1,0} get-tuple-element(%fusion.2), index=1
  %fusion.3 = bf16[8,64]{1,0} fusion(%fusion.1, %get.1), kind=kCustom, calls=%done
  %all-reduce.1 = f32[16]{0} all-reduce(%fusion.3), channel_id=9, replica_groups=[4,2]<=[8], use_global_device_ids=true, to_apply=%add
  ROOT %tuple.1 = (s32[], bf16[28,2,64]) tuple(%i, %w)
}

%layers_left (arg.1: (s32[], bf16[28,2,64])) -> pred[] {
  %arg.1 = (s32[], bf16[28,2,64]{2,1,0}) parameter(0)
  %constant.28 = s32[]{:T(128)} constant(28)
  %i.1 = s32[] get-tuple-element(%arg.1), index=0
  ROOT %lt.1 = pred[] compare(%i.1, %constant.28), direction=LT
}

%micro (arg.2: (s32[], s32[], bf16[28,2,64])) -> (s32[], s32[], bf16[28,2,64]) {
  %arg.2 = (s32[], s32[], bf16[28,2,64]{2,1,0}) parameter(0)
  %w.2 = bf16[28,2,64]{2,1,0} get-tuple-element(%arg.2), index=2
  %zero.2 = s32[] constant(0)
  %tuple.2 = (s32[], bf16[28,2,64]) tuple(%zero.2, %w.2)
  %while.1 = (s32[], bf16[28,2,64]) while(%tuple.2), condition=%layers_left, body=%layer, metadata={op_name="jit(update)/while/body/while"}
  ROOT %tuple.3 = (s32[], s32[], bf16[28,2,64]) tuple(%zero.2, %zero.2, %w.2)
}

%micro_left (arg.3: (s32[], s32[], bf16[28,2,64])) -> pred[] {
  %arg.3 = (s32[], s32[], bf16[28,2,64]{2,1,0}) parameter(0)
  %k = s32[] get-tuple-element(%arg.3), index=0
  %n = s32[] get-tuple-element(%arg.3), index=1
  ROOT %lt.2 = pred[] compare(%k, %n), direction=LT
}

ENTRY %main (p: bf16[28,2,64], n.1: s32[]) -> (s32[], s32[], bf16[28,2,64]) {
  %p = bf16[28,2,64]{2,1,0} parameter(0)
  %n.1 = s32[] parameter(1)
  %tuple.4 = (s32[], s32[], bf16[28,2,64]) tuple(%n.1, %n.1, %p)
  ROOT %while.2 = (s32[], s32[], bf16[28,2,64]) while(%tuple.4), condition=%micro_left, body=%micro, metadata={op_name="jit(update)/while"}
}
"""  # noqa: E501
GPU = """\
HloModule jit_step

%body (arg: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %arg = (s32[], bf16[4,8]{1,0}) parameter(0)
  %x = bf16[4,8]{1,0} get-tuple-element(%arg), index=1
  %all-gather-start = ((bf16[4,8]{1,0}, bf16[2,8]{1,0}), (bf16[16,8]{1,0}, bf16[8,8]{1,0})) all-gather-start(%x, %x), channel_id=1, replica_groups={{0,2,4,6},{1,3,5,7}}, dimensions={0}
  %all-gather-done = (bf16[16,8]{1,0}, bf16[8,8]{1,0}) all-gather-done(%all-gather-start)
  %reduce-scatter-start = (bf16[16,8]{1,0}, bf16[4,8]{1,0}) reduce-scatter-start(%x), channel_id=2, replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}
  ROOT %tuple = (s32[], bf16[4,8]) tuple(%x, %x)
}

%left (arg.1: (s32[], bf16[4,8])) -> pred[] {
  %arg.1 = (s32[], bf16[4,8]{1,0}) parameter(0)
  ROOT %lt = pred[] compare(%arg.1, %arg.1), direction=LT
}

ENTRY %main (p: bf16[4,8]) -> (s32[], bf16[4,8]) {
  %p = bf16[4,8]{1,0} parameter(0)
  %collective-permute-start = (bf16[4,8]{1,0}, bf16[4,8]{1,0}) collective-permute-start(%p), channel_id=3, source_target_pairs={{0,1},{1,0},{2,3},{3,2}}
  ROOT %while = (s32[], bf16[4,8]) while(%p), condition=%left, body=%body, backend_config={"known_trip_count":{"n":"5"}}
}
"""  # noqa: E501


def micro_batches(limit: int | None, op_name: str) -> float:
    assert (limit, op_name) == (None, "jit(update)/while")
    return 3


def never(limit: int | None, op_name: str) -> float:
    raise AssertionError(op_name)


def runs_of(text: str, trips: Any) -> list[Execution]:
    return list(executions(parse_program(text), trips))


def test_loops_multiply_what_is_in_them() -> None:
    times = {x.instruction.name: x.times for x in runs_of(TPU, micro_batches)}
    assert times["while.2"] == 1
    assert times["while.1"] == 3
    assert times["fusion.1"] == times["dynamic-slice.1"] == 3 * 28
    assert "sum" not in times  # a sum's function is no instruction of its own


def test_an_asynchronous_gather_is_one_exchange() -> None:
    gather, add = find_collectives(runs_of(TPU, micro_batches), MESH)
    assert (gather.kind, gather.axes, gather.group) == ("all-gather", ("fsdp",), 4)
    assert (gather.payload, gather.times) == (8 * 64 * 2, 3 * 28)
    assert gather.sent == gather.payload * 3 / 4
    assert (add.kind, add.axes, add.group) == ("all-reduce", ("tensor",), 2)
    assert add.sent == add.payload == 16 * 4  # 2 (g - 1) / g


def test_a_sum_fused_with_its_slice_is_a_scatter() -> None:
    """Each device sends (g - 1) / g of the whole array, not twice that."""
    fused = """HloModule m

%all-reduce-scatter.2 (p: bf16[8,64]) -> bf16[2,64] {
  %p = bf16[8,64]{1,0} parameter(0)
  %all-reduce.1 = bf16[8,64]{1,0} all-reduce(%p), channel_id=1, replica_groups={{0,2,4,6},{1,3,5,7}}, to_apply=%add
  ROOT %dynamic-slice.1 = bf16[2,64]{1,0} dynamic-slice(%all-reduce.1), dynamic_slice_sizes={2,64}
}

ENTRY %main (a: bf16[8,64]) -> bf16[2,64] {
  %a = bf16[8,64]{1,0} parameter(0)
  ROOT %fusion = bf16[2,64]{1,0} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.2
}
"""  # noqa: E501
    (scatter,) = find_collectives(runs_of(fused, never), MESH)
    assert (scatter.kind, scatter.axes) == ("reduce-scatter", ("fsdp",))
    assert scatter.payload == 8 * 64 * 2
    assert scatter.sent == scatter.payload * 3 / 4
    apart = fused.replace("all-reduce-scatter.2", "fused_computation")
    (add,) = find_collectives(runs_of(apart, never), MESH)
    assert (add.kind, add.sent) == ("all-reduce", 2 * scatter.sent)


def test_gathers_of_equal_shape_are_told_apart_by_their_channels() -> None:
    second = TPU.replace("channel_id=7", "channel_id=8")
    done = second.index("%done (p0.1")  # starts on one channel, ends on another
    two = TPU[: TPU.index("%done (p0.1")] + second[done:]
    found = find_collectives(runs_of(two, micro_batches), MESH)
    assert [x.kind for x in found].count("all-gather") == 2


def test_exchanges_of_a_gpu() -> None:
    permute, gather, scatter = find_collectives(runs_of(GPU, never), MESH)
    assert (permute.axes, permute.payload, permute.times) == (("tensor",), 64, 1)
    # Of each pair of operand and result the result.
    assert (gather.axes, gather.payload, gather.times) == (("fsdp",), 24 * 16, 5)
    assert (scatter.axes, scatter.payload, scatter.times) == (("fsdp",), 4 * 64, 5)


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("replica_groups={{0,2},{1,3}}, x=1", [0, 2]),
        ("replica_groups=[2,4]<=[8]", [0, 1, 2, 3]),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", [0, 2, 4, 6]),
        ("replica_groups=mesh['a'=4,'b'=2] {'a'}, x=1", [0, 2, 4, 6]),
        ("replica_groups=mesh['a'=4,'b'=2] {'a','b'}", list(range(8))),
        # Devices in another order: a counts the last bit.
        ("replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'a'}", [0, 1]),
        ("replica_groups=mesh['a'=8] {'a':(2)4}", [0, 1, 2, 3]),
        ("replica_groups=mesh['a'=8] {'a':(1)2}", [0, 4]),
        ("source_target_pairs={{3,1},{1,3}}", [1, 3]),
        ("channel_id=1", []),
    ],
)
def test_groups_in_every_form(text: str, group: list[int]) -> None:
    x = Instruction("x", "all-gather", (), (), (), False, text, "")
    assert group_of(x) == group


def test_memory_counts_slices_and_not_whole_stacks() -> None:
    program = parse_program(TPU)
    runs = list(executions(program, micro_batches))
    slice_, number = 2 * 64 * 2, 4
    # A layer's slice is read, with its number, and written; of the whole stack nothing
    # else is, and what is gathered is the interconnect's. Both conditions compare.
    layer = 2 * slice_ + number
    compare = 2 * number + 1
    assert memory_traffic(program, runs) == 84 * (layer + compare) + 3 * compare


def test_a_text_without_an_entry_is_refused() -> None:
    with pytest.raises(ValueError, match="must have an entry"):
        parse_program("HloModule x")
