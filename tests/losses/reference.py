"""The same formulas in NumPy float64, written plainly: loops instead of tricks."""

from collections.abc import Callable

import numpy as np

Array = np.ndarray


def where(mask: Array, x: Array) -> Array:
    """x inside the mask, 0 outside."""
    return np.where(mask > 0, x, 0.0)


def per_token(x: Array, mask: Array) -> Array:
    """[B] or [B, T] -> [B, T], zero outside the mask."""
    x = np.asarray(x, np.float64)
    return where(mask, np.repeat(x[:, None], mask.shape[1], 1) if x.ndim == 1 else x)


def rows(x: Array, mask: Array) -> list[Array]:
    """The unmasked tokens of every non-empty row."""
    return [
        x[i][mask[i] > 0] for i in range(len(x)) if np.count_nonzero(mask[i] > 0) > 0
    ]


def mean_or_zero(values: list[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def token_mean(x: Array, mask: Array) -> float:
    return mean_or_zero([v for row in rows(x, mask) for v in row])


def sequence_mean(x: Array, mask: Array) -> float:
    return mean_or_zero([row.mean() for row in rows(x, mask)])


def sequence_sum_mean(x: Array, mask: Array) -> float:
    return mean_or_zero([row.sum() for row in rows(x, mask)])


def fixed_length_mean(x: Array, mask: Array, length: float) -> float:
    return mean_or_zero([row.sum() / length for row in rows(x, mask)])


def prompt_mean(x: Array, mask: Array, group_ids: Array) -> float:
    means = []
    for g in sorted(set(group_ids.tolist())):
        tokens = [
            v for row in rows(x[group_ids == g], mask[group_ids == g]) for v in row
        ]
        if tokens:
            means.append(np.mean(tokens))
    return mean_or_zero(means)


def log_softmax(z: Array) -> Array:
    z = np.asarray(z, np.float64)
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def token_logprobs(z: Array, tokens: Array, temperature: float = 1.0) -> Array:
    logp = log_softmax(np.asarray(z, np.float64) / temperature)
    return np.take_along_axis(logp, tokens[..., None], -1)[..., 0]


def token_entropy(z: Array, temperature: float = 1.0) -> Array:
    logp = log_softmax(np.asarray(z, np.float64) / temperature)
    p = np.exp(logp)
    return -np.sum(p * np.where(p > 0, logp, 0.0), -1)


def unmasked(mask: Array, i: int) -> list[int]:
    return [t for t in range(mask.shape[1]) if mask[i, t] > 0]


def discounted_returns(
    rewards: Array, mask: Array, gamma: float, bootstrap: Array | None = None
) -> Array:
    out = np.zeros(rewards.shape)
    end = np.zeros(len(rewards)) if bootstrap is None else bootstrap
    for i in range(len(rewards)):
        at = unmasked(mask, i)
        for k, t in enumerate(at):
            out[i, t] = sum(gamma**j * rewards[i, s] for j, s in enumerate(at[k:]))
            out[i, t] += gamma ** (len(at) - k) * end[i]
    return out


def gae(
    rewards: Array,
    values: Array,
    mask: Array,
    gamma: float,
    lam: Array | float,
    bootstrap: Array | None = None,
) -> tuple[Array, Array]:
    """The sum of section 3 of the paper, (gamma lam)^l delta_{t+l}, term by term."""
    lam = np.broadcast_to(np.asarray(lam, np.float64), rewards.shape[:1])
    end = np.zeros(len(rewards)) if bootstrap is None else bootstrap
    out = np.zeros(rewards.shape)
    for i in range(len(rewards)):
        at = unmasked(mask, i)
        after = [values[i, t] for t in at[1:]] + [end[i]]
        delta = [
            rewards[i, t] + gamma * v - values[i, t]
            for t, v in zip(at, after, strict=True)
        ]
        for k, t in enumerate(at):
            out[i, t] = sum((gamma * lam[i]) ** j * d for j, d in enumerate(delta[k:]))
    return out, where(mask, out + where(mask, values))


def groups(rewards: Array, group_ids: Array, valid: Array | None) -> dict[int, Array]:
    """Group id -> indices of its valid members."""
    ok = np.ones(len(rewards), bool) if valid is None else np.asarray(valid) > 0
    return {
        g: np.flatnonzero((group_ids == g) & ok)
        for g in set(group_ids.tolist())
        if g >= 0
    }


def group_advantages(
    kind: str,
    rewards: Array,
    group_ids: Array,
    valid: Array | None = None,
    ddof: int = 1,
    eps: float = 1e-6,
) -> Array:
    """kind: grpo, dr_grpo or rloo; each group by its own plain formula."""
    rewards, out = np.asarray(rewards, np.float64), np.zeros(len(rewards))
    for at in groups(rewards, group_ids, valid).values():
        r = rewards[at]
        if len(r) < 2 or r.max() == r.min():
            continue
        if kind == "rloo":
            out[at] = [x - np.delete(r, i).mean() for i, x in enumerate(r)]
        elif kind == "dr_grpo":
            out[at] = r - r.mean()
        else:
            out[at] = (r - r.mean()) / (r.std(ddof=ddof) + eps)
    return out


def clipped_surrogate(
    new: Array,
    old: Array,
    advantages: Array,
    mask: Array,
    low: float = 0.2,
    high: float = 0.2,
    dual: float | None = None,
) -> Array:
    a = per_token(advantages, mask)
    ratio = np.exp(where(mask, new - old))
    loss = np.maximum(-a * ratio, -a * np.clip(ratio, 1 - low, 1 + high))
    if dual is not None:
        loss = np.where(a < 0, np.minimum(loss, -a * dual), loss)
    return where(mask, loss)


def policy_gradient(new: Array, advantages: Array, mask: Array) -> Array:
    return where(mask, -per_token(advantages, mask) * where(mask, new))


def kl(name: str, new: Array, ref: Array, mask: Array) -> Array:
    d = where(mask, new - ref)
    return {"k1": d, "k2": d**2 / 2, "k3": np.expm1(-d) + d}[name]


def value_loss(
    new: Array, old: Array, target: Array, mask: Array, clip: float | None = None
) -> Array:
    plain = (new - target) ** 2
    if clip is not None:
        plain = np.maximum(plain, (np.clip(new, old - clip, old + clip) - target) ** 2)
    return where(mask, plain / 2)


def numerical_gradient(
    f: Callable[[Array], float], x: Array, step: float = 1e-6
) -> Array:
    """Central differences of a scalar function, in float64."""
    x, out = np.array(x, np.float64), np.zeros(np.shape(x))
    for at in np.ndindex(*x.shape):
        keep = x[at]
        x[at] = keep + step
        up = f(x)
        x[at] = keep - step
        out[at] = (up - f(x)) / (2 * step)
        x[at] = keep
    return out
