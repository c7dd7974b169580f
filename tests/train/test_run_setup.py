"""What depends on the questions is refused before anything is trained."""

import json
import shlex
import string

import numpy as np
import pytest

from jaxrl_reason.cli.train import read_settings
from jaxrl_reason.tasks.countdown import CountdownTask, generate_problems
from jaxrl_reason.tasks.countdown_traces import make_trace
from jaxrl_reason.tasks.questions import QuestionTask
from jaxrl_reason.text.characters import CharacterTokenizer
from jaxrl_reason.train.examples import longest_response, response_tokens
from jaxrl_reason.train.offline_steps import search_step
from jaxrl_reason.train.run import build_stage
from jaxrl_reason.train.run_setup import build_run_setup
from jaxrl_reason.train.tasks import Problems

TINY = shlex.split("""
    --task sums.jsonl --task.instruction '' --model 1x16 --model.head-dim 8
    --sampler.slots 0 --rl.prompts-per-step 4 --rl.max-new-tokens 12 --eval.problems 2
    --sft.examples-per-update 4
""")
CHARACTERS = CharacterTokenizer("".join(sorted(string.printable)))
NODE = {"path": ["1", "3"], "q": 1, "leads_right": True, "leads_wrong": False}


@pytest.fixture
def setup_of(tmp_path, monkeypatch):
    """The pieces of a run over twelve sums, by its flags."""
    monkeypatch.chdir(tmp_path)

    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    sums = [{"question": f"{n}+1=", "answer": n + 1, "said": "x"} for n in range(12)]
    write("sums.jsonl", sums)
    pair = {"question": "1+1=", "chosen": "2", "rejected": "3"}
    write("good.jsonl", [pair])
    write("same.jsonl", [pair, {**pair, "rejected": "2"}])
    write("long.jsonl", [{**pair, "rejected": "3" * 12}])
    write("none.jsonl", [])
    write("steps.jsonl", [{"question": "1+1=", "steps": [NODE]}])
    write("no_steps.jsonl", [{"question": "1+1=", "steps": []}])

    def build(flags):
        return build_run_setup(read_settings([*TINY, *shlex.split(flags)]))

    return build


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            "--rl.prompts-per-step 16",
            r"at least rl.prompts_per_step \(16\), got 11",
        ),
        (
            "--method dpo --rl.prompts-per-step 16",
            r"at least rl.prompts_per_step \(16\), got 11",
        ),
        (
            "--method prover_verifier --game.problems 12",
            r"at least game.problems \(12\), got 11",
        ),
        (
            "--rl.prompt-width 4",
            r"rl.prompt_width must hold the longest prompt \(14 tokens\), got 4",
        ),
        (
            "--sft.updates 1 --task.response said --sft.row-width 10",
            r"sft.row_width must hold the longest prompt and response \(16 tokens\)",
        ),
    ],
)
def test_sizes_that_the_questions_do_not_fit_are_refused(setup_of, flags, said):
    with pytest.raises(ValueError, match=said):
        setup_of(flags)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--method dpo --offline.pairs same.jsonl", "line 2: the two responses"),
        (
            "--method bradley_terry --offline.pairs long.jsonl",
            "line 1: rl.max_new_tokens must hold 13 tokens, got 12",
        ),
        ("--method dpo --offline.pairs none.jsonl", "must have rows, got none"),
        ("--method ppm --offline.steps steps.jsonl", "must hold a step with a good"),
        ("--method ppm --offline.steps no_steps.jsonl", "line 1: steps must be a list"),
    ],
)
def test_files_that_cannot_be_learnt_from_are_refused(setup_of, flags, said):
    setup = setup_of(flags)
    with pytest.raises(ValueError, match=said):
        build_stage(setup)


def test_a_file_of_pairs_needs_no_more_questions(setup_of):
    flags = "--method dpo --offline.pairs good.jsonl --rl.prompts-per-step 16"
    assert len(build_stage(setup_of(flags)).pairs) == 1


def test_sampled_responses_may_be_longer_than_those_of_fine_tuning(setup_of):
    setup = setup_of("--method rft --sft.updates 1 --task.response said")
    assert setup.settings.sft.max_response == 2
    sizes = build_stage(setup).learner.settings
    assert sizes.max_response == 12
    assert sizes.row_width >= setup.settings.rl.prompt_width + 12


def test_prompts_with_a_hint_fit(setup_of):
    plain = setup_of("--method star").settings.rl.prompt_width
    hint = " The answer is {answer}, as anybody can see."
    found = setup_of(f"--method star --offline.hint '{hint}'").settings.rl
    assert found.prompt_width == plain + 48


def test_traces_fit_whatever_tokens_the_model_has():
    flags = "--preset countdown --model some/folder --countdown.max-number 5"
    settings = read_settings(flags.split())
    task = CountdownTask(CHARACTERS, (CHARACTERS.eos_token_id,), "base")
    longest = longest_response(settings, task, Problems((), ()))
    rng = np.random.default_rng(0)
    problems = generate_problems(settings.countdown)["train"]
    lengths = [
        len(response_tokens(task, make_trace(p, rng, settings.trace_settings)))
        for p in problems
    ]
    assert longest / 2 < max(lengths) <= longest


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"path": []}, "a step must have a path of texts"),
        ({"path": ["1", 2]}, "a step must have a path of texts"),
        ({"q": None}, "a step must have a number q, got None"),
        ({"q": True}, "a step must have a number q, got True"),
        ({"leads_right": 1}, "leads_right must be true or false, got 1"),
        ({"q": float("nan")}, "q must be finite, got nan"),
    ],
)
def test_a_node_of_another_form_is_refused(change, said):
    task = QuestionTask(CHARACTERS, "", "sums")
    with pytest.raises(ValueError, match=said):
        search_step(task, {**NODE, **change})


def test_a_node_is_its_own_step_after_those_before_it():
    task = QuestionTask(CHARACTERS, "", "sums")
    step = search_step(task, NODE)
    assert (step.prefix, step.tokens) == (
        CHARACTERS.encode("1"),
        CHARACTERS.encode("3"),
    )
    final = search_step(task, {**NODE, "final": True})
    assert final.tokens == [*step.tokens, CHARACTERS.eos_token_id]
    assert final.final
