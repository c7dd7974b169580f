"""Likelihood losses."""

import numpy as np
import pytest

from jaxrl_reason.losses import batch_counts, nll, sequence_mean, token_mean
from tests.losses.worked import EXAMPLES, MASK, NEW, OLD, close


def test_worked_numbers() -> None:
    tokens, counts = nll(NEW, MASK), batch_counts(MASK)
    close(tokens, np.where(MASK, -NEW, 0))
    close(token_mean(tokens, MASK, counts), EXAMPLES["sft.nll"])
    close(sequence_mean(tokens, MASK, counts), EXAMPLES["sft.seq"])


def test_worked_estimate_of_the_entropy() -> None:
    # The mean of -log p over what was sampled estimates the entropy; as a loss it is
    # none, its expected gradient is 0.
    tokens = nll(OLD, MASK)
    close(token_mean(tokens, MASK, batch_counts(MASK)), EXAMPLES["ent_mc"])


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"mask \[4, 3\]"):
        nll(NEW, MASK[:, :3])
    with pytest.raises(ValueError, match="logprobs must be a floating array"):
        nll(MASK, MASK)
