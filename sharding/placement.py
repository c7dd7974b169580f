"""Shardings of whole trees: parameters and optimiser states."""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrl_reason.sharding.rules import LogicalAxes, ShardingRules, checked_sharding

# Keys of a path as plain values: a dictionary's "w" and a field w compare equal.
Path = tuple[str | int, ...]


def tree_shardings(
    mesh: Mesh, rules: ShardingRules, axes_tree: Any, shapes_tree: Any
) -> Any:
    """The sharding of every array of a tree.

    Args:
      mesh: the mesh.
      rules: the rules.
      axes_tree: the tree with, for each array, the tuple of its logical axes.
      shapes_tree: the tree with, for each array, anything that has a shape.

    Returns:
      The tree with a `NamedSharding` for each array.

    Raises:
      ValueError: the trees differ in structure, an array's axes do not fit its rank,
        or the mesh does not divide a dimension; the error names the array's path.

    Example:
      >>> from jaxrl_reason.sharding import make_mesh
      >>> mesh = make_mesh()
      >>> shapes = {"w": jax.ShapeDtypeStruct((4, 6), "float32")}
      >>> axes = {"w": ("embed", "mlp")}
      >>> tuple(tree_shardings(mesh, ShardingRules(), axes, shapes)["w"].spec)
      ('fsdp', 'tensor')
    """
    axes_by_path = _axes_by_path(axes_tree)
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes_tree)
    shape_paths = [_plain(path) for path, _ in leaves]
    for path in set(shape_paths) ^ set(axes_by_path):
        missing = "the axes tree" if path in shape_paths else "the shapes tree"
        raise ValueError(
            "the axes tree and the shapes tree must have the same structure; "
            f"{_text(path)} is missing from {missing}"
        )
    shardings = (
        checked_sharding(mesh, rules, axes_by_path[path], leaf.shape, _text(path))
        for path, (_, leaf) in zip(shape_paths, leaves, strict=True)
    )
    return jax.tree_util.tree_unflatten(structure, shardings)


def state_shardings(
    mesh: Mesh, rules: ShardingRules, axes_tree: Any, abstract_state: Any
) -> Any:
    """The sharding of every array of a training state.

    A state holds the parameters, and an optimiser's state holds trees that mirror them
    (the moments of AdamW). An array whose path ends with a parameter's path and that
    has the parameter's rank is sharded like that parameter. Everything else (counters,
    random keys, the factored moments and one-element placeholders of Adafactor) is
    replicated.

    Args:
      mesh: the mesh.
      rules: the rules.
      axes_tree: the parameters' tree with, for each, the tuple of its logical axes.
      abstract_state: any pytree of arrays or of `jax.ShapeDtypeStruct`.

    Returns:
      The state's tree with a `NamedSharding` for each array.

    Raises:
      ValueError: the mesh does not divide a dimension; the error names the array.

    Example:
      >>> from jaxrl_reason.sharding import make_mesh
      >>> mesh = make_mesh()
      >>> w = jax.ShapeDtypeStruct((4, 6), "float32")
      >>> state = {"params": {"w": w}, "step": jax.ShapeDtypeStruct((), "int32")}
      >>> axes = {"w": ("embed", "mlp")}
      >>> found = state_shardings(mesh, ShardingRules(), axes, state)
      >>> tuple(found["params"]["w"].spec), tuple(found["step"].spec)
      (('fsdp', 'tensor'), ())
    """
    axes_by_path = _axes_by_path(axes_tree)
    longest = max(map(len, axes_by_path), default=0)

    def sharding(key_path: Any, leaf: Any) -> NamedSharding:
        path = _plain(key_path)
        shape: tuple[int, ...] = getattr(leaf, "shape", ())
        # The longest suffix wins: with parameters a/w and w, mu/a/w mirrors a/w.
        for length in range(min(longest, len(path)), -1, -1):
            axes = axes_by_path.get(path[len(path) - length :])
            if axes is None:
                continue
            if len(axes) == len(shape) and any(size != 1 for size in shape):
                return checked_sharding(mesh, rules, axes, shape, _text(path))
            break
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, abstract_state)


def _axes_by_path(axes_tree: Any) -> dict[Path, LogicalAxes]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(
        axes_tree, is_leaf=lambda node: isinstance(node, tuple)
    )
    return {_plain(path): axes for path, axes in leaves}


def _plain(path: Any) -> Path:
    fields = ("key", "name", "idx")  # dictionaries, dataclasses, sequences
    return tuple(
        next(getattr(key, field) for field in fields if hasattr(key, field))
        for key in path
    )


def _text(path: Path) -> str:
    return "/".join(map(str, path)) or "the array"
