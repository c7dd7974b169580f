"""Sampling, grading, and the filter and refill of dynamic sampling."""

import dataclasses
import threading

import jax
import numpy as np
import pytest

from jaxrl_reason.rl.collect import (
    NoSignalError,
    collect_groups,
    compute_rewards,
    sample_groups,
)
from jaxrl_reason.rl.method import groups_with_signal
from jaxrl_reason.rl.rollouts import concatenate
from jaxrl_reason.runs.metrics_log import PhaseTimer
from jaxrl_reason.sampler import sampling_keys
from jaxrl_reason.tasks.grade_responses import GraderError
from tests.rl.helpers import (
    ENDS,
    SETTINGS,
    EndlessProblems,
    LuckyTask,
    Toy,
    fake_rollouts,
    first_policy,
    one_device,
    shared_pieces,
    toy_dapo,
)

RIGHT, WRONG, MIXED = [1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]


def collect(rounds, *, method=None, num_prompts=3, surplus=None, max_rounds=5):
    """`collect_groups` on rounds of given grades, and the draws it asked for."""
    draws = []

    def draw_groups(problems, draw):
        draws.append((draw, [p.problem_id for p in problems]))
        n = len(draws) - 1
        return fake_rollouts(rounds[n], first_id=problems[0].problem_id, seed=n)

    collected = collect_groups(
        draw_groups,
        EndlessProblems(num_prompts),
        method or toy_dapo(),
        num_prompts=num_prompts,
        surplus=surplus,
        first_draw=10,
        max_rounds=max_rounds,
    )
    return collected, draws


def test_rounds_go_on_until_the_batch_is_full_and_the_surplus_is_kept():
    rounds = [[RIGHT, MIXED, WRONG], [WRONG, WRONG, RIGHT], [MIXED, MIXED, MIXED]]
    found, draws = collect(rounds)
    # Groups 1, 6, 7 fill the batch, oldest first; 8 has signal and no room.
    assert found.rollouts.problem_ids.tolist() == [1, 6, 7]
    assert found.surplus.problem_ids.tolist() == [8]
    assert found.fresh.problem_ids.tolist() == list(range(9))
    assert (found.rounds, found.accepted) == (3, 4)
    # Each round has problems and randomness of its own.
    assert draws == [(10, [0, 1, 2]), (11, [3, 4, 5]), (12, [6, 7, 8])]


def test_the_surplus_comes_first_in_the_next_batch():
    surplus = fake_rollouts([MIXED, MIXED], first_id=100)
    found, draws = collect([[RIGHT, MIXED, MIXED]], surplus=surplus)
    assert found.rollouts.problem_ids.tolist() == [100, 101, 1]
    assert found.surplus.problem_ids.tolist() == [2]
    # What is old is not counted as sampled now.
    assert (found.rounds, found.accepted, len(found.fresh.problem_ids)) == (1, 2, 3)
    assert len(draws) == 1


def test_no_surplus_is_none():
    found, _ = collect([[MIXED, MIXED, MIXED]])
    assert found.surplus is None


def test_nothing_is_lost_or_used_twice_over_many_steps():
    rng = np.random.default_rng(0)
    stream, surplus, drawn, used = EndlessProblems(4), None, [], []

    def draw_groups(problems, draw):
        grades = rng.random((4, 4)) < 0.1
        drawn.append(fake_rollouts(grades, first_id=problems[0].problem_id, seed=draw))
        return drawn[-1]

    for _ in range(20):
        found = collect_groups(
            draw_groups,
            stream,
            toy_dapo(),
            num_prompts=4,
            surplus=surplus,
            first_draw=len(drawn),
            max_rounds=20,
        )
        surplus = found.surplus
        assert len(found.rollouts.problem_ids) == 4
        used += found.rollouts.problem_ids.tolist()
    everything = concatenate(drawn)
    mixed = everything.correct.any(1) & ~everything.correct.all(1)
    left = surplus.problem_ids.tolist() if surplus else []
    assert used + left == everything.problem_ids[mixed].tolist()


def test_the_filter_looks_at_accuracy_and_not_at_the_shaped_reward():
    # Two groups are all right and all wrong, but of different lengths, so that their
    # shaped rewards differ: a filter on rewards would keep them (trap 24).
    lengths = np.array([[1, 6, 5, 2]] * 3)
    graded = dataclasses.replace(
        fake_rollouts([RIGHT, WRONG, MIXED], lengths=lengths), lengths=lengths
    )
    method = toy_dapo()
    shaped = method.rewards(graded)
    assert (shaped.max(1) != shaped.min(1)).all()  # the mutant keeps all three
    found = collect_groups(
        lambda problems, draw: graded,
        EndlessProblems(3),
        method,
        num_prompts=1,
        surplus=None,
        first_draw=0,
        max_rounds=1,
    )
    assert found.accepted == 1
    assert found.rollouts.problem_ids.tolist() == [2]
    np.testing.assert_array_equal(found.rollouts.rewards[0], shaped[2])


