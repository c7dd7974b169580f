r"""Searches for a wrong answer that the grader of final answers accepts.

    python experiments/benchmarks/grader_fuzz.py --seconds 60
    python experiments/benchmarks/grader_fuzz.py --golds math500.jsonl --seconds 60

Two searches take turns. In the first, random expressions are written down in random
spellings, and their values calculated here, from the tree and to 80 digits, without the
grader's reader. An answer of another value must not be accepted; one of the same value
and refused is counted, not an error. In the second, the text of an answer is changed
character by character and by the phrases with which a policy hedges. What is then still
accepted is read by another program, math-verify's LaTeX reader (extra test), and must
have the same value there; what that cannot read is printed for a person to judge.

The last line is JSON. The exit status is 1 if a wrong answer was accepted.
"""

import importlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import mpmath
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from jaxrl_reason.grading.answers import marked_answer
from jaxrl_reason.grading.final_answer import RIGHT, grade_final_answer

PRECISE = mpmath.mp.clone(), mpmath.mp.clone()
PRECISE[0].dps, PRECISE[1].dps = 80, 160

GOLDS = (
    *("18", "-3", "0", "3.25", r"\frac{3}{4}", r"1\frac{4}{5}", "10,080", "52_8"),
    *(r"2\sqrt{2}", r"\frac{\pi}{6}", r"3+4i", "x^2+1", r"\frac{x+1}{2}", "p-q"),
    *("(3,-1)", "[0,1)", r"\{1,2,5\}", "1,-2", r"1 \pm \sqrt{3}", "x=5", "x=2, y=3"),
    *(r"(-\infty,2)\cup(3,\infty)", r"90^\circ", r"15\text{ cm}^2", r"\text{(C)}"),
    *(r"\begin{pmatrix} 1 \\ -2 \end{pmatrix}", r"\text{east}", "y=2x+3", "x+y<4"),
)
PHRASES = (
    *(r"\text{ or }5", r"\pm 1", r"\%", "!", r"\text{ million}", r"\mathrm{i}", "0"),
    *("+0.001", "+1", r"\cdot 10", "^2", r"\mathbf{00}", "e1", ",1", ", 7", r"\infty"),
    *(r"\sqrt{2}", "{}", r"\,", "~", r"\text{ cm}", r"\text{}", "_2", "=", "<", "x"),
    *(r"\in", "(", ")", "[", "]", r"\{", r"\}", r"\frac12", "/2", "-", r"\left", "$"),
    *(r"\text{ and }", ";", "|", "&", r"\\", r"\cup", "π", "°", "−", r"\dfrac", "."),
)


# Expressions with their values.


def random_tree(rng: random.Random, depth: int) -> tuple[Any, ...]:
    """A random expression of numbers, roots, constants and two variables."""
    kind = rng.choice(["num", "num", "name", "pi"] if depth == 0 else "+-*/^r+-*/sn")
    if kind == "num":
        top = rng.randint(-12, 40)
        return ("num", Fraction(top, rng.choice([1, 1, 1, 2, 4, 5, 7])))
    if kind in ("name", "pi"):
        return (kind, rng.choice("xy"))
    if kind == "^":
        return ("^", random_tree(rng, depth - 1), rng.randint(2, 4))
    parts = (random_tree(rng, depth - 1) for _ in range(2 if kind in "+-*/" else 1))
    return (kind, *parts)


