"""Files of rows: formats, damage, and rows that are left out one by one."""

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from jaxrl_reason.tasks import row_formats
from jaxrl_reason.tasks.question_rows import QuestionFileError, field_of, text_field
from jaxrl_reason.tasks.question_sources import load_questions, open_rows
from jaxrl_reason.tasks.row_formats import file_rows
from jaxrl_reason.tasks.row_questions import row_questions

ROWS = [{"question": f"What is {n} + 1?", "answer": f"{n + 1}"} for n in range(5)]


def rows_of(name: str, data: bytes, bad: list | None = None) -> list:
    def on_bad(place: str, said: str) -> None:
        assert bad is not None
        bad.append((place, said))

    file = io.BufferedReader(io.BytesIO(data))
    return list(file_rows(name, file, None if bad is None else on_bad))


def parquet_of(rows: list[dict]) -> bytes:
    held = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), held)
    return held.getvalue()


LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
CSV = "\r\n".join(
    ["question,answer", *(f"{q['question']},{q['answer']}" for q in ROWS)]
)
FORMATS = {
    "a.jsonl": LINES,
    "a.txt": b"\n\n" + LINES,
    "a.json": json.dumps(ROWS, indent=2).encode(),
    "A.JSON": b" " + json.dumps(ROWS).encode(),
    "a.csv": CSV.encode(),
    "excel.CSV": b"\xef\xbb\xbf" + CSV.encode(),
    "a.tsv": CSV.replace(",", "\t").encode(),
    "A.PARQUET": parquet_of(ROWS),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_questions(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FORMATS[name])
    found = load_questions(path, row_questions).questions
    assert [(q.question, q.answer) for q in found] == [
        (row["question"], row["answer"]) for row in ROWS
    ]
    zipped = tmp_path / f"{name}.gz"
    zipped.write_bytes(gzip.compress(FORMATS[name], mtime=0))
    assert load_questions(zipped, row_questions).questions == found


def test_an_array_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_formats, "_CHUNK", 3)
    rows = [{"q": "ü" * n, "a": [n, {"b": n / 3}]} for n in range(9)]
    for indent in (None, 1):
        data = json.dumps(rows, indent=indent, ensure_ascii=False).encode()
        assert [row for _, row in rows_of("a.json", data)] == rows
    assert rows_of("a.json", b"[ ]") == []


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.json", b'[{"q": 1}', "a.json, element 0: JSON must go on with ',', got ''"),
        ("a.json", b'[{"q": 1} {"q": 2}]', "element 0: JSON must go on with ','"),
        ("a.json", b'[{"q": 1}, ', "element 1: Expecting value"),
        ("a.json", b"[" * 100_000, "a.json, element 0: .*ecursion"),
        ("a.csv", b"a,a\n1,2\n", "a.csv, header: a field must occur once, got 'a'"),
        ("a.csv", b'a\n"1', "a.csv, line 2: unexpected end of data"),
        ("a.jsonl", gzip.compress(LINES, mtime=0)[:-9], "a.jsonl: .*end-of-stream"),
        ("a.jsonl", gzip.compress(LINES, mtime=0)[:20] + b"\0" * 20, "a.jsonl: "),
        ("a.parquet", b"PAR1", "a.parquet: "),
    ],
)
def test_damage_is_a_sentence(name: str, data: bytes, said: str) -> None:
    for bad in (None, []):
        with pytest.raises(QuestionFileError, match=said):
            rows_of(name, data, bad)


@pytest.mark.parametrize(
    ("name", "data", "place", "said"),
    [
        ("a.jsonl", b'{"q": 1}\n[2]\n{"q": 3}', "line 2", "must be a JSON object"),
        ("a.jsonl", b'{"q": 1}\n{"q"\n{"q": 3}', "line 2", "Expecting ':'"),
        ("a.json", b'[{"q": 1}, 22, {"q": 3}]', "element 1", "must be a JSON object"),
        ("a.json", b'[{"q": 1}, {"q": NaN}, {"q": 3}]', "element 1", "got NaN"),
        ("a.json", b'[{"q":1},{"q":2,"q":2},{"q":3}]', "element 1", "'q' twice"),
        ("a.csv", b"q\n1\n2,2\n3\n", "record 2", "the 1 fields of the header, got 2"),
    ],
)
def test_a_bad_row_is_left_out(name: str, data: bytes, place: str, said: str) -> None:
    bad: list = []
    assert [int(row["q"]) for _, row in rows_of(name, data, bad)] == [1, 3]
    assert len(bad) == 1
    assert bad[0][0] == f"{name}, {place}"
    assert said in bad[0][1]
    with pytest.raises(QuestionFileError, match=place):
        rows_of(name, data)


