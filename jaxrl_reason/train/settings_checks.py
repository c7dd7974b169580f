"""Checks for settings that contradict each other, when they are read.

Otherwise they would fail minutes into a run, or never, as a flag without effect. What
depends on the questions or the model's files is checked by `build_run_setup` and by the
stage, before anything is trained.
"""

import math
from typing import TYPE_CHECKING

from jaxrl_reason.offline.offline_recipes import OFFLINE
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.recipes.staged_recipes import STAGED
from jaxrl_reason.rl.response_steps import ResponseSteps
from jaxrl_reason.rl.rl_learner import check_lora, check_method
from jaxrl_reason.rl.rollouts import SoftOverlongRewards
from jaxrl_reason.train.methods import TAUGHT, build_method, kind_of
from jaxrl_reason.train.reward_settings import ANSWER, JUDGE

if TYPE_CHECKING:
    from jaxrl_reason.train.train_settings import TrainSettings


def check_settings(settings: "TrainSettings") -> None:
    """Raises for settings that do not fit together.

    Args:
      settings: of a run, whose groups have been checked separately.

    Raises:
      ValueError: two of them contradict each other; the message names both.
    """
    kind = kind_of(settings.method)
    check_start(settings)
    check_examples(settings)
    check_heldout(settings)
    check_stages(settings)
    check_model(settings)
    check_files(settings)
    check_rewards(settings)
    check_unread(settings)
    if kind == "rl":
        check_rl(settings)
    if kind in ("rounds", "reward_model"):
        check_rounds(settings)
    if kind == "game":
        check_game(settings)


def check_start(settings: "TrainSettings") -> None:
    """Checks how the run starts and what it traces."""
    if settings.resume_step is not None and settings.resume == "never":
        raise ValueError("resume_step needs --resume must or auto, got never")
    last = settings.last_step
    if last is not None and settings.profile > last:
        raise ValueError(
            f"profile must be a step of the run, which has {last}, "
            f"got {settings.profile}"
        )


def check_examples(settings: "TrainSettings") -> None:
    """Checks that fine-tuning has responses, and traces that fit the task."""
    task, sft = settings.task, settings.sft
    if kind_of(settings.method) == "examples" and not sft.updates:
        raise ValueError(f"{settings.method} needs sft.updates >= 1, got 0")
    for name in ("sft_from", "sft_base", "trace"):
        if getattr(settings, name) is not None and not sft.updates:
            raise ValueError(f"{name} needs sft.updates >= 1, got 0")
    for name in ("text", "response"):
        if settings.trace is not None and getattr(task, name) is not None:
            raise ValueError(
                f"trace and task.{name} must not both be given, got {settings.trace} "
                f"and {getattr(task, name)}"
            )
    if not sft.updates:
        if task.text is not None:
            raise ValueError("task.text needs sft.updates >= 1, got 0")
        return
    if task.text is not None:
        return
    if task.source == "countdown":
        check_trace_range(settings)
    elif settings.trace is not None:
        return
    elif task.is_generated:
        raise ValueError(
            f"sft.updates must be 0 for {task.source}, which has no responses to learn "
            f"from without --trace, got {sft.updates}"
        )
    elif task.response is None:
        raise ValueError(
            f"task.response must name a field to learn from where sft.updates is not "
            f"0, got none of {task.source}"
        )


def check_trace_range(settings: "TrainSettings") -> None:
    """Checks that traces have the numbers of the puzzles.

    A puzzle may have no solution in a smaller range; a new model has no tokens for
    numbers of a larger one.
    """
    ours, theirs = settings.traces.max_value, settings.countdown.max_value
    if ours is None or ours == theirs:
        return
    if settings.model.is_new or ours < theirs:
        raise ValueError(
            f"traces.max_value must be left out or countdown.max_value ({theirs}), "
            f"got {ours}"
        )


def overlong_zone(settings: "TrainSettings") -> int:
    """The tokens after which a response is punished for its length; 0 for none.

    Args:
      settings: of a run, with its length limit.
    """
    if kind_of(settings.method) != "rl" or settings.stages.limits:
        return 0
    rewards = rl_method(settings).rewards
    replaced = settings.reward or settings.reward_model is not None
    if not isinstance(rewards, SoftOverlongRewards):
        return 0
    if replaced and settings.method != "dapo":  # whose penalty is added to any reward
        return 0
    return rewards.max_length - rewards.cache_length


