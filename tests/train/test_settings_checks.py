"""Settings that contradict each other are refused when they are read."""

import shlex

import pytest

from jaxrl_reason.cli.train import read_settings
from jaxrl_reason.train.presets import PRESETS

OWN = "--task my.jsonl"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        # Traces and the puzzles that they solve.
        (
            "--preset countdown --countdown.max-value 12 --traces.max-value 30",
            "traces.max_value must be left out or countdown.max_value (12), got 30",
        ),
        (
            "--preset countdown --traces.max-value 12",
            "traces.max_value must be left out or countdown.max_value (30), got 12",
        ),
        # DAPO's punishment would begin at the first token.
        (
            "--rl.max-new-tokens 8",
            "overlong_cache must be > 0 and below the length limit (8 tokens), got 8",
        ),
        (
            "--dapo.overlong-cache 256",
            "must be > 0 and below the length limit (256 tokens), got 256",
        ),
        # What a method needs, or has not.
        ("--rl.group-size 1", "group_size must be >= 2 for dapo, got 1"),
        (
            "--method gspo --rl.critic-updates-per-rollout 2",
            "critic_updates_per_rollout must be 0 for gspo, which has no critic, got 2",
        ),
        (
            "--method gspo --rl.bootstrap-truncated",
            "bootstrap_truncated must be False for gspo, which has no critic, got True",
        ),
        (
            "--method gspo --critic-learning-rate 1e-5",
            "critic_learning_rate must be 0 for gspo, which trains nothing besides the "
            "policy, got 1e-05",
        ),
        (
            "--method ppo --model.lora-rank 4",
            "LoRA is for methods that train nothing but the policy",
        ),
        (
            "--method gigpo --task arithmetic",
            "gigpo needs a task whose responses have steps, countdown, got arithmetic",
        ),
        (
            "--method vapo --rl.value-pretraining-steps 30",
            "rl.value_pretraining_steps must be below the run's steps (30), got 30",
        ),
        ("--profile 31", "profile must be a step of the run, which has 30, got 31"),
        # Responses to learn from.
        (
            f"{OWN} --sft.updates 5",
            "task.response must name a field to learn from where sft.updates is not 0, "
            "got none of my.jsonl",
        ),
        (
            "--task arithmetic --method sft --sft.updates 5",
            "sft.updates must be 0 for arithmetic, which has no responses",
        ),
        # The held-out puzzles.
        (
            "--countdown.test-fraction 0",
            "countdown.test_fraction must be > 0 where eval.split is test, got 0.0",
        ),
        (
            "--eval.split validation --countdown.validation-fraction 0",
            "countdown.validation_fraction must be > 0 where eval.split is validation",
        ),
        # Stages.
        (
            "--method srpo --stages.data-filter",
            "data_filter needs stages.limits",
        ),
        (
            "--method srpo --stages.limits 64 128 256",
            "stages.limits must be one per stage of srpo (2), got (64, 128, 256)",
        ),
        (
            "--method srpo --stages.limits 64 128 --stages.data-filter",
            "stages.data_filter must be off for srpo, which has none",
        ),
        # What nothing would read.
        ("--method dpo --format-reward 0.1", "format_reward must be 0 except for RL"),
        (
            "--method rft --sampler.endpoint http://localhost:1",
            "sampler.endpoint is for RL of all parameters in one stage",
        ),
        (
            "--method grpo --model.lora-rank 4 --sampler.endpoint http://localhost:1",
            "got it with grpo and low-rank factors",
        ),
        (
            "--method bradley_terry --profile 1",
            "profile must be 0 for bradley_terry, of which no trace is written, got 1",
        ),
        ("--export out", "export needs a pretrained model"),
        (
            "--model some/folder --method verifier --export out",
            "export needs a method that trains a policy, got verifier",
        ),
        # Rounds and the game.
        (
            "--method dpo --offline.problems 8",
            "offline.problems must be 0 or at least rl.prompts_per_step (16), got 8",
        ),
        (
            "--method dpo --rl.group-size 1",
            "rl.group_size must be >= 2 for dpo, which compares responses, got 1",
        ),
        (
            "--method prover_verifier --rl.prompts-per-step 15",
            "rl.prompts_per_step must be even in the game",
        ),
        (
            "--method prover_verifier --game.problems 21",
            "twice game.problems must be a multiple of rl.prompts_per_step (16)",
        ),
        (
            "--method prover_verifier --rl.group-size 1",
            "rl.group_size must be >= 2 in the game, got 1",
        ),
        (
            "--method dpo --sampler.mesh tensor=2",
            "sampler.mesh is for RL of all parameters in one stage, got it with dpo",
        ),
        (
            "--sampler.mesh tensor=2 --sampler.endpoint http://localhost:1",
            "one thing draws the rollouts, got sampler.endpoint and sampler.mesh",
        ),
        (
            "--rl.async-level 1 --sampler.mesh data=1 --reward-model some/folder",
            "rl.async_level must be 0 with a reward_model on devices that train",
        ),
        (
            "--method prover_verifier --rl.async-level 1",
            "rl.async_level must be 0 in the game, whose verifier changes between",
        ),
        (
            "--game.helpful x --game.sneaky x",
            "helpful and game.sneaky must differ",
        ),
        ("--game.rounds 0", "game.rounds must be >= 1, got 0"),
        # Files to learn from, and hints.
        (
            "--method dpo --offline.pairs x.jsonl",
            "offline.pairs needs a task of questions, got countdown",
        ),
        (
            f"{OWN} --method rft --offline.pairs x.jsonl",
            "offline.pairs needs a method that learns from pairs, got rft",
        ),
        (
            f"{OWN} --method dpo --offline.steps x.jsonl",
            "offline.steps needs a reward model to train, such as ppm, got dpo",
        ),
        (
            f"{OWN} --method ppm --offline.steps x.jsonl --offline.pairs y.jsonl",
            "offline.pairs and offline.steps must not both be given",
        ),
        (
            f"{OWN} --method star --offline.hint answer",
            "offline.hint must have {answer} in it, got 'answer'",
        ),
        (
            f"{OWN} --method rft --offline.hint '({{answer}})'",
            "offline.hint is for star, got it with rft",
        ),
        (
            "--method star --offline.hint '({answer})'",
            "offline.hint needs questions with answers, got countdown",
        ),
        # Where rewards come from.
        (
            f"{OWN} --reward x.py:f --reward-model run",
            "reward and reward_model must not both be given",
        ),
        ("--method dpo --reward-model run", "reward_model is for RL, got it with dpo"),
    ],
)
def test_a_contradiction_is_refused_when_the_settings_are_read(flags, said, capsys):
    # Groups that refuse by themselves do so in the parser, in a frame.
    with pytest.raises((ValueError, SystemExit)) as refused:
        read_settings(shlex.split(flags))
    shown = capsys.readouterr().err.replace("│", " ")
    assert said in " ".join(f"{refused.value} {shown}".split())


