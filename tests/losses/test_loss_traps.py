"""Faults found in public libraries, each beside the property that it breaks.

A test here asserts the property of the library's function and then that the same
assertion fails on a mutant: the faulty form as it was seen elsewhere. The numbers of
the sections are those of the project's list of traps.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_reason.losses as lib
from tests.losses import reference
from tests.losses.jaxprs import largest_array
from tests.losses.worked import EXAMPLES, MASK, NEW, OLD, VALUES, close

X = np.where(MASK, VALUES, 0).astype(np.float32)


def slope(loss: Callable) -> Callable:
    """Value and gradient in the first argument, compiled as one."""
    return jax.jit(jax.value_and_grad(loss))


def zero(x: Any) -> bool:
    return bool((np.asarray(x) == 0).all())


def breaks(check: Callable[[Any], None], mutant: Any) -> None:
    """The same assertions fail on the faulty form."""
    with pytest.raises(AssertionError):
        check(mutant)


# 1. A denominator taken from the rows at hand.

REDUCTIONS = {
    "token_mean": lib.token_mean,
    "sequence_mean": lib.sequence_mean,
    "sequence_sum_mean": lib.sequence_sum_mean,
    "fixed_length_mean": partial(lib.fixed_length_mean, length=8),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_1_micro_batches_give_the_whole(name: str) -> None:
    reduction = REDUCTIONS[name]

    def check(share: Callable) -> None:
        counts = lib.batch_counts(MASK)

        def loss(x: jax.Array) -> jax.Array:
            parts = [slice(0, 1), slice(1, 4)]
            return sum(share(x[p], MASK[p], counts, len(parts)) for p in parts)

        value, grad = slope(loss)(X)
        whole = slope(lambda x: reduction(x, MASK, counts))(X)
        close(value, whole[0])
        close(grad, whole[1])

    check(lambda x, m, counts, parts: reduction(x, m, counts))
    breaks(
        check, lambda x, m, counts, parts: reduction(x, m, lib.batch_counts(m)) / parts
    )


def test_1_micro_batches_give_the_whole_prompt_mean() -> None:
    ids = np.array([0, 1, 0, 1])

    def check(share: Callable) -> None:
        counts = lib.batch_counts(MASK, ids, num_groups=2)
        parts = [slice(0, 1), slice(1, 4)]
        value = sum(share(X[p], MASK[p], ids[p], counts) for p in parts)
        close(value, reference.prompt_mean(X, MASK, ids))

    check(partial(lib.prompt_mean, num_groups=2))

    def local(x: Any, m: Any, i: Any, counts: Any) -> jax.Array:
        here = lib.batch_counts(m, i, num_groups=2)
        return lib.prompt_mean(x, m, i, here, num_groups=2) / 2

    breaks(check, local)


# 3. Masked rows in a denominator.


@pytest.mark.parametrize("name", REDUCTIONS)
def test_3_a_masked_row_changes_nothing(name: str) -> None:
    reduction = REDUCTIONS[name]

    def check(mean: Callable) -> None:
        wide = np.concatenate([X, np.ones((2, 4), np.float32)])
        mask = np.concatenate([MASK, np.zeros((2, 4), int)])
        close(mean(wide, mask), mean(X, MASK))

    check(lambda x, m: reduction(x, m, lib.batch_counts(m)))

    def all_rows(x: Any, m: Any) -> jax.Array:
        counts = lib.batch_counts(m)
        rows = jnp.asarray(len(m))
        return reduction(x, m, lib.Counts(counts.tokens, rows))

    def phantom_token(x: Any, m: Any) -> jax.Array:
        counts = lib.batch_counts(m)
        tokens = jnp.maximum(jnp.asarray(m).sum(1), 1).sum()
        return reduction(x, m, lib.Counts(tokens, counts.sequences))

    breaks(check, phantom_token if name == "token_mean" else all_rows)


# 4. Dr. GRPO's constant taken from the width; only one of its two parts.


def test_4_the_constant_does_not_follow_the_width() -> None:
    def check(loss: Callable) -> None:
        pad = lambda x: np.pad(x, [(0, 0), (0, 4)])  # noqa: E731
        a, counts = np.ones(4), lib.batch_counts(MASK)
        narrow = loss(NEW, OLD, a, MASK, counts)[0]
        close(loss(pad(NEW), pad(OLD), a, pad(MASK), counts)[0], narrow)

    check(partial(lib.dr_grpo_loss, length=8))
    breaks(check, lambda x, *rest: lib.dr_grpo_loss(x, *rest, length=x.shape[1]))


def test_4_both_parts_are_done() -> None:
    def check_advantages(estimate: Callable) -> None:
        # Not divided by the standard deviation: twice the rewards, twice the
        # advantages.
        r, ids = np.array([1.0, 0.0, 0.0, 0.0]), np.zeros(4, int)
        close(estimate(2 * r, ids, num_groups=1), 2 * estimate(r, ids, num_groups=1))

    def check_loss(loss: Callable) -> None:
        # Not divided by the sequence's own length: every token pulls alike.
        counts = lib.batch_counts(MASK)
        pull = slope(lambda x: loss(x, OLD, np.ones(4), MASK, counts))
        pulls = np.asarray(pull(OLD.astype(np.float32))[1])[MASK > 0]
        close(pulls, np.full_like(pulls, pulls[0]))

    check_advantages(lib.dr_grpo_advantages)
    breaks(check_advantages, lib.grpo_advantages)
    check_loss(lambda *a: lib.dr_grpo_loss(*a, length=8)[0])
    breaks(check_loss, lambda *a: lib.grpo_loss(*a)[0])


# 6. The mean over nothing.


@pytest.mark.parametrize("name", REDUCTIONS)
def test_6_an_empty_mask_gives_zero(name: str) -> None:
    none = np.zeros_like(MASK)

    def check(mean: Callable) -> None:
        value, grad = slope(mean)(X, none)
        assert value == 0
        assert zero(grad)

    check(lambda x, m: REDUCTIONS[name](x, m, lib.batch_counts(m)))
    breaks(check, lambda x, m: (x * m).sum() / m.sum().astype(float))
    breaks(check, lambda x, m: ((x * m).sum(1) / jnp.asarray(m).sum(1)).mean())


# 7. Groups by reshape.


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo"])
def test_7_groups_of_any_size_and_order(name: str) -> None:
    rewards = np.array([1.0, 0.0, 0.5, 0.25, 0.75, 2.0])
    ids = np.array([0, 1, 1, 0, 1, 1])
    expected = reference.group_advantages(name, rewards, ids)

    def check(estimate: Callable) -> None:
        close(estimate(rewards, ids), expected)

    check(partial(getattr(lib, f"{name}_advantages"), num_groups=2))

    def by_position(r: np.ndarray, ids: np.ndarray) -> np.ndarray:
        return reference.group_advantages(name, r, np.arange(6) // 3)

    breaks(check, by_position)


# 8. The standard deviation of equal rewards is not 0 in float32.


def plain_grpo(r: Any, ids: Any, *, num_groups: int) -> jax.Array:
    """One group, by the formula alone."""
    r = jnp.asarray(r, jnp.float32)
    return (r - r.mean()) / (r.std(ddof=1) + 1e-6)


def test_8_equal_rewards_have_no_advantage() -> None:
    def check(estimate: Callable) -> None:
        for size in (8, 11):
            r = np.full(size, 0.1, np.float32)
            assert zero(estimate(r, np.zeros(size, int), num_groups=1))

    check(lib.grpo_advantages)
    check(lib.dr_grpo_advantages)
    check(lib.rloo_advantages)
    breaks(check, plain_grpo)


def test_8_equal_rewards_have_no_signal() -> None:
    def check(signal: Callable) -> None:
        r = np.full(11, 0.1, np.float32)
        assert zero(signal(r, np.zeros(11, int), num_groups=1))

    check(lib.group_signal)
    breaks(check, lambda r, ids, num_groups: (jnp.asarray(r).std() > 0)[None])


# 9. A group of one.


def test_9_a_group_of_one_has_no_advantage() -> None:
    def check(estimate: Callable) -> None:
        assert zero(estimate(np.array([3.0]), np.array([0]), num_groups=1))

    for estimate in (
        lib.grpo_advantages,
        lib.dr_grpo_advantages,
        lib.rloo_advantages,
        lambda *a, **k: lib.grpo_advantages(*a, ddof=0, **k),
    ):
        check(estimate)
    breaks(check, lambda r, ids, num_groups: r)  # the raw reward
    breaks(check, plain_grpo)  # nan


# 10. Silent ddof and eps.


def test_10_the_defaults_are_the_papers_code() -> None:
    def check(estimate: Callable) -> None:
        r = np.array([1.0, 0.0, 0.0, 0.0])
        found = estimate(r, np.zeros(4, int), num_groups=1)
        close(found, EXAMPLES["grpo.ddof1"], rtol=5e-7, atol=0)

    check(lib.grpo_advantages)
    breaks(check, partial(lib.grpo_advantages, ddof=0))
    breaks(check, partial(lib.grpo_advantages, eps=1e-4))
    breaks(check, partial(lib.grpo_advantages, eps=0.0))


# 13. Values carried wrongly over masked tokens.


def insert(x: np.ndarray, garbage: float) -> np.ndarray:
    """A masked column between the second and the third, one before and one after."""
    return np.insert(x, [0, 2, 4], garbage, axis=1)


def test_13_inserting_masked_tokens_changes_nothing_else() -> None:
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, 2, 4))
    mask = np.ones((2, 4))
    wide = insert(mask, 0.0)

    def check(function: Callable) -> None:
        narrow = np.asarray(function(rewards, values, mask))
        for garbage in (1e6, np.nan):
            found = function(insert(rewards, garbage), insert(values, garbage), wide)
            found = np.asarray(found)
            close(found[wide > 0].reshape(2, 4), narrow)
            assert (found[wide == 0] == 0).all()

    settings = {"gamma": 0.9, "lam": 0.8}
    check(lambda r, v, m: lib.gae(r, v, m, **settings)[0])
    check(lambda r, v, m: lib.gae(r, v, m, **settings)[1])
    check(lambda r, v, m: lib.discounted_returns(r, m, gamma=0.9))

    def by_position(r: Any, v: Any, m: Any, reset: bool) -> np.ndarray:
        """Masked tokens count as steps; `reset` zeroes what is carried on them."""
        out, a, after = np.zeros(r.shape), 0.0, 0.0
        for t in reversed(range(r.shape[1])):
            on = m[:, t] > 0
            now = np.where(on, v[:, t], 0.0)
            delta = np.where(on, r[:, t], 0.0) + 0.9 * after - now
            a = delta + 0.9 * 0.8 * a
            if reset:
                a, now = a * on, now * on
            after, out[:, t] = now, np.where(on, a, 0.0)
        return out

    breaks(check, partial(by_position, reset=False))
    breaks(check, partial(by_position, reset=True))


# 14. The clip inverted for negative advantages.


def test_14_the_clip_is_pessimistic_for_both_signs() -> None:
    table = {  # (advantage, ratio): (value, gradient in the log-prob)
        (1.0, 0.5): (-0.5, -0.5),
        (1.0, 1.0): (-1.0, -1.0),
        (1.0, 1.5): (-1.2, 0.0),
        (-1.0, 0.5): (0.8, 0.0),
        (-1.0, 1.0): (1.0, 1.0),
        (-1.0, 1.5): (1.5, 1.5),
    }

    def check(surrogate: Callable) -> None:
        run = slope(lambda *arrays: surrogate(*arrays).sum())
        for (a, ratio), (value, expected) in table.items():
            one = np.ones((1, 1), np.float32)
            found, grad = run(np.float32(np.log(ratio)) * one, 0 * one, a * one, one)
            close(found, value)
            close(grad, [[expected]])

    check(lib.clipped_surrogate)

    def mutant(new: Any, old: Any, a: Any, m: Any) -> jax.Array:
        ratio = jnp.exp(new - old)
        return jnp.minimum(-a * ratio, -a * jnp.clip(ratio, 0.8, 1.2))

    breaks(check, mutant)


# 17. exp of a large log-ratio.


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_17_large_log_ratios_stay_finite(advantage: float) -> None:
    old = np.array([[0.0, -100.0, 100.0, -100.0]], np.float32)
    mask = np.array([[1, 1, 1, 0]])

    def check(surrogate: Callable) -> None:
        def loss(x: jax.Array) -> jax.Array:
            tokens = surrogate(x, old, np.full((1, 4), advantage, np.float32), mask)
            return lib.token_mean(tokens, mask, lib.batch_counts(mask))

        value, grad = slope(loss)(np.zeros((1, 4), np.float32))
        assert np.isfinite(value)
        assert np.isfinite(grad).all()
        assert np.asarray(grad)[0, 3] == 0

    check(lib.clipped_surrogate)
    check(partial(lib.clipped_surrogate, dual_clip=3.0))
    check(lambda x, old, a, m: lib.kl_penalty(x, old, m))

    def mutant(new: Any, old: Any, a: Any, m: Any) -> jax.Array:
        ratio = jnp.exp(new - old) * m
        return jnp.maximum(-a * ratio, -a * jnp.clip(ratio, 0.8, 1.2))

    breaks(check, mutant)


# 20. A penalty that pushes at ratio 1.


def test_20_no_penalty_pushes_where_the_policies_agree() -> None:
    def check(penalty: Callable) -> None:
        pull = slope(lambda x: penalty(x, OLD, MASK).sum())
        assert zero(pull(OLD.astype(np.float32))[1])

    for gradient in ("k2", "k3"):
        for estimator in ("k1", "k2", "k3"):
            check(partial(lib.kl_penalty, estimator=estimator, gradient=gradient))
    breaks(check, lambda x, ref, m: jnp.abs(jnp.where(m, x - ref, 0.0)))


# 21. k3 by its plain formula.


def test_21_k3_is_never_negative_nor_infinite() -> None:
    d = np.concatenate([np.geomspace(1e-8, 200.0, 400), [0.0]])
    d = np.concatenate([d, -d]).astype(np.float32)[None]
    ones, zeros = np.ones_like(d), np.zeros_like(d)

    def check(k3: Callable) -> None:
        value = np.asarray(jax.jit(k3)(d))
        assert (value >= 0).all()
        assert np.isfinite(value).all()
        assert np.isfinite(slope(lambda x: k3(x).sum())(d)[1]).all()

    check(lambda d: lib.kl_k3(d, zeros))
    check(lambda d: lib.kl_penalty(d, zeros, ones))
    breaks(check, lambda d: jnp.exp(jnp.clip(-d, -20, 20)) + d - 1)  # cancels
    breaks(check, lambda d: jnp.maximum(jnp.expm1(-d) + d, 0))  # overflows


# 22. The wrong form as a loss.


def test_22_a_penalty_has_the_gradient_that_was_asked_for() -> None:
    z = np.array([0.2, -0.1, 0.5], np.float32)
    ref = jax.nn.log_softmax(np.array([0.0, 0.3, 0.1], np.float32))
    p = jax.nn.softmax(z)

    def check(penalty: Callable) -> None:
        """Over all tokens: the gradient of KL(policy || reference)."""

        def expected(z: jax.Array) -> jax.Array:
            tokens = penalty(jax.nn.log_softmax(z)[None], ref[None], np.ones((1, 3)))
            return (p * tokens[0]).sum()

        close(slope(expected)(z)[1], EXAMPLES["klg.rev"])

    for estimator in ("k1", "k3"):
        check(partial(lib.kl_penalty, estimator=estimator, gradient="k2"))
    check(partial(lib.kl_penalty, estimator="k2"))
    breaks(check, partial(lib.kl_penalty, estimator="k1"))  # zero on average
    breaks(check, partial(lib.kl_penalty, estimator="k3"))  # the other direction


# 25. The overlong penalty without a floor.


def test_25_the_penalty_has_a_floor() -> None:
    def check(penalty: Callable) -> None:
        lengths = np.array([16384, 20480, 22528, 10**6])
        assert penalty(lengths).tolist() == [0.0, -1.0, -1.0, -1.0]

    check(partial(lib.soft_overlong_penalty, max_length=20480, cache_length=4096))
    mutant = lambda n: np.minimum(-(n - 16384) / 4096, 0.0)  # noqa: E731
    close(mutant(np.array(22528)), EXAMPLES["sop.verl_22528"])
    breaks(check, mutant)


# 45. Full logits.


@pytest.mark.parametrize(("batch", "tokens"), [(8, 64), (64, 8), (512, 1)])
def test_45_no_array_of_all_logits(batch: int, tokens: int) -> None:
    width, vocabulary, chunk = 4, 300, 32
    hidden, unembed = jnp.ones((batch, tokens, width)), jnp.ones((width, vocabulary))
    targets = jnp.zeros((batch, tokens), int)

    def check(function: Callable) -> None:
        def loss(hidden: jax.Array, unembed: jax.Array) -> jax.Array:
            logprobs, entropy = function(hidden, unembed)
            return logprobs.sum() + entropy.sum()

        largest = largest_array(jax.value_and_grad(loss, (0, 1)), hidden, unembed)
        assert largest <= chunk * vocabulary

    check(lambda h, w: lib.chunked_logprobs(h, w, targets, chunk_size=chunk))

    def all_at_once(h: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
        return lib.token_logprobs(h @ w, targets), lib.token_entropy(h @ w)

    def kept_for_the_backward_pass(h: jax.Array, w: jax.Array) -> Any:
        """Blocks in the forward pass, but the scan saves every block's logits."""

        def block(x: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            z = x[0] @ w
            return lib.token_logprobs(z, x[1]), lib.token_entropy(z)

        split = h.reshape(-1, chunk, width), targets.reshape(-1, chunk)
        return jax.lax.map(block, split)

    breaks(check, all_at_once)
    breaks(check, kept_for_the_backward_pass)


# 46. where after exp.


def test_46_a_dead_branch_has_no_gradient() -> None:
    mask = np.array([[1, 0]])
    old = np.array([[0.0, -1000.0]], np.float32)

    def check(surrogate: Callable) -> None:
        run = slope(lambda x: surrogate(x, old, np.ones((1, 2)), mask).sum())
        found = np.asarray(run(np.zeros((1, 2), np.float32))[1])
        assert np.isfinite(found).all()
        assert found[0, 1] == 0

    check(lib.clipped_surrogate)
    check(lambda x, old, a, m: lib.kl_penalty(x, old, m))

    def mutant(new: Any, old: Any, a: Any, m: Any) -> jax.Array:
        return jnp.where(m, -a * jnp.exp(new - old), 0.0)

    breaks(check, mutant)


# 47. The gradient of a standard deviation.


@pytest.mark.parametrize("rewards", [[0.5, 0.5, 0.5], [0.5]])
def test_47_rewards_that_depend_on_parameters(rewards: list[float]) -> None:
    def check(estimate: Callable) -> None:
        r, ids = np.array(rewards, np.float32), np.zeros(len(rewards), int)
        value, grad = slope(lambda r: (estimate(r, ids, num_groups=1) ** 2).sum())(r)
        assert value == 0
        assert zero(grad)

    check(lib.grpo_advantages)
    check(lib.dr_grpo_advantages)
    check(lib.rloo_advantages)
    breaks(check, plain_grpo)


# 48. [B, T] * [B] when T == B.


def test_48_a_square_batch_is_not_broadcast_the_wrong_way() -> None:
    a = np.array([1.0, -1.0, 0.5, -2.0], np.float32)  # B = T = 4
    expected = reference.policy_gradient(NEW, a, MASK)

    def check(loss: Callable) -> None:
        close(loss(NEW, a, MASK), expected)

    check(lib.policy_gradient)
    check(lambda x, a, m: lib.policy_gradient(x, np.repeat(a[:, None], 4, 1), m))

    def mutant(x: Any, a: Any, m: Any) -> Any:
        return -a * np.where(m, x, 0.0)  # NumPy broadcasts over the tokens

    breaks(check, mutant)
    with pytest.raises(ValueError, match="jax_numpy_rank_promotion"):
        jnp.asarray(NEW) * jnp.asarray(a)
