"""RL on a pretrained model made tiny: what it leaves, resumes, exports and refuses."""

import json
import shlex
import signal
import sys

import jax
import numpy as np
import pytest

from experiments import dapo_smollm2 as script
from jaxrl_reason.cli.train import read_settings
from jaxrl_reason.models import Transformer, TransformerConfig, init_params
from jaxrl_reason.runs.metrics_log import read_metrics
from jaxrl_reason.text.load import load_tokenizer
from jaxrl_reason.train.heldout_figures import Heldout
from jaxrl_reason.weights import SpecialTokenIds, export_hf, load_pretrained

STEPS = 2
TINY = shlex.split(f"""
    --arithmetic.min-number 0 --arithmetic.max-number 5
    --arithmetic.test-fraction 0.34 --arithmetic.validation-fraction 0
    --arithmetic.operations plus --task.instruction '' --task.examples 0
    --rl.steps {STEPS} --rl.prompts-per-step 4 --rl.group-size 8
    --rl.updates-per-rollout 2 --rl.max-new-tokens 6 --rl.max-rounds 60
    --optimizer.learning-rate 0.01 --optimizer.warmup-updates 1
    --rl.old-logprobs trainer --eval.samples 4
    --eval.every 1 --save-every 1 --sampler.slots 6
    --rl.rows-per-micro-batch 2 --rl.row-width 128 --rl.slots-per-row 3
""")
# The script on virtual devices; prints how many hold the model.
ON_MESH = """
    import sys
    import jax
    from experiments import dapo_smollm2
    dapo_smollm2.main()
    print(len(jax.devices()))
"""
END, PAD = "<end>", "<pad>"
# In tokenizer.json a space and a line break are written so.
LETTERS = "abcdefghijklmnopqrstuvwxyzAHW?-:." + "\u0120\u010a" + "0123456789"


def write_tokenizer(folder):
    """A character is a token; one more ends a response."""
    vocab = {letter: index for index, letter in enumerate([END, PAD, *LETTERS])}
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    spec = {
        "version": "1.0",
        "added_tokens": [
            {"id": vocab[text], "content": text, "special": True} for text in (END, PAD)
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": END, "pad_token": PAD})
    )
    return vocab


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random Llama that says few digits and ends: some of its answers are right."""
    config = TransformerConfig(
        vocab_size=len(LETTERS) + 2, hidden_size=36, num_layers=1, num_heads=9,
        num_kv_heads=3, head_dim=4, mlp_dim=36, context_length=128,
        tie_embeddings=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("smollm2") / "model"
    folder.mkdir()
    vocab = write_tokenizer(folder)
    params = init_params(Transformer(config), jax.random.key(0))
    # All hidden states share a direction, which the head turns into likely tokens.
    params["embedding"] = params["embedding"].at[:, 0].add(5.0)
    bias = np.zeros(config.vocab_size)
    bias[[vocab[digit] for digit in "234567"]] = 0.65
    bias[vocab[END]] = 0.8
    params["head"] = params["head"].at[0].add(bias)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.unlink()
    export_hf(
        folder,
        config,
        params,
        special=SpecialTokenIds(eos_token_ids=(vocab[END],), pad_token_id=vocab[PAD]),
    )
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def flags(model):
    return [*TINY, "--model", str(model)]


def start(monkeypatch, *arguments):
    """The script in this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["dapo_smollm2.py", *arguments])
    try:
        script.main()
    except SystemExit as error:
        return error.code
    return 0


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(flags, base):
    """A run from its start to its end."""
    with pytest.MonkeyPatch.context() as patch:
        given = ["--run-dir", str(base / "whole"), "--export", str(base / "exported")]
        assert start(patch, *flags, *given) == 0
    return base / "whole"


