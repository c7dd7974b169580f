"""One base model, fine-tuned further in several styles."""

import shlex
import shutil

import jax
import numpy as np
import pytest

from jaxrl_reason.cli.train import main, read_settings
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.train.fine_tuning import tuned_policy, untuned_policy
from jaxrl_reason.train.run_setup import build_run_setup
from tests.cli.tiny_runs import TINY, numbers

STYLE = """
def always_seven(problem, rng, settings):
    return "7"
"""


FURTHER = shlex.split("--method sft --sft-base tuned --sft.updates 4 --eval.every 2")


@pytest.fixture(scope="module")
def further(shared_folder, tuned):
    """The base in another style."""
    (shared_folder / "style.py").write_text(STYLE)
    flags = ["--trace", "style.py:always_seven", "--task.response", "None"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shared_folder)
        main([*TINY, "--run-dir", "further", *FURTHER, *flags])
    return shared_folder / "further"


def setup_of(*flags):
    return build_run_setup(read_settings([*TINY, *flags]))


def test_further_tuning_starts_from_the_base(folder, further, tuned, monkeypatch):
    monkeypatch.chdir(folder)
    plain = setup_of("--method", "sft")
    theirs = tuned_policy(plain, tuned)
    setup = setup_of(*shlex.split("--sft-base tuned --sft.updates 4 --seed 3"))
    ours = untuned_policy(setup)
    same = jax.tree.map(np.array_equal, ours.params, theirs.params)
    assert all(jax.tree.leaves(same))
    assert int(ours.step) == 0
    assert int(theirs.step) == 60
    rows = numbers(further)
    assert [row["step"] for row in rows] == [2, 4]


def test_rl_may_start_from_the_style(folder, further, monkeypatch):
    monkeypatch.chdir(folder)
    flags = """--sft-from further --sft-base tuned --sft.updates 4
        --trace style.py:always_seven --task.response None"""
    policy = tuned_policy(setup_of(*shlex.split(flags)), folder)
    assert int(policy.step) == 4
    without = setup_of(*shlex.split(flags.replace("--sft-base tuned", "")))
    with pytest.raises(ValueError, match=r"sft_base: saved \w{12}, asked absent"):
        tuned_policy(without, folder)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--model 1x32", "hidden_size: saved 16, asked 32"),
        ("--task.answer said", "answer: saved solution, asked said"),
        ("--sft-base nowhere", "of a run with a fine-tuned model, got nowhere"),
        ("--sft-base half", "trained for 60 updates, got one of 30 in half"),
    ],
)
def test_a_base_that_does_not_fit_is_refused(train, folder, tuned, flags, said):
    if "half" in flags:
        half_trained(folder, tuned)
    with pytest.raises(ValueError, match=said):
        train("refused", *FURTHER, *shlex.split(flags))


def half_trained(folder, tuned):
    """A base that was stopped, as its checkpoint says."""
    shutil.copytree(tuned, folder / "half", dirs_exist_ok=True)
    saved = CheckpointFolder(folder / "half" / "checkpoints" / "sft")
    fingerprint = saved.fingerprint()
    setup = setup_of("--method", "sft")
    state = setup.built.init(setup.settings.sft_schedule())
    shutil.rmtree(saved.path)
    saved.save(30, state, fingerprint=fingerprint, extra={"tokens": 0})
