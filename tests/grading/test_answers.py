"""Where the final answer stands."""

import re
import time

import pytest

from jaxrl_reason.grading.answers import boxes, every_box, last_number, marked_answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("work\n#### 72", "72"),
        ("####72\nthanks", "72"),
        ("#### 5\n#### 7", "7"),
        ("#### 1,234", "1,234"),
        (r"\boxed{5} no wait, \boxed{4}", "4"),
        (r"\boxed {4}", "4"),
        (r"#### 4 and \boxed{5}", "5"),
        ("\\boxed{5}\n#### 4", "4"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\left\{1\right.}", r"\left\{1\right."),
        (r"\boxed{\boxed{4}}", "4"),
        ("The answer is 4.", None),
        (r"\boxed{}", None),
        (r"\boxed{ }", None),
        (r"\boxed{4", None),
        (r"\boxed{3} \boxed{4", None),
        (r"\boxed 4", "4"),
        (r"\boxed 42.", "42"),
        (r"\boxed x", "x"),
        (r"\fbox{4}", "4"),
        (r"\boxed{4} \boxed", None),
        (r"\boxed{4 + \boxed{3}}", r"4 + \boxed{3}"),
        ("\\boxed{4}\n#### Conclusion", "4"),
        ("\\boxed{4}\n#### None", "None"),
        ("#### 4\n#### Note", "4"),
        ("#### Answer", "Answer"),
        (r"\boxedx{4}", None),
        ("####", None),
        ("", None),
    ],
)
def test_the_last_mark_counts(text: str, expected: str | None) -> None:
    assert marked_answer(text) == expected


def test_all_boxes() -> None:
    text = r"\boxed{1}, \boxed{\frac{1}{2}} and \boxed{\boxed{3}}"
    assert boxes(text) == ["1", r"\frac{1}{2}", "3"]
    assert every_box(text) == r"1, \frac{1}{2}, 3"
    assert every_box(r"\boxed{1} \boxed{2") is None
    assert every_box("no box") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 + 4 = 7", "7"),
        ("3 + 4 = 7\nSo it is 8.\n\n", "8"),
        ("The sum is 1,234.", "1,234"),
        ("The answer is $7.50.", "7.50"),
        ("= -7", "-7"),
        ("-7", "-7"),
        ("10-7", "7"),
        ("10 - 7", "7"),
        ("10 - -7", "-7"),
        ("**52**", "52"),
        ("1/2", "1/2"),
        ("50%", "50%"),
        ("seven\n", None),
        ("7\nI hope that helps!", None),
        ("", None),
    ],
)
def test_the_last_number_of_the_last_line(text: str, expected: str | None) -> None:
    assert last_number(text) == expected


MEGABYTES = [
    r"\boxed{" * 200_000,
    "####" * 300_000,
    "#### x\n" * 200_000,
    r"\boxed{\boxed{4}}" * 50_000,
    r"\boxed{" + "{" * 10**6,
    r"\boxed{" + "9" * 10**6 + "}",
    "1," * 500_000,
    "9" * 10**6 + "x",
]


@pytest.mark.parametrize("text", MEGABYTES, ids=range(len(MEGABYTES)))
def test_time_is_linear(text: str) -> None:
    start = time.monotonic()
    marked_answer(text)
    last_number(text)
    assert time.monotonic() - start < 3


def test_the_usual_regex_is_quadratic() -> None:
    # The faulty form: from every opening it runs to the end of the text.
    def seconds(text: str) -> float:
        start = time.perf_counter()
        re.findall(r"\\boxed\{(.*?)\}", text)
        return time.perf_counter() - start

    one, four = (min(seconds(r"\boxed{" * n) for _ in range(3)) for n in (500, 2000))
    assert four > 6 * one
