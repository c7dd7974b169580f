"""Every recipe: a real run of two updates, and exactly the parts that it claims."""

import dataclasses
import importlib.util
import math
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_reason import losses
from jaxrl_reason.losses import batch_counts
from jaxrl_reason.rl.controller import Controller
from jaxrl_reason.rl.method import DynamicSampling, Experience, Method
from jaxrl_reason.rl.recipes import RECIPES
from jaxrl_reason.rl.recipes.dapo import DAPO, DAPO_LADDER
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.recipes.open_reasoner_zero import finished_accuracy
from jaxrl_reason.rl.recipes.recipe import Recipe
from jaxrl_reason.rl.recipes.reinforce_pp import logic_rewards
from jaxrl_reason.rl.recipes.skywork_or1 import rows_with_signal
from jaxrl_reason.rl.rollout_correction import (
    RolloutCorrection,
    with_importance_weights,
)
from jaxrl_reason.rl.token_selection import TokenSelection
from jaxrl_reason.runs.metrics import finish_metrics
from tests.rl.helpers import (
    SETTINGS,
    EndlessProblems,
    copied,
    fake_rollouts,
    run_steps,
    same_trees,
    toy_learner,
    toy_state,
)

# Those of every step, whatever the method.
METRICS = {
    "reward/mean reward/accuracy reward/format_fraction reward/grader_failed_fraction",
    "groups/all_correct_fraction groups/all_wrong_fraction groups/accepted_fraction",
    "groups/accepted groups/sampled groups/surplus groups/rounds",
    "rollout/length_mean rollout/length_max rollout/truncated_fraction",
    "policy/clip_fraction_low policy/clip_fraction_high policy/ratio policy/entropy",
    "policy/approx_kl_k1 policy/approx_kl_k3 policy/grad_norm policy/loss",
    "policy/learning_rate policy/updates policy/skipped_update_fraction",
    "sampler/logprob_diff_mean sampler/logprob_diff_max sampler/kl_k1 sampler/kl_k3",
    "sampler/ess_fraction",
}
NAMES = {name for line in METRICS for name in line.split()}
OBJECTIVES = {
    *("policy/loss_0", "policy/loss_1", "policy/weight_0", "policy/weight_1"),
    "policy/gradient_conflict_fraction",
}
MORE = {
    "critic": {"critic/loss", "critic/grad_norm", "critic/skipped_update_fraction"},
    "vapo": {"policy/positive_nll"},
    "sapo": {"policy/gate"},
    "kl_cov": {"policy/selected"},
    "clip_cov": {"policy/selected"},
    "prime": {"reward_model/loss", "reward_model/accuracy", "reward_model/score"},
    "skywork_or1": {"controller/entropy_coef", "controller/entropy_bonus"},
    "pcgrad": OBJECTIVES,
    "mgda": OBJECTIVES,
}
# Two updates of one rollout and the sampler and scorer of the other tests.
LIMIT = SETTINGS.max_new_tokens
PUBLISHED_LIMIT = 20480


def built(name: str, max_new_tokens: int = LIMIT) -> Method:
    return RECIPES[name].build(max_new_tokens)


UPDATES: dict = {}  # compiled once for all methods of one loss and its inputs


def shared_learner(method: Method):
    """A learner whose update is compiled once for all methods of its loss."""
    learner = toy_learner(method)
    loss = method.loss
    keywords = tuple(getattr(loss, "keywords", {}).items())
    loss = getattr(loss, "func", loss)
    key = (loss, keywords, method.all_loss_inputs, method.gradients and method.name)
    update = UPDATES.setdefault(key, learner.update)
    return dataclasses.replace(learner, update=update)


def one_step(method: Method):
    learner = shared_learner(method)
    state = toy_state(learner)
    start = copied(state)
    stream = EndlessProblems(SETTINGS.prompts_per_step)
    state, (row,), (found,) = run_steps(learner, state, stream, 1)
    return start, state, row, found


