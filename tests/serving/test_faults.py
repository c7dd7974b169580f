"""Servers that fail, lie or dawdle: one clear sentence each, and nothing hangs."""

import json
import math
import time
from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxrl_reason.rl.collect import group_versions
from jaxrl_reason.sampler import SamplingSettings, sampling_keys
from jaxrl_reason.serving import (
    Endpoint,
    EngineError,
    FolderTransport,
    OpenAIEngine,
    ServerSampling,
    vllm_requests,
)
from jaxrl_reason.serving.endpoint import read_whole
from jaxrl_reason.serving.openai_engine import request_seeds
from jaxrl_reason.weights.safetensors_folder import SafetensorsFolder
from tests.rl.helpers import ENDS, VOCAB, first_policy, tiny_model
from tests.serving.servers import served

SAMPLING = SamplingSettings(4, ENDS)
PROMPTS = np.array([[3, 0], [4, 5]], np.int32)
LENGTHS = np.array([1, 2], np.int32)
KEYS = sampling_keys(0, 0, jax.numpy.arange(2), 2)


class Nowhere:
    """A transport that only counts."""

    def __init__(self):
        self.sent = []

    def send(self, tensors, version):
        self.sent.append((version, dict(tensors)))


def choice(**changes):
    said = {
        "token_ids": [7, 1],
        "logprobs": {"token_logprobs": [-0.5, -0.25]},
        "finish_reason": "stop",
    }
    said |= changes
    return {"choices": [{k: v for k, v in said.items() if v is not None}]}


def engine_at(url, transport=None, *, settings=SAMPLING, tries=3, **options):
    endpoint = Endpoint(url, timeout_seconds=5.0, tries=tries, backoff_seconds=0.001)
    options = {"version_path": None, "connections": 2} | options
    return OpenAIEngine(
        tiny_model(),
        settings,
        2,
        endpoint=endpoint,
        served_model="tiny",
        transport=transport or Nowhere(),
        **options,
    )


def drawn(engine):
    params = first_policy().params
    engine.update_weights(params, 3)
    return engine(params, PROMPTS, LENGTHS, KEYS)


def drawn_from(answer, **options):
    with served(answer) as url:
        return drawn(engine_at(url, **options))


def always(said, status=200):
    return lambda method, path, body: (status, said)


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
    mixed = replace(done, policy_version=np.array([3, 2, 3, 3]))
    assert group_versions(mixed, (2, 2), 9).tolist() == [2, 3]
    unsaid = replace(done, policy_version=None)
    assert group_versions(unsaid, (2, 2), 9).tolist() == [9, 9]


def test_a_log_prob_that_rounds_above_zero_is_zero():
    said = choice(logprobs={"token_logprobs": [-0.5, 1e-6]})
    assert drawn_from(always(said)).logprobs[0, 1] == 0


def test_a_busy_server_is_asked_again():
    troubles = iter([(500, "oh"), (429, "slow down"), (503, b"")])

    def answer(method, path, body):
        return next(troubles, (200, choice()))

    assert drawn_from(answer).lengths.tolist() == [2] * 4


def test_tries_end_with_url_and_status():
    asked = []

    def answer(method, path, body):
        asked.append(body["seed"])
        return 500, {"error": "out of memory"}

    message = r"POST http://127.*/v1/completions failed 3 times.*500.*out of memory"
    with pytest.raises(EngineError, match=message):
        drawn_from(answer, connections=1)
    # The others are not even begun.
    assert len(asked) <= 6


@pytest.mark.fast
def test_a_refusal_is_final():
    asked = []

    def answer(method, path, body):
        asked.append(path)
        return 404, {"error": "no such model"}

    with pytest.raises(EngineError, match=r"refused with status 404.*no such model"):
        drawn_from(answer, connections=1)
    assert len(asked) == 1


def test_a_server_that_is_down():
    with served(always(choice())) as url:
        pass
    with pytest.raises(EngineError, match=r"failed 3 times.*ConnectionRefused"):
        drawn(engine_at(url))


def test_a_server_that_hangs_up():
    with pytest.raises(EngineError, match=r"failed 3 times.*RemoteDisconnected"):
        drawn_from(always(b"", status=0))


def test_a_slow_server_times_out():
    def answer(method, path, body):
        time.sleep(0.4)
        return 200, choice()

    with served(answer) as url:
        endpoint = Endpoint(url, timeout_seconds=0.1, tries=2, backoff_seconds=0.0)
        start = time.monotonic()
        with pytest.raises(EngineError, match=r"failed 2 times.*[Tt]ime"):
            endpoint.request("POST", "/v1/completions", {})
        assert time.monotonic() - start < 2


def test_a_server_that_drips_does_not_hold_us():
    class Dripping:
        def read1(self, size):
            time.sleep(0.02)
            return b"x"

    with pytest.raises(TimeoutError, match="not complete in time"):
        read_whole(Dripping(), time.monotonic() + 0.05)


def test_weights_must_be_handed_over_first():
    engine = engine_at("http://127.0.0.1:9")
    params = first_policy().params
    with pytest.raises(ValueError, match="params must be those handed over last"):
        engine(params, PROMPTS, LENGTHS, KEYS)
    engine.update_weights(params, 0)
    others = jax.tree.map(lambda x: x + 0, params)
    with pytest.raises(ValueError, match="params must be those handed over last"):
        engine(others, PROMPTS, LENGTHS, KEYS)


