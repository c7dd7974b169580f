"""tunix's side of `step_against_peer.py`."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from transformers import AutoTokenizer
from tunix.models.llama3 import model as llama
from tunix.models.llama3.params import create_model_from_safe_tensors
from tunix.rl import rl_cluster
from tunix.rl.grpo.dapo_learner import DAPOConfig, DAPOLearner
from tunix.rl.rollout.base_rollout import RolloutConfig

from experiments.benchmarks import peers
from experiments.benchmarks.step_work import (
    CLIP_HIGH,
    CLIP_LOW,
    QUESTIONS,
    Step,
    Tunix,
    Work,
    batches,
)
from jaxrl_reason.tasks.questions import QuestionTask

MANY_STEPS = 10**6  # the run ends when no more are wanted


@dataclass
class Book:
    """What one step has seen."""

    rollout: float = 0.0
    lengths: list[int] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)

    def clear(self) -> None:
        """For the next step."""
        self.rollout = 0.0
        self.lengths.clear()
        self.right.clear()


def read_model(folder: Path, mesh: jax.sharding.Mesh, remat: bool) -> llama.Llama3:
    """The folder's model; norm scales and rope as config.json says."""
    said = json.loads((folder / "config.json").read_text())
    rope = said.get("rope_theta") or said["rope_parameters"]["rope_theta"]
    heads = said["num_attention_heads"]
    config = llama.ModelConfig(
        num_layers=said["num_hidden_layers"],
        vocab_size=said["vocab_size"],
        embed_dim=said["hidden_size"],
        hidden_dim=said["intermediate_size"],
        num_heads=heads,
        head_dim=said.get("head_dim") or said["hidden_size"] // heads,
        num_kv_heads=said["num_key_value_heads"],
        rope_theta=int(rope),
        norm_eps=said["rms_norm_eps"],
        weight_tying=said["tie_word_embeddings"],
        remat_config=llama.RematConfig.DECODER if remat else llama.RematConfig.NONE,
    )
    return create_model_from_safe_tensors(
        str(folder), config, mesh, dtype=jax.numpy.float32
    )


def serve_tunix(pipe: Any, work: Work, setting: Tunix) -> None:
    """A step of DAPOLearner for each request."""
    mesh = jax.make_mesh(
        (1, 1),
        ("fsdp", "tp"),
        devices=jax.devices()[:1],
        axis_types=(jax.sharding.AxisType.Auto,) * 2,
    )
    task, book = peers.load_task(work.folder, work.instruction), Book()
    tokenizer = AutoTokenizer.from_pretrained(work.folder)
    check_same_prompt(tokenizer, task)
    model = read_model(work.folder, mesh, setting.remat)
    cluster = rl_cluster.RLCluster(
        actor=model,
        tokenizer=tokenizer,
        cluster_config=cluster_config(work, setting, task, mesh),
    )
    note_rollouts(cluster, book, work)
    config = DAPOConfig(
        num_generations=work.samples,
        epsilon=CLIP_LOW,
        epsilon_high=CLIP_HIGH,
        overlong_buffer=None,
    )
    # None asks for the reference's log-probs, which no term of the loss then uses.
    config.beta = 0.0

    def reward(prompts: Any, completions: Any, index: Any, **_: Any) -> list[float]:
        asked = peers.questions(QUESTIONS)
        # Lengths are those of these completions: all are drawn before any is graded.
        truncated = [length == work.max_new_tokens for length in book.lengths]
        truncated = truncated[-len(completions) :]
        found = [
            task.grade(asked[i], text, over).correct
            for i, text, over in zip(index, completions, truncated, strict=True)
        ]
        book.right += found
        return [1.0 if right else -1.0 for right in found]

    learner = DAPOLearner(rl_cluster=cluster, algo_config=config, reward_fns=[reward])
    learner.train(steps(pipe, work, book, tokenizer, task, cluster))


def steps(
    pipe: Any,
    work: Work,
    book: Book,
    tokenizer: Any,
    task: QuestionTask,
    cluster: rl_cluster.RLCluster,
) -> Iterator[dict[str, np.ndarray]]:
    """The prompts of a step for each request; asking for the next ends the last one."""
    order = {q.problem_id: i for i, q in enumerate(peers.questions(QUESTIONS))}
    for asked in batches(work):
        if pipe.recv() is None:
            return
        book.clear()
        start, cpu = time.perf_counter(), time.process_time()
        yield {
            "prompts": np.array([chat(tokenizer, task, q) for q in asked]),
            "index": np.array([order[q.problem_id] for q in asked]),
        }
        jax.block_until_ready(nnx.state(cluster.actor_trainer.model))
        seconds = time.perf_counter() - start
        pipe.send(
            Step(
                seconds=seconds,
                cpu_seconds=time.process_time() - cpu,
                phases={"rollout": book.rollout, "train": seconds - book.rollout},
                responses=len(book.lengths),
                tokens=sum(book.lengths),
                correct=sum(book.right),
            )
        )


def chat(tokenizer: Any, task: QuestionTask, question: Any) -> str:
    """The prompt as text."""
    text = f"{question.question}{task.separator}{task.instruction}"
    return str(
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            add_generation_prompt=True,
            tokenize=False,
        )
    )


def check_same_prompt(tokenizer: Any, task: QuestionTask) -> None:
    """Refuses to compare unequal prompts."""
    question = peers.questions(1)[0]
    theirs = tokenizer.encode(chat(tokenizer, task, question))
    if theirs != task.prompt_tokens(question):
        raise ValueError(f"tunix's prompt must be ours, got {theirs}")


def note_rollouts(cluster: rl_cluster.RLCluster, book: Book, work: Work) -> None:
    """Notes the seconds and the lengths of what the cluster generates."""
    generate = cluster.generate

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        found = generate(*args, **kwargs)
        book.rollout += time.perf_counter() - start
        # tunix drops the EOS token; it was drawn all the same.
        drawn = (min(len(tokens) + 1, work.max_new_tokens) for tokens in found.tokens)
        book.lengths += drawn
        return found

    cluster.generate = timed


def cluster_config(
    work: Work, setting: Tunix, task: QuestionTask, mesh: jax.sharding.Mesh
) -> rl_cluster.ClusterConfig:
    """A step like ours; what is not named is tunix's default."""
    longest = max(len(task.prompt_tokens(q)) for q in peers.questions(QUESTIONS))
    width = -(-longest // 16) * 16
    roles = (
        rl_cluster.Role.ACTOR,
        rl_cluster.Role.REFERENCE,
        rl_cluster.Role.ROLLOUT,
    )
    return rl_cluster.ClusterConfig(
        role_to_mesh=dict.fromkeys(roles, mesh),
        training_config=rl_cluster.RLTrainingConfig(
            actor_optimizer=optax.chain(
                optax.clip_by_global_norm(1.0), optax.adamw(work.learning_rate)
            ),
            eval_every_n_steps=MANY_STEPS,
            max_steps=MANY_STEPS,
            mini_batch_size=work.prompts,
            train_micro_batch_size=setting.micro_batch,
            rollout_micro_batch_size=work.prompts,
            compute_logps_micro_batch_size=work.prompts,
            max_seq_token_per_tpu=setting.packed or None,
            pbar_description=None,
        ),
        rollout_config=RolloutConfig(
            max_tokens_to_generate=work.max_new_tokens,
            max_prompt_length=width,
            kv_cache_size=width + work.max_new_tokens,
            temperature=1.0,
            top_p=1.0,
            top_k=None,
            eos_tokens=list(task.eos_token_ids),
        ),
    )
