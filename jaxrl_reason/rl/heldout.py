"""Held-out accuracy: greedy, and the mean over k samples. Changes no training state."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax

from jaxrl_reason.models import Transformer
from jaxrl_reason.rl.collect import SampleFn, sample_groups
from jaxrl_reason.rl.rollouts import Rollouts, concatenate
from jaxrl_reason.runs.metrics_log import PhaseTimer
from jaxrl_reason.sampler import SamplingSettings, WeightPlacement, make_sampler
from jaxrl_reason.sharding import BatchSharding
from jaxrl_reason.tasks.grade_responses import grade_each
from jaxrl_reason.tasks.task import ResponseText, Task

# Evaluation has its own random stream: no rollout of the training has this number.
EVALUATION_DRAW = 2**31

# (model, settings, samples per prompt) -> a sampler, as `make_sampler` returns it.
MakeSampler = Callable[[Transformer, SamplingSettings, int], SampleFn]


@dataclass(frozen=True)
class HeldoutEvaluation:
    """A compiled evaluation: problems in chunks of one static shape.

    Attributes:
      task: makes prompts and grades responses.
      problems: problems that are not trained on.
      sample: the compiled sampler.
      num_samples: responses per problem.
      chunk: number of problems that are sampled at once.
      prompt_width: of padded prompts.
      seed: of the samples.
      batch_sharding: sharding of the prompts.
      place: copies the parameters to where `sample` reads them, if that is elsewhere.
    """

    task: Task
    problems: Sequence[Any]
    sample: SampleFn
    num_samples: int
    chunk: int
    prompt_width: int
    seed: int
    batch_sharding: BatchSharding
    place: WeightPlacement | None = None

    def run(self, params: Any) -> Rollouts:
        """Samples and grades responses to all problems, in order, in padded chunks.

        A grader that fails, also on all of them, is logged and counted (`failed`).
        """
        if self.place is not None:
            params = self.place(params)
        parts = []
        for start in range(0, len(self.problems), self.chunk):
            part = list(self.problems[start : start + self.chunk])
            real = len(part)
            part += [part[0]] * (self.chunk - real)
            rollouts = sample_groups(
                task=self.task,
                sample=self.sample,
                params=params,
                problems=part,
                group_size=self.num_samples,
                prompt_width=self.prompt_width,
                seed=self.seed,
                draw=EVALUATION_DRAW,
                policy_step=0,
                batch_sharding=self.batch_sharding,
                timer=PhaseTimer(),
                may_all_fail=True,
            )
            # The parts of rewards have no names, so another shape, until one was given.
            parts.append(replace(rollouts.select(slice(0, real)), extras={}))
        return concatenate(parts)

    def accuracy(self, params: Any) -> float:
        """Mean accuracy over problems and samples (avg@k)."""
        return float(self.run(params).correct.mean())


def build_heldout_evaluation(
    model: Transformer,
    task: Task,
    problems: Sequence[Any],
    *,
    num_samples: int,
    temperature: float,
    max_new_tokens: int,
    prompt_width: int,
    batch_size: int,
    seed: int,
    batch_sharding: BatchSharding,
    make: MakeSampler = make_sampler,
    place: WeightPlacement | None = None,
) -> HeldoutEvaluation:
    """Greedy with `temperature=0, num_samples=1`; avg@k with `num_samples=k`.

    `make` builds the sampler: the plain one, or for example
    `partial(make_batch_sampler, batch=BatchSettings(...))`. `place` is that of the
    policy's samplers, if they have one.
    """
    if not len(problems):
        raise ValueError("an evaluation needs at least one problem, got none")
    settings = SamplingSettings(
        max_new_tokens=max_new_tokens,
        eos_token_ids=task.eos_token_ids,
        temperature=temperature,
    )
    sample = make(model if place is None else place.model, settings, num_samples)
    chunk = max(1, min(batch_size // num_samples, len(problems)))
    # A multiple of the devices; the last chunk is padded anyway.
    chunk = -(-chunk // batch_sharding.num_shards) * batch_sharding.num_shards
    return HeldoutEvaluation(
        task=task,
        problems=problems,
        sample=sample,
        num_samples=num_samples,
        chunk=chunk,
        prompt_width=prompt_width,
        seed=seed,
        batch_sharding=batch_sharding,
        place=place,
    )


def samples_for_people(
    task: Task, rollouts: Rollouts, problems: Mapping[int, Any], count: int
) -> list[dict[str, Any]]:
    """The first response to each of the first `count` prompts, as graded text.

    Args:
      task: decodes, and says again what it has read in a response.
      rollouts: graded groups.
      problems: problem id -> problem.
      count: how many to show.
    """
    rows: list[dict[str, Any]] = []
    graded: list[dict[str, Any]] = []
    for i in range(min(count, len(rollouts.problem_ids))):
        one = jax.tree.map(lambda x, i=i: x[i], rollouts)
        answer = task.tokenizer.decode(one.tokens[0, : one.lengths[0]].tolist())
        prompt = one.prompt_tokens[: one.prompt_lengths].tolist()
        row: dict[str, Any] = {
            "problem_id": int(one.problem_ids),
            "prompt": task.tokenizer.decode(prompt),
            "answer": answer,
            "reward": float(one.rewards[0]),
            "parsed": None,
            "correct": bool(one.correct[0]),
            "length": int(one.lengths[0]),
            "truncated": bool(one.truncated[0]),
        }
        rows.append(row)
        if not one.failed[0]:  # the grader may hang on it once more
            graded.append(row)
    texts = [ResponseText(x["answer"], x["length"], x["truncated"]) for x in graded]
    grades = grade_each(task, [problems[x["problem_id"]] for x in graded], texts)
    for row, grade in zip(graded, grades, strict=True):
        row["parsed"] = grade.parsed
    return rows