def first_update(method: Method):
    """The metrics of a step's first update, and its gradient: Adam's first moment."""
    learner, seen = shared_learner(method), []

    def update(policy, batch, live):
        policy, metrics = learner.update(policy, batch, live)
        gradient = optax.tree_utils.tree_get(policy.opt_state, "mu")
        seen.append((finish_metrics(metrics), copied(gradient)))
        return policy, metrics

    stream = EndlessProblems(SETTINGS.prompts_per_step)
    recorded = dataclasses.replace(learner, update=update)
    run_steps(recorded, toy_state(learner), stream, 1)
    return seen[0]


def moved(before, after) -> bool:
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return all((np.asarray(a) != np.asarray(b)).any() for a, b in pairs)


def trained(method: Method) -> set[str]:
    """The models beside the policy."""
    return {c.name for c in method.components if c.trains_model}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs_through_the_loop(name: str) -> None:
    method = built(name)
    start, end, row, _ = one_step(method)
    wanted = NAMES | MORE.get(name, set())
    if "critic" in trained(method):
        wanted = wanted | MORE["critic"]
        # With a head of 0 the first update moves nothing below it, and clipped values
        # may stop the second.
        heads = (x.models["critic"].params["value_head"] for x in (start, end))
        assert moved(*heads)
    if "kl_coef" in getattr(method.loss, "keywords", {}):
        wanted = wanted | {"policy/kl"}
    assert row.keys() >= wanted
    assert all(math.isfinite(value) for value in row.values()), row
    assert row["policy/updates"] == int(end.policy.step) == 2
    assert row["policy/skipped_update_fraction"] == 0
    assert moved(start.policy.params, end.policy.params)
    assert (end.reference is not None) == method.uses_reference
    if "reward_model" in trained(method):
        models = (x.models["reward_model"].params for x in (start, end))
        assert moved(*models)
    assert end.models.keys() == trained(method)
    assert method.name == name


def test_only_recipes_with_a_kl_term_keep_a_reference() -> None:
    with_reference = {name for name in RECIPES if built(name).uses_reference}
    assert with_reference == {
        *("deepseekmath", "r1_zero", "light_r1", "deepscaler", "intellect_2", "ppo"),
        *("reinforce_pp", "reinforce_pp_baseline", "logic_rl", "rloo", "prime"),
    }
    for name in with_reference:
        assert RECIPES[name].settings.kl_coef != 0


def test_settings_are_those_that_the_method_is_built_with() -> None:
    for name, recipe in RECIPES.items():
        bound = getattr(recipe.build(PUBLISHED_LIMIT).loss, "keywords", {})
        if recipe.settings.clip is not None:
            assert (bound["clip_low"], bound["clip_high"]) == recipe.settings.clip
        if recipe.settings.kl_coef and name != "ppo":  # PPO's is in the reward
            assert bound["kl_coef"] == recipe.settings.kl_coef


def test_what_is_missing_is_said() -> None:
    # A setting of the run is published, or the recipe says that it is not.
    for recipe in RECIPES.values():
        assert recipe.sources or "repository" in recipe.settings.notes
        fields = ("learning_rate", "prompts", "group_size", "updates", "temperature")
        if any(getattr(recipe.settings, name) is None for name in fields):
            assert recipe.not_published, recipe.name


def test_recipes_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DAPO.name = "mine"
    with pytest.raises(TypeError):
        RECIPES["mine"] = DAPO


# The ladder.


def parts_of(recipe: Recipe) -> dict[str, object]:
    """The four parts of DAPO and clip-higher, read off the built method."""
    method = recipe.build(20)
    rollouts = fake_rollouts([[True, False]], lengths=[[20, 20]], width=20)
    return {
        "filtering": method.loss_rows is not None,
        "clip": method.loss.keywords["clip_high"],
        "soft": float(method.rewards(rollouts)[0, 0]),
        "loss": method.loss.func,
        "sampling": method.dynamic_sampling is not None,
    }


def test_a_rung_of_the_ladder_differs_from_the_one_before_in_one_part() -> None:
    rungs = [parts_of(recipe) for recipe in DAPO_LADDER]
    changes = [[name for name in a if a[name] != b[name]] for a, b in pairwise(rungs)]
    assert changes == [["filtering"], ["clip"], ["soft"], ["loss"], ["sampling"]]
    assert rungs[0]["loss"] is losses.grpo_loss
    assert rungs[-1]["loss"] is losses.dapo_loss
    assert rungs[0]["soft"] == 1.0
    assert rungs[-1]["soft"] == 0.0  # right, and punished to the full
    # DAPO itself is the last rung without filtering.
    assert parts_of(DAPO) == rungs[-1] | {"filtering": False}


