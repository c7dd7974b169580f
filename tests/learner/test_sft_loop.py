"""The loop of supervised fine-tuning: rows, and that it resumes."""

import contextlib
import dataclasses
from functools import partial

import numpy as np
import pytest

from jaxrl_reason.learner.sft import SFTSettings, build_sft_learner
from jaxrl_reason.learner.sft_loop import mean_row, resume_sft, train_sft
from jaxrl_reason.learner.state import init_state
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.metrics_log import read_metrics, truncate_after
from jaxrl_reason.runs.update_guard import NotFiniteError, UpdateGuard
from tests.rl.helpers import (
    OPTIMIZER,
    VOCAB,
    copied,
    first_policy,
    one_device,
    same_trees,
    tiny_model,
)
from tests.rl.loop_helpers import (
    FINGERPRINT,
    GivenUp,
    Held,
    Ran,
    hooks,
    timeless,
)

SUPERVISED = SFTSettings(
    updates=6,
    examples_per_update=8,
    rows_per_micro_batch=2,
    row_width=20,
    slots_per_row=4,
    max_response=6,
)


def examples(update, *, size=8):
    rng = np.random.default_rng((0, update))
    prompts = [rng.integers(3, VOCAB, rng.integers(1, 4)) for _ in range(size)]
    return [(prompt, rng.integers(7, 10, rng.integers(2, 7))) for prompt in prompts]


@pytest.fixture(scope="module")
def sft_learner():
    return build_sft_learner(tiny_model(), SUPERVISED, OPTIMIZER, one_device())


def init_sft():
    return init_state(first_policy().params, OPTIMIZER.build(), copy=True)


def run_sft(learner, path, *, state=None, source=examples, at=None, **options):
    used = hooks(path, name="sft", log_every=2, **options)
    with used.log:
        state = train_sft(learner, state or init_sft(), source, used, at)
    rows = timeless(read_metrics(path / "sft.jsonl"))
    return Ran(copied(state), [], rows, used.checkpoints)


@pytest.fixture(scope="module")
def sft_run(sft_learner, tmp_path_factory):
    return run_sft(sft_learner, tmp_path_factory.mktemp("sft_run"))


def test_the_supervised_loop_learns_and_writes_rows(sft_run):
    assert [row["step"] for row in sft_run.rows] == [2, 4, 6]
    assert sft_run.rows[-1]["sft/loss"] < sft_run.rows[0]["sft/loss"]
    names = {"loss", "entropy", "grad_norm", "skipped_update_fraction"}
    names |= {"learning_rate", "tokens"}
    assert sft_run.rows[0].keys() >= {f"sft/{name}" for name in names}
    tokens = sum(len(p) + len(r) for u in (0, 1) for p, r in examples(u))
    assert sft_run.rows[0]["sft/tokens"] == tokens
    assert sft_run.checkpoints.steps() == [2, 4, 6]


def test_supervised_training_resumes_where_it_was_interrupted(
    sft_learner, sft_run, tmp_path
):
    # The bar moves with the rows, every second update: asked to stop after two rows.
    first = run_sft(sft_learner, tmp_path, stop_after=2, save_every=100)
    assert first.checkpoints.steps() == [4]
    state, at = resume_sft(first.checkpoints, FINGERPRINT, init_sft())
    second = run_sft(sft_learner, tmp_path, state=state, at=at)
    assert second.rows == sft_run.rows
    assert same_trees(second.state, sft_run.state)


def test_supervised_training_resumes_after_it_died(sft_learner, sft_run, tmp_path):
    def failing(update):
        if update == 5:
            raise KeyboardInterrupt
        return examples(update)

    with contextlib.suppress(KeyboardInterrupt):
        run_sft(sft_learner, tmp_path, source=failing)
    checkpoints = CheckpointFolder(tmp_path / "checkpoints")
    state, at = resume_sft(checkpoints, FINGERPRINT, init_sft())
    assert int(state.step) == at.step == 4
    truncate_after(tmp_path / "sft.jsonl", 4)
    again = run_sft(sft_learner, tmp_path, state=state, at=at)
    assert again.rows == sft_run.rows
    assert same_trees(again.state, sft_run.state)


def test_other_examples_after_a_resume_would_show(sft_learner, sft_run, tmp_path):
    # Trap 40, kept as a mutant: the data starts from the beginning again.
    first = run_sft(sft_learner, tmp_path, stop_after=2, save_every=100)
    state, at = resume_sft(first.checkpoints, FINGERPRINT, init_sft())
    forgetful = partial(lambda update, shift: examples(update - shift), shift=4)
    second = run_sft(sft_learner, tmp_path, state=state, source=forgetful, at=at)
    assert not same_trees(second.state, sft_run.state)


def test_a_row_is_the_mean_over_its_updates():
    pending = [
        {"loss": (2.0, 1.0), "grad_norm": (0.0, 0.0)},  # a skipped update
        {"loss": (4.0, 1.0), "grad_norm": (5.0, 1.0)},
    ]
    assert mean_row(pending) == {"sft/loss": 3.0, "sft/grad_norm": 5.0}


def test_updates_that_are_all_skipped_end_the_loop(sft_learner, tmp_path):
    state = init_sft()
    params = {**state.params, "embedding": state.params["embedding"] * np.nan}
    state = dataclasses.replace(state, params=params)
    said = r"3 updates of the model in a row .*model/params/embedding .*lost"
    guard = UpdateGuard(3, tmp_path)
    with pytest.raises(NotFiniteError, match=said):
        run_sft(sft_learner, tmp_path, state=state, guard=guard, save_every=100)
    assert (tmp_path / "skipped_model.npz").is_file()
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(("grace", "step"), [(1e-9, 5), (1e9, 4)])
def test_an_update_that_is_given_up(sft_learner, sft_run, tmp_path, grace, step):
    """Slow updates are kept one by one, quick ones end within the grace period."""
    held = Held(grace)

    def source(update):
        if update == 5:
            assert held.save() == step
            raise GivenUp
        return examples(update)

    with pytest.raises(GivenUp):
        run_sft(sft_learner, tmp_path, source=source, interrupt=held)
    checkpoints = CheckpointFolder(tmp_path / "checkpoints")
    state, at = resume_sft(checkpoints, FINGERPRINT, init_sft())
    assert at.step == step
    truncate_after(tmp_path / "sft.jsonl", step)
    again = run_sft(sft_learner, tmp_path, state=state, at=at)
    assert same_trees(again.state, sft_run.state)
    assert again.rows == sft_run.rows  # the last is the mean of both processes' updates


def test_a_skipped_update_counts_in_the_loop_alone(sft_learner, tmp_path):
    calls = []

    def update(state, batch, num_active):
        calls.append(1)
        if len(calls) == 3:
            one = np.float32(1)
            return state, {"skipped_update_fraction": (one, one), "loss": (one, one)}
        return sft_learner.update(state, batch, num_active)

    ran = run_sft(dataclasses.replace(sft_learner, update=update), tmp_path)
    assert int(ran.state.step) == SUPERVISED.updates - 1
    assert ran.checkpoints.steps() == [2, 4, 6]
    state, at = resume_sft(ran.checkpoints, FINGERPRINT, init_sft())
    assert at.step == SUPERVISED.updates
    again = run_sft(sft_learner, tmp_path, state=state, at=at)
    assert same_trees(again.state, ran.state)
    assert again.rows == ran.rows
