"""jaxrl_reason: reinforcement learning of reasoning language models in pure JAX."""

from pathlib import Path

__version__ = "0.1.0"

# The folders losses/ and sharding/ are next to this package in a checkout and inside it
# once installed. In a checkout, the import system must look in the parent folder too.
if not (Path(__file__).parent / "losses").is_dir():
    __path__.append(str(Path(__file__).parent.parent))