def test_rewards_of_plus_and_minus_one_do_not_lose_groups_half_right_or_less():
    # Trap 24: `mean reward > 0` means "some right" for rewards of 0 and 1 only.
    method = toy_dapo(soft_overlong=False)
    grades = [[0, 1, 0, 0], [0, 1, 1, 0], [1, 1, 1, 0]]
    rewards = method.rewards(fake_rollouts(grades))
    assert set(rewards.flat) == {-1.0, 1.0}
    mutant = (rewards.mean(1) > 0) & (rewards.mean(1) < 1)
    assert mutant.tolist() == [False, False, True]
    found, _ = collect([grades], method=method)
    assert found.accepted == 3


def test_without_dynamic_sampling_one_round_is_the_batch():
    method = toy_dapo(dynamic_sampling=False)
    found, draws = collect([[RIGHT, WRONG, WRONG]], method=method)
    assert found.rollouts.problem_ids.tolist() == [0, 1, 2]
    assert (found.rounds, found.accepted, found.surplus) == (1, 3, None)
    assert len(draws) == 1


@pytest.mark.parametrize(
    ("grades", "fractions", "advice"),
    [
        ([WRONG, WRONG, MIXED], "0% all right, 67% all wrong", "use easier problems"),
        ([RIGHT, RIGHT, WRONG], "67% all right, 33% all wrong", "use harder problems"),
    ],
)
def test_no_signal_within_the_bound_says_what_was_seen_and_what_to_change(
    grades, fractions, advice
):
    with pytest.raises(NoSignalError) as error:
        collect([grades] * 2, num_prompts=3, max_rounds=2)
    message = str(error.value)
    assert "must fill 3 groups" in message
    assert f"of 6 sampled ({fractions})" in message
    assert advice in message
    assert "raise max_rounds" in message


class MoodyTask(LuckyTask):
    """A grader that raises on answers that start with an odd token."""

    def grade(self, problem, response_text, truncated):
        if int(response_text.split()[0]) % 2:
            raise KeyError("odd")
        return super().grade(problem, response_text, truncated)


def test_a_grader_that_raises_is_counted_and_the_batch_goes_on(caplog):
    # Traps 34 and 39: failed is neither right nor wrong, and costs no other response.
    usual = draw_from_policy(range(4))
    moody = draw_from_policy(range(4), task=MoodyTask())
    odd = usual.tokens[..., 0] % 2 == 1
    assert 0 < odd.sum() < odd.size
    np.testing.assert_array_equal(moody.failed, odd)
    np.testing.assert_array_equal(moody.correct, usual.correct & ~odd)
    said = f"failed on {odd.sum()} of {odd.size} responses, first KeyError: 'odd'"
    assert [said in record.getMessage() for record in caplog.records] == [True]


def test_a_grader_that_always_raises_ends_the_run():
    class Broken(LuckyTask):
        def grade(self, problem, response_text, truncated):
            raise ZeroDivisionError

    with pytest.raises(GraderError, match="failed on 16 of 16 responses, first Zero"):
        draw_from_policy(range(4), task=Broken())


