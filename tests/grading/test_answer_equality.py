"""Answers that mean the same are equal, whatever their spelling; no others are."""

import pytest

from jaxrl_reason.grading.answer_equality import equal_texts, exactly_same
from jaxrl_reason.grading.answer_policy import AnswerPolicy
from jaxrl_reason.grading.answer_values import Refused
from jaxrl_reason.grading.latex_parser import parse_answer

EQUAL = [
    [r"\frac{1}{2}", r"\dfrac12", "0.5", ".50", "1/2", r"\frac 12", r"$\tfrac{1}{2}$"],
    [r"-\frac{3}{2}", r"\frac{-3}{2}", r"\frac{3}{-2}", "-1.5", r"-1\frac{1}{2}"],
    ["10080", r"10,\!080", "10,080", r"10{,}080", r"10\,080", r"\$10,080"],
    [r"90^\circ", "90", r"90^{\circ}", "90°", r"90 \text{ degrees}"],
    [r"864 \mbox{ inches}^2", "864", r"864\text{ in}^{2}", r"864\text{ square inches}"],
    [r"5\text{ m}/\text{s}", r"5\text{ m/s}", r"5\text{ meters per second}"],
    [r"(1,2)", r"\left( 1, 2 \right)", r"(1.0,\frac{4}{2})"],
    [
        r"\{1,2\}",
        r"\{2,1\}",
        r"\left\{ 2, 1\right\}",
        "1, 2",
        "2,1",
        r"2 \text{ and } 1",
    ],
    ["x=5", "5", "x = 5", "5 = x"],
    [r"x \in [-2,7]", "[-2,7]", r"-2 \leq x \leq 7", r"7 \ge x \ge -2"],
    [r"\text{(C)}", "C", "(C)", r"\text{C}", r"\textbf{(C)}"],
    [r"\text{Evelyn}", "Evelyn", "evelyn"],
    [r"11\sqrt2", r"11 \sqrt{2}"],
    ["4210_{5}", "4210_5", r"4210 _5"],
    [r"\frac{\pi}{6}", r"\dfrac\pi6", r"\frac{π}{6}"],
    ["x^2", "x^{2}"],
    ["3000000000000", "3e12", r"3 \times 10^{12}", r"3\cdot10^{12}"],
    [r"\frac{1}{3}", r"0.\overline{3}"],
    ["x=1, x=2", "x = 2 \\text{ or } x = 1", "x=1,2", "1, 2"],
    ["7", r"\text{7}", r"\mathbf{7}", r"\fbox{7}", "{7}", "(7)", "7."],
]


@pytest.mark.parametrize("texts", EQUAL, ids=lambda texts: texts[0])
def test_spellings_of_one_value(texts: list[str]) -> None:
    for gold in texts:
        for answer in texts:
            assert equal_texts(gold, answer) is True, (gold, answer)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("391", r"17 \cdot 23"),
        ("4", "5=4"),
        ("4", "4_0"),
        ("4", "4!"),
        ("4", r"4 \pm 1"),
        ("4", r"\{4\}"),
        ("4", "4 or 5"),
        ("12", "x=1=2"),
        ("10", r"10\%"),
        (r"\frac{1}{3}", "0.333333"),
        ("(1,2)", "(2,1)"),
        ("(1,2)", "[1,2]"),
        ("(1,2]", "(1,2)"),
        ("(1,2)", r"\{1,2\}"),
        (r"(1,\sqrt{2})", r"(2,\sqrt{2})"),
        ("1,2", "1,3"),
        ("1,2", "1,2,2"),
        (r"\{1,\sqrt{4}\}", r"\{3,\sqrt{4},5\}"),
        (r"\text{east}", r"\text{west}"),
        (r"\text{(A)}", "A, B"),
        ("52_8", "52"),
        (r"\infty", "4"),
        ("3, 125", "3125"),
        ("x=2, y=3", "x=3, y=2"),
        (r"15\text{ cm}", r"15\text{ m}"),
        (r"\frac{1}{2^{60}}", r"\frac{1}{2^{61}}"),
    ],
)
def test_other_values(gold: str, answer: str) -> None:
    assert equal_texts(gold, answer) is False


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"2\sqrt{2}", r"\sqrt{8}"),
        (r"\sqrt{2}", "1.41421356"),
        ("p-q", "-q+p"),
        (r"(0,\frac{\pi}{2})", r"(0,\pi/2)"),
        (r"\{1,\sqrt{8}\}", r"\{2\sqrt{2},1\}"),
    ],
)
def test_what_only_algebra_can_tell(gold: str, answer: str) -> None:
    assert equal_texts(gold, answer) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "$$", "1 2", "}", "{", r"\frac{1}", r"\frac", "(1,2", "(1,2))"),
        *(
            ")1(",
            r"\text",
            r"\text{a",
            "4\u200b",
            "4\u0000",
            "\u202e4",
            "٤",
            "x" * 1001,
        ),
        *("{" * 2000 + "4" + "}" * 2000, r"\frac{" * 300 + "1" + "}{2}" * 300),
        *("()", "(,)", ",", "1,,2", "04", r"x \in 4", r"2\text{ million}"),
        *(r"\begin{cases} 1 \end{cases}", r"\int x", r"1/2\%", r"1 \pm 2 \pm 3"),
    ],
)
def test_what_is_not_in_the_grammar(text: str) -> None:
    with pytest.raises(Refused):
        parse_answer(text)


def test_the_switches_of_the_policy() -> None:
    leading, number = AnswerPolicy(leading_zeros=True), AnswerPolicy(percent="number")
    assert equal_texts("25", "025", leading)
    assert equal_texts("10", r"10\%", number)
    assert not equal_texts("0.1", r"10\%", number)
    with pytest.raises(Refused):
        equal_texts("9/5", r"1\frac45", AnswerPolicy(mixed_numbers=False))
    strict = AnswerPolicy(inequality_as_interval=False)
    assert equal_texts("[0,1]", r"0 \leq x \leq 1", strict) is False
    assert equal_texts(r"x > 0", r"0 < x", strict)
    with pytest.raises(ValueError, match="percent must be 'fraction' or 'number'"):
        AnswerPolicy(percent="tenth")


def test_numbers_too_large_for_arithmetic_are_not_decided() -> None:
    tower = parse_answer("9^{9^{9}}").tree  # type: ignore[union-attr]
    assert exactly_same(parse_answer("2^{3}").tree, tower) is None  # type: ignore[union-attr]
    assert equal_texts("4", "9^{9^{9}}") is False