def test_the_same_weights_go_once_and_others_of_the_same_step_again():
    transport, params = Nowhere(), first_policy().params
    engine = engine_at("http://127.0.0.1:9", transport)
    others = jax.tree.map(lambda x: x + 1, params)
    for given, version in ((params, 0), (params, 0), (params, 1), (others, 1)):
        engine.update_weights(given, version)
    assert [version for version, _ in transport.sent] == [0, 1, 1]
    assert "model.layers.1.mlp.up_proj.weight" in transport.sent[0][1]
    with pytest.raises(ValueError, match="version must be >= 0, got -1"):
        engine.update_weights(params, -1)


def test_a_hand_over_that_fails_leaves_nothing_to_draw_with():
    class Broken(Nowhere):
        def send(self, tensors, version):
            super().send(tensors, version)
            if version == 1:
                raise EngineError("no")

    params = first_policy().params
    engine = engine_at("http://127.0.0.1:9", Broken())
    engine.update_weights(params, 0)
    with pytest.raises(EngineError, match="no"):
        engine.update_weights(params, 1)
    with pytest.raises(ValueError, match="handed over"):
        engine(params, PROMPTS, LENGTHS, KEYS)


@pytest.mark.parametrize("said", ["default", "4", None, "-1", "1.5", ""])
def test_a_version_that_was_never_handed_over_is_refused(said):
    # A server that was restarted, or that another trainer feeds.
    def answer(method, path, body):
        return 200, {"weight_version": said} if method == "GET" else choice()

    with pytest.raises(EngineError, match=r"GET http.*/weight_info must report.*to 3"):
        drawn_from(answer, version_path="/weight_info")


def test_weights_that_move_during_a_rollout_count_as_the_older_ones():
    versions = iter(["1", "2"])

    def answer(method, path, body):
        if method == "GET":
            return 200, {"weight_version": next(versions)}
        return 200, choice()

    done = drawn_from(answer, version_path="/weight_info")
    assert done.policy_version.tolist() == [1] * 4


@pytest.mark.fast
def test_folders_come_whole_and_old_ones_go(tmp_path):
    seen = []

    def answer(method, path, body):
        if path == "/collective_rpc":
            folder = tmp_path / body["kwargs"]["weights_path"]
            seen.append(sorted(file.name for file in folder.iterdir()))
        return 200, {"results": []}

    tensors = {name: np.full((2, 3), i, np.float32) for i, name in enumerate("abcd")}
    with served(answer) as url:
        endpoint = Endpoint(url, tries=1)
        one = FolderTransport(endpoint, tmp_path / "w", keep=1)
        many = FolderTransport(endpoint, tmp_path / "w", keep=1, largest_file=50)
        one.send(tensors.items(), 7)
        many.send(iter(tensors.items()), 5)  # a resumed run goes on from before
    assert seen[0] == ["model.safetensors"]
    assert seen[1] == [
        "model-00001.safetensors",
        "model-00002.safetensors",
        "model.safetensors.index.json",
    ]
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["version-00000005"]
    source = SafetensorsFolder(tmp_path / "w" / "version-00000005")
    assert source.shapes == dict.fromkeys("abcd", (2, 3))
    source.close()
    index = tmp_path / "w" / "version-00000005" / "model.safetensors.index.json"
    assert json.loads(index.read_text())["metadata"] == {"total_size": 96}


def test_a_cache_that_was_not_reset_is_an_error(tmp_path):
    def answer(method, path, body):
        return 200, {"success": path != "/reset_prefix_cache"}

    with served(answer) as url:
        transport = FolderTransport(Endpoint(url, tries=1), tmp_path)
        with pytest.raises(EngineError, match="/reset_prefix_cache answered"):
            transport.send([("a", np.zeros(2, np.float32))], 0)


@pytest.mark.fast
def test_vllm_is_told_the_folder_and_the_version():
    first, _, last = vllm_requests("/w/version-00000004", 4)
    assert first[1] == {
        "method": "reload_weights",
        "kwargs": {"weights_path": "/w/version-00000004"},
    }
    assert last == ("/update_weight_version", {"new_version": "4"})


@pytest.mark.parametrize(
    ("settings", "logprobs", "message"),
    [
        ({"temperature": 0.7}, "raw", "raw log-probs need temperature 1.*got 0.7"),
        ({"top_p": 0.9}, "processed", "no filters, got 1.0 and .*0.9"),
        ({"top_k": 5}, "processed", "no filters"),
        ({"temperature": 0.0}, "processed", "a temperature above 0"),
        ({"banned_tokens": (3,)}, "raw", "logit_bias and banned_tokens"),
        ({}, "tempered", "one of .*got 'tempered'"),
    ],
)
def test_log_probs_of_another_distribution_are_refused(settings, logprobs, message):
    with pytest.raises(ValueError, match=message):
        ServerSampling("m", SamplingSettings(4, ENDS, **settings), VOCAB, logprobs)


@pytest.mark.fast
def test_log_probs_that_fit_are_taken():
    for settings, logprobs in (
        ({"top_p": 0.9, "top_k": 5}, "raw"),
        ({"temperature": 0.0}, "raw"),
        ({"temperature": 0.6}, "processed"),
    ):
        ServerSampling("m", SamplingSettings(4, ENDS, **settings), VOCAB, logprobs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "localhost:8000"}, "url must be"),
        ({"url": "ftp://host"}, "url must be"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"tries": 0}, "tries must be >= 1, got 0"),
        ({"backoff_seconds": -1}, "backoff_seconds"),
    ],
)
def test_an_endpoint_is_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        Endpoint(**({"url": "http://host:1"} | settings))


def test_a_key_travels_in_the_header_and_not_in_the_text():
    headers = []
    with served(always({}), headers) as url:
        endpoint = Endpoint(f"{url}/prefix", api_key="secret")
        assert endpoint.request("POST", "/x", {"a": 1}) == {}
    assert headers[0]["Authorization"] == "Bearer secret"
    assert "secret" not in repr(endpoint)


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
