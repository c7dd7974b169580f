"""Replacements of the sampler: engines with their own copy of the weights."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax

from jaxrl_reason.sampler.settings import Completions

# Called with a complete response: its row, its tokens, whether the limit stopped it.
OnResponse = Callable[[int, list[int], bool], None]


@runtime_checkable
class RolloutEngine(Protocol):
    """A sampler with its own copy of the policy, for example in another process.

    It is called like every sampler, so it fits wherever one does. In addition it gets
    the parameters, with the step of their policy, before it draws, and its completions
    name the version that drew each response. Our own samplers are functions of the
    parameters: they need no update and leave the version out.
    """

    def update_weights(self, params: Any, version: int) -> None:
        """Takes the policy's parameters, if they are not those it has.

        Args:
          params: of the policy, all of them in this process.
          version: the step of this policy, >= 0.
        """

    def __call__(
        self,
        params: Any,
        prompt_tokens: jax.Array,
        prompt_lengths: jax.Array,
        keys: jax.Array,
    ) -> Completions:
        """Draws G responses to each of P prompts.

        Args:
          params: those of the last update.
          prompt_tokens: [P, Tp] ids, right-padded.
          prompt_lengths: [P] tokens of each prompt.
          keys: [P*G] from `sampling_keys`.

        Returns:
          Completions of B = P*G rows, `policy_version` among them.
        """


@runtime_checkable
class ReportsResponses(Protocol):
    """A sampler or an engine that says when a response is complete.

    Its call takes `on_response`, an `OnResponse`, which may be called from any thread.
    """

    reports_responses: bool
