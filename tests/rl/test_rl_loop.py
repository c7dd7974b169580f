"""Rows, evaluations, interrupts; a resumed run is the run that was never stopped."""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
from functools import partial

import jax
import numpy as np
import pytest

from jaxrl_reason.data.pipeline import ProblemStream
from jaxrl_reason.learner.sft import SFTSettings, build_sft_learner
from jaxrl_reason.learner.sft_loop import mean_row, resume_sft, train_sft
from jaxrl_reason.learner.state import init_state
from jaxrl_reason.rl.heldout import build_heldout_evaluation
from jaxrl_reason.rl.recipes import RECIPES
from jaxrl_reason.rl.recipes.ppo import ppo
from jaxrl_reason.rl.rl_loop import resume_rl, save_rl, train_rl
from jaxrl_reason.runs.checkpoints import CheckpointError, CheckpointFolder
from jaxrl_reason.runs.hooks import Hooks
from jaxrl_reason.runs.metrics import MetricsLog, read_metrics, truncate_after
from jaxrl_reason.runs.profile import StepProfile
from tests.rl.helpers import (
    OPTIMIZER,
    SETTINGS,
    VOCAB,
    LuckyTask,
    Toy,
    copied,
    fake_rollouts,
    first_policy,
    one_device,
    same_trees,
    tiny_model,
    toy_dapo,
    toy_learner,
    toy_state,
)

STEPS = 6
FINGERPRINT = {"model": "tiny", "steps": STEPS}


class Progress:
    """Keeps what a bar would show."""

    def __init__(self):
        self.steps = []

    def update(self, step, row):
        self.steps.append(step)


class Interrupt:
    """Somebody presses Ctrl-C while a certain step runs."""

    def __init__(self, progress, after):
        self.progress, self.after = progress, after

    @property
    def requested(self):
        return self.after is not None and len(self.progress.steps) >= self.after


def hooks(path, *, stop_after=None, save_every=2, name="metrics", **more):
    progress = Progress()
    return Hooks(
        log=MetricsLog(path, tensorboard=False, name=name),
        checkpoints=CheckpointFolder(path / "checkpoints", keep=9),
        fingerprint=FINGERPRINT,
        progress=progress,
        interrupt=Interrupt(progress, stop_after),
        save_every=save_every,
        **more,
    )


def stream():
    return ProblemStream([Toy(i) for i in range(50)], batch_size=4, seed=3)


class SampleLog:
    """A sampler that keeps every token it gave out."""

    def __init__(self, sample):
        self.sample, self.tokens = sample, []

    def __call__(self, *args):
        done = self.sample(*args)
        self.tokens.append(np.asarray(done.tokens))
        return done


@pytest.fixture(scope="module")
def learner():
    settings = dataclasses.replace(SETTINGS, steps=STEPS)
    return toy_learner(toy_dapo(), settings)


@dataclasses.dataclass
class Ran:
    state: object
    tokens: list
    rows: list
    checkpoints: CheckpointFolder


def run_rl(learner, path, *, state=None, problems=None, **options):
    """Runs the loop; rows without what the clock says."""
    problems = problems or stream()
    sample = SampleLog(learner.sample)
    used = hooks(path, **options)
    with used.log:
        state = train_rl(
            dataclasses.replace(learner, sample=sample),
            state or toy_state(learner),
            problems,
            used,
        )
    rows = timeless(read_metrics(path / "metrics.jsonl"))
    return Ran(state, sample.tokens, rows, used.checkpoints)


def timeless(rows):
    return [
        {
            name: value
            for name, value in row.items()
            if not name.startswith("time/") and not name.endswith("_per_s")
        }
        for row in rows
    ]


def resume(learner, path, *, step=None, change=None, **options):
    """What a new process does to go on with the run in a folder."""
    problems = stream()
    checkpoints = CheckpointFolder(path / "checkpoints", keep=9)
    state = resume_rl(checkpoints, FINGERPRINT, toy_state(learner), problems, step)
    truncate_after(path / "metrics.jsonl", state.step)
    if change is not None:
        state, problems = change(state, problems)
    return run_rl(learner, path, state=state, problems=problems, **options)


