"""`jaxrl-reason generate`: streams a completion of a model."""

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import tyro

from jaxrl_reason.models import Transformer
from jaxrl_reason.pretrained.reading import read_model
from jaxrl_reason.pretrained.text_generation import Generated, generate_text
from jaxrl_reason.sampler import SamplingSettings
from jaxrl_reason.text.text_tokenizer import TextTokenizer


@dataclass(frozen=True)
class GenerateSettings:
    """Stream a completion of a language model.

    The text goes to standard output, one line of statistics to standard error.

    Attributes:
      model: a Hugging Face folder, a .gguf file or a hub id.
      prompt: the user's message; - reads it from standard input, without the final
        newline.
      raw: complete the prompt as plain text, without the chat template; needed for a
        model without one (`jaxrl-reason evaluate` then uses plain text by itself).
      max_new_tokens: the longest completion.
      temperature: 0 takes the most likely token.
      top_k: keep the k most likely tokens; 0 keeps all.
      top_p: keep the fewest most likely tokens with at least this mass.
      seed: for sampling.
      stop: strings that end the completion; they are not printed.
      dtype: of parameters, activations and products.
    """

    model: str
    prompt: str
    raw: bool = False
    max_new_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be from 0 to 2**32 - 1, got {self.seed}")
        if not all(self.stop):
            raise ValueError(f"stop strings must not be empty, got {self.stop}")
        self.sampling(())

    def sampling(self, eos_token_ids: tuple[int, ...]) -> SamplingSettings:
        """The sampling settings.

        Args:
          eos_token_ids: of the model.
        """
        return SamplingSettings(
            max_new_tokens=self.max_new_tokens,
            eos_token_ids=eos_token_ids,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
        )


def main(argv: Sequence[str]) -> None:
    """Runs the command with these arguments.

    Args:
      argv: the arguments.

    Raises:
      ValueError: the settings, the files or the prompt cannot be used.
    """
    settings = tyro.cli(GenerateSettings, args=argv, prog="jaxrl-reason generate")
    print(generate(settings).figures, file=sys.stderr)


def generate(settings: GenerateSettings) -> Generated:
    """Reads the model and prints its completion.

    Args:
      settings: of the command.

    Returns:
      The completion.

    Raises:
      ValueError: as `load_pretrained`, `load_tokenizer` and `generate_text`.
    """
    text = settings.prompt
    if text == "-":
        text = sys.stdin.read().removesuffix("\n")
    loaded, tokenizer = read_model(
        settings.model, dtype=settings.dtype, param_dtype=settings.dtype
    )
    prompt = encode_prompt(tokenizer, text, raw=settings.raw)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    done = generate_text(
        Transformer(loaded.config),
        loaded.params,
        tokenizer,
        prompt,
        settings.sampling(tokenizer.eos_token_ids),
        stop=settings.stop,
        seed=settings.seed,
        on_text=lambda text: print(text, end="", flush=True),
    )
    print(flush=True)
    return done


def encode_prompt(tokenizer: TextTokenizer, text: str, *, raw: bool) -> list[int]:
    """Ids of the user's message, with one BOS at the start if the model needs it.

    Control tokens in the text stay text.

    Args:
      tokenizer: of the model.
      text: the user's message.
      raw: encode the text itself, not a chat of one message.

    Returns:
      The ids.

    Raises:
      ValueError: the tokenizer has no chat template and raw is False.
    """
    if raw:
        return tokenizer.encode_prompt(text)
    if tokenizer.chat_template is None:
        raise ValueError(
            "a model must have a chat template, got one without: --raw completes plain "
            "text"
        )
    return tokenizer.encode_chat([{"role": "user", "content": text}])
