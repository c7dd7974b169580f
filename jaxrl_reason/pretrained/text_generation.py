"""A single completion as text, streamed while it is sampled."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax.numpy as jnp

from jaxrl_reason.models import Params, Transformer
from jaxrl_reason.sampler import (
    BatchSettings,
    SamplingSettings,
    make_batch_sampler,
    sampling_keys,
    stop_strings,
)
from jaxrl_reason.sampler.sample_loop import pad_prompts
from jaxrl_reason.text.stream import StreamDecoder
from jaxrl_reason.text.tokenizer import ChatTokenizer

# Prompts are padded to a multiple of this, so that few shapes are compiled.
WIDTH_STEP = 64
# Short responses need only a short cache; each size is compiled when it is reached.
CACHE_LENGTHS = (128, 512, 2048, 8192)
# Tokens between two updates: few, so that the text streams smoothly.
STEPS = 4

END_TOKEN, STOP_STRING, LENGTH = "EOS token", "stop string", "length limit"


@dataclass(frozen=True)
class Generated:
    """A completion and its statistics.

    Attributes:
      tokens: its ids, the EOS token included.
      text: the streamed text, without control tokens and up to a stop string.
      ended: the reason of its end: "EOS token", "stop string" or "length limit".
      seconds: from the call to the last token, including prefill and compilation.
      first_tokens: number of tokens in the first update.
      first_seconds: from the call to that update.
    """

    tokens: tuple[int, ...]
    text: str
    ended: str
    seconds: float
    first_tokens: int
    first_seconds: float

    @property
    def figures(self) -> str:
        """A line of statistics.

        >>> Generated((5,) * 44, "", "EOS token", 5.0, 4, 3.0).figures
        '44 tokens in 5.00 s: 4 in 3.00 s, then 20.0 tokens/s; ended by EOS token'
        """
        line = f"{len(self.tokens)} tokens in {self.seconds:.2f} s"
        later = len(self.tokens) - self.first_tokens
        if later:
            speed = later / max(self.seconds - self.first_seconds, 1e-9)
            line += f": {self.first_tokens} in {self.first_seconds:.2f} s, "
            line += f"then {speed:.1f} tokens/s"
        else:
            line += f", {len(self.tokens) / max(self.seconds, 1e-9):.1f} tokens/s"
        return f"{line}; ended by {self.ended}"


def generate_text(
    model: Transformer,
    params: Params,
    tokenizer: ChatTokenizer,
    prompt: Sequence[int],
    settings: SamplingSettings,
    *,
    stop: Sequence[str] = (),
    seed: int = 0,
    on_text: Callable[[str], None] = lambda text: None,
) -> Generated:
    """Completes one prompt.

    The tokens are those of the batch sampler for the keys of (seed, 0, 0).

    Args:
      model: the transformer.
      params: its parameters.
      tokenizer: of the model.
      prompt: token ids, see `TextTokenizer.encode_chat` and `encode_prompt`.
      settings: of the sampling, with the EOS tokens.
      stop: strings that also end the completion; they are not part of the text.
      seed: for sampling.
      on_text: called with each piece of text as soon as it is final: whole characters,
        and nothing that may still become a stop string.

    Returns:
      The completion.

    Raises:
      ValueError: the prompt is empty or too long, or a stop string is empty.
    """
    longest = model.config.context_length - settings.max_new_tokens
    if not 1 <= len(prompt) <= longest:
        raise ValueError(
            f"a prompt must have 1 to {longest} tokens (the model's context of "
            f"{model.config.context_length} less max_new_tokens), got {len(prompt)}"
        )
    tokens, lengths = pad_prompts([prompt], [0], longest, multiple_of=WIDTH_STEP)
    batch = BatchSettings(
        slots=1,
        prompt_widths=(tokens.shape[1],),
        steps=STEPS,
        cache_lengths=CACHE_LENGTHS,
        cache_dtype=model.config.dtype,
    )
    stops = [stop_strings(tokenizer.decode, stop)] if stop else []
    writer = _Writer(tokenizer, settings.eos_token_ids, stop, on_text)
    done = make_batch_sampler(model, settings, 1, batch)(
        params,
        tokens,
        lengths,
        sampling_keys(seed, 0, jnp.zeros(1, jnp.uint32), 1),
        stops=stops,
        on_tokens=writer.write,
    )
    ended = STOP_STRING if writer.filter.stopped else END_TOKEN
    return Generated(
        tuple(done.tokens[0, : done.lengths[0]].tolist()),
        "".join(writer.given),
        LENGTH if done.truncated[0] else ended,
        writer.seconds,
        *writer.first,
    )


class _Writer:
    """Turns tokens into text as they arrive, and records times."""

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        ends: Sequence[int],
        stop: Sequence[str],
        on_text: Callable[[str], None],
    ) -> None:
        self.filter = StopFilter(stop)
        self.given: list[str] = []
        self.first = (0, 0.0)
        self.seconds = 0.0
        self._decoder = StreamDecoder(tokenizer)
        self._ends, self._on_text = set(ends), on_text
        self._began = time.monotonic()

    def write(self, row: int, tokens: tuple[int, ...], done: bool) -> None:
        """Takes the sampler's new tokens."""
        self.seconds = time.monotonic() - self._began
        if not self.first[0]:
            self.first = (len(tokens), self.seconds)
        # An EOS token need not be a control token.
        text = "".join(self._decoder.push(t) for t in tokens if t not in self._ends)
        text = self.filter.push(text + (self._decoder.finish() if done else ""))
        text += self.filter.finish() if done else ""
        if text:
            self.given.append(text)
            self._on_text(text)


class StopFilter:
    """Passes on text that arrives in pieces, up to the first stop string.

    Args:
      strings: what to stop at.

    >>> stop = StopFilter(["</answer>"])
    >>> [stop.push(text) for text in ("7 <", "b> 8</ans", "wer> 9")], stop.stopped
    (['7 ', '<b> 8', ''], True)
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self.stopped = False
        self._strings = strings
        self._held = ""

    def push(self, text: str) -> str:
        """The final text, without what may still become a stop string."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for string in self._strings if (at := text.find(string)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        held = max((_begun(text, string) for string in self._strings), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """The text that was held back."""
        text, self._held = self._held, ""
        return text


def _begun(text: str, string: str) -> int:
    """The number of characters at the end of a text that begin a stop string."""
    sizes = range(min(len(text), len(string) - 1), 0, -1)
    return next((size for size in sizes if text.endswith(string[:size])), 0)
