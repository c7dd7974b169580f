"""The settings of an RL run."""

from dataclasses import dataclass

from jaxrl_reason.learner.packing import PackingShape
from jaxrl_reason.rl.minibatches import MinibatchPlan
from jaxrl_reason.sampler.settings import check_temperature

OLD_LOGPROBS = ("trainer", "sampler", "strict")


@dataclass(frozen=True)
class RLSettings:
    """Sizes of an RL run; lengths in tokens.

    One rollout is split into `updates_per_rollout` mini-batches of whole groups, each
    for one optimiser step, so that after the first step ratios differ from 1 and
    clipping acts. A critic may make another number of updates (0: as many as the
    policy), and may be trained alone in the first steps (value pretraining, arXiv
    2503.01491).

    `old_logprobs` is the source of the old log-probs in the ratios: "trainer" computes
    them by a separate forward pass; "sampler" uses those that came with the rollouts,
    which saves the pass and is as exact if the sampler computes in the trainer's
    precision (ours do, unless their cache has a smaller dtype than the model). Groups
    left over from earlier steps are recomputed in either case. The metrics of the
    sampler's mismatch need the pass. "strict" draws and recomputes by one program, a
    few responses at a time, so that both are the same bits in any batch
    (`sampler.StrictSampler`): on one device, at the price of a second decoding. Where
    rollouts run ahead, "sampler" measures the ratios from the policy that drew them,
    "trainer" from the one before the update.

    `prompt_width` and `row_width` may be 0 until a learner is built, when the prompts
    are known.

    Attributes:
      steps: total RL steps.
      prompts_per_step: P, prompts per step, each with a group of responses.
      group_size: G, responses per prompt, which are compared with each other.
      updates_per_rollout: optimiser steps per RL step; divides prompts_per_step.
      critic_updates_per_rollout: those of a critic; 0 for as many as the policy's.
      value_pretraining_steps: first steps, in which only the critic is trained.
      bootstrap_truncated: let a response that the limit cut off end in the critic's
        value of the state after its last token, in place of its reward.
      prompt_width: the longest prompt; 0 for the longest in the data.
      max_new_tokens: the longest response; a truncated one counts as wrong.
      temperature: sampling temperature.
      max_rounds: rounds of sampling after which a step gives up if it still lacks
        groups with signal.
      rows_per_micro_batch: packed rows per micro-batch in training.
      row_width: tokens per row; 0 for twice the longest prompt plus response.
      slots_per_row: the largest number of sequences in a row.
      seed: for the order of the problems and for sampling.
      old_logprobs: source of the old log-probs, trainer, sampler or strict.
      async_level: k, the steps by which rollouts may run ahead of the training: those
        of step i are drawn by the policy of step i - k (arXiv 2410.18252); 0 for none.
      partial_tokens: tokens that a response gets in one round of sampling; one that has
        not ended goes on in the next round, under the policy of then (arXiv
        2501.12599). 0 draws responses in one piece.
    """

    steps: int = 30
    prompts_per_step: int = 24
    group_size: int = 16
    updates_per_rollout: int = 4
    critic_updates_per_rollout: int = 0
    value_pretraining_steps: int = 0
    bootstrap_truncated: bool = False
    prompt_width: int = 8
    max_new_tokens: int = 104
    temperature: float = 1.0
    max_rounds: int = 10
    rows_per_micro_batch: int = 4
    row_width: int = 224
    slots_per_row: int = 8
    seed: int = 0
    old_logprobs: str = "trainer"
    async_level: int = 0
    partial_tokens: int = 0

    def __post_init__(self) -> None:
        if self.old_logprobs not in OLD_LOGPROBS:
            raise ValueError(
                f"old_logprobs must be one of {OLD_LOGPROBS}, got {self.old_logprobs!r}"
            )
        if self.old_logprobs == "strict" and self.partial_tokens:
            raise ValueError(
                "old_logprobs 'strict' draws responses in one piece, got "
                f"partial_tokens {self.partial_tokens}"
            )
        from_zero = (
            "seed",
            "critic_updates_per_rollout",
            "value_pretraining_steps",
            "prompt_width",
            "row_width",
            "async_level",
            "partial_tokens",
        )
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            lowest = 0 if name in from_zero else 1
            if name == "temperature":
                check_temperature(name, value)
            if name in ("temperature", "old_logprobs", "bootstrap_truncated"):
                continue
            if value < lowest:
                raise ValueError(f"{name} must be >= {lowest}, got {value}")

    @property
    def sequences(self) -> int:
        """B, the sequences trained on in a step."""
        return self.prompts_per_step * self.group_size

    def plan(self) -> MinibatchPlan:
        """Static shapes of the policy's mini-batches."""
        return self._plan(self.updates_per_rollout)

    def critic_plan(self) -> MinibatchPlan:
        """Static shapes of the critic's mini-batches."""
        return self._plan(self.critic_updates_per_rollout or self.updates_per_rollout)

    def _plan(self, updates: int) -> MinibatchPlan:
        return MinibatchPlan.build(
            num_prompts=self.prompts_per_step,
            group_size=self.group_size,
            num_minibatches=updates,
            shape=PackingShape(
                self.rows_per_micro_batch, self.row_width, self.slots_per_row
            ),
            max_sequence=self.prompt_width + self.max_new_tokens,
        )
