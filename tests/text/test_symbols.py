"""The symbol tokenizer: ids, round trips, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from jaxrl_reason.text.symbols import SymbolTokenizer
from jaxrl_reason.text.tokenizer import Tokenizer

TOKENIZER = SymbolTokenizer(50)


def test_one_token_a_word_and_padding_is_zero() -> None:
    tokenizer: Tokenizer = TOKENIZER
    tags = "<think> </think> <answer> </answer> <end>"
    words = f"{tags} low high yes + - * / ( ) = , : 0 9 50"
    ids = tokenizer.encode(words)
    assert len(ids) == len(set(ids)) == len(words.split())
    assert tokenizer.pad_token_id == 0
    assert 0 not in ids
    assert tokenizer.encode("<end>") == [tokenizer.eos_token_id]
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    assert tokenizer.vocab_size == 51 + 18


# Other processes may hold the machine for longer than an example takes.
@hypothesis_settings(deadline=None)
@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1)))
def test_ids_survive_decoding_and_encoding(ids: list[int]) -> None:
    text = TOKENIZER.decode(ids)
    assert TOKENIZER.encode(text) == ids
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_normal_form_has_single_spaces() -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(" 3\n +   4 ")) == "3 + 4"
    assert TOKENIZER.decode(TOKENIZER.encode("")) == ""


def test_decode_takes_an_array() -> None:
    assert TOKENIZER.decode(np.array(TOKENIZER.encode("3 + 4"), np.int32)) == "3 + 4"


@pytest.mark.parametrize(
    "word", ["51", "03", "-1", "3+4", "maybe", "\uff17", "<THINK>"]
)
def test_unknown_word_is_named(word: str) -> None:
    with pytest.raises(ValueError, match=r"number 0\.\.50") as error:
        TOKENIZER.encode(f"3 {word} 4")
    assert repr(word) in str(error.value)


@pytest.mark.parametrize("index", [-1, 69, 10**6])
def test_id_out_of_range_is_named(index: int) -> None:
    with pytest.raises(ValueError, match=f"got {index}"):
        TOKENIZER.decode([3, index])


def test_ids_of_symbols_do_not_depend_on_the_largest_number() -> None:
    small, large = SymbolTokenizer(9), SymbolTokenizer(99)
    text = "<end> : yes 9"
    assert small.encode(text) == large.encode(text)
    assert small != large
    assert small == SymbolTokenizer(9)
    assert hash(small) == hash(SymbolTokenizer(9))


def test_negative_largest_number_is_refused() -> None:
    with pytest.raises(ValueError, match="max_number must be >= 0, got -1"):
        SymbolTokenizer(-1)


def test_further_words_follow_all_others() -> None:
    more = SymbolTokenizer(50, ["so", "wait,"])
    assert more.vocab_size == TOKENIZER.vocab_size + 2
    assert more.encode("wait, 50 so") == [70, *TOKENIZER.encode("50"), 69]
    assert more.decode([69, 70]) == "so wait,"
    assert more != TOKENIZER
    assert hash(more) == hash(SymbolTokenizer(50, ("so", "wait,")))
    assert "words=('so', 'wait,')" in repr(more)
    with pytest.raises(ValueError, match=r": so wait,, got 'maybe'"):
        more.encode("maybe")


@pytest.mark.parametrize("word", ["", "two words", "7", "low", " so", "twice"])
def test_words_that_cannot_have_a_token_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match="no token yet") as error:
        SymbolTokenizer(9, ["twice", word])
    assert repr(word) in str(error.value)
