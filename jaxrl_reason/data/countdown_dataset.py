"""Countdown as a TFDS dataset in ArrayRecord form; TensorFlow is not needed.

Use it through `jaxrl_reason.data.pipeline`, or as any TFDS builder:

    config = countdown_config(CountdownSettings())
    builder = Countdown(config=config, data_dir="data", file_format="array_record")
    builder.download_and_prepare()
    rows = builder.as_data_source("train")
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxrl_reason.tasks.countdown import (
    CountdownSettings,
    Problem,
    generate_problems,
)
from jaxrl_reason.tasks.generated_splits import SPLITS


def config_name(settings: CountdownSettings) -> str:
    """The name of a configuration, with every setting, so that folders are unique.

    Args:
      settings: which puzzles, and how they are split.

    Returns:
      The name, which is valid for a folder.

    Example:
      >>> config_name(CountdownSettings())
      'numbers3_max10_value50_targets24_validation0.1_test0.27_by-numbers_seed0'
    """
    return (
        f"numbers{'-'.join(map(str, settings.numbers))}_max{settings.max_number}"
        f"_value{settings.max_value}_targets{settings.max_targets}"
        f"_validation{settings.validation_fraction}_test{settings.test_fraction}"
        f"_by-{settings.hold_out}_seed{settings.seed}"
    )


@dataclasses.dataclass(eq=False, kw_only=True)
class CountdownConfig(tfds.core.BuilderConfig):
    """A configuration of the builder.

    Attributes:
      settings: which puzzles, and how they are split.
    """

    settings: CountdownSettings


# One object for equal settings: TFDS rejects a second one with a known name.
@functools.lru_cache
def countdown_config(settings: CountdownSettings) -> CountdownConfig:
    """The builder's configuration for any settings."""
    return CountdownConfig(name=config_name(settings), settings=settings)


class Countdown(tfds.core.GeneratorBasedBuilder):
    """Builder of the dataset; its rows are the fields of `Problem` and the split."""

    # Increase it whenever the same settings give other puzzles: it is part of the
    # folder's name.
    VERSION = tfds.core.Version("1.0.1")
    BUILDER_CONFIGS = [  # noqa: RUF012 (what TFDS asks for)
        countdown_config(CountdownSettings(numbers=numbers))
        for numbers in ((3,), (4,), (3, 4))
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "numbers": tfds.features.Sequence(np.int32),
            "target": np.int32,
            "solution": tfds.features.Text(),
            "problem_id": np.int32,
            # So that a misplaced file is not taken for another split.
            "split": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Reach a target with + - * / and each given number once.",
            features=tfds.features.FeaturesDict(features),
            # Rows keep the order of their ids; the pipeline shuffles.
            disable_shuffling=True,
        )

    def _split_generators(
        self, dl_manager: Any
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager  # nothing is downloaded
        splits = generate_problems(self.builder_config.settings)
        # TFDS rejects empty splits, and a fraction of 0 gives one.
        wanted = [name for name in SPLITS if splits[name]]
        return {name: self._generate_examples(name, splits[name]) for name in wanted}

    def _generate_examples(
        self, split: str, problems: tuple[Problem, ...]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for problem in problems:
            row = dataclasses.asdict(problem)
            row["numbers"] = list(problem.numbers)
            yield problem.problem_id, {**row, "split": split}