def test_a_failed_grade_has_the_mean_reward_of_its_group_and_no_part_in_the_filter():
    groups = fake_rollouts([[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    failed = np.array([[0, 0, 0, 1], [1, 0, 0, 0], [1, 1, 1, 1]], bool)
    groups = dataclasses.replace(
        groups, failed=failed, correct=groups.correct & ~failed
    )
    graded = compute_rewards(toy_dapo(soft_overlong=False), groups)
    third = np.float32(-1 / 3)
    wanted = [[1, -1, -1, third], [-1, -1, -1, -1], [0, 0, 0, 0]]
    np.testing.assert_array_equal(graded.rewards, np.array(wanted, np.float32))
    found = groups_with_signal(graded)
    assert found.tolist() == [True, False, False]


def test_a_reward_that_is_not_finite_counts_as_failed():
    # Trap 39.
    def rewards(rollouts):
        return np.array([[1.0, np.nan, 0.0, np.inf]])

    method = dataclasses.replace(toy_dapo(), rewards=rewards)
    graded = compute_rewards(method, fake_rollouts([MIXED]))
    assert graded.failed.tolist() == [[False, True, False, True]]
    assert graded.rewards.tolist() == [[1.0, 0.5, 0.0, 0.5]]


def test_rewards_of_another_shape_are_refused():
    method = dataclasses.replace(toy_dapo(), rewards=lambda r: np.zeros(3))
    with pytest.raises(ValueError, match=r"shape \[P, G\] = \(1, 4\).*got \(3,\)"):
        compute_rewards(method, fake_rollouts([MIXED]))


@pytest.mark.parametrize("size", [0, SETTINGS.prompt_width + 1])
def test_a_prompt_that_does_not_fit_is_refused_by_name(size):
    class Task(LuckyTask):
        def prompt_tokens(self, problem):
            return [3] * size

    said = f"1 to {SETTINGS.prompt_width} tokens, got {size} for problem 17"
    with pytest.raises(ValueError, match=said):
        draw_from_policy([17], task=Task())


def test_a_sampler_that_raises_leaves_no_grading_thread():
    def breaks(params, prompts, lengths, keys, on_response):
        for row in range(SETTINGS.group_size):
            on_response(row, [3], False)
        assert "grading_0" in [x.name for x in threading.enumerate()]
        raise OSError("no server")

    breaks.reports_responses = True
    with pytest.raises(OSError, match="no server") as caught:
        draw_from_policy(range(4), sample=breaks)
    assert "grading_0" not in [x.name for x in threading.enumerate()]
    assert caught  # its traceback holds what the sampler left behind


def draw_from_policy(ids, *, seed=0, draw=0, task=None, sample=None):
    timer = PhaseTimer()
    rollouts = sample_groups(
        task=task or LuckyTask(),
        sample=sample or shared_pieces(1.0).sample,
        params=first_policy().params,
        problems=[Toy(i) for i in ids],
        group_size=SETTINGS.group_size,
        prompt_width=SETTINGS.prompt_width,
        seed=seed,
        draw=draw,
        policy_step=3,
        batch_sharding=one_device(),
        timer=timer,
    )
    assert set(timer.seconds) == {"rollout", "grade"}
    return rollouts


@pytest.fixture(scope="module")
def many():
    """Enough samples to meet every kind of ending."""
    return concatenate([draw_from_policy(range(n, n + 4)) for n in range(0, 80, 4)])


def test_the_order_of_problems_does_not_matter(many):
    # Trap 28.
    order = [9, 2, 7, 4]
    shuffled = draw_from_policy(order)
    for name in ("tokens", "lengths", "correct", "prompt_tokens"):
        wanted = getattr(many, name)[order]
        np.testing.assert_array_equal(getattr(shuffled, name), wanted)
    np.testing.assert_allclose(
        shuffled.sampler_logprobs, many.sampler_logprobs[order], atol=1e-5
    )


def test_keys_by_position_would_depend_on_the_order():
    # Trap 28, kept as a mutant: keys of row numbers in place of problem ids.
    ids = np.array([9, 2, 7, 4], np.uint32)
    by_id = [jax.random.key_data(sampling_keys(0, 0, x, 4)) for x in (ids, ids[::-1])]
    by_row = jax.random.key_data(sampling_keys(0, 0, np.arange(4), 4))
    groups = [np.asarray(x).reshape(4, -1) for x in by_id]
    np.testing.assert_array_equal(groups[0], groups[1][::-1])
    assert (np.reshape(by_row, (4, -1)) != np.reshape(by_row, (4, -1))[::-1]).any()


def test_every_draw_seed_and_sample_has_its_own_randomness(many):
    here = draw_from_policy(range(4))
    np.testing.assert_array_equal(here.tokens, many.tokens[:4])
    assert (draw_from_policy(range(4), draw=1).tokens != here.tokens).any()
    assert (draw_from_policy(range(4), seed=1).tokens != here.tokens).any()
    # A key used twice would repeat samples inside a group.
    assert len({row.tobytes() for row in many.tokens[0]}) > 1


def sampled(rollouts):
    """[P, G, T] True on sampled tokens."""
    return np.arange(rollouts.tokens.shape[-1]) < rollouts.lengths[..., None]


def test_lengths_count_the_end_token_and_padding_follows(many):
    inside = sampled(many)
    assert not many.tokens[~inside].any()
    assert not many.sampler_logprobs[~inside].any()
    assert (many.sampler_logprobs[inside] < 0).all()
    last = np.take_along_axis(many.tokens, many.lengths[..., None] - 1, -1)[..., 0]
    assert np.isin(last[~many.truncated], ENDS).all()
    assert {*last[~many.truncated]} == set(ENDS)  # both kinds of end occur


def test_truncated_means_stopped_by_the_limit(many):
    # Traps 26 and 32b, with their wrong forms beside the right one.
    limit = SETTINGS.max_new_tokens
    has_end = np.isin(np.where(sampled(many), many.tokens, 0), ENDS).any(-1)
    np.testing.assert_array_equal(many.truncated, ~has_end)
    assert (many.lengths[many.truncated] == limit).all()
    by_one_end_token = ~((many.tokens == ENDS[0]) & sampled(many)).any(-1)
    assert (by_one_end_token != many.truncated).any()
    by_length = many.lengths == limit  # an EOS token may be the last one allowed
    assert (by_length != many.truncated).any()


def test_grades_belong_to_their_responses(many):
    first = many.tokens[..., 0]
    lucky = np.isin(first, (7, 8, 9))
    np.testing.assert_array_equal(many.correct, lucky & ~many.truncated)
    np.testing.assert_array_equal(many.format_ok, ~many.truncated)
    assert (lucky & many.truncated).any()
    assert not many.failed.any()
    assert (many.policy_step == 3).all()


def test_a_grader_that_fails_is_told_from_a_wrong_answer():
    class Task(LuckyTask):
        def grade(self, problem, response_text, truncated):
            graded = super().grade(problem, response_text, truncated)
            return dataclasses.replace(graded, failed=problem.problem_id == 2)

    rollouts = draw_from_policy(range(4), task=Task())
    assert rollouts.failed.tolist() == [[i == 2] * 4 for i in range(4)]