@pytest.fixture(scope="module")
def straight(learner, tmp_path_factory):
    """The run that nobody stops; checkpoints after every step."""
    return run_rl(learner, tmp_path_factory.mktemp("straight"), save_every=1)


def test_the_straight_run_is_worth_resuming(straight):
    assert [row["step"] for row in straight.rows] == list(range(1, STEPS + 1))
    assert any(row["groups/surplus"] for row in straight.rows[:-1])
    assert any(row["groups/rounds"] > 1 for row in straight.rows)
    assert straight.checkpoints.steps() == list(range(1, STEPS + 1))
    assert straight.state.step == STEPS


def test_rows_have_what_the_loop_measures(learner, tmp_path):
    used = hooks(tmp_path, profile=StepProfile(3, tmp_path / "profile"))
    with used.log:
        train_rl(learner, toy_state(learner), stream(), used)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert used.progress.steps == list(range(1, STEPS + 1))
    for row in rows:
        phases = [row[f"time/{name}_s"] for name in ("rollout", "grade", "train")]
        assert all(seconds > 0 for seconds in phases)
        assert sum(phases) <= row["time/step_s"]
        assert row["train/tokens"] <= SETTINGS.sequences * SETTINGS.max_new_tokens
        assert (
            row["rollout/tokens"] >= row["train/tokens"] or row["groups/surplus"] >= 0
        )
        for phase in ("rollout", "train"):
            rate = row[f"{phase}/tokens"] / row[f"time/{phase}_s"]
            assert row[f"{phase}/tokens_per_s"] == pytest.approx(rate)
        assert "heldout/accuracy" not in row
    assert [row["time/compiles"] for row in rows[2:]] == [0] * (STEPS - 2)
    # save_every=2, and the last step is saved in any case.
    assert used.checkpoints.steps() == [2, 4, 6]
    assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1


def test_an_evaluation_does_not_disturb_the_training(learner, straight, tmp_path):
    # Trap 43.
    evaluation = build_heldout_evaluation(
        tiny_model(),
        LuckyTask(),
        [Toy(1000 + i) for i in range(6)],
        num_samples=SETTINGS.group_size,
        temperature=1.0,
        max_new_tokens=SETTINGS.max_new_tokens,
        prompt_width=SETTINGS.prompt_width,
        batch_size=16,
        seed=0,
        batch_sharding=one_device(),
    )
    evaluation = dataclasses.replace(evaluation, sample=learner.sample)
    shown = []
    ran = run_rl(
        learner,
        tmp_path,
        evaluate=lambda params: {"heldout/accuracy": evaluation.accuracy(params)},
        evaluate_every=4,
        show_samples=lambda step, rollouts: shown.append((step, rollouts)),
    )
    found = {r["step"]: r.pop("heldout/accuracy", None) for r in ran.rows}
    assert [step for step, value in found.items() if value is not None] == [4, 6]
    assert 0 < found[6] < 1
    assert [step for step, _ in shown] == [4, 6]
    assert shown[1][1].num_prompts == ran.rows[-1]["groups/sampled"]
    assert_same_run(ran, straight)


def test_the_docs_name_every_metric_and_no_other(learner, tmp_path, root):
    used = hooks(
        tmp_path, evaluate=lambda _: {"heldout/accuracy": 0.5}, evaluate_every=2
    )
    with used.log:
        train_rl(learner, toy_state(learner), stream(), used)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    page = (root / "docs" / "runs.md").read_text("utf-8")
    section = page.split("## metrics.jsonl")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line[:3] == "| `"]
    documented = set(re.findall(r"`([\w/]+)`", " ".join(cells)))
    # Of other methods than DAPO, of runs in stages and of serving engines.
    others = ("critic/", "reward_model/", "controller/", "data/")
    elsewhere = {name for name in documented if name.startswith(others)}
    elsewhere |= {"policy/clip_fraction_dual", "policy/kl", "policy/reference_kl_k1"}
    elsewhere |= {f"policy/{name}_{k}" for name in ("loss", "weight") for k in (0, 1)}
    elsewhere |= {"policy/gradient_conflict_fraction", "time/weight_sync_s"}
    elsewhere |= {"run/stage", "groups/surplus_dropped"}
    assert set().union(*rows) - {"step"} == documented - elsewhere


