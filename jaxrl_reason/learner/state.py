"""The state of one trained model and its optimiser."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import NamedSharding, PartitionSpec

from jaxrl_reason.models import abstract_params, init_params, param_axes
from jaxrl_reason.sharding import BatchSharding, ShardingRules, state_shardings
from jaxrl_reason.sharding.processes import put

Params = Any


@struct.dataclass
class TrainState:
    """Parameters, optimiser state and the number of updates made.

    Attributes:
      params: the model's parameters.
      opt_state: of optax.
      step: [] int32, number of updates.
    """

    params: Params
    opt_state: optax.OptState
    step: jax.Array


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW with linear warm-up, then cosine decay to a fraction of the peak.

    `decay_updates=0` keeps the rate constant after the warm-up.

    Attributes:
      learning_rate: the peak.
      warmup_updates: updates over which the rate rises to the peak.
      decay_updates: updates over which it then decays; 0 for no decay.
      final_fraction: the rate at the end of the decay, as a fraction of the peak.
      b1: AdamW's decay rate of the first moment.
      b2: AdamW's decay rate of the second moment.
      weight_decay: AdamW's weight decay.
      max_grad_norm: the global norm at which the gradient is clipped.
    """

    learning_rate: float = 3e-4
    warmup_updates: int = 0
    decay_updates: int = 0
    final_fraction: float = 0.1
    b1: float = 0.9
    b2: float = 0.99
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        for name in ("warmup_updates", "decay_updates", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if not 0 <= self.final_fraction <= 1:
            raise ValueError(
                f"final_fraction must be in [0, 1], got {self.final_fraction}"
            )

    def schedule(self) -> optax.Schedule:
        """The learning rate of each update."""
        if self.decay_updates:
            main = optax.cosine_decay_schedule(
                self.learning_rate, self.decay_updates, alpha=self.final_fraction
            )
        else:
            main = optax.constant_schedule(self.learning_rate)
        if not self.warmup_updates:
            return main
        # Starts at one update, not at zero: the first update must change the
        # parameters.
        ramp = optax.linear_schedule(
            self.learning_rate / (self.warmup_updates + 1),
            self.learning_rate,
            self.warmup_updates,
        )
        return optax.join_schedules([ramp, main], [self.warmup_updates])

    def build(self) -> optax.GradientTransformation:
        """The optimiser: clip the global norm, then AdamW."""
        return optax.chain(
            optax.clip_by_global_norm(self.max_grad_norm),
            optax.adamw(
                self.schedule(), b1=self.b1, b2=self.b2, weight_decay=self.weight_decay
            ),
        )


def init_state(
    params: Params, optimizer: optax.GradientTransformation, *, copy: bool = False
) -> TrainState:
    """A state at update 0 for parameters, all of it on their mesh if they have one.

    An optimiser creates its counters on the first device. Left there, the first update
    compiles once for them and again for its own results, and their checkpoint restores
    to one device of a mesh, which an update does not accept.

    Args:
      params: parameters, for example of a policy that starts a new stage.
      optimizer: initialises the moments.
      copy: whether the state gets its own copy of the parameters, so that it can be
        donated while they are kept as a baseline or a reference.
    """
    if copy:
        shardings = jax.tree.map(lambda x: x.sharding, params)
        copied = jax.jit(lambda p: jax.tree.map(jnp.copy, p), out_shardings=shardings)
        params = copied(params)
    state = TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))
    first = jax.tree.leaves(params)[0]
    # Traced parameters have no device yet.
    if isinstance(first, jax.core.Tracer) or not on_mesh(first):
        return state
    whole = NamedSharding(first.sharding.mesh, PartitionSpec())
    return jax.tree.map(lambda x: x if on_mesh(x) else put(x, whole), state)


def on_mesh(x: Any) -> bool:
    """Whether an array is on a mesh."""
    return isinstance(getattr(x, "sharding", None), NamedSharding)


def abstract_state(
    model: Any,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    rules: ShardingRules,
) -> TrainState:
    """Shapes, dtypes and shardings of a state; nothing is allocated."""
    shapes = jax.eval_shape(
        lambda params: init_state(params, optimizer), abstract_params(model)
    )
    shardings = state_shardings(mesh, rules, param_axes(model), shapes)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        shapes,
        shardings,
    )


def init_model_state(
    model: Any,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    mesh: jax.sharding.Mesh,
    rules: ShardingRules,
) -> TrainState:
    """A state at update 0 with new, sharded parameters of a model."""
    target = jax.tree.map(
        lambda x: x.sharding, abstract_state(model, optimizer, mesh, rules)
    )
    build = jax.jit(
        lambda k: init_state(init_params(model, k), optimizer),
        out_shardings=target,
    )
    return build(key)


def abstract(tree: Any) -> Any:
    """Shapes, dtypes and shardings of the arrays of a tree."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
    )


def init_value_state(
    policy: TrainState, optimizer: OptimizerSettings, batch_sharding: BatchSharding
) -> TrainState:
    """A copy of the policy's transformer with a scalar head of zeros."""
    backbone = init_state(policy.params, optimizer.build(), copy=True).params
    embedding = backbone["embedding"]
    head = batch_sharding.replicate(jnp.zeros(embedding.shape[1:], embedding.dtype))
    body = {name: x for name, x in backbone.items() if name != "head"}
    return init_state({"backbone": body, "value_head": head}, optimizer.build())
