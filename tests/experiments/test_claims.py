"""Every claim of experiments/claims: an arm of each for a step, and its page."""

import dataclasses
import importlib
from functools import partial
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest

from experiments.claims import clip_higher
from experiments.toys import toy_arms, toy_habits, toy_setup
from experiments.toys.toy_habits import HabitSetup
from experiments.toys.toy_tasks import Toy
from experiments.toys.toy_taught import TaughtArm
from jaxrl_reason.claims.claim import FoundClaim, claim_paths
from jaxrl_reason.claims.claim_page import claim_page, fill_claims
from jaxrl_reason.claims.claim_plot import plot_claim
from jaxrl_reason.claims.claim_results import read_claim_results, results_of
from jaxrl_reason.claims.claim_runs import RunPlan, run_arms
from jaxrl_reason.cli.claim import load_claim
from jaxrl_reason.rl.rollouts import Rollouts

ROOT = Path(__file__).parents[2]
NAMES = [path.stem for path in claim_paths(ROOT / "experiments" / "claims")]
SMALL = toy_setup.tiny()


@pytest.fixture(scope="module")
def found() -> dict[str, FoundClaim]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return {name: load_claim(name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_an_arm_of_a_claim_runs(name, found, tmp_path, monkeypatch):
    # All on sizes compiled once, from the same fine-tuned model; one arm each, as
    # every arm compiles an update of its own.
    module = importlib.import_module(f"experiments.claims.{name}")
    trained = toy_setup.sft_policy(SMALL, 0)
    monkeypatch.setattr(toy_setup, "sft_policy", lambda of, seed: trained)
    claim, arm = module.CLAIM, module.CLAIM.comparison.treatment
    setup = module.ARMS[arm].setup
    small = toy_habits.tiny(setup) if isinstance(setup, HabitSetup) else SMALL
    if small is SMALL:
        width = setup.settings.prompt_width
        settings = dataclasses.replace(SMALL.settings, prompt_width=width)
        small = dataclasses.replace(SMALL, task=setup.task, settings=settings)
    sizes = {"setup": small}
    if isinstance(module.ARMS[arm], TaughtArm):
        sizes |= {"teacher_setup": small, "teacher_steps": 0}
    own = dataclasses.replace(module.ARMS[arm], **sizes)
    monkeypatch.setitem(module.ARMS, arm, own)
    one = dataclasses.replace(found[name], claim=claim)
    plan = RunPlan(one, (arm,), (0,), 1, tmp_path)
    runs = run_arms(plan)
    *_, row = runs[arm][0].rows  # perhaps one of step 0 before
    assert row["step"] == 1
    # Names of metrics in panels are names of rows; a measure needs later steps.
    for panel in claim.panels:
        rare = panel.metric.startswith(("rollout/length_", "task/true_"))
        assert panel.metric in row or rare
        assert panel.x in row
    results = results_of(one, runs, 1)
    assert plot_claim(claim, results, runs, tmp_path / "a.png").stat().st_size > 1000


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_what_would_be_written(name, found):
    page = ROOT / "docs" / "claims" / f"{name}.md"
    wanted = claim_page(found[name], read_claim_results(page.with_suffix(".json")))
    assert page.read_text(encoding="utf-8") == wanted, (
        "write it again: jaxrl-reason claim --pages docs/claims --only-pages"
    )


def test_the_table_of_all_is_what_would_be_written(found):
    page = ROOT / "docs" / "claims.md"
    text = page.read_text(encoding="utf-8")
    assert fill_claims(text, list(found.values()), page.with_suffix("")) == text


@pytest.mark.parametrize("name", NAMES)
def test_every_arm_of_a_claim_can_be_run(name):
    module = importlib.import_module(f"experiments.claims.{name}")
    assert list(module.ARMS) == list(module.CLAIM.arms)
    assert min(module.CLAIM.tuned_on) >= 0


def parts_of(value):
    """A value in which functions that were made alike are equal."""
    if isinstance(value, partial):
        return value.func.__qualname__, value.keywords
    if isinstance(value, FunctionType):
        closed = value.__closure__ or ()
        return value.__qualname__, [parts_of(cell.cell_contents) for cell in closed]
    return value


def switches(first, second):
    """Names of the parts in which two arms differ: of the method or of the setup."""

    def differing(a, b):
        names = [field.name for field in dataclasses.fields(a)]
        return {n for n in names if parts_of(getattr(a, n)) != parts_of(getattr(b, n))}

    setup = differing(first.setup, second.setup)
    if "settings" in setup:
        setup -= {"settings"}
        setup |= differing(first.setup.settings, second.setup.settings)
    whole = differing(first, second) - {"method", "setup"}
    return whole | setup | differing(first.method, second.method) - {"name"}


# Of a claim: pairs of arms, and the one switch between them.
SWITCHES = {
    "clip_higher": [
        ("clip 0.2 / 0.28", "clip 0.2 / 0.2", "loss"),
        ("clip 0.2 / 0.28", "clip 0.2 / 0.4", "loss"),
        ("clip 0.2 / 0.28", "0.28, one update", "updates_per_rollout"),
        ("clip 0.2 / 0.2", "0.2, one update", "updates_per_rollout"),
    ],
    "dapo_ladder": [
        ("naive GRPO", "+ overlong filtering", "loss_rows"),
        ("+ overlong filtering", "+ clip-higher", "loss"),
        ("+ clip-higher", "+ soft overlong", "rewards"),
        ("+ soft overlong", "+ token-level loss", "loss"),
        ("+ token-level loss", "+ dynamic sampling", "dynamic_sampling"),
        ("naive GRPO", "overlong filtering alone", "loss_rows"),
        ("naive GRPO", "clip-higher alone", "loss"),
        ("naive GRPO", "soft overlong alone", "rewards"),
        ("naive GRPO", "token-level loss alone", "loss"),
        ("naive GRPO", "dynamic sampling alone", "dynamic_sampling"),
        ("naive GRPO", "naive GRPO, as many samples", "prompts_per_step"),
    ],
    "decoupled_gae": [
        ("decoupled GAE", "lambda 0.95", "advantages"),
        ("decoupled GAE, short wait", "lambda 0.95, short wait", "advantages"),
        ("decoupled GAE", "decoupled GAE, short wait", "task"),
    ],
    "distillation_samples": [
        ("distillation", "untrained teacher", "teacher_steps"),
        ("distillation", "distillation, rate of GRPO", "optimizer"),
        ("GRPO", "GRPO, one update", "updates_per_rollout"),
        ("GRPO", "GRPO, rate of distillation", "optimizer"),
    ],
    "dr_grpo_length": [
        ("Dr. GRPO", "length alone", "loss"),
        ("Dr. GRPO", "std alone", "advantages"),
        ("length alone", "GRPO", "advantages"),
        ("GRPO", "GRPO, coin", "rewards"),
        ("Dr. GRPO", "Dr. GRPO, coin", "rewards"),
    ],
    "dynamic_sampling": [
        ("dynamic sampling", "every group", "dynamic_sampling"),
        ("every group", "every group, as many samples", "prompts_per_step"),
    ],
    "gdpo_scales": [
        ("GDPO", "GRPO on the sum", "advantages"),
        ("GDPO", "GDPO, 0.1 a token", "rewards"),
        ("GRPO on the sum", "GRPO, 0.1 a token", "rewards"),
        ("GRPO on the sum", "GRPO, answers alone", "rewards"),
        ("GDPO, answers alone", "GRPO, answers alone", "advantages"),
    ],
    "gdpo_two_rewards": [
        ("GDPO", "GRPO on the sum", "advantages"),
        ("GDPO, 3 tokens", "GRPO, 3 tokens", "advantages"),
        ("GDPO", "GDPO, 3 tokens", "rewards"),
        ("GDPO, answers alone", "GRPO, answers alone", "advantages"),
    ],
    "four_habits": [
        ("habits", "one try", "style"),
        ("habits", "habits, coin", "rewards"),
    ],
    "gae_lambda": [
        ("lambda 1", "lambda 0.95", "advantages"),
        ("lambda 1, short wait", "lambda 0.95, short wait", "advantages"),
        ("lambda 1", "lambda 1, short wait", "task"),
        ("lambda 0.95", "lambda 0.95, short wait", "task"),
    ],
    "history_resampling": [
        ("history resampling", "every problem", "stream"),
        ("history resampling", "as many dropped, at random", "stream"),
    ],
    "kl_penalty": [
        ("no KL", "no KL, coin", "rewards"),
        ("KL", "KL, coin", "rewards"),
    ],
    "logic_rl": [
        ("REINFORCE++", "REINFORCE++, coin", "rewards"),
        ("GRPO", "GRPO, coin", "rewards"),
    ],
    "spurious_rewards": [
        ("coin", "no training", "optimizer"),
        ("coin", "coin, no clip", "loss"),
        ("coin", "right answers", "rewards"),
        ("coin", "format", "rewards"),
        ("coin", "inverted", "rewards"),
    ],
    "token_mean": [
        ("token mean", "sequence mean", "loss"),
        ("token mean", "token mean, coin", "rewards"),
        ("sequence mean", "sequence mean, coin", "rewards"),
    ],
    "value_collapse": [
        ("plain PPO", "value pretraining", "value_pretraining_steps"),
        ("decoupled GAE", "both", "value_pretraining_steps"),
        ("plain PPO", "plain PPO, 10 steps later", "idle"),
    ],
    "vapo_against_dapo": [
        ("VAPO", "VAPO, no pretraining", "value_pretraining_steps"),
        ("VAPO", "VAPO, no positive loss", "loss"),
        ("VAPO", "VAPO, coin", "rewards"),
        ("GRPO", "GRPO, coin", "rewards"),
    ],
}


@pytest.mark.parametrize("name", NAMES)
def test_arms_are_one_switch_apart(name):
    arms = importlib.import_module(f"experiments.claims.{name}").ARMS
    found = [(a, b, switches(arms[a], arms[b])) for a, b, _ in SWITCHES[name]]
    assert found == [(a, b, {switch}) for a, b, switch in SWITCHES[name]]


def test_idle_steps_have_the_row_of_the_first(monkeypatch):
    rows = [{"step": n, "x": float(n)} for n in range(1, 9)]

    def run(method, seed, *, steps, setup, until):
        for n in range(1, steps + 1):
            if until(rows[:n]):
                break

    monkeypatch.setattr(toy_arms, "run_method", run)
    arm = toy_arms.ToyArm(None, None, idle=2)
    found = [(row["step"], row["x"]) for row in toy_arms.run_toy_arm(arm, 0, 5)]
    assert found == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 3.0)]
    arm = dataclasses.replace(arm, idle=0)
    until = lambda done: len(done) == 3  # noqa: E731
    assert toy_arms.run_toy_arm(arm, 0, 5, until) == rows[:3]


