"""The game: roles in the prompt, a verifier anew each round, provers against it."""

import dataclasses
from functools import cache

import numpy as np
import pytest

from jaxrl_reason.game.game_metrics import game_metrics, no_longer_convinces
from jaxrl_reason.game.game_settings import PROVER_VERIFIER, GameSettings
from jaxrl_reason.game.prover_verifier_game import (
    Game,
    GameState,
    against,
    play_game,
    sample_solutions,
    start_game,
    train_verifier,
)
from jaxrl_reason.game.roles import (
    RoleProblem,
    RoleStream,
    RoleTask,
    is_helpful,
    with_roles,
    without_roles,
)
from jaxrl_reason.game.solution_pool import side_by_side, verifier_comparisons
from jaxrl_reason.learner.state import init_value_state
from jaxrl_reason.losses import prover_rewards
from jaxrl_reason.models import ValueModel
from jaxrl_reason.offline.preference_batch import PreferenceSettings
from jaxrl_reason.reward_models.reward_methods import verifier
from jaxrl_reason.reward_models.reward_model import (
    build_reward_model_learner,
    reward_model_scores,
)
from jaxrl_reason.rl.collect import NoSignalError, compute_rewards
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.runs.metrics_log import PhaseTimer
from jaxrl_reason.runs.monitor import CompileCounter
from tests.rl.helpers import (
    CONFIG,
    OPTIMIZER,
    EndlessProblems,
    LuckyTask,
    Toy,
    copied,
    fake_rollouts,
    first_policy,
    one_device,
    same_trees,
    toy_learner,
    toy_state,
)

HELPFUL, SNEAKY = 10, 11


class ShortTask(LuckyTask):
    """Prompts that leave room for a role."""

    def prompt_tokens(self, problem):
        return [3 + problem.problem_id % 4] * (1 + problem.problem_id % 2)


TASK = RoleTask(ShortTask(), (HELPFUL,), (SNEAKY,))
SIZES = PreferenceSettings(
    pairs_per_update=16,
    epochs=16,
    rows_per_micro_batch=4,
    row_width=18,
    pairs_per_row=1,
    max_prompt=2,
    max_response=6,
)
PLAY = GameSettings(rounds=2, steps_per_round=4, max_pairs=6, stop_fraction=0.0)
SETTLED = {
    f"game/{role}_{what}"
    for role in ("helpful", "sneaky")
    for what in ("accuracy", "score")
}


@cache
def game():
    learner = toy_learner(grpo(kl_coef=0))
    learner = dataclasses.replace(learner, task=TASK)
    model = ValueModel(CONFIG)
    return Game(
        prover=learner,
        verifier=build_reward_model_learner(
            model, verifier(lam=0.01), SIZES, OPTIMIZER, one_device()
        ),
        base=init_value_state(first_policy(), OPTIMIZER, one_device()),
        problems=[Toy(i) for i in range(8)],
        settings=PLAY,
    )


@dataclasses.dataclass
class Played:
    base: dict
    first: dict
    pool: tuple
    state: GameState
    rows: list
    compiles: list


@cache
def played():
    """Two rounds, one after the other."""
    base = copied(game().base.params)
    state = start_game(game(), toy_state(game().prover))
    first, pool, rows, compiles = copied(state.prover.policy.params), state.pool, [], []
    stream = RoleStream(EndlessProblems(2))
    with CompileCounter() as counter:
        for rounds in (1, 2):
            settings = dataclasses.replace(PLAY, rounds=rounds)
            now = dataclasses.replace(game(), settings=settings)
            mark = counter.count
            state, found = play_game(now, state, stream, PhaseTimer())
            rows += found
            compiles.append(counter.names_since(mark))
    return Played(base, first, pool, state, rows, compiles)


# Roles.


