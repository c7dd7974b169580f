r"""Rewards of published systems, in the form in which you would write your own.

Each is `f(prompt, response, row, **context)`, reads text and numbers only, and is given
on the command line as `jaxrl_reason.grading.reward_examples:NAME[:WEIGHT]`. The same
rewards for arrays of lengths and tokens are in `jaxrl_reason.losses`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from jaxrl_reason.grading.code_grader import find_program, grade_program
from jaxrl_reason.grading.code_tests import assert_tests
from jaxrl_reason.grading.logic_reward import grade_roles
from jaxrl_reason.grading.sandbox import Sandbox, open_sandbox

# TRL and open-r1 match with DOTALL: text of any kind between the tags.
_R1 = re.compile(r"<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>", re.DOTALL)
_R1_TAGS = ("<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>")
_AUDIO_TAGS = ("PLANNING", "CAPTION", "REASONING", "SUMMARY")


def cosine_length(
    prompt: str,
    response: str,
    row: Mapping[str, Any],
    *,
    tokens: int,
    max_tokens: int,
    correct: bool,
) -> float:
    """Half a cosine of the length: short right answers, long wrong ones.

    arXiv 2502.03373, section 4.2, with the values of its code: 2 to 1 for a right
    answer, -10 to 0 for a wrong one, -10 from 16 tokens before the limit on.

    Args:
      prompt: not read.
      response: not read.
      row: not read.
      tokens: of the response.
      max_tokens: the limit.
      correct: whether the answer is right; give the reward `answer` too.

    Returns:
      The reward.

    Example:
      >>> cosine_length("", "", {}, tokens=500, max_tokens=1000, correct=True)
      1.5
    """
    if tokens + 16 >= max_tokens:
        return -10.0
    short, long = (2.0, 1.0) if correct else (-10.0, 0.0)
    shortness = math.sin(0.5 * math.pi * (1 - tokens / max_tokens)) ** 2
    return round(long + (short - long) * shortness, 12)


def kimi_length(
    prompt: str,
    responses: Sequence[str],
    row: Mapping[str, Any],
    *,
    tokens: Sequence[int],
    correct: Sequence[bool],
) -> list[float]:
    """Rewards right answers that are shorter than others to the same prompt.

    1/2 - (n - min n) / (max n - min n), at most 0 for a wrong answer; 0 if all are as
    long. Kimi k1.5, arXiv 2501.12599, section 2.3.3. Its weight is not published.

    Args:
      prompt: not read.
      responses: to the prompt.
      row: not read.
      tokens: of each response.
      correct: whether each is right.

    Returns:
      One reward for each response.

    Example:
      >>> kimi_length("", ["", ""], {}, tokens=[100, 300], correct=[True, False])
      [0.5, -0.5]
    """
    low, high = min(tokens), max(tokens)
    if low == high:
        return [0.0] * len(tokens)
    places = [0.5 - (n - low) / (high - low) for n in tokens]
    return [
        x if right else min(0.0, x) for x, right in zip(places, correct, strict=True)
    ]


def repetition(
    prompt: str, response: str, row: Mapping[str, Any], *, n: int = 3
) -> float:
    """Minus the fraction of the n-grams of words that occurred before.

    arXiv 2502.03373 and open-r1, which splits at white space as this does. n = 3 and a
    penalty of up to 1 are our choice; arithmetic repeats short n-grams legitimately.

    Args:
      prompt: not read.
      response: the text.
      row: not read.
      n: words of an n-gram.

    Returns:
      From -1 to 0.

    Example:
      >>> repetition("", "a b a b a", {}, n=2)
      -0.5
    """
    words = response.split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) - 1 if grams else 0.0


def r1_format(prompt: str, response: str, row: Mapping[str, Any]) -> float:
    r"""1 for reasoning and an answer, each in its tags, on lines of their own.

    `<think>\n...\n</think>\n<answer>\n...\n</answer>` and nothing else, as open-r1's
    format reward, but with each tag once. DeepSeek-R1, arXiv 2501.12948, publishes no
    value.

    Args:
      prompt: not read.
      response: the text.
      row: not read.

    Returns:
      1 or 0.

    Example:
      >>> r1_format("", "<think>\n3 + 4\n</think>\n<answer>\n7\n</answer>", {})
      1.0
    """
    once = all(response.count(tag.strip()) == 1 for tag in _R1_TAGS)
    return float(once and _R1.fullmatch(response) is not None)


def r1_tags(prompt: str, response: str, row: Mapping[str, Any]) -> float:
    r"""A quarter for each of the four tags that occurs exactly once on its line.

    open-r1's `tag_count_reward`.

    Args:
      prompt: not read.
      response: the text.
      row: not read.

    Returns:
      0, 0.25, 0.5, 0.75 or 1.

    Example:
      >>> r1_tags("", "<think>\n3 + 4\n</think>\nso 7", {})
      0.5
    """
    return 0.25 * sum(response.count(tag) == 1 for tag in _R1_TAGS)


def logic_rl(prompt: str, response: str, row: Mapping[str, Any]) -> dict[str, float]:
    """Logic-RL's format and answer for Knights and Knaves, as two parts.

    1 or -1 for the format; 2 for the right roles, -1.5 for wrong ones, -2 if they
    cannot be read. arXiv 2502.14768, section 2.2.

    Args:
      prompt: ends with `<think>`.
      response: the text.
      row: has `roles`, a name -> "knight" or "knave".

    Returns:
      The parts `format` and `roles`.

    Example:
      >>> logic_rl("", "no tags", {"roles": {"Zoe": "knight"}})
      {'format': -1.0, 'roles': -2.0, 'correct': False}
    """
    grade = grade_roles(response, row["roles"])
    tags = 1.0 if grade.format_ok else -1.0
    return {"format": tags, "roles": grade.reward - tags, "correct": grade.correct}


def plan_caption_reason_summary(
    prompt: str, response: str, row: Mapping[str, Any]
) -> float:
    """1 for Audio-Reasoner's four parts of thinking in their order, then a response.

    `<THINK> <PLANNING>..</PLANNING> <CAPTION>..</CAPTION> <REASONING>..</REASONING>
    <SUMMARY>..</SUMMARY> </THINK> <RESPONSE>..</RESPONSE>`, each tag once, no part
    empty, and only white space between them. The structure is that of arXiv 2503.02318,
    which fine-tunes on it: a value as a reward is not published, nor are its tags as
    text; the words are ours.

    Args:
      prompt: not read.
      response: the text.
      row: not read.

    Returns:
      1 or 0.

    Example:
      >>> plan_caption_reason_summary("", "<THINK>a song</THINK>", {})
      0.0
    """
    tags = ("THINK", *_AUDIO_TAGS, "RESPONSE")
    if any(
        response.count(f"<{tag}>") != 1 or response.count(f"</{tag}>") != 1
        for tag in tags
    ):
        return 0.0
    inside = _inside(response, "THINK", ("THINK", "RESPONSE"))
    if inside is None or _inside(response, "RESPONSE", ("THINK", "RESPONSE")) is None:
        return 0.0
    return float(all(_inside(inside, tag, _AUDIO_TAGS) for tag in _AUDIO_TAGS))


def _inside(text: str, tag: str, order: Sequence[str]) -> str | None:
    """What a tag of a sequence of tags holds; None if other text is between them."""
    places = [(text.find(f"<{x}>"), text.find(f"</{x}>")) for x in order]
    ends = [0]
    for x, (start, stop) in zip(order, places, strict=True):
        if not ends[-1] <= start < stop or text[ends[-1] : start].strip():
            return None
        ends.append(stop + len(x) + 3)
    if text[ends[-1] :].strip():
        return None
    start, stop = places[order.index(tag)]
    return text[start + len(tag) + 2 : stop].strip() or None


def adaptive_length(
    prompt: str,
    responses: Sequence[str],
    row: Mapping[str, Any],
    *,
    tokens: Sequence[int],
    max_tokens: int,
    correct: Sequence[bool],
) -> list[float]:
    """A length penalty for right answers that is small for hard questions.

    -d n / L with d = the fraction of the group that is right, or 1 - `difficulty` of
    the row (0 easy, 1 hard). Skywork-R1V, arXiv 2504.05599, lets the length of a chain
    depend on how hard its item is, when it distils them; it gives no reward for RL.
    Form and scale are ours.

    Args:
      prompt: not read.
      responses: to the prompt.
      row: may have `difficulty`.
      tokens: of each response.
      max_tokens: the limit.
      correct: whether each is right.

    Returns:
      From -1 to 0; 0 for wrong answers.

    Example:
      >>> context = {"tokens": [50, 100], "max_tokens": 100, "correct": [True, True]}
      >>> adaptive_length("", ["", ""], {"difficulty": 0.5}, **context)
      [-0.25, -0.5]
    """
    solved = sum(correct) / len(correct)
    easy = 1 - float(row["difficulty"]) if "difficulty" in row else solved
    return [
        -easy * n / max_tokens if right else 0.0
        for n, right in zip(tokens, correct, strict=True)
    ]


def tests_by_difficulty(prompt: str, response: str, row: Mapping[str, Any]) -> float:
    """MiMo's reward for a program: hard unit tests are worth more.

    The program runs in a sandbox (docs/code.md); `difficulty_weights` counts.

    Args:
      prompt: not read.
      response: with a program.
      row: has `tests`, a list of asserts, and `levels`, 0 the easiest, of each.

    Returns:
      From 0 to 1.
    """
    tests = assert_tests(row["tests"])
    found = grade_program(_sandbox(), find_program(response), tests, partial=True)
    return difficulty_weights(found.passed, row["levels"])


@lru_cache(maxsize=1)
def _sandbox() -> Sandbox:
    return open_sandbox()


def difficulty_weights(
    passed: Sequence[bool],
    levels: Sequence[int],
    *,
    scores: Sequence[float] = (0.2, 0.3, 0.5),
    soft: bool = False,
) -> float:
    """MiMo's reward for the tests that a program passes, by their difficulty.

    Level l is worth scores[l]: strict, if all its tests and those of easier levels
    pass; soft, in proportion. arXiv 2505.07608. The scores of the paper are not
    published; these are ours.

    Args:
      passed: of each test.
      levels: of each test, 0 the easiest.
      scores: of each level, sum 1.
      soft: whether to use the soft form.

    Returns:
      From 0 to 1.

    Example:
      >>> passed, levels = [1, 1, 1, 0, 1, 1], [0, 0, 1, 1, 2, 2]
      >>> difficulty_weights(passed, levels)
      0.2
      >>> round(difficulty_weights(passed, levels, soft=True), 4)
      0.85
    """
    if not math.isclose(sum(scores), 1.0, abs_tol=1e-6) or min(scores) < 0:
        raise ValueError(f"scores must be >= 0 and sum to 1, got {tuple(scores)!r}")
    total, whole = 0.0, True
    for level, score in enumerate(scores):
        own = [bool(p) for p, at in zip(passed, levels, strict=True) if at == level]
        if not own:
            continue
        whole = whole and all(own)
        total += score * (sum(own) / len(own) if soft else whole)
    return total
