"""What a chat template may cost: its steps and the characters that it moves count.

Jinja's sandbox keeps a template from reaching Python and bounds `range`, but neither
time nor memory: loops nest, a text doubles, a format has a width of ten digits. Here
everything that a template does is paid for out of one budget, as in Liquid, whose
templates strangers write too (Shopify's `Liquid::ResourceLimits`): a body each time it
runs, an operation before it makes something large, a value when it is made.
"""

import contextvars
import itertools
import re
from collections.abc import (
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    ValuesView,
)
from types import MappingProxyType
from typing import Any

# The budget is in characters copied. A step of the interpreter takes as long as copying
# a hundred of them; a node is an element of a list or a part of a template.
_WORK, _PER_GIVEN, STEP, NODE = 5 * 10**7, 500, 100, 50
# No template needs larger numbers, wider formats, or texts longer than whole chats.
_LARGEST_NUMBER, _LARGEST_COUNT, _LONGEST_TEXT, _DEEPEST = 10**18, 10**5, 10**7, 100


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Filters that do not look at more of their value than its length.
_SHALLOW_FILTERS = _names(
    "attr count d default first items last length list map reject rejectattr reverse "
    "select selectattr"
)
_SORTING_FILTERS = _names("dictsort groupby max min sort unique")
# Filters and methods that make as much as a number says.
_COUNTING = _names("batch center indent ljust rjust round slice tojson truncate zfill")

METHODS: Mapping[type, frozenset[str]] = MappingProxyType(
    {
        str: _names(
            "capitalize casefold center count endswith find format index isalnum "
            "isalpha isascii isdecimal isdigit isidentifier islower isnumeric "
            "isprintable isspace istitle isupper join ljust lower lstrip partition "
            "removeprefix removesuffix replace rfind rindex rjust rpartition rsplit "
            "rstrip split splitlines startswith strip swapcase title upper zfill"
        ),
        dict: _names("copy get items keys values"),
        list: _names("copy count index"),
        tuple: _names("count index"),
    }
)
"""Methods that a template may call, by the type of their value."""


class Meter:
    """The work that is left to one rendering.

    Args:
      given: the variables; a larger chat may cost more.

    Raises:
      ValueError: they are nested too deeply.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._left = _WORK + _PER_GIVEN * size(dict(given), 10**12)

    def spend(self, work: int) -> None:
        """Takes work from the budget.

        Raises:
          ValueError: there is not as much left.
        """
        self._left -= work
        if self._left < 0:
            raise ValueError("its work must stay within bounds, got more")

    def see(self, value: Any) -> Any:
        """Pays for looking at all of a value; the value."""
        self.spend(size(value, self._left))
        return value

    def make(self, value: Any) -> Any:
        """Pays for a value that was made; the value."""
        if isinstance(value, str) and len(value) > _LONGEST_TEXT:
            raise ValueError(
                f"a text must stay below {_LONGEST_TEXT} characters, got {len(value)}"
            )
        if isinstance(value, int) and abs(value) > _LARGEST_NUMBER:
            raise ValueError(f"numbers must stay below {_LARGEST_NUMBER}")
        return self.see(value)

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items, each paid for when it is taken."""
        for item in items:
            self.spend(STEP)
            yield item

    def held(self, items: Any) -> Any:
        """The items of an iterator, which would be gone once they were counted."""
        return list(self.counted(items)) if isinstance(items, Iterator) else items

    def text(self, parts: Iterable[str]) -> str:
        """The parts in one text, each paid for before the next is made."""
        kept = []
        for part in parts:
            self.spend(STEP + len(part))
            kept.append(part)
        return "".join(kept)

    def call(self, name: str, value: Any, args: tuple[Any, ...]) -> None:
        """Pays for a filter or a method before it is called.

        Args:
          name: of the filter or method.
          value: that it is applied to.
          args: all others, also those with names.

        Raises:
          ValueError: it would make something too large.
        """
        self.spend(STEP)
        if name not in _SHALLOW_FILTERS:
            self.spend(
                size(value, self._left) * (20 if name in _SORTING_FILTERS else 1)
            )
        for arg in args:
            self.spend(size(arg, self._left))
            if name in _COUNTING and isinstance(arg, int | float):
                if not abs(arg) <= _LARGEST_COUNT:
                    raise ValueError(
                        f"{name} must be given numbers up to {_LARGEST_COUNT}, got "
                        f"{arg}"
                    )
                self.spend(int(abs(arg)))
        self.spend(_growth(name, value, args))