def test_an_evaluation_that_draws_from_the_trainings_stream_would(
    learner, straight, tmp_path
):
    # Trap 43, kept as a mutant.
    problems = stream()

    def evaluate(params):
        next(problems)
        return {}

    ran = run_rl(
        learner, tmp_path, problems=problems, evaluate=evaluate, evaluate_every=2
    )
    with pytest.raises(AssertionError):
        assert_same_run(ran, straight)


def assert_same_run(ran, straight):
    assert ran.rows == straight.rows
    assert len(ran.tokens) == len(straight.tokens)
    assert all(map(np.array_equal, ran.tokens, straight.tokens))
    assert same_trees(ran.state.policy, straight.state.policy)
    assert ran.state.draws == straight.state.draws


def with_surplus(straight):
    """A step that leaves groups for the next one, and is not the last."""
    return next(row["step"] for row in straight.rows[:-1] if row["groups/surplus"])


def test_an_interrupted_run_resumes_as_if_nothing_had_been(learner, straight, tmp_path):
    stop = with_surplus(straight)
    first = run_rl(learner, tmp_path, stop_after=stop, save_every=100)
    assert first.state.step == stop
    assert first.checkpoints.steps() == [stop]
    assert first.state.surplus is not None
    second = resume(learner, tmp_path)
    second.tokens = first.tokens + second.tokens
    assert_same_run(second, straight)


@pytest.mark.parametrize(
    "forget",
    [
        lambda state, problems: (state.replace(surplus=None), problems),
        lambda state, problems: (state.replace(draws=0), problems),
        lambda state, problems: (state, stream()),
        lambda state, problems: (
            state.replace(
                policy=init_state(state.policy.params, OPTIMIZER.build(), copy=True)
            ),
            problems,
        ),
    ],
    ids=["surplus", "random numbers", "stream", "optimiser"],
)
def test_a_resume_that_forgets_something_would_not(learner, straight, tmp_path, forget):
    # Trap 40, kept as mutants.
    stop = with_surplus(straight)
    first = run_rl(learner, tmp_path, stop_after=stop, save_every=100)
    second = resume(learner, tmp_path, change=forget)
    second.tokens = first.tokens + second.tokens
    with pytest.raises(AssertionError):
        assert_same_run(second, straight)


def test_every_checkpoint_is_a_place_to_go_on_from(learner, straight, tmp_path):
    run_rl(learner, tmp_path, save_every=1)
    for step in (4, 1):
        ran = resume(learner, tmp_path, step=step, save_every=1)
        ran.tokens = straight.tokens[: -len(ran.tokens)] + ran.tokens
        assert_same_run(ran, straight)
        assert ran.checkpoints.steps() == list(range(1, STEPS + 1))


def test_a_finished_run_resumes_to_its_end_and_writes_nothing(learner, tmp_path):
    first = run_rl(learner, tmp_path)
    again = resume(learner, tmp_path)
    assert again.tokens == []
    assert again.rows == first.rows
    assert same_trees(again.state.policy, first.state.policy)


def test_an_interrupt_before_the_first_step_leaves_a_checkpoint(learner, tmp_path):
    ran = run_rl(learner, tmp_path, stop_after=0)
    assert ran.checkpoints.steps() == [0]
    assert ran.rows == []
    assert resume(learner, tmp_path).state.step == STEPS


def test_a_run_of_other_settings_is_refused(learner, tmp_path):
    ran = run_rl(learner, tmp_path, stop_after=1)
    with pytest.raises(CheckpointError, match="model: saved tiny, asked large"):
        resume_rl(
            ran.checkpoints,
            FINGERPRINT | {"model": "large"},
            toy_state(learner),
            stream(),
        )


def test_a_critic_and_its_optimiser_are_saved_too(tmp_path):
    learner = toy_learner(ppo())
    state = toy_state(learner)
    moved = jax.tree.map(lambda x: x + 1, state.models)
    state = state.replace(models=moved, step=3, draws=5)
    used, problems = hooks(tmp_path), stream()
    with used.log:
        save_rl(used, state, problems)
    fresh = toy_state(learner)
    found = resume_rl(used.checkpoints, FINGERPRINT, fresh, stream())
    assert set(moved) == {"critic"}
    assert same_trees(found.models, moved)
    assert (found.step, found.draws, found.surplus) == (3, 5, None)


