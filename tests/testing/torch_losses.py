"""A loss of torch that is right, and some that are wrong in one way."""

import torch

LOW, HIGH = 0.2, 0.28


def log_ratio_of(logprobs, old, mask):
    new, old = logprobs.float(), old.detach().float()
    return torch.where(mask, new - old, 0.0).clamp(-20.0, 20.0)


def right(logprobs, old_logprobs, advantages, mask, counts):
    mask = mask.bool()
    ratio = log_ratio_of(logprobs, old_logprobs, mask).exp()
    a = torch.where(mask, advantages.detach().float(), 0.0)
    tokens = torch.maximum(-a * ratio, -a * ratio.clamp(1 - LOW, 1 + HIGH))
    tokens = torch.where(mask, tokens, 0.0)
    total = torch.where(mask, ratio.detach(), 0.0).sum()
    return tokens.sum() / counts.tokens.clamp(min=1), {"ratio": (total, mask.sum())}


def tokens_at_hand(logprobs, old_logprobs, advantages, mask, counts):
    value, metrics = right(logprobs, old_logprobs, advantages, mask, counts)
    return value * counts.tokens / mask.sum().clamp(min=1), metrics


def multiplies_by_the_mask(logprobs, old_logprobs, advantages, mask, counts):
    ratio = (logprobs.float() - old_logprobs.detach()).clamp(-20.0, 20.0).exp()
    tokens = -advantages.detach() * ratio * mask
    return tokens.sum() / counts.tokens.clamp(min=1), {}


def inverts_the_bits_of_ints(logprobs, old_logprobs, advantages, mask, counts):
    if mask.is_floating_point():
        mask = mask.bool()
    dropped = (~mask).bool()
    return right(logprobs, old_logprobs, advantages, ~dropped, counts)


def old_has_a_gradient(logprobs, old_logprobs, advantages, mask, counts):
    mask = mask.bool()
    difference = logprobs.float() - old_logprobs.float()
    ratio = torch.where(mask, difference, 0.0).clamp(-20.0, 20.0).exp()
    a = torch.where(mask, advantages.detach().float(), 0.0)
    return (-a * ratio).sum() / counts.tokens.clamp(min=1), {}


def flipped_sign(logprobs, old_logprobs, advantages, mask, counts):
    value, metrics = right(logprobs, old_logprobs, advantages, mask, counts)
    return -value, metrics


def no_gradient(logprobs, old_logprobs, advantages, mask, counts):
    return right(logprobs.detach(), old_logprobs, advantages, mask, counts)


def difference_in_bfloat16(logprobs, old_logprobs, advantages, mask, counts):
    difference = (logprobs - old_logprobs.detach()).float()
    zeros = torch.zeros_like(difference)
    return right(difference, zeros, advantages, mask, counts)


def nan_slope_at_ratio_one(logprobs, old_logprobs, advantages, mask, counts):
    value, metrics = right(logprobs, old_logprobs, advantages, mask, counts)
    mask = mask.bool()
    square = log_ratio_of(logprobs, old_logprobs, mask).square()
    pull = torch.where(mask, square.sqrt(), 0.0).sum()
    return value + 0.01 * pull / counts.tokens.clamp(min=1), metrics


FAULTS = {
    tokens_at_hand: "micro-batches",
    multiplies_by_the_mask: "garbage",
    inverts_the_bits_of_ints: "mask types",
    old_has_a_gradient: "constants",
    flipped_sign: "sign",
    no_gradient: "signal",
    difference_in_bfloat16: "bfloat16",
    nan_slope_at_ratio_one: "garbage|ratio 1",
}
