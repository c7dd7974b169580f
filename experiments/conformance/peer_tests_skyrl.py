"""SkyRL's unit tests with the functions of `jaxrl_reason.losses`.

Each adapter has the name and the arguments of what it stands for, and calls ours; what
an argument of theirs has no word for here is said beside it.
"""

import importlib
from collections.abc import Callable
from typing import Any

import jax
import torch

from experiments.conformance.bridge import counts, groups, ours
from jaxrl_reason import losses

TESTS = (
    "tests/backends/skyrl_train/utils/test_ppo_utils.py",
    "tests/train/algorithms/test_losses.py",
    "tests/train/algorithms/test_off_policy_correction.py",
    "tests/backends/skyrl_train/utils/test_torch_utils.py",
)
STAND_INS = ("cloudpathlib", "loguru", "ray", "skyrl_gym", "transformers", "vllm")
NOT_RUN: tuple[str, ...] = ("test_registry_",)
ON_CPU = False
OTHERS = {  # tests without mathematics, by a part of their names
    "registry": "a registry of functions",
    "requires_boundaries": "an argument that is missing",
    "invalid": "a name that is unknown",
    "fixed_kl_controller": "a coefficient that stays what it is",
    "cispo_anchor_validation": "a setting that is unknown",
    "requires_rollout_logprobs": "an argument that is missing",
    "rejects_tis": "two settings that exclude each other",
    "null_configs": "nothing is switched on",
}
MISSING = {  # mathematics that this library has otherwise
    "gae_advantage_return_with_masking": "an advantage outside the mask, 0 here",
}
PPO = "skyrl.backends.skyrl_train.utils.ppo_utils"
CORRECTION = "skyrl.backends.skyrl_train.utils.off_policy_correction_utils"
TORCH = "skyrl.backends.skyrl_train.utils.torch_utils"


def adapters() -> dict[str, Callable[..., Any]]:
    """By the place of the function that each stands for."""
    advantages = "apply_loss_reduction_to_advantages_minibatch"
    return {
        f"{PPO}:compute_approx_kl": kl,
        f"{PPO}:compute_reinforce_plus_plus_outcome_advantage": reinforce_pp,
        f"{PPO}:compute_rloo_outcome_advantage": rloo,
        f"{PPO}:compute_grpo_outcome_advantage": grpo,
        f"{PPO}:compute_maxrl_advantage": maxrl,
        f"{PPO}:compute_gae_advantage_return": gae,
        f"{PPO}:reduce_loss": reduce_loss,
        f"{PPO}:{advantages}": reduced,
        f"{PPO}:AdaptiveKLController.update": kl_controller,
        f"{PPO}:ppo_policy_loss": policy_loss(ppo),
        f"{PPO}:sapo_policy_loss": policy_loss(sapo),
        f"{PPO}:gspo_policy_loss": policy_loss(gspo),
        f"{PPO}:compute_policy_loss_cispo": policy_loss(cispo),
        f"{PPO}:dppo_policy_loss": policy_loss(dppo),
        f"{PPO}:compute_policy_loss_clip_cov": policy_loss(clip_cov),
        f"{PPO}:compute_policy_loss_kl_cov": policy_loss(kl_cov),
        f"{CORRECTION}:compute_tis_ratio": tis_ratio,
        f"{CORRECTION}:compute_sequence_mask": sequence_mask,
        f"{CORRECTION}:compute_outlier_token_mask": outlier_mask,
        f"{CORRECTION}:compute_token_mask": token_mask,
        f"{TORCH}:chunked_entropy_from_logits": entropy,
        f"{TORCH}:chunked_cross_entropy_from_log_probs": entropy,
    }


def kl(
    log_probs: Any, base: Any, loss_mask: Any = None, kl_estimator_type: str = "k3"
) -> Any:
    """`compute_approx_kl`; a soft mask is a mask and a weight."""
    soft = torch.ones_like(log_probs) if loss_mask is None else loss_mask
    tokens = ours.kl_penalty(log_probs, base, soft != 0, estimator=kl_estimator_type)
    return tokens * soft


def reinforce_pp(
    token_level_rewards: Any, response_mask: Any, gamma: float = 1.0, **_: Any
) -> Any:
    """Outside the mask their returns hold the reward that stands there."""
    arrays = token_level_rewards, response_mask
    outside = ours.discounted_returns(token_level_rewards, 1 - response_mask, gamma=0.0)
    returns = ours.discounted_returns(*arrays, gamma=gamma) + outside
    return ours.reinforce_pp_advantages(*arrays, gamma=gamma), returns


