"""On-policy distillation, GKD and SDPO, on numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import (
    batch_counts,
    distillation_advantages,
    generalized_jsd,
    gkd_loss,
    opd_loss,
    policy_gradient,
    sdpo_loss,
    select_teacher,
    token_mean,
)
from tests.losses.worked import close

STUDENT = np.array([[-1.0, -2.0, -0.5], [-0.3, -1.5, 9.0]])
TEACHER = np.array([[-0.5, -4.0, -0.5], [-1.3, -0.5, -7.0]])
MASK = np.array([[1, 1, 1], [1, 1, 0]])
GAP = np.array([[0.5, -2.0, 0.0], [-1.0, 1.0, 0.0]])  # teacher - student


def test_advantages_are_the_gap() -> None:
    close(distillation_advantages(STUDENT, TEACHER, MASK), GAP)
    found = distillation_advantages(
        STUDENT, TEACHER, MASK, coef=0.5, outcome_advantages=np.array([1.0, -1.0])
    )
    close(found, [[1.25, 0.0, 1.0], [-1.5, -0.5, 0.0]])


def test_the_loss_and_its_gradient() -> None:
    counts = batch_counts(MASK)
    (loss, metrics), slope = jax.value_and_grad(opd_loss, has_aux=True)(
        STUDENT, TEACHER, MASK, counts
    )
    close(loss, -GAP.sum() / 5)  # 1.5 / 5
    close(slope, -GAP / 5)
    close(metrics["teacher_kl"], (1.5, 5.0))


def test_weights_multiply_value_and_gradient() -> None:
    weights, counts = np.array([2.0, 0.0]), batch_counts(MASK)
    (loss, metrics), slope = jax.value_and_grad(opd_loss, has_aux=True)(
        STUDENT, TEACHER, MASK, counts, weights=weights
    )
    close(loss, 2 * 1.5 / 5)
    close(slope, -GAP * weights[:, None] / 5)
    close(metrics["teacher_kl"], (1.5, 5.0))


def test_advantage_and_loss_agree_on_policy() -> None:
    counts = batch_counts(MASK)

    def as_advantage(x: jax.Array) -> jax.Array:
        advantages = distillation_advantages(x, TEACHER, MASK)
        return token_mean(policy_gradient(x, advantages, MASK), MASK, counts)

    def as_loss(x: jax.Array) -> jax.Array:
        return opd_loss(x, TEACHER, MASK, counts)[0]

    close(jax.grad(as_advantage)(STUDENT), jax.grad(as_loss)(STUDENT))


def test_the_sampled_loss_is_unbiased() -> None:
    """Summed over all tokens by their probability: the reverse KL, value and slope."""
    rng = np.random.default_rng(0)
    z, teacher_z = rng.normal(0, 1, (2, 1, 6))
    teacher = jax.nn.log_softmax(teacher_z)
    probability = jax.nn.softmax(z).reshape(6, 1)
    mask = np.ones((6, 1))
    counts = batch_counts(np.ones((1, 1)))  # the weights already make it a mean

    def sampled(logits: jax.Array) -> jax.Array:
        logprobs = jax.nn.log_softmax(logits).reshape(6, 1)
        return opd_loss(
            logprobs, teacher.reshape(6, 1), mask, counts, weights=probability
        )[0]

    def exact(logits: jax.Array) -> jax.Array:
        return generalized_jsd(logits, teacher_z, beta=1.0).sum()

    close(sampled(z), exact(z))
    close(jax.grad(sampled)(z), jax.grad(exact)(z), atol=1e-6)


def test_each_sequence_has_the_teacher_of_its_domain() -> None:
    teachers = np.stack([TEACHER, TEACHER - 10.0, np.full_like(TEACHER, np.nan)])
    found = select_teacher(teachers, np.array([1, 0]), MASK)
    expected = np.where(MASK, np.stack([TEACHER[0] - 10.0, TEACHER[1]]), 0.0)
    close(found, expected)
    unknown = np.asarray(select_teacher(teachers, np.array([1, 3]), MASK))
    assert np.isnan(unknown[1, :2]).all()
    assert np.isfinite(unknown[0]).all()


def test_gkd_is_a_mean_over_sequences() -> None:
    divergence = np.array([[1.0, 3.0, 5.0], [4.0, 6.0, np.nan]])
    loss, metrics = gkd_loss(divergence, MASK, batch_counts(MASK))
    close(loss, (3.0 + 5.0) / 2)
    close(metrics["teacher_divergence"], (19.0, 5.0))


def test_sdpo_caps_the_ratio_and_leaves_rows_out() -> None:
    divergence = np.array([[1.0, 2.0, 4.0], [8.0, 16.0, 0.0]])
    old = np.zeros((2, 3))
    new = np.log(np.array([[4.0, 0.5, 1.0], [1.0, 1.0, 1.0]]))
    taught = np.array([True, False])
    counts = batch_counts(MASK * taught[:, None])
    given = (new, old, MASK, counts)
    loss, metrics = sdpo_loss(divergence, *given, has_teacher=taught)
    close(loss, (2 * 1.0 + 0.5 * 2.0 + 4.0) / 3)
    close(metrics["teacher_divergence"], (7.0, 3.0))
    plain, _ = sdpo_loss(divergence, *given, has_teacher=taught, ratio_cap=None)
    close(plain, 7.0 / 3)


def test_the_weight_of_sdpo_is_a_constant() -> None:
    divergence, old = np.full((2, 3), 0.5), np.full((2, 3), -1.0)
    counts = batch_counts(MASK)

    def loss(new: jax.Array) -> jax.Array:
        return sdpo_loss(divergence, new, old, MASK, counts)[0]

    assert not np.any(jax.grad(loss)(jnp.asarray(STUDENT)))


def test_wrong_use_is_refused() -> None:
    counts = batch_counts(MASK)
    with pytest.raises(ValueError, match="counts must come from batch_counts, got int"):
        opd_loss(STUDENT, TEACHER, MASK, 5)
    with pytest.raises(ValueError, match="coef must be"):
        distillation_advantages(STUDENT, TEACHER, MASK, coef=-1.0)
    with pytest.raises(ValueError, match="ratio_cap must be > 0, got 0"):
        sdpo_loss(STUDENT, STUDENT, STUDENT, MASK, counts, ratio_cap=0.0)
    with pytest.raises(ValueError, match="teacher_logprobs must have shape"):
        select_teacher(TEACHER, np.array([0, 0]), MASK)
    with pytest.raises(ValueError, match="divergence"):
        gkd_loss(STUDENT[:, :2], MASK, counts)
