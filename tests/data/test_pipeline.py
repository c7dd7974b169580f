"""The dataset on disk and the stream of problems."""

import json
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jaxrl_reason.data.pipeline import (
    DatasetError,
    ProblemStream,
    load_split,
    open_split,
    prepare_dataset,
)
from jaxrl_reason.tasks.countdown import (
    CountdownSettings,
    Problem,
    generate_problems,
)
from jaxrl_reason.tasks.generated_splits import SPLITS

SMALL = CountdownSettings(max_number=5, max_value=20)
PUZZLES = [Problem((1, 2), number, "", number) for number in range(60)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small dataset, not to be written to."""
    data_dir = tmp_path_factory.mktemp("data")
    prepare_dataset(SMALL, data_dir)
    return data_dir


@pytest.fixture
def copied(prepared: Path, tmp_path: Path) -> Path:
    """A copy of it, to damage."""
    shutil.copytree(prepared, tmp_path / "data")
    return tmp_path / "data"


# --- the dataset


@pytest.mark.parametrize("split", SPLITS)
def test_what_is_read_is_what_was_generated(prepared: Path, split: str) -> None:
    problems = load_split(SMALL, prepared, split)
    assert tuple(problems) == generate_problems(SMALL)[split]
    assert {type(number) for p in problems for number in p.numbers} == {int}
    assert isinstance(problems[0].target, int)


def test_ids_are_unique_over_all_splits(prepared: Path) -> None:
    ids = [p.problem_id for name in SPLITS for p in load_split(SMALL, prepared, name)]
    assert sorted(ids) == list(range(len(ids)))


def test_a_source_reads_by_position(prepared: Path) -> None:
    source = open_split(SMALL, prepared, "train")
    problems = generate_problems(SMALL)["train"]
    assert len(source) == len(problems)
    assert source[3] == problems[3]
    with pytest.raises(IndexError):
        source[len(problems)]


def test_files_are_array_records_and_reused(prepared: Path) -> None:
    folder = prepare_dataset(SMALL, prepared)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert any(".array_record" in path.name for path in before)
    load_split(SMALL, prepared, "test")
    assert prepare_dataset(SMALL, prepared) == folder
    after = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert after == before


def test_nothing_is_printed(tmp_path: Path, root: Path) -> None:
    # In a process of its own: pytest takes over what the loggers would write.
    script = (
        "import logging, sys\n"
        "logging.basicConfig()\n"  # as programs do: warnings of libraries show
        "from jaxrl_reason.data.pipeline import ProblemStream, open_split\n"
        "from jaxrl_reason.tasks.countdown import CountdownSettings\n"
        "settings = CountdownSettings(max_number=4, max_value=9)\n"
        "source = open_split(settings, sys.argv[1], 'train')\n"
        "next(ProblemStream(source, batch_size=4, seed=0))\n"
    )
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path)]
    done = subprocess.run(
        command, cwd=root, check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == ""
    assert done.stderr == ""


def test_settings_have_folders_of_their_own(tmp_path: Path) -> None:
    one = CountdownSettings(max_number=4, max_value=9)
    other = CountdownSettings(max_number=4, max_value=9, seed=1)
    assert prepare_dataset(one, tmp_path) != prepare_dataset(other, tmp_path)
    assert load_split(one, tmp_path, "test") == list(generate_problems(one)["test"])
    assert load_split(other, tmp_path, "test") == list(generate_problems(other)["test"])


def test_unknown_and_empty_splits(tmp_path: Path) -> None:
    settings = CountdownSettings(max_number=4, max_value=9, validation_fraction=0.0)
    with pytest.raises(ValueError, match="one of train, validation, test, got 'dev'"):
        open_split(settings, tmp_path, "dev")
    with pytest.raises(ValueError, match="a fraction above 0, got 'validation'"):
        open_split(settings, tmp_path, "validation")
    assert load_split(settings, tmp_path, "test")


def test_settings_without_problems_write_nothing(tmp_path: Path) -> None:
    nothing = CountdownSettings(max_number=1, max_value=1, numbers=(2,))
    with pytest.raises(ValueError, match="at least one problem"):
        prepare_dataset(nothing, tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- damage


def train_file(data_dir: Path) -> Path:
    """The file of the training split."""
    (path,) = data_dir.rglob("*train*array_record*")
    return path


def refuses(data_dir: Path) -> None:
    """Opening says which folder is damaged and what to do."""
    with pytest.raises(DatasetError, match="delete this folder") as error:
        open_split(SMALL, data_dir, "train")
    assert str(next(data_dir.rglob("1.0.1"))) in str(error.value)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9])
def test_a_file_cut_short_is_refused(copied: Path, fraction: float) -> None:
    path = train_file(copied)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    refuses(copied)


@pytest.mark.parametrize("place", [0.0, 0.5, 0.99])
def test_a_changed_byte_is_refused(copied: Path, place: float) -> None:
    path = train_file(copied)
    content = bytearray(path.read_bytes())
    names = [match.start() for match in re.finditer(b"problem_id", content)]
    content[names[int(len(names) * place)]] ^= 0x10
    path.write_bytes(content)
    refuses(copied)


def test_a_missing_file_is_refused(copied: Path) -> None:
    train_file(copied).unlink()
    refuses(copied)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_file_of_another_split_is_refused(copied: Path, split: str) -> None:
    # The test split is shorter than one of these and longer than the other.
    (mine,), (other,) = (
        copied.rglob(f"*{name}*array_record*") for name in (split, "test")
    )
    shutil.copyfile(other, mine)
    with pytest.raises(DatasetError, match="delete this folder"):
        open_split(SMALL, copied, split)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}"])
def test_a_damaged_description_is_refused(copied: Path, content: str | None) -> None:
    (path,) = copied.rglob("dataset_info.json")
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    refuses(copied)


def test_an_empty_folder_is_refused(copied: Path) -> None:
    folder = next(copied.rglob("1.0.1"))
    shutil.rmtree(folder)
    folder.mkdir()
    refuses(copied)


def test_what_an_interrupted_run_left_is_no_dataset(copied: Path) -> None:
    folder = next(copied.rglob("1.0.1"))
    folder.rename(folder.with_name("incomplete.ABC_1.0.1"))
    assert load_split(SMALL, copied, "train") == list(generate_problems(SMALL)["train"])


def test_damage_after_opening_is_named_too(copied: Path) -> None:
    source = open_split(SMALL, copied, "train")
    broken = type(source)([{"numbers": []}], "train", Path("somewhere"))
    with pytest.raises(DatasetError, match="the dataset in somewhere is damaged"):
        broken[0]


def test_two_processes_may_prepare_at_once(tmp_path: Path, root: Path) -> None:
    script = (
        "import sys\n"
        "from jaxrl_reason.data.pipeline import load_split\n"
        "from jaxrl_reason.tasks.countdown import CountdownSettings\n"
        "settings = CountdownSettings(max_number=5, max_value=20)\n"
        "print(len(load_split(settings, sys.argv[1], 'train')))\n"
    )
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path)]
    running = [
        subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    expected = str(len(generate_problems(SMALL)["train"]))
    for process in running:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert out.strip() == expected


def test_importing_the_module_loads_neither_tfds_nor_grain(root: Path) -> None:
    script = (
        "import sys, jaxrl_reason.data.pipeline\n"
        "assert not {'tensorflow_datasets', 'grain', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True, timeout=60)


# --- the stream


def ids(batch: list[Problem]) -> list[int]:
    return [problem.problem_id for problem in batch]


def test_batches_hold_no_problem_twice_and_passes_hold_all() -> None:
    stream = ProblemStream(PUZZLES, batch_size=30, seed=0)
    passes = [ids(next(stream)) + ids(next(stream)) for _ in range(6)]
    assert all(sorted(one) == list(range(60)) for one in passes)
    assert len({tuple(one) for one in passes}) == 6
    # 60 is no multiple of 40: a third of each pass is left out, never the same.
    odd = ProblemStream(PUZZLES, batch_size=40, seed=0)
    seen = set()
    for _ in range(12):
        batch = ids(next(odd))
        assert len(set(batch)) == len(batch) == 40
        seen |= set(batch)
    assert seen == set(range(60))


def test_the_seed_fixes_the_order() -> None:
    def orders(seed: int) -> list[tuple[int, ...]]:
        stream = ProblemStream(PUZZLES, batch_size=60, seed=seed)
        return [tuple(ids(next(stream))) for _ in range(4)]

    assert orders(0) == orders(0)
    # Neighbouring seeds must not run through the same passes one after the other.
    assert not set(orders(0)) & set(orders(1))


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_resuming_goes_on_exactly(prepared: Path, steps: int) -> None:
    source = open_split(SMALL, prepared, "train")
    batch_size = len(source) // 2 - 1
    stream = ProblemStream(source, batch_size=batch_size, seed=5)
    for _ in range(steps):
        next(stream)
    state = json.loads(json.dumps(stream.get_state()))
    expected = [next(stream) for _ in range(4)]
    again = ProblemStream(source, batch_size=batch_size, seed=5)
    next(again)
    again.set_state(state)
    assert [next(again) for _ in range(4)] == expected
    assert stream.get_state()["next_batch"] == steps + 4


def test_a_list_and_the_dataset_give_the_same_stream(prepared: Path) -> None:
    problems = load_split(SMALL, prepared, "train")
    streams = [
        ProblemStream(source, batch_size=8, seed=1)
        for source in (problems, open_split(SMALL, prepared, "train"))
    ]
    for _ in range(5):
        assert next(streams[0]) == next(streams[1])
    assert iter(streams[0]) is streams[0]


def test_streaming_starts_no_threads(prepared: Path) -> None:
    before = threading.active_count()
    stream = ProblemStream(open_split(SMALL, prepared, "train"), batch_size=4, seed=0)
    next(stream)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"batch_size": 61}, "a batch of 61 problems needs at least as many, got 60"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
    ],
)
def test_arguments_out_of_range(changes: dict[str, int], message: str) -> None:
    arguments = {"batch_size": 2, "seed": 0, **changes}
    with pytest.raises(ValueError, match=message):
        ProblemStream(PUZZLES, **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "a stream with seed 0, got 1"),
        ({"batch_size": 3}, "a stream with batch_size 2, got 3"),
        ({"problems": 9}, "a stream with problems 60, got 9"),
        ({"next_batch": -1}, "next_batch must be a whole number >= 0, got -1"),
        ({"next_batch": "1"}, "next_batch must be a whole number >= 0, got 1"),
    ],
)
def test_states_of_other_streams(changes: dict[str, object], message: str) -> None:
    stream = ProblemStream(PUZZLES, batch_size=2, seed=0)
    next(stream)
    state = stream.get_state()
    with pytest.raises(ValueError, match=message):
        stream.set_state({**state, **changes})
    assert stream.get_state() == state