def test_the_cache_of_dapo_is_a_fifth_of_the_limit() -> None:
    rollouts = fake_rollouts([[True] * 4], lengths=[[16, 17, 18, 20]], width=20)
    rewards = DAPO.build(20).rewards(rollouts)
    np.testing.assert_allclose(rewards, [[1.0, 0.75, 0.5, 0.0]], rtol=1e-6)


# Losses and advantages on arrays: the composition that each recipe claims.

B, T = 8, 6
RNG = np.random.default_rng(3)
LENGTHS = np.array([6, 3, 1, 5, 6, 2, 4, 6])
MASK = np.arange(T) < LENGTHS[:, None]
LOGPROBS, OLD, REF, SAMPLER = -RNG.uniform(0.1, 2.0, (4, B, T)).astype(np.float32)
GROUPS = np.repeat(np.arange(2), 4)
REWARDS = np.array([1, 0, 0, 1, 0, 1, 1, 1], np.float32)
VALUES = RNG.normal(size=(B, T)).astype(np.float32)
ADVANTAGES = RNG.normal(size=B).astype(np.float32)
REWARD_MODEL = -RNG.uniform(0.1, 2.0, (B, T)).astype(np.float32)
COMPONENT = np.array([1, 1, 0, 1, 0, 0, 1, 0], np.float32)
GREEDY = np.repeat(np.array([1, 0], np.float32), 4)
TRUNCATED = np.array([1, 0, 0, 0, 1, 0, 0, 0], bool)
EXPERIENCE = Experience(
    rewards=REWARDS,
    lengths=LENGTHS,
    mask=MASK,
    group_ids=GROUPS,
    old_logprobs=OLD,
    num_groups=2,
    truncated=TRUNCATED,
    inputs={
        "ref_logprobs": REF,
        "values": VALUES,
        "reward_components": np.stack([REWARDS, COMPONENT], axis=1),
        "greedy_rewards": GREEDY,
        "reward_logprobs": REWARD_MODEL,
    },
)
COUNTS = batch_counts(MASK, GROUPS, num_groups=2)
SELECTED = RNG.random((B, T)) < 0.3
NAMED = {
    "entropy": RNG.uniform(0.0, 2.0, (B, T)).astype(np.float32),
    "ref_logprobs": REF,
    "correct": REWARDS > 0,
    "selected": SELECTED,
    "weights": RNG.uniform(0.5, 2.0, (B, T)).astype(np.float32),
}


def loss_of(method: Method) -> float:
    extra = {name: NAMED[name] for name in method.all_loss_inputs}
    for component in method.components:
        if isinstance(component, Controller):
            extra |= component.coefficients(component.start)
    if "correct" in extra:
        good = MASK & NAMED["correct"][:, None]
        extra["positive_counts"] = batch_counts(good, GROUPS, num_groups=2)
    return float(method.loss(LOGPROBS, OLD, ADVANTAGES, MASK, COUNTS, **extra)[0])


def ratio() -> np.ndarray:
    return np.exp(LOGPROBS - OLD)


def clipped(low: float, high: float, dual: float | None = None) -> np.ndarray:
    a, r = ADVANTAGES[:, None], ratio()
    out = np.maximum(-a * r, -a * np.clip(r, 1 - low, 1 + high))
    if dual is not None:
        out = np.where(a < 0, np.minimum(out, -a * dual), out)
    return out


def tokens(x: np.ndarray) -> float:
    return float(x[MASK].mean())


def rows(x: np.ndarray) -> float:
    return float(np.mean((x * MASK).sum(1) / LENGTHS))


def k3() -> np.ndarray:
    return np.exp(REF - LOGPROBS) - (REF - LOGPROBS) - 1


def positive() -> float:
    good = MASK & NAMED["correct"][:, None]
    return float(-LOGPROBS[good].mean())


