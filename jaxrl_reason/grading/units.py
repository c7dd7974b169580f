r"""The closed list of units that may follow an answer.

A unit is part of the answer where both answer and reference have one; where only one of
them has, it is dropped. Any other word beside a number makes a different answer.
"""

import re

from jaxrl_reason.grading.answer_values import Unit

_SPELLINGS = """
degree degrees deg
celsius
fahrenheit
dollar dollars usd
cent cents
euro euros
pound pounds lb lbs
ounce ounces oz
ton tons tonne tonnes
mg milligram milligrams
g gram grams
kg kilogram kilograms
mm millimeter millimeters millimetre millimetres
cm centimeter centimeters centimetre centimetres
m meter meters metre metres
km kilometer kilometers kilometre kilometres
in inch inches
ft foot feet
yd yard yards
mi mile miles
ml milliliter milliliters millilitre millilitres
l liter liters litre litres
gallon gallons gal
quart quarts
pint pints
cup cups
ms millisecond milliseconds
s sec second seconds
min minute minutes
h hr hrs hour hours
day days
week weeks
month months
year years
mph
kph
radian radians rad
unit units
point points
time times
people person
student students
boy boys
girl girls
child children
way ways
"""
_UNITS = {
    spelling: line.split()[0]
    for line in _SPELLINGS.strip().splitlines()
    for spelling in line.split()
}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_WORD = re.compile(r"[a-z]+|\^-?[0-9]|/|.")


def read_unit(text: str) -> Unit | None:
    """The unit that a text spells.

    Args:
      text: `cm`, `square feet`, `m/s^2`, `miles per hour`.

    Returns:
      Its units with their powers in order; None if a word is not in the list.

    Example:
      >>> read_unit("square inches"), read_unit("m/s^2")
      ((('in', 2),), (('m', 1), ('s', -2)))
      >>> read_unit("million") is None
      True
    """
    found: dict[str, int] = {}
    last, power, sign = "", 1, 1
    for word in _WORD.findall(text.casefold().replace(".", " ")):
        if word in ("/", "per"):
            if not last or sign < 0:
                return None
            sign = -1
        elif word in _POWERS:
            power = _POWERS[word]
        elif word[0] == "^" and len(word) > 1:
            if not last:
                return None
            found[last] *= int(word[1:])
        elif word in _UNITS:
            last = _UNITS[word]
            found[last] = found.get(last, 0) + sign * power
            power = 1
        elif not word.isspace():
            return None
    if not last or power > 1:
        return None
    return tuple(sorted(found.items()))


def join_units(parts: list[tuple[Unit, int]]) -> Unit:
    """The product of units.

    Args:
      parts: each with its power, 1 or -1.

    Returns:
      The unit.

    Example:
      >>> join_units([((("m", 1),), 1), ((("s", 1),), -1)])
      (('m', 1), ('s', -1))
    """
    found: dict[str, int] = {}
    for unit, power in parts:
        for name, exponent in unit:
            found[name] = found.get(name, 0) + exponent * power
    return tuple(sorted(item for item in found.items() if item[1]))
