"""Which questions a run asks: files, held-out parts, copies, rewards of one's own."""

import dataclasses
import json
import math

import numpy as np
import pytest

from jaxrl_reason.learner.sft import SFTSettings
from jaxrl_reason.rl.collect import Collected, rollout_metrics
from jaxrl_reason.rl.graded_groups import GroupGrading
from jaxrl_reason.rl.recipes.dapo import DapoSettings, dapo
from jaxrl_reason.sampler import Completions
from jaxrl_reason.tasks.answer_flags import AnswerFlags
from jaxrl_reason.tasks.grade_responses import GraderError
from jaxrl_reason.tasks.reward_functions import AnswerReward, InProcessReward, Weighted
from jaxrl_reason.tasks.reward_task import RewardTask
from jaxrl_reason.train.group_settings import EvalSettings, OfflineSettings
from jaxrl_reason.train.own_reward import METRICS, TaskRewards, with_own_reward
from jaxrl_reason.train.results import grading_notes
from jaxrl_reason.train.run_setup import RunSetup
from jaxrl_reason.train.task_settings import TaskSettings
from jaxrl_reason.train.tasks import build_task, load_problems
from jaxrl_reason.train.train_settings import TrainSettings
from tests.rl.helpers import LuckyTask, Toy, fake_rollouts


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def settings_of(source, **task):
    fields = {"question": "problem", "answer": "solution", **task}
    return TrainSettings(
        task=TaskSettings(source, **fields), eval=EvalSettings(problems=50)
    )


def sums(count, first=0):
    return [
        {"problem": f"What is {n} and {n} in all?", "solution": 2 * n}
        for n in range(first, first + count)
    ]


def test_a_part_is_held_out_whatever_the_seed(tmp_path):
    settings = settings_of(write(tmp_path / "a.jsonl", sums(20)), heldout_fraction=0.2)
    found = load_problems(settings)
    assert (len(found.train), len(found.heldout)) == (16, 4)
    assert not {q.question for q in found.train} & {q.question for q in found.heldout}
    again = load_problems(dataclasses.replace(settings, seed=1))
    assert again.heldout == found.heldout


def test_variants_of_a_held_out_question_are_held_out_too(tmp_path):
    rows = [
        {
            "question": f"{n} apples and {k} pears?",
            "answer": str(n + k),
            "perturbation_type": f"kind {k}",
            "seed_question": f"{n} apples?",
            "seed_answer": str(n),
        }
        for n in range(20)
        for k in range(3)
    ]
    task = TaskSettings("gsm_plus", data=write(tmp_path / "plus.jsonl", rows))
    settings = TrainSettings(task=task, eval=EvalSettings(problems=50))
    found = load_problems(settings)
    sides = [
        {q.problem_id if q.seed_id is None else q.seed_id for q in part}
        for part in (found.train, found.heldout)
    ]
    assert not sides[0] & sides[1]
    assert [len(side) for side in sides] == [18, 2]
    assert [len(part) for part in (found.train, found.heldout)] == [72, 8]


def test_a_held_out_file_has_numbers_of_its_own(tmp_path):
    source = write(tmp_path / "a.jsonl", sums(4))
    other = write(tmp_path / "b.jsonl", sums(3, first=10))
    found = load_problems(settings_of(source, heldout=other))
    assert [q.problem_id for q in found.train] == [0, 1, 2, 3]
    assert [q.problem_id for q in found.heldout] == [4, 5, 6]


def fingerprints(*paths, **task):
    """Digests of the rows and the settings that a checkpoint depends on."""
    train, *heldout = map(str, paths)
    given = {"heldout": heldout[0]} if heldout else {}
    settings = settings_of(train, **given, **task)
    return settings.fingerprint() | load_problems(settings).digests


