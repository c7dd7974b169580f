"""Cleaned rows as a TFDS dataset in ArrayRecord form, written shard by shard.

Nothing here needs TensorFlow. The files have the same bytes whenever the rows are the
same: no names of folders or dates are in them.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrl_reason.tasks.question_rows import Row
from jaxrl_reason.tasks.tfds_rows import OTHER_FIELDS

NAME, VERSION, SPLIT = "questions", "1.0.0", "train"
# Without this option a record shares its compressed block with others, and reading one
# at random reads them all.
_OPTIONS = "group_size:1"


class Shard(NamedTuple):
    """A file of the dataset.

    Attributes:
      rows: in it.
      bytes: of the rows, before compression.
    """

    rows: int
    bytes: int


class ExampleWriter:
    """Writes rows as the examples of a dataset.

    Args:
      rated: whether rows have "solved" and "samples".
    """

    def __init__(self, rated: bool) -> None:
        from tensorflow_datasets.core import example_serializer

        self._features = _features(rated)
        info = self._features.get_serialized_info()
        self._serializer = example_serializer.ExampleSerializer(info)

    def write(self, path: Path, rows: Iterable[Row]) -> Shard:
        """Writes one file.

        Args:
          path: of the file.
          rows: with question, answer, other (JSON text), and solved and samples.

        Returns:
          Its size.
        """
        from array_record.python import array_record_module

        writer = array_record_module.ArrayRecordWriter(str(path), _OPTIONS)
        count = size = 0
        for row in rows:
            example = {OTHER_FIELDS if k == "other" else k: v for k, v in row.items()}
            message = self._serializer.get_tf_example(
                self._features.encode_example(example)
            )
            # By default the order of the fields differs from process to process.
            data = message.SerializeToString(deterministic=True)
            writer.write(data)
            count, size = count + 1, size + len(data)
        writer.close()
        return Shard(count, size)


def shard_name(number: int, shards: int) -> str:
    """The name of a file, as TFDS has them.

    Example:
      >>> shard_name(2, 16)
      'questions-train.array_record-00002-of-00016'
    """
    return f"{NAME}-{SPLIT}.array_record-{number:05d}-of-{shards:05d}"


def dataset_folder(out: Path) -> Path:
    """The folder of the dataset's files below that of the result."""
    return out / "dataset" / NAME / VERSION


def write_dataset_info(
    folder: Path, shards: list[Shard], description: str, rated: bool
) -> None:
    """Writes what TFDS needs to read the files: features and sizes.

    Args:
      folder: of the files.
      shards: in order.
      description: of the dataset.
      rated: whether rows have "solved" and "samples".
    """
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir=folder,
        dataset_name=NAME,
        split=SPLIT,
        filetype_suffix="array_record",
    )
    split = tfds.core.SplitInfo(
        name=SPLIT,
        shard_lengths=[shard.rows for shard in shards],
        num_bytes=sum(shard.bytes for shard in shards),
        filename_template=template,
    )
    identity = tfds.core.DatasetIdentity(
        name=NAME,
        version=tfds.core.Version(VERSION),
        data_dir=str(folder),
        module_name="",
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        description=description,
        features=_features(rated),
        disable_shuffling=True,
    )
    info.set_file_format("array_record", override=True)
    info.set_splits(tfds.core.splits.SplitDict([split]))
    info.write_to_directory(folder)


def _features(rated: bool) -> Any:
    import tensorflow_datasets as tfds

    features: dict[str, Any] = {
        "question": tfds.features.Text(doc="the prompt"),
        "answer": tfds.features.Text(doc="the final answer"),
        OTHER_FIELDS: tfds.features.Text(doc="the row's other fields, as JSON"),
    }
    if rated:
        features |= {
            "solved": tfds.features.Scalar(np.int64, doc="right responses"),
            "samples": tfds.features.Scalar(np.int64, doc="responses that were graded"),
        }
    return tfds.features.FeaturesDict(features)


def json_lines(rows: Iterable[Row]) -> Iterator[bytes]:
    r"""Rows as JSON lines: question, answer and all other fields.

    Args:
      rows: as of `ExampleWriter.write`.

    Yields:
      The lines.

    Example:
      >>> next(json_lines([{"question": "?", "answer": "4", "other": '{"level": 1}'}]))
      b'{"question": "?", "answer": "4", "level": 1}\n'
    """
    for row in rows:
        flat = {name: value for name, value in row.items() if name != "other"}
        yield json.dumps(flat | json.loads(row["other"])).encode() + b"\n"
