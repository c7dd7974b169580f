import enum
import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.runs import run_folder
from jaxrl_reason.runs.run_folder import RunFolderError, open_run, to_plain


@dataclass(frozen=True)
class Inner:
    betas: tuple[float, float] = (0.9, 0.95)


@dataclass(frozen=True)
class Settings:
    seed: int = 3
    optimiser: Inner = field(default_factory=Inner)
    limit: float | None = None


class Colour(enum.Enum):
    RED = 1


def test_a_new_run_says_what_is_run(tmp_path):
    with open_run(
        tmp_path / "runs" / "first", Settings(), argv=["x.py", "--a b"]
    ) as run:
        config = run.config()
    assert config["name"] == "first"
    assert config["settings"] == {
        "seed": 3,
        "optimiser": {"betas": [0.9, 0.95]},
        "limit": None,
    }
    assert config["versions"]["jax"] == jax.__version__
    assert config["command"] == "x.py '--a b'"
    assert config["devices"]["platform"] == jax.devices()[0].platform
    assert config["devices"]["count"] == len(jax.devices())
    assert config["resumed"] == []
    assert set(config) >= {"started", "git"}


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"not empty and has no run .* --run-dir"):
        open_run(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_with_a_run_in_it_is_refused(tmp_path):
    open_run(tmp_path, {}).close()
    with pytest.raises(RunFolderError, match=r"not empty; pass --resume must"):
        open_run(tmp_path, {})


def test_a_start_that_failed_can_be_repeated(tmp_path):
    resource = pytest.importorskip("resource", reason="no limits on this system")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            open_run(tmp_path, Settings())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    (tmp_path / ".config.json.tmp").write_text("{")  # killed while it wrote
    open_run(tmp_path, Settings()).close()


def test_an_empty_folder_is_taken(tmp_path):
    open_run(tmp_path, {}).close()
    assert (tmp_path / "config.json").is_file()


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(RunFolderError, match="is a file"):
        open_run(tmp_path / "run", {})


def test_nothing_to_resume(tmp_path):
    with pytest.raises(RunFolderError, match=r"nothing to resume in .*absent"):
        open_run(tmp_path / "absent", {}, resume=True)
    assert not (tmp_path / "absent").exists()


def test_resuming_keeps_the_first_config_and_adds_to_it(tmp_path):
    open_run(tmp_path / "run", Settings()).close()
    first = open_run(tmp_path / "run", Settings(), resume=True, argv=["again"])
    first.close()
    second = open_run(tmp_path / "run", Settings(seed=4), resume=True)
    second.close()
    config = second.config()
    assert config["settings"]["seed"] == 3
    assert config["resumed"][0]["command"] == "again"
    assert "settings" not in config["resumed"][0]
    assert config["resumed"][1]["settings"]["seed"] == 4


def test_a_second_process_is_kept_out_while_the_first_has_it(tmp_path):
    code = (
        "import sys; from jaxrl_reason.runs.run_folder import RunFolder;"
        "RunFolder(sys.argv[1]).lock()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    run = open_run(tmp_path, {})
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"is in use by process {run_folder.os.getpid()}" in first.stderr
    run.close()
    run.close()
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr


def test_settings_of_every_kind_become_json():
    given = {
        "array": np.arange(3),
        "scalar": jnp.float32(0.5),
        "half": np.float32(0.25),
        "path": Path("a/b"),
        "set": {2, 1},
        "enum": Colour.RED,
        "function": jnp.mean,
        "class": zipfile.ZipFile,
        "nan": float("nan"),
        "inf": -np.inf,
        "flag": True,
        3: None,
    }
    plain = to_plain(given)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["array"] == [0, 1, 2]
    assert (plain["scalar"], plain["half"]) == (0.5, 0.25)
    assert (plain["path"], plain["set"], plain["enum"]) == ("a/b", [1, 2], "RED")
    assert plain["function"].endswith("mean")
    assert plain["class"] == "zipfile.ZipFile"
    assert (plain["nan"], plain["inf"]) == ("nan", "-inf")
    assert plain["flag"] is True
    assert plain["3"] is None


def test_git_revision_is_of_our_checkout_or_none(tmp_path, monkeypatch):
    found = run_folder.git_revision()
    if found is not None:
        assert len(found["revision"]) == 40
        assert isinstance(found["changed"], bool)
    # Installed inside somebody else's repository: theirs is not ours.
    package = tmp_path / "env" / "jaxrl_reason"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(
        run_folder.jaxrl_reason, "__file__", str(package / "__init__.py")
    )
    assert run_folder.git_revision() is None
