"""`check_loss`, and the verdicts behind it."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from jaxrl_reason.testing import batch_laws, ratio_laws
from jaxrl_reason.testing.arrays import INPUTS, is_input
from jaxrl_reason.testing.case import Broken, Case, Law, Reduction
from jaxrl_reason.testing.evaluate import (
    LossFunction,
    as_loss,
    needs,
    own_inputs,
    parameters_of,
)

# In the order in which they are tried; `check_loss` names the first broken one.
LAWS: tuple[Law, ...] = (*batch_laws.LAWS, *ratio_laws.LAWS)
# If one of these is broken, the others cannot be tried.
_FIRST = ("jit", "form")


@dataclass(frozen=True)
class Verdict:
    """The result of a law.

    Attributes:
      law: the law.
      holds: None if it was not tried.
      detail: what was found, or why it was not tried.
    """

    law: Law
    holds: bool | None
    detail: str = ""


def case_of(
    loss: LossFunction,
    *,
    inputs: Collection[str] | None = None,
    reference: Callable[..., Any] | None = None,
    reduction: Reduction | None = None,
    rtol: float = 1e-5,
    seed: int = 0,
) -> Case:
    """A loss under test, with the arguments of `check_loss`.

    Args:
      loss: the function.
      inputs: names of what it takes by keyword.
      reference: the same in NumPy.
      reduction: the mean that it claims to take.
      rtol: relative tolerance.
      seed: of the arrays.

    Returns:
      The case.

    Raises:
      ValueError: an input is unknown, or the loss needs others.
    """
    if inputs is None:
        inputs = own_inputs(loss)
        if reference is not None:
            known = parameters_of(reference)
            inputs = [name for name in inputs if name in known]
    for name in inputs:
        if not is_input(name):
            raise ValueError(
                f"inputs must be among {', '.join(INPUTS)} or end in _logprobs, "
                f"got {name!r}"
            )
    missing = needs(loss, inputs)
    if missing:
        raise ValueError(
            "settings of a loss must have defaults or be bound by functools.partial, "
            f"got {', '.join(missing)} without"
        )
    return Case(as_loss(loss, inputs), seed, rtol, reference, reduction)


def verdicts(case: Case, skip: Collection[str] = ()) -> list[Verdict]:
    """Tries every law, in order.

    Args:
      case: a loss under test.
      skip: names of laws to leave out.

    Returns:
      One verdict per law; if one of the basic laws is broken, the others are not tried.

    Raises:
      ValueError: a name in `skip` is not that of a law.
    """
    _check_names(skip)
    found: list[Verdict] = []
    for law in LAWS:
        found.append(_try(case, law, skip))
        if found[-1].holds is False and law.name in _FIRST:
            rest = LAWS[len(found) :]
            why = f"not tried, as {law.name} is broken"
            return found + [Verdict(x, None, why) for x in rest]
    return found


def _check_names(skip: Collection[str]) -> None:
    names = [law.name for law in LAWS]
    for name in skip:
        if name not in names:
            raise ValueError(f"skip must be among {', '.join(names)}, got {name!r}")


def _try(case: Case, law: Law, skip: Collection[str]) -> Verdict:
    if law.name in skip:
        return Verdict(law, None, "left out on request")
    if not law.applies(case):
        return Verdict(law, None, "does not apply")
    try:
        law.check(case)
    except Broken as broken:
        return Verdict(law, False, str(broken))
    except Exception as error:  # raised by the loss; the law tells on which arrays
        text = str(error).strip().partition("\n")[0]
        return Verdict(law, False, f"got {type(error).__name__}: {text}")
    return Verdict(law, True)


def check_loss(
    loss: LossFunction,
    *,
    inputs: Collection[str] | None = None,
    reference: Callable[..., Any] | None = None,
    reduction: Reduction | None = None,
    skip: Collection[str] = (),
    rtol: float = 1e-5,
    seed: int = 0,
) -> None:
    """Checks a policy loss against the laws of this package, on random arrays.

    Of the batch: the parts of micro-batches add up; padding on either side, holes,
    fully masked rows, the order of rows and masked values (nan, inf, 1e6) change
    nothing; masks of bools, ints and floats are equivalent; an empty mask gives 0;
    bfloat16 is computed in float32; all but the log-probs are constants; metrics are
    finite pairs that add up; calls have no state; jit and vmap change nothing.

    Of the objective: finite at log-ratios of +-1e4 and at exactly 0; at ratio 1 every
    token is pushed, up where A > 0, down where A < 0, and not at all where A = 0; a
    clip acts on the side away from ratio 1; a pull is towards the reference policy; the
    gradient is not rounded; a nan is not hidden.

    An error that results in another valid method, such as a different denominator, is
    found only with a `reduction` or a `reference`.

    Args:
      loss: f(logprobs, old_logprobs, advantages, mask, counts, **inputs) -> (scalar,
        metrics), as `dapo_loss`; of JAX arrays, or of torch tensors in a file that
        imports torch. Bind its settings with `functools.partial`.
      inputs: names among `INPUTS`, or ending in `_logprobs`, that the loss takes by
        keyword; with "group_ids" it also gets `num_groups`, with "correct"
        `positive_counts`. If left out, those that it (and the reference) names.
      reference: the same in NumPy, f(logprobs, old_logprobs, advantages, mask,
        **inputs) -> float, in float64; arrays are 0 outside the mask. If the gradient
        is not that of the value, return (value, gradient [B, T]).
      reduction: the mean that the loss takes, such as `token_mean`.
      skip: names of laws that this method breaks on purpose.
      rtol: relative tolerance of values and gradients.
      seed: of the arrays.

    Raises:
      AssertionError: a law is broken; the message names it and the numbers.
      ValueError: a name is unknown, or a setting of the loss has no value.

    Example:
      >>> from jaxrl_reason.losses import dapo_loss, token_mean
      >>> from jaxrl_reason.testing import check_loss
      >>> check_loss(dapo_loss, reduction=token_mean)
      >>> def mean_of_means(logprobs, old_logprobs, advantages, mask, counts):
      ...     return (logprobs * mask).sum() / mask.sum(), {}
      >>> check_loss(mean_of_means)
      Traceback (most recent call last):
      AssertionError: micro-batches: their parts must add up, got nan for -1.31198
    """
    _check_names(skip)
    case = case_of(
        loss,
        inputs=inputs,
        reference=reference,
        reduction=reduction,
        rtol=rtol,
        seed=seed,
    )
    for law in LAWS:
        found = _try(case, law, skip)
        if found.holds is False:
            raise AssertionError(f"{law.name}: {law.rule}, {found.detail}")
