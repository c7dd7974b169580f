"""Models of this library in EleutherAI's lm-evaluation-harness (lm-eval)."""

import importlib
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import track

from jaxrl_reason.evaluation.collection import BATCHES_AT_ONCE
from jaxrl_reason.evaluation.decoding import Decoding, Generate, Response
from jaxrl_reason.evaluation.responses import PretrainedModel, make_generate
from jaxrl_reason.models import Params, Transformer, unembedding
from jaxrl_reason.pretrained.text_generation import WIDTH_STEP
from jaxrl_reason.tasks.questions import all_eos_token_ids

# A piece of text: ids that are given, and following ids that are scored.
Piece = tuple[list[int], list[int]]


def as_lm_eval(loaded: PretrainedModel, *, batch_size: int = 8) -> Any:
    """A model for `lm_eval.simple_evaluate(model=..., tasks=[...])`.

    Needs lm-eval 0.4 (`pip install 'jaxrl-reason[lm-eval]'`). Generation is greedy: a
    task that needs sampling raises an error. Chats are rendered to text, as lm-eval
    requires, and then tokenized with their control tokens; a question whose text spells
    a control token contains that token.

    Args:
      loaded: from `load_model`.
      batch_size: number of texts per batch.

    Returns:
      An `lm_eval.api.model.LM`.

    Raises:
      ImportError: lm-eval is not installed.
      ValueError: batch_size is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}")
    try:
        base: Any = importlib.import_module("lm_eval.api.model")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the adapter needs {error.name}: `pip install 'jaxrl-reason[lm-eval]'`"
        ) from error

    @cache
    def generate_of(limit: int) -> Generate:
        ends = all_eos_token_ids(loaded.tokenizer)
        return make_generate(
            loaded, ends, max_new_tokens=limit, batch_size=batch_size, seed=0
        )

    class JaxrlReasonLM(base.LM):
        """Handles the three kinds of requests, which are read from `request.args`."""

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            """(log-probability, whether greedy) of continuations of contexts."""
            pieces = [split_pair(loaded, *request.args) for request in requests]
            return score_pieces(loaded, pieces, batch_size)

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            """Log-probability of whole texts."""
            totals = []
            for request in requests:
                pieces = windows(loaded, request.args[0])
                found = score_pieces(loaded, pieces, batch_size)
                totals.append(sum(total for total, _ in found))
            return totals

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            """Greedy completions up to a stop string."""
            asked = [request.args for request in requests]
            at_once = BATCHES_AT_ONCE * batch_size
            return generate_texts(loaded, generate_of, asked, at_once)

        def apply_chat_template(
            self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
        ) -> str:
            """The text of a chat; without a prompt its last message goes on."""
            chat: Any = loaded.tokenizer
            return chat.render_chat(
                chat_history,
                add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )

        @property
        def tokenizer_name(self) -> str:
            """The name of the chat template in lm-eval's cache."""
            return loaded.digest

        def chat_template(self, chat_template: bool | str = False) -> str | None:
            """The template, if chats are requested."""
            return getattr(loaded.tokenizer, "chat_template", None)

    return JaxrlReasonLM()


def split_pair(loaded: PretrainedModel, context: str, continuation: str) -> Piece:
    """Ids of a context and of its continuation, encoded as one text.

    Trailing spaces of the context belong to the continuation, whose first token
    includes them.

    Args:
      loaded: the model.
      context: the given text; may be empty.
      continuation: the text to score.

    Returns:
      The piece; the context is truncated on the left to the model's context length.
    """
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation
    if not kept:
        return [first_token(loaded)], _encode(loaded, continuation)
    whole = _encode(loaded, kept + continuation, begin=True)
    # A token may cross the border: it is scored.
    start = min(len(_encode(loaded, kept, begin=True)), len(whole) - 1)
    room = loaded.model.config.context_length + 1 - len(whole[start:])
    return whole[:start][-max(room, 1) :], whole[start:]


def windows(loaded: PretrainedModel, text: str) -> list[Piece]:
    """A text in pieces of the model's context length, each after the preceding token.

    Args:
      loaded: the model.
      text: any text.

    Returns:
      The pieces; every token is scored once.
    """
    ids = _encode(loaded, text)
    size = loaded.model.config.context_length
    before = [first_token(loaded), *ids]
    return [
        ([before[start]], ids[start : start + size])
        for start in range(0, len(ids), size)
    ]


def first_token(loaded: PretrainedModel) -> int:
    """The token before a text: the BOS token, or else an EOS token.

    Args:
      loaded: the model.

    Returns:
      Its id.
    """
    begin = getattr(loaded.tokenizer, "bos_token_id", None)
    return loaded.tokenizer.eos_token_id if begin is None else begin


