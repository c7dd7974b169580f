"""A sampler on devices that do not train, so that sampling and training overlap."""

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from jaxrl_reason.sampler.rollout_engine import ReportsResponses
from jaxrl_reason.sampler.sample_loop import Sampler
from jaxrl_reason.sampler.settings import Completions
from jaxrl_reason.sharding import BatchSharding, state_shardings


@dataclass(eq=False)
class OwnDevicesSampler:
    """A `RolloutEngine` in this process: one of our samplers on a mesh of its own.

    Attributes:
      sample: of a model whose constrainer has this mesh.
      axes: the logical axes of the model's parameters (`param_axes`).
      batch_sharding: of this mesh; no device of it trains.
    """

    sample: Sampler
    axes: Any
    batch_sharding: BatchSharding
    _version: int = field(default=-1, init=False)
    _params: Any = field(default=None, init=False)

    @property
    def reports_responses(self) -> bool:
        """Whether the sampler inside does."""
        return isinstance(self.sample, ReportsResponses)

    def update_weights(self, params: Any, version: int) -> None:
        """Copies the policy's parameters from device to device, once per version.

        Args:
          params: of the policy, on any mesh.
          version: the step of this policy.
        """
        if version == self._version:
            return
        mesh, rules = self.batch_sharding.mesh, self.batch_sharding.rules
        shardings = state_shardings(mesh, rules, self.axes, params)
        self._params = None  # not two versions at a time
        self._params = jax.block_until_ready(jax.device_put(params, shardings))
        self._version = version

    def __call__(
        self,
        params: Any,
        prompt_tokens: jax.Array,
        prompt_lengths: jax.Array,
        keys: jax.Array,
        **more: Any,
    ) -> Completions:
        """Draws G responses to each of P prompts, as `RolloutEngine`.

        Args:
          params: those of the last update; not read.
          prompt_tokens: [P, Tp] ids, right-padded.
          prompt_lengths: [P] tokens of each prompt.
          keys: [P*G] from `sampling_keys`.
          **more: what else the sampler inside takes, such as `on_response`.
        """
        inputs = (prompt_tokens, prompt_lengths, keys)
        placed = self.batch_sharding.put_batch(inputs)
        done = self.sample(self._params, *placed, **more)
        versions: Any = np.full(len(done.lengths), self._version, np.int64)
        return replace(done, policy_version=versions)
