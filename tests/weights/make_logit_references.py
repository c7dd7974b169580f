"""Makes references/logits.npz: the logits of transformers for every case.

Run from the repository's root where torch and transformers are:

    python -m tests.weights.make_logit_references

Made with torch 2.13.0 and transformers 5.23.0 on a CPU, in float32.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    Mistral3ForConditionalGeneration,
)

from tests.weights.cases import CASES, REFERENCES, tokens_of, write_folder


def logits_of(case: str) -> np.ndarray:
    """[24, V] float32."""
    seeing = CASES[case]["model_type"] == "mistral3"
    kind = Mistral3ForConditionalGeneration if seeing else AutoModelForCausalLM
    with tempfile.TemporaryDirectory() as name:
        folder = write_folder(case, Path(name))
        model, report = kind.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
        )
        image_parts = ("vision_tower", "multi_modal_projector")
        missing = [
            key
            for key in report["missing_keys"]
            if not any(part in key for part in image_parts)
        ]
        faults = [missing, report["unexpected_keys"], report["mismatched_keys"]]
        if any(faults):
            raise RuntimeError(f"{case}: {faults}")
        with torch.no_grad():
            found = model(torch.from_numpy(tokens_of(case))).logits[0]
    return found.numpy().astype(np.float32)


def main() -> None:
    REFERENCES.mkdir(exist_ok=True)
    logits = {case: logits_of(case) for case in CASES}
    for case, values in logits.items():
        print(f"{case:22} {values.shape} largest {np.abs(values).max():.2f}")
    np.savez_compressed(REFERENCES / "logits.npz", **logits)


if __name__ == "__main__":
    main()
