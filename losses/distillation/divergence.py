"""Divergences between the next-token distributions of a student and a teacher.

Over the whole vocabulary, over the K tokens of a support, and from hidden states
without storing the logits of all tokens. All are per token: a reduction, or `gkd_loss`
and `sdpo_loss`, turns them into a loss.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._blocks import join_blocks, map_blocks, split_blocks
from jaxrl_reason.losses._math import k3


def generalized_jsd(
    logits: ArrayLike,
    teacher_logits: ArrayLike,
    *,
    beta: float = 0.5,
    temperature: float | jax.Array = 1.0,
) -> jax.Array:
    """Generalised Jensen-Shannon divergence of each token's two distributions.

    With teacher p = softmax(teacher_logits / tau), student q = softmax(logits / tau)
    and the mixture m = beta p + (1 - beta) q:
    D_beta = beta KL(p || m) + (1 - beta) KL(q || m). GKD, arXiv 2306.13649, equation 1.
    At the ends of the range D_beta tends to 0; there, as in TRL, the functions return
    the divergences whose gradients it tends to: beta = 0 is the forward KL(p || q),
    beta = 1 the reverse KL(q || p).

    Args:
      logits: [..., V] of the student.
      teacher_logits: [..., V] of the teacher; a constant.
      beta: static, in [0, 1].
      temperature: of both distributions, > 0.

    Returns:
      [...] float32 >= 0, in nats; differentiable in `logits`. A token that both
      distributions forbid (-inf) counts 0; one that only one of them forbids can make
      the forward or reverse KL infinite.

    Raises:
      ValueError: shapes differ, `beta` is not in [0, 1], or `temperature` <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import generalized_jsd
      >>> student = jnp.log(jnp.array([[[0.5, 0.5]]]))
      >>> teacher = jnp.log(jnp.array([[[0.25, 0.75]]]))
      >>> for beta in (0.0, 0.5, 1.0):
      ...     print(round(generalized_jsd(student, teacher, beta=beta).item(), 4))
      0.1308
      0.0338
      0.1438
    """
    logits = _checks.floating("logits", logits)
    teacher_logits = _checks.constant("teacher_logits", teacher_logits)
    if logits.ndim < 1 or logits.shape != teacher_logits.shape:
        raise ValueError(
            "logits and teacher_logits must have the same shape [..., V], got "
            f"{list(logits.shape)} and {list(teacher_logits.shape)}"
        )
    _check_beta(beta)
    _checks.number("temperature", temperature, above=0)
    student = jax.nn.log_softmax(logits / temperature)
    return _jsd(student, jax.nn.log_softmax(teacher_logits / temperature), beta)


def top_k_jsd(
    logprobs: ArrayLike,
    teacher_logprobs: ArrayLike,
    *,
    beta: float = 0.5,
    tail: bool = True,
) -> jax.Array:
    """`generalized_jsd` over K tokens of the vocabulary.

    The log-probs are those of the full distributions at the same K tokens, for example
    the K likeliest of the student or of the teacher. With `tail` the rest of the
    vocabulary is one more token of probability 1 - sum_k p_k, which gives a lower bound
    on the divergence over V; without it, both are renormalised over the K. SDPO, arXiv
    2601.20802, appendix A.3: beta = 1, the student's 100 likeliest tokens and the tail.

    Args:
      logprobs: [..., K] of the student.
      teacher_logprobs: [..., K] of the teacher at the same tokens; a constant.
      beta: static, in [0, 1], as in `generalized_jsd`.
      tail: static, whether the rest counts as one token.

    Returns:
      [...] float32 >= 0; differentiable in `logprobs`.

    Raises:
      ValueError: shapes differ, or `beta` is not in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import top_k_jsd
      >>> student = jnp.log(jnp.array([[0.5, 0.3]]))
      >>> teacher = jnp.log(jnp.array([[0.25, 0.3]]))
      >>> round(top_k_jsd(student, teacher, beta=1.0).item(), 4)
      0.1844
    """
    logprobs = _checks.floating("logprobs", logprobs)
    teacher_logprobs = _checks.constant("teacher_logprobs", teacher_logprobs)
    if logprobs.ndim < 1 or logprobs.shape != teacher_logprobs.shape:
        raise ValueError(
            "logprobs and teacher_logprobs must have the same shape [..., K], got "
            f"{list(logprobs.shape)} and {list(teacher_logprobs.shape)}"
        )
    _check_beta(beta)
    complete = _with_tail if tail else jax.nn.log_softmax
    return _jsd(complete(logprobs), complete(teacher_logprobs), beta)


def chunked_jsd(
    hidden: ArrayLike,
    unembed: ArrayLike,
    teacher_hidden: ArrayLike,
    teacher_unembed: ArrayLike,
    *,
    beta: float = 0.5,
    temperature: float | jax.Array = 1.0,
    chunk_size: int = 1024,
) -> jax.Array:
    """`generalized_jsd` from hidden states, without storing all logits.

    As `chunked_logprobs`: blocks of at most `chunk_size` tokens one after the other,
    whose logits are recomputed in the backward pass. The two models may differ in
    hidden size; they share the vocabulary.

    Args:
      hidden: [B, T, D] of the student, after the final norm.
      unembed: [D, V] of the student.
      teacher_hidden: [B, T, E] of the teacher; a constant.
      teacher_unembed: [E, V] of the teacher; a constant.
      beta: static, in [0, 1], as in `generalized_jsd`.
      temperature: of both distributions, > 0.
      chunk_size: static, tokens per block at most.

    Returns:
      [B, T] float32 >= 0; differentiable in `hidden` and `unembed`.

    Raises:
      ValueError: shapes or types do not fit, `beta` is not in [0, 1], `temperature`
        <= 0, or `chunk_size` < 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrl_reason.losses import chunked_jsd, generalized_jsd
      >>> keys = jax.random.split(jax.random.key(0), 4)
      >>> shapes = (2, 3, 4), (4, 7), (2, 3, 5), (5, 7)
      >>> h, u, h_t, u_t = map(jax.random.normal, keys, shapes)
      >>> found = chunked_jsd(h, u, h_t, u_t, chunk_size=2)
      >>> bool(jnp.allclose(found, generalized_jsd(h @ u, h_t @ u_t), atol=1e-6))
      True
    """
    hidden, unembed = jnp.asarray(hidden), jnp.asarray(unembed)
    teacher_hidden = jax.lax.stop_gradient(jnp.asarray(teacher_hidden))
    teacher_unembed = jax.lax.stop_gradient(jnp.asarray(teacher_unembed))
    shapes = {}
    for name, x in {
        "hidden": hidden,
        "unembed": unembed,
        "teacher_hidden": teacher_hidden,
        "teacher_unembed": teacher_unembed,
    }.items():
        _checks.floating(name, x, widen=False)
        shapes[name] = list(x.shape)
    if not (
        hidden.ndim == teacher_hidden.ndim == 3
        and unembed.ndim == teacher_unembed.ndim == 2
        and hidden.shape[:2] == teacher_hidden.shape[:2]
        and hidden.shape[2] == unembed.shape[0]
        and teacher_hidden.shape[2] == teacher_unembed.shape[0]
        and unembed.shape[1] == teacher_unembed.shape[1]
    ):
        raise ValueError(
            "hidden, unembed, teacher_hidden and teacher_unembed must have shapes "
            f"[B, T, D], [D, V], [B, T, E] and [E, V], got {shapes}"
        )
    _check_beta(beta)
    _checks.number("temperature", temperature, above=0)
    chunk_size = _checks.static_size("chunk_size", chunk_size)

    wide = jnp.promote_types(hidden.dtype, jnp.float32)

    @jax.checkpoint
    def block(states: tuple[jax.Array, jax.Array]) -> jax.Array:
        student, teacher = (
            jnp.einsum("nd,dv->nv", h, head, preferred_element_type=wide)
            for h, head in zip(states, (unembed, teacher_unembed), strict=True)
        )
        return generalized_jsd(student, teacher, beta=beta, temperature=temperature)

    states = split_blocks(hidden, chunk_size), split_blocks(teacher_hidden, chunk_size)
    batch, length, _ = hidden.shape
    return join_blocks(map_blocks(block, states), (batch, length), chunk_size)


def _jsd(student: jax.Array, teacher: jax.Array, beta: float) -> jax.Array:
    """[..., V] log-probs -> [...]."""
    if beta == 0:
        return _kl(teacher, student)
    if beta == 1:
        return _kl(student, teacher)
    # Where both are -inf the mixture's gradient would be nan: select before the log.
    possible = jnp.maximum(student, teacher) > -jnp.inf
    q = jnp.where(possible, student, 0.0) + math.log1p(-beta)
    p = jnp.where(possible, teacher, 0.0) + math.log(beta)
    mixture = jnp.where(possible, jnp.logaddexp(q, p), -jnp.inf)
    return beta * _kl(teacher, mixture) + (1 - beta) * _kl(student, mixture)


@jax.custom_jvp
def _kl(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """KL(p || q) of log-probs [..., V]: sum_v p log(p / q) - p + q, sum_v (q - p) = 0.

    No term is negative: where p and q are close, those of sum_v p log(p / q) cancel to
    a thousandth of their size. A token of probability 0 under p gives q.
    """
    p, q, d = _terms(log_p, log_q)
    near = (jnp.abs(d) < 0.5) & (p > 0)
    terms = jnp.where(near, p * k3(jnp.where(near, d, 0.0)), p * d + (q - p))
    return jnp.sum(terms, axis=-1)


@_kl.defjvp
def _kl_slope(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    p, q, d = _terms(*primals)
    return _kl(*primals), jnp.sum(p * d * tangents[0] + (q - p) * tangents[1], axis=-1)


def _terms(
    log_p: jax.Array, log_q: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """p, q and log(p / q), 0 where p is."""
    d = jnp.where(log_p > -jnp.inf, log_p - log_q, 0.0)
    return jnp.exp(log_p), jnp.exp(log_q), d


def _with_tail(logprobs: jax.Array) -> jax.Array:
    """[..., K] -> [..., K + 1]: the rest of the vocabulary as one token."""
    # Rounding may bring the sum of K probabilities to 1 or above it.
    total = jnp.minimum(jax.nn.logsumexp(logprobs, axis=-1, keepdims=True), -1e-7)
    return jnp.concatenate([logprobs, jnp.log(-jnp.expm1(total))], axis=-1)


def _check_beta(beta: float) -> None:
    if not (isinstance(beta, int | float) and 0 <= beta <= 1):
        raise ValueError(f"beta must be a number in [0, 1], got {beta!r}")
