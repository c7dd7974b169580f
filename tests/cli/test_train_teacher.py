"""`jaxrl-reason train` with a teacher: another model, or the policy itself."""

import dataclasses
import json
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.cli.main import main
from jaxrl_reason.models import Transformer, abstract_params
from jaxrl_reason.pretrained.model_card import ModelCard
from jaxrl_reason.pretrained.model_folder import export_model
from jaxrl_reason.runs.metrics_log import read_metrics
from tests.pretrained.tiny import CONFIG
from tests.text.tokenizer_families import family

CARD = ModelCard("Tiny", "owner/base", "apache-2.0", "None.", "None.", "A test.")
TINY = shlex.split("""
    --task sums.jsonl --task.question problem --task.answer solution
    --task.instruction '' --model policy --method opd --sampler.slots 0
    --rl.steps 2 --rl.prompts-per-step 4 --rl.group-size 2 --rl.max-new-tokens 4
    --rl.rows-per-micro-batch 2 --rl.updates-per-rollout 1
    --eval.problems 4 --eval.samples 2 --eval.every 2 --save-every 1
""")


def write_model(folder, name, tokenizer=None, **sizes):
    """A random model and its tokenizer, as a folder."""
    config, rng = dataclasses.replace(CONFIG, **sizes), np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype),
        abstract_params(Transformer(config)),
    )
    export_model(folder / name, config, params, tokenizer or family("llama3"), CARD)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    rows = [
        {"problem": f"{a}+{b}=", "solution": a + b, "worked": f"That is {a + b}."}
        for a in range(6)
        for b in range(4)
    ]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    write_model(tmp_path, "policy")
    write_model(tmp_path, "teacher", hidden_size=24, mlp_dim=32)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_policy_learns_from_a_teacher_of_another_size(folder):
    main(["train", *TINY, "--teacher", "teacher", "--run-dir", "run"])
    rows = read_metrics(folder / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["teacher/kl"] > 0 for row in rows)


def test_whole_distributions_are_learned_from_it(folder):
    gkd = ["--method", "gkd", "--rl.steps", "1"]
    main(["train", *TINY, *gkd, "--teacher", "teacher", "--run-dir", "run"])
    (row,) = read_metrics(folder / "run" / "metrics.jsonl")
    assert row["policy/teacher_divergence"] > 0


def test_the_policy_learns_from_itself_and_a_demonstration(folder):
    """It reads a prompt, a longer demonstration and the prompt again."""
    sdft = shlex.split("--method sdft --task.response worked --rl.steps 1")
    main(["train", *TINY, *sdft, "--run-dir", "run"])
    (row,) = read_metrics(folder / "run" / "metrics.jsonl")
    assert row["teacher/taught_fraction"] == 1
    assert row["policy/teacher_divergence"] > 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--method sdft", "the field of a demonstration for sdft, got none of"),
        ("", "opd and gkd, and no other method, need a teacher, got None with opd"),
        ("--teacher teacher --method grpo", "got teacher with grpo"),
        ("--teacher nowhere", "nowhere: there is no such folder"),
        ("--teacher teacher --model 1x32", "a pretrained policy"),
    ],
)
def test_what_does_not_fit_is_refused(folder, flags, message):
    with pytest.raises(SystemExit) as ended:
        main(["train", *TINY, "--run-dir", "run", *flags.split()])
    assert message in str(ended.value)


def test_a_teacher_with_other_tokens_is_refused(folder):
    other = family("qwen")
    write_model(folder, "other", tokenizer=other, vocab_size=other.vocab_size)
    with pytest.raises(SystemExit) as ended:
        main(["train", *TINY, "--run-dir", "run", "--teacher", "other"])
    assert "a teacher must have the policy's tokenizer" in str(ended.value)
