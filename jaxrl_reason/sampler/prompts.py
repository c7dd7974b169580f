"""Prefilling prompts, a few at once and ahead of the sequences that need them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxrl_reason.models import Params, PrefixCache, Transformer, prefill
from jaxrl_reason.models.key_values import round_up
from jaxrl_reason.sampler.settings import BatchSettings
from jaxrl_reason.sharding import parts_of

# A prefill processes about this many tokens at once: enough for full matmul speed.
PREFILL_TOKENS = 512


def check_prompts(tokens: Any, lengths: Any, widest: int, vocab_size: int) -> None:
    """Raises for prompts that a model cannot read; an embedding would not.

    Args:
      tokens: [P, Tp] ids on the host, right-padded; what follows a prompt may be any.
      lengths: [P].
      widest: the most tokens of a prompt.
      vocab_size: of the model.

    Raises:
      ValueError: a length is not from 1 to `widest` and Tp, or a prompt has an id
        outside the vocabulary.
    """
    limit = min(tokens.shape[1], widest)
    if lengths.min(initial=1) < 1 or lengths.max(initial=1) > limit:
        raise ValueError(
            f"prompt_lengths must be from 1 to {limit}, the widest that prompt_tokens "
            f"and the sampler have room for, got {lengths.tolist()}"
        )
    read = np.arange(tokens.shape[1]) < lengths[:, None]  # [P, Tp]
    outside = tokens[read & ((tokens < 0) | (tokens >= vocab_size))]
    if outside.size:
        raise ValueError(
            f"prompt_tokens must be from 0 to below vocab_size ({vocab_size}), got "
            f"{sorted(set(outside.tolist()))[:5]}"
        )


class PromptReader:
    """The compiled prefills of a batch sampler.

    Args:
      model: the policy.
      batch: how to spend memory and time.
    """

    def __init__(self, model: Transformer, batch: BatchSettings) -> None:
        self.batch, self.parts = batch, parts_of(model.constrain, "batch")
        self._vocab_size = model.config.vocab_size
        self.prefill = jax.jit(partial(prefill, model))
        self._most_prompts = 1  # most prompts of a call so far, the rows of a prefill

    def start(self, params: Params, tokens: Any, lengths: Any) -> "Prompts":
        """Starts one call with its prompts, tokens [P, Tp] and lengths [P].

        Raises:
          ValueError: a length or an id does not fit, or a prompt has another prefix.
        """
        widest = self.batch.prompt_widths[-1]
        check_prompts(tokens, lengths, widest, self._vocab_size)
        size = self._check_beginning(tokens, lengths)
        self._most_prompts = max(self._most_prompts, len(lengths))
        common = self._read_common(params)
        return Prompts(self, params, tokens[:, size:], lengths - size, common)

    def _check_beginning(self, tokens: Any, lengths: Any) -> int:
        """The size of `common_prefix`; raises if a prompt does not extend it."""
        common = np.array(self.batch.common_prefix, tokens.dtype)  # [Tc]
        size = common.size
        begins = (tokens[:, :size] == common[: tokens.shape[1]]).all(axis=1)  # [P]
        other = np.flatnonzero(~begins | (lengths <= size))
        if size and other.size:
            raise ValueError(
                f"every prompt must begin with common_prefix ({size} tokens) and be "
                f"longer, got others at {other.tolist()}"
            )
        return size

    def _read_common(self, params: Params) -> PrefixCache | None:
        if not (common := self.batch.common_prefix):
            return None
        tokens = np.tile(np.array(common), (self.parts, 1))  # [parts, Tc]
        _, cache = self.run(params, tokens, np.full(self.parts, len(common)), None)
        return jax.tree.map(lambda x: x[:1], cache)

    def run(self, *arguments: Any) -> tuple[Any, PrefixCache]:
        """Prefills and waits for the result; the arguments are those of `prefill`.

        On a mesh of CPU devices, collectives of programs in flight at the same time
        were seen to deadlock; overlapping them would gain nothing.
        """
        return jax.block_until_ready(self.prefill(*arguments))

    def width(self, length: int) -> int:
        """The columns that a prompt of `length` own tokens is padded to."""
        return next(width for width in self.batch.own_widths if width >= length)

    def rows(self, width: int) -> int:
        """The number of prompts per prefill."""
        most = max(1, min(self.batch.num_groups, PREFILL_TOKENS // width))
        # Even batches: 32 prompts, at most 9 at once, are four times 8, not 9, 9, 9 and
        # 5.
        times = -(-self._most_prompts // most)
        return round_up(-(-self._most_prompts // times), self.parts)


@dataclass
class Prompts:
    """One call's prompts.

    Attributes:
      reader: holds the compiled prefills.
      params: the model's parameters.
      tokens: [P, n] of each prompt what follows the common prefix.
      lengths: [P] of these.
      common: the cache of that prefix, if there is one.
    """

    reader: PromptReader
    params: Params
    tokens: np.ndarray
    lengths: np.ndarray
    common: PrefixCache | None
    _read: dict[int, Any] = field(default_factory=dict)

    def order(self) -> list[int]:
        """All prompts, grouped by width."""
        widths = [self.reader.width(length) for length in self.lengths]
        return sorted(range(len(widths)), key=widths.__getitem__)

    def get(self, prompt: int, ahead: Sequence[int]) -> tuple[Any, PrefixCache, int]:
        """The result of a prompt's prefill: hidden states, cache, and its row in them.

        A prompt without a prefill is prefilled together with those of `ahead` that have
        the same width.
        """
        if prompt not in self._read:
            width = self.reader.width(self.lengths[prompt])
            alike = [p for p in ahead if self.reader.width(self.lengths[p]) == width]
            others = [p for p in alike if p != prompt and p not in self._read]
            together = [prompt, *others][: self.reader.rows(width)]
            hidden, cache = self.read(together, width)
            for row, of in enumerate(together):
                self._read[of] = (hidden, cache, row)
        return self._read[prompt]

    def retain(self, prompts: Collection[int]) -> None:
        """Drops all others; a prefill is freed with the last of its prompts."""
        self._read = {p: self._read[p] for p in self._read if p in prompts}

    def read(self, prompts: Sequence[int], width: int) -> tuple[Any, PrefixCache]:
        """Prefills some prompts of one width; unused rows hold one token."""
        rows = self.reader.rows(width)
        # [rows, width] and [rows]
        tokens, lengths = np.zeros((rows, width), np.int32), np.ones(rows, np.int32)
        for row, prompt in enumerate(prompts):
            lengths[row] = self.lengths[prompt]
            tokens[row, : lengths[row]] = self.tokens[prompt, : lengths[row]]
        return self.reader.run(self.params, tokens, lengths, self.common)
