"""Weights on their way to a server: versions, folders, caches, log-probs."""

import json

import jax
import numpy as np
import pytest

from jaxrl_reason.sampler import SamplingSettings
from jaxrl_reason.serving import (
    Endpoint,
    EngineError,
    FolderTransport,
    ServerSampling,
    vllm_requests,
)
from jaxrl_reason.weights.safetensors_folder import SafetensorsFolder
from tests.rl.helpers import ENDS, VOCAB, first_policy
from tests.serving.engine_helpers import (
    KEYS,
    LENGTHS,
    PROMPTS,
    Nowhere,
    choice,
    drawn_from,
    engine_at,
)
from tests.serving.servers import served


def test_weights_must_be_handed_over_first():
    engine = engine_at("http://127.0.0.1:9")
    params = first_policy().params
    with pytest.raises(ValueError, match="params must be those sent last"):
        engine(params, PROMPTS, LENGTHS, KEYS)
    engine.update_weights(params, 0)
    others = jax.tree.map(lambda x: x + 0, params)
    with pytest.raises(ValueError, match="params must be those sent last"):
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
    with pytest.raises(ValueError, match="sent last"):
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
