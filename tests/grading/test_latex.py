"""Answers that mean the same have one form."""

import pytest

from jaxrl_reason.grading.latex import compare, normal_form
from jaxrl_reason.grading.latex_text import Refused, simplified

EQUAL = [
    [r"\frac{1}{2}", r"\dfrac12", "0.5", ".50", "1/2", r"\frac 12", r"$\tfrac{1}{2}$"],
    [r"-\frac{3}{2}", r"\frac{-3}{2}", r"\frac{3}{-2}", "-1.5", r"-1\frac{1}{2}"],
    ["10080", r"10,\!080", "10,080", r"10{,}080", r"10\,080", r"\$10,080"],
    [r"90^\circ", "90", r"90^{\circ}", "90°", r"90 \text{ degrees}"],
    [r"864 \mbox{ inches}^2", "864", r"864\text{ in}^{2}"],
    [r"(1,2)", r"\left( 1, 2 \right)", r"(1.0,\frac{4}{2})"],
    [r"\{1,2\}", r"\{2,1\}", r"\left\{ 2, 1\right\}", "1, 2", "2,1"],
    [r"1 \pm \sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}", r"\{1-\sqrt{19},1+\sqrt{19}\}"],
    ["x=5", "5", "x = 5"],
    [r"x \in [-2,7]", "[-2,7]"],
    [r"\text{(C)}", "C", "(C)", r"\text{C}"],
    [r"\text{Evelyn}", "Evelyn", "evelyn"],
    [r"11\sqrt2", r"11 \sqrt{2}"],
    ["4210_{5}", "4210_5", r"4210 _5"],
    [r"\frac{\pi}{6}", r"\dfrac\pi6", r"\frac{π}{6}"],
    [r"x^2", "x^{2}"],
]


@pytest.mark.parametrize("texts", EQUAL, ids=lambda texts: texts[0])
def test_forms_that_are_equal(texts: list[str]) -> None:
    forms = {normal_form(text) for text in texts}
    assert None not in forms
    assert len({form.text for form in forms if form}) == 1


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
        (r"\sqrt{2}", "1.41421356"),
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
    ],
)
def test_forms_that_are_surely_different(gold: str, answer: str) -> None:
    first, second = normal_form(gold), normal_form(answer)
    assert first is not None
    assert second is not None
    assert compare(first, second) is False


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"2\sqrt{2}", r"\sqrt{8}"),
        ("p-q", "-q+p"),
        (r"(0,\frac{\pi}{2})", r"(0,\pi/2)"),
        (r"\{1,\sqrt{8}\}", r"\{2\sqrt{2},1\}"),
        (r"(0,9) \cup (9,36)", r"(9,36) \cup (0,9)"),
    ],
)
def test_what_only_algebra_can_tell(gold: str, answer: str) -> None:
    first, second = normal_form(gold), normal_form(answer)
    assert first is not None
    assert second is not None
    assert compare(first, second) is None


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "$$",
            "1 2",
            "}",
            "{",
            r"\frac{1}",
            r"\frac",
            r"\sqrt[3]{2}",
            "(1,2",
        ),
        *("(1,2))", ")1(", r"\text", r"\text{a", "4\u200b", "4\u0000", "\u202e4", "٤"),
        *("{" * 2000 + "4" + "}" * 2000, r"\frac{" * 300 + "1" + "}{2}" * 300),
        *("x" * 5000, "()", "(,)", ",", "1,,2"),
    ],
)
def test_what_has_no_form(text: str) -> None:
    assert normal_form(text) is None


def test_a_zero_below_a_fraction_is_no_number() -> None:
    form = normal_form(r"\frac{1}{0}")
    assert form is not None
    assert not form.number


def test_letters_are_kept_apart_from_commands() -> None:
    assert simplified(r"\pi r^2") == r"\pi r^{2}"
    assert simplified(r"\cot x") == r"\cot x"
    assert simplified(r"2 \pi") == r"2\pi"


def test_two_numbers_side_by_side_are_not_one() -> None:
    with pytest.raises(Refused):
        simplified("1 2")
    assert simplified(r"1 \frac 12") == r"1\frac{1}{2}"