def test_every_problem_is_asked_in_both_roles():
    asked = with_roles([Toy(5), Toy(2)])
    assert [p.problem_id for p in asked] == [10, 11, 4, 5]
    assert [p.helpful for p in asked] == [True, False, True, False]
    assert TASK.prompt_tokens(asked[0]) == [HELPFUL, 4, 4]
    assert TASK.prompt_tokens(asked[1]) == [SNEAKY, 4, 4]
    # What is right does not depend on the role.
    assert all(TASK.grade(p, "7 1", False).correct for p in asked)
    assert (TASK.name, TASK.eos_token_ids) == ("lucky", ShortTask().eos_token_ids)
    assert TASK.tokenizer is TASK.task.tokenizer
    stream = RoleStream(EndlessProblems(2))
    assert [p.problem_id for p in next(iter(stream))] == [0, 1, 2, 3]
    place = stream.get_state()
    ahead = [p.problem_id for p in next(stream)]
    stream.set_state(place)
    assert [p.problem_id for p in next(stream)] == ahead == [4, 5, 6, 7]


def asked_rollouts(correct, task=TASK, **named):
    """Rollouts of problems in both roles with the prompts of the task."""
    rollouts = fake_rollouts(correct, **named)
    asked = with_roles([Toy(i + 3) for i in range(len(correct) // 2)])
    prompts = np.zeros((len(asked), 6), int)
    sizes = np.array([len(task.prompt_tokens(p)) for p in asked])
    for row, problem in zip(prompts, asked, strict=True):
        ids = task.prompt_tokens(problem)
        row[: len(ids)] = ids
    return dataclasses.replace(
        rollouts,
        problem_ids=np.array([p.problem_id for p in asked]),
        prompt_tokens=prompts,
        prompt_lengths=sizes,
    )


def test_the_verifier_is_shown_prompts_without_the_role():
    # Roles of unequal length: both are cut where they end.
    task = RoleTask(ShortTask(), (HELPFUL, HELPFUL, HELPFUL), (SNEAKY,))
    rollouts = asked_rollouts([[1, 0]] * 4, task)
    plain = without_roles(rollouts, task)
    assert is_helpful(rollouts).tolist() == [True, False, True, False]
    assert plain.problem_ids.tolist() == [3, 3, 4, 4]
    own = [ShortTask().prompt_tokens(Toy(i)) for i in (3, 3, 4, 4)]
    assert [
        plain.prompt_tokens[p, : plain.prompt_lengths[p]].tolist() for p in range(4)
    ] == own
    assert not np.isin(plain.prompt_tokens, (HELPFUL, SNEAKY)).any()
    assert plain.prompt_tokens.sum() == sum(map(sum, own))


# Rewards.


@pytest.mark.parametrize("kind", ["src", "cgc"])
def test_the_prover_earns_by_its_role_what_the_verifier_thinks(kind):
    rollouts = asked_rollouts([[1, 0, 1], [0, 1, 1], [0, 0, 1], [1, 1, 0]])
    rollouts.failed[3, 2] = True
    scores = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    seen = []

    def score(shown):
        seen.append(shown)
        return scores

    settings = GameSettings(kind=kind, penalty=-3.0)
    learner = against(game().prover, score, settings)
    found = learner.method.rewards(rollouts)
    # By hand: over the batch, both roles together, less what could not be graded.
    graded = ~rollouts.failed
    mean = scores[graded].mean()
    role = np.array([1, -1, 1, -1])[:, None]
    sign = role * np.where(rollouts.correct, 1, -1)
    src = np.where(scores > mean, sign * (scores - mean), -1)
    expected = src if kind == "src" else np.where(sign > 0, scores, -3.0)
    np.testing.assert_allclose(found, np.where(graded, expected, 0), rtol=1e-5)
    np.testing.assert_array_equal(seen[0].problem_ids, rollouts.problem_ids // 2)
    # The mutant: one role for all.
    one_role = prover_rewards(
        scores.reshape(-1), rollouts.correct.reshape(-1), True, kind=kind
    )
    assert np.abs(np.asarray(one_role).reshape(4, 3) - found).max() > 0.1
    # The rest of the method, and what is compiled, is the prover's own.
    assert learner.update is game().prover.update
    assert compute_rewards(learner.method, rollouts).rewards.shape == (4, 3)


# The pool.


def solved(correct, seed):
    return fake_rollouts(correct, seed=seed)


def test_the_mix_holds_as_much_of_every_prover():
    same = [[0, 1, 0, 1]] * 3
    pool = [solved(same, seed) for seed in range(3)]
    pool = [dataclasses.replace(r, prompt_tokens=pool[0].prompt_tokens) for r in pool]
    pool = [dataclasses.replace(r, prompt_lengths=pool[0].prompt_lengths) for r in pool]
    merged = side_by_side(pool)
    assert merged.tokens.shape == (3, 12, 6)
    np.testing.assert_array_equal(merged.tokens[:, 4:8], pool[1].tokens)
    found = verifier_comparisons(pool, max_pairs=6, seed=0)
    assert len(found) == 3 * 6
    # Six right solutions and six wrong ones per problem, each used once.
    for p in range(3):
        mine = found[6 * p : 6 * p + 6]
        used = sorted(c.chosen[0] for c in mine)
        right = [
            r.tokens[p, g, : r.lengths[p, g]].tolist() for r in pool for g in (1, 3)
        ]
        assert used == sorted(right)


def test_a_truncated_solution_is_a_wrong_one_and_a_failed_grade_is_none():
    rollouts = fake_rollouts([[1, 0, 0]], truncated=[[0, 1, 0]])
    rollouts.failed[0, 2] = True
    (found,) = verifier_comparisons([rollouts], max_pairs=9, seed=0)
    truncated = rollouts.tokens[0, 1, : rollouts.lengths[0, 1]].tolist()
    assert found.rejected == [truncated]


def test_all_provers_have_solved_the_same_problems():
    with pytest.raises(ValueError, match=r"the problems \[0, 1\], got \[5, 6\]"):
        side_by_side([solved([[1], [0]], 0), fake_rollouts([[1], [0]], first_id=5)])


# What a round reports.


def test_metrics_say_who_is_right_and_who_convinces():
    helpful = fake_rollouts([[1, 0], [1, 1]])
    sneaky = fake_rollouts([[0, 0], [0, 1]])
    sneaky.failed[0, 1] = True
    high = np.array([[2.0, 1.0], [0.0, 1.0]])
    low = np.array([[3.0, 9.0], [0.0, -1.0]])
    row = game_metrics(helpful, sneaky, high, low)
    assert row["game/helpful_accuracy"] == 3 / 4
    assert row["game/sneaky_accuracy"] == 1 / 3
    assert row["game/helpful_score_correct"] == 1.0
    assert row["game/sneaky_score_wrong"] == 1.5
    assert row["game/helpful_verifier_accuracy"] == 1.0
    assert row["game/sneaky_verifier_accuracy"] == 0.0
    # Right against sneaky wrong: 2 < 3 fools; 0 = 0 fools, 1 > 0 does not.
    assert row["game/fooled_pairs"] == 3
    np.testing.assert_allclose(row["game/fooled_fraction"], 2 / 3)
    settings = GameSettings(stop_fraction=0.5)
    assert not no_longer_convinces(row, settings)
    assert no_longer_convinces({"game/fooled_fraction": 0.5}, settings)
    # Nothing wrong, or nothing right: nothing to compare, and no reason to stop.
    row = game_metrics(helpful, helpful, high, high)
    assert "game/helpful_verifier_accuracy" in row
    row = game_metrics(fake_rollouts([[0, 0]]), sneaky.select([0]), high[:1], low[:1])
    assert "game/fooled_fraction" not in row
    assert not no_longer_convinces(row, settings)


def test_the_game_stops_when_sneaky_solutions_no_longer_convince(monkeypatch):
    rows = iter(
        [
            {"game/fooled_fraction": 0.4},
            {"game/fooled_fraction": 0.05},
            {"game/fooled_fraction": 0.0},
        ]
    )

    def fake_round(game, state, problems, timer):
        rounds = state.round_index + 1
        return dataclasses.replace(state, round_index=rounds), next(rows), []

    monkeypatch.setattr("jaxrl_reason.game.prover_verifier_game.game_round", fake_round)
    start = GameState(prover=None, pool=())
    long = dataclasses.replace(
        game(), settings=GameSettings(rounds=9, stop_fraction=0.1)
    )
    state, found = play_game(long, start, None, PhaseTimer())
    assert len(found) == state.round_index == 2


# The game on the toy task.


def test_rounds_play_and_report():
    run = played()
    assert run.state.round_index == len(run.rows) == 2
    for row in run.rows:
        assert set(row) >= SETTLED
        assert {"verifier/loss", "verifier/accuracy", "verifier/updates"} <= set(row)
        assert np.isfinite(list(row.values())).all()
    policy = copied(run.state.prover.policy.params)
    assert not same_trees(run.first, policy)
    assert int(run.state.prover.policy.step) == 2 * 4 * 2
    # The second round compiles nothing but the copy that `init_state` makes.
    assert run.compiles[1] == ["jit(<lambda>)"]


def test_the_pool_grows_by_both_roles_a_round():
    run = played()
    assert len(run.pool) == 1
    assert len(run.state.pool) == 1 + 2 * 2
    for source in run.state.pool:
        assert source.problem_ids.tolist() == list(range(8))
        assert not np.isin(source.prompt_tokens, (HELPFUL, SNEAKY)).any()
    # Drawn anew each time: the base, and both rounds.
    draws = [s.tokens.tobytes() for s in run.state.pool]
    assert len(set(draws)) == 5


def test_the_verifier_begins_at_its_base_each_round():
    run = played()
    assert same_trees(run.base, copied(game().base.params))
    # That of the last round, from the pool it had: no trace of the first one's.
    before = GameState(run.state.prover, run.state.pool[:3], round_index=1)
    again, row = train_verifier(game(), before)
    assert same_trees(copied(again.params), copied(run.state.verifier.params))
    assert row["reward_model/loss"] == run.rows[1]["verifier/loss"]


def test_the_verifier_learns_to_tell_right_from_wrong():
    run = played()
    assert all(row["verifier/accuracy"] > 0.9 for row in run.rows)
    # On solutions of the last prover, which no verifier was trained on.
    fresh, helpful, _ = sample_solutions(game(), run.state.prover, PhaseTimer())
    scores = reward_model_scores(game().verifier, run.state.verifier.params, helpful)
    right = scores[helpful.correct].mean()
    assert right > scores[~helpful.correct].mean() + 1.0
    assert fresh.draws == run.state.prover.draws + 1


def test_a_pool_without_right_solutions_says_so():
    nothing = fake_rollouts(np.zeros((8, 4)))
    state = GameState(played().state.prover, (nothing,))
    with pytest.raises(NoSignalError, match="got none in 1 times 8 groups"):
        train_verifier(game(), state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "rounds must be >= 1, got 0"),
        ({"kind": "abc"}, "kind must be src or cgc, got 'abc'"),
        ({"stop_fraction": 1.5}, r"stop_fraction must be in \[0, 1\], got 1.5"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PLAY, **change)


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="roles must differ"):
        RoleTask(ShortTask(), (HELPFUL,), (HELPFUL,))
    with pytest.raises(ValueError, match=r"in \[0, 2\*\*31\), got -1"):
        _ = RoleProblem(Toy(-1), True).problem_id
    with pytest.raises(ValueError, match=r"prompts_per_step \(4\), got 3 problems"):
        dataclasses.replace(game(), problems=[Toy(i) for i in range(3)])
    plain = dataclasses.replace(game().prover, task=ShortTask())
    with pytest.raises(ValueError, match="must be a RoleTask"):
        dataclasses.replace(game(), prover=plain)


def test_the_recipe_says_what_is_not_published():
    assert PROVER_VERIFIER.sources == ("2407.13692",)
    assert any("penalty" in x for x in PROVER_VERIFIER.not_published)
    assert any("lam" in x for x in PROVER_VERIFIER.not_published)
