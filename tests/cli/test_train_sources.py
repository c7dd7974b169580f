"""What a run learns from, by the command: hints, steps, a reward model, algebra."""

import json
import shlex

import pytest

from tests.cli.tiny_runs import numbers

STEPS = [
    {"path": ["1"], "q": 0.5, "leads_right": True, "leads_wrong": True},
    {"path": ["2"], "q": -1.0, "leads_right": False, "leads_wrong": True},
    {
        "path": ["1", "3"],
        "q": 1.0,
        "leads_right": True,
        "leads_wrong": False,
        "final": True,
    },
    {
        "path": ["2", "9"],
        "q": -1.0,
        "leads_right": False,
        "leads_wrong": True,
        "final": True,
    },
]


def test_hints_of_star(train, tuned):
    run = train(
        "star",
        *shlex.split("--method star --offline.problems 16 --task.extract last_number"),
        *("--sft-from", "tuned", "--offline.hint", " ({answer})"),
    )
    (row,) = numbers(run)
    assert row["rollout/kept"] > 0
    # Those that were found with the answer in the prompt.
    assert row["rollout/kept_with_hint"] >= 0
    assert row["sft/updates"] >= 1


def test_steps_of_a_search_train_a_reward_model(train, folder, tuned):
    rows = [{"problem": f"{a}+{b}=", "steps": STEPS} for a in (1, 2) for b in (1, 2)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "steps.jsonl").write_text(text)
    run = train(
        "ppm",
        *shlex.split("--method ppm --offline.steps steps.jsonl --offline.epochs 2"),
        *shlex.split("--rl.prompts-per-step 2 --rl.group-size 2"),
        *shlex.split("--sft-from tuned --reward reward.py:parity"),
    )
    first, last = numbers(run)
    # For each question one of the first step and one of the answers.
    assert first["reward_model/comparisons"] == 8
    assert last["reward_model/loss"] < first["reward_model/loss"]


def test_a_trained_reward_model_gives_the_rewards_of_rl(train, tuned, capsys):
    train(
        "pairs_judge",
        *shlex.split("--method bradley_terry --rl.prompts-per-step 2"),
        *shlex.split("--offline.problems 8 --sft-from tuned"),
        *shlex.split("--reward reward.py:parity"),
    )
    flags = shlex.split("--sft-from tuned --reward-model pairs_judge --method dr_grpo")
    rows = numbers(train("pairs_judged", *flags))
    assert [row["step"] for row in rows] == [1, 2]
    # Scores of a head, no verdicts of 0 and 1.
    assert all(row["reward/mean"] % 0.25 for row in rows)
    with pytest.raises(ValueError, match="reward_model must be the folder of a run"):
        train("pairs_judged_by_none", *flags[:2], "--reward-model", "tuned")
    with pytest.raises(ValueError, match="reward_model must be of this run's model"):
        train(
            "pairs_judged_by_another",
            *flags[2:],
            "--model",
            "1x8",
            "--sft.updates",
            "0",
        )


def test_algebra_grades_in_training(train, folder, tuned):
    said = "#### 2\\sqrt{2}"
    rows = [
        {"problem": f"{a}?", "solution": "\\sqrt{8}", "said": said} for a in range(12)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "roots.jsonl").write_text(text)
    flags = shlex.split("""
        --task roots.jsonl --method dr_grpo --rl.steps 1 --rl.max-new-tokens 20
        --sft.updates 80 --sft.row-width 64
    """)
    (row,) = numbers(train("algebra", *flags))
    assert row["reward/accuracy"] > 0.5
