"""What all stages of a run share, built from its settings before training."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from jaxrl_reason.grading.final_answer import Verify
from jaxrl_reason.learner.sft import SFTLearner, build_sft_learner
from jaxrl_reason.models import Transformer
from jaxrl_reason.rl.collect import SampleFn
from jaxrl_reason.rl.heldout import HeldoutEvaluation, build_heldout_evaluation
from jaxrl_reason.sampler import (
    BatchSettings,
    WeightPlacement,
    common_prefix,
    make_batch_sampler,
    make_sampler,
    weight_placement,
)
from jaxrl_reason.sharding import BatchSharding
from jaxrl_reason.sharding.agreement import main_first
from jaxrl_reason.tasks.reward_functions import Weighted
from jaxrl_reason.tasks.reward_task import RewardTask
from jaxrl_reason.tasks.task import Task
from jaxrl_reason.train.devices import build_mesh, run_rules
from jaxrl_reason.train.examples import (
    Examples,
    sft_examples,
)
from jaxrl_reason.train.heldout_figures import Heldout
from jaxrl_reason.train.models import (
    BuiltModel,
    ModelFiles,
    TeacherFiles,
    build_model,
    find_files,
    find_teacher,
)
from jaxrl_reason.train.own_reward import TaskRewards
from jaxrl_reason.train.session import checkpoints_of
from jaxrl_reason.train.sizes import (
    check_questions,
    needed_context,
    sized_to_questions,
)
from jaxrl_reason.train.task_rewards import build_rewards
from jaxrl_reason.train.tasks import (
    SFT_ROWS,
    Problems,
    build_task,
    load_problems,
)
from jaxrl_reason.train.train_settings import TrainSettings

_LOG = logging.getLogger(__name__)
# Sequences that the plain sampler decodes at once in an evaluation.
_EVALUATION_ROWS = 512


@dataclass(frozen=True)
class RunSetup:
    """What all stages of a run share.

    Attributes:
      settings: with every size set.
      files: of a model that was read.
      problems: the questions.
      task: makes prompts and grades responses.
      batch_sharding: the mesh and its sharding rules.
      built: the model.
      heldout: the evaluations.
      batch: settings of the samplers with slots; None for the plain one.
      examples: for fine-tuning; None without it.
      supervised: the compiled functions of fine-tuning.
      own_reward: the rewards in place of right and wrong, if there are any.
      teacher: of on-policy distillation.
      place: how samplers get the parameters, if not as in training.
    """

    settings: TrainSettings
    files: ModelFiles | None
    problems: Problems
    task: Task[Any]
    batch_sharding: BatchSharding
    built: BuiltModel
    heldout: Heldout
    batch: BatchSettings | None
    examples: Examples | None
    supervised: SFTLearner | None
    own_reward: TaskRewards | None
    teacher: TeacherFiles | None = None
    place: WeightPlacement | None = None

    def close(self) -> None:
        """Ends what the task holds: workers of rewards."""
        if isinstance(self.task, RewardTask):
            self.task.close()

    @property
    def model(self) -> Transformer:
        """The transformer."""
        return self.built.model

    def fingerprint(self) -> dict[str, Any]:
        """What a checkpoint after fine-tuning depends on, with the model's files."""
        found = {
            **self.settings.fingerprint(),
            **self._digest(),
            **self.problems.digests,
        }
        return found if self.teacher is None else found | self.teacher.fingerprint()

    def sft_fingerprint(self) -> dict[str, Any]:
        """What a checkpoint of fine-tuning depends on."""
        digests = self.problems.digests
        rows = {name: digests[name] for name in SFT_ROWS if name in digests}
        base = self.settings.sft_base
        found = {
            **self.settings.sft_fingerprint(),
            **self._digest(),
            **rows,
        }
        if base is not None:
            theirs = checkpoints_of(base, "sft").fingerprint()
            text = json.dumps(theirs, sort_keys=True)
            found["sft_base"] = hashlib.sha256(text.encode()).hexdigest()[:12]
        return found

    def _digest(self) -> dict[str, str]:
        return {} if self.files is None else {"model_digest": self.files.digest}


def build_run_setup(settings: TrainSettings, verify: Verify | None = None) -> RunSetup:
    """Builds problems, task, model and mesh; raises for what does not fit together.

    Cheap checks come first: weights are read after all that can be checked without
    them.

    Args:
      settings: of the run.
      verify: compares answers of different form by algebra.

    Raises:
      ValueError: something does not fit; the message says what.
    """
    mesh = build_mesh(settings.mesh, settings.sampler.mesh)
    batch_sharding = BatchSharding(mesh, run_rules(settings.sequence_parallel))
    with ExitStack() as on_error:
        rewards = build_rewards(settings, batch_sharding)
        for weighted in rewards:
            on_error.callback(weighted.reward.close)
        setup = setup_with_rewards(settings, verify, batch_sharding, rewards)
        on_error.pop_all()
    return setup


