"""The script for minutes on an accelerator, at toy size on a CPU."""

import json

import pytest

from experiments.benchmarks import accelerator


def test_a_toy_case_gives_all_figures(tmp_path, capsys):
    file = tmp_path / "found.json"
    options = accelerator.Options(cases=("toy",), steps=1, json=file)
    (found,) = accelerator.main(options)
    assert found.rollout_tokens_per_s > 0
    assert found.train_tokens_per_s > 0
    assert 0 < found.train_mfu < 1
    assert found.attention_error < 1e-5
    assert found.gradient_error < 1e-5
    assert "training, MFU" in capsys.readouterr().out
    assert json.loads(file.read_text())[0]["case"] == "toy"


def test_the_longest_name_of_a_device_counts(monkeypatch):
    class Device:
        device_kind = "TPU v5 lite"

    monkeypatch.setattr(accelerator.jax, "devices", lambda: [Device()])
    assert accelerator.peak_flops() == 197e12
    Device.device_kind = "NVIDIA H200"
    assert accelerator.peak_flops() == 989.4e12


def test_an_unknown_case_is_refused():
    with pytest.raises(ValueError, match=r"cases must be of .*, got \['x'\]"):
        accelerator.Options(cases=("x",))
