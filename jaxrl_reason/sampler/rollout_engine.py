"""What may stand in for the sampler: an engine with a copy of the weights."""

from typing import Any, Protocol, runtime_checkable

import jax

from jaxrl_reason.sampler.settings import Completions


@runtime_checkable
class RolloutEngine(Protocol):
    """A sampler that keeps its own copy of the policy, in another process say.

    It is called as every sampler is, so it fits wherever one does. Beside that it is
    handed the parameters, with the step whose policy they are, before it draws; and its
    completions say with which version each response was drawn. Our own samplers are
    functions of the parameters: they need no hand-over and leave the version out.
    """

    def update_weights(self, params: Any, version: int) -> None:
        """Take the policy's parameters, if they are not those it has.

        Args:
          params: of the policy, whole in this process.
          version: the step whose policy it is, >= 0.
        """

    def __call__(
        self,
        params: Any,
        prompt_tokens: jax.Array,
        prompt_lengths: jax.Array,
        keys: jax.Array,
    ) -> Completions:
        """Draw G responses to each of P prompts.

        Args:
          params: those handed over last.
          prompt_tokens: [P, Tp] ids, right-padded.
          prompt_lengths: [P] tokens of each prompt.
          keys: [P*G] from `sampling_keys`.

        Returns:
          Completions of B = P*G rows, `policy_version` among them.
        """