def spread(advantages: Any, response_mask: Any) -> Any:
    """One number a response onto its tokens; they are the returns as well."""
    tokens = advantages[:, None] * response_mask
    return tokens, tokens


def rloo(token_level_rewards: Any, response_mask: Any, index: Any, **_: Any) -> Any:
    """The reward of a response is the sum of its tokens'."""
    rewards = token_level_rewards.sum(-1)
    found = ours.rloo_advantages(rewards, **groups(index[: len(rewards)]))
    return spread(found, response_mask)


def grpo(
    token_level_rewards: Any,
    response_mask: Any,
    index: Any,
    epsilon: float = 1e-6,
    grpo_norm_by_std: bool = True,
    **_: Any,
) -> Any:
    """With and without the division by the standard deviation."""
    rewards = token_level_rewards.sum(-1)
    of = groups(index[: len(rewards)])
    if not grpo_norm_by_std:
        found = ours.dr_grpo_advantages(rewards, **of)
    else:
        found = ours.grpo_advantages(rewards, eps=epsilon, **of)
    return spread(found, response_mask)


def maxrl(
    token_level_rewards: Any,
    response_mask: Any,
    index: Any,
    epsilon: float = 1e-6,
    **_: Any,
) -> Any:
    """Divided by the mean of the group."""
    rewards = token_level_rewards.sum(-1)
    of = groups(index[: len(rewards)])
    found = ours.maxrl_advantages(rewards, eps=epsilon, **of)
    return spread(found, response_mask)


def gae(
    token_level_rewards: Any,
    values: Any,
    response_mask: Any,
    gamma: float,
    lambd: float,
    **_: Any,
) -> Any:
    """Theirs knows no mask until it whitens."""
    every = torch.ones_like(values)
    found, returns = ours.gae(
        token_level_rewards, values, every, gamma=gamma, lam=lambd
    )
    return ours.whiten(found, response_mask), returns


def reduce_loss(loss: Any, loss_mask: Any) -> Any:
    """A sum, which is a mean over one, times a mask that may be soft."""
    soft = torch.ones_like(loss) if loss_mask is None else loss_mask
    return ours.token_mean(loss * soft, soft != 0, counts())


def kl_controller(self: Any, current: float, n_steps: int) -> None:
    """`AdaptiveKLController.update`."""
    self.value = ours.adaptive_kl_update(
        self.value,
        current,
        target=self.target,
        horizon=self.horizon,
        num_samples=n_steps,
    ).item()


def reduced(
    advantages: Any,
    loss_mask: Any,
    loss_reduction: str,
    micro_batch_size: int,
    max_seq_len: int,
    prompt_boundaries: Any = None,
) -> Any:
    """Advantages times the weights that a reduction gives to tokens: its gradient."""

    def value(x: Any, mask: Any) -> Any:
        total = ours.batch_counts(mask)
        if loss_reduction == "token_mean":
            return ours.token_mean(x, mask, total)
        if loss_reduction == "sequence_mean":
            return ours.sequence_mean(x, mask, total)
        if loss_reduction == "seq_mean_token_sum_norm":
            return ours.fixed_length_mean(x, mask, total, length=max_seq_len)
        if loss_reduction == "prompt_mean":
            ids = [i for i, (a, b) in enumerate(prompt_boundaries) for _ in range(a, b)]
            of = groups(ids)
            return ours.prompt_mean(x, mask, counts=ours.batch_counts(mask, **of), **of)
        if loss_reduction == "token_mean_legacy":  # a mean of the means of parts
            parts = list(
                zip(
                    x.split(micro_batch_size), mask.split(micro_batch_size), strict=True
                )
            )
            means = [ours.token_mean(*p, ours.batch_counts(p[1])) for p in parts]
            return torch.stack(means).mean()
        raise ValueError(f"Invalid loss reduction type: {loss_reduction}")

    x = torch.zeros_like(advantages, requires_grad=True)
    (weights,) = torch.autograd.grad(value(x, loss_mask), x)
    return advantages * weights


# Corrections


