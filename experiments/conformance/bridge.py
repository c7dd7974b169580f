"""Functions of JAX arrays called with tensors; autograd goes through them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from jaxrl_reason import losses

jax.config.update("jax_enable_x64", True)  # a float64 tensor stays one


def array(x: Any) -> Any:
    """A tensor as an array of its own type; anything else as it is."""
    if not isinstance(x, torch.Tensor):
        return x
    x = x.detach()
    if x.dtype == torch.bfloat16:
        return jnp.array(x.float().numpy(), jnp.bfloat16)
    return jnp.array(x.numpy())  # a copy: tensors are changed in place


def tensor(x: Any) -> Any:
    """An array as a tensor; anything else as it is."""
    if not isinstance(x, jax.Array):
        return x
    if x.dtype == jnp.bfloat16:
        return torch.tensor(np.asarray(x, np.float32)).to(torch.bfloat16)
    return torch.tensor(np.asarray(x))


class _Through(torch.autograd.Function):
    """One call; `function` takes and returns a tuple of arrays."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Any], *tensors: Any) -> Any:
        outs, ctx.pull = jax.vjp(function, *map(array, tensors))
        ctx.types = [(x.shape, x.dtype) for x in outs]
        made = tuple(map(tensor, outs))
        ctx.mark_non_differentiable(*[x for x in made if not x.is_floating_point()])
        return made

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        given = [
            array(slope).astype(dtype)
            if jnp.issubdtype(dtype, jnp.floating)
            else np.zeros(shape, jax.dtypes.float0)
            for slope, (shape, dtype) in zip(slopes, ctx.types, strict=True)
        ]
        return None, *map(tensor, ctx.pull(tuple(given)))


def through(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """`function(*args, **kwargs)` with arrays for tensors, and tensors for its result.

    Only tensors that require a gradient are traced, so that the function sees the
    values of all others and refuses what it would refuse.
    """
    leaves, tree = jax.tree.flatten((args, kwargs))
    traced = [
        i
        for i, x in enumerate(leaves)
        if isinstance(x, torch.Tensor) and x.requires_grad and torch.is_grad_enabled()
    ]
    constants = [x if i in traced else array(x) for i, x in enumerate(leaves)]
    forms = []

    def flat(*arrays: Any) -> Sequence[Any]:
        filled = dict(enumerate(constants)) | dict(zip(traced, arrays, strict=True))
        given, named = jax.tree.unflatten(tree, [filled[i] for i in sorted(filled)])
        outs, form = jax.tree.flatten(function(*given, **named))
        forms.append(form)
        return tuple(map(jnp.asarray, outs))

    outs = _Through.apply(flat, *[leaves[i] for i in traced])
    return jax.tree.unflatten(forms[-1], outs)


class Ours:
    """Every public function of `jaxrl_reason.losses`, on tensors; notes its calls."""

    def __init__(self) -> None:
        self.called: set[str] = set()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(losses, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.called.add(name)
            return through(function, *args, **kwargs)

        return call


ours = Ours()
# What adapters stand for, by its place: for what is no mathematics.
theirs: dict[str, Callable[..., Any]] = {}


def counts(tokens: Any = 1, sequences: Any = 1) -> losses.Counts:
    """Denominators that are given as numbers."""
    return losses.Counts(jnp.array(int(tokens)), jnp.array(int(sequences)))


def groups(index: Any) -> dict[str, Any]:
    """`group_ids` and `num_groups` of labels of any kind, one a row."""
    labels, ids = np.unique(np.asarray(index), return_inverse=True)
    return {"group_ids": jnp.asarray(ids, jnp.int32), "num_groups": len(labels)}
