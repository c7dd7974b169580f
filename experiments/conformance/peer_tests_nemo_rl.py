"""NeMo-RL's unit tests of losses with the functions of `jaxrl_reason.losses`.

Their losses are classes with many settings; the adapters stand for `__call__`. Metrics
that have no counterpart here are theirs.
"""

from collections.abc import Callable
from typing import Any

import torch

from experiments.conformance.bridge import counts, ours, theirs

TESTS = ("tests/unit/algorithms/test_loss_functions.py",)
STAND_INS = (
    "accelerate",
    "aiohttp",
    "codetiming",
    "datasets",
    "fastapi",
    "hf_transfer",
    "httpx",
    "huggingface_hub",
    "liger_kernel",
    "mlflow",
    "orjson",
    "pandas",
    "peft",
    "prometheus_client",
    "psutil",
    "pynvml",
    "ray",
    "rich",
    "soundfile",
    "swanlab",
    "tensorboard",
    "torch.utils.tensorboard",
    "torchdata",
    "tqdm",
    "transfer_queue",
    "transferqueue",
    "transformers",
    "uvicorn",
    "vllm",
    "wandb",
    "zmq",
)
NOT_RUN: tuple[str, ...] = ()
ON_CPU = True
OTHERS = {
    "incompatibility_asserts": "settings that exclude each other",
    "rejects_tis_min_above_max": "settings that exclude each other",
    "invalid_k_zero": "a setting that is out of its range",
    "loss_fn_initialization": "attributes of an object",
    "TestMetricNormalizationAdvertisement": "a table of their metrics",
    "vocab_parallel_gather_columns": "columns of split logits",
    "subset_softmax": "columns of split logits",
    "mismatched_per_teacher_lists": "settings that do not fit",
    "normalize_teacher_by_vocab": "settings that exclude each other",
}
MISSING = {  # mathematics that this library does not have
    "cross_tokenizer": "distillation between two tokenizers",
    "topk_filtering[True": "a KL over k tokens that leaves out the rest",
}
LOSSES = "nemo_rl.algorithms.loss.loss_functions"
UTILS = "nemo_rl.algorithms.utils"
POLICY = f"{LOSSES}:ClippedPGLossFn.__call__"
NLL = f"{LOSSES}:NLLLossFn.__call__"
PREFERENCE = f"{LOSSES}:PreferenceLossFn._preference_loss"
DISTILLATION = f"{LOSSES}:DistillationLossFn.__call__"


def adapters() -> dict[str, Callable[..., Any]]:
    """By the place of the function that each stands for."""
    return {
        POLICY: policy,
        NLL: nll,
        PREFERENCE: preference,
        DISTILLATION: distillation,
        f"{UTILS}:calculate_kl": kl,
        f"{UTILS}:masked_mean": masked_mean,
    }


def masked_mean(
    values: Any,
    mask: Any,
    dim: int | None = None,
    global_normalization_factor: Any = None,
) -> Any:
    """Over everything or over the tokens of each row."""
    if dim is not None:
        return ours.average_logprobs(values, mask)
    x, mask = values.reshape(1, -1), mask.reshape(1, -1)
    total = ours.batch_counts(mask).tokens
    if global_normalization_factor is not None:
        total = global_normalization_factor
    return ours.token_mean(x, mask, counts(total))


def kl(
    logprobs: Any,
    logprobs_reference: Any,
    kl_type: str = "k3",
    input_clamp_value: float | None = 20.0,
    output_clamp_value: float | None = 10.0,
    importance_sampling_weights: Any = None,
) -> Any:
    """Estimators of ours between clamps of theirs."""
    gap, weights = logprobs - logprobs_reference, importance_sampling_weights
    if input_clamp_value is not None:
        near = gap.clamp(-input_clamp_value, input_clamp_value)
        if weights is not None:
            weights = torch.where(gap == near, weights, weights.detach())
        gap = near
    estimator = getattr(ours, f"kl_{kl_type}")
    found = estimator(gap, torch.zeros_like(gap))
    if weights is not None:
        found = found * weights
    if output_clamp_value is not None:
        found = found.clamp(-output_clamp_value, output_clamp_value)
    return found


def policy(
    self: Any,
    next_token_logprobs: Any,
    data: Any,
    global_valid_seqs: Any,
    global_valid_toks: Any,
) -> Any:
    """Objective, weights and KL of ours, as their settings name them."""
    given = next_token_logprobs, data, global_valid_seqs, global_valid_toks
    with torch.no_grad():
        _, metrics = theirs[POLICY](self, *given)
    new = next_token_logprobs
    mask = data["token_mask"][:, 1:] * data["sample_mask"][:, None]
    advantages, sampler = data["advantages"][:, 1:], data["generation_logprobs"][:, 1:]
    old = new.detach() if self.force_on_policy_ratio else data["prev_logprobs"][:, 1:]
    total = counts(global_valid_toks, global_valid_seqs)
    reduction = ours.token_mean
    if self.loss_type.name == "SEQUENCE_LEVEL":
        reduction = ours.sequence_mean

    tokens = objective(self, new, old, advantages, mask)
    weights, more = correction(self, old, sampler, mask, total)
    if self.use_importance_sampling_correction:
        tokens = tokens * weights
    loss = reduction(tokens, mask, total)
    if self.reference_policy_kl_penalty:
        # The ratio is 1 where theirs is on policy, and has its slope.
        on_policy = sampler if self.use_on_policy_kl_approximation else new.detach()
        penalty = ours.kl_penalty(
            new,
            data["reference_policy_logprobs"][:, 1:],
            mask,
            estimator=f"{self.reference_policy_kl_type}_ratio",
            old_logprobs=on_policy,
        )
        mean = reduction(penalty, mask, total)
        loss = loss + self.reference_policy_kl_penalty * mean
        more["kl_penalty"] = mean.item()
    entropy = -ours.importance_weights(new, sampler, mask, cap=1e30) * new
    more["approx_entropy"] = ours.token_mean(entropy, mask, total).item()
    ratio = ours.policy_metrics(new, old, advantages, mask)["ratio"][0]
    if not (self.sequence_level_importance_ratios or self.disable_ppo_ratio):
        more["probs_ratio"] = ratio.item() / max(1, total.tokens.item())
    return loss, {**metrics, **more, "loss": loss.item()}


