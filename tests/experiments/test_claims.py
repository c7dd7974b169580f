"""Every claim of experiments/claims: an arm of each for a step, and its page."""

import dataclasses
import importlib
from pathlib import Path

import numpy as np
import pytest

from experiments.claims import clip_higher
from experiments.toys import toy_setup
from experiments.toys.toy_arms import coin_rewards
from experiments.toys.toy_tasks import Toy
from jaxrl_reason.claims.claim import FoundClaim, claim_paths
from jaxrl_reason.claims.claim_page import claim_page, fill_claims
from jaxrl_reason.claims.claim_plot import plot_claim
from jaxrl_reason.claims.claim_results import read_results, results_of
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
    small = dataclasses.replace(SMALL, task=module.ARMS[arm].setup.task)
    own = dataclasses.replace(module.ARMS[arm], setup=small)
    monkeypatch.setitem(module.ARMS, arm, own)
    one = dataclasses.replace(found[name], claim=claim)
    plan = RunPlan(one, (arm,), (0,), 1, tmp_path)
    runs = run_arms(plan)
    (row,) = runs[arm][0].rows
    assert row["step"] == 1
    # Names of metrics in panels are names of rows; a measure needs later steps.
    for panel in claim.panels:
        rare = panel.metric.startswith("rollout/length_")
        assert panel.metric in row or rare
        assert panel.x in row
    results = results_of(one, runs, 1)
    assert plot_claim(claim, results, runs, tmp_path / "a.png").stat().st_size > 1000


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_what_would_be_written(name, found):
    page = ROOT / "docs" / "claims" / f"{name}.md"
    wanted = claim_page(found[name], read_results(page.with_suffix(".json")))
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


def one_switch(first, second):
    """Names of the parts in which two arms differ: of the setup, else of the method."""

    def parts(a, b):
        names = [field.name for field in dataclasses.fields(a)]
        return {n for n in names if getattr(a, n) != getattr(b, n)} - {"name"}

    setup, method = parts(first.setup, second.setup), parts(first.method, second.method)
    if setup == {"settings"}:
        setup = parts(first.setup.settings, second.setup.settings)
    return setup | method


def test_arms_differ_in_what_they_say():
    from experiments.claims import dr_grpo_length, dynamic_sampling, value_collapse

    arms = clip_higher.ARMS
    clips = [arm.method.loss.keywords["clip_high"] for arm in arms.values()]
    assert clips == [0.28, 0.2, 0.1, 0.4, 0.28, 0.2]
    first, *others = list(arms.values())[:4]
    assert all(one_switch(first, other) == {"loss"} for other in others)
    updates = one_switch(first, arms["0.28, one update"]) - {"loss", "advantages"}
    assert updates == {"updates_per_rollout"}
    arms = dynamic_sampling.ARMS
    filtered, every, more = arms.values()
    assert one_switch(filtered, every) - {"loss", "advantages"} == {"dynamic_sampling"}
    assert one_switch(every, more) - {"loss", "advantages"} == {"prompts_per_step"}
    arms = dr_grpo_length.ARMS
    assert one_switch(arms["Dr. GRPO"], arms["length alone"]) == {"loss"}
    assert one_switch(arms["Dr. GRPO"], arms["std alone"]) == {"advantages"}
    assert one_switch(arms["length alone"], arms["GRPO"]) == {"advantages"}
    assert one_switch(arms["GRPO"], arms["GRPO, coin"]) == {"rewards"}
    arms = value_collapse.ARMS
    plain = arms["plain PPO"]
    pretrained = one_switch(plain, arms["value pretraining"])
    assert pretrained == {"value_pretraining_steps"}
    assert one_switch(plain, arms["decoupled GAE"]) >= {"advantages"}
    assert one_switch(plain, arms["plain PPO, coin"]) == {"rewards"}


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
    coins = coin_rewards(drawn)
    assert coins.shape == (200, 8)
    np.testing.assert_array_equal(coins, coin_rewards(drawn))
    assert set(np.unique(coins)) == {0.0, 1.0}
    assert abs(coins.mean() - 0.5) < 5 * 0.5 / 40
    assert abs((coins[:, 0] == coins[:, 1]).mean() - 0.5) < 5 * 0.5 / 200**0.5
