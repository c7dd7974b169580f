"""SDPO (arXiv 2601.20802), SDFT (2601.19897): the informed policy teaches itself."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxrl_reason.losses import sdpo_loss
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.recipes.gkd import no_advantages
from jaxrl_reason.rl.self_teacher import SelfTeacher, WorkedResponses, ask_again


def sdpo(
    *,
    beta: float = 0.5,
    update_rate: float = 0.05,
    ratio_cap: float | None = 2.0,
    context: Callable[[np.ndarray, np.ndarray], np.ndarray] = ask_again,
    context_width: int = 0,
) -> Method:
    """The teacher has read a right response of the same group.

    `sdpo_loss` over the whole vocabulary. Responses without a right sibling are out of
    the loss and its denominators; a right response reads another, not itself. Rewards
    serve the metrics alone. The defaults are those of the authors' repository, but for
    its 100 likeliest tokens: here are all.

    Args:
      beta: 0 is the forward KL, 1 the reverse one.
      update_rate: of the moving average, once per rollout.
      ratio_cap: of `sdpo_loss`.
      context: f(prompt, right response) -> what the teacher reads before the response.
      context_width: its longest result; 0 for that of the default.

    Example:
      >>> from jaxrl_reason.rl.recipes.sdpo import sdpo
      >>> sdpo().min_group_size, sdpo().all_loss_inputs
      (2, ('divergence',))
    """
    teacher = SelfTeacher(
        context=context,
        context_width=context_width,
        update_rate=update_rate,
        beta=beta,
    )
    return _method("sdpo", teacher, ratio_cap, min_group_size=2)


def sdft(
    demonstrations: Mapping[int, Sequence[int]],
    *,
    beta: float = 1.0,
    update_rate: float = 0.05,
    ratio_cap: float | None = 2.0,
    context: Callable[[np.ndarray, np.ndarray], np.ndarray] = ask_again,
    context_width: int = 0,
) -> Method:
    """The teacher has read a demonstration of the problem.

    As `sdpo`; problems without a demonstration are out of the loss.

    Args:
      demonstrations: problem id -> token ids, with the end token.
      beta: 0 is the forward KL, 1 the reverse one.
      update_rate: of the moving average, once per rollout.
      ratio_cap: of `sdpo_loss`.
      context: f(prompt, demonstration) -> what the teacher reads before the response.
      context_width: its longest result; 0 for that of the default.

    Example:
      >>> from jaxrl_reason.rl.recipes.sdpo import sdft
      >>> sdft({0: [4, 3, 1]}).name, sdft({}).min_group_size
      ('sdft', 1)
    """
    teacher = SelfTeacher(
        demonstrate=WorkedResponses(demonstrations),
        context=context,
        context_width=context_width,
        update_rate=update_rate,
        beta=beta,
    )
    return _method("sdft", teacher, ratio_cap, min_group_size=1)


def _method(
    name: str, teacher: SelfTeacher, ratio_cap: float | None, *, min_group_size: int
) -> Method:
    return Method(
        name=name,
        loss=partial(_loss, ratio_cap=ratio_cap),
        advantages=no_advantages,
        min_group_size=min_group_size,
        loss_rows=teacher.has_teacher,
        components=(teacher,),
    )


def _loss(
    logprobs: jax.Array,
    old_logprobs: jax.Array,
    advantages: jax.Array,
    mask: jax.Array,
    counts: Any,
    *,
    divergence: jax.Array,
    ratio_cap: float | None,
) -> tuple[jax.Array, dict[str, tuple[jax.Array, jax.Array]]]:
    # Responses without a teacher are out of the mask, and so of the counts.
    return sdpo_loss(
        divergence, logprobs, old_logprobs, mask, counts, ratio_cap=ratio_cap
    )
