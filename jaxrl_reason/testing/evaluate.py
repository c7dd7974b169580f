"""A loss as a black box: NumPy arrays in, value, gradient and metrics out."""

import functools
import inspect
import sys
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.losses import Counts, batch_counts
from jaxrl_reason.testing.arrays import COMPANIONS, NUM_GROUPS, Arrays, is_input

LossFunction = Callable[..., Any]
# These programs run a few times each, so most of the time is compilation. And what a
# loss rounds to bfloat16 stays rounded, whatever the compiler does elsewhere.
_OPTIONS = {
    "xla_backend_optimization_level": 0,
    "xla_allow_excess_precision": False,
}
_counts = jax.jit(batch_counts, static_argnames="num_groups")
ARGUMENTS = ("logprobs", "old_logprobs", "advantages", "mask", "counts")


class Result(NamedTuple):
    """The result of a loss for a mini-batch or a part of one.

    Attributes:
      value: [].
      grad: [B, T] in the log-probs.
      metrics: those that are pairs of scalars.
    """

    value: np.ndarray
    grad: np.ndarray
    metrics: dict[str, tuple[float, float]]


class Loss(Protocol):
    """A loss in JAX or torch. Counts are those of `whole`, or else of the arrays."""

    function: LossFunction
    name: str
    inputs: tuple[str, ...]
    framework: str

    def outline(self, arrays: Arrays) -> tuple[Any, Any]:
        """The function's raw result, and something that differs if two calls differ."""
        ...

    def run(self, arrays: Arrays, whole: Arrays | None = None) -> Result:
        """Value, gradient and metrics."""
        ...

    def slopes(self, arrays: Arrays, names: Collection[str]) -> dict[str, np.ndarray]:
        """The gradient in each of these arrays."""
        ...

    def bound(self, **settings: Any) -> "Loss":
        """The loss with some keyword arguments bound."""
        ...


def denominators(arrays: Arrays) -> dict[str, Counts]:
    """Counts of a whole mini-batch, and those of its correct rows if it has any."""
    mask = np.asarray(arrays["mask"]).astype(bool)
    counts = _counts(mask, arrays["group_ids"], num_groups=NUM_GROUPS)
    found = {"counts": counts}
    if "correct" in arrays:
        right = mask & np.asarray(arrays["correct"]).astype(bool)[:, None]
        found["positive_counts"] = _counts(right)
    return found


def keywords(inputs: Collection[str], arrays: Any, counts: dict[str, Any]) -> Any:
    """The keyword arguments of a loss that takes these inputs."""
    named = {name: arrays[name] for name in inputs}
    if "group_ids" in named:
        named["num_groups"] = NUM_GROUPS
    if "correct" in named:
        named["positive_counts"] = counts["positive_counts"]
    return named


def pairs(metrics: Any) -> dict[str, tuple[Any, Any]]:
    """The metrics that are (total, count) pairs of scalars."""
    if not isinstance(metrics, dict):
        return {}
    return {
        name: (x[0], x[1])
        for name, x in metrics.items()
        if isinstance(x, tuple | list)
        and len(x) == 2
        and all(np.ndim(part) == 0 and not isinstance(part, str) for part in x)
    }


def parameters_of(function: LossFunction) -> dict[str, inspect.Parameter]:
    """The parameters of a loss by name; none if they cannot be inspected."""
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return {}


def own_inputs(function: LossFunction) -> tuple[str, ...]:
    """The inputs among a loss's parameters that are not bound."""
    bound = set()
    inner = function
    while isinstance(inner, functools.partial):
        bound |= set(inner.keywords)
        inner = inner.func
    return tuple(
        name
        for name in parameters_of(function)
        if name not in ARGUMENTS and name not in bound and is_input(name)
    )


def needs(function: LossFunction, inputs: Collection[str]) -> list[str]:
    """Parameters without a default that are not passed."""
    handed = {*ARGUMENTS, *inputs, *(COMPANIONS.get(name, "") for name in inputs)}
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = list(parameters_of(function).items())
    return [
        name
        for i, (name, parameter) in enumerate(found)
        if i >= len(ARGUMENTS)
        and name not in handed
        and parameter.kind not in kinds
        and parameter.default is inspect.Parameter.empty
    ]


def name_of(function: LossFunction) -> str:
    """The name of a loss, and the settings that were bound."""
    if isinstance(function, functools.partial):
        settings = ", ".join(f"{k}={v!r}" for k, v in function.keywords.items())
        return f"{name_of(function.func)}({settings})"
    return getattr(function, "__name__", type(function).__name__)


