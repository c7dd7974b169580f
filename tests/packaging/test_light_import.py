"""Somebody who wants one loss pays for jax and chex, nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = [
    "array_record",
    "datasets",
    "flax",
    "grain",
    "matplotlib",
    "optax",
    "orbax",
    "pandas",
    "psutil",
    "rich",
    "sentencepiece",
    "tensorboardX",
    "tensorflow",
    "tensorflow_datasets",
    "torch",
    "transformers",
    "tyro",
]
SCRIPT = """
import sys
import {module}
loaded = sorted(sys.modules)
import json
print(json.dumps(loaded))
"""


@pytest.mark.parametrize("package", ["losses", "sharding"])
def test_the_ground_is_light(root: Path, package: str) -> None:
    module = f"jaxrl_reason.{package}"
    printed = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT.format(module=module)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    loaded = json.loads(printed)
    assert "jax" in loaded
    assert {name.partition(".")[0] for name in loaded} & set(HEAVY) == set()
    # Of the house, only the package itself.
    house = [name for name in loaded if name.startswith("jaxrl_reason.")]
    assert [name for name in house if not name.startswith(module)] == []