def check_heldout(settings: "TrainSettings") -> None:
    """Checks that the evaluated split has puzzles."""
    if settings.task.source != "countdown":
        return
    name = f"{settings.eval.split}_fraction"
    if not getattr(settings.countdown, name) > 0:
        raise ValueError(
            f"countdown.{name} must be > 0 where eval.split is "
            f"{settings.eval.split}, got {getattr(settings.countdown, name)}"
        )


def check_stages(settings: "TrainSettings") -> None:
    """Checks that there is one limit per stage of a published system."""
    limits, recipe = settings.stages.limits, STAGED.get(settings.method)
    if not limits:
        if settings.stages.data_filter:
            raise ValueError("stages.data_filter needs stages.limits, got none")
        return
    if recipe is None:
        raise ValueError(
            f"stages.limits needs a method in stages ({', '.join(STAGED)}), "
            f"got {settings.method}"
        )
    if len(limits) != len(recipe.stages):
        raise ValueError(
            f"stages.limits must be one per stage of {recipe.name} "
            f"({len(recipe.stages)}), got {limits}"
        )
    if settings.stages.data_filter and recipe.data_filter is None:
        raise ValueError(
            f"stages.data_filter must be off for {recipe.name}, which has none, got it"
        )


def check_model(settings: "TrainSettings") -> None:
    """Checks what the model and the method allow."""
    model, kind = settings.model, kind_of(settings.method)
    if model.lora_rank and (kind != "rl" or settings.stages.limits):
        raise ValueError(
            f"lora_rank must be 0 except for RL in one stage, got "
            f"{model.lora_rank} with {settings.method}"
        )
    if settings.export.folder is None:
        return
    if model.is_new:
        raise ValueError(
            f"export needs a pretrained model, whose tokenizer others can read, got "
            f"the new one {model.source}"
        )
    if kind == "reward_model":
        raise ValueError(
            f"export needs a method that trains a policy, got {settings.method}"
        )


def check_files(settings: "TrainSettings") -> None:
    """Checks that data files and hints are for methods that read them."""
    offline, method, kind = settings.offline, settings.method, kind_of(settings.method)
    from_pairs = kind == "reward_model" or (
        kind == "rounds" and OFFLINE[method].method is not None
    )
    if offline.pairs is not None and not from_pairs:
        raise ValueError(
            f"offline.pairs needs a method that learns from pairs, got {method}"
        )
    if offline.steps is not None and kind != "reward_model":
        raise ValueError(
            f"offline.steps needs a reward model to train, such as ppm, got {method}"
        )
    if offline.reads_a_file and settings.task.source == "countdown":
        name = "pairs" if offline.pairs is not None else "steps"
        raise ValueError(f"offline.{name} needs a task of questions, got countdown")
    if offline.hint is None:
        return
    if method != "star":
        raise ValueError(f"offline.hint is for star, got it with {method}")
    if settings.task.source == "countdown" or not settings.grades_answers:
        rewards = f"--reward {' '.join(settings.reward)}"
        got = "countdown" if settings.grades_answers else rewards
        raise ValueError(f"offline.hint needs questions with answers, got {got}")


def check_rewards(settings: "TrainSettings") -> None:
    """Checks that there is one source of rewards, which the method uses."""
    kind, method = kind_of(settings.method), settings.method
    if (method in TAUGHT) != (settings.teacher is not None):
        raise ValueError(
            f"{' and '.join(TAUGHT)}, and no other method, need a teacher, got "
            f"{settings.teacher} with {method}"
        )
    if method == "sdft" and settings.task.response is None:
        raise ValueError(
            f"task.response must name the field of a demonstration for sdft, got none "
            f"of {settings.task.source}"
        )
    if settings.reward_model is not None and kind != "rl":
        raise ValueError(f"reward_model is for RL, got it with {method}")
    check_named_rewards(settings)
    if settings.has_judge and settings.judge.model is None:
        raise ValueError("judge.model must be given for the reward judge, got none")
    if settings.reward_model is not None and settings.reward:
        raise ValueError("reward and reward_model must not both be given, got both")
    if settings.format_reward and kind != "rl":
        raise ValueError(
            f"format_reward must be 0 except for RL, got {settings.format_reward} with "
            f"{method}"
        )


