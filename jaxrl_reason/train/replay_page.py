"""The tables and the page of a step that was run again."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl_reason.rl.token_losses import UpdateLosses
from jaxrl_reason.runs.files import atomic_write
from jaxrl_reason.runs.run_folder import to_plain
from jaxrl_reason.train.replay_run import Replay

_SHOWN_RESPONSES, _SHOWN_TOKENS, _SHOWN_ARRAYS = 5, 20, 20
_RESPONSE_NAMES = (
    *("update", "response", "problem_id", "reward", "correct", "length"),
    *("advantage", "loss"),
)
_TOKEN_NAMES = (
    *("position", "text", "advantage", "logprob", "old_logprob", "ratio"),
    *("sampler_logprob", "loss"),
)


def write_replay(replay: Replay, folder: Path) -> Path:
    """Writes responses.jsonl, tokens.jsonl and the page replay.md.

    Args:
      replay: of a step.
      folder: created if missing.

    Returns:
      The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    responses = [
        row
        for number, update in enumerate(replay.recorder.updates)
        for row in response_rows(replay, number, update)
    ]
    tokens = [
        row
        for number, update in enumerate(replay.recorder.updates)
        for at in range(len(update.index))
        for row in token_rows(replay, number, update, at)
    ]
    for name, rows in (("responses", responses), ("tokens", tokens)):
        lines = (json.dumps(to_plain(row), ensure_ascii=False) for row in rows)
        atomic_write(folder / f"{name}.jsonl", "".join(f"{line}\n" for line in lines))
    page = folder / "replay.md"
    atomic_write(page, "\n".join(page_lines(replay, responses, tokens)) + "\n")
    return page


def response_rows(
    replay: Replay, number: int, update: UpdateLosses
) -> list[dict[str, Any]]:
    """A row for each response of an update."""
    rollouts = replay.recorder.rollouts
    assert rollouts is not None
    g = rollouts.tokens.shape[1]
    rows = []
    for at, i in enumerate(update.index.tolist()):
        p, own = divmod(i, g)
        mask = update.mask[at]
        advantages = update.advantages[at][mask]
        rows.append(
            {
                "update": number + 1,
                "response": i,
                "problem_id": rollouts.problem_ids[p],
                "sample": own,
                "policy_step": rollouts.policy_step[p],
                "reward": rollouts.rewards[p, own],
                "correct": rollouts.correct[p, own],
                "truncated": rollouts.truncated[p, own],
                "length": rollouts.lengths[p, own],
                "tokens_in_loss": int(mask.sum()),
                "advantage": advantages.mean(axis=0) if mask.any() else None,
                "loss": None if update.responses is None else update.responses[at],
            }
        )
    return rows


def token_rows(
    replay: Replay, number: int, update: UpdateLosses, at: int
) -> list[dict[str, Any]]:
    """A row for each token of the response at a place of an update."""
    rollouts, experience = replay.recorder.rollouts, replay.recorder.experience
    assert rollouts is not None
    assert experience is not None
    i = int(update.index[at])
    p, own = divmod(i, rollouts.tokens.shape[1])
    tokenizer = replay.setup.task.tokenizer
    old = np.asarray(experience.old_logprobs)[i]
    rows = []
    for t in range(int(rollouts.lengths[p, own])):
        token = int(rollouts.tokens[p, own, t])
        rows.append(
            {
                "update": number + 1,
                "response": i,
                "position": t,
                "token": token,
                "text": tokenizer.decode([token]),
                "in_loss": update.mask[at, t],
                "advantage": update.advantages[at, t],
                "logprob": update.logprobs[at, t],
                "old_logprob": old[t],
                "sampler_logprob": rollouts.sampler_logprobs[p, own, t],
                "ratio": np.exp(update.logprobs[at, t] - old[t]),
                "loss": None if update.tokens is None else update.tokens[at, t],
            }
        )
    return rows


def verdict(replay: Replay) -> list[str]:
    """Whether the numbers are those of the run, in sentences."""
    begun = "the beginning"
    if replay.begun:
        begun = f"the checkpoint of step {replay.begun}"
    lines = [f"Step {replay.step} was run again from {begun}."]
    if replay.differences is None:
        lines.append("The run has no row of this step to compare with.")
    elif replay.differences:
        lines.append(
            "These numbers are not those of the run (A the run's, B the replay's):"
        )
        lines += [f"- {line}" for line in replay.differences]
    else:
        lines.append("Its row has the same bits as that of the run.")
    if replay.arrays:
        lines.append("These arrays are not those of the run's checkpoint:")
        lines += [f"- {line}" for line in replay.arrays[:_SHOWN_ARRAYS]]
        if replay.arrays[_SHOWN_ARRAYS:]:
            lines.append(f"- and {len(replay.arrays) - _SHOWN_ARRAYS} more")
    elif replay.arrays is not None:
        lines.append("Its state has the same bits as the run's checkpoint.")
    return lines


def page_lines(
    replay: Replay,
    responses: Sequence[Mapping[str, Any]],
    tokens: Sequence[Mapping[str, Any]],
) -> list[str]:
    """The page, line by line."""
    lines = [f"# Step {replay.step}", "", *verdict(replay), ""]
    if not responses or responses[0]["loss"] is None:
        return [*lines, "This loss is not taken apart; tokens.jsonl has its inputs."]
    total = sum(float(row["loss"]) for row in responses) / len(replay.recorder.updates)
    lines += [
        f"The parts of all responses add up to a loss of {total:.6g} an update; the "
        f"row says {replay.row.get('policy/loss', float('nan')):.6g}.",
        "",
        "## Responses, the largest parts first",
        "",
    ]
    ordered = sorted(responses, key=lambda row: -abs(float(row["loss"])))
    lines += table(_RESPONSE_NAMES, ordered)
    for row in ordered[:_SHOWN_RESPONSES]:
        own = [
            token
            for token in tokens
            if (token["update"], token["response"]) == (row["update"], row["response"])
        ]
        lines += ["", f"## Response {row['response']}, update {row['update']}", ""]
        lines += table(_TOKEN_NAMES, largest_tokens(own))
    return lines


def largest_tokens(tokens: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The tokens with the largest parts, in the order of the response."""
    by = "loss" if tokens and tokens[0]["loss"] is not None else "logprob"
    chosen = sorted(tokens, key=lambda token: -abs(float(token[by])))[:_SHOWN_TOKENS]
    return sorted(chosen, key=lambda token: token["position"])


def table(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """A table in Markdown."""
    return [
        f"| {' | '.join(names)} |",
        "|" + "---|" * len(names),
        *(f"| {' | '.join(cell(row[name]) for name in names)} |" for row in rows),
    ]


def cell(value: Any) -> str:
    """A value that breaks no table."""
    plain = to_plain(value)
    if isinstance(plain, float):
        return f"{plain:.4g}"
    if isinstance(plain, str):
        return f"`{json.dumps(plain, ensure_ascii=False)}`".replace("|", "\\|")
    return str(plain)
