import dataclasses

import numpy as np
import pytest

from jaxrl_reason.rl.heldout import (
    build_heldout_evaluation,
    samples_for_people,
)
from jaxrl_reason.tasks.reward_task import RewardTask
from tests.rl.helpers import (
    SETTINGS,
    LuckyTask,
    Toy,
    fake_rollouts,
    first_policy,
    one_device,
    shared_pieces,
    tiny_model,
)

PROBLEMS = [Toy(i) for i in range(10)]


def evaluation(**changes):
    settings = {
        "num_samples": SETTINGS.group_size,
        "temperature": 1.0,
        "max_new_tokens": SETTINGS.max_new_tokens,
        "prompt_width": SETTINGS.prompt_width,
        "batch_size": 16,
        "seed": 0,
        "batch_sharding": one_device(),
    }
    problems = changes.pop("problems", PROBLEMS)
    return build_heldout_evaluation(
        tiny_model(), LuckyTask(), problems, **{**settings, **changes}
    )


@pytest.fixture(scope="module")
def sampled():
    # The sampler of the training tests has the same settings and is compiled once.
    return dataclasses.replace(evaluation(), sample=shared_pieces(1.0).sample)


def test_an_evaluation_needs_problems():
    with pytest.raises(ValueError, match="at least one problem, got none"):
        evaluation(problems=[])


@pytest.mark.parametrize(
    ("batch_size", "num_samples", "chunk"),
    [(16, 4, 4), (4, 4, 1), (2, 4, 1), (99, 1, 10)],
)
def test_chunks_fill_the_batch(batch_size, num_samples, chunk):
    built = evaluation(batch_size=batch_size, num_samples=num_samples)
    assert built.chunk == chunk


def test_every_problem_is_answered_once_in_order(sampled):
    assert sampled.chunk == 4  # the last chunk holds two problems and padding
    rollouts = sampled.run(first_policy().params)
    assert rollouts.problem_ids.tolist() == list(range(10))
    assert rollouts.lengths.shape[1] == 4
    assert sampled.accuracy(first_policy().params) == rollouts.correct.mean()
    assert 0 < rollouts.correct.mean() < 1


def test_the_chunks_do_not_matter(sampled):
    whole = sampled.run(first_policy().params)
    part = dataclasses.replace(sampled, problems=PROBLEMS[6:9][::-1])
    rollouts = part.run(first_policy().params)
    np.testing.assert_array_equal(rollouts.tokens, whole.tokens[[8, 7, 6]])


def test_it_draws_from_a_stream_of_its_own(sampled):
    # The first draw of a run with the same seed and problems has other samples.
    from tests.rl.test_collect import draw_from_policy

    trained_on = draw_from_policy(range(4))
    assert (sampled.run(first_policy().params).tokens[:4] != trained_on.tokens).any()


def test_greedy_answers_are_the_same_for_every_seed():
    greedy = evaluation(num_samples=1, temperature=0.0)
    runs = [dataclasses.replace(greedy, seed=seed) for seed in (0, 1)]
    answers = [run.run(first_policy().params).tokens for run in runs]
    np.testing.assert_array_equal(*answers)


def test_samples_for_people():
    rollouts = fake_rollouts([[1, 0], [0, 1], [1, 1]], lengths=[[2, 6], [6, 3], [1, 1]])
    rollouts = dataclasses.replace(
        rollouts,
        rewards=np.array([[1, -1], [-2, 1], [1, 1]], np.float32),
        truncated=np.array([[0, 0], [1, 0], [0, 0]], bool),
    )
    rows = samples_for_people(LuckyTask(), rollouts, dict(enumerate(PROBLEMS)), 2)
    assert len(rows) == 2
    answer = " ".join(map(str, rollouts.tokens[0, 0, :2]))
    n = rollouts.prompt_lengths[0]
    assert rows[0] == {
        "problem_id": 0,
        "prompt": " ".join(map(str, rollouts.prompt_tokens[0, :n])),
        "answer": answer,
        "reward": 1.0,
        "parsed": answer.split()[0],
        "correct": True,
        "length": 2,
        "truncated": False,
    }
    assert rows[1]["truncated"]
    assert (
        len(samples_for_people(LuckyTask(), rollouts, dict(enumerate(PROBLEMS)), 9))
        == 3
    )


class Moody(LuckyTask):
    """A grader that raises on some responses, or on all."""

    always = False
    raised = 0

    def grade(self, problem, response_text, truncated):
        if self.always or int(response_text.split()[0]) % 2:
            Moody.raised += 1
            raise KeyError("odd")
        return super().grade(problem, response_text, truncated)


class Broken(Moody):
    always = True


def test_a_grader_that_raises_does_not_end_an_evaluation(sampled, caplog):
    usual = sampled.run(first_policy().params)
    odd = usual.tokens[..., 0] % 2 == 1
    moody = dataclasses.replace(sampled, task=Moody()).run(first_policy().params)
    np.testing.assert_array_equal(moody.failed, odd)
    np.testing.assert_array_equal(moody.correct, usual.correct & ~odd)
    before = Moody.raised
    rows = samples_for_people(Moody(), moody, dict(enumerate(PROBLEMS)), 10)
    assert Moody.raised == before  # what failed is not tried again: it may hang
    said = [row["parsed"] is None for row in rows]
    assert said == odd[:, 0].tolist()
    broken = dataclasses.replace(sampled, task=Broken()).run(first_policy().params)
    assert broken.failed.all()
    assert "failed on 16 of 16 responses, first KeyError" in caplog.text


def test_a_reward_that_fails_on_the_first_chunks_does_not_end_an_evaluation(sampled):
    asked = []

    def late(prompt, response, row):
        asked.append(response)
        if len(asked) <= 16:  # 4 problems of 4 samples
            raise OSError("no server yet")
        return {"right": 1.0, "short": 0.5}

    task = RewardTask(LuckyTask(), late)
    found = dataclasses.replace(sampled, task=task).run(first_policy().params)
    assert found.failed[:4].all()
    assert not found.failed[4:].any()
    np.testing.assert_array_equal(found.correct, ~found.failed & ~found.truncated)


def test_samples_for_people_ask_no_reward_again(sampled):
    asked = []

    def odd(prompt, response, row):
        asked.append(response)
        if int(response.split()[0]) % 2:
            raise OSError("no server")
        return 0.5

    task = RewardTask(LuckyTask(), odd)
    found = dataclasses.replace(sampled, task=task).run(first_policy().params)
    before = len(asked)
    rows = samples_for_people(task, found, dict(enumerate(PROBLEMS)), 10)
    assert len(asked) == before
    said = [None if failed else "reward 0.5" for failed in found.failed[:, 0]]
    assert [row["parsed"] for row in rows] == said
    assert len(set(said)) == 2