def test_rows_count_by_what_is_in_them_not_by_where_they_are(tmp_path):
    train, heldout = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    write(train, sums(6))
    write(heldout, sums(3, first=10))
    saved = fingerprints(train, heldout)
    moved = tmp_path / "elsewhere.json"  # also in another form
    moved.write_text(json.dumps([dict(reversed(row.items())) for row in sums(6)]))
    assert fingerprints(moved, heldout) == saved
    write(train, [*sums(5), {**sums(6)[5], "solution": 11}])
    changed = fingerprints(train, heldout)
    assert {k for k in saved if saved[k] != changed[k]} == {"train_rows"}
    write(heldout, sums(2, first=10))
    changed = fingerprints(moved, heldout)
    assert {k for k in saved if saved[k] != changed[k]} == {"heldout_rows"}
    # Fields that only a reward reads are contents, too.
    write(train, [{**row, "level": 3} for row in sums(6)])
    assert fingerprints(train)["train_rows"] != saved["train_rows"]


def test_generated_questions_and_the_files_of_offline_methods_count(tmp_path):
    arithmetic = TrainSettings(task=TaskSettings("arithmetic"))
    first = load_problems(arithmetic).digests
    assert first.keys() == {"train_rows", "heldout_rows"}
    assert first == load_problems(dataclasses.replace(arithmetic, seed=1)).digests
    pairs = write(tmp_path / "pairs.jsonl", [{"problem": "1+1", "chosen": "2"}])
    settings = dataclasses.replace(
        settings_of(write(tmp_path / "a.jsonl", sums(6))),
        method="dpo",
        offline=OfflineSettings(pairs=pairs),
    )
    saved = load_problems(settings).digests
    write(tmp_path / "pairs.jsonl", [{"problem": "1+1", "chosen": "3"}])
    changed = load_problems(settings).digests
    assert {k for k in saved if saved[k] != changed[k]} == {"pairs_rows"}


def test_fine_tuning_counts_the_rows_that_it_learns_from(tmp_path):
    train = write(tmp_path / "a.jsonl", sums(6))
    text = tmp_path / "b.jsonl"

    def saved(*words):
        write(text, [{"text": word} for word in words])
        task = dataclasses.replace(
            settings_of(train, heldout=train).task, text=str(text)
        )
        settings = TrainSettings(task=task, sft=SFTSettings(updates=2))
        problems = load_problems(settings)
        files = {name: None for name in RunSetup.__dataclass_fields__}
        return RunSetup(**files | {"settings": settings, "problems": problems})

    first, second = saved("one", "two"), saved("one", "three")
    pairs = first.sft_fingerprint(), second.sft_fingerprint()
    assert {k for k in pairs[0] if pairs[0][k] != pairs[1][k]} == {"text_rows"}
    text = text.rename(tmp_path / "c.jsonl")
    assert saved("one", "three").sft_fingerprint() == pairs[1]
    assert "heldout_rows" in first.fingerprint()
    assert "heldout_rows" not in pairs[0]


def test_copies_contradictions_and_what_is_held_out_are_dropped(tmp_path):
    rows = [
        *sums(6),
        sums(1)[0],  # a copy
        {"problem": "Why?", "solution": 1},
        {"problem": "why?", "solution": 2},
        {"problem": "Say, what is 7 and 7 in all?", "solution": 14},
    ]
    source = write(tmp_path / "a.jsonl", rows)
    other = write(tmp_path / "b.jsonl", sums(1, first=7))
    found = load_problems(
        settings_of(source, heldout=other, dedup=True, decontaminate=5)
    )
    assert found.dropped == {"duplicates": 1, "conflicting": 2, "contaminated": 1}
    assert [q.question for q in found.train] == [row["problem"] for row in sums(6)]


def test_questions_that_cannot_be_graded_are_left_out(tmp_path, caplog):
    rows = [*sums(6), {"problem": "An open interval?", "solution": "(1, 2"}]
    source = write(tmp_path / "a.jsonl", rows)
    other = write(tmp_path / "b.jsonl", sums(1, first=7))
    found = load_problems(settings_of(source, heldout=other))
    assert found.dropped == {"ungradable": 1}
    assert len(found.train) == 6
    assert "question 6: the reference '(1, 2' cannot be read" in caplog.text


def test_one_question_cannot_be_parted(tmp_path):
    source = write(tmp_path / "a.jsonl", sums(1))
    with pytest.raises(ValueError, match="must be at least 2, one of them held out"):
        load_problems(settings_of(source))


