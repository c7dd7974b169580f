import dataclasses

import jax
import numpy as np
import pytest

from jaxrl_reason.learner.sft import (
    SFTSettings,
    build_sft_learner,
    pack_examples,
    sft_update,
)
from jaxrl_reason.learner.state import init_state
from jaxrl_reason.runs.metrics_log import finish_metrics
from jaxrl_reason.runs.monitor import CompileCounter
from tests.rl.helpers import OPTIMIZER, first_policy, one_device, tiny_model

SETTINGS = SFTSettings(
    updates=4,
    examples_per_update=6,
    rows_per_micro_batch=2,
    row_width=12,
    slots_per_row=3,
    max_response=8,
)
EXAMPLES = [([3, 4], [7, 8, 1]), ([5], [9, 1]), ([6, 6, 6], [7] * 7 + [1])] * 2


def test_an_update_holds_its_examples_at_their_longest():
    longest = [([3] * 4, [7] * 8)] * 6
    batch, plan = pack_examples(SETTINGS, longest)
    assert plan.num_active == SETTINGS.num_micro == 3
    assert batch.mask.sum() == 48


def test_short_examples_share_rows_and_only_responses_count():
    batch, plan = pack_examples(SETTINGS, EXAMPLES)
    # 5 + 3, twice, and 11, twice: four rows or fewer in place of six.
    assert plan.num_active == 2
    assert batch.mask[plan.micro, plan.slot].sum(1).tolist() == [3, 2, 8] * 2


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (([3], [7] * 9), "a response must have at most 8 tokens, got one of 9"),
        (([3] * 5, [7] * 8), "a row of 12 tokens, got one of 13"),
        (([], [7]), "at least one token, got an empty one"),
    ],
)
def test_an_example_that_does_not_fit_is_refused(example, message):
    with pytest.raises(ValueError, match=message):
        pack_examples(SETTINGS, [*EXAMPLES, example])


@pytest.mark.parametrize(
    "name", [f.name for f in dataclasses.fields(SETTINGS) if f.name != "seed"]
)
def test_settings_are_checked(name):
    with pytest.raises(ValueError, match=f"{name} must be >= [01], got -1"):
        dataclasses.replace(SETTINGS, **{name: -1})
    # What may be left open, for a run to fill in, is refused by the learner.
    with pytest.raises(ValueError, match=f"{name} must be >= 1.*, got 0"):
        build_sft_learner(
            tiny_model(),
            dataclasses.replace(SETTINGS, **{name: 0}),
            OPTIMIZER,
            one_device(),
        )


def test_responses_must_fit_the_context():
    long = dataclasses.replace(SETTINGS, max_response=25)
    with pytest.raises(ValueError, match=r"context_length \(24\), got 25"):
        build_sft_learner(tiny_model(), long, OPTIMIZER, one_device())


def test_updates_lower_the_loss_and_compile_once():
    learner = build_sft_learner(tiny_model(), SETTINGS, OPTIMIZER, one_device())
    state = init_state(first_policy().params, OPTIMIZER.build(), copy=True)
    losses = []
    with CompileCounter() as compiles:
        for i in range(12):
            state, pairs, tokens = sft_update(learner, state, EXAMPLES[: 6 - i % 2])
            losses.append(finish_metrics(pairs)["loss"])
            if i == 0:
                jax.block_until_ready(state)
                mark = compiles.count
    assert compiles.since(mark) == 0
    assert tokens == sum(len(p) + len(r) for p, r in EXAMPLES[:5])
    # About log 12 at first: the model knows nothing.
    assert 1.8 < losses[0] < 3.5
    assert losses[-1] < 0.5 * losses[0]
    assert np.isfinite(losses).all()
