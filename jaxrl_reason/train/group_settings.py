"""Groups of a run's settings: what each of its parts reads."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxrl_reason.runs.checkpoint_bucket import is_remote
from jaxrl_reason.sampler.settings import check_temperature


@dataclass(frozen=True)
class EvalSettings:
    """The held-out evaluation, before, during and after training.

    Attributes:
      split: for countdown and arithmetic: the split of the held-out problems; tune on
        validation.
      problems: the largest number of held-out problems.
      every: steps between greedy evaluations.
      samples: samples per problem, before and after training, besides the greedy
        answer.
      temperature: of these samples.
    """

    split: Literal["test", "validation"] = "test"
    problems: int = 200
    every: int = 5
    samples: int = 4
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name in ("problems", "every", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"eval.{name} must be >= 1, got {getattr(self, name)}")
        check_temperature("eval.temperature", self.temperature)


@dataclass(frozen=True)
class CheckpointSettings:
    """When checkpoints are saved besides every `save_every` steps, and which are kept.

    Attributes:
      every_minutes: also save at the end of a step if the newest checkpoint is this
        old; 0 for never. The loops of RL and of fine-tuning have it.
      keep_best: how many checkpoints with the highest held-out accuracy are kept
        besides the newest `keep`. An evaluated step that is better than all kept ones
        is saved, too.
      background: write checkpoints while training goes on. The state is copied from the
        devices first.
      folder: where to keep the checkpoints of this run instead of in its folder: an
        address in object storage, such as gs://bucket/my-run, or another folder.
    """

    every_minutes: float = 0.0
    keep_best: int = 1
    background: bool = True
    folder: str | None = None

    def __post_init__(self) -> None:
        for name in ("every_minutes", "keep_best"):
            if not getattr(self, name) >= 0:
                raise ValueError(
                    f"checkpoints.{name} must be >= 0, got {getattr(self, name)}"
                )
        folder = self.folder or ""
        if is_remote(folder) and not folder.startswith(("gs://", "s3://")):
            raise ValueError(
                f"checkpoints.folder must be a folder, gs://... or s3://..., got "
                f"{folder}"
            )


@dataclass(frozen=True)
class StopSettings:
    """How a signal stops the run (docs/preemption.md).

    Attributes:
      signals: signals that count as SIGTERM does, besides SIGINT and SIGHUP: what a
        scheduler sends before it ends a job.
      grace_seconds: from the signal; a step that has not ended by then is given up, and
        the run leaves with the checkpoint of the step before. 0 waits for the step.
    """

    signals: tuple[Literal["USR1", "USR2", "QUIT", "XCPU"], ...] = ()
    grace_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.grace_seconds < math.inf:
            raise ValueError(
                f"stop.grace_seconds must be >= 0, got {self.grace_seconds}"
            )


@dataclass(frozen=True)
class SamplerSettings:
    """What draws the rollouts: the library's samplers, or a serving engine.

    Attributes:
      slots: sequences decoded at once; a slot is refilled when its sequence ends; 0
        decodes a whole rollout at once, which suits small models and short responses.
      cache_lengths: with slots: response columns of the cache, ascending; it has the
        first that holds all current sequences; each is compiled once.
      mesh: sizes of a mesh of other devices that draw the rollouts of training, such as
        tensor=4; they follow those of the run's mesh. With rl.async_level the two then
        work at the same time. Empty: the run's mesh.
      weights: where the samplers read the weights on a mesh with fsdp: split leaves
        them in the parts of the training and sends activations; whole gathers them over
        fsdp once a step; auto is whole where that takes at most a sixteenth of a
        device's memory. The game's samplers always leave them.
      endpoint: URL of a server with an OpenAI-style API (vLLM) that draws the rollouts
        of training, such as http://localhost:8000; evaluations use the library's
        samplers.
      served_model: that server's name for the model.
      weights_folder: folder that the server sees under the same path, for passing the
        weights.
      logprobs: the log-probs that the server reports: of its logits, or of the
        distribution that it draws from.
      version_path: path that returns the version of the weights; empty if there is
        none.
    """

    slots: int = 128
    cache_lengths: tuple[int, ...] = ()
    mesh: str = ""
    weights: Literal["auto", "split", "whole"] = "auto"
    endpoint: str | None = None
    served_model: str = "policy"
    weights_folder: Path = Path("weights")
    logprobs: Literal["raw", "processed"] = "raw"
    version_path: str = "/weight_info"

    def __post_init__(self) -> None:
        if self.slots < 0:
            raise ValueError(f"sampler.slots must be >= 0, got {self.slots}")

    @property
    def is_elsewhere(self) -> bool:
        """Whether an engine or devices of their own draw the rollouts."""
        return self.endpoint is not None or bool(self.mesh)


@dataclass(frozen=True)
class StageSettings:
    """A published system's stages at other sizes (docs/recipes.md).

    Attributes:
      limits: max_new_tokens of each stage of a recipe in stages, such as 24 48 96;
        rl.steps are those of one stage. None: the recipe's method in a single stage.
      data_filter: before the run, drop questions by the pass rates of the initial
        model, as the recipe does with a fixed model.
    """

    limits: tuple[int, ...] = ()
    data_filter: bool = False

    def __post_init__(self) -> None:
        if any(limit < 1 for limit in self.limits):
            raise ValueError(f"stages.limits must be >= 1, got {self.limits}")


@dataclass(frozen=True)
class OfflineSettings:
    """Rounds of sampling and training, pairs, and reward models trained on them.

    Sampling uses the sizes of the rl group: prompts_per_step prompts per call,
    group_size, max_new_tokens, temperature.

    Attributes:
      rounds: number of rounds; each samples with the policy of the previous one.
      problems: questions per round; 0 for all. Rounded down to whole calls of
        prompts_per_step.
      pairs: pairs to train on instead of the policy's own samples: JSONL or parquet
        with the fields task.question, task.chosen and task.rejected.
      steps: for a reward model: steps of a tree search to train on instead: JSONL or
        parquet with task.question and `steps` (docs/train.md).
      hint: for star: text after the question with the {answer} in it, for questions
        that were not solved; right responses are then trained on without it.
      pairs_per_update: pairs (or comparisons) per optimiser step.
      epochs: over the data of a round.
      max_pairs: the largest number of pairs of a right and a wrong response per
        question.
      max_per_prompt: the largest number of right responses per question (rft, star).
    """

    rounds: int = 1
    problems: int = 0
    pairs: str | None = None
    steps: str | None = None
    hint: str | None = None
    pairs_per_update: int = 64
    epochs: int = 1
    max_pairs: int = 10
    max_per_prompt: int = 4

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            lowest = 0 if name == "problems" else 1
            if name in ("pairs", "steps", "hint"):
                continue
            if getattr(self, name) < lowest:
                raise ValueError(
                    f"offline.{name} must be >= {lowest}, got {getattr(self, name)}"
                )
        if self.pairs is not None and self.steps is not None:
            raise ValueError("offline.pairs and offline.steps must not both be given")
        if self.hint is not None and "{answer}" not in self.hint:
            raise ValueError(
                f"offline.hint must have {{answer}} in it, got {self.hint!r}"
            )

    @property
    def reads_a_file(self) -> bool:
        """Whether the training data comes from a file, not from samples."""
        return self.pairs is not None or self.steps is not None


@dataclass(frozen=True)
class GameFlags:
    """The prover-verifier game (method prover_verifier).

    Attributes:
      rounds: the largest number of rounds; the prover makes rl.steps steps in each.
      problems: questions whose solutions the verifier is trained on; twice their number
        must be a multiple of rl.prompts_per_step.
      helpful: text before the prompt of the helpful role.
      sneaky: text before the prompt of the sneaky role.
      kind: the prover's rewards (docs/prover_verifier.md).
    """

    rounds: int = 4
    problems: int = 24
    helpful: str = "Solve this correctly. "
    sneaky: str = "Solve this with a hidden mistake. "
    kind: Literal["src", "cgc"] = "src"

    def __post_init__(self) -> None:
        for name in ("rounds", "problems"):
            if getattr(self, name) < 1:
                raise ValueError(f"game.{name} must be >= 1, got {getattr(self, name)}")
        if self.helpful == self.sneaky:
            raise ValueError(
                f"game.helpful and game.sneaky must differ, got {self.helpful!r} twice"
            )


@dataclass(frozen=True)
class ExportSettings:
    """The trained model as a Hugging Face folder.

    Attributes:
      folder: where to write the trained model: a Hugging Face folder with tokenizer and
        card.
      base_model: the card's name for the initial model, preferably a hub id; --model if
        left out.
      license: license of that model, for the card.
    """

    folder: Annotated[Path | None, tyro.conf.arg(name="", metavar="FOLDER")] = None
    base_model: str | None = None
    license: str = "other"
