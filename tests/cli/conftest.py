"""Strangers' folders in which the tests of `jaxrl-reason train` run."""

import json

import jax
import pytest

from jaxrl_reason.cli.train import main
from tests.cli.tiny_runs import REWARD, TINY


@pytest.fixture(scope="package")
def shared_folder(tmp_path_factory):
    """What tests share: rows, a reward, two runs, and what is compiled."""
    path = tmp_path_factory.mktemp("shared")
    rows = [
        {"problem": f"{a}+{b}=", "solution": a + b, "said": str((3 * a + b) % 10)}
        for a in range(6)
        for b in range(4)
    ]
    (path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "reward.py").write_text(REWARD)
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (str(path / "compiled"), 0.1), strict=True):
        jax.config.update(name, value)
    yield path
    for name, value in zip(names, before, strict=True):
        jax.config.update(name, value)


@pytest.fixture
def folder(shared_folder, tmp_path):
    """A test's own folder, so that no two tests have a run of one name."""
    for path in shared_folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


@pytest.fixture
def train(folder, monkeypatch):
    """Runs the command in that folder."""
    monkeypatch.chdir(folder)

    def run(name, *flags, tiny=True):
        main([*(TINY if tiny else ()), "--run-dir", name, *flags])
        return folder / name

    return run


@pytest.fixture(scope="package")
def tuned(shared_folder):
    """A run of supervised fine-tuning, whose model the others start from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shared_folder)
        main([*TINY, "--run-dir", "tuned", "--method", "sft", "--eval.every", "30"])
    return shared_folder / "tuned"


@pytest.fixture(scope="package")
def whole(shared_folder, tuned):
    """A run of DAPO with a reward of one's own."""
    flags = "--run-dir whole --sft-from tuned --reward reward.py:parity"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shared_folder)
        main([*TINY, *flags.split()])
    return shared_folder / "whole"
