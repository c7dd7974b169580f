"""Requests to /v1/completions of an OpenAI-style server, and response checks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxrl_reason.sampler import SamplingSettings
from jaxrl_reason.serving.endpoint import EngineError

PATH = "/v1/completions"
LOGPROBS = ("raw", "processed")
# A log-softmax in low precision may round to just above 0.
ROUNDING = 1e-4
LOWEST = -1e30  # the precision of float32


@dataclass(frozen=True)
class ServerSampling:
    """How a server samples, so that its log-probs match the trainer's.

    The trainer's log-probs are those of the distribution at the temperature, without
    filters. A server reports those of the model's own distribution ("raw": without
    temperature and filters) or of the distribution that it samples from ("processed":
    with both). They match the trainer's at temperature 1 (raw; also greedy) or without
    filters (processed); anything else is an error. The server does not say which it
    reports: if this setting is wrong, `sampler/logprob_diff_mean` shows it.

    Attributes:
      model: the server's name for the model.
      settings: limit, EOS tokens, temperature and filters.
      vocab_size: V; ids outside [0, V) are an error.
      logprobs: "raw" or "processed".

    Raises:
      ValueError: a value breaks a rule; the message names field, rule and value.
    """

    model: str
    settings: SamplingSettings
    vocab_size: int
    logprobs: str = "raw"

    def __post_init__(self) -> None:
        s = self.settings
        if self.logprobs not in LOGPROBS:
            raise ValueError(
                f"logprobs must be one of {LOGPROBS}, got {self.logprobs!r}"
            )
        if self.logprobs == "raw" and s.temperature not in (0, 1):
            raise ValueError(
                f"raw log-probs need temperature 1 (or 0), got {s.temperature}"
            )
        if self.logprobs == "processed":
            filters = (s.top_k, s.top_p, s.min_p)
            if s.temperature == 0 or filters != (0, 1, 0):
                raise ValueError(
                    f"processed log-probs need a temperature above 0 and no filters, "
                    f"got {s.temperature} and top_k, top_p, min_p {filters}"
                )
        if s.logit_bias or s.banned_tokens:
            raise ValueError(
                f"logit_bias and banned_tokens must be empty for a server, "
                f"got {s.logit_bias} and {s.banned_tokens}"
            )

    def request(self, prompt: Sequence[int], seed: int) -> dict[str, Any]:
        """The body of a request for one response to one prompt.

        It sets everything that a server might set by itself: vLLM takes defaults from
        the model's generation_config.json.
        """
        s = self.settings
        return {
            "model": self.model,
            "prompt": list(prompt),
            "n": 1,
            "seed": seed,
            "max_tokens": s.max_new_tokens,
            "temperature": s.temperature,
            "top_p": s.top_p,
            "frequency_penalty": 0.0,
            "presence_penalty": 0.0,
            "logprobs": 1,
            # From here on vLLM's own fields.
            "top_k": s.top_k,
            "min_p": s.min_p,
            "repetition_penalty": 1.0,
            "stop_token_ids": list(s.eos_token_ids),
            "ignore_eos": True,  # only the EOS tokens of the settings
            "return_token_ids": True,
        }

    def response(self, answer: Any, prompt: Sequence[int]) -> "Response":
        """The single response in a server's answer, checked.

        Only token ids are used, not the answer's text.

        Raises:
          EngineError: the answer is not a response of this model to this prompt with
          these settings.
        """
        choices = answer.get("choices") if isinstance(answer, Mapping) else None
        if not isinstance(choices, list) or len(choices) != 1:
            found = len(choices) if isinstance(choices, list) else None
            raise EngineError(f"{PATH} must answer with 1 choice, got {found}")
        choice = choices[0] if isinstance(choices[0], Mapping) else {}
        got = choice.get("prompt_token_ids")
        if got is not None and got != list(prompt):
            raise EngineError(
                f"{PATH} must complete the prompt it was sent, {list(prompt)}, "
                f"got {got}"
            )
        tokens = self._tokens(choice.get("token_ids"))
        said = choice.get("logprobs")
        said = said.get("token_logprobs") if isinstance(said, Mapping) else None
        logprobs = _logprobs(said, len(tokens))
        ended = tokens[-1] in self.settings.eos_token_ids
        reason = choice.get("finish_reason")
        if reason not in ("stop", "length") or (reason == "stop" and not ended):
            raise EngineError(
                f"{PATH} must end at one of the EOS tokens "
                f"{self.settings.eos_token_ids} (finish_reason stop) or at the limit "
                f"(length), got {reason!r} after token {tokens[-1]}"
            )
        return Response(tokens, logprobs, truncated=not ended)

    def _tokens(self, ids: Any) -> list[int]:
        limit = self.settings.max_new_tokens
        if not isinstance(ids, list) or not 1 <= len(ids) <= limit:
            found = len(ids) if isinstance(ids, list) else None
            raise EngineError(
                f"{PATH} must return 1 to {limit} token_ids, got {found} "
                f"(vLLM returns them from version 0.10.2 on)"
            )
        for token in ids:
            whole = isinstance(token, int) and not isinstance(token, bool)
            if not whole or not 0 <= token < self.vocab_size:
                raise EngineError(
                    f"token_ids must be from 0 to below vocab_size "
                    f"({self.vocab_size}), got {token!r}"
                )
        early = [token for token in ids[:-1] if token in self.settings.eos_token_ids]
        if early:
            raise EngineError(
                f"a response must end at its first EOS token, got {early[0]} before "
                f"its end"
            )
        return ids


class Response(NamedTuple):
    """One response: its tokens, their log-probs, and whether it is truncated.

    Attributes:
      tokens: ids, the EOS token included.
      logprobs: one per token.
      truncated: whether the length limit stopped it.
    """

    tokens: list[int]
    logprobs: list[float]
    truncated: bool


def _logprobs(values: Any, tokens: int) -> list[float]:
    if not isinstance(values, list) or len(values) != tokens:
        found = len(values) if isinstance(values, list) else None
        raise EngineError(
            f"token_logprobs must be one per token ({tokens}), got {found}"
        )
    for value in values:
        number = isinstance(value, float | int) and not isinstance(value, bool)
        if not number or not LOWEST < value <= ROUNDING:  # also rejects nan
            raise EngineError(
                f"token_logprobs must be finite and at most 0, got {value!r}"
            )
    return [min(float(value), 0.0) for value in values]
