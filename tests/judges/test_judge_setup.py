"""A judge behind a server, from the settings of a run."""

import pytest

from jaxrl_reason.cli.train import read_settings
from jaxrl_reason.sharding import BatchSharding, ShardingRules
from jaxrl_reason.tasks.reward_functions import Asked
from jaxrl_reason.tasks.task import ResponseText
from jaxrl_reason.text.load import load_tokenizer
from jaxrl_reason.train.devices import build_mesh
from jaxrl_reason.train.judge_setup import build_judge
from tests.cli.test_train_teacher import write_model
from tests.serving.servers import served
from tests.text.tokenizer_families import family


def judge_at(url, folder, *flags):
    settings = read_settings(
        [
            *("--task", "sums.jsonl", "--reward", "judge", "--judge.model"),
            *(str(folder / "judge"), "--judge.kind", "verify", "--judge.endpoint", url),
            *("--judge.max-new-tokens", "64", "--run-dir", str(folder), *flags),
        ]
    )
    return build_judge(settings, BatchSharding(build_mesh("auto"), ShardingRules()))


@pytest.fixture
def folder(tmp_path):
    write_model(tmp_path, "judge", family("llama3"), context_length=4096)
    return tmp_path


def test_a_server_judges(folder):
    tokenizer = load_tokenizer(folder / "judge")
    bodies = []

    def answer(method, path, body):
        bodies.append((path, body))
        lines = tokenizer.decode(body["prompt"]).split("\n")
        (form,) = [x for x in lines if x.startswith("VERDICT ")]
        said = "yes" if "\n4\n<</RESPONSE" in "\n".join(lines) else "no"
        ids = [
            *tokenizer.encode(form[: form.index("<")] + said),
            body["stop_token_ids"][0],
        ]
        logprobs = {"token_logprobs": [-0.5] * len(ids)}
        choice = {"token_ids": ids, "logprobs": logprobs, "finish_reason": "stop"}
        return 200, {"choices": [choice]}

    with served(answer) as url:
        reward = judge_at(url, folder, "--judge.batch-size", "2")
        assert not reward.needs_devices
        responses = (ResponseText("4"), ResponseText("5"))
        (scores,) = reward.score([Asked("2 + 2?", {"answer": "4"}, responses)])
    assert scores == [({"reward": 1.0}, True), ({"reward": 0.0}, False)]
    assert {path for path, _ in bodies} == {"/v1/completions"}
    assert all(body["temperature"] == 0 for _, body in bodies)
    assert len((folder / "judge.jsonl").read_text().splitlines()) == 4


def test_a_judge_that_does_not_fit_is_refused(folder):
    with pytest.raises(ValueError, match="context_length"):
        judge_at("http://localhost:1", folder, "--judge.prompt-width", "9000")
