"""Problems from disk: prepared once, checked on opening, shuffled, resumable."""

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, SupportsIndex

import numpy as np

from jaxrl_reason.tasks.countdown import (
    CountdownSettings,
    Problem,
    generate_problems,
)
from jaxrl_reason.tasks.generated_splits import SPLITS
from jaxrl_reason.tasks.reader_threads import check_reader_threads


class DatasetError(ValueError):
    """A prepared dataset is damaged; the message names the folder and the remedy."""


class ProblemSequence(Protocol):
    """Problems by position: a list, a tuple, or `CountdownSource`."""

    def __len__(self) -> int:
        """Number of problems."""

    def __getitem__(self, index: SupportsIndex, /) -> Problem:
        """The problem at a position."""


class CountdownSource:
    """One split of a prepared dataset, read row by row from its ArrayRecord files.

    Args:
      rows: the data source of TFDS.
      split: the split of the rows.
      folder: its folder, for messages.
    """

    def __init__(
        self, rows: Sequence[dict[str, Any]], split: str, folder: Path
    ) -> None:
        self._rows = rows
        self._split = split
        self._folder = folder

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: SupportsIndex) -> Problem:
        position = int(index)
        if not 0 <= position < len(self):
            raise IndexError(
                f"a position must be in 0..{len(self) - 1}, got {position}"
            )
        with _damage_named(self._folder):
            row = self._rows[position]
            if row["split"].decode("utf-8") != self._split:
                raise OSError(f"a row of {self._split} says it is of {row['split']!r}")
            return Problem(
                numbers=tuple(int(number) for number in row["numbers"]),
                target=int(row["target"]),
                solution=row["solution"].decode("utf-8"),
                problem_id=int(row["problem_id"]),
            )

    def __iter__(self) -> Iterator[Problem]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        # Grain uses this in its messages.
        return f"CountdownSource({self._folder}, {self._split}, {len(self)} problems)"


def prepare_dataset(settings: CountdownSettings, data_dir: str | Path) -> Path:
    """Writes the dataset of the settings, unless it exists already.

    It is written to a temporary folder and renamed at the end, so that an interrupted
    run leaves nothing that looks complete.

    Args:
      settings: which puzzles, and how they are split.
      data_dir: folder of all datasets.

    Returns:
      The folder of this one.

    Raises:
      DatasetError: if the folder exists but is not a complete dataset.
    """
    builder = _builder(settings, data_dir)
    return Path(builder.data_dir)