PLAIN = -ADVANTAGES[:, None] * LOGPROBS
CLAIMS = {
    "deepseekmath": rows(clipped(0.2, 0.2) + 0.04 * k3()),
    "r1_zero": rows(clipped(10.0, 10.0) + 0.001 * k3()),
    "dr_grpo": float((clipped(0.2, 0.2) * MASK).sum()) / (B * LIMIT),
    "dapo": tokens(clipped(0.2, 0.28)),
    "dapo_0_naive_grpo": rows(clipped(0.2, 0.2)),
    "dapo_3_soft_overlong": rows(clipped(0.2, 0.28)),
    "dapo_4_token_level_loss": tokens(clipped(0.2, 0.28)),
    "srpo": tokens(clipped(0.2, 0.2)),
    "skywork_or1": tokens(clipped(0.2, 0.2)),
    "light_r1": tokens(clipped(0.2, 0.2) + 0.001 * k3()),
    "deepscaler": tokens(clipped(0.2, 0.2) + 0.001 * k3()),
    "mimo": tokens(clipped(0.2, 0.28)),
    "lite_ppo": tokens(clipped(0.2, 0.2)),
    "intellect_2": rows(clipped(0.2, 0.2, 4.0) + 0.001 * k3()),
    "ppo": tokens(clipped(0.2, 0.2)),
    "open_reasoner_zero": tokens(clipped(0.2, 0.2)),
    "vc_ppo": tokens(clipped(0.2, 0.2)),
    "vapo": tokens(clipped(0.2, 0.28)) + 0.1 * positive(),
    "reinforce_pp": tokens(clipped(0.2, 0.2)),
    "reinforce_pp_baseline": tokens(
        clipped(0.2, 0.2) + 0.001 * 0.5 * (LOGPROBS - REF) ** 2
    ),
    "logic_rl": tokens(clipped(0.2, 0.2) + 0.001 * k3()),
    "rloo": float((PLAIN * MASK).sum()) / B,
    "opo": float((PLAIN * MASK).sum()) / B,
    "gpg": tokens(PLAIN),
    "remax": float((PLAIN * MASK).sum()) / B,
    "prime": tokens(clipped(0.2, 0.2)),
    "gdpo": rows(clipped(0.2, 0.2)),
    "pcgrad": rows(clipped(0.2, 0.2)),
    "mgda": rows(clipped(0.2, 0.2)),
    "cispo": tokens(np.minimum(ratio(), 5.0) * PLAIN),
    "kl_cov": tokens(
        -ADVANTAGES[:, None] * ratio() + SELECTED * np.abs(LOGPROBS - OLD)
    ),
    "clip_cov": tokens(clipped(1.0, 1.0) * ~SELECTED),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_the_loss_is_the_composition_that_the_recipe_claims(name: str) -> None:
    assert loss_of(built(name)) == pytest.approx(CLAIMS[name], rel=2e-6)


def whitened(x: np.ndarray) -> np.ndarray:
    return np.where(MASK, (x - x[MASK].mean()) / x[MASK].std(ddof=1), 0.0)


def group_mean(x: np.ndarray) -> np.ndarray:
    return np.repeat(x.reshape(2, 4).mean(1), 4)


def group_std() -> np.ndarray:
    return np.repeat(REWARDS.reshape(2, 4).std(1, ddof=1), 4)


def spread(x: np.ndarray) -> np.ndarray:
    return np.where(MASK, x[:, None], 0.0)


def lambda_returns(lam: np.ndarray) -> np.ndarray:
    """GAE by its definition, a row after the other."""
    out = np.zeros((B, T))
    for i, n in enumerate(LENGTHS):
        later = 0.0
        for t in reversed(range(n)):
            after = VALUES[i, t + 1] if t + 1 < n else 0.0
            reward = REWARDS[i] if t + 1 == n else 0.0
            later = reward + after - VALUES[i, t] + lam[i] * later
            out[i, t] = later
    return out


CENTRED = REWARDS - group_mean(REWARDS)
KL_ROWS = ((OLD - REF) * MASK).sum(1)
LESS_KL = REWARDS - 0.001 * KL_ROWS
TO_GO = np.cumsum(((OLD - REF) * MASK)[:, ::-1], axis=1)[:, ::-1]
BASE = np.repeat(
    (LENGTHS * REWARDS).reshape(2, 4).sum(1) / LENGTHS.reshape(2, 4).sum(1), 4
)
PROCESS = spread(np.ones(B)) * 0.05 * (REWARD_MODEL - REF)
PROCESS_MEANS = PROCESS.sum(1) / LENGTHS
OTHERS = (group_mean(PROCESS_MEANS) * 4 - PROCESS_MEANS) / 3
PROCESS_TO_GO = (
    spread(np.ones(B))
    * np.cumsum(((PROCESS - OTHERS[:, None]) * MASK)[:, ::-1], axis=1)[:, ::-1]
)


def standardised(x: np.ndarray, eps: float = 1e-4) -> np.ndarray:
    deviation = np.repeat(x.reshape(2, 4).std(1, ddof=1), 4)
    return (x - group_mean(x)) / (deviation + eps)


APART = np.stack([spread(standardised(x, 1e-6)) for x in (REWARDS, COMPONENT)], axis=-1)
SUMMED = standardised(REWARDS) + standardised(COMPONENT)
GRPO = CENTRED / (group_std() + 1e-6)
ESTIMATES = {
    "r1_zero": GRPO,
    "srpo": np.where(TRUNCATED, 0.0, GRPO),
    "dr_grpo": CENTRED,
    "lite_ppo": CENTRED / (REWARDS.std(ddof=1) + 1e-6),
    "vc_ppo": whitened(lambda_returns(np.full(B, 0.95))),
    "vapo": whitened(lambda_returns(np.zeros(B))),  # below 20 tokens lambda is 0
    "open_reasoner_zero": whitened(lambda_returns(np.ones(B))),
    "reinforce_pp": whitened(REWARDS[:, None] - 0.001 * TO_GO),
    "reinforce_pp_baseline": whitened(spread(CENTRED)),
    "logic_rl": whitened(spread(REWARDS)),
    "rloo": (LESS_KL - group_mean(LESS_KL)) * 4 / 3,
    "opo": REWARDS - BASE,
    "gpg": CENTRED,  # both groups have signal
    "remax": REWARDS - GREEDY,
    "prime": PROCESS_TO_GO + spread((REWARDS - group_mean(REWARDS)) * 4 / 3),
    "gdpo": SUMMED / (SUMMED.std(ddof=1) + 1e-4),
    "pcgrad": APART,
    "mgda": APART,
}


@pytest.mark.parametrize("name", ESTIMATES)
def test_advantages_are_those_that_the_recipe_claims(name: str) -> None:
    estimate = built(name).advantages(EXPERIENCE)
    wanted = ESTIMATES[name]
    np.testing.assert_allclose(estimate.advantages, wanted, rtol=2e-5, atol=2e-6)
    if name in ("vc_ppo", "vapo", "open_reasoner_zero"):
        # Whatever lambda the policy has, the critic learns the plain return.
        np.testing.assert_allclose(
            estimate.returns, spread(REWARDS), rtol=1e-5, atol=1e-6
        )


def test_lambda_of_vapo_grows_with_the_length() -> None:
    long = Experience(
        rewards=np.ones(1, np.float32),
        lengths=np.array([30]),
        mask=np.ones((1, 30), bool),
        group_ids=np.zeros(1, int),
        truncated=np.zeros(1, bool),
        old_logprobs=np.zeros((1, 30), np.float32),
        num_groups=1,
        inputs={"values": np.linspace(0.2, 0.8, 30, dtype=np.float32)[None]},
    )
    found, raw = built("vapo").advantages(long), np.zeros(30)
    later, values = 0.0, np.append(long["values"][0], 0.0)
    for t in reversed(range(30)):
        delta = (t == 29) + values[t + 1] - values[t]
        later = delta + later / 3  # 1 - 1 / (0.05 * 30)
        raw[t] = later
    assert raw[0] == pytest.approx(0.031034, rel=1e-4)  # section 16's example
    wanted = (raw - raw.mean()) / raw.std(ddof=1)
    np.testing.assert_allclose(found.advantages[0], wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.returns, np.ones((1, 30)), rtol=1e-5)


# Rewards and rows.


def test_rewards_of_the_recipes() -> None:
    rollouts = dataclasses.replace(
        fake_rollouts([[1, 1, 0, 0]]),
        truncated=np.array([[False, True, False, False]]),
        format_ok=np.array([[True, True, True, False]]),
    )
    np.testing.assert_array_equal(finished_accuracy(rollouts), [[1, 0, 0, 0]])
    np.testing.assert_array_equal(logic_rewards(rollouts), [[3, 3, -0.5, -3]])
    np.testing.assert_array_equal(built("r1_zero").rewards(rollouts), [[2, 2, 1, 0]])


def test_skywork_takes_groups_without_signal_out_of_the_loss() -> None:
    rollouts = fake_rollouts([[1, 1], [1, 0], [0, 0]])
    np.testing.assert_array_equal(
        rows_with_signal(rollouts), [[False] * 2, [True] * 2, [False] * 2]
    )
    assert built("skywork_or1").loss_rows is rows_with_signal


# What the loop hands to a loss: weights, right answers, chosen tokens.


class Recorder:
    """Leaves the policy alone and keeps the batches of every update."""

    def __init__(self) -> None:
        self.batches: list = []

    def __call__(self, policy, batch, live, **_):
        self.batches.append(batch)
        return policy, {}


@cache
def handed(name: str, weighed: bool = False):
    method = built(name)
    if weighed:
        shifted = partial(losses.importance_weights, cap=1.5)
        method = with_importance_weights(method, lambda o, s, m: shifted(o, s - 0.1, m))
    record = Recorder()
    learner = toy_learner(method)
    others = tuple(c for c in learner.components if c.name != "critic")
    learner = dataclasses.replace(learner, update=record, components=others)
    if "critic" in trained(method):
        learner = dataclasses.replace(learner, advantages=lambda x: flat_estimate(x))
    stream = EndlessProblems(SETTINGS.prompts_per_step)
    _, _, (found,) = run_steps(learner, toy_state(learner), stream, 1)
    return record.batches, found.rollouts


def flat_estimate(x: Experience):
    return grpo(kl_coef=0).advantages(x)


def test_right_answers_reach_the_loss_with_their_rows() -> None:
    batches, rollouts = handed("vapo")
    tokens = sum(int((b.mask & b["correct"][..., None]).sum()) for b in batches)
    assert tokens == int(rollouts.lengths[rollouts.correct].sum())
    assert all("correct" not in b.inputs for b in handed("gspo")[0])


@pytest.mark.parametrize("name", ["gspo", "vapo"])
def test_importance_weights_fit_every_recipe(name: str) -> None:
    batches, _ = handed(name, weighed=True)
    for batch in batches:
        weights, mask = np.asarray(batch["weights"]), np.asarray(batch.mask)
        np.testing.assert_allclose(weights[mask], np.exp(0.1), rtol=1e-3)
        assert not weights[~mask].any()


def test_weights_multiply_the_objective_alone() -> None:
    plain, weighed = built("deepseekmath"), with_importance_weights(built("dapo"))
    terms = clipped(0.2, 0.28) * NAMED["weights"]
    # The terms cancel: what rounds is their size, not that of their mean.
    size = tokens(np.abs(terms))
    assert loss_of(weighed) == pytest.approx(tokens(terms), abs=1e-6 * size)
    both = with_importance_weights(plain)
    terms = clipped(0.2, 0.2) * NAMED["weights"] + 0.04 * k3()
    size = rows(np.abs(terms))
    assert loss_of(both) == pytest.approx(rows(terms), abs=1e-6 * size)
    with pytest.raises(ValueError, match="one kind of weights, got 'dapo' again"):
        with_importance_weights(weighed)


def test_a_step_with_importance_weights_of_1_is_the_plain_step() -> None:
    # Here the sampler and the trainer agree, but for rounding. Gradients are compared,
    # not what Adam makes of them: near zero that is the sign, times the learning rate.
    method = dataclasses.replace(
        built("gspo"), dynamic_sampling=DynamicSampling()
    )  # all with signal
    row, plain = first_update(method)
    other, weighed = first_update(with_importance_weights(method))
    assert other == pytest.approx(row, rel=1e-4, abs=1e-5)
    size = max(np.abs(x).max() for x in jax.tree.leaves(plain))
    assert size > 1e-3
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(weighed), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5 * size)


