"""Settings of the samplers, and their results."""

from dataclasses import dataclass
from math import isfinite

import flax.struct
import jax

from jaxrl_reason.models.key_values import CACHE_DTYPES, CPU_BLOCK

# Below it, rounding of float32 logits moves log-probs by more than a hundredth; far
# below it they overflow.
LOWEST_TEMPERATURE = 1e-3


def check_temperature(name: str, temperature: float) -> None:
    """Raises for a temperature that logits cannot be divided by.

    Args:
      name: of the setting, for the message.
      temperature: that of samples that differ.

    Raises:
      ValueError: it is below `LOWEST_TEMPERATURE` or not finite.
    """
    if not LOWEST_TEMPERATURE <= temperature < float("inf"):
        raise ValueError(
            f"{name} must be from {LOWEST_TEMPERATURE} on and finite (0, where it is "
            f"allowed, takes the most likely token), got {temperature}"
        )


@dataclass(frozen=True)
class SamplingSettings:
    """How responses are drawn.

    The filters apply in the order top-k, top-p, min-p, each to the result of the
    previous one.

    Attributes:
      max_new_tokens: the longest response T, its EOS token included.
      eos_token_ids: ids that end a response; any number, also none.
      temperature: divides the logits, 0.001 or more; 0 takes the most likely token.
      top_k: keep the k most likely tokens; 0 keeps all.
      top_p: keep the fewest most likely tokens with at least this mass; 1 keeps all.
      min_p: keep tokens at least this fraction as likely as the likeliest; 0 keeps all.
      logit_bias: pairs (token, number) added to the logits before the temperature
        divides them.
      banned_tokens: ids that are never drawn.

    Bias and bans act on what is drawn, like the filters; the log-probs reported are
    those of the model's own distribution, which the trainer can compute.

    Raises:
      ValueError: a value breaks a rule; the message names field, rule and value.
    """

    max_new_tokens: int
    eos_token_ids: tuple[int, ...]
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    banned_tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be >= 1, got {self.max_new_tokens}")
        if any(token < 0 for token in self.eos_token_ids):
            raise ValueError(f"eos_token_ids must be >= 0, got {self.eos_token_ids}")
        if self.temperature != 0:
            check_temperature("temperature", self.temperature)
        if self.top_k < 0:
            raise ValueError(f"top_k must be >= 0, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be from 0 to 1, got {self.min_p}")
        if any(token < 0 or not isfinite(bias) for token, bias in self.logit_bias):
            raise ValueError(
                f"logit_bias must be pairs of a token >= 0 and a finite number, "
                f"got {self.logit_bias}"
            )
        if any(token < 0 for token in self.banned_tokens):
            raise ValueError(f"banned_tokens must be >= 0, got {self.banned_tokens}")


@flax.struct.dataclass
class TopLogprobs:
    """The likeliest tokens at each position, likeliest first; 0 after the end.

    Attributes:
      tokens: [B, T, k] int32.
      logprobs: [B, T, k] float32, under the distribution of `Completions.logprobs`.
    """

    tokens: jax.Array
    logprobs: jax.Array


@flax.struct.dataclass
class Completions:
    """Sampled responses; row p*G + g is sample g of prompt p.

    Attributes:
      tokens: [B, T] int32, the EOS token included, 0 after it. Only `lengths` tells
        where a response ends: 0 may also be a token.
      logprobs: [B, T] float32, log-probability of each token under the tempered,
        unfiltered distribution (greedy: temperature 1); 0 after the end.
      lengths: [B] int32, tokens of each response, the EOS token included.
      truncated: [B] bool, True where the length limit stopped the response.
      top_logprobs: the likeliest tokens, if the settings ask for them.
      policy_version: [B] int, the step whose policy drew each response, if a
        `RolloutEngine` drew it; None if the parameters were an argument.
    """

    tokens: jax.Array
    logprobs: jax.Array
    lengths: jax.Array
    truncated: jax.Array
    top_logprobs: TopLogprobs | None = None
    policy_version: jax.Array | None = None


