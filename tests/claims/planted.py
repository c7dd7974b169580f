"""Claims whose effects are planted: arms that draw numbers, no model."""

import tempfile
from pathlib import Path

from jaxrl_reason.claims import Claim
from jaxrl_reason.claims.claim import load_claim

SOURCE = '''"""A planted effect."""

import numpy as np

from jaxrl_reason.claims import Claim, Comparison, Measure, Panel, over_steps

EFFECT = {effect}


def run_arm(arm, seed, steps):
    rng = np.random.default_rng((seed, "abcd".index(arm)))
    shift = EFFECT if arm == "a" else 0.0
    return [
        {{"step": n, "x": np.float32(shift + 0.1 * rng.standard_normal()), "y": np.nan}}
        for n in range(1, steps + 1)
    ]


CLAIM = Claim(
    title="A planted effect",
    sentence="There is one.",
    source="nobody",
    arms={{"a": "with", "b": "without", "c": "a control", "d": "its baseline"}},
    comparison=Comparison("a", "b"),
    measure=Measure("x", "units", over_steps("x", 1, 9)),
    direction=1,
    smallest=1.0,
    controls=[Comparison("c", "d")],
    seeds=(1, 2, 3, 4, 5),
    tuned_on=(100,),
    steps=2,
    run_arm=run_arm,
    refuted_if="it is smaller than 1",
    panels=[Panel("x", "x", "units"), Panel("y", "never known")],
    more_measures=[Measure("y", "units", over_steps("y", 1, 9))],
)
'''


def planted_file(folder: Path, name: str, effect: float = 2.0) -> Path:
    """Writes a claim with that effect."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(SOURCE.format(effect=effect))
    return path


def claim_of(effect: float) -> Claim:
    """That claim."""
    with tempfile.TemporaryDirectory() as folder:
        return load_claim(str(planted_file(Path(folder), "planted", effect))).claim