def test_a_reward_model_and_the_state_of_a_controller_are_saved_too(tmp_path):
    prime, skywork = (
        RECIPES[name].build(SETTINGS.max_new_tokens)
        for name in ("prime", "skywork_or1")
    )
    components = (*prime.components, *skywork.components)
    method = dataclasses.replace(prime, components=components)
    learner = toy_learner(method)
    state = toy_state(learner)
    moved = jax.tree.map(lambda x: x + 1, state.models)
    controls = {"entropy_bonus": 0.25, "entropy_coef": 0.0}
    surplus = dataclasses.replace(
        fake_rollouts([[0, 1, 0, 1]]),
        extras={
            "greedy_rewards": np.full((1, 4), 0.5, np.float32),
            "reward_components": np.ones((1, 4, 2), np.float32),
        },
    )
    state = state.replace(models=moved, controls=controls, surplus=surplus)
    used, problems = hooks(tmp_path), stream()
    with used.log:
        save_rl(used, state, problems)
    found = resume_rl(used.checkpoints, FINGERPRINT, toy_state(learner), stream())
    assert set(moved) == {"reward_model"}
    assert same_trees(found.models, moved)
    assert found.controls == controls
    assert same_trees(found.surplus, surplus)


KILLED = """
import os, pathlib, signal, sys
from tests.rl.test_rl_loop import *

path = pathlib.Path(sys.argv[1])
move = CheckpointFolder._move_into_place

def move_or_die(self, temporary, step):
    if step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return move(self, temporary, step)

CheckpointFolder._move_into_place = move_or_die
settings = dataclasses.replace(SETTINGS, steps=STEPS)
run_rl(toy_learner(toy_dapo(), settings), path)
"""


def test_a_run_killed_while_it_saves_resumes(learner, straight, tmp_path, root):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        cwd=root,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    # The fourth row was written, the fourth checkpoint was not.
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 4
    assert CheckpointFolder(tmp_path / "checkpoints").steps() == [2]
    ran = resume(learner, tmp_path)
    ran.tokens = straight.tokens[: -len(ran.tokens)] + ran.tokens
    assert_same_run(ran, straight)
    assert len(read_metrics(tmp_path / "metrics.dropped.jsonl")) == 2


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


def run_sft(learner, path, *, state=None, source=examples, **options):
    used = hooks(path, name="sft", log_every=2, **options)
    with used.log:
        state = train_sft(learner, state or init_sft(), source, used)
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
    state = resume_sft(first.checkpoints, FINGERPRINT, init_sft())
    second = run_sft(sft_learner, tmp_path, state=state)
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
    state = resume_sft(checkpoints, FINGERPRINT, init_sft())
    assert int(state.step) == 4
    truncate_after(tmp_path / "sft.jsonl", 4)
    again = run_sft(sft_learner, tmp_path, state=state)
    assert again.rows == sft_run.rows
    assert same_trees(again.state, sft_run.state)


def test_other_examples_after_a_resume_would_show(sft_learner, sft_run, tmp_path):
    # Trap 40, kept as a mutant: the data starts from the beginning again.
    first = run_sft(sft_learner, tmp_path, stop_after=2, save_every=100)
    state = resume_sft(first.checkpoints, FINGERPRINT, init_sft())
    forgetful = partial(lambda update, shift: examples(update - shift), shift=4)
    second = run_sft(sft_learner, tmp_path, state=state, source=forgetful)
    assert not same_trees(second.state, sft_run.state)


def test_a_row_is_the_mean_over_its_updates():
    pending = [
        {"loss": (2.0, 1.0), "grad_norm": (0.0, 0.0)},  # a skipped update
        {"loss": (4.0, 1.0), "grad_norm": (5.0, 1.0)},
    ]
    assert mean_row(pending) == {"sft/loss": 3.0, "sft/grad_norm": 5.0}