def setup_with_rewards(
    settings: TrainSettings,
    verify: Verify | None,
    batch_sharding: BatchSharding,
    rewards: Sequence[Weighted],
) -> RunSetup:
    """`build_run_setup` on a mesh, with the rewards of the run."""
    check_base(settings)
    problems = main_first("questions", partial(load_problems, settings))
    check_questions(settings, len(problems.train))
    files = main_first("model files", partial(find_files, settings.model))
    tokenizer = None if files is None else files.tokenizer
    task = build_task(settings, problems, tokenizer, verify, rewards)
    every = (*problems.train, *problems.heldout)
    prompts = [task.prompt_tokens(problem) for problem in every]
    settings = sized_to_questions(settings, task, problems, prompts)
    teacher = run_teacher(settings, files, task, problems, batch_sharding)
    built = build_model(
        settings.model,
        files,
        batch_sharding,
        vocab_size=task.tokenizer.vocab_size,
        context_length=needed_context(settings, task, problems),
        seed=settings.seed,
    )
    batch = batch_settings(settings, prompts, batch_sharding.num_shards)
    place = weight_placement(built.model, settings.sampler.weights)
    evaluation = partial(
        heldout_evaluation, settings, built.model, task, problems, batch, place
    )
    examples, supervised = None, None
    if settings.sft.updates:
        examples = sft_examples(settings, task, problems)
        supervised = build_sft_learner(
            built.model, settings.sft, settings.sft_schedule(), batch_sharding
        )
    samples, temperature = settings.eval.samples, settings.eval.temperature
    return RunSetup(
        settings=settings,
        files=files,
        problems=problems,
        task=task,
        batch_sharding=batch_sharding,
        built=built,
        heldout=Heldout(
            task,
            problems.heldout,
            greedy=evaluation(batch_sharding, 1, 0.0),
            sampled=evaluation(batch_sharding, samples, temperature),
        ),
        batch=batch,
        examples=examples,
        supervised=supervised,
        own_reward=TaskRewards(task) if isinstance(task, RewardTask) else None,
        teacher=teacher,
        place=place,
    )


def check_base(settings: TrainSettings) -> None:
    """Raises if fine-tuning is to begin with a model that there is not."""
    base = settings.sft_base
    if base is not None and not checkpoints_of(base, "sft").steps():
        raise ValueError(
            f"sft_base must be the folder of a run with a fine-tuned model, got {base}"
        )


def run_teacher(
    settings: TrainSettings,
    files: ModelFiles | None,
    task: Task[Any],
    problems: Problems,
    batch_sharding: BatchSharding,
) -> TeacherFiles | None:
    """The files of the teacher that the settings name, if they do."""
    if settings.teacher is None:
        return None
    first = task.tokenizer.decode(task.prompt_tokens(problems.train[0]))
    found = (settings.teacher, settings.model, files, first, batch_sharding)
    return main_first("teacher files", partial(find_teacher, *found))


def batch_settings(
    settings: TrainSettings, prompts: list[list[int]], parts: int
) -> BatchSettings | None:
    """Settings of the sampler with slots, in multiples of a mesh's parts of a batch.

    None without slots.
    """
    slots, width = settings.sampler.slots, settings.rl.prompt_width
    if not slots:
        return None
    half = -(-width // 2)
    counts = (slots * 3 // 4, slots // 2, slots // 4)
    fewer = {count - count % parts for count in counts} - {0, slots}
    return BatchSettings(
        slots=slots,
        # Long prompts vary in length; for short ones another compilation does not pay.
        prompt_widths=(half, width) if half > 64 else (width,),
        common_prefix=common_prefix(prompts),
        shrink_to=tuple(sorted(fewer, reverse=True)),
        cache_lengths=settings.sampler.cache_lengths,
    )


def heldout_evaluation(
    settings: TrainSettings,
    model: Transformer,
    task: Task[Any],
    problems: Problems,
    batch: BatchSettings | None,
    place: WeightPlacement | None,
    batch_sharding: BatchSharding,
    num_samples: int,
    temperature: float,
) -> HeldoutEvaluation:
    """One evaluation of the held-out problems."""
    rows: int = _EVALUATION_ROWS
    make: Callable[..., SampleFn] = make_sampler
    if batch is not None:
        rows = num_samples * len(problems.heldout)
        make = partial(make_batch_sampler, batch=batch)
    return build_heldout_evaluation(
        model,
        task,
        problems.heldout,
        num_samples=num_samples,
        temperature=temperature,
        max_new_tokens=settings.rl.max_new_tokens,
        prompt_width=settings.rl.prompt_width,
        batch_size=rows,
        seed=settings.seed,
        batch_sharding=batch_sharding,
        make=make,
        place=place,
    )