def test_responses_to_learn_from_are_a_field(tmp_path):
    rows = [{**row, "work": f"It is {row['solution']}."} for row in sums(4)]
    found = load_problems(
        settings_of(write(tmp_path / "a.jsonl", rows), response="work")
    )
    assert set(found.responses.values()) == {f"It is {2 * n}." for n in range(4)}
    source = write(tmp_path / "b.jsonl", sums(4))
    with pytest.raises(ValueError, match="line 1: work must be text, got none"):
        load_problems(settings_of(source, response="work"))


def test_a_benchmark_s_file_may_be_learnt_from(tmp_path):
    rows = [{"question": f"{n}?", "answer": f"so. #### {n}"} for n in range(5)]
    source = write(tmp_path / "a.jsonl", rows)
    settings = TrainSettings(
        task=TaskSettings("gsm8k", data=source, response="answer"),
    )
    found = load_problems(settings)
    assert found.train[0].answer in found.responses[found.train[0].problem_id]
    task = build_task(settings, found, None)
    assert task.name == "gsm8k"


def test_the_answers_to_ones_own_questions_are_found(tmp_path):
    source = write(tmp_path / "a.jsonl", sums(4))
    for extract, text in (("marked", "so\n#### 2"), ("last_number", "it is 2")):
        settings = settings_of(source, extract=extract)
        found = load_problems(settings)
        task = build_task(settings, found, None)
        question = next(q for q in found.train + found.heldout if q.answer == "2")
        assert task.grade(question, text, truncated=False).correct
        assert not task.grade(question, "3", truncated=False).correct


ROLLOUTS = fake_rollouts([[True, False], [False, False]], seed=1)
PROBLEMS = [Toy(0), Toy(1)]


def scored_by(*rewards):
    """The rewards of a task, and of its rollouts."""
    task = RewardTask(LuckyTask(), *rewards)
    own, step = TaskRewards(task), GroupGrading(task, PROBLEMS, 2, step=3)
    fields = (ROLLOUTS.tokens, ROLLOUTS.sampler_logprobs)
    flat = [x.reshape(4, -1) for x in fields]
    ends = [ROLLOUTS.lengths.reshape(-1), ROLLOUTS.truncated.reshape(-1)]
    grades = step.finish(Completions(*flat, *ends))
    return own, dataclasses.replace(ROLLOUTS, extras=grades.extras)


def rewards_of(function):
    own, rollouts = scored_by(function)
    return own(rollouts)


def test_numbers_are_rewards_and_parts_are_components():
    number = rewards_of(lambda prompt, response, row: row["problem_id"] + 0.5)
    assert number.tolist() == [[0.5, 0.5], [1.5, 1.5]]
    parts = rewards_of(lambda *asked: {"a": 1.0, "b": 0.5, "correct": False})
    assert parts.shape == (2, 2, 2)
    assert (parts == [1.0, 0.5]).all()


def test_rows_have_the_means_of_the_parts():
    def parts(prompt, response, row):
        if row["problem_id"] == 1:
            raise RuntimeError("no")
        return {"a": 1.0, "b": 0.5}

    own, rollouts = scored_by(parts)
    own(rollouts)
    assert own.take_means() == {"reward/a": 1.0, "reward/b": 0.5}
    assert own.take_means() == {}


def test_a_part_hides_no_metric_of_the_run():
    row = rollout_metrics(Collected(ROLLOUTS, ROLLOUTS, None, rounds=1, accepted=2))
    kinds = [name.partition("/") for name in row]
    assert [name for group, _, name in kinds if group == "reward"] == list(METRICS)
    with pytest.raises(ValueError, match=r"must not be called mean, .*, got accuracy"):
        rewards_of(lambda *asked: {"accuracy": 1.0, "short": 0.5})


