"""Rounds of sampling and offline training raise the fraction of right answers."""

import dataclasses
from functools import cache, partial

import numpy as np
import pytest

from jaxrl_reason.data.preference_pairs import PreferencePairs
from jaxrl_reason.data.rejection_sampling import correct_and_complete
from jaxrl_reason.learner.sft import SFTSettings, build_sft_learner
from jaxrl_reason.learner.state import init_state
from jaxrl_reason.offline.iterative import (
    iterative_dpo_round,
    rft_round,
    round_seed,
    star_round,
    train_on_examples,
)
from jaxrl_reason.offline.preference_batch import PreferenceSettings
from jaxrl_reason.offline.preference_methods import irpo
from jaxrl_reason.offline.preference_training import build_preference_learner
from jaxrl_reason.offline.sample_rounds import (
    HintedTask,
    RoundSettings,
    as_examples,
    as_pairs,
    build_round_sampler,
    response_texts,
    sample_round,
)
from jaxrl_reason.rl.collect import NoSignalError
from jaxrl_reason.sampler import Completions
from tests.rl.helpers import (
    LUCKY,
    OPTIMIZER,
    LuckyTask,
    Toy,
    copied,
    fake_rollouts,
    first_policy,
    one_device,
    random_params,
    same_trees,
    tiny_model,
)

ROUND = RoundSettings(
    prompts_per_call=4, group_size=8, prompt_width=3, max_new_tokens=6
)
PROBLEMS = [Toy(i) for i in range(8)]
PAIRS = PreferenceSettings(
    pairs_per_update=20,
    epochs=4,
    row_width=36,
    pairs_per_row=3,
    max_prompt=3,
    max_response=6,
)
EXAMPLES = SFTSettings(
    examples_per_update=8, row_width=18, slots_per_row=4, max_response=6
)


@cache
def sampler():
    return build_round_sampler(tiny_model(), LuckyTask(), ROUND, one_device())


@cache
def supervised():
    return build_sft_learner(tiny_model(), EXAMPLES, OPTIMIZER, one_device())


def accuracy(state):
    """Of a draw that no round here takes."""
    return sample_round(sampler(), state.params, PROBLEMS, draw=99).correct.mean()


class UnluckyTask(LuckyTask):
    """Nothing is right."""

    def grade(self, problem, response_text, truncated):
        found = super().grade(problem, response_text, truncated)
        return dataclasses.replace(found, correct=False)