METER: contextvars.ContextVar[Meter] = contextvars.ContextVar("METER")
"""Of the rendering that runs in this context."""


def size(value: Any, most: int) -> int:
    """What a value holds, in characters, each part as often as it would be written.

    Args:
      value: of a template.
      most: to count to.

    Returns:
      Characters of texts and bits of whole numbers, and fifty for every part.

    Raises:
      ValueError: it holds more, or is nested too deeply.

    Example:
      >>> size(["ab", {"c": None}], 1000)
      253
    """
    if isinstance(value, str):
        return len(value)
    total, open_parts = 0, [iter((value,))]
    while open_parts:
        for part in open_parts[-1]:
            total += NODE
            if isinstance(part, str | bytes):
                total += len(part)
            elif isinstance(part, int):
                total += part.bit_length()
            elif isinstance(part, range):
                total += NODE * len(part)
            elif (inside := _parts(part)) is not None:
                open_parts.append(inside)
                break
            if total > most:
                break
        else:
            open_parts.pop()
        if total > most:
            raise ValueError("its work must stay within bounds, got more")
        if len(open_parts) > _DEEPEST:
            raise ValueError(f"values must be nested at most {_DEEPEST} deep")
    return total


def _parts(value: Any) -> Iterator[Any] | None:
    if isinstance(value, Mapping):
        return itertools.chain.from_iterable(value.items())
    lists = list | tuple | set | frozenset | KeysView | ValuesView | ItemsView
    return iter(value) if isinstance(value, lists) else None


def check_operation(operator: str, left: Any, right: Any) -> int:
    """The characters that an operator may make.

    Args:
      operator: *, **, %, + or another.
      left: its left side.
      right: its right side.

    Raises:
      ValueError: the result would be too large.

    Example:
      >>> check_operation("*", "-", 80)
      80
      >>> check_operation("**", 10, 100)
      Traceback (most recent call last):
      ValueError: powers must stay below 1000000000000000000, got 10 ** 100
    """
    if operator == "**":
        # The power itself is not calculated: its logarithm is.
        bits = abs(left).bit_length() - 1 if isinstance(left, int) else 0
        if bits > 0 and right * bits >= _LARGEST_NUMBER.bit_length():
            raise ValueError(
                f"powers must stay below {_LARGEST_NUMBER}, got {left} ** {right}"
            )
    if operator == "*":
        for text, times in ((left, right), (right, left)):
            if isinstance(text, str | list | tuple) and isinstance(times, int):
                made = max(times, 0) * size(text, _LONGEST_TEXT)
                if made > _LONGEST_TEXT * (1 if isinstance(text, str) else NODE):
                    raise ValueError(
                        f"a text must stay below {_LONGEST_TEXT} characters, got "
                        f"{len(text)} * {times}"
                    )
                return made
    if operator == "%" and isinstance(left, str):
        return _format_growth(left, "%", (right,))
    return 0


_WIDE, _WIDER, _STAR = map(re.compile, ("[0-9]{4}", "[0-9]{7}", r"%[^a-zA-Z]*\*"))
# A field inside of a field may hold its width.
_NESTED = re.compile(r"\{[^{}]*\{")


def _format_growth(form: str, sign: str, args: tuple[Any, ...]) -> int:
    """What a format makes: every sign may write all that it is given, in its width."""
    if _WIDER.search(form) or (_STAR if sign == "%" else _NESTED).search(form):
        raise ValueError(f"a format must not be that wide, got {form!r:.80}")
    width = 10**6 if _WIDE.search(form) else 10**3
    written = sum(size(arg, _LONGEST_TEXT) for arg in args)
    return form.count(sign) * (width + written)


def _growth(name: str, value: Any, args: tuple[Any, ...]) -> int:
    """What some filters and methods make beyond the sizes of what they are given."""
    if name == "join":  # of the method the text between, of the filter what is joined
        items, between = (args[0], value) if isinstance(value, str) else (value, "")
        if not isinstance(value, str) and args:
            between = args[0]
        count = len(items) if hasattr(items, "__len__") else 0
        return count * len(between) if isinstance(between, str) else 0
    if not isinstance(value, str):
        return 0
    if name == "replace" and len(args) > 1:
        return value.count(str(args[0])) * len(str(args[1]))
    if name == "indent" and args:
        width = len(args[0]) if isinstance(args[0], str) else int(args[0])
        return (value.count("\n") + 1) * abs(width)
    if name == "format":  # of the method and of the filter
        return sum(_format_growth(value, sign, args) for sign in "{%" if sign in value)
    return 0
