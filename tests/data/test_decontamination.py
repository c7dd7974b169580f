"""Benchmark questions in prompts: found reworded, and no phrase flagged."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from jaxrl_reason.data.comparison_text import (
    TokenHasher,
    comparison_tokens,
    hashed_ngrams,
    text_key,
)
from jaxrl_reason.data.decontamination import BenchmarkIndex, contaminated
from jaxrl_reason.data.hygiene import word_ngrams

pytestmark = pytest.mark.fast

INTEGRAL = r"Evaluate $\int_0^1 \frac{x}{1+x^2}\,dx$."
BENCHMARK = [
    INTEGRAL,
    "What is 2 + 3?",
    "A shop sells 1,250 pears, and then 300 more. How many pears does it sell in all?",
    "Let $m$ and $n$ be relatively prime positive integers such that "
    r"$\frac{m}{n} = \sum_{k=1}^{9} \frac{k}{2^k}$. Find $m+n$.",
]
FOUND = [
    ("a short one inside a prompt", "You are a tutor. What is 2+3? Think first."),
    ("LaTeX spacing", r"Evaluate \(\int_{0}^{1}\dfrac{x}{1+x^{2}} \, dx\) now."),
    ("LaTeX layout", r"evaluate $\displaystyle\int\limits_0^1\frac x{1+x^2}\;dx$"),
    ("a comma left out", BENCHMARK[2].replace(",", "")),
    ("commas in other places", BENCHMARK[2].replace("pears, and", "pears and,")),
    ("case and line breaks", BENCHMARK[2].upper().replace(" ", "\n ")),
    ("other names", BENCHMARK[2].replace("A shop", "Mr Lee's stand", 1)),
    ("another number", BENCHMARK[2].replace("300", "450")),
    ("text around it", f"Question: {BENCHMARK[3]}\nAnswer in a box. Good luck to you."),
]
PHRASES = [
    r"If $\frac{m}{n}$ is $0.24$, where m and n are relatively prime positive integers,"
    r" find $m+n$.",
    "What is 2 + 35?",
    "What is 12 + 3?",
    "A shop sells apples, and then more. How many apples are left?",
    r"Evaluate $\int_0^2 \frac{\sin x}{3+x^5}\,dx$.",
    "",
]


def old_rule(prompts: list[str], benchmark: list[str], n: int = 8) -> list[bool]:
    """One shared n-gram of words split at white space."""
    known = set().union(*(word_ngrams(text, n) for text in benchmark))
    known |= {" ".join(text.lower().split()) for text in benchmark}
    return [
        bool(word_ngrams(text, n) & known) or " ".join(text.lower().split()) in known
        for text in prompts
    ]


@pytest.mark.parametrize(("what", "prompt"), FOUND)
def test_a_reworded_question_is_found(what: str, prompt: str) -> None:
    assert contaminated([prompt], BENCHMARK) == [True], what


def test_phrases_are_not_flagged() -> None:
    assert contaminated(PHRASES, BENCHMARK) == [False] * len(PHRASES)


def test_the_rule_of_one_shared_ngram_fails_on_these() -> None:
    assert not all(old_rule([prompt for _, prompt in FOUND], BENCHMARK))
    phrase = "where m and n are relatively prime positive integers find m+n"
    assert old_rule([f"The rest differs {phrase}"], [f"Some sum {phrase}"]) == [True]
    assert contaminated([PHRASES[0]], BENCHMARK, n=4, coverage=0) == [True]


def test_the_match_names_the_question() -> None:
    index = BenchmarkIndex(BENCHMARK)
    matches = index.matches([BENCHMARK[2], "x", BENCHMARK[1], BENCHMARK[3]])
    assert [m and (m.item, m.coverage) for m in matches] == [
        (2, 1.0),
        None,
        (1, 1.0),
        (3, 1.0),
    ]
    assert BenchmarkIndex([]).matches(["a b"]) == [None]


def test_a_phrase_of_many_questions_tells_nothing() -> None:
    phrase = "express your answer as a common fraction in lowest terms"
    benchmark = [f"Question {i} about thing {i * 7}, {phrase}." for i in range(90)]
    assert contaminated([f"What is 3/4 of 5/6, {phrase}?"], benchmark) == [False]
    assert contaminated([benchmark[50]], benchmark) == [True]
    repeated = "word " * 5000
    assert contaminated([repeated, repeated + "word"], [repeated]) == [True, False]


def test_texts_without_spaces_between_words() -> None:
    text = "甲乙两人同时从两地出发相向而行,甲每小时行5千米。"
    assert contaminated([f"请回答:{text}", "甲乙两人"], [text]) == [True, False]


def test_tokens_and_their_hashes() -> None:
    assert comparison_tokens(r"\(1,234{,}567\) ≤ ５") == ["1234567", "5"]
    plain = comparison_tokens("frac a b x")
    assert comparison_tokens(r"$\displaystyle\left(\dfrac{a}{b}\right)\!x$") == plain
    assert comparison_tokens("f(1,2)") == ["f", "1", "2"]
    tokens = TokenHasher()([["a", "b", "c"], [], ["b", "c"]])
    grams = hashed_ngrams(tokens, 2)
    assert grams.starts.tolist() == [0, 2, 2, 3]
    assert grams.hashes[1] == grams.hashes[2] != grams.hashes[0]
    # The same in every process: files hold them.
    assert int(tokens.hashes[0]) == 0x2F42665B399EF840
    assert text_key(["ab"]) != text_key(["a", "b"])


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"n": 0}, "n must be >= 1, got 0"),
        ({"coverage": 1.5}, r"coverage must be in \[0, 1\], got 1.5"),
    ],
)
def test_refusals(kwargs: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BenchmarkIndex([], **kwargs)


def reworded(text: str) -> str:
    """As other sets print it: other spacing, punctuation, case and name."""
    text = re.sub(r"\$", r"\\(", text).replace(r"\frac", r"\dfrac").replace(",", " ")
    text = re.sub(r"([+=<>])", r" \1 ", text).replace(r"\left", "").replace("?", " ?")
    return f"Solve this problem. {text.capitalize()}\nPut the answer in \\boxed{{}}."


def test_precision_and_recall_on_real_sets(shared_file: Callable[[str], Path]) -> None:
    def texts(name: str, field: str) -> list[str]:
        lines = shared_file(f"data/{name}.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line)[field] for line in lines]

    sets = {
        name: texts(f"math_eval/{name}", "problem")
        for name in ("math500", "aime24", "amc23")
    }
    sets["gsm8k"] = texts("gsm8k/test", "question")
    indices = {name: BenchmarkIndex(found) for name, found in sets.items()}
    for name, found in sets.items():
        matches = indices[name].matches([reworded(text) for text in found])
        assert sum(m is not None for m in matches) >= 0.99 * len(found), name
        for other in sets:
            if other != name:
                assert not any(indices[other].matches(found)), (name, other)
    train = texts("gsm8k/train", "question")
    flagged = sum(m is not None for m in indices["gsm8k"].matches(train))
    assert flagged == 4  # a test question's story with other names and numbers
    kinds = texts("gsm_plus/testmini", "perturbation_type")
    variants = texts("gsm_plus/testmini", "question")
    right: dict[str, list[bool]] = {}
    for kind, match in zip(kinds, indices["gsm8k"].matches(variants), strict=True):
        right.setdefault(kind, []).append(match is not None)
    recall = {kind: sum(found) / len(found) for kind, found in right.items()}
    told_anew = recall.pop("problem understanding")
    turned_round = recall.pop("reversing operation")
    assert min(recall.values()) > 0.9
    assert turned_round > 0.7
    assert told_anew < 0.05  # as documented: n-grams do not see it
