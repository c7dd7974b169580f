"""How byte-level vocabularies split a text into words, by GGUF's names."""

from dataclasses import dataclass
from types import MappingProxyType

from jaxrl_reason.text.backend import Spec

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Qwen's differs only in this: every digit is separate.
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class WordRule:
    """One way to split a text into words.

    Attributes:
      pattern: regular expression of a word; None for GPT-2's own.
      digits: whether every digit is split off first.
      normalize: whether Unicode's NFC is applied first.
      whole_words: whether a word in the vocabulary needs no merges.
      add_bos: whether texts begin with BOS by default.
    """

    pattern: str | None = None
    digits: bool = False
    normalize: bool = False
    whole_words: bool = False
    add_bos: bool = False

    def steps(self) -> Spec:
        """The pre-tokenizer of a tokenizer.json."""
        parts: list[Spec] = []
        if self.digits:
            parts.append({"type": "Digits", "individual_digits": True})
        if self.pattern is not None:
            parts.append(
                {
                    "type": "Split",
                    "pattern": {"Regex": self.pattern},
                    "behavior": "Isolated",
                    "invert": False,
                }
            )
        byte_level = {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": self.pattern is None,
        }
        return {"type": "Sequence", "pretokenizers": [*parts, byte_level]}


_GPT2 = WordRule()
_SMOLLM = WordRule(digits=True)
_LLAMA = WordRule(_LLAMA3, whole_words=True, add_bos=True)
_QWEN = WordRule(_QWEN2, normalize=True)
_MISTRAL = WordRule(_TEKKEN, whole_words=True, add_bos=True)

WORD_RULES = MappingProxyType(
    {
        "gpt-2": _GPT2,
        "smollm": _SMOLLM,
        "llama-bpe": _LLAMA,
        "llama3": _LLAMA,
        "llama-v3": _LLAMA,
        "qwen2": _QWEN,
        "deepseek-r1-qwen": _QWEN,
        "tekken": _MISTRAL,
    }
)
"""Rules by the value of `tokenizer.ggml.pre`."""
