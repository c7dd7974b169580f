"""Where the arrays of a batch go: rows over the batch axes of a mesh."""

from dataclasses import dataclass
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrl_reason.sharding.placement import check_batch
from jaxrl_reason.sharding.rules import ShardingRules

Tree = TypeVar("Tree")


@dataclass(frozen=True)
class BatchSharding:
    """Puts packed batches on a mesh: rows over the batch axes, micro-batches whole.

    Attributes:
      mesh: of the devices.
      rules: which logical axes lie on which of its axes.
    """

    mesh: Mesh
    rules: ShardingRules

    @property
    def num_shards(self) -> int:
        """Over how many devices the rows of a batch are split."""
        return self.rules.split(self.mesh, "batch")

    def check_rows(self, rows: int) -> None:
        """Refuses rows that the mesh does not divide."""
        check_batch(self.mesh, self.rules, rows, "rows of a micro-batch")

    def put_micro_batches(self, batch: Tree) -> Tree:
        """[K, M, ...] arrays onto the devices, M split over the batch axes."""
        spec = PartitionSpec(None, *self.rules.spec(("batch",)))
        return jax.device_put(batch, NamedSharding(self.mesh, spec))

    def replicate(self, x: Any) -> Any:
        """Arrays that every device holds whole."""
        return jax.device_put(x, NamedSharding(self.mesh, PartitionSpec()))

    def put_batch(self, x: Any) -> Any:
        """[B, ...] arrays with B split over the batch axes (prompts, keys)."""
        spec = PartitionSpec(*self.rules.spec(("batch",)))
        return jax.device_put(x, NamedSharding(self.mesh, spec))