def test_a_round_of_iterative_dpo_raises_the_share_of_right_answers():
    learner = build_preference_learner(
        tiny_model(), irpo(), PAIRS, OPTIMIZER, one_device()
    )
    start = copied(first_policy().params)
    before, policy, rows = accuracy(first_policy()), first_policy(), []
    for round_index in range(2):
        policy, row, rollouts = iterative_dpo_round(
            sampler(), learner, policy, PROBLEMS, round_index=round_index, max_pairs=4
        )
        rows.append(row)
    after = accuracy(policy)
    assert after > before + 0.3
    # The policy of the first round was kept, and the second started from its end.
    assert same_trees(start, copied(first_policy().params))
    assert rows[1]["reward/accuracy"] > rows[0]["reward/accuracy"]
    assert set(rollouts.policy_step) == {2}
    assert rows[0]["preference/updates"] == 4 * -(-rows[0]["preference/pairs"] // 20)
    assert np.isfinite(list(rows[0].values())).all()
    assert 0 < rows[0]["preference/accuracy"] <= 1
    names = {"preference/loss", "preference/margin", "preference/nll"}
    assert names | {"rollout/truncated_fraction"} <= set(rows[0])


def test_a_round_of_rft_raises_the_share_of_right_answers():
    policy = first_policy()
    trained, row, rollouts = rft_round(
        sampler(), supervised(), OPTIMIZER, policy, PROBLEMS, epochs=20
    )
    before, after = accuracy(policy), accuracy(trained)
    assert after > before + 0.3
    complete = correct_and_complete(rollouts.correct, rollouts.truncated)
    assert 0 < row["rollout/kept"] <= complete.sum()
    assert row["sft/updates"] == 20 * -(-row["rollout/kept"] // 8)
    assert np.isfinite(list(row.values())).all()

    # The same round is the same; original examples are trained on besides.
    again, _, _ = rft_round(
        sampler(), supervised(), OPTIMIZER, policy, PROBLEMS, epochs=20
    )
    assert same_trees(copied(trained.params), copied(again.params))
    more = [([3], [7, 1])] * 9
    _, both, _ = rft_round(
        sampler(), supervised(), OPTIMIZER, policy, PROBLEMS, original=more
    )
    assert both["rollout/kept"] == row["rollout/kept"]
    assert both["sft/updates"] == -(-(row["rollout/kept"] + 9) // 8)


HINT = 10


def fake_sample(params, prompts, lengths, keys):
    """Right with a hint or a prompt of 3s, else wrong; the last sample is truncated."""
    prompts = np.repeat(np.asarray(prompts), ROUND.group_size, axis=0)
    right = (prompts == HINT).any(axis=1) | (prompts[:, 0] == 3)
    first = np.where(right, 7 + np.arange(len(prompts)) % 3, 5)
    truncated = np.arange(len(prompts)) % ROUND.group_size == ROUND.group_size - 1
    tokens = np.stack([first, np.where(truncated, 5, 1)], axis=1)
    return Completions(
        tokens=tokens,
        logprobs=np.zeros(tokens.shape, np.float32),
        lengths=np.full(len(tokens), 2),
        truncated=truncated,
    )


def recorded(seen):
    """Parts whose update only notes what it was given."""

    def update(state, batch, num_active):
        seen.append((state.params, batch))
        return state, {"loss": (1.0, 1.0)}

    return dataclasses.replace(supervised(), update=update)


def trained_sequences(batch):
    """[(prompt and response)] of a packed batch, sorted."""
    tokens, segments = np.asarray(batch.tokens), np.asarray(batch.segment_ids)
    rows = [
        r for k in range(len(tokens)) for r in zip(tokens[k], segments[k], strict=1)
    ]
    found = [
        row[ids == i].tolist() for row, ids in rows for i in range(1, ids.max() + 1)
    ]
    return sorted(found)


def test_star_trains_the_base_anew_and_learns_hinted_answers_without_the_hint():
    fake = dataclasses.replace(sampler(), sample=fake_sample)
    base = first_policy()
    policy = init_state(base.params, OPTIMIZER.build(), copy=True)
    policy = dataclasses.replace(policy, params=random_params(one_device(), seed=8))
    run = partial(star_round, fake, optimizer=OPTIMIZER, policy=policy, base=base)
    run = partial(run, problems=PROBLEMS, round_index=1, max_per_prompt=2)

    # Problems 0 and 4 have the prompts [3] and [3, 3] and are right without a hint.
    seen = []
    _, row, _ = run(learner=recorded(seen))
    assert (row["rollout/kept"], row["rollout/kept_with_hint"]) == (4, 0)
    assert row["groups/solved_fraction"] == 2 / 8
    assert same_trees(copied(seen[0][0]), copied(base.params))
    assert {tuple(x[:-2]) for x in trained_sequences(seen[0][1])} == {(3,), (3, 3)}

    seen = []
    _, row, _ = run(learner=recorded(seen), hint=lambda problem: [4, HINT])
    assert (row["rollout/kept"], row["rollout/kept_with_hint"]) == (4, 12)
    found = [x for _, batch in seen for x in trained_sequences(batch)]
    assert len(found) == 16
    prompts = sorted(tuple(x[:-2]) for x in found)
    own = [tuple(LuckyTask().prompt_tokens(p)) for p in PROBLEMS]
    assert prompts == sorted(2 * own)
    # Two of each that differ, all of them right and complete.
    assert len({tuple(x) for x in found}) == 2 * len(set(own))
    assert all(x[-2] in LUCKY and x[-1] == 1 for x in found)


def test_a_hinted_task_is_the_task_with_other_prompts():
    plain = LuckyTask()
    task = HintedTask(plain, lambda problem: [10, 11])
    assert task.prompt_tokens(Toy(1)) == [10, 11]
    assert task.grade(Toy(1), "7 1", False).correct
    assert (task.name, task.eos_token_ids) == ("lucky", plain.eos_token_ids)
    assert task.tokenizer is plain.tokenizer


def test_rounds_with_nothing_to_learn_from_say_so():
    unlucky = dataclasses.replace(sampler(), task=UnluckyTask())
    learner = build_preference_learner(
        tiny_model(), irpo(), PAIRS, OPTIMIZER, one_device()
    )
    with pytest.raises(NoSignalError, match=r"a right and a wrong.* none of 8 \(0%"):
        iterative_dpo_round(unlucky, learner, first_policy(), PROBLEMS, round_index=0)
    with pytest.raises(NoSignalError, match="a right complete response"):
        rft_round(unlucky, supervised(), OPTIMIZER, first_policy(), PROBLEMS)


def test_rollouts_become_pairs_and_examples():
    rollouts = fake_rollouts([[1, 0, 1], [0, 1, 0]], lengths=[[2, 3, 1], [1, 6, 4]])
    places = PreferencePairs(np.array([0, 1]), np.array([2, 1]), np.array([1, 0]))
    first, second = as_pairs(rollouts, places)
    assert first.chosen == rollouts.tokens[0, 2, :1].tolist()
    assert first.rejected == rollouts.tokens[0, 1, :3].tolist()
    assert second.prompt == (
        rollouts.prompt_tokens[1, : rollouts.prompt_lengths[1]].tolist()
    )
    examples = as_examples(rollouts, rollouts.correct)
    assert [len(response) for _, response in examples] == [2, 1, 6]
    assert examples[2][0] == second.prompt
    texts = response_texts(rollouts, LuckyTask().tokenizer)
    assert [[len(t.split()) for t in group] for group in texts] == [
        [2, 3, 1],
        [1, 6, 4],
    ]


def test_every_round_has_a_seed_of_its_own():
    seeds = [
        round_seed(seed, round_index) for seed in range(4) for round_index in range(4)
    ]
    assert len(set(seeds)) == 16
    with pytest.raises(ValueError, match="round_index must be >= 0, got -1"):
        round_seed(0, -1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group_size": 0}, "group_size must be >= 1, got 0"),
        ({"prompts_per_call": 0}, "prompts_per_call must be >= 1, got 0"),
        ({"temperature": 0}, r"temperature must be from 0.001 on .* got 0"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(ROUND, **change)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"of prompts_per_call \(4\), got 6"):
        sample_round(sampler(), None, PROBLEMS[:6], draw=0)
    long = dataclasses.replace(ROUND, max_new_tokens=22)
    with pytest.raises(ValueError, match=r"context_length \(24\), got 25"):
        build_round_sampler(tiny_model(), LuckyTask(), long, one_device())
    with pytest.raises(ValueError, match="at least 1, got 0 and 1"):
        train_on_examples(supervised(), first_policy(), [], epochs=1, seed=0)
