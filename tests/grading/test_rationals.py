"""Numbers of models: one text each, and what is no number."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl_reason.grading.rationals import canonical_number, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("72", "72"),
        (" -72\n", "-72"),
        ("+72", "72"),
        ("1,234,567", "1234567"),
        ("12.50", "25/2"),
        (".5", "1/2"),
        ("5.", "5"),
        ("18.00", "18"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("6/4", "3/2"),
        ("-6/4", "-3/2"),
        ("25%", "1/4"),
        ("4.0", "4"),
        ("0.042", "21/500"),
        ("1,234.5", "2469/2"),
    ],
)
def test_numbers_have_one_text(text: str, expected: str) -> None:
    assert canonical_number(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "-",
            ".",
            "1e400",
            "1e-1000000000",
            "inf",
            "nan",
            "0x10",
            "4_0",
            "٤",
            "４",
        ),
        *("4,5", "1,23", "1,2345", ",123", "0,123", "04", "00", "1 2", "4 or 5", "4+0"),
        *("1/0", "1/0.0", "0.5/2", "1/0.5", "1/2%", "1/2/3", "--4", "4-", "18 dollars"),
        *("4\u200b", "4\u0000", "\u202e4\u202c", "½", "²", "1" + "0" * 100 + "/2"),
    ],
)
def test_what_is_not_just_a_number_is_refused(text: str) -> None:
    assert canonical_number(text) is None


def test_leading_zeros_are_read_where_they_are_asked_for() -> None:
    assert canonical_number("025", leading_zeros=True) == "25"
    assert canonical_number("000", leading_zeros=True) == "0"


@given(st.fractions(max_denominator=10**9))
def test_fractions_keep_their_value(value: Fraction) -> None:
    assert canonical_number(str(value)) == str(value)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6))
def test_decimals_keep_their_value(value: object) -> None:
    assert canonical_number(f"{value:f}") == str(Fraction(str(value)))


def test_thousands_of_digits_are_compared_as_digits() -> None:
    # int() refuses more than 4300 digits, and is quadratic below.
    assert canonical_number("7" * 5000) == "7" * 5000
    assert canonical_number("-" + "7" * 5000 + ".50") == "-" + "7" * 5000 + ".5"
    assert canonical_number("7" * 5000) != canonical_number("7" * 4999 + "8")


def test_ten_megabytes_take_linear_time() -> None:
    for text in ("9" * 10**7, "9" + ",999" * 10**6, "1/" + "9" * 10**6):
        start = time.monotonic()
        canonical_number(text)
        canonical_number(text + "x")
        assert time.monotonic() - start < 5


def test_long_texts_are_cut_for_logs() -> None:
    assert shown("7" * 100) == "7" * 100
    assert shown("7" * 101) == "7" * 100 + " (... 101 characters)"