def test_tokens_are_chosen_in_the_whole_mini_batch() -> None:
    # Chosen inside each micro-batch there would be one a micro-batch: with so few
    # tokens the share rounds up to one.
    batches, _ = handed("kl_cov")
    for batch in batches:
        assert int((np.asarray(batch.mask).any((1, 2, 3))).sum()) > 1
        chosen = np.asarray(batch["selected"])
        assert chosen.sum() == 1
        assert (chosen <= np.asarray(batch.mask)).all()
        shape = (-1, chosen.shape[-1])
        wanted = losses.kl_cov_tokens(
            *(
                jnp.reshape(x, shape)
                for x in (batch["old_logprobs"], batch["advantages"], batch.mask)
            )
        )
        # Nothing was updated, so that the policy of now is the old one.
        np.testing.assert_array_equal(chosen.reshape(shape), wanted)


def test_clip_cov_draws_the_same_tokens_again() -> None:
    first = [np.asarray(b["selected"]) for b in handed("clip_cov")[0]]
    handed.cache_clear()
    again = [np.asarray(b["selected"]) for b in handed("clip_cov")[0]]
    assert same_trees(first, again)


GIVES = {"weights": RolloutCorrection, "selected": TokenSelection}


@pytest.mark.parametrize("name", GIVES)
def test_an_input_and_its_function_come_together(name: str) -> None:
    method, component = grpo(kl_coef=0), GIVES[name]
    with pytest.raises(ValueError, match=f"loss_inputs must be among .* got '{name}'"):
        dataclasses.replace(method, loss_inputs=(name,))
    given = dataclasses.replace(method, components=(component(print),))
    assert given.all_loss_inputs == (*method.loss_inputs, name)


