"""Asks a model: in batches, each question once, within a budget."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrl_reason.runs.files import append
from jaxrl_reason.sampler import RolloutEngine, Sampler, sampling_keys
from jaxrl_reason.sampler.sample_loop import pad_prompts
from jaxrl_reason.tasks.questions import all_eos_token_ids, encode_user_turn
from jaxrl_reason.text.tokenizer import Tokenizer


class JudgeBudgetError(RuntimeError):
    """A run has asked its judge as often as it may."""


class Judge:
    """A model that answers questions in text, behind a sampler or a rollout engine.

    The same question is asked once: answers are remembered, in a file if one is given,
    from which a resumed run continues with the answers and the count of the run before.

    Args:
      sample: draws one response per prompt: a sampler of this library, or a
        `RolloutEngine`.
      params: of the model; for an engine whatever its `update_weights` takes.
      tokenizer: of the model.
      prompt_width: tokens of the longest prompt.
      batch_size: prompts at once; every call has as many.
      seed: of the sampling.
      budget: the largest number of responses; 0 for any.
      memory: JSONL file of the answers.

    Attributes:
      asked: how many responses were drawn, also before this process.
    """

    def __init__(
        self,
        sample: Sampler,
        params: Any,
        tokenizer: Tokenizer,
        *,
        prompt_width: int,
        batch_size: int = 16,
        seed: int = 0,
        budget: int = 0,
        memory: Path | None = None,
    ) -> None:
        for name, value in (("prompt_width", prompt_width), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"judge.{name} must be >= 1, got {value}")
        if budget < 0:
            raise ValueError(f"judge.budget must be >= 0, got {budget}")
        self.sample, self.params, self.tokenizer = sample, params, tokenizer
        self.prompt_width, self.batch_size = prompt_width, batch_size
        self.seed, self.budget, self.memory = seed, budget, memory
        self.asked = 0
        self._known: dict[str, str] | None = None

    def ask(self, prompts: Sequence[str]) -> list[str | None]:
        """The model's answers.

        Args:
          prompts: questions; each becomes a chat with one user message if the model has
            a chat template.

        Returns:
          The answers; None to a question of more than `prompt_width` tokens, which is
          not asked.

        Raises:
          JudgeBudgetError: the budget does not suffice; nothing was asked.
          EngineError: the engine failed.
        """
        if self._known is None:
            self._known = self._remembered()
        known = self._known
        tokens = {}
        for text in dict.fromkeys(prompts):
            if _key(text) not in known:
                ids = encode_user_turn(self.tokenizer, text)
                if len(ids) <= self.prompt_width:
                    tokens[text] = ids
        if self.budget and self.asked + len(tokens) > self.budget:
            raise JudgeBudgetError(
                f"judge.budget must suffice for {self.asked + len(tokens)} responses "
                f"of the judge, got {self.budget}"
            )
        new = list(tokens)
        for start in range(0, len(new), self.batch_size):
            part = new[start : start + self.batch_size]
            said = self._draw(part, [tokens[text] for text in part])
            known |= {_key(t): x for t, x in zip(part, said, strict=True)}
            self._remember(part, said)
        return [known.get(_key(text)) for text in prompts]

    def _draw(self, texts: list[str], ids: list[list[int]]) -> list[str]:
        size = self.batch_size
        # The numbers of the prompts fix the randomness, whatever stands beside them.
        numbers = [int(_key(text)[:8], 16) for text in texts]
        numbers += [numbers[0]] * (size - len(texts))
        rows = [*ids, *[ids[0]] * (size - len(ids))]
        prompts, lengths = pad_prompts(rows, numbers, self.prompt_width)
        keys = sampling_keys(self.seed, 0, jnp.asarray(numbers, jnp.uint32), 1)
        if isinstance(self.sample, RolloutEngine):
            self.sample.update_weights(self.params, 0)
        done = self.sample(
            self.params, jnp.asarray(prompts), jnp.asarray(lengths), keys
        )
        drawn, ends = np.asarray(done.tokens), np.asarray(done.lengths)
        return [self._text(drawn[i, : ends[i]].tolist()) for i in range(len(texts))]

    def _text(self, ids: list[int]) -> str:
        ended = ids and ids[-1] in all_eos_token_ids(self.tokenizer)
        return self.tokenizer.decode(ids[:-1] if ended else ids)

    def _remembered(self) -> dict[str, str]:
        """The answers in the file; a line that was not written to its end is cut."""
        found: dict[str, str] = {}
        if self.memory is None or not self.memory.is_file():
            return found
        data = self.memory.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(self.memory, whole)
        for line in data[:whole].splitlines():
            row = json.loads(line)
            found[row["key"]] = row["said"]
        self.asked = len(found)
        return found

    def _remember(self, texts: Sequence[str], said: Sequence[str]) -> None:
        self.asked += len(texts)
        if self.memory is None:
            return
        lines = [
            json.dumps({"key": _key(text), "said": answer}) + "\n"
            for text, answer in zip(texts, said, strict=True)
        ]
        with open(self.memory, "ab", buffering=0) as file:
            append(self.memory, file, "".join(lines).encode())


def _key(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
