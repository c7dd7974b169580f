from dataclasses import dataclass
from itertools import product

import jax
import pytest

from jaxrl_reason.sharding import MESH_AXES, make_mesh, parse_mesh

pytestmark = pytest.mark.fast


def test_one_device_is_the_smallest_mesh() -> None:
    mesh = make_mesh()
    assert mesh.axis_names == MESH_AXES
    assert mesh.size == 1


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": 0}, "mesh axis data must be a whole number >= 1, got 0"),
        ({"fsdp": -2}, "mesh axis fsdp must be a whole number >= 1, got -2"),
        ({"tensor": 1.5}, "mesh axis tensor must be a whole number >= 1, got 1.5"),
        ({"data": True}, "mesh axis data must be a whole number >= 1, got True"),
        (
            {"data": 500, "fsdp": 2},
            "data=500 x fsdp=2 x context=1 x tensor=1 needs 1000 devices, but only",
        ),
    ],
)
def test_bad_sizes_are_named(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_mesh(**sizes)


def test_given_devices_are_all_used() -> None:
    with pytest.raises(ValueError, match="needs 1 devices, but 2 were given"):
        make_mesh(devices=[jax.devices()[0]] * 2)


@dataclass(frozen=True)
class Chip:
    """What JAX asks a TPU about its place."""

    id: int
    coords: tuple[int, int, int]
    device_kind: str = "TPU v5"
    platform: str = "tpu"
    core_on_chip: int = 0
    process_index: int = 0
    slice_index: int = 0


@pytest.mark.parametrize("sizes", [{"fsdp": 16, "tensor": 4}, {"fsdp": 8, "tensor": 8}])
def test_a_mesh_may_divide_the_axes_of_the_chips(sizes: dict[str, int]) -> None:
    places = product(range(4), repeat=3)
    chips = [Chip(i, (x, y, z)) for i, (z, y, x) in enumerate(places)]
    mesh = make_mesh(**sizes, devices=chips)
    assert {chip.id for chip in mesh.devices.flat} == set(range(64))
    # The devices of `tensor` lie in one plane.
    for row in mesh.devices.reshape(-1, sizes["tensor"]):
        assert any(len({chip.coords[axis] for chip in row}) == 1 for axis in range(3))


@pytest.mark.parametrize("text", ["", " ", "data=1", "data=1, fsdp=1,tensor = 1"])
def test_parse_mesh(text: str) -> None:
    assert dict(parse_mesh(text).shape) == dict.fromkeys(MESH_AXES, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dta=2", "mesh axes are data, fsdp, context, tensor; got 'dta' in 'dta=2'"),
        ("data=1,model=1", "mesh axes are data, fsdp, context, tensor; got 'model'"),
        ("data=1,,fsdp=1", "mesh axes are data, fsdp, context, tensor; got ''"),
        ("data=1,data=1", "'data' repeats"),
        ("data", "written like 'data=2,fsdp=4', got 'data'"),
        ("data=two", "written like 'data=2,fsdp=4', got 'data=two'"),
        ("data=-1", "written like 'data=2,fsdp=4', got 'data=-1'"),
        ("data=1_0", "written like 'data=2,fsdp=4', got 'data=1_0'"),
        ("data=0", "mesh axis data must be a whole number >= 1, got 0"),
    ],
)
def test_bad_text_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_mesh(text)
