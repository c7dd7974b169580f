"""The BOS, EOS and padding tokens of a tokenizer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# Names of tokens that end a turn or a text in model families. A GGUF names only one EOS
# token, even if the model has several.
_END_NAMES = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<|end|>",
    "<eos>",
    "</s>",
)

# Preferred padding tokens come first.
_PAD_HINTS = ("pad", "reserved", "unused", "unk")


@dataclass(frozen=True)
class SpecialTokens:
    """Special ids of a model.

    Attributes:
      eos_token_ids: ids that end a text, that of the chat template first.
      pad_token_id: for padding; not one of `eos_token_ids`.
      bos_token_id: starts a text, None if the model has none.
      unk_token_id: for text outside the vocabulary, None if there is none.
      add_bos: whether every text begins with `bos_token_id`, not only rendered chats.
    """

    eos_token_ids: tuple[int, ...]
    pad_token_id: int
    bos_token_id: int | None = None
    unk_token_id: int | None = None
    add_bos: bool = False

    def __post_init__(self) -> None:
        if not self.eos_token_ids:
            raise ValueError(
                f"eos_token_ids must name a token, got {self.eos_token_ids}"
            )
        if self.pad_token_id in self.eos_token_ids:
            raise ValueError(
                f"pad_token_id must not be an EOS token, or rows would end at their "
                f"padding, got {self.pad_token_id} among {self.eos_token_ids}"
            )
        if self.add_bos and self.bos_token_id is None:
            raise ValueError("add_bos must come with a bos_token_id, got None")


def find_eos_token_ids(
    named: Iterable[int], control: Mapping[str, int], pad: int | None = None
) -> tuple[int, ...]:
    """EOS tokens that a file names, then those with known names.

    The same for every kind of file, so that a model's folder and its GGUF agree.

    Args:
      named: EOS ids of the file, the most important first.
      control: ids of the control tokens by their text.
      pad: padding id of the file, which is an EOS token only if the file names it so.

    Returns:
      Ids without repetition.

    Example:
      >>> control = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
      >>> find_eos_token_ids([2], control)
      (2, 0)
    """
    known = (control[name] for name in _END_NAMES if name in control)
    return tuple(dict.fromkeys((*named, *(index for index in known if index != pad))))


def pad_token(
    named: int | None,
    eos_token_ids: tuple[int, ...],
    control: Mapping[str, int],
    used: str,
    asked: int | None = None,
) -> int:
    """The padding token: the one asked for, or the file's unless that is an EOS token.

    Many files pad with the EOS token; a model trained with padding masked by id then
    never learns to stop.

    Args:
      named: padding id of the file, None if it has none.
      eos_token_ids: ids that end a text.
      control: ids of the control tokens by their text.
      used: the chat template: tokens in it are chosen last.
      asked: by the caller; any id, since rows have lengths.

    Returns:
      The id.

    Raises:
      ValueError: if every control token is an EOS token.

    Example:
      >>> pad_token(2, (2,), {"<s>": 1, "</s>": 2, "<unk>": 0}, "")
      0
    """
    if asked is not None:
        return asked  # SpecialTokens refuses an EOS token
    if named is not None and named not in eos_token_ids:
        return named
    free = {
        name: index for name, index in control.items() if index not in eos_token_ids
    }
    for hint in _PAD_HINTS:
        for name, index in free.items():
            if hint in name.lower():
                return index
    unwritten = [index for name, index in free.items() if name not in used]
    choice = [*unwritten, *free.values()]
    if not choice:
        raise ValueError(
            "a tokenizer must have a control token to pad with that is not an EOS "
            f"token, or pad_token_id must be given, got {sorted(control)[:20]}"
        )
    return choice[0]