def tis_ratio(old: Any, rollout: Any, mask: Any, kind: str, config: Any) -> Any:
    """`compute_tis_ratio`: on each token, or one for each row."""
    token = kind == "token"
    name = "token_tis_ratio_clip_high" if token else "sequence_tis_ratio_clip_high"
    cap = getattr(config, name)
    free = ours.importance_weights(old, rollout, mask, kind=kind, cap=1e30)
    weights = ours.importance_weights(old, rollout, mask, kind=kind, cap=cap)
    if token:
        share = (free > cap).sum() / mask.sum()
        return weights, {"tis_token_clip_high_ratio": share.item()}
    capped = (free > cap).any(1).float().mean()
    return weights.amax(1, keepdim=True), {"tis_seq_clip_high_ratio": capped.item()}


def rejected(kind: str, old: Any, rollout: Any, mask: Any, low: Any, high: Any) -> Any:
    """Which rows are kept; the shares that are not, that go above, and below."""
    low, high = (0.0 if low is None else low), (1e30 if high is None else high)
    arrays = old, rollout, mask

    def kept(low: float, high: float) -> Any:
        return ours.rejection_mask(*arrays, kind=kind, low=low, high=high)

    bands = [(low, high), (0.0, high), (low, 1e30)]
    shares = [(~kept(*band)).float().mean().item() for band in bands]
    return kept(low, high).float()[:, None], shares


def sequence_mask(old: Any, rollout: Any, mask: Any, metric: str, config: Any) -> Any:
    """`compute_sequence_mask`."""
    kind = {"geometric": "geometric", "product": "sequence"}[metric]
    name = {"geometric": "geo", "product": "product"}[metric]
    bounds = [getattr(config, f"{name}_mask_{end}") for end in ("low", "high")]
    kept, shares = rejected(kind, old, rollout, mask, *bounds)
    words = ("masked", "over_high", "under_low")
    named = (f"{name}_sequence_mask_{word}_ratio" for word in words)
    return kept, dict(zip(named, shares, strict=True))


def outlier_mask(old: Any, rollout: Any, mask: Any, config: Any) -> Any:
    """`compute_outlier_token_mask`: one token takes its row with it."""
    bounds = [
        getattr(config, f"outlier_token_is_threshold_{x}") for x in ("low", "high")
    ]
    kept, shares = rejected("worst", old, rollout, mask, *bounds)
    named = (f"outlier_seq_{x}_ratio" for x in ("masked", "over_high", "under_low"))
    return kept, dict(zip(named, shares, strict=True))


def token_mask(old: Any, rollout: Any, mask: Any, config: Any) -> Any:
    """`compute_token_mask`: theirs is 1 outside the mask."""
    low, high = (
        getattr(config, f"token_mask_is_threshold_{x}") for x in ("low", "high")
    )
    kept = ours.rejection_mask(old, rollout, mask, kind="token", low=low, high=high)
    share = ((mask > 0) & ~kept).sum() / mask.sum()
    return (kept | (mask == 0)).float(), {"token_mask_ratio": share.item()}


# Losses: f(log_probs, old_log_probs, advantages, config, loss_mask, rollout_logprobs)


def policy_loss(objective: Callable[..., Any]) -> Callable[..., Any]:
    """Their loss of an objective: corrected, and summed over the mask."""

    def loss(
        log_probs: Any,
        old_log_probs: Any,
        advantages: Any,
        config: Any,
        loss_mask: Any = None,
        rollout_logprobs: Any = None,
    ) -> Any:
        correction = importlib.import_module(CORRECTION)
        mask = torch.ones_like(log_probs) if loss_mask is None else loss_mask
        arrays = log_probs, old_log_probs, advantages, mask
        tokens, metrics = objective(*arrays, config, rollout_logprobs)
        tokens, mask, more = correction.apply_off_policy_correction(
            tokens, old_log_probs, rollout_logprobs, mask, config.off_policy_correction
        )
        return reduce_loss(tokens, mask), {**metrics, **more}

    return loss


def mean(pair: Any) -> float:
    """Of a metric."""
    total, count = pair
    return (total / count).item()


def clipped(arrays: Any, **clips: float) -> dict[str, float]:
    """The share of tokens whose ratio is clipped."""
    found = ours.policy_metrics(*arrays, **clips)
    return {"clip_ratio": mean(found["clip_frac_low"]) + mean(found["clip_frac_high"])}


def clips_of(config: Any) -> dict[str, float]:
    """The two bounds, as distances from 1."""
    return {"clip_low": config.eps_clip_low, "clip_high": config.eps_clip_high}


