"""The comparisons with peers: their help, and what they say where a peer is missing."""

import importlib

import numpy as np
import pytest
import tyro

from experiments.benchmarks import peers

SCRIPTS = {
    "rollout_against_transformers": [],
    "step_against_peer trl": ["trl"],
    "step_against_peer tunix": ["tunix"],
}


@pytest.fixture(params=SCRIPTS)
def script(request):
    """A script's module and the arguments that choose the peer."""
    name = request.param.split()[0]
    module = importlib.import_module(f"experiments.benchmarks.{name}")
    return module, SCRIPTS[request.param]


def options_of(module, arguments):
    config = (tyro.conf.OmitSubcommandPrefixes,)
    return tyro.cli(
        module.Options, description=module.__doc__, args=arguments, config=config
    )


def test_help_explains_the_comparison(script, capsys):
    module, _ = script
    with pytest.raises(SystemExit) as stopped:
        options_of(module, ["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "--model" in shown
    assert "python experiments/benchmarks/" in shown


def test_a_missing_peer_is_named_with_what_installs_it(script, monkeypatch, tmp_path):
    module, peer = script
    options = options_of(module, ["--model", str(tmp_path / "absent"), *peer])
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"^This comparison needs .*pip install '.*'"):
        module.main(options)


def test_a_response_ends_with_its_first_end_token():
    tokens = np.array([[5, 2, 2, 2], [5, 6, 7, 8], [0, 5, 6, 2]])
    assert peers.real_lengths(tokens, (2, 0)).tolist() == [2, 4, 1]


def test_prompts_are_padded_on_the_left():
    tokens, mask = peers.padded_left([[5, 6, 7], [8]], pad=2)
    assert tokens.tolist() == [[5, 6, 7], [2, 2, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