def test_nothing_is_to_be_learned_from_a_coin():
    task = clip_higher.CoinToss()

    def right(number, text):
        return task.grade(Toy(number), text, False).correct

    assert right(3, "1 2 .") == right(3, "1 2 .")
    tosses = np.array([[right(n, f"{d} .") for d in range(10)] for n in range(400)])
    # 5 standard deviations of fair coins: of a response, and of two that agree.
    assert np.abs(tosses.mean(axis=0) - 0.5).max() < 5 * 0.5 / 20
    agree = (tosses[:, :-1] == tosses[:, 1:]).mean(axis=0)
    assert np.abs(agree - 0.5).max() < 5 * 0.5 / 20


def test_a_coin_is_fair_and_the_same_for_the_same_response():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 12, (200, 8, 5))
    fields = {field.name: None for field in dataclasses.fields(Rollouts)}
    drawn = Rollouts(**fields | {"tokens": tokens, "problem_ids": np.arange(200)})
    coins = toy_arms.coin_rewards(drawn)
    assert coins.shape == (200, 8)
    np.testing.assert_array_equal(coins, toy_arms.coin_rewards(drawn))
    assert set(np.unique(coins)) == {0.0, 1.0}
    assert abs(coins.mean() - 0.5) < 5 * 0.5 / 40
    assert abs((coins[:, 0] == coins[:, 1]).mean() - 0.5) < 5 * 0.5 / 200**0.5