@dataclass(frozen=True)
class BatchSettings:
    """How a batch sampler uses memory and time; the tokens do not depend on it.

    Only a cache with a smaller dtype than the model's changes the results.

    Attributes:
      slots: S, the number of sequences decoded at the same time.
      slots_per_group: neighbouring slots that share a prompt's keys and values; divides
        `slots`. Larger groups read prompts less often, but wait longer for the last of
        their sequences before they take another prompt.
      prompt_widths: the widths that prompts are padded to, ascending; each is compiled
        once; the last one limits the prompts.
      common_prefix: tokens that every prompt begins with, followed by others; they are
        prefilled once per call and stored once. See `common_prefix`.
      steps: the largest number of tokens that a slot draws before the host checks it.
      refill_fraction: the fraction of the slots that must be free for the host to be
        called early while sequences wait; 0 calls it at the first free slot.
      shrink_to: slot counts, descending multiples of slots_per_group, to which a call
        shrinks as its last sequences end; each is compiled once.
      cache_lengths: response columns of the cache, ascending; it has the first that
        holds all sequences in the slots; each is compiled once per slot count.
      cache_dtype: the type of stored keys and values: "float32", "bfloat16" or "int8"
        (one scale per head and column).
      cache_block: columns, and dimensions of a head, that are contiguous in memory, to
        suit the device's matrix products; 0 for all of them, None for 16 if JAX's
        default backend is a CPU, else 0. Ring buffers are whole blocks. Blocks of 16
        are joined in pairs where a CPU has 512-bit vectors.
      top_logprobs: how many of the likeliest tokens to report with each drawn one; 0
        reports none and costs nothing.

    Raises:
      ValueError: a value breaks a rule; the message names field, rule and value.
    """

    slots: int
    prompt_widths: tuple[int, ...]
    common_prefix: tuple[int, ...] = ()
    slots_per_group: int = 1
    steps: int = 32
    refill_fraction: float = 0.0
    shrink_to: tuple[int, ...] = ()
    cache_lengths: tuple[int, ...] = ()
    cache_dtype: str = "float32"
    cache_block: int | None = None
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        for name in ("slots", "slots_per_group", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.slots % self.slots_per_group:
            raise ValueError(
                f"slots_per_group must divide slots ({self.slots}), "
                f"got {self.slots_per_group}"
            )
        widths = self.prompt_widths
        if not widths or widths[0] < 1 or sorted(set(widths)) != list(widths):
            raise ValueError(
                f"prompt_widths must be ascending numbers >= 1, got {widths}"
            )
        if len(self.common_prefix) >= widths[-1]:
            raise ValueError(
                f"common_prefix must be shorter than the last of prompt_widths "
                f"({widths[-1]}), got {len(self.common_prefix)} tokens"
            )
        counts = (self.slots, *self.shrink_to)
        if sorted(set(counts), reverse=True) != list(counts) or any(
            count < 1 or count % self.slots_per_group for count in counts
        ):
            raise ValueError(
                f"shrink_to must be descending multiples of slots_per_group "
                f"({self.slots_per_group}) below slots ({self.slots}), "
                f"got {self.shrink_to}"
            )
        if (
            sorted(set(self.cache_lengths)) != list(self.cache_lengths)
            or min(self.cache_lengths, default=1) < 1
        ):
            raise ValueError(
                "cache_lengths must be ascending numbers >= 1, "
                f"got {self.cache_lengths}"
            )
        if not 0 <= self.refill_fraction < 1:
            raise ValueError(
                f"refill_fraction must be from 0 to below 1, got {self.refill_fraction}"
            )
        if self.cache_dtype not in CACHE_DTYPES:
            raise ValueError(
                f"cache_dtype must be one of {CACHE_DTYPES}, got {self.cache_dtype!r}"
            )
        for name in ("top_logprobs", "cache_block"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")

    @property
    def block(self) -> int:
        """The block of the cache, 0 for a single block."""
        if self.cache_block is not None:
            return self.cache_block
        return CPU_BLOCK if jax.default_backend() == "cpu" else 0

    @property
    def own_widths(self) -> tuple[int, ...]:
        """The widths of the prompts without `common_prefix`."""
        widths = (width - len(self.common_prefix) for width in self.prompt_widths)
        return tuple(width for width in widths if width > 0)

    @property
    def num_groups(self) -> int:
        """The number of prompt groups that the slots form."""
        return self.slots // self.slots_per_group
