"""The tree of settings: what it refuses, and its way to a file and back."""

import dataclasses
import shlex

import pytest

from jaxrl_reason.cli.train import read_settings
from jaxrl_reason.train.config_file import read_config, to_tree, with_tree, write_config
from jaxrl_reason.train.methods import kind_of, method_names
from jaxrl_reason.train.model_settings import ModelSettings
from jaxrl_reason.train.presets import PRESETS
from jaxrl_reason.train.task_settings import TaskSettings
from jaxrl_reason.train.train_settings import TrainSettings


@pytest.mark.parametrize("name", [None, *PRESETS])
def test_a_file_gives_the_settings_again(name, tmp_path):
    settings = TrainSettings() if name is None else PRESETS[name]
    path = tmp_path / "config.yaml"
    write_config(path, settings)
    assert with_tree(TrainSettings(), read_config(path)) == settings


def test_flags_stand_over_the_file_and_the_file_over_the_preset(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "preset: countdown\nseed: 7\nrl: {steps: 3, group_size: 8}\n"
        "optimizer: {learning_rate: 1e-4}\ncountdown: {numbers: [3, 4]}\n"
    )
    settings = read_settings(["--config", str(path), "--rl.group-size", "4"])
    assert (settings.seed, settings.rl.steps, settings.rl.group_size) == (7, 3, 4)
    assert settings.optimizer.learning_rate == 1e-4
    assert settings.countdown.numbers == (3, 4)
    assert settings.eval.problems == PRESETS["countdown"].eval.problems


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("banana: 1", "config must hold known settings, got banana"),
        ("rl: {stepz: 1}", "config must hold known settings, got rl.stepz"),
        ("rl: {steps: many}", "rl.steps must be int, got 'many'"),
        ("rl: {steps: true}", "rl.steps must be int, got True"),
        ("rl: 3", "rl must be a group of settings, got 3"),
        ("rl: {steps: 0}", "steps must be >= 1, got 0"),
        ("resume: perhaps", "resume must be one of"),
        ("preset: banana", "preset must be one of countdown"),
        ("- 1", "config must hold names and values"),
        ("a: [", "config must be YAML"),
    ],
)
def test_what_a_file_may_not_say(text, said, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_settings(["--config", str(path)])


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="config must be a file that can be read"):
        read_settings(["--config", str(tmp_path / "no.yaml")])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--method banana", "method must be one of dapo, grpo, dr_grpo, ppo"),
        ("--method gspo --stages.limits 8", "stages.limits needs a method in stages"),
        (
            "--method dpo --model.lora-rank 4",
            "lora_rank must be 0 except for RL in one",
        ),
        ("--method sft", "sft needs sft.updates >= 1, got 0"),
        ("--sft-from x", "sft_from needs sft.updates >= 1, got 0"),
        ("--offline.pairs x.jsonl", "offline.pairs needs a method that learns from"),
        ("--model 3x100", r"head_dim must divide the hidden size \(100\), got 32"),
        ("--task aime", "data must be given for task aime, got none"),
        ("--task countdown --task.data x", "data must only be given for a benchmark"),
        ("--task.heldout-fraction 1", "heldout_fraction must be > 0 and < 1, got 1.0"),
        ("--eval.problems 0", "eval.problems must be >= 1, got 0"),
        ("--seed -1", "seed must be >= 0, got -1"),
    ],
)
def test_what_does_not_fit_is_refused(flags, said, capsys):
    try:
        with pytest.raises(ValueError, match=said):
            read_settings(shlex.split(flags))
    except SystemExit:  # tyro's, with the same sentence
        text = " ".join(capsys.readouterr().err.replace("│", " ").split())
        assert said.replace("\\", "") in text


def test_every_flag_is_explained(capsys):
    with pytest.raises(SystemExit):
        read_settings(["--help"])
    text = capsys.readouterr().out.replace("│", " ")
    flags = [line for line in text.splitlines() if line.strip().startswith("--")]
    assert len(flags) > 80
    lines = text.splitlines()
    for flag in flags:
        below = lines[lines.index(flag) + 1].strip()
        beside = flag.strip().partition("  ")[2].strip()
        assert (beside or below).startswith("(") is False, flag


def test_every_method_has_a_kind():
    kinds = {kind_of(name) for name in method_names()}
    assert kinds == {"rl", "examples", "rounds", "reward_model", "game"}
    assert len(method_names()) == len(set(method_names()))


def test_presets_hold_the_studies():
    countdown = PRESETS["countdown"]
    assert str(countdown.folder) == "runs/countdown-dapo-seed0"
    config = countdown.model.config(vocab_size=49, context_length=112)
    assert (config.num_heads, config.mlp_dim, config.scan_unroll) == (4, 384, 3)
    assert PRESETS["smollm2-gsm8k"].rl.old_logprobs == "sampler"


def test_names_of_runs_and_tasks():
    settings = TrainSettings(task=TaskSettings("data/my sums.jsonl"), seed=3)
    assert settings.folder.name == "my sums-dapo-seed3"
    assert TaskSettings("hub:me/sums/train.jsonl@v1").short_name == "train"
    assert not ModelSettings("./3x128").is_new


def test_a_tree_is_plain():
    tree = to_tree(dataclasses.replace(TrainSettings(), seed=1))
    assert tree["countdown"]["numbers"] == [3]
    assert tree["dataset_dir"] == "runs/datasets"


@pytest.mark.fast
def test_the_type_of_products_is_the_models_and_a_checkpoints():
    plain, narrow = (ModelSettings("2x64", matmul_dtype=x) for x in (None, "bfloat16"))
    assert narrow.config(8, 8).matmul_dtype == "bfloat16"
    # As before there was a choice, so that older runs can be resumed.
    assert "matmul_dtype" not in plain.fingerprint()
    assert narrow.fingerprint() == plain.fingerprint() | {"matmul_dtype": "bfloat16"}