# The page.


@pytest.fixture(scope="module")
def tables(root: Path) -> ModuleType:
    """The module that the docs are built with."""
    path = root / "docs" / "recipe_tables.py"
    spec = importlib.util.spec_from_file_location("recipe_tables", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_docs_have_the_rows_of_every_recipe(root: Path, tables: ModuleType) -> None:
    pages = ("recipes.md", "losses/methods/index.md")
    texts = [(root / "docs" / page).read_text(encoding="utf-8") for page in pages]
    built = [tables.fill_tables(text).splitlines() for text in texts]
    for recipe in RECIPES.values():
        assert tables.settings_row(recipe) in built[0]
        assert tables.open_row(recipe) in built[0]
        if recipe.title:
            assert tables.method_row(recipe) in built[1]
    wanted = (
        "| `vapo` | 2504.05118 | 1e-06 | 2e-06 | 512 | 16 | 16 | - | 1 | 0.2 / 0.28 |"
    )
    assert any(line.startswith(wanted) for line in built[0])
    with pytest.raises(ValueError, match=r"must be one of settings, .* got nothing"):
        tables.fill_tables("<!-- recipes: nothing -->")


def test_every_recipe_has_a_page(root: Path) -> None:
    folder = root / "docs" / "losses" / "methods"
    for recipe in RECIPES.values():
        page = folder / f"{recipe.module}.md"
        said = f"docs/losses/methods/{page.name} must name the recipe {recipe.name!r}"
        assert page.is_file(), said
        text = page.read_text(encoding="utf-8")
        assert f"`{recipe.name}`" in text, said
        # And a curve of its toy run, by `experiments/toy_curves.py --only NAME`.
        picture = f"images/methods/{recipe.name}.png"
        assert (root / "docs" / picture).is_file(), picture
        assert picture in text, f"{said} and show {picture}"


def test_a_row_of_a_table_needs_all_its_columns() -> None:
    with pytest.raises(ValueError, match="must say what it is made_of and have a fam"):
        dataclasses.replace(RECIPES["dapo"], family="mine")
