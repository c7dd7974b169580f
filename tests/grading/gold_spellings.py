r"""Right and wrong answers made from references, by rules that need no grader."""

import random
import re
from collections.abc import Iterator
from fractions import Fraction

UNITS = (r"\text{ cm}", r"\text{ dollars}", r"^\circ", r"\text{ miles per hour}")
HEDGES = (
    *(r"{0} \text{{ or }} {1}", "{0} or {1}", r"{0} \pm 1", "{0}, {1}", r"\{{{0}\}}"),
    *(r"{0}\text{{ million}}", r"{0}\mathrm{{i}}", "{0}+1", "{0}-1", r"2({0})", "{0}!"),
    *(r"\approx {0}", "{0}?", r"{0}\text{{ or }}{1}", "[{0},{1}]", r"{0} \neq {1}"),
    *(r"({0})^2+7", r"{0}\cdot 10", r"{0}\mathbf{{00}}", "{0}e9", "{0}x", "{1} {0}"),
    *(r"-({0})-1", r"\frac{{{0}}}{{3}}+1", "{0}+0.0001", r"{0}+10^{{-60}}", "{0}={1}"),
    r"{0}\text{{ approximately}}",
)
_INTEGER = re.compile(r"-?[0-9]+")
_FRACTION = re.compile(r"(-?)\\d?frac\{([0-9]+)\}\{([0-9]+)\}")


def right_spellings(gold: str) -> Iterator[str]:
    """Responses whose answer is the reference, in the spellings of honest models."""
    layouts = ("{}", "${}$", " {} ", "{}.", r"\displaystyle {}")
    yield from (rf"\boxed{{{layout.format(gold)}}}" for layout in layouts)
    yield rf"So \fbox{{{gold}}}."
    yield rf"\boxed{{{gold}}}" + "\n\n#### Conclusion"
    yield rf"<think>\boxed{{0}}?</think> \boxed{{{gold}}}"
    yield rf"\boxed{{9}} no, \boxed{{\boxed{{{gold}}}}}"
    yield rf"\boxed{{{gold.replace('dfrac', 'frac').replace('frac', 'dfrac')}}}"
    if "left" not in gold and "text" not in gold:
        tall = gold.replace("(", r"\left(").replace(")", r"\right)")
        yield rf"\boxed{{{tall}}}"
    yield rf"\boxed{{{gold.replace('+', ' + ').replace(',', ', ')}}}"
    if "$" not in gold:
        yield f"#### {gold}"
    number = re.sub(r"\.0$", "", gold)
    if _INTEGER.fullmatch(number):
        inner = (number, f"{number}.0", rf"\text{{{number}}}", rf"\mathbf{{{number}}}")
        more = (f"x = {number}", rf"\frac{{{number}}}{{1}}", rf"{int(number):,}")
        exact = tuple(f"{number}{unit}" for unit in UNITS)
        yield from (rf"\boxed{{{answer}}}" for answer in (*inner, *more, *exact))
        yield rf"\boxed {number}"
        yield rf"\boxed{{{int(number):,}}}".replace(",", r"{,}")
    fraction = _FRACTION.fullmatch(gold)
    if fraction:
        sign, above, below = fraction.groups()
        yield rf"\boxed{{{sign}{above}/{below}}}"
        yield rf"\boxed{{\frac{{{sign}{2 * int(above)}}}{{{2 * int(below)}}}}}"


def wrong_answers(gold: str, rng: random.Random) -> Iterator[str]:
    """Plausible answers that are not the reference, without end."""
    number = re.sub(r"\.0$", "", gold)
    value = int(number) if _INTEGER.fullmatch(number) else None
    while True:
        other = str(rng.randint(1, 99))
        if value is None:
            if not any(
                part in gold for part in ("=", "text", "mbox", ",", "begin", "pm")
            ):
                yield rng.choice(HEDGES).format(gold, other)
            yield changed_digit(gold, rng)
            continue
        near = value + rng.choice([-100, -10, -2, -1, 1, 2, 10, 100])
        yield str(near)
        yield rng.choice(HEDGES).format(number, str(near))
        yield str(value + Fraction(rng.randint(1, 9), 10))
        yield f"{value}.{rng.randint(1, 9)}"
        yield rf"{number}\%" if value else "1"
        yield rf"{number}.0000001"
        yield str(-value) if value else "-1"
        yield f"{number}0" if value else "10"


def changed_digit(gold: str, rng: random.Random) -> str:
    """The reference with one digit, sign or letter changed."""
    places = [i for i, c in enumerate(gold) if c.isdigit()]
    if not places:
        return gold + "1"
    at = rng.choice(places)
    digit = str((int(gold[at]) + rng.randint(1, 8)) % 9 + 1)
    digit = digit if digit != gold[at] else str(int(digit) % 9 + 1)
    return gold[:at] + digit + gold[at + 1 :]