def test_several_rewards_are_weighted_and_reported_apart():
    def length(prompt, response, row, *, tokens, step):
        return tokens + step

    def style(prompt, response, row):
        return {"short": 0.5, "plain": 1.0}

    own, rollouts = scored_by(
        [
            Weighted(AnswerReward()),
            Weighted(InProcessReward(length, "length"), -0.1),
            Weighted(InProcessReward(style, "style"), 0.0),
        ]
    )
    right = rollouts.extras["reward_parts"][..., 0]
    rewards = own(rollouts)
    expected = right - 0.1 * (ROLLOUTS.lengths + 3)
    assert rewards.sum(-1) == pytest.approx(expected)
    assert own.take_means() == pytest.approx(
        {
            "reward/answer": right.mean(),
            "reward/length": (ROLLOUTS.lengths + 3).mean(),
            "reward/style/short": 0.5,
            "reward/style/plain": 1.0,
        }
    )


def test_what_fails_is_not_a_number(caplog):
    def fails(prompt, response, row):
        if row["problem_id"] == 0:
            raise RuntimeError("no")
        return 1.0

    found = rewards_of(fails)
    assert np.isnan(found[0]).all()
    assert (found[1] == 1).all()
    said = "failed on 2 of 4 responses, first reward reward: RuntimeError: no"
    assert said in caplog.text
    with pytest.raises(GraderError, match="must be finite and at most 1e6"):
        rewards_of(lambda *asked: math.inf)

    def other_parts(prompt, response, row):
        return {"a": 1.0} if row["problem_id"] == 0 else {"b": 1.0}

    found = rewards_of(other_parts)
    assert (found[0] == 1).all()
    assert np.isnan(found[1]).all()


def test_groups_whose_rewards_differ_carry_signal():
    method = dapo(DapoSettings(overlong_cache=2), max_new_tokens=6)
    own, rollouts = scored_by(lambda *asked: 0.25)
    mine = with_own_reward(method, own, max_new_tokens=6, overlong_cache=2)
    rewards = mine.rewards(rollouts)
    # The limit is 6: from 5 tokens on the reward falls.
    expected = 0.25 - np.maximum(ROLLOUTS.lengths - 4, 0) / 2
    assert rewards == pytest.approx(expected)
    scored = dataclasses.replace(ROLLOUTS, rewards=np.float32([[1, 1], [1, 0]]))
    kept = mine.dynamic_sampling.keep_groups(scored)
    assert kept.tolist() == [False, True]


@pytest.mark.parametrize("extract", ["marked", "last_number"])
def test_the_text_of_a_new_models_end_token_is_no_part_of_an_answer(tmp_path, extract):
    source = write(tmp_path / "a.jsonl", sums(20))
    settings = settings_of(source, extract=extract)
    problems = load_problems(settings)
    task = build_task(settings, problems, None)
    end = task.tokenizer.decode([task.tokenizer.eos_token_id])
    assert end == "<end>"
    question = problems.train[0]
    graded = task.grade(question, f"#### {question.answer}{end}", False)
    assert (graded.correct, graded.parsed) == (True, question.answer)


def test_the_switches_of_the_answer_policy_are_settings(tmp_path):
    rows = [{"problem": f"{n}?", "solution": f"{n}0"} for n in range(1, 9)]
    source = write(tmp_path / "a.jsonl", rows)
    for flags, right in ((AnswerFlags(), False), (AnswerFlags(percent="number"), True)):
        settings = settings_of(source, answers=flags)
        found = load_problems(settings)
        task = build_task(settings, found, None)
        graded = task.grade(found.train[0], rf"\boxed{{{found.train[0].answer}\%}}", 0)
        assert graded.correct is right


def test_answers_that_cannot_be_graded_are_named_in_the_report(tmp_path):
    rows = [{"problem": f"{n}?", "solution": "(1, 2" if n < 8 else n} for n in range(9)]
    found = load_problems(settings_of(write(tmp_path / "a.jsonl", rows)))
    assert len(found.ungradable) == 8
    assert found.dropped["ungradable"] + len(found.heldout) == 8
    responses = dataclasses.replace(ROLLOUTS, unchecked=ROLLOUTS.correct)
    said = grading_notes(found.ungradable, responses)
    assert "8 questions have an answer that cannot be graded" in said
    assert said.count("- question") == 5
    assert "a bracket is not closed" in said
    assert "25.0% are wrong because checking them ran into a bound" in said
    assert grading_notes({}, ROLLOUTS) == ""