def ppo(
    new: Any, old: Any, advantages: Any, mask: Any, config: Any, rollout: Any
) -> Any:
    """Their loss types regular and dual_clip."""
    arrays, clips = (new, old, advantages, mask), clips_of(config)
    dual = config.clip_ratio_c if config.policy_loss_type == "dual_clip" else None
    tokens = ours.clipped_surrogate(*arrays, dual_clip=dual, **clips)
    return tokens, clipped(arrays, **clips)


def gspo(
    new: Any, old: Any, advantages: Any, mask: Any, config: Any, rollout: Any
) -> Any:
    """GSPO-token."""
    arrays, clips = (new, old, advantages, mask), clips_of(config)
    return ours.gspo(*arrays, **clips), clipped(arrays, **clips)


def sapo(
    new: Any, old: Any, advantages: Any, mask: Any, config: Any, rollout: Any
) -> Any:
    """SAPO's gate."""
    taus = {"tau_positive": config.sapo.tau_pos, "tau_negative": config.sapo.tau_neg}
    return ours.sapo(new, old, advantages, mask, **taus), {"clip_ratio": 0.0}


def cispo(
    new: Any, old: Any, advantages: Any, mask: Any, config: Any, rollout: Any
) -> Any:
    """CISPO about the old policy or about the sampler."""
    about = rollout if config.cispo.cispo_anchor == "rollout" else old
    low = 1 - config.cispo.cispo_eps_clip_low
    high = 1 + config.cispo.cispo_eps_clip_high
    tokens = ours.cispo(new, about, advantages, mask, ratio_low=low, ratio_high=high)
    # The ratio pi / mu is the weight between a trainer and a sampler of these names.
    ratio = ours.importance_weights(new, about, mask, cap=1e30)
    inside = ours.masked_importance_weights(new, about, mask, low=low, high=high)
    count = mask.sum()
    return tokens, {
        "clip_ratio": ((inside == 0) & (mask > 0)).sum().item() / count.item(),
        "cispo/ratio_mean": (ratio.sum() / count).item(),
        "cispo/ratio_clamped_mean": (
            ((ratio.clamp(low, high) * mask).sum() / count).item()
        ),
        "cispo/ratio_max": ratio[mask > 0].max().item(),
        "cispo/ratio_min": ratio[mask > 0].min().item(),
    }


def dppo(
    new: Any, old: Any, advantages: Any, mask: Any, config: Any, rollout: Any
) -> Any:
    """DPPO about the sampler, where its log-probs are known."""
    about = old if rollout is None else rollout
    named = {
        "divergence": getattr(losses, config.dppo.dppo_type),
        "delta_low": config.dppo.delta_low,
        "delta_high": config.dppo.delta_high,
    }
    kept = ours.dppo_mask(new, about, advantages, mask, **named)
    share = ((mask > 0) & ~kept).sum() / mask.sum()
    tokens = ours.dppo(new, about, advantages, mask, **named)
    return tokens, {"clip_ratio": share.item()}


def clip_cov(
    new: Any, old: Any, advantages: Any, mask: Any, config: Any, rollout: Any
) -> Any:
    """Clip-Cov; which tokens are drawn is another generator's choice."""
    settings = {
        "fraction": config.clip_cov.clip_ratio,
        "low": config.clip_cov.clip_cov_lb,
        "high": config.clip_cov.clip_cov_ub,
        "key": jax.random.key(0),
        **clips_of(config),
    }
    arrays = new, old, advantages, mask
    chosen = ours.clip_cov_tokens(*arrays, **settings)
    share = chosen.sum() / mask.sum()
    return ours.clip_cov(*arrays, **settings), {"clip_ratio": share.item()}


def kl_cov(
    new: Any, old: Any, advantages: Any, mask: Any, config: Any, rollout: Any
) -> Any:
    """KL-Cov."""
    settings = {
        "fraction": config.kl_cov.kl_cov_frac,
        "coef": config.kl_cov.ppo_kl_coef,
    }
    return ours.kl_cov(new, old, advantages, mask, **settings), {"clip_ratio": 0.0}


def entropy(logits: Any, attention_mask: Any = None, **_: Any) -> Any:
    """Log-probs are logits as well."""
    found = ours.token_entropy(logits)
    if attention_mask is None:
        return found
    if attention_mask.shape != found.shape:
        raise ValueError("the mask does not match logits shape")
    return found * attention_mask