def test_the_folder_holds_what_a_run_leaves(whole):
    for name in shlex.split("""
        config.json metrics.jsonl curves.png report.json report.md before.json
        checkpoints/rl/00000002 tensorboard samples/00000000-held-out.jsonl
        samples/00000001-train.md samples/00000002-held-out.md
    """):
        assert (whole / name).exists(), name
    rows = read_metrics(whole / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(
        row["policy/updates"] == 2 and row["policy/grad_norm"] > 0 for row in rows
    )
    # The sampler's and the trainer's log-probs are of one model.
    assert max(row["sampler/logprob_diff_max"] for row in rows) < 1e-5


def test_a_mesh_gives_the_rollouts_of_one_device(whole, flags, base, eight_devices_run):
    # Nine heads over three, and 47 tokens, which three devices do not divide.
    mesh = ["--mesh", "fsdp=2,tensor=3", "--sampler.weights", "whole"]
    given = [*flags, "--rl.steps", "1", *mesh, "--run-dir", str(base / "mesh")]
    assert eight_devices_run(ON_MESH, *given) == 6
    (row,) = read_metrics(base / "mesh" / "metrics.jsonl")
    first = read_metrics(whole / "metrics.jsonl")[0]
    for name in first:
        if name.startswith(("reward/", "rollout/", "groups/")) and "_per_s" not in name:
            assert row[name] == first[name], name
    for name in ("policy/entropy_sampled", "policy/loss"):
        assert row[name] == pytest.approx(first[name], abs=1e-5), name
    assert row["sampler/reshard_bytes"] > 0
    assert row["time/reshard_s"] > 0
    assert max(row["sampler/logprob_diff_max"], abs(row["sampler/kl_k1"])) < 1e-5


def test_the_report_has_figures_with_intervals(whole):
    report = json.loads((whole / "report.json").read_text())
    assert (report["steps"], report["heldout_problems"]) == (STEPS, 4)
    assert report["more"]["train_problems"] == 16
    for name in ("before", "after"):
        for figure in ("greedy", "avg_at_4"):
            found = report["more"][name][figure]
            assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1
    assert "| avg@4 |" in (whole / "report.md").read_text()


def test_samples_have_prompt_answer_and_verdict(whole):
    lines = (whole / "samples/00000002-held-out.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 4
    for row in rows:
        assert row["prompt"].startswith("What is ")
        assert row["prompt"].endswith("?\n\nAnswer:")
        assert isinstance(row["correct"], bool)


def test_the_export_is_the_trained_model(whole, base, model):
    before, after = load_pretrained(model), load_pretrained(base / "exported")
    assert after.config == before.config
    assert after.special == before.special
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before.params, after.params)
    assert all(jax.tree.leaves(moved))
    card = (base / "exported" / "README.md").read_text()
    assert "DAPO on arithmetic" in card
    assert "held-out accuracy, avg@4" in card
    ids = load_tokenizer(base / "exported").encode("two plus two?")
    assert ids == load_tokenizer(model).encode("two plus two?")


def test_a_resumed_run_is_the_uninterrupted_one(
    whole, flags, base, monkeypatch, capsys
):
    folder, exported = base / "stopped", base / "exported_again"
    given = [*flags, "--run-dir", str(folder), "--export", str(exported)]
    row = Heldout.row

    def press_ctrl_c(*arguments):
        signal.raise_signal(signal.SIGINT)
        return row(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Heldout, "row", press_ctrl_c)
        assert start(patch, *given) == 75
    assert f"--resume must --run-dir {folder}" in capsys.readouterr().out
    assert len(read_metrics(folder / "metrics.jsonl")) == 1
    assert not exported.exists()
    assert start(monkeypatch, *given, "--resume", "must") == 0
    one, two = (read_metrics(run / "metrics.jsonl") for run in (whole, folder))
    assert len(two) == STEPS
    varying = ("time/", "_per_s")
    for a, b in zip(one, two, strict=True):
        same = [name for name in a if not any(word in name for word in varying)]
        assert {name: a[name] for name in same} == {name: b[name] for name in same}
    trees = [load_pretrained(base / name).params for name in ("exported", exported)]
    equal = jax.tree.map(lambda a, b: bool((a == b).all()), *trees)
    assert all(jax.tree.leaves(equal))


def test_low_rank_factors_are_added_to_their_matrices(flags, base, model, monkeypatch):
    folder, exported = base / "lora", base / "lora_exported"
    given = [
        "--run-dir",
        str(folder),
        "--export",
        str(exported),
        "--model.lora-rank",
        "2",
    ]
    assert start(monkeypatch, *flags, *given, "--rl.steps", "1") == 0
    before, after = load_pretrained(model).params, load_pretrained(exported).params
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
    assert not moved["embedding"]
    assert moved["layers"]["mlp"]["down"]
    assert moved["layers"]["attention"]["query"]
    assert not moved["layers"]["mlp_norm"]["scale"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--model SmolLM2.gguf", "file that exists, got SmolLM2.gguf; get it by"),
        ("--task gsm8k", "data must be given for task gsm8k, got none"),
        ("--task gsm8k --task.data no.jsonl", "no.jsonl: No such file"),
        ("--rl.group-size 1", "group_size must be >= 2 for dapo, got 1"),
        ("--rl.updates-per-rollout 3", "must be a multiple of the updates per rollout"),
        ("--rl.row-width 32", "row_width must hold a prompt and a response"),
        ("--sampler.slots -1", "sampler.slots must be >= 0, got -1"),
        ("--arithmetic.max-number 1000", "max_number <= 999, got 0 and 1000"),
        ("--model.lora-rank -1", "lora_rank must be >= 0, got -1"),
        ("--task.examples 3", "3 examples need 6 numbers to train on, got 4"),
        ("--resume-step 1", "resume_step needs --resume must or auto"),
        ("--export tests", "folder must be absent or empty, got tests"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    given, said, flags, tmp_path, monkeypatch, capsys
):
    run_dir = tmp_path / "run"
    arguments = [*flags, "--run-dir", str(run_dir), *given.split()]
    status = start(monkeypatch, *arguments)
    captured = capsys.readouterr()
    assert status not in (0, None)
    assert "Traceback" not in captured.err
    # Python prints a status that is a text.
    shown = f"{captured.err} {captured.out} {status}"
    assert said in " ".join(shown.replace("│", " ").split())
    assert not run_dir.exists()


def test_the_data_bring_their_own_defaults():
    config = read_settings(["--preset", "smollm2-gsm8k", "--rl.steps", "7"])
    assert (config.rl.max_new_tokens, config.rl.steps) == (256, 7)
    assert (config.task.source, config.rl.prompts_per_step) == ("gsm8k", 16)


def test_more_steps_and_rounds_are_no_other_run():
    preset = ["--preset", "smollm2-arithmetic"]
    more = "--rl.steps 99 --rl.max-rounds 99 --model.remat full --save-every 1"
    usual, long, other = (
        read_settings([*preset, *flags.split()]).fingerprint()
        for flags in ("", more, "--seed 1")
    )
    assert long == usual
    assert other != usual
