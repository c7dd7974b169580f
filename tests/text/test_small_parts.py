"""Added tokens, characters and streams."""

import pytest

from jaxrl_reason.text.added_tokens import AddedToken, Splitter
from jaxrl_reason.text.characters import CharacterTokenizer
from jaxrl_reason.text.stream import StreamDecoder
from jaxrl_reason.text.tokenizer import ChatTokenizer, Tokenizer
from tests.text.tokenizer_families import FAMILIES, family


def test_the_longest_of_the_leftmost_is_found() -> None:
    texts = ["<s>", "<s>>", "s>", "<<s"]
    tokens = [AddedToken(t, i, control=True) for i, t in enumerate(texts)]
    assert Splitter(tokens).split("a<s>>b<<s>s>") == ["a", 1, "b", 3, ">", 2]
    assert Splitter([]).split("<s>") == ["<s>"]
    assert Splitter(tokens).split("") == []


def test_tokens_may_take_the_white_space_beside_them() -> None:
    tokens = [
        AddedToken("<l>", 1, control=True, lstrip=True),
        AddedToken("<r>", 2, control=True, rstrip=True),
        AddedToken("the", 3, control=False, single_word=True),
    ]
    split = Splitter(tokens).split
    assert split("a \n<l> b<r> \tc <r>") == ["a", 1, " b", 2, "c ", 2]
    assert split("the other, the_ the") == [3, " other, the_ ", 3]


def test_characters() -> None:
    tokenizer: Tokenizer = CharacterTokenizer("abca🙂 ")
    assert tokenizer.vocab_size == 7
    assert tokenizer.decode(tokenizer.encode("ab 🙂")) == "ab 🙂"
    assert tokenizer.decode([0, 1]) == "<pad><end>"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    with pytest.raises(ValueError, match="got 'x'"):
        tokenizer.encode("axb")
    for index in (-1, 7):
        with pytest.raises(ValueError, match=f"got {index}"):
            tokenizer.decode([index])
    with pytest.raises(ValueError, match="must hold a character"):
        CharacterTokenizer("")


def test_half_an_emoji_is_held_back() -> None:
    tokenizer: ChatTokenizer = family("qwen")
    ids = tokenizer.encode("a🙂b")
    assert len(ids) == 6
    decoder = StreamDecoder(tokenizer)
    assert [decoder.push(i) for i in ids] == ["a", "", "", "", "🙂", "b"]
    assert decoder.finish() == ""
    decoder = StreamDecoder(tokenizer)
    assert [decoder.push(i) for i in ids[:3]] == ["a", "", ""]
    assert decoder.finish() == "\ufffd"


@pytest.mark.parametrize("name", FAMILIES)
def test_any_ids_stream_as_they_decode(name: str) -> None:
    tokenizer = family(name)
    for step in (1, 7, 131):
        ids = [step * i % tokenizer.vocab_size for i in range(300)]
        for skip in (True, False):
            decoder = StreamDecoder(tokenizer, skip_control=skip)
            parts = [decoder.push(index) for index in ids] + [decoder.finish()]
            assert "".join(parts) == tokenizer.decode(ids, skip_control=skip)
