"""A loss of torch tensors as a black box, with gradients by autograd.

Needs the extra `torch`, which is imported for the first such loss. Counts are those of
`batch_counts`, as tensors.
"""

import dataclasses
import functools
import importlib
from collections.abc import Collection
from typing import Any

import numpy as np

from jaxrl_reason.losses import Counts
from jaxrl_reason.testing.arrays import Arrays
from jaxrl_reason.testing.evaluate import (
    LossFunction,
    Result,
    denominators,
    keywords,
    name_of,
    pairs,
)


def tensor(x: Any) -> Any:
    """A tensor of the same type; torch does not know NumPy's bfloat16."""
    torch, x = importlib.import_module("torch"), np.asarray(x)
    if x.dtype.name == "bfloat16":
        return torch.tensor(x.astype(np.float32)).to(torch.bfloat16)
    return torch.tensor(x)


def as_tensors(counts: Counts) -> Counts:
    """The same counts as int64 tensors."""
    given = {
        field.name: getattr(counts, field.name) for field in dataclasses.fields(counts)
    }
    made: Any = {
        name: None if x is None else tensor(x).long() for name, x in given.items()
    }
    return Counts(**made)


class TorchLoss:
    """A loss of torch tensors."""

    framework = "torch"

    def __init__(self, function: LossFunction, inputs: Collection[str] = ()) -> None:
        self.function, self.inputs = function, tuple(inputs)
        self.name = name_of(function)

    def output(self, tensors: dict[str, Any], counts: dict[str, Counts]) -> Any:
        """What the function returns."""
        totals = {name: as_tensors(one) for name, one in counts.items()}
        return self.function(
            tensors["logprobs"],
            tensors["old_logprobs"],
            tensors["advantages"],
            tensors["mask"],
            totals["counts"],
            **keywords(self.inputs, tensors, totals),
        )

    def outline(self, arrays: Arrays) -> tuple[Any, Any]:
        """What the function returns, and its value."""
        tensors = {name: tensor(x) for name, x in arrays.items()}
        given = self.output(tensors, denominators(arrays))
        value = given[0] if isinstance(given, tuple) else given
        return given, ("", [np.asarray(float(value))])

    def run(self, arrays: Arrays, whole: Arrays | None = None) -> Result:
        """Value, gradient and metrics."""
        counts = denominators(arrays if whole is None else whole)
        tensors = {name: tensor(x) for name, x in arrays.items()}
        tensors["logprobs"].requires_grad_()
        value, metrics = self.output(tensors, counts)
        grad = _gradient(value, [tensors["logprobs"]])[0]
        found = {k: (float(x), float(n)) for k, (x, n) in pairs(metrics).items()}
        return Result(value.detach().float().numpy(), grad, found)

    def slopes(self, arrays: Arrays, names: Collection[str]) -> dict[str, np.ndarray]:
        """The gradient in each of these arrays."""
        tensors = {name: tensor(x) for name, x in arrays.items()}
        chosen = [tensors[name].requires_grad_() for name in names]
        value, _ = self.output(tensors, denominators(arrays))
        return dict(zip(names, _gradient(value, chosen), strict=True))

    def exact_values(self, arrays: Arrays, moved: np.ndarray) -> np.ndarray:
        """The values at other log-probs [N, B, T], in float64."""
        return _exact_values(self, arrays, moved)

    def bound(self, **settings: Any) -> "TorchLoss":
        """The loss with some of its keywords bound."""
        return TorchLoss(functools.partial(self.function, **settings), self.inputs)


def _gradient(value: Any, leaves: list[Any]) -> list[np.ndarray]:
    """dvalue / dleaf, 0 if the value does not depend on it."""
    if not value.requires_grad:
        return [np.zeros(x.shape) for x in leaves]
    torch = importlib.import_module("torch")
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    return [
        np.zeros(x.shape) if g is None else g.float().numpy().astype(np.float64)
        for x, g in zip(leaves, found, strict=True)
    ]


def _exact_values(loss: TorchLoss, arrays: Arrays, moved: np.ndarray) -> np.ndarray:
    """The values in float64; what the first run detaches is held fixed."""
    torch = importlib.import_module("torch")
    overrides = importlib.import_module("torch.overrides")
    counts = denominators(arrays)
    tensors = {name: tensor(x) for name, x in arrays.items()}
    tensors = {
        k: x.double() if x.is_floating_point() else x for k, x in tensors.items()
    }

    class Exact(overrides.TorchFunctionMode):  # type: ignore[name-defined]
        """Makes float() mean double(), and replays the first run's constants."""

        def __init__(self, fixed: list[Any] | None) -> None:
            super().__init__()
            self.held: list[Any] = []
            self.fixed = fixed

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is torch.Tensor.float:
                return args[0].double()
            if func is torch.Tensor.to and torch.float32 in args:
                return args[0].double()
            out = func(*args, **(kwargs or {}))
            constant = func is torch.Tensor.detach or not torch.is_grad_enabled()
            if constant and isinstance(out, torch.Tensor):
                if self.fixed is not None:
                    out = self.fixed[len(self.held)]
                self.held.append(out)
            return out

    def value(logprobs: np.ndarray, fixed: list[Any] | None) -> tuple[float, list[Any]]:
        given = {**tensors, "logprobs": torch.tensor(logprobs)}
        with Exact(fixed) as mode:
            out = loss.output(given, counts)[0]
        return float(out), mode.held

    _, held = value(arrays["logprobs"].astype(np.float64), None)
    return np.array([value(x, held)[0] for x in moved])
