"""What must be the same on all processes, with a second process that is made up."""

from types import SimpleNamespace

import pytest

from jaxrl_reason.sharding.agreement import ProcessError
from jaxrl_reason.train import process_checks
from jaxrl_reason.train.process_checks import (
    check_data,
    check_processes,
    check_same,
    named_files,
    source_digest,
)
from jaxrl_reason.train.train_settings import TrainSettings

pytestmark = pytest.mark.fast


@pytest.fixture
def two(monkeypatch):
    """The answer of the second process, as a change of the first one's."""
    monkeypatch.setattr(process_checks, "count", lambda: 2)

    def answer(change):
        seen = []

        def exchange(name, value):
            seen.append(name)
            return [value, change(name, dict(value))]

        monkeypatch.setattr(process_checks, "exchange", exchange)
        return seen

    return answer


def test_equal_processes_pass(two):
    seen = two(lambda name, value: value)
    check_processes(TrainSettings())
    parts = ("code", "settings", "files")
    assert seen == [f"comparison of {part}" for part in parts]


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        (
            "code",
            {"jax": "0.1"},
            "differs: jax: process 0 .*, process 1 0.1",
        ),
        ("code", {"source": "x"}, "source: process 0 [0-9a-f]{64}, process 1 x"),
        ("settings", {"seed": 7}, "same settings.*seed: process 0 0, process 1 7"),
        ("files", {"a.py": "1"}, "same files.*a.py: process 0 absent, process 1 1"),
    ],
)
def test_what_differs_is_named(two, part, change, said):
    two(lambda name, value: value | change if name.endswith(part) else value)
    with pytest.raises(ProcessError, match=said):
        check_processes(TrainSettings())


def test_other_questions_are_named(two):
    setup = SimpleNamespace(
        files=None,
        problems=SimpleNamespace(train=["1+1"], heldout=["2+2"]),
        task=SimpleNamespace(prompt_tokens=len),
    )
    two(lambda name, value: value)
    check_data(setup)
    two(lambda name, value: value | {"heldout": "others"})
    with pytest.raises(ProcessError, match="same data, but process 1 differs: heldout"):
        check_data(setup)


def test_many_differences_are_cut_short(two):
    two(lambda name, value: {str(i): 1 for i in range(9)})
    with pytest.raises(ProcessError, match=r"3: process 0 0.*; and 5 more$"):
        check_same("numbers", {str(i): 0 for i in range(9)})


def test_one_process_has_nothing_to_compare(monkeypatch):
    monkeypatch.setattr(process_checks, "exchange", None)
    check_processes(TrainSettings())
    check_data(None)


def test_the_files_that_settings_name(tmp_path):
    reward = tmp_path / "reward.py"
    reward.write_text("")
    settings = {"reward": f"{reward}:parity", "a": [str(reward), "no/file"], "b": None}
    assert list(named_files(settings)) == [str(reward), str(reward)]
    assert len(source_digest()) == 64