def changed_tree(rng: random.Random, tree: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same expression with one place changed."""
    inner = [i for i, part in enumerate(tree) if isinstance(part, tuple)]
    if inner and rng.random() < 0.7:
        place = rng.choice(inner)
        parts = list(tree)
        parts[place] = changed_tree(rng, tree[place])
        return tuple(parts)
    if tree[0] == "num":
        step = rng.choice([1, -1, 10, Fraction(1, 10**6), Fraction(1, 10**30)])
        return ("num", rng.choice([-tree[1], tree[1] + step, tree[1] * 10]))
    return rng.choice([("n", tree), ("+", tree, ("num", Fraction(1))), ("^", tree, 2)])


def value_of(tree: tuple[Any, ...], at: dict[str, Fraction], mp: Any) -> Any:
    """Its value to the digits of mp; ZeroDivisionError outside the domain."""
    kind = tree[0]
    if kind in ("num", "name"):
        number = tree[1] if kind == "num" else at[tree[1]]
        return mp.mpf(number.numerator) / number.denominator
    if kind == "pi":
        return +mp.pi
    first = value_of(tree[1], at, mp)
    if kind == "^":
        return first ** tree[2]
    if kind in "rsn":
        if kind == "r" and first < 0:
            raise ZeroDivisionError
        return {"r": mp.sqrt, "s": mp.sin, "n": lambda x: -x}[kind](first)
    second = value_of(tree[2], at, mp)
    if kind == "/":
        return first / second
    return {"+": first + second, "-": first - second, "*": first * second}[kind]


def settled(tree: tuple[Any, ...], at: dict[str, Fraction]) -> Any:
    """Its value to 80 digits, 0 if it is only rounding, by a second evaluation."""
    low, high = (value_of(tree, at, mp) for mp in PRECISE)
    if abs(high) <= abs(low) * PRECISE[1].mpf(10) ** -60:
        return PRECISE[1].mpf(0)
    if abs(high - low) > abs(high) * PRECISE[1].mpf(10) ** -60:
        raise ZeroDivisionError
    return high


def written(rng: random.Random, tree: tuple[Any, ...]) -> str:
    """An expression as LaTeX, in one of many spellings."""
    kind = tree[0]
    if kind == "num":
        return spelled_number(rng, tree[1])
    if kind in ("name", "pi"):
        return tree[1] if kind == "name" else r"\pi "
    parts = [written(rng, part) for part in tree[1:] if isinstance(part, tuple)]
    wrapped = [rng.choice((r"(%s)", r"\left(%s\right)")) % part for part in parts]
    if kind == "^":
        return f"{wrapped[0]}^{{{tree[2]}}}"
    if kind == "r":
        return rf"\sqrt{{{parts[0]}}}"
    if kind == "s":
        return r"\sin" + wrapped[0]
    if kind == "n":
        return "-" + wrapped[0]
    if kind == "/":
        return rng.choice((r"\frac{%s}{%s}", r"\dfrac{%s}{%s}")) % tuple(parts)
    sign = {"+": "+", "-": "-", "*": rng.choice((r"\cdot ", r"\times ", ""))}[kind]
    return sign.join(wrapped) if rng.random() < 0.8 else " " + sign.join(wrapped)


def spelled_number(rng: random.Random, value: Fraction) -> str:
    """A rational number as LaTeX."""
    sign, top = ("-" if value < 0 else ""), abs(value.numerator)
    if value.denominator == 1:
        return f"{sign}{top}"
    below = value.denominator
    if 10**60 % below == 0 and rng.random() < 0.5:
        places = next(n for n in range(61) if 10**n % below == 0)
        digits = str(top * 10**places // below).rjust(places + 1, "0")
        return f"{sign}{digits[:-places]}.{digits[-places:]}"
    return rng.choice((rf"{sign}\frac{{{top}}}{{{below}}}", f"{sign}{top}/{below}"))


def same_values(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool | None:
    """Whether two expressions agree to 50 digits at points; None without a value."""
    rng, seen = random.Random(7), []
    for _ in range(4):
        at = {name: Fraction(rng.randint(1, 10**9), 10**8) for name in "xy"}
        try:
            one, other = settled(first, at), settled(second, at)
        except (ZeroDivisionError, ValueError, OverflowError):
            continue
        largest = max(abs(one), abs(other))
        seen.append(abs(one - other) <= largest * PRECISE[1].mpf(10) ** -50)
    return all(seen) if seen else None


# Texts changed character by character.


def changed_text(rng: random.Random, text: str) -> str:
    """An answer with one to three small changes."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        at = rng.randrange(len(text) + 1)
        action = rng.randrange(5)
        if action == 0:
            text = text[:at] + text[at + 1 :]
        elif action == 1:
            text = text[:at] + rng.choice("0123456789") + text[at + 1 :]
        elif action == 2:
            text = text[:at] + rng.choice(PHRASES) + text[at:]
        elif action == 3:
            text = text + rng.choice(PHRASES)
        else:
            other = rng.randrange(len(text) + 1)
            low, high = sorted((at, other))
            text = text[:low] + text[high:] + text[low:high]
    return text


def other_reading(text: str) -> Any:
    """What math-verify's reader makes of an answer, None if nothing."""
    reader = importlib.import_module("math_verify")
    try:
        found = reader.parse(
            f"${text}$",
            extraction_config=[reader.LatexExtractionConfig()],
            fallback_mode="no_fallback",
            parsing_timeout=None,
        )
    except Exception:  # of a text that it was not made for
        return None
    return found[0] if found else None


_DROPPED = (
    r"\left",
    r"\right",
    r"\,",
    r"\text{}",
    " ",
    "~",
    "$",
    "{}",
    "°",
    r"\text{cm}",
)


def plain(text: str) -> str:
    """A text without layout, brackets and signs that the policy lets be left out."""
    for piece in _DROPPED:
        text = text.replace(piece, "")
    text = text.replace("−", "-").replace(r"\dfrac", r"\frac").replace("π", r"\pi")
    return text.strip(".*").removeprefix("+")


def judged(gold: str, answer: str) -> str:
    """What the other reader says of an answer: "same" or "unclear"."""
    if plain(gold) == plain(answer):
        return "same"
    first, second = other_reading(gold), other_reading(answer)
    if first is None or second is None:
        return "unclear"
    try:
        same = first == second or abs((first - second).evalf(60)) < 10**-50
        return "same" if same else "unclear"
    except Exception:
        return "unclear"


@dataclass(frozen=True)
class Settings:
    """Settings of the search.

    Attributes:
      seconds: how long to search.
      seed: of the random choices.
      golds: a JSONL file with references in the field answer; own ones without.
      shown: unclear answers to print.
    """

    seconds: float = 60.0
    seed: int = 0
    golds: Path | None = None
    shown: int = 40


def tree_search(rng: random.Random) -> Iterator[tuple[str, str, str]]:
    """(kind, reference, answer) of random expressions, without end."""
    while True:
        gold = random_tree(rng, rng.randint(1, 3))
        answer = changed_tree(rng, gold) if rng.random() < 0.8 else gold
        texts = written(rng, gold), written(rng, answer)
        same = same_values(gold, answer)
        right = grade_final_answer(rf"\boxed{{{texts[1]}}}", texts[0]).outcome == RIGHT
        kinds = {(True, False): "wrong accepted", (False, True): "right refused"}
        if same is not None:
            yield kinds.get((right, same), "as it must be"), *texts


def text_search(
    rng: random.Random, golds: tuple[str, ...]
) -> Iterator[tuple[str, str, str]]:
    """(kind, reference, answer) of changed texts, without end."""
    while True:
        gold = rng.choice(golds)
        answer = changed_text(rng, gold)
        if marked_answer(rf"\boxed{{{answer}}}") != answer.strip():
            continue  # a brace closes the box
        if grade_final_answer(rf"\boxed{{{answer}}}", gold).outcome != RIGHT:
            yield "as it must be", gold, answer
        else:
            kind = {"same": "as it must be", "unclear": "unclear"}
            yield kind.get(judged(gold, answer), "wrong accepted"), gold, answer


def main(settings: Settings) -> int:
    """Searches, prints what it found and returns the exit status."""
    rng = random.Random(settings.seed)
    golds: tuple[str, ...] = GOLDS
    if settings.golds is not None:
        lines = settings.golds.read_text("utf-8").splitlines()
        golds = tuple(str(json.loads(line)["answer"]) for line in lines)
    searches = tree_search(rng), text_search(rng, golds)
    counts: Counter[str] = Counter()
    printed: set[tuple[str, str, str]] = set()
    slowest, end = 0.0, time.monotonic() + settings.seconds
    while time.monotonic() < end:
        for search in searches:
            began = time.monotonic()
            found = next(search)
            slowest = max(slowest, time.monotonic() - began)
            counts[found[0]] += 1
            of_kind = sum(one[0] == found[0] for one in printed)
            if found[0] != "as it must be" and of_kind < settings.shown:
                if found not in printed:
                    print(*found, sep=" | ")
                printed.add(found)
    print(
        json.dumps({**counts, "tried": counts.total(), "slowest_s": round(slowest, 3)})
    )
    return int(counts["wrong accepted"] > 0)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings)))
