"""Likelihood losses."""

import numpy as np
import pytest

from jaxrl_reason.losses import batch_counts, nll, sequence_mean, token_mean
from tests.losses.worked import EXAMPLES, MASK, NEW, close


def test_worked_numbers() -> None:
    tokens, counts = nll(NEW, MASK), batch_counts(MASK)
    close(tokens, np.where(MASK, -NEW, 0))
    close(token_mean(tokens, MASK, counts), EXAMPLES["sft.nll"])
    close(sequence_mean(tokens, MASK, counts), EXAMPLES["sft.seq"])


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"mask \[4, 3\]"):
        nll(NEW, MASK[:, :3])
    with pytest.raises(ValueError, match="logprobs must be a floating array"):
        nll(MASK, MASK)
