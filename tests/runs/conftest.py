"""Checkpoints that the tests of this folder read and damage."""

import shutil

import numpy as np
import pytest

from jaxrl_reason.runs.checkpoints import CheckpointFolder
from tests.runs.checkpoint_helpers import SETTINGS, make_state


@pytest.fixture(scope="session")
def saved_once(tmp_path_factory):
    """Steps 10, 20 and 30, saved once for the tests that damage copies of them."""
    path = tmp_path_factory.mktemp("saved") / "checkpoints"
    folder = CheckpointFolder(path)
    for step in (10, 20, 30):
        arrays = {"tokens": np.arange(step)}
        folder.save(step, make_state(step), {"at": step}, SETTINGS, arrays)
    return path


@pytest.fixture
def folder(saved_once, tmp_path):
    shutil.copytree(saved_once, tmp_path / "checkpoints")
    return CheckpointFolder(tmp_path / "checkpoints")
