"""Texts to continue pre-training on: whole, in pieces, and in a run's settings."""

import json
import shlex

import pytest

from jaxrl_reason.cli.train import read_settings
from jaxrl_reason.tasks.question_rows import QuestionFileError
from jaxrl_reason.text.characters import CharacterTokenizer
from jaxrl_reason.train.run_setup import build_run_setup
from jaxrl_reason.train.texts import longest_piece, read_texts, text_pieces

CHARACTERS = CharacterTokenizer("abcdefgh")
TINY = """
    --task sums.jsonl --task.instruction '' --model 1x16 --model.head-dim 8 --method sft
    --sampler.slots 0 --rl.max-new-tokens 4 --eval.problems 2 --sft.updates 1
    --task.text texts.jsonl --sft.examples-per-update 3
"""


@pytest.mark.parametrize("size", [0, 1, 3, 9, 20])
def test_every_token_is_predicted_once_after_the_one_before(size):
    text = "abcdefgh"
    pieces = text_pieces(CHARACTERS, text, size)
    end = CHARACTERS.eos_token_id
    stream = [end, *CHARACTERS.encode(text), end]
    assert [token for _, piece in pieces for token in piece] == stream[1:]
    before = [token for prompt, piece in pieces for token in [*prompt, *piece][:-1]]
    assert before == stream[:-1]
    assert max(len(piece) for _, piece in pieces) == longest_piece(
        CHARACTERS, ["a", text], size
    )


def test_a_text_begins_with_the_start_token_where_there_is_one():
    class Tokenizer(CharacterTokenizer):
        bos_token_id = 1

    assert text_pieces(Tokenizer("ab"), "a", 0)[0][0] == [1]


@pytest.fixture
def setup_of(tmp_path, monkeypatch):
    """The pieces of a run over sums and texts, by its flags."""
    monkeypatch.chdir(tmp_path)
    sums = [{"question": f"{n}+1=", "answer": n + 1} for n in range(12)]
    texts = [{"text": "x" * n, "more": [n]} for n in (2, 5, 9)]
    for name, rows in (("sums", sums), ("texts", texts)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return lambda flags: build_run_setup(read_settings(shlex.split(TINY + flags)))


def test_a_run_learns_from_texts_in_pieces(setup_of):
    setup = setup_of("--sft.max-response 4")
    # 3, 6 and 10 tokens with the end: one, two and three pieces.
    seen = [piece for update in range(2) for piece in setup.examples(update)]
    assert sorted(len(piece) for _, piece in seen) == [2, 2, 3, 4, 4, 4]
    assert setup.settings.sft.max_response == 4
    assert set(setup.problems.digests) >= {"text_rows"}
    assert setup_of("").settings.sft.max_response == 10


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--sft.updates 0 --method dapo", "task.text needs sft.updates >= 1, got 0"),
        ("--task.text-field body", "body must be a field, got the fields 'text', 'mo"),
        ("--task.text none.jsonl", "none.jsonl"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(setup_of, flags, said):
    with pytest.raises(ValueError, match=said):
        setup_of(flags)


def test_a_row_without_text_is_named(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "a"}\n{"text": " "}\n')
    with pytest.raises(QuestionFileError, match=r"line 2: text must be text, got ' '"):
        read_texts(str(path), "text")