@pytest.mark.parametrize(
    "flags",
    [
        "--preset countdown --countdown.max-value 12",
        "--preset countdown --countdown.max-value 12 --traces.max-value 12",
        # A model that was read has tokens for any number.
        "--preset countdown --model some/folder --traces.max-value 40",
        "--rl.max-new-tokens 9",
        "--rl.max-new-tokens 8 --dapo.no-soft-overlong",
        "--rl.max-new-tokens 8 --method grpo",
        "--method remax --rl.group-size 1",
        "--method rft --rl.group-size 1",
        "--method open_reasoner_zero --critic-learning-rate 1e-5",
        f"{OWN} --sft.updates 5 --task.response said",
    ],
)
def test_what_goes_together_is_taken(flags):
    read_settings(shlex.split(flags))


def test_traces_take_their_range_from_the_puzzles():
    flags = "--preset countdown --countdown.max-value 12"
    assert read_settings(flags.split()).trace_settings.max_value == 12
    assert PRESETS["countdown"].trace_settings.max_value == 30


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            "--method gspo --dapo.clip-high 0.3",
            "--dapo.* is for the method dapo and has",
        ),
        ("--game.rounds 3", "--game.* is for the game and has no effect with --method"),
        ("--offline.rounds 3", "--offline.* is for offline methods, reward models and"),
        ("--sft.examples-per-update 3", "--sft.* is for runs with sft.updates and has"),
        (f"{OWN} --countdown.max-value 9", "with --method dapo --task.source my.jsonl"),
        ("--rl.old-logprobs strict", ""),
        (
            "--rl.old-logprobs strict --sampler.slots 9",
            "--sampler.slots is for evaluations with --rl.old-logprobs strict",
        ),
        (
            f"{OWN} --method rft --sampler.cache-lengths 4 8",
            "--sampler.cache-lengths is for evaluations with --method rft",
        ),
        (
            f"{OWN} --method verifier --rl.old-logprobs sampler",
            "--rl.old-logprobs is for RL and the game and has no effect with --",
        ),
        # A preset's own settings of DAPO are no flags.
        ("--preset smollm2-arithmetic --method grpo", ""),
    ],
)
def test_flags_without_effect_are_told(flags, said, capsys):
    read_settings(shlex.split(flags))
    told = capsys.readouterr().err
    assert said in told
    assert bool(told) == bool(said)
