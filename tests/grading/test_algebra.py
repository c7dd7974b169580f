"""Equality of expressions: to the last digit, relative, and in bounded time."""

import time

import mpmath
import pytest

from jaxrl_reason.grading.algebra import algebraically_equal


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"2\sqrt{2}", r"\sqrt{8}"),
        ("p-q", "-q+p"),
        (r"(3,\frac{\pi}{2})", r"(3,\pi/2)"),
        (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
        (r"(0,9)\cup(9,36)", r"(9,36)\cup(0,9)"),
        ("(a+5)(b+2)", "(b+2)(a+5)"),
        (r"\sqrt[3]{-8x}", r"-2\sqrt[3]{x}"),
        (r"\sqrt{1/n}", r"\frac{1}{\sqrt{n}}"),
        ("6-5i", "-5i+6"),
        (r"\sqrt{-4}", "2i"),
        (r"\log_2 3", r"\frac{\ln 3}{\ln 2}"),
        (r"\frac{\sqrt3}{2}x", r"x\cos(30^\circ)"),
        (r"\sin \pi", r"\sin 2\pi"),
        ("5x - 7y + 4 = 0", "14y = 10x + 8"),
        (r"e^{x^2}", r"\exp(x \cdot x)"),
        (r"\sqrt{1-x^2}", r"\sqrt{(1-x)(1+x)}"),
        (r"\arcsin x", r"\frac{\pi}{2} - \arccos x"),
        (r"(x+1)^{20}", r"((x+1)^{4})^{5}"),
    ],
)
def test_equal(gold: str, answer: str) -> None:
    assert algebraically_equal(gold, answer) is True


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{2}}"),
        ("3R^{2}", "3r^{2}"),
        (r"\frac{\pi}{3}", "1.0471975512"),
        (r"\pi", r"\pi + 10^{-60}"),
        (r"\pi", r"\pi + 10^{-900}"),
        (r"e^{-500}", r"e^{-501}"),
        (r"\pi 10^{-99}", r"2\pi 10^{-99}"),
        (r"\sin(10^{-40})", r"\tan(10^{-40})"),
        ("x", r"\sqrt{x^2}"),
        ("x", "|x|"),
        ("x", r"x \cdot \frac{|x|}{x}"),
        ("5-x", "|x-5|"),
        ("x-9", r"\sqrt{(x-9)^2}"),
        ("xy", r"|x|y"),
        ("x+y", r"((x+y)^{99})(x-y)^{99}"),
        ("x=5", "2x=10"),
        ("5x - 7y + 4 = 0", "0 = 0"),
        ("x+y<4", "x+y>4"),
        (r"\sqrt{2}", "-\\sqrt{2}"),
    ],
)
def test_different(gold: str, answer: str) -> None:
    assert algebraically_equal(gold, answer) is False


def test_an_absolute_comparison_accepts_what_is_different() -> None:
    # The faulty form: two small values that differ by half.
    first, second = mpmath.mpf(2) * 10**-17, mpmath.mpf(7) * 10**-17
    assert mpmath.almosteq(first, second, abs_eps=1e-15)
    assert not algebraically_equal(r"2e \cdot 10^{-17}", r"7e \cdot 10^{-17}")


def test_zero_by_rounding_divides_nothing() -> None:
    # 1 / sin(pi) is some large number at any precision, and another at the next.
    assert algebraically_equal(r"\frac{1}{\sin \pi}", r"\frac{2}{\sin \pi}") is not True


LARGE = [
    *(r"\pi + 99999999!", r"\pi + \binom{1000000}{500000}", r"\pi^{10^{10}}"),
    *(r"e^{e^{e^{e^{e}}}}", r"9^{9^{9^9}}\pi", r"\cosh(10^9)", r"\sqrt[1000000]{\pi}"),
    *(r"\pi" + "^9" * 190, r"\sqrt" * 38 + r"{\pi}", "(x+y)^{2999}", r"\sin(10^{999})"),
    *(r"\pi" + "+1" * 180, "x" + "*(x+1)" * 60, r"\ln" * 38 + " x", r"\exp(x)" * 60),
    "+".join(f"{n}^{{x}}" for n in range(2, 70)),
    "+".join(r"\sin(x^{30})" for _ in range(30)),
]


@pytest.mark.parametrize("text", LARGE, ids=range(len(LARGE)))
def test_time_is_bounded(text: str) -> None:
    start = time.process_time()
    assert algebraically_equal(r"\pi x", text) is not True
    # Against itself with a name more, so that all of it is calculated.
    assert algebraically_equal(f"{text}+a", f"{text}-a") is not True
    assert time.process_time() - start < 2
