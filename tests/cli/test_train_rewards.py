"""`jaxrl-reason train` with several rewards, and with a judge."""

import json
import shlex

import pytest

from jaxrl_reason.cli.train import read_settings
from tests.cli.test_train_teacher import write_model
from tests.cli.tiny_runs import TINY, numbers
from tests.text.tokenizer_families import family

EXAMPLES = "jaxrl_reason.grading.reward_examples"


def test_several_rewards_are_summed_and_reported_apart(train, tuned):
    flags = shlex.split(
        "--sft-from tuned --method dr_grpo --reward answer reward.py:parity:0.5 "
        f"{EXAMPLES}:repetition:0.1 --rl.steps 1 --sampler.slots 8"
    )
    (row,) = numbers(train("several", *flags))
    names = ["answer", "parity/parity", "parity/short", "repetition"]
    weights = [1.0, 0.5, 0.5, 0.1]
    total = sum(w * row[f"reward/{x}"] for w, x in zip(weights, names, strict=True))
    assert row["reward/mean"] == pytest.approx(total, abs=1e-6)
    assert row["reward/answer"] == pytest.approx(row["reward/accuracy"])
    assert row["reward/grader_failed_fraction"] == 0


def test_a_judge_is_asked_and_remembered(train, tuned, folder):
    """A model of random weights gives no verdict, which earns nothing."""
    write_model(folder, "judge", family("llama3"), context_length=4096)
    flags = shlex.split(
        "--sft-from tuned --method dr_grpo --reward answer judge:0.5 --rl.steps 1 "
        "--judge.model judge --judge.kind verify --judge.reference solution "
        "--judge.max-new-tokens 4 --judge.prompt-width 2048 --judge.batch-size 8"
    )
    run = train("judged", *flags)
    (row,) = numbers(run)
    assert row["reward/judge"] == 0
    assert row["reward/mean"] == pytest.approx(row["reward/accuracy"])
    assert row["reward/unchecked_fraction"] == 1
    lines = (run / "judge.jsonl").read_text().splitlines()
    asked = [json.loads(line)["key"] for line in lines]
    assert 0 < len(set(asked)) == len(asked)


def test_rewards_that_do_not_fit_are_refused_before_the_training(train, folder):
    (folder / "asks.py").write_text(
        "def f(prompt, response, row, *, correct): return 1.0\n"
        "def g(prompt, response): return 1.0\n"
    )
    for reward, said in (
        ("asks.py:f", "may ask for tokens, max_tokens, truncated, step, got correct"),
        ("asks.py:g", r"must take \(prompt, response, row\)"),
        ("asks.py:h", "there must be a function h in asks.py"),
        ("none.py:f", "in a file that exists, got none.py"),
        ("asks.py", "must be my_file.py:my_function, answer or judge, got 'asks.py'"),
        ("judge", r"judge\.model must be given"),
        ("answer answer", r"different names, got \['answer', 'answer'\]"),
    ):
        with pytest.raises(ValueError, match=said):
            train("refused", "--reward", *reward.split(), "--sft.updates", "0")


def test_one_reward_of_an_older_config_is_read(folder, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("reward: reward.py:parity\n")
    assert read_settings([*TINY, "--config", str(config)]).reward == (
        "reward.py:parity",
    )
    config.write_text("reward: null\n")
    assert read_settings([*TINY, "--config", str(config)]).reward == ()