def score_pieces(
    loaded: PretrainedModel, pieces: Sequence[Piece], batch_size: int
) -> list[tuple[float, bool]]:
    """Log-probability of each piece's scored ids, and whether each is the likeliest.

    Args:
      loaded: the model.
      pieces: to score; each at most one token longer than the context.
      batch_size: number of rows per batch.

    Returns:
      One pair per piece.

    Raises:
      ValueError: a piece is longer than the model's context.
    """
    longest = loaded.model.config.context_length
    found: list[tuple[float, bool]] = []
    for start in range(0, len(pieces), batch_size):
        part = pieces[start : start + batch_size]
        rows = [[*given, *scored] for given, scored in part]
        width = max(len(row) for row in rows) - 1
        if width > longest:
            raise ValueError(
                f"a text must have at most {longest + 1} tokens, got {width + 1}"
            )
        width = min(-(-width // WIDTH_STEP) * WIDTH_STEP, longest)
        tokens = np.zeros((batch_size, width + 1), np.int32)
        for index, row in enumerate(rows):
            tokens[index, : len(row)] = row
        # Padding comes after the scored tokens, and attention is causal.
        logprobs, likeliest = jax.device_get(
            _score(loaded.model, loaded.params, jnp.asarray(tokens))
        )
        for index, (given, scored) in enumerate(part):
            at = slice(len(given) - 1, len(given) - 1 + len(scored))
            total = float(logprobs[index, at].sum(dtype=np.float64))
            found.append((total, bool(likeliest[index, at].all())))
    return found


def generate_texts(
    loaded: PretrainedModel,
    generate_of: Callable[[int], Generate],
    requests: Sequence[tuple[str, dict[str, Any]]],
    at_once: int,
) -> list[str]:
    """Greedy completions, each up to its first stop string.

    Args:
      loaded: the model.
      generate_of: limit -> the model's responses of up to that many tokens.
      requests: contexts, truncated on the left to the model's context length, with
        lm-eval's settings, of which `until` and `max_gen_toks` (256) are used.
      at_once: number of contexts per call.

    Returns:
      The texts before the stop strings, one per request.

    Raises:
      ValueError: sampling is requested.
    """
    limits = [greedy_limit(settings) for _, settings in requests]
    # Requests with the same limit share a sampler.
    order = sorted(range(len(requests)), key=limits.__getitem__)
    parts = [
        same[start : start + at_once]
        for same in (list(g) for _, g in groupby(order, key=limits.__getitem__))
        for start in range(0, len(same), at_once)
    ]
    texts = [""] * len(requests)
    for part in track(parts, "completions"):
        limit = limits[part[0]]
        longest = max(loaded.model.config.context_length - limit, 1)
        prompts = [
            _encode(loaded, requests[i][0], begin=True) or [first_token(loaded)]
            for i in part
        ]
        drawn = generate_of(limit)([p[-longest:] for p in prompts], part, Decoding())
        for i, (response,) in zip(part, drawn, strict=True):
            texts[i] = until_stop(loaded, response, requests[i][1].get("until") or [])
    return texts


def greedy_limit(settings: dict[str, Any]) -> int:
    """The largest number of tokens of a completion.

    >>> greedy_limit({"max_gen_toks": 20, "do_sample": False})
    20

    Raises:
      ValueError: sampling is requested.
    """
    if settings.get("do_sample") and settings.get("temperature", 1.0) > 0:
        raise ValueError(f"generation must be greedy, got {settings}")
    return int(settings.get("max_gen_toks", 256))


def until_stop(
    loaded: PretrainedModel, response: Response, until: str | Sequence[str]
) -> str:
    """A response's text before the first of the stop strings."""
    ends = all_eos_token_ids(loaded.tokenizer)
    text = loaded.tokenizer.decode([i for i in response.tokens if i not in ends])
    for stop in [until] if isinstance(until, str) else until:
        text = text.split(stop)[0] if stop else text
    return text


def _encode(loaded: PretrainedModel, text: str, *, begin: bool = False) -> list[int]:
    """Ids with control tokens, since lm-eval passes chats as text."""
    tokenizer: Any = loaded.tokenizer
    if not hasattr(tokenizer, "encode_prompt"):
        return list(tokenizer.encode(text))
    encode = tokenizer.encode_prompt if begin else tokenizer.encode
    return list(encode(text, control=True))


@partial(jax.jit, static_argnums=0)
def _score(
    model: Transformer, params: Params, tokens: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Log-probability [B, S] of the next token, and whether it is the likeliest."""
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    positions = jnp.broadcast_to(jnp.arange(inputs.shape[1]), inputs.shape)
    hidden = model.apply({"params": params}, inputs, positions, jnp.ones_like(inputs))
    head = unembedding(model, params)

    def row(pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        states, wanted = pair  # [S, D], [S]: the logits of one row at a time
        logits = (states @ head.astype(states.dtype)).astype(jnp.float32)
        chosen = jnp.take_along_axis(logits, wanted[:, None], axis=1)[:, 0]
        total = jax.nn.logsumexp(logits, axis=1)
        return chosen - total, jnp.argmax(logits, axis=1) == wanted

    return jax.lax.map(row, (hidden, targets))
