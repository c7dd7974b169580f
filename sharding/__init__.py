"""Meshes, logical-axis rules and the shardings of arrays. Knows no model."""

if __name__ == "sharding":
    raise ImportError("import this package as jaxrl_reason.sharding, not as sharding")

from jaxrl_reason.sharding.mesh import (
    MESH_AXES,
    check_batch,
    make_mesh,
    mesh_sizes,
    parse_mesh,
)
from jaxrl_reason.sharding.placement import state_shardings, tree_shardings
from jaxrl_reason.sharding.rules import (
    BatchSharding,
    Constrain,
    Constrainer,
    ShardingRules,
    no_constraint,
    pad_vocab,
    parts_of,
    stationary,
)

__all__ = [
    "MESH_AXES",
    "BatchSharding",
    "Constrain",
    "Constrainer",
    "ShardingRules",
    "check_batch",
    "make_mesh",
    "mesh_sizes",
    "no_constraint",
    "pad_vocab",
    "parse_mesh",
    "parts_of",
    "state_shardings",
    "stationary",
    "tree_shardings",
]
