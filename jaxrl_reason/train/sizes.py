"""Sizes taken from the questions, for settings left at 0, and checks of the others."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

from jaxrl_reason.rl.self_teacher import SelfTeacher
from jaxrl_reason.tasks.task import Task
from jaxrl_reason.train.examples import demonstrations, longest_response
from jaxrl_reason.train.methods import DISTILLED, kind_of
from jaxrl_reason.train.settings_checks import overlong_zone
from jaxrl_reason.train.tasks import Problems, hinted_prompt
from jaxrl_reason.train.train_settings import TrainSettings

_LOG = logging.getLogger(__name__)
# Prompts are padded to a multiple of this.
_WIDTH_STEP = 16


def fit_sizes(
    settings: TrainSettings, longest_prompt: int, longest_response: int
) -> TrainSettings:
    """The settings with every size set.

    Args:
      settings: of the run.
      longest_prompt: tokens of the longest prompt.
      longest_response: tokens of the longest response to train on; 0 for none.
    """
    rl, sft = settings.rl, settings.sft
    prompt_width = rl.prompt_width or -(-longest_prompt // _WIDTH_STEP) * _WIDTH_STEP
    limit = max(settings.stages.limits, default=rl.max_new_tokens)
    max_response = sft.max_response or longest_response or limit
    return dataclasses.replace(
        settings,
        rl=dataclasses.replace(
            rl,
            prompt_width=prompt_width,
            max_new_tokens=limit,
            row_width=rl.row_width or 2 * (prompt_width + limit),
        ),
        sft=dataclasses.replace(
            sft,
            max_response=max_response,
            row_width=sft.row_width or prompt_width + max_response,
        ),
    )


def sized_to_questions(
    settings: TrainSettings,
    task: Task[Any],
    problems: Problems,
    prompts: Sequence[Sequence[int]],
) -> TrainSettings:
    """The settings with every size set.

    Args:
      settings: of the run.
      task: of the run.
      problems: of the run.
      prompts: token ids of all of them.

    Raises:
      ValueError: a prompt or a response does not fit.
    """
    longest = longest_response(settings, task, problems) if settings.sft.updates else 0
    longest_prompt = max(map(len, prompts), default=0) + role_width(settings, task)
    if settings.offline.hint is not None:
        hinted = (hinted_prompt(task, p, settings.offline.hint) for p in problems.train)
        longest_prompt = max(longest_prompt, *map(len, hinted))
    # Some traces of one's own are no bound: there is room up to the limit.
    bound = longest if settings.trace is None else 0
    settings = fit_sizes(settings, longest_prompt, bound)
    if longest and not problems.texts:
        check_limit(settings, longest)
    check_widths(settings, longest_prompt, longest)
    settings.rl.plan()
    return settings


def check_limit(settings: TrainSettings, longest: int) -> None:
    """Checks responses to learn from against the limit of sampled ones.

    Traces beyond the limit are refused: a policy that has learned them would be cut
    off. Of other responses, a few of which may be long, the run says so, as it does
    where the overlong penalty would punish what is learned here.

    Args:
      settings: of the run, with their sizes.
      longest: tokens of the longest response to learn from.

    Raises:
      ValueError: a trace is too long.
    """
    limit, zone = settings.rl.max_new_tokens, overlong_zone(settings)
    traces = settings.trace is not None or settings.task.source == "countdown"
    what = f"the longest {'trace' if traces else 'response'} to learn from"
    if longest > limit:
        if traces:
            raise ValueError(
                f"rl.max_new_tokens must hold {what} ({longest} tokens), got {limit}"
            )
        _LOG.warning(
            "%s has %d tokens, more than rl.max_new_tokens (%d), where sampled ones "
            "are cut off",
            *(what, longest, limit),
        )
    elif zone and longest > zone:
        _LOG.warning(
            "%s has %d tokens and ends in the zone of the overlong penalty, which "
            "begins after %d of %d: RL would punish what fine-tuning teaches",
            *(what, longest, zone, limit),
        )


def check_widths(
    settings: TrainSettings, longest_prompt: int, longest_response: int
) -> None:
    """Raises for prompts and responses, in tokens, that are too long for the settings.

    Args:
      settings: of the run, with their sizes.
      longest_prompt: of all questions.
      longest_response: of those to learn from.

    Raises:
      ValueError: one does not fit; the message says which.
    """
    rl, sft, both = settings.rl, settings.sft, longest_prompt + longest_response
    if longest_prompt > rl.prompt_width:
        raise ValueError(
            f"rl.prompt_width must hold the longest prompt ({longest_prompt} tokens), "
            f"got {rl.prompt_width}"
        )
    if longest_response > sft.max_response:
        raise ValueError(
            f"sft.max_response must hold the longest response ({longest_response} "
            f"tokens), got {sft.max_response}"
        )
    if sft.updates and sft.row_width < both:
        raise ValueError(
            f"sft.row_width must hold the longest prompt and response ({both} tokens), "
            f"got {sft.row_width}"
        )


def needed_context(settings: TrainSettings, task: Task[Any], problems: Problems) -> int:
    """Tokens of the longest sequence of the run, with its sizes set."""
    limit = max(settings.rl.max_new_tokens, settings.sft.max_response)
    context = settings.rl.prompt_width + limit
    context = max(context, context_of_teacher(settings, task, problems))
    # Sizes for the longest prefix plus the longest solution, though no sequence has
    # both.
    return context if settings.offline.steps is None else 2 * context


def context_of_teacher(
    settings: TrainSettings, task: Task[Any], problems: Problems
) -> int:
    """Tokens of the longest sequence that a policy reads as its own teacher."""
    if settings.method not in DISTILLED:
        return 0
    shown = demonstrations(settings, task, problems)
    width, limit = settings.rl.prompt_width, settings.rl.max_new_tokens
    read = 0
    for component in DISTILLED[settings.method](shown).components:
        if isinstance(component, SelfTeacher):
            read = component.informed_width(width, limit)
    return read + limit


def check_questions(settings: TrainSettings, count: int) -> None:
    """Raises for fewer training questions than the method draws at once."""
    kind, prompts = kind_of(settings.method), settings.rl.prompts_per_step
    drawn = 0
    if kind == "rl":
        drawn, name = prompts, "rl.prompts_per_step"
    elif kind == "game":
        drawn, name = settings.game.problems, "game.problems"
    elif kind in ("rounds", "reward_model") and not settings.offline.reads_a_file:
        drawn, name = prompts, "rl.prompts_per_step"
    if count < drawn:
        raise ValueError(
            f"questions to train on must be at least {name} ({drawn}), got {count}"
        )


def role_width(settings: TrainSettings, task: Task[Any]) -> int:
    """Tokens of the longer role prefix in the game; otherwise 0."""
    if kind_of(settings.method) != "game":
        return 0
    roles = (settings.game.helpful, settings.game.sneaky)
    return max(len(task.tokenizer.encode(role)) for role in roles)
