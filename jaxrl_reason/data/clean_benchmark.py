"""The questions of the benchmarks that a cleaned set must not hold."""

from dataclasses import dataclass
from typing import Any

from jaxrl_reason.data.clean_settings import CleanSettings
from jaxrl_reason.tasks.question_rows import NamedPlace, Row, text_field
from jaxrl_reason.tasks.question_sources import RowSource, open_rows, tfds_folder

_BENCHMARK_FIELDS = ("problem", "question", "prompt")


@dataclass(frozen=True)
class BenchmarkTexts:
    """Questions that must not be trained on.

    Attributes:
      texts: of all benchmarks.
      names: the place of each.
      sources: what and how many they are.
    """

    texts: tuple[str, ...]
    names: tuple[str, ...]
    sources: list[dict[str, Any]]


def read_benchmark(settings: CleanSettings) -> BenchmarkTexts:
    """Reads the benchmarks.

    Args:
      settings: names them.

    Returns:
      Their questions.

    Raises:
      QuestionFileError: one cannot be read, or a row has no question.
    """
    texts: list[str] = []
    names: list[str] = []
    sources = []
    for name in settings.against:
        source = open_rows(name, data_dir=tfds_folder(name, settings.data_dir))
        before = len(texts)
        for place, row in source.rows:
            with NamedPlace(place):
                texts.append(_benchmark_question(row, settings))
            names.append(place)
        count = len(texts) - before
        if not count:
            raise ValueError(f"{name}: a benchmark must have questions, got none")
        sources.append(source_entry(name, source) | {"questions": count})
    return BenchmarkTexts(tuple(texts), tuple(names), sources)


def source_entry(name: str, source: RowSource) -> dict[str, Any]:
    """What the report says of a source.

    Args:
      name: as the settings have it.
      source: of `open_rows`.

    Returns:
      JSON values.
    """
    return {"source": name, "digest": source.digest, "origin": source.origin}


def _benchmark_question(row: Row, settings: CleanSettings) -> str:
    name = settings.decontamination.question
    if name is None:
        name = next((x for x in _BENCHMARK_FIELDS if x in row), _BENCHMARK_FIELDS[0])
    try:
        return text_field(row, name)
    except ValueError as error:
        flag = "--decontamination.question FIELD"
        raise ValueError(f"{error}; name another with {flag}") from None