def is_torch(function: LossFunction) -> bool:
    """Whether a loss is written in torch: its file imports torch and not jax."""
    inner: Any = inspect.unwrap(function)
    while isinstance(inner, functools.partial):
        inner = inspect.unwrap(inner.func)
    code = inner if hasattr(inner, "__globals__") else type(inner).__call__
    known = {
        getattr(x, "__name__", "").partition(".")[0]
        for x in getattr(code, "__globals__", {}).values()
        if inspect.ismodule(x)
    }
    return "torch" in sys.modules and "torch" in known and "jax" not in known


def as_loss(function: LossFunction, inputs: Collection[str] | None = None) -> Loss:
    """The wrapped loss, by default with the inputs that it names."""
    inputs = own_inputs(function) if inputs is None else tuple(inputs)
    if is_torch(function):
        from jaxrl_reason.testing.torch_loss import TorchLoss

        return TorchLoss(function, inputs)
    return JaxLoss(function, inputs)


class JaxLoss:
    """A loss of JAX arrays, compiled once per shape."""

    framework = "jax"

    def __init__(self, function: LossFunction, inputs: Collection[str] = ()) -> None:
        self.function, self.inputs = function, tuple(inputs)
        self.name = name_of(function)
        step = jax.value_and_grad(self.scalar, has_aux=True)
        self._step = jax.jit(step, compiler_options=_OPTIONS)
        self._twice = jax.jit(jax.vmap(step), compiler_options=_OPTIONS)
        slopes = jax.grad(self._of_constants)
        self._slopes = jax.jit(slopes, compiler_options=_OPTIONS)

    def output(self, logprobs: Any, arrays: Arrays, counts: dict[str, Counts]) -> Any:
        """What the function returns."""
        named = keywords(self.inputs, arrays, counts)
        old, advantages = arrays["old_logprobs"], arrays["advantages"]
        mask = arrays["mask"]
        return self.function(logprobs, old, advantages, mask, counts["counts"], **named)

    def scalar(
        self, logprobs: Any, arrays: Arrays, counts: dict[str, Counts]
    ) -> tuple[jax.Array, dict[str, tuple[Any, Any]]]:
        """The value, and the metrics that are pairs."""
        value, metrics = self.output(logprobs, arrays, counts)
        return value, pairs(metrics)

    def _of_constants(
        self, constants: Arrays, arrays: Arrays, counts: dict[str, Counts]
    ) -> jax.Array:
        arrays = {**arrays, **constants}
        return self.scalar(arrays["logprobs"], arrays, counts)[0]

    def outline(self, arrays: Arrays) -> tuple[Any, Any]:
        """The function's result under tracing, and the traced program."""
        given = []

        def traced(logprobs: Any, arrays: Arrays, counts: dict[str, Counts]) -> Any:
            given.append(self.output(logprobs, arrays, counts))
            leaves = jax.tree.leaves(given[-1])
            return [x for x in leaves if isinstance(x, jax.Array)]

        logprobs, counts = arrays["logprobs"], denominators(arrays)
        program = jax.make_jaxpr(traced)(logprobs, arrays, counts)
        return given[0], (str(program.jaxpr), [np.asarray(x) for x in program.consts])

    def run(self, arrays: Arrays, whole: Arrays | None = None) -> Result:
        """Value, gradient and metrics, under jit."""
        counts = denominators(arrays if whole is None else whole)
        (value, metrics), grad = self._step(arrays["logprobs"], arrays, counts)
        found = {name: (float(x), float(n)) for name, (x, n) in metrics.items()}
        return Result(np.asarray(value), np.asarray(grad, np.float64), found)

    def twice(self, arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
        """Values and gradients of two equal batches under vmap."""
        both = {name: np.stack([x, x]) for name, x in arrays.items()}
        counts = jax.tree.map(lambda x: jnp.stack([x, x]), denominators(arrays))
        (value, _), grad = self._twice(both["logprobs"], both, counts)
        return np.asarray(value), np.asarray(grad)

    def slopes(self, arrays: Arrays, names: Collection[str]) -> dict[str, np.ndarray]:
        """The gradient in each of these arrays."""
        chosen = {name: arrays[name] for name in names}
        found = self._slopes(chosen, arrays, denominators(arrays))
        return {name: np.asarray(x) for name, x in found.items()}

    def bound(self, **settings: Any) -> "JaxLoss":
        """The loss with some keyword arguments bound."""
        return JaxLoss(functools.partial(self.function, **settings), self.inputs)
