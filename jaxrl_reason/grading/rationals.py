"""A canonical form of numbers that a model wrote, without executing anything."""

import re
from fractions import Fraction

# Fractions of at most this many digits are reduced; longer numbers are compared as
# digits, since converting them to an integer takes quadratic time.
MAX_DIGITS = 64
# The part of a text that `shown` keeps for logs.
SHOWN = 100

# [0-9] and not \d, which also matches Arabic-Indic and other Unicode digits. The
# possessive ++ avoids retrying a long text from every position.
_DECIMAL = re.compile(
    r"(?P<sign>[+-]?)(?:(?P<grouped>[0-9]{1,3}(?:,[0-9]{3})++)|(?P<plain>[0-9]*+))"
    r"(?:\.(?P<decimals>[0-9]*+))?"
)


def canonical_number(text: str, *, leading_zeros: bool = False) -> str | None:
    """The canonical text of a rational number, None if the text is not just a number.

    Accepts `-12`, `1,234`, `.5`, `12.50`, `3/4` and `25%` (a quarter). Equal numbers
    have equal texts: lowest terms, `5/4` for 1.25. A number of more than 64 digits
    keeps its digits, so it equals only the same decimal. Rejects exponents (`1e400`),
    words, several numbers, commas that do not group by three, digits other than 0-9.
    Time is linear in the text.

    Args:
      text: the text of only the number; white space around it is dropped.
      leading_zeros: read `025` as 25; otherwise it is rejected.

    Returns:
      The text, or None.

    Example:
      >>> [canonical_number(text) for text in ("1,250", "1.25", "10/8", "1e400")]
      ['1250', '5/4', '5/4', None]
    """
    text = text.strip(" \t\r\n")
    hundredth = text.endswith("%")
    if hundredth:
        text = text[:-1].rstrip(" ")
    above, slash, below = text.partition("/")
    parts = _decimal(above, leading_zeros)
    if parts is None:
        return None
    sign, whole, decimals = parts
    if not slash and not hundredth and len(whole) + len(decimals) > MAX_DIGITS:
        return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"
    value = _fraction(parts)
    if slash:
        divisor = _fraction(_decimal(below, leading_zeros))
        # A fraction has two integers; 1/2% is ambiguous.
        if not divisor or decimals or divisor.denominator > 1 or hundredth:
            return None
        value = value / divisor if value is not None else None
    if value is None:
        return None
    return str(value / 100 if hundredth else value)


def shown(text: str) -> str:
    """The text, shortened if it is too long for a log.

    Args:
      text: any text.

    Returns:
      The text, or its beginning and its length.

    Example:
      >>> shown("9" * 1000)[-20:]
      '... 1000 characters)'
    """
    if len(text) <= SHOWN:
        return text
    return f"{text[:SHOWN]} (... {len(text)} characters)"


def _decimal(text: str, leading_zeros: bool) -> tuple[str, str, str] | None:
    """Sign, digits before the point without leading zeros, and digits after it."""
    match = _DECIMAL.fullmatch(text)
    if match is None:
        return None
    whole = (match["grouped"] or "").replace(",", "") or match["plain"] or ""
    decimals = match["decimals"] or ""
    if not whole and not decimals:
        return None
    if len(whole) > 1 and whole[0] == "0" and not leading_zeros:
        return None
    whole, decimals = whole.lstrip("0") or "0", decimals.rstrip("0")
    negative = match["sign"] == "-" and (whole != "0" or decimals)
    return "-" if negative else "", whole, decimals


def _fraction(parts: tuple[str, str, str] | None) -> Fraction | None:
    """Value of a short decimal."""
    if parts is None or len(parts[1]) + len(parts[2]) > MAX_DIGITS:
        return None
    sign, whole, decimals = parts
    value = Fraction(int(whole + decimals), 10 ** len(decimals))
    return -value if sign else value
