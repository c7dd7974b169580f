"""Responses cut into steps: which token is of which step, which states are equal."""

import dataclasses
import itertools

import numpy as np
import pytest

from experiments.toys.toy_tasks import CountDown, Toy
from jaxrl_reason.rl.method import Experience
from jaxrl_reason.rl.response_steps import ResponseSteps, StepReader, last_tokens
from jaxrl_reason.rl.rl_learner import build_rl_learner
from jaxrl_reason.tasks.countdown import CountdownSettings, CountdownTask, Problem
from jaxrl_reason.tasks.questions import QuestionTask
from jaxrl_reason.tasks.task import Step, TaskWrapper
from tests.rl.helpers import (
    OPTIMIZER,
    SETTINGS,
    EndlessProblems,
    Recorder,
    fake_rollouts,
    no_update,
    one_device,
    run_steps,
    tiny_model,
    toy_learner,
    toy_state,
)
from tests.rl.recipe_helpers import built

TASK = CountdownTask.with_symbols(CountdownSettings())
PUZZLE = Problem((3, 4, 5), 35, "( 3 + 4 ) * 5", 0)
FIRST = "3 + 4 = 7 , 7 + 5 = 12 : 35 low 3 + 4 = 7 , 7 * 5 = 35 : 35 yes </think>"
SECOND = "4 + 3 = 7 , 5 * 7 = 35 : 35 yes </think> <answer> ( 3 + 4 ) * 5 </answer>"


def test_a_token_belongs_to_the_step_in_whose_text_it_begins() -> None:
    tokens = TASK.tokenizer.encode(FIRST)
    steps = TASK.steps(PUZZLE, FIRST)
    ends = last_tokens(steps, tokens, TASK.tokenizer)
    starts = [0, *(end + 1 for end in ends)]
    words = [TASK.tokenizer.decode(tokens[a:b]) for a, b in itertools.pairwise(starts)]
    assert words == [
        "3 + 4 = 7",
        ", 7 + 5 = 12",
        ": 35 low 3 + 4 = 7",
        ", 7 * 5 = 35",
        ": 35 yes </think>",
    ]
    assert [step.state for step in steps] == [
        ("3", "4", "5"),
        ("5", "7"),
        ("12",),
        ("5", "7"),
        ("35",),
    ]


def test_steps_without_a_token_and_responses_without_a_step() -> None:
    steps = [Step(0, "a"), Step(5, "b"), Step(5, "c"), Step(99, "d")]
    tokens = TASK.tokenizer.encode("3 + 4 = 7")
    assert last_tokens(steps, tokens, TASK.tokenizer) == [-1, 2, 2, 4]
    with pytest.raises(ValueError, match="at least one step, got none"):
        last_tokens([], tokens, TASK.tokenizer)


@pytest.mark.parametrize(
    ("text", "states"),
    [
        ("no moves at all", ["3 4 5"]),
        ("4 * 9 = 36 , 3 + 5 = 8", ["3 4 5", "3 4 5", "4 8"]),  # there is no 9
        ("3 + 3 = 6", ["3 4 5", "3 4 5"]),  # nor a second 3
        ("3+4=9\n9-5=4\n\n4*5=20", ["3 4 5", "5 9", "4", "20 3"]),
        ("3 + 4 = " + "1" * 9000, ["3 4 5", "5 " + "1" * 9]),
    ],
)
def test_the_state_of_countdown_is_what_numbers_are_left(text, states) -> None:
    wanted = [tuple(sorted(state.split())) for state in states]
    assert [step.state for step in TASK.steps(PUZZLE, text)] == wanted


def rollouts_of(*texts: str):
    """One group of these responses to the puzzle."""
    tokens = [TASK.tokenizer.encode(text) for text in texts]
    width = max(map(len, tokens))
    padded = np.array([row + [0] * (width - len(row)) for row in tokens])[None]
    lengths = [list(map(len, tokens))]
    rollouts = fake_rollouts([[True] * len(texts)], lengths=lengths, width=width)
    return dataclasses.replace(rollouts, tokens=padded)


