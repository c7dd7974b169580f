"""Requests of an engine and answers to them: which are used, and how."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest

from jaxrl_reason.rl.collect import sample_groups
from jaxrl_reason.runs.metrics_log import PhaseTimer
from jaxrl_reason.serving import (
    Endpoint,
    EngineError,
    FolderTransport,
)
from jaxrl_reason.serving.openai_engine import request_seeds
from tests.rl.helpers import VOCAB, LuckyTask, Toy, first_policy, one_device
from tests.serving.engine_helpers import (
    KEYS,
    LENGTHS,
    PROMPTS,
    always,
    choice,
    drawn_from,
    engine_at,
)


def test_requests_say_all_and_answers_keep_their_places():
    bodies = []

    def answer(method, path, body):
        bodies.append(body)
        time.sleep(0.02 * (body["seed"] % 3))  # answers come in another order
        ids = [5 + body["prompt"][-1], 9, 9, 9]
        said = choice(
            token_ids=ids,
            logprobs={"token_logprobs": [-1.0, -2.0, -3.0, 0]},
            finish_reason="length",
            prompt_token_ids=body["prompt"],
        )
        return 200, said

    done = drawn_from(answer, connections=4)
    assert done.tokens[:, 0].tolist() == [8, 8, 10, 10]
    assert done.tokens.dtype == np.int32
    assert done.logprobs[0].tolist() == [-1, -2, -3, 0]
    assert done.lengths.tolist() == [4] * 4
    assert done.truncated.all()
    assert done.policy_version.tolist() == [3] * 4
    seeds = request_seeds(KEYS)
    bodies.sort(key=lambda body: seeds.index(body["seed"]))
    assert [body["seed"] for body in bodies] == seeds
    assert [body["prompt"] for body in bodies] == [[3], [3], [4, 5], [4, 5]]
    rest = {k: v for k, v in bodies[0].items() if k not in ("seed", "prompt")}
    assert rest == {
        "model": "tiny",
        "n": 1,
        "max_tokens": 4,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "repetition_penalty": 1.0,
        "logprobs": 1,
        "stop_token_ids": [1, 2],
        "ignore_eos": True,
        "return_token_ids": True,
    }


@pytest.mark.fast
def test_an_answer_after_its_end_is_padded():
    done = drawn_from(always(choice()))
    assert done.tokens[0].tolist() == [7, 1, 0, 0]
    assert done.logprobs[0].tolist() == [-0.5, -0.25, 0, 0]
    assert not done.truncated.any()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (b"<html>", r"POST http://.*/v1/completions must answer in JSON.*200.*<html>"),
        (b'{"choices": [', "must answer in JSON"),
        (b"", "1 choice, got None"),
        ([], "1 choice, got None"),
        ({"choices": []}, "1 choice, got 0"),
        ({"choices": [{}, {}]}, "1 choice, got 2"),
        ({"choices": ["text"]}, "1 to 4 token_ids, got None"),
        (choice(token_ids=None), "1 to 4 token_ids, got None"),
        (choice(token_ids=[]), "1 to 4 token_ids, got 0"),
        (choice(token_ids=[7] * 5), "1 to 4 token_ids, got 5"),
        (choice(token_ids=[VOCAB, 1]), r"below vocab_size \(12\), got 12"),
        (choice(token_ids=[-1, 1]), "got -1"),
        (choice(token_ids=[7.0, 1]), "got 7.0"),
        (choice(token_ids=[True, 1]), "got True"),
        (choice(token_ids=[2, 1]), "first EOS token, got 2 before"),
        (choice(logprobs=None), r"one per token \(2\), got None"),
        (choice(logprobs={"token_logprobs": [-1.0]}), r"one per token \(2\), got 1"),
        (choice(logprobs={"token_logprobs": [None, -1.0]}), "at most 0, got None"),
        (choice(logprobs={"token_logprobs": [-1.0, 0.5]}), "at most 0, got 0.5"),
        (choice(logprobs={"token_logprobs": [math.nan, 0]}), "at most 0, got nan"),
        (choice(logprobs={"token_logprobs": [-math.inf, 0]}), "at most 0, got -inf"),
        (choice(logprobs={"token_logprobs": [-(10**400), 0]}), "finite and at most"),
        (choice(finish_reason="abort"), "got 'abort' after token 1"),
        (choice(finish_reason=None), "got None after token 1"),
        (choice(token_ids=[7, 5]), "got 'stop' after token 5"),
        (choice(prompt_token_ids=[0, 3]), r"the prompt it was sent.*got \[0, 3\]"),
    ],
)
def test_an_answer_that_must_not_be_used_is_refused(said, message):
    with pytest.raises(EngineError, match=message) as error:
        drawn_from(always(said))
    assert "\n" not in str(error.value)


def test_an_end_token_at_the_limit_is_an_end():
    said = choice(
        token_ids=[7, 7, 7, 2],
        logprobs={"token_logprobs": [-1.0] * 4},
        finish_reason="length",
    )
    assert not drawn_from(always(said)).truncated.any()


def test_the_oldest_response_dates_its_group():
    done = drawn_from(always(choice()))
    for versions, wanted in ((np.array([3, 2, 3, 3]), [2, 3]), (None, [9, 9])):
        said = replace(done, policy_version=versions)
        rollouts = sample_groups(
            task=LuckyTask(),
            sample=lambda params, *inputs, said=said: said,
            params=None,
            problems=[Toy(0), Toy(1)],
            group_size=2,
            prompt_width=3,
            seed=0,
            draw=0,
            policy_step=9,
            batch_sharding=one_device(),
            timer=PhaseTimer(),
        )
        assert rollouts.policy_step.tolist() == wanted


def test_a_log_prob_that_rounds_above_zero_is_zero():
    said = choice(logprobs={"token_logprobs": [-0.5, 1e-6]})
    assert drawn_from(always(said)).logprobs[0, 1] == 0


def test_shapes_are_checked():
    engine, params = engine_at("http://127.0.0.1:9"), first_policy().params
    engine.update_weights(params, 0)
    with pytest.raises(ValueError, match=r"keys must be one per response, \(4,\)"):
        engine(params, PROMPTS, LENGTHS, KEYS[:3])
    with pytest.raises(ValueError, match="prompt_lengths must be from 1 to 2"):
        engine(params, PROMPTS, np.array([0, 2]), KEYS)
    with pytest.raises(ValueError, match="connections must be >= 1, got 0"):
        engine_at("http://127.0.0.1:9", connections=0)
    with pytest.raises(ValueError, match="keep must be >= 1, got 0"):
        FolderTransport(Endpoint("http://host"), "w", keep=0)
