"""Traces of one's own for fine-tuning, and their length beside the limit."""

import logging
import shlex

import pytest

from jaxrl_reason.cli.train import read_settings
from jaxrl_reason.train.run_setup import build_run_setup

TINY = shlex.split("""
    --task countdown --countdown.numbers 2 --countdown.max-number 4
    --countdown.max-value 10 --countdown.hold-out pairs --dataset-dir data
    --model 1x16 --model.head-dim 8 --sampler.slots 0 --eval.problems 2
    --rl.prompts-per-step 4 --rl.max-new-tokens 24
    --sft.updates 1 --sft.examples-per-update 4 --dapo.overlong-cache 8
""")
MINE = """
from jaxrl_reason.tasks.countdown_traces import draw_tries

def says_so(problem, rng, settings):
    last = draw_tries(problem, rng, settings)[-1]
    return f"so {last.steps[0]} </think> <answer> {last.expression} </answer>"

def long(problem, rng, settings):
    return "1 " * 30

def sometimes_long(problem, rng, settings):
    return "1 " * (30 if rng.random() < 0.002 else 2)

def nothing(problem, rng, settings):
    return None

def raises(problem, rng, settings):
    return problem.no

def of_a_sum(problem, rng, settings):
    return f"#### {problem.answer}"
"""


@pytest.fixture
def setup_of(tmp_path, monkeypatch):
    """The pieces of a run, by its flags."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)

    def build(flags, tiny=TINY):
        return build_run_setup(read_settings([*tiny, *shlex.split(flags)]))

    return build


def texts(setup, update=0):
    decode = setup.task.tokenizer.decode
    return [decode(response) for _, response in setup.examples(update)]


def test_a_function_writes_the_traces(setup_of):
    setup = setup_of("--trace mine.py:says_so --traces.words so")
    assert all(text.startswith("so ") for text in texts(setup))
    assert texts(setup) == texts(setup)
    assert setup.settings.sft.max_response == 24
    # Countdown's own, by its place.
    place = "jaxrl_reason.tasks.countdown_traces:make_trace"
    one = "--traces.budget-weights 1.0"
    assert texts(setup_of(f"--trace {place} {one}")) == texts(setup_of(one))


def test_another_task_has_responses_by_a_function(setup_of):
    flags = """--task arithmetic --trace mine.py:of_a_sum --model 1x16
        --model.head-dim 8 --sft.updates 1 --eval.problems 2"""
    setup = setup_of(flags, tiny=())
    assert all("#### " in text for text in texts(setup))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--trace mine.py:no", "there must be a function no in mine.py"),
        ("--trace mine.py:says_so", "got 'so'; --traces.words gives words a token"),
        ("--trace mine.py:nothing", "trace mine.py:nothing must return text, got None"),
        ("--trace mine.py:raises", r"must not raise, got AttributeError\("),
        (
            "--trace mine.py:long",
            r"must hold the longest trace to learn from \(31 tokens\), got 24",
        ),
        (
            "--traces.words so so",
            "must be single ones that have no token yet, got 'so'",
        ),
        ("--traces.words low", "must be single ones that have no token yet, got 'low'"),
        (
            "--trace mine.py:long --task.response x",
            "trace and task.response must not both be given",
        ),
        ("--trace mine.py:long --sft.updates 0", "trace needs sft.updates >= 1, got 0"),
        # Seven tries of two numbers, of eight tokens each, and the answer.
        (
            "",
            r"must hold the longest trace to learn from \(62 tokens\), got 24",
        ),
    ],
)
def test_what_cannot_be_learned_from_is_refused(setup_of, flags, said):
    with pytest.raises(ValueError, match=said):
        setup_of(flags)


def test_a_long_trace_in_the_middle_of_a_run_is_named(setup_of):
    setup = setup_of("--trace mine.py:sometimes_long --seed 1")
    said = r"sft.max_response must hold every trace, got 24 and one of 31 tokens"
    with pytest.raises(ValueError, match=said):
        list(map(setup.examples, range(2000)))


@pytest.mark.parametrize(
    ("flags", "warned"),
    [
        # The longest trace of one try has 14 tokens; the penalty begins after 16 or 12.
        ("", False),
        ("--dapo.overlong-cache 12", True),
        ("--dapo.overlong-cache 12 --reward mine.py:nothing", True),
        ("--dapo.overlong-cache 12 --dapo.no-soft-overlong", False),
        ("--dapo.overlong-cache 12 --method grpo", False),
        ("--rl.max-new-tokens 15 --method cispo", True),
        ("--rl.max-new-tokens 15 --method cispo --reward mine.py:nothing", False),
    ],
)
def test_traces_in_the_zone_of_the_penalty_are_a_warning(
    setup_of, flags, warned, caplog
):
    with caplog.at_level(logging.WARNING):
        setup_of(f"--traces.budget-weights 1.0 --rewards.where process {flags}").close()
    said = "the longest trace to learn from has 14 tokens and ends in the zone"
    assert (said in caplog.text) is warned
