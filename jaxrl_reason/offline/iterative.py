"""Rounds of sampling and offline training: iterative DPO, RFT and STaR.

A round samples with the current policy, grades, selects the training data, and trains
with a new optimiser. Call it again with another `round_index` for the next one.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jaxrl_reason.data.preference_pairs import build_pairs
from jaxrl_reason.data.rejection_sampling import (
    correct_and_complete,
    deduplicate_and_cap,
    needs_hint,
)
from jaxrl_reason.learner.sft import Example, SFTLearner, sft_update
from jaxrl_reason.learner.state import OptimizerSettings, TrainState, init_state
from jaxrl_reason.offline.pair_learner import PairLearner
from jaxrl_reason.offline.preference_methods import PreferenceMethod
from jaxrl_reason.offline.preference_training import (
    even_batches,
    train_on_pairs,
)
from jaxrl_reason.offline.sample_rounds import (
    HintedTask,
    RoundSampler,
    as_examples,
    as_pairs,
    response_texts,
    round_metrics,
    sample_round,
)
from jaxrl_reason.rl.collect import NoSignalError
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.metrics_log import (
    Pairs,
    Row,
    add_metrics,
    finish_metrics,
)

Params = Any


def iterative_dpo_round(
    sampler: RoundSampler,
    learner: PairLearner[PreferenceMethod],
    policy: TrainState,
    problems: Sequence[Any],
    *,
    round_index: int,
    max_pairs: int = 10,
    max_length_ratio: float | None = None,
    reference: Params | None = None,
) -> tuple[TrainState, Row, Rollouts]:
    """One round of iterative DPO (IRPO, arXiv 2404.19733, has four).

    Args:
      sampler: task and sampler.
      learner: of preference training; the method is the caller's choice.
      policy: of the previous round; it samples, training starts from it, and it is not
        changed.
      problems: P problems, a multiple of the sampler's `prompts_per_call`.
      round_index: >= 0, different for each round: fixes what is sampled and paired.
      max_pairs: pairs of a right and a wrong response per prompt, IRPO's 10.
      max_length_ratio: of the responses of a pair, None for no bound.
      reference: parameters of the frozen reference; the policy's own if left out.

    Returns:
      The trained state, the round's metrics (`reward/accuracy` is that of the
      sampled responses, `preference/accuracy` of the implicit reward), and the
      rollouts.

    Raises:
      NoSignalError: no prompt has both a right and a wrong complete response.
    """
    # Sample with the policy of the previous round, and grade.
    rollouts = sample_round(sampler, policy.params, problems, draw=2 * round_index)

    # Pairs of a right and a wrong response, neither truncated.
    places = build_pairs(
        rollouts.correct,
        rollouts.truncated,
        rollouts.lengths,
        max_pairs=max_pairs,
        seed=round_seed(sampler.settings.seed, round_index),
        failed=rollouts.failed,
        problem_ids=rollouts.problem_ids,
        max_length_ratio=max_length_ratio,
    )
    if not len(places):
        raise NoSignalError(no_data_message(rollouts, "a right and a wrong"))

    # Train from that policy, with that policy as the reference.
    state = init_state(policy.params, learner.optimizer.build(), copy=True)
    state, row = train_on_pairs(learner, state, as_pairs(rollouts, places), reference)
    return state, row | round_metrics(rollouts), rollouts


def rft_round(
    sampler: RoundSampler,
    learner: SFTLearner,
    optimizer: OptimizerSettings,
    policy: TrainState,
    problems: Sequence[Any],
    *,
    round_index: int = 0,
    start: TrainState | None = None,
    max_per_prompt: int = 4,
    epochs: int = 1,
    original: Sequence[Example] = (),
    signature: Callable[[str], Hashable] = str,
) -> tuple[TrainState, Row, Rollouts]:
    """Rejection-sampling fine-tuning (RFT, arXiv 2308.01825): train on right responses.

    Args:
      sampler: task and sampler.
      learner: of supervised training.
      optimizer: that of the learner.
      policy: samples; not changed.
      problems: P problems, a multiple of the sampler's `prompts_per_call`.
      round_index: >= 0, different for each round.
      start: the model to train, not changed; the policy if left out. RFT's paper trains
        the pretrained model, on the original data and the kept responses.
      max_per_prompt: responses per prompt, so that easy ones do not dominate the data.
      epochs: over all examples.
      original: further examples to train on.
      signature: of a response's text; of equal ones the first is kept. RFT's is
        `equation_signature`.

    Returns:
      The trained state, the round's metrics, and the rollouts.

    Raises:
      NoSignalError: there is nothing to train on.
    """
    rollouts = sample_round(sampler, policy.params, problems, draw=2 * round_index)
    seed = round_seed(sampler.settings.seed, round_index)
    examples = _learnable(sampler, rollouts, max_per_prompt, seed, signature)
    state, row = _fine_tune(
        learner,
        init_state((start or policy).params, optimizer.build(), copy=True),
        [*original, *examples],
        epochs,
        seed,
        rollouts,
    )
    return state, row | {"rollout/kept": len(examples)}, rollouts


def star_round(
    sampler: RoundSampler,
    learner: SFTLearner,
    optimizer: OptimizerSettings,
    policy: TrainState,
    base: TrainState,
    problems: Sequence[Any],
    *,
    round_index: int,
    hint: Callable[[Any], list[int]] | None = None,
    max_per_prompt: int = 1,
    epochs: int = 1,
    original: Sequence[Example] = (),
    signature: Callable[[str], Hashable] = str,
) -> tuple[TrainState, Row, Rollouts]:
    """One round of STaR (arXiv 2203.14465): trains the base model on right responses.

    Problems without a right response are sampled again with the answer in the prompt;
    right responses to these are trained on with the prompt without the hint.

    Args:
      sampler: task and sampler; `prompt_width` must hold the hinted prompts.
      learner: of supervised training.
      optimizer: that of the learner.
      policy: of the previous round, which samples; not changed.
      base: the model that every round trains; not changed.
      problems: P problems, a multiple of the sampler's `prompts_per_call`.
      round_index: >= 0, different for each round.
      hint: problem -> prompt tokens with the answer; None for no rationalisation.
      max_per_prompt: responses per prompt; the paper samples one.
      epochs: over all examples.
      original: further examples to train on.
      signature: of a response's text; of equal ones the first is kept.

    Returns:
      The trained state, the round's metrics, and the rollouts without hints.

    Raises:
      NoSignalError: there is nothing to train on.
    """
    rollouts = sample_round(sampler, policy.params, problems, draw=2 * round_index)
    seed = round_seed(sampler.settings.seed, round_index)
    examples = _learnable(sampler, rollouts, max_per_prompt, seed, signature)
    hinted: list[Example] = []
    lost = needs_hint(rollouts.correct, rollouts.truncated, failed=rollouts.failed)
    if hint is not None and lost.any():
        # All problems again, so that the sampler is not recompiled.
        task = HintedTask(sampler.task, hint)
        again = sample_round(
            sampler, policy.params, problems, draw=2 * round_index + 1, task=task
        ).select(np.flatnonzero(lost))
        plain = rollouts.select(np.flatnonzero(lost))
        again = replace(
            again,
            prompt_tokens=plain.prompt_tokens,
            prompt_lengths=plain.prompt_lengths,
        )
        hinted = _learnable(sampler, again, max_per_prompt, seed, signature)
    state, row = _fine_tune(
        learner,
        init_state(base.params, optimizer.build(), copy=True),
        [*original, *examples, *hinted],
        epochs,
        seed,
        rollouts,
    )
    row["rollout/kept"] = len(examples)
    row["rollout/kept_with_hint"] = len(hinted)
    return state, row, rollouts


def round_seed(seed: int, round_index: int) -> int:
    """A seed for each round, which no round of a run with another seed shares.

    >>> round_seed(0, 1) == round_seed(1, 0)
    False
    """
    if round_index < 0:
        raise ValueError(f"round_index must be >= 0, got {round_index}")
    return int(np.random.SeedSequence([seed, round_index]).generate_state(1)[0])


def train_on_examples(
    learner: SFTLearner,
    state: TrainState,
    examples: Sequence[Example],
    *,
    epochs: int,
    seed: int,
) -> tuple[TrainState, Row]:
    """Supervised epochs in random order; the state is donated.

    Raises:
      ValueError: there are no examples, or `epochs` < 1.
    """
    if not examples or epochs < 1:
        raise ValueError(
            f"examples and epochs must be at least 1, got {len(examples)} and {epochs}"
        )
    rng = np.random.default_rng(seed)
    total: Pairs = {}
    updates = 0
    for _ in range(epochs):
        size = learner.settings.examples_per_update
        for places in even_batches(len(examples), size, rng):
            batch = [examples[i] for i in places]
            state, metrics, _ = sft_update(learner, state, batch)
            total = add_metrics(total, metrics)
            updates += 1
    return state, finish_metrics(total, "sft") | {"sft/updates": updates}


def no_data_message(rollouts: Rollouts, wanted: str) -> str:
    """The text of the error of a round without training data."""
    return (
        f"a round must have a prompt with {wanted} complete response, got none of "
        f"{len(rollouts.problem_ids)} ({rollouts.correct.mean():.0%} of the responses "
        f"right, {rollouts.truncated.mean():.0%} truncated); change the problems, "
        "raise group_size or raise max_new_tokens"
    )


def _learnable(
    sampler: RoundSampler,
    rollouts: Rollouts,
    max_per_prompt: int,
    seed: int,
    signature: Callable[[str], Hashable],
) -> list[Example]:
    """Distinct right and complete responses, at most `max_per_prompt` each."""
    texts = response_texts(rollouts, sampler.task.tokenizer)
    kept = deduplicate_and_cap(
        correct_and_complete(
            rollouts.correct, rollouts.truncated, failed=rollouts.failed
        ),
        [[signature(text) for text in group] for group in texts],
        max_per_prompt=max_per_prompt,
        seed=seed,
        problem_ids=rollouts.problem_ids,
    )
    return as_examples(rollouts, kept)


def _fine_tune(
    learner: SFTLearner,
    state: TrainState,
    examples: Sequence[Example],
    epochs: int,
    seed: int,
    rollouts: Rollouts,
) -> tuple[TrainState, Row]:
    if not examples:
        raise NoSignalError(no_data_message(rollouts, "a right"))
    state, row = train_on_examples(learner, state, examples, epochs=epochs, seed=seed)
    return state, row | round_metrics(rollouts)
