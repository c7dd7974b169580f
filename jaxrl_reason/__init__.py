"""jaxrl_reason: reinforcement learning of reasoning language models in pure JAX."""

from pathlib import Path

__version__ = "0.1.0"

# The folders losses/ and sharding/ stand beside this package in a checkout and inside
# it once installed. In a checkout, let the import system look beside it as well.
if not (Path(__file__).parent / "losses").is_dir():
    __path__.append(str(Path(__file__).parent.parent))