def seen(max_steps: int, *texts: str):
    """What an estimator reads of a group, and the metrics."""
    rollouts = rollouts_of(*texts)
    learner = dataclasses.replace(toy_learner(built("rloo")), task=TASK)
    reader = StepReader(TASK.steps, max_steps)
    rollouts = reader.extend_rollouts(learner, None, [PUZZLE], rollouts)
    inputs = {name: x[0] for name, x in rollouts.extras.items()}
    lengths = rollouts.lengths[0]
    x = Experience(
        rewards=np.zeros(len(texts)),
        lengths=lengths,
        truncated=np.zeros(len(texts), bool),
        mask=np.arange(rollouts.tokens.shape[-1]) < lengths[:, None],
        group_ids=np.zeros(len(texts), int),
        old_logprobs=np.zeros(rollouts.tokens.shape[1:]),
        num_groups=1,
        inputs=inputs,
    )
    _, more, row = reader.before_advantages(learner, None, None, x)
    return {**inputs, **more}, x.mask, row


def test_equal_states_of_a_group_have_one_id() -> None:
    found, mask, row = seen(6, FIRST, SECOND)
    np.testing.assert_array_equal(
        found["state_ids"], [[0, 1, 2, 1, 3, -1], [0, 1, 3, -1, -1, -1]]
    )
    sizes = [
        np.bincount(ids[on]) for ids, on in zip(found["step_ids"], mask, strict=True)
    ]
    np.testing.assert_array_equal(sizes[0], [5, 6, 8, 6, 4])
    np.testing.assert_array_equal(sizes[1], [5, 6, 13])
    assert (found["step_rewards"] == 0).all()
    assert row["steps/mean"] == 4
    assert row["steps/shared_state_fraction"] == 7 / 8  # only (12,) is alone


def test_what_comes_after_the_last_step_belongs_to_it() -> None:
    found, mask, _ = seen(2, FIRST, SECOND)
    assert found["state_ids"].tolist() == [[0, 1], [0, 1]]
    assert (found["step_ids"][mask].max(), found["step_ends"][0, 1]) == (1, 28)


def test_the_toy_countdown_stands_at_the_digit_before() -> None:
    steps = CountDown().steps(Toy(3), "3 2 1 0 .")
    assert [step.state for step in steps] == ["4", "3", "2", "1", "0"]
    assert [step.end for step in steps] == [1, 3, 5, 7, 9]


def test_a_critic_of_steps_learns_on_their_first_tokens() -> None:
    method = built("turn_ppo")
    _, critic = method.components
    method = dataclasses.replace(method, components=(ResponseSteps(2), critic))
    learner = toy_learner(method)
    steps, critic = learner.components
    record = Recorder(no_update)
    critic = dataclasses.replace(critic, update=record)
    learner = dataclasses.replace(learner, update=no_update, components=(steps, critic))
    stream = EndlessProblems(SETTINGS.prompts_per_step)
    _, _, (found,) = run_steps(learner, toy_state(learner), stream, 1)
    masks = np.concatenate([args[1].mask for args, _ in record.calls])  # [K, Q, T]
    masks = masks.reshape(-1, masks.shape[-1])
    masks = masks[masks.any(axis=1)]
    assert len(masks) == found.rollouts.lengths.size
    # The first token is a step, and all others together another.
    assert masks[:, 0].all()
    assert masks[:, 1].sum() == (found.rollouts.lengths > 1).sum()
    assert not masks[:, 2:].any()


def test_a_task_graded_in_another_way_has_the_steps_of_the_one_inside() -> None:
    task = TaskWrapper(TASK)
    learner = build_rl_learner(
        tiny_model(), task, built("gigpo"), SETTINGS, OPTIMIZER, one_device()
    )
    (reader,) = learner.components
    assert reader.steps(PUZZLE, FIRST) == TASK.steps(PUZZLE, FIRST)


def test_what_has_no_steps_is_refused() -> None:
    task = QuestionTask(TASK.tokenizer, "", "questions")
    with pytest.raises(ValueError, match="a task with `steps`, got 'questions'"):
        build_rl_learner(
            tiny_model(), task, built("gigpo"), SETTINGS, OPTIMIZER, one_device()
        )
    with pytest.raises(ValueError, match="max_steps must be >= 1, got 0"):
        ResponseSteps(0)
