"""Near duplicates by MinHash and by embeddings, against all pairs."""

import numpy as np
import pytest

from jaxrl_reason.data import embedding_duplicates as embedding_module
from jaxrl_reason.data.comparison_text import (
    TokenHasher,
    comparison_tokens,
    hashed_ngrams,
)
from jaxrl_reason.data.embedding_duplicates import embedding_duplicates
from jaxrl_reason.data.near_duplicates import (
    band_keys,
    jaccard,
    minhash,
    near_duplicates,
)

pytestmark = pytest.mark.fast
WORDS = [f"w{i}" for i in range(500)]


def texts_with_copies(rng: np.random.Generator) -> tuple[list[str], dict[int, int]]:
    """400 texts of 40 words; of every fourth a copy with one word changed follows."""
    texts, copies = [], {}
    for i in range(400):
        words = rng.choice(WORDS, 40).tolist()
        texts.append(" ".join(words))
        if i % 4 == 0:
            words[int(rng.integers(40))] = "other"
            copies[len(texts)] = len(texts) - 1
            texts.append(" ".join(words))
    return texts, copies


def grams_of(texts: list[str], n: int = 3):
    return hashed_ngrams(TokenHasher()(map(comparison_tokens, texts)), n)


def found_in(texts: list[str], threshold: float) -> dict[int, int]:
    grams = grams_of(texts)
    each = [
        grams.hashes[a:b]
        for a, b in zip(grams.starts[:-1], grams.starts[1:], strict=True)
    ]
    return near_duplicates(
        band_keys(minhash(grams)),
        lambda later, first: jaccard(each[later], each[first]) >= threshold,
    )


def test_copies_with_a_word_changed_are_found_and_nothing_else() -> None:
    texts, copies = texts_with_copies(np.random.default_rng(0))
    assert found_in(texts, 0.7) == copies
    assert found_in(texts, 0.99) == {}


def test_signatures_estimate_jaccard() -> None:
    rng = np.random.default_rng(1)
    errors = []
    for _ in range(40):
        words = rng.choice(WORDS, 60).tolist()
        changed = [w if rng.random() < 0.9 else "x" for w in words]
        grams = grams_of([" ".join(words), " ".join(changed)])
        a, b = minhash(grams)
        middle = int(grams.starts[1])
        exact = jaccard(grams.hashes[:middle], grams.hashes[middle:])
        errors.append(float(np.mean(a == b)) - exact)
    # Its standard deviation is at most sqrt(1 / 4 / 100) = 0.05.
    assert abs(np.mean(errors)) < 0.03
    assert np.std(errors) < 0.08


def test_the_first_is_kept_and_a_dropped_text_drops_no_other() -> None:
    keys = np.array([[1], [1], [1]], np.uint64)
    chain = {(1, 0), (2, 1)}  # each is like the one before, the last not like the first
    assert near_duplicates(keys, lambda a, b: (a, b) in chain) == {1: 0}


def test_texts_without_ngrams_share_a_bucket_but_are_not_alike() -> None:
    assert found_in(["one", "two", ""], 0.5) == {}


def test_thousands_of_texts_that_share_a_phrase_take_little_time() -> None:
    keys = np.ones((5000, 20), np.uint64)
    calls = 0

    def similar(later: int, first: int) -> bool:
        nonlocal calls
        calls += 1
        return False

    assert near_duplicates(keys, similar) == {}
    assert calls <= 5000 * 32


@pytest.mark.parametrize("block", [4096, 64])
def test_embeddings_against_all_pairs(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_module, "_BLOCK", block)
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(300, 3)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    kept: list[int] = []
    expected = {}
    for i in range(300):
        near = [j for j in kept if unit[i] @ unit[j] >= 0.97]
        if near:
            expected[i] = near[0]
        else:
            kept.append(i)
    assert embedding_duplicates(vectors, 0.97) == expected
    assert len(expected) > 50


@pytest.mark.parametrize(
    ("vectors", "threshold", "said"),
    [
        ([[1.0]], 0.0, r"threshold must be in \(0, 1\], got 0"),
        ([[1.0], [0.0]], 0.9, "got 0.0 as the length of row 1"),
        ([[float("nan")]], 0.9, "got nan as the length of row 0"),
    ],
)
def test_refusals(vectors: list, threshold: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        embedding_duplicates(np.array(vectors), threshold)