def open_split(
    settings: CountdownSettings, data_dir: str | Path, split: str
) -> CountdownSource:
    """Opens a split, preparing the dataset first if necessary.

    Every row is read once here, so that damage is detected now and not in the middle of
    a run (about 15,000 rows per second).

    Args:
      settings: which puzzles, and how they are split.
      data_dir: folder of all datasets.
      split: "train", "validation" or "test".

    Returns:
      The problems, in the order of their ids.

    Raises:
      ValueError: if there is no such split, it is empty with these settings, or there
        is no room for the threads that read it.
      DatasetError: if a file of the dataset is missing or damaged.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    builder = _builder(settings, data_dir)
    if split not in builder.info.splits:
        raise ValueError(
            f"a split needs a fraction above 0, got {split!r} of "
            f"{builder.info.full_name}"
        )
    folder = Path(builder.data_dir)
    check_reader_threads()
    with _damage_named(folder):
        source = CountdownSource(builder.as_data_source(split), split, folder)
        for _ in source:  # TFDS knows the number of rows
            pass
    return source


def load_split(
    settings: CountdownSettings, data_dir: str | Path, split: str
) -> list[Problem]:
    """All problems of a split in the order of their ids, for evaluation.

    Args, raised errors: as of `open_split`.

    Returns:
      The problems.
    """
    return list(open_split(settings, data_dir, split))


class ProblemStream:
    """An endless stream of batches, in an order fixed by the seed.

    Each pass over the problems has its own order. No batch has a problem twice: a
    remainder at the end of a pass that does not fill a batch is dropped from this pass.
    Reads happen in the caller's thread; no threads are started.

    Args:
      problems: what to draw from, such as `open_split(...)`, or a list.
      batch_size: problems per batch, P.
      seed: seed of the order.

    Raises:
      ValueError: if there are fewer problems than a batch needs.

    Example:
      >>> puzzles = [Problem((1, 2), n, f"{n}", n) for n in range(5)]
      >>> stream = ProblemStream(puzzles, batch_size=2, seed=0)
      >>> first = next(stream)
      >>> state = stream.get_state()
      >>> second = next(stream)
      >>> stream.set_state(state)
      >>> next(stream) == second
      True
    """

    def __init__(
        self, problems: ProblemSequence, *, batch_size: int, seed: int
    ) -> None:
        # Grain takes almost a second to import, so it is imported only for streams.
        import grain

        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        if len(problems) < batch_size:
            raise ValueError(
                f"a batch of {batch_size} problems needs at least as many, "
                f"got {len(problems)}"
            )
        if seed < 0:
            raise ValueError(f"seed must be >= 0, got {seed}")
        self._setup = {
            "seed": seed,
            "batch_size": batch_size,
            "problems": len(problems),
        }
        # Grain's pass n with seed s has the order of pass 0 with seed s + n: with
        # neighbouring seeds used directly, runs would share orders.
        shuffle_seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        dataset = (
            grain.MapDataset.source(problems)
            .shuffle(seed=shuffle_seed)
            .batch(batch_size, drop_remainder=True, batch_fn=list)
            .repeat()
        )
        in_this_thread = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        self._batches = iter(dataset.to_iter_dataset(in_this_thread))
        self._problems, self._places = problems, dict[int, int]()

    def find(self, problem_id: int) -> Problem:
        """The problem of a number; the first call reads all of them."""
        if not self._places:
            for place in range(len(self._problems)):
                self._places[int(self._problems[place].problem_id)] = place
        return self._problems[self._places[problem_id]]

    def __iter__(self) -> "ProblemStream":
        return self

    def __next__(self) -> list[Problem]:
        batch: list[Problem] = next(self._batches)
        return batch

    def get_state(self) -> dict[str, Any]:
        """The position of the stream, as JSON-able numbers."""
        position = self._batches.get_state()["next_index"]
        return {**self._setup, "next_batch": int(position)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues exactly where `get_state` was called.

        Args:
          state: of a stream with the same problems, batch size and seed.

        Raises:
          ValueError: if it is of another stream; the message names what differs.
        """
        for name, value in self._setup.items():
            if state.get(name) != value:
                raise ValueError(
                    f"the state must be of a stream with {name} {value}, "
                    f"got {state.get(name)}"
                )
        position = state.get("next_batch")
        if not isinstance(position, int) or position < 0:
            raise ValueError(f"next_batch must be a whole number >= 0, got {position}")
        self._batches.set_state({"next_index": position})


def _builder(settings: CountdownSettings, data_dir: str | Path) -> Any:
    """The TFDS builder of a dataset that exists and looks complete."""
    # TFDS takes half a second to import, so it is imported only for datasets.
    from jaxrl_reason.data.countdown_dataset import Countdown, countdown_config

    config = countdown_config(settings)
    folder = Path(data_dir) / "countdown" / config.name / str(Countdown.VERSION)

    def build() -> Any:
        return Countdown(
            config=config, data_dir=str(data_dir), file_format="array_record"
        )

    if not folder.exists():
        # Settings without problems fail here, before anything is written.
        generate_problems(settings)
        with _silence():
            try:
                build().download_and_prepare()
            except OSError:
                # Another process may have finished the same dataset in the meantime.
                if not folder.exists():
                    raise
    with _damage_named(folder), _silence():
        # A new builder, so that the new files are read like any others.
        builder = build()
        if not builder.info.splits:
            raise OSError("dataset_info.json is missing or empty")
    return builder


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Silences TFDS's prints, logs and progress bars: a run has its own."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    nowhere = io.StringIO()
    try:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _damage_named(folder: Path) -> Iterator[None]:
    """Turns all errors of the readers into one that says what to do."""
    try:
        yield
    except DatasetError:
        raise
    except Exception as error:
        # Readers raise RuntimeError, KeyError, ParseError and more for damage.
        raise DatasetError(
            f"the dataset in {folder} is damaged ({error}); delete this folder and "
            "start again to prepare it anew"
        ) from error
