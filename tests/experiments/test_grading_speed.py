"""The speed of grading: its answers are right and wrong as they should be."""

import random

from experiments.benchmarks import grading_speed


def test_its_answers_are_judged():
    rng = random.Random(0)
    assert grading_speed.graded(grading_speed.numbers(rng, 40)) == "24 of 40 right"
    pairs = grading_speed.expressions(rng, 10)
    # Every fifth expression is another value.
    assert grading_speed.graded(pairs) == "8 of 10 right"
