"""trl's side of `step_against_peer.py`."""

import os
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from experiments.benchmarks import peers
from experiments.benchmarks.step_work import (
    CLIP_HIGH,
    CLIP_LOW,
    QUESTIONS,
    Step,
    Trl,
    Work,
)
from jaxrl_reason.tasks.questions import QuestionTask


class Done(Exception):
    """No more steps are wanted."""


@dataclass
class Book:
    """What one step has seen."""

    rollout: float = 0.0
    lengths: list[int] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)


@dataclass
class Reward:
    """1 or -1 from the grader of the task."""

    task: QuestionTask
    book: Book
    __name__: str = "grader"

    def __call__(
        self, completions: Any, completion_ids: Any, index: Any, **_: Any
    ) -> list[float]:
        asked, given = peers.questions(QUESTIONS), []
        for turns, ids, i in zip(completions, completion_ids, index, strict=True):
            truncated = ids[-1] not in self.task.eos_token_ids
            verdict = self.task.grade(asked[i], turns[0]["content"], truncated)
            self.book.lengths.append(len(ids))
            self.book.right.append(verdict.correct)
            given.append(1.0 if verdict.correct else -1.0)
        return given


class TimedTrainer(GRPOTrainer):
    """GRPOTrainer that notes the seconds of its rollouts."""

    book: Book

    def _generate(self, prompts: list[Any]) -> Any:
        start = time.perf_counter()
        found = super()._generate(prompts)
        self.book.rollout += time.perf_counter() - start
        return found


class InTurns(TrainerCallback):
    """Waits for a request before each optimiser step, and answers it after."""

    def __init__(self, pipe: Any, book: Book) -> None:
        self.pipe, self.book = pipe, book
        self.start = self.cpu = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Before the first micro-batch, whose inputs are the rollout."""
        if self.pipe.recv() is None:
            raise Done
        self.book.rollout = 0.0
        self.book.lengths.clear()
        self.book.right.clear()
        self.start, self.cpu = time.perf_counter(), time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """After the update."""
        seconds, book = time.perf_counter() - self.start, self.book
        self.pipe.send(
            Step(
                seconds=seconds,
                cpu_seconds=time.process_time() - self.cpu,
                phases={"rollout": book.rollout, "train": seconds - book.rollout},
                responses=len(book.lengths),
                tokens=sum(book.lengths),
                correct=sum(book.right),
            )
        )


def serve_trl(pipe: Any, work: Work, setting: Trl) -> None:
    """A step of GRPOTrainer for each request."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    task, book = peers.load_task(work.folder, work.instruction), Book()
    texts = [
        f"{question.question}{task.separator}{task.instruction}"
        for question in peers.questions(QUESTIONS)
    ]
    rows = [
        {"prompt": [{"role": "user", "content": text}], "index": index}
        for index, text in enumerate(texts)
    ]
    trainer = TimedTrainer(
        model=str(work.folder),
        reward_funcs=Reward(task, book),
        args=config(work, setting),
        train_dataset=Dataset.from_list(rows),
        callbacks=[InTurns(pipe, book)],
    )
    trainer.book = book
    check_same_work(trainer, task, rows[0]["prompt"])
    try:
        trainer.train()
    except Done:
        return


def check_same_work(trainer: Any, task: QuestionTask, prompt: Any) -> None:
    """Refuses to compare unequal work: prompts and EOS tokens must be ours."""
    theirs = trainer.processing_class.apply_chat_template(
        prompt, add_generation_prompt=True, return_dict=True
    )["input_ids"]
    ours = task.prompt_tokens(peers.questions(1)[0])
    if list(theirs) != ours:
        raise ValueError(f"trl's prompt must be ours {ours}, got {theirs}")
    if set(trainer.eos_token_ids) != set(task.eos_token_ids):
        raise ValueError(
            f"trl's EOS tokens must be ours {task.eos_token_ids}, "
            f"got {trainer.eos_token_ids}"
        )


def config(work: Work, setting: Trl) -> GRPOConfig:
    """A step like ours; what is not named is trl's default."""
    weights = "bfloat16" if setting.dtype == "bfloat16" else "float32"
    return GRPOConfig(
        output_dir=str(work.scratch / "trl"),
        model_init_kwargs={"dtype": weights},
        loss_type="dapo",
        epsilon=CLIP_LOW,
        epsilon_high=CLIP_HIGH,
        beta=0.0,
        num_generations=work.samples,
        max_completion_length=work.max_new_tokens,
        temperature=1.0,
        per_device_train_batch_size=setting.micro_batch,
        gradient_accumulation_steps=work.prompts * work.samples // setting.micro_batch,
        learning_rate=work.learning_rate,
        lr_scheduler_type="constant",
        max_steps=10**6,
        bf16=setting.dtype != "float32",
        gradient_checkpointing=setting.checkpointing,
        shuffle_dataset=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
