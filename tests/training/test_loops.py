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
from jaxrl_reason.training.checkpoints import CheckpointError, CheckpointFolder
from jaxrl_reason.training.evaluate import build_evaluation
from jaxrl_reason.training.loops import (
    LoopTools,
    mean_row,
    resume_rl,
    resume_supervised,
    save_rl,
    train_rl,
    train_supervised,
)
from jaxrl_reason.training.methods import ppo
from jaxrl_reason.training.metrics import MetricsLog, read_metrics, truncate_after
from jaxrl_reason.training.recipes import RECIPES
from jaxrl_reason.training.state import restart_optimizer
from jaxrl_reason.training.supervised import SupervisedSettings, build_supervised
from tests.training.helpers import (
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
    toy_parts,
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


def tools(path, *, stop_after=None, save_every=2, name="metrics", **more):
    progress = Progress()
    return LoopTools(
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
def parts():
    settings = dataclasses.replace(SETTINGS, steps=STEPS)
    return toy_parts(toy_dapo(), settings)


@dataclasses.dataclass
class Ran:
    state: object
    tokens: list
    rows: list
    checkpoints: CheckpointFolder


def run_rl(parts, path, *, state=None, problems=None, **options):
    """Runs the loop; rows without what the clock says."""
    problems = problems or stream()
    sample = SampleLog(parts.sample)
    used = tools(path, **options)
    with used.log:
        state = train_rl(
            dataclasses.replace(parts, sample=sample),
            state or toy_state(parts),
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
            if "second" not in name and name != "compiles"
        }
        for row in rows
    ]


def resume(parts, path, *, step=None, change=None, **options):
    """What a new process does to go on with the run in a folder."""
    problems = stream()
    checkpoints = CheckpointFolder(path / "checkpoints", keep=9)
    state = resume_rl(checkpoints, FINGERPRINT, toy_state(parts), problems, step)
    truncate_after(path / "metrics.jsonl", state.step)
    if change is not None:
        state, problems = change(state, problems)
    return run_rl(parts, path, state=state, problems=problems, **options)


@pytest.fixture(scope="module")
def straight(parts, tmp_path_factory):
    """The run that nobody stops; checkpoints after every step."""
    return run_rl(parts, tmp_path_factory.mktemp("straight"), save_every=1)


def test_the_straight_run_is_worth_resuming(straight):
    assert [row["step"] for row in straight.rows] == list(range(1, STEPS + 1))
    assert any(row["groups_surplus"] for row in straight.rows[:-1])
    assert any(row["rounds"] > 1 for row in straight.rows)
    assert straight.checkpoints.steps() == list(range(1, STEPS + 1))
    assert straight.state.step == STEPS


def test_rows_have_what_the_loop_measures(parts, tmp_path):
    used = tools(tmp_path)
    with used.log:
        train_rl(parts, toy_state(parts), stream(), used)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert used.progress.steps == list(range(1, STEPS + 1))
    for row in rows:
        phases = [row[f"seconds_{name}"] for name in ("rollout", "grade", "train")]
        assert all(seconds > 0 for seconds in phases)
        assert sum(phases) <= row["seconds_step"]
        assert row["train_tokens"] <= SETTINGS.sequences * SETTINGS.max_new_tokens
        assert (
            row["rollout_tokens"] >= row["train_tokens"] or row["groups_surplus"] >= 0
        )
        for phase in ("rollout", "train"):
            rate = row[f"{phase}_tokens"] / row[f"seconds_{phase}"]
            assert row[f"{phase}_tokens_per_second"] == pytest.approx(rate)
        assert "heldout_accuracy" not in row
    assert [row["compiles"] for row in rows[2:]] == [0] * (STEPS - 2)
    # save_every=2, and the last step is saved in any case.
    assert used.checkpoints.steps() == [2, 4, 6]


def test_an_evaluation_does_not_disturb_the_training(parts, straight, tmp_path):
    # Trap 43.
    evaluation = build_evaluation(
        tiny_model(),
        LuckyTask(),
        [Toy(1000 + i) for i in range(6)],
        num_samples=SETTINGS.group_size,
        temperature=1.0,
        max_new_tokens=SETTINGS.max_new_tokens,
        prompt_width=SETTINGS.prompt_width,
        batch_size=16,
        seed=0,
        place=one_device(),
    )
    evaluation = dataclasses.replace(evaluation, sample=parts.sample)
    shown = []
    ran = run_rl(
        parts,
        tmp_path,
        evaluate=lambda params: {"heldout_accuracy": evaluation.accuracy(params)},
        evaluate_every=4,
        show_samples=lambda step, rollouts: shown.append((step, rollouts)),
    )
    found = {r["step"]: r.pop("heldout_accuracy", None) for r in ran.rows}
    assert [step for step, value in found.items() if value is not None] == [4, 6]
    assert 0 < found[6] < 1
    assert [step for step, _ in shown] == [4, 6]
    assert shown[1][1].num_prompts == ran.rows[-1]["groups_generated"]
    assert_same_run(ran, straight)


def test_the_docs_name_every_metric_and_no_other(parts, tmp_path, root):
    used = tools(
        tmp_path, evaluate=lambda _: {"heldout_accuracy": 0.5}, evaluate_every=2
    )
    with used.log:
        train_rl(parts, toy_state(parts), stream(), used)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    page = (root / "docs" / "runs.md").read_text("utf-8")
    section = page.split("## metrics.jsonl")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line[:3] == "| `"]
    documented = set(re.findall(r"`(\w+)`", " ".join(cells)))
    # Of other methods than DAPO, of runs in stages and of serving engines.
    others = ("critic_", "reward_model_", "loss_", "weight_")
    elsewhere = {name for name in documented if name.startswith(others)}
    elsewhere |= {"clip_frac_dual", "kl", "reference_k1", "explained_variance"}
    elsewhere |= {"entropy_coef", "entropy_bonus", "kl_coef", "conflicts"}
    elsewhere |= {"stage", "surplus_dropped", "problems_active", "problems_pool"}
    elsewhere |= {"seconds_hand_over"}
    assert set().union(*rows) - {"step"} == documented - elsewhere