def objective(self: Any, new: Any, old: Any, advantages: Any, mask: Any) -> Any:
    """Which of our objectives the settings mean."""
    if self.disable_ppo_ratio:
        return ours.policy_gradient(new, advantages, mask)
    arrays = new, old, advantages, mask
    low, high = self.ratio_clip_min, self.ratio_clip_max
    if self.use_cispo:
        return ours.cispo(*arrays, ratio_low=1 - low, ratio_high=1 + high)
    if self.sequence_level_importance_ratios:
        return ours.gspo(*arrays, clip_low=low, clip_high=high)
    clips = {"clip_low": low, "clip_high": high, "dual_clip": self.ratio_clip_c}
    return ours.clipped_surrogate(*arrays, **clips)


def correction(self: Any, old: Any, sampler: Any, mask: Any, total: Any) -> Any:
    """Weights between sampler and trainer, and the share that is out of bounds."""
    sampler = torch.nan_to_num(sampler, neginf=0.0)  # theirs leaves such a token out
    arrays = old, sampler, mask
    name = self.truncated_importance_sampling_type
    kind = "sequence" if self.sequence_level_importance_ratios else "token"
    high = self.truncated_importance_sampling_ratio
    low = self.truncated_importance_sampling_ratio_min or 0.0
    free = ours.importance_weights(*arrays, kind=kind, cap=1e30)
    if name is None:
        return free, {}
    if name == "seq-mask-tis":
        kept = ours.rejection_mask(*arrays, low=low, high=high)
        lost = ~kept & mask.bool().any(1)
        share = lost.sum().item() / max(1, total.sequences.item())
        return free * kept[:, None], {"is_oob_ratio": share}
    outside = ((free > high) | (free < low)).float()
    share = ours.token_mean(outside, mask, total).item()
    if name == "icepop":
        found = ours.masked_importance_weights(*arrays, kind=kind, low=low, high=high)
    else:
        found = ours.importance_weights(*arrays, kind=kind, cap=high).clamp(min=low)
    return found, {"is_oob_ratio": share}


def nll(
    self: Any,
    next_token_logprobs: Any,
    data: Any,
    global_valid_seqs: Any,
    global_valid_toks: Any,
    dpo_loss: bool = False,
    dpo_average_log_probs: bool = False,
) -> Any:
    """Of all tokens, or of each response as DPO's second term."""
    given = next_token_logprobs, data, global_valid_seqs, global_valid_toks
    _, metrics = theirs[NLL](self, *given, dpo_loss, dpo_average_log_probs)
    mask = data["token_mask"][:, 1:] * data["sample_mask"][:, None]
    if dpo_average_log_probs and dpo_loss:
        return -ours.average_logprobs(next_token_logprobs, mask), metrics
    if dpo_loss:
        return -ours.sequence_logprobs(next_token_logprobs, mask), metrics
    tokens = ours.nll(next_token_logprobs, mask)
    return ours.token_mean(tokens, mask, counts(global_valid_toks)), metrics


def preference(
    self: Any, rewards: Any, sample_mask: Any, global_valid_seqs: Any, beta: float = 1.0
) -> Any:
    """DPO's loss; pairs lie one after the other, and a beta of 0 is allowed."""
    metrics = theirs[PREFERENCE](self, rewards, sample_mask, global_valid_seqs, beta)
    nothing = torch.zeros_like(rewards[::2])
    loss, _ = ours.dpo_loss(
        beta * rewards[::2],
        beta * rewards[1::2],
        nothing,
        nothing,
        beta=1.0,
        valid=sample_mask[::2],
        num_pairs=int(global_valid_seqs) // 2,
    )
    return loss, *metrics[1:]


def distillation(
    self: Any,
    student_topk_logprobs: Any,
    teacher_topk_logprobs: Any,
    H_all: Any,
    data: Any,
    global_valid_seqs: Any,
    global_valid_toks: Any,
) -> Any:
    """Forward, reverse and mixed KL; log-probs are of the k tokens among themselves."""
    logprobs = student_topk_logprobs, teacher_topk_logprobs, H_all
    if self.zero_outside_topk:  # a teacher with log-prob -100 elsewhere
        return theirs[DISTILLATION](
            self, *logprobs, data, global_valid_seqs, global_valid_toks
        )
    forward = {"forward": 1.0, "reverse": 0.0, "mixed": self.mixed_kl_weight}
    weight = forward[self.kl_type]
    both = logprobs[:2]
    tokens = weight * ours.top_k_jsd(*both, beta=0.0, tail=False)
    tokens = tokens + (1 - weight) * ours.top_k_jsd(*both, beta=1.0, tail=False)
    mask = data["token_mask"][:, 1:] * data["sample_mask"][:, None]
    loss = ours.token_mean(tokens, mask, counts(global_valid_toks))
    rows = {"num_valid_samples": data["input_ids"].shape[0]}
    return loss, {"loss": loss.item(), **rows}