def test_a_row_that_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_formats, "MAX_ROW_BYTES", 1000)
    long = b'{"q": "' + b"x" * 200_000 + b'"}'
    for data in (long, b"[" + long + b"]"):
        with pytest.raises(QuestionFileError, match="a row must be at most 64 MiB"):
            rows_of("a.json", data)


def test_bytes_that_are_not_utf_8_are_one_bad_field() -> None:
    rows = rows_of("a.csv", b"q\nfine\n\xff\n")
    with pytest.raises(ValueError, match="surrogates not allowed"):
        text_field(rows[1][1], "q")


def test_the_way_into_nested_fields() -> None:
    row = {
        "prompt": [{"role": "user", "content": "1 + 1?"}],
        "reward_model": {"ground_truth": "2"},
        "a.b": 3,
    }
    assert field_of(row, "prompt.0.content") == "1 + 1?"
    assert field_of(row, "reward_model.ground_truth") == "2"
    assert field_of(row, "a.b") == 3
    for name in ("prompt.1.content", "prompt.-1.content", "a.c", ""):
        with pytest.raises(ValueError, match="got the fields 'prompt', 'reward_model'"):
            field_of(row, name)


def test_a_folder_without_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(QuestionFileError, match="a folder must hold one dataset"):
        open_rows(tmp_path)


@pytest.mark.parametrize("name", ["absent.csv", "typo", "data/absent.csv"])
def test_an_absent_file_beside_a_dataset_is_no_split_of_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("OUT", "data/OUT"):
        Path(folder).mkdir(parents=True)
        Path(folder, "dataset_info.json").touch()
    with pytest.raises(QuestionFileError, match=f"^{name}: No such file"):
        open_rows(name)


def test_flipped_bits_of_parquet_are_read_or_named() -> None:
    whole = parquet_of([row | {"n": [n], "x": 0.5} for n, row in enumerate(ROWS)])
    rng, said = np.random.default_rng(0), []
    for _ in range(400):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            data[at] ^= 1 << rng.integers(8)
        try:
            rows_of("a.parquet", bytes(data))
        except QuestionFileError as error:
            said.append(str(error))
    assert len(said) > 100
    assert all(sentence.startswith("a.parquet: ") for sentence in said)


def test_a_text_that_parquet_has_once_is_not_held_for_every_row() -> None:
    ids = pyarrow.array(np.zeros(512, np.int32))
    long = pyarrow.DictionaryArray.from_arrays(ids, pyarrow.array(["a" * 2**20]))
    held = io.BytesIO()
    table = pyarrow.table({"question": long, "answer": ["1"] * 512})
    pyarrow.parquet.write_table(table, held, store_schema=False)
    assert len(held.getvalue()) < 2**17
    before, found = pyarrow.total_allocated_bytes(), 0
    file = io.BufferedReader(io.BytesIO(held.getvalue()))
    for _, row in file_rows("a.parquet", file):
        found += len(row["question"])
        assert pyarrow.total_allocated_bytes() - before < 2**26
    assert found == 2**29


def test_a_panic_of_a_library_in_rust_is_an_error_of_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class PanicException(BaseException):
        """As pyo3 raises it."""

    def panic(*arguments: object) -> None:
        raise PanicException("index out of bounds")

    monkeypatch.setattr(pyarrow.parquet, "ParquetFile", panic)
    with pytest.raises(QuestionFileError, match=r"a\.parquet: PanicException: index"):
        rows_of("a.parquet", FORMATS["A.PARQUET"])
