"""Flags without effect: they are named, since a script may give them to any method."""

from collections.abc import Callable

from jaxrl_reason.train.methods import kind_of
from jaxrl_reason.train.train_settings import TrainSettings

# Groups of settings that only some runs read, and these runs.
_READ_BY: dict[str, tuple[str, Callable[[TrainSettings], bool]]] = {
    "dapo": ("the method dapo", lambda s: s.method == "dapo"),
    "judge": ("runs with --reward judge", lambda s: s.has_judge),
    "rewards": ("runs with --reward", lambda s: bool(s.reward)),
    "game": ("the game", lambda s: kind_of(s.method) == "game"),
    "offline": (
        "offline methods, reward models and the game",
        lambda s: kind_of(s.method) in ("rounds", "reward_model", "game"),
    ),
    "sft": ("runs with sft.updates", lambda s: s.sft.updates > 0),
    "sft_optimizer": ("runs with sft.updates", lambda s: s.sft.updates > 0),
    "countdown": ("the task countdown", lambda s: s.task.source == "countdown"),
    "traces": (
        "the task countdown and runs with --trace",
        lambda s: s.task.source == "countdown" or s.trace is not None,
    ),
    "arithmetic": ("the task arithmetic", lambda s: s.task.source == "arithmetic"),
    "gsm_symbolic": (
        "the task gsm_symbolic",
        lambda s: s.task.source == "gsm_symbolic",
    ),
    "knights_knaves": (
        "the task knights_knaves",
        lambda s: s.task.source == "knights_knaves",
    ),
    "reasoning_gym": (
        "the task reasoning_gym",
        lambda s: s.task.source == "reasoning_gym",
    ),
}


def unread_flags(settings: TrainSettings, start: TrainSettings) -> list[str]:
    """One sentence for each group of which flags were given that this run ignores.

    They are no error: a script may give the same flags to several methods.

    Args:
      settings: with the flags.
      start: without them.
    """
    groups = [
        f"--{group}.* is for {readers} and has no effect with --method "
        f"{settings.method} --task.source {settings.task.source}"
        for group, (readers, is_read) in _READ_BY.items()
        if getattr(settings, group) != getattr(start, group) and not is_read(settings)
    ]
    return groups + unread_by_rollouts(settings, start)


def unread_by_rollouts(settings: TrainSettings, start: TrainSettings) -> list[str]:
    """`unread_flags` for settings of how rollouts are drawn.

    Args:
      settings: with the flags.
      start: without them.
    """
    rl, kind, found = settings.rl, kind_of(settings.method), []
    if rl.old_logprobs != start.rl.old_logprobs and kind not in ("rl", "game"):
        found.append(
            "--rl.old-logprobs is for RL and the game and has no effect with --method "
            f"{settings.method}"
        )
    plain = {
        "--rl.old-logprobs strict": rl.old_logprobs == "strict",
        "--stages.limits": bool(settings.stages.limits),
        "--sampler.endpoint": settings.sampler.endpoint is not None,
        f"--method {settings.method}": kind != "rl",
    }
    without = next((name for name, is_so in plain.items() if is_so), None)
    for name in ("slots", "cache_lengths"):
        given = getattr(settings.sampler, name)
        if without and given and given != getattr(start.sampler, name):
            what = "has no effect" if kind == "reward_model" else "is for evaluations"
            found.append(f"--sampler.{name.replace('_', '-')} {what} with {without}")
    return found