def check_named_rewards(settings: "TrainSettings") -> None:
    """Checks the places of rewards."""
    for place, weight in settings.named_rewards:
        if place in (ANSWER, JUDGE):
            continue
        where, colon, name = place.rpartition(":")
        if not colon or not where or not name.isidentifier():
            raise ValueError(
                f"reward must be my_file.py:my_function, {ANSWER} or {JUDGE}, got "
                f"{place!r}"
            )
        if not math.isfinite(weight):
            raise ValueError(f"a reward's weight must be finite, got {weight}")


def check_unread(settings: "TrainSettings") -> None:
    """Raises for flags that this kind of run does not read."""
    method, kind = settings.method, kind_of(settings.method)
    elsewhere = {
        "sampler.endpoint": settings.sampler.endpoint is not None,
        "sampler.mesh": bool(settings.sampler.mesh),
    }
    given = [name for name, is_given in elsewhere.items() if is_given]
    if len(given) > 1:
        raise ValueError(f"one thing draws the rollouts, got {' and '.join(given)}")
    if given and (kind != "rl" or settings.stages.limits or settings.model.lora_rank):
        raise ValueError(
            f"{given[0]} is for RL of all parameters in one stage, got it with {method}"
            + (" in stages" if settings.stages.limits else "")
            + (" and low-rank factors" if settings.model.lora_rank else "")
        )
    if settings.profile and kind in ("reward_model", "game"):
        raise ValueError(
            f"profile must be 0 for {method}, of which no trace is written, "
            f"got {settings.profile}"
        )


def check_rl(settings: "TrainSettings") -> None:
    """Checks the method of an RL run and its sizes."""
    method, rl = rl_method(settings), settings.rl
    check_method(method, rl)
    if settings.model.lora_rank:
        check_lora(method, None)
    trains = any(component.trains_model for component in method.components)
    if settings.critic_learning_rate and not trains:
        raise ValueError(
            f"critic_learning_rate must be 0 for {settings.method}, which trains "
            f"nothing besides the policy, got {settings.critic_learning_rate}"
        )
    if rl.async_level and settings.sampler.is_elsewhere and settings.reward_model:
        raise ValueError(
            f"rl.async_level must be 0 with a reward_model on devices that train and "
            f"rollouts from elsewhere, got {rl.async_level}"
        )
    steps = any(c.name == ResponseSteps.name for c in method.components)
    if steps and settings.task.source != "countdown":
        raise ValueError(
            f"{settings.method} needs a task whose responses have steps, countdown, "
            f"got {settings.task.source}"
        )
    if rl.value_pretraining_steps >= settings.last_step_of_rl:
        raise ValueError(
            f"rl.value_pretraining_steps must be below the run's steps "
            f"({settings.last_step_of_rl}), got {rl.value_pretraining_steps}"
        )


def rl_method(settings: "TrainSettings") -> Method:
    """The method of an RL run, for the shortest limit of its stages."""
    limit = min(settings.stages.limits, default=settings.rl.max_new_tokens)
    return build_method(
        settings.method, max_new_tokens=limit, dapo_settings=settings.dapo
    )


def check_rounds(settings: "TrainSettings") -> None:
    """Checks that rounds have enough questions, and responses to compare."""
    rl, offline, method = settings.rl, settings.offline, settings.method
    if offline.reads_a_file:
        return
    if 0 < offline.problems < rl.prompts_per_step:
        raise ValueError(
            f"offline.problems must be 0 or at least rl.prompts_per_step "
            f"({rl.prompts_per_step}), got {offline.problems}"
        )
    compares = method not in OFFLINE or OFFLINE[method].method is not None
    if compares and rl.group_size < 2:
        raise ValueError(
            f"rl.group_size must be >= 2 for {method}, which compares responses, "
            f"got {rl.group_size}"
        )


def check_game(settings: "TrainSettings") -> None:
    """Checks that the game has both roles in whole batches, and groups to compare."""
    prompts, problems = settings.rl.prompts_per_step, settings.game.problems
    if prompts % 2:
        raise ValueError(
            f"rl.prompts_per_step must be even in the game, each question in both "
            f"roles, got {prompts}"
        )
    if 2 * problems % prompts:
        raise ValueError(
            f"twice game.problems must be a multiple of rl.prompts_per_step "
            f"({prompts}), got {problems}"
        )
    if settings.rl.group_size < 2:
        raise ValueError(
            f"rl.group_size must be >= 2 in the game, got {settings.rl.group_size}"
        )
    if settings.rl.async_level:
        raise ValueError(
            f"rl.async_level must be 0 in the game, whose verifier changes between "
            f"rounds, got {settings.rl.async_level}"
        )