def test_an_evaluation_that_draws_from_the_trainings_stream_would(
    parts, straight, tmp_path
):
    # Trap 43, kept as a mutant.
    problems = stream()

    def evaluate(params):
        next(problems)
        return {}

    ran = run_rl(
        parts, tmp_path, problems=problems, evaluate=evaluate, evaluate_every=2
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
    return next(row["step"] for row in straight.rows[:-1] if row["groups_surplus"])


def test_an_interrupted_run_resumes_as_if_nothing_had_been(parts, straight, tmp_path):
    stop = with_surplus(straight)
    first = run_rl(parts, tmp_path, stop_after=stop, save_every=100)
    assert first.state.step == stop
    assert first.checkpoints.steps() == [stop]
    assert first.state.surplus is not None
    second = resume(parts, tmp_path)
    second.tokens = first.tokens + second.tokens
    assert_same_run(second, straight)


@pytest.mark.parametrize(
    "forget",
    [
        lambda state, problems: (state.replace(surplus=None), problems),
        lambda state, problems: (state.replace(draws=0), problems),
        lambda state, problems: (state, stream()),
        lambda state, problems: (
            state.replace(policy=restart_optimizer(state.policy, OPTIMIZER.build())),
            problems,
        ),
    ],
    ids=["surplus", "random numbers", "stream", "optimiser"],
)
def test_a_resume_that_forgets_something_would_not(parts, straight, tmp_path, forget):
    # Trap 40, kept as mutants.
    stop = with_surplus(straight)
    first = run_rl(parts, tmp_path, stop_after=stop, save_every=100)
    second = resume(parts, tmp_path, change=forget)
    second.tokens = first.tokens + second.tokens
    with pytest.raises(AssertionError):
        assert_same_run(second, straight)


def test_every_checkpoint_is_a_place_to_go_on_from(parts, straight, tmp_path):
    run_rl(parts, tmp_path, save_every=1)
    for step in (4, 1):
        ran = resume(parts, tmp_path, step=step, save_every=1)
        ran.tokens = straight.tokens[: -len(ran.tokens)] + ran.tokens
        assert_same_run(ran, straight)
        assert ran.checkpoints.steps() == list(range(1, STEPS + 1))


def test_a_finished_run_resumes_to_its_end_and_writes_nothing(parts, tmp_path):
    first = run_rl(parts, tmp_path)
    again = resume(parts, tmp_path)
    assert again.tokens == []
    assert again.rows == first.rows
    assert same_trees(again.state.policy, first.state.policy)


def test_an_interrupt_before_the_first_step_leaves_a_checkpoint(parts, tmp_path):
    ran = run_rl(parts, tmp_path, stop_after=0)
    assert ran.checkpoints.steps() == [0]
    assert ran.rows == []
    assert resume(parts, tmp_path).state.step == STEPS


def test_a_run_of_other_settings_is_refused(parts, tmp_path):
    ran = run_rl(parts, tmp_path, stop_after=1)
    with pytest.raises(CheckpointError, match="model: saved tiny, asked large"):
        resume_rl(
            ran.checkpoints,
            FINGERPRINT | {"model": "large"},
            toy_state(parts),
            stream(),
        )


def test_a_critic_and_its_optimiser_are_saved_too(tmp_path):
    parts = toy_parts(ppo())
    state = toy_state(parts)
    moved = jax.tree.map(lambda x: x + 1, state.critic)
    state = state.replace(critic=moved, step=3, draws=5)
    used, problems = tools(tmp_path), stream()
    with used.log:
        save_rl(used, state, problems)
    fresh = toy_state(parts)
    found = resume_rl(used.checkpoints, FINGERPRINT, fresh, stream())
    assert same_trees(found.critic, moved)
    assert (found.step, found.draws, found.surplus) == (3, 5, None)


def test_a_reward_model_and_the_state_of_a_controller_are_saved_too(tmp_path):
    method = dataclasses.replace(
        RECIPES["prime"].build(SETTINGS.max_new_tokens),
        controller=RECIPES["skywork_or1"].build(SETTINGS.max_new_tokens).controller,
    )
    parts = toy_parts(method)
    state = toy_state(parts)
    moved = jax.tree.map(lambda x: x + 1, state.reward_model)
    controls = {"entropy_bonus": 0.25, "entropy_coef": 0.0}
    surplus = dataclasses.replace(
        fake_rollouts([[0, 1, 0, 1]]),
        greedy_rewards=np.array([0.5], np.float32),
        components=np.ones((1, 4, 2), np.float32),
    )
    state = state.replace(reward_model=moved, controls=controls, surplus=surplus)
    used, problems = tools(tmp_path), stream()
    with used.log:
        save_rl(used, state, problems)
    found = resume_rl(used.checkpoints, FINGERPRINT, toy_state(parts), stream())
    assert same_trees(found.reward_model, moved)
    assert found.controls == controls
    assert same_trees(found.surplus, surplus)


KILLED = """
import os, pathlib, signal, sys
from tests.training.test_loops import *

path = pathlib.Path(sys.argv[1])
move = CheckpointFolder._move_into_place

def move_or_die(self, temporary, step):
    if step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return move(self, temporary, step)

CheckpointFolder._move_into_place = move_or_die
settings = dataclasses.replace(SETTINGS, steps=STEPS)
run_rl(toy_parts(toy_dapo(), settings), path)
"""


def test_a_run_killed_while_it_saves_resumes(parts, straight, tmp_path, root):
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
    ran = resume(parts, tmp_path)
    ran.tokens = straight.tokens[: -len(ran.tokens)] + ran.tokens
    assert_same_run(ran, straight)
    assert len(read_metrics(tmp_path / "metrics.dropped.jsonl")) == 2


SUPERVISED = SupervisedSettings(
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
def priming():
    return build_supervised(tiny_model(), SUPERVISED, OPTIMIZER, one_device())


def start_priming():
    return restart_optimizer(first_policy(), OPTIMIZER.build())


def run_supervised(parts, path, *, state=None, source=examples, **options):
    used = tools(path, name="prime", log_every=2, **options)
    with used.log:
        state = train_supervised(parts, state or start_priming(), source, used)
    rows = timeless(read_metrics(path / "prime.jsonl"))
    return Ran(copied(state), [], rows, used.checkpoints)


@pytest.fixture(scope="module")
def primed(priming, tmp_path_factory):
    return run_supervised(priming, tmp_path_factory.mktemp("primed"))


def test_the_supervised_loop_learns_and_writes_rows(primed):
    assert [row["step"] for row in primed.rows] == [2, 4, 6]
    assert primed.rows[-1]["loss"] < primed.rows[0]["loss"]
    names = {"loss", "entropy", "grad_norm", "updates_skipped", "learning_rate"}
    assert primed.rows[0].keys() >= names | {"tokens"}
    tokens = sum(len(p) + len(r) for u in (0, 1) for p, r in examples(u))
    assert primed.rows[0]["tokens"] == tokens
    assert primed.checkpoints.steps() == [2, 4, 6]


def test_supervised_training_resumes_where_it_was_interrupted(
    priming, primed, tmp_path
):
    # The bar moves with the rows, every second update: asked to stop after two rows.
    first = run_supervised(priming, tmp_path, stop_after=2, save_every=100)
    assert first.checkpoints.steps() == [4]
    state = resume_supervised(first.checkpoints, FINGERPRINT, start_priming())
    second = run_supervised(priming, tmp_path, state=state)
    assert second.rows == primed.rows
    assert same_trees(second.state, primed.state)


def test_supervised_training_resumes_after_it_died(priming, primed, tmp_path):
    def failing(update):
        if update == 5:
            raise KeyboardInterrupt
        return examples(update)

    with contextlib.suppress(KeyboardInterrupt):
        run_supervised(priming, tmp_path, source=failing)
    checkpoints = CheckpointFolder(tmp_path / "checkpoints")
    state = resume_supervised(checkpoints, FINGERPRINT, start_priming())
    assert int(state.step) == 4
    truncate_after(tmp_path / "prime.jsonl", 4)
    again = run_supervised(priming, tmp_path, state=state)
    assert again.rows == primed.rows
    assert same_trees(again.state, primed.state)


def test_other_examples_after_a_resume_would_show(priming, primed, tmp_path):
    # Trap 40, kept as a mutant: the data starts from the beginning again.
    first = run_supervised(priming, tmp_path, stop_after=2, save_every=100)
    state = resume_supervised(first.checkpoints, FINGERPRINT, start_priming())
    forgetful = partial(lambda update, shift: examples(update - shift), shift=4)
    second = run_supervised(priming, tmp_path, state=state, source=forgetful)
    assert not same_trees(second.state, primed.state)


def test_a_row_is_the_mean_over_its_updates():
    pending = [
        {"loss": (2.0, 1.0), "grad_norm": (0.0, 0.0)},  # a skipped update
        {"loss": (4.0, 1.0), "grad_norm": (5.0, 1.0)},
    ]
    assert mean_row(pending) == {"loss": 3.0, "grad_norm": 5.0}
