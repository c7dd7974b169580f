import json

import numpy as np

from jaxrl_reason.runs.samples import write_samples

SAMPLES = [
    {
        "prompt": "3 4 5 -> 27",
        "answer": "3 * 4 = 12 no\n3 * (4 + 5)",
        "reward": np.float32(1.0),
        "correct": True,
        "parsed": "3 * (4 + 5)",
        "length": 12,
        "truncated": False,
        "problem_id": 17,
    },
    {
        "prompt": "2 2 -> 9",
        "answer": "```\n# not a heading\n2 + 2 + 2",
        "reward": -0.5,
        "correct": False,
        "parsed": None,
        "length": 64,
        "truncated": True,
    },
]


def test_json_lines_hold_every_field(tmp_path):
    write_samples(tmp_path, 40, SAMPLES)
    lines = (tmp_path / "samples" / "00000040.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows[0] == {"step": 40, **SAMPLES[0], "reward": 1.0}
    assert rows[1]["parsed"] is None


def test_the_page_reads(tmp_path):
    page = write_samples(tmp_path, 40, SAMPLES, label="heldout")
    assert page == tmp_path / "samples" / "00000040-heldout.md"
    text = page.read_text()
    assert text.startswith(
        "# Samples at step 40 (heldout)\n\n2 shown: 1 right, 1 wrong."
    )
    assert "## 1. right, reward 1\n" in text
    assert "**Prompt**\n\n```text\n3 4 5 -> 27\n```" in text
    assert "**Answer** (12 tokens)\n\n```text\n3 * 4 = 12 no\n3 * (4 + 5)\n```" in text
    assert "**Read by the grader**\n\n```text\n3 * (4 + 5)\n```" in text
    assert "- problem_id: 17\n" in text
    assert "## 2. wrong, reward -0.5\n" in text
    assert "**Answer** (64 tokens, stopped by the length limit)" in text
    assert "**Read by the grader:** nothing" in text


def test_an_answer_cannot_leave_its_block(tmp_path):
    text = write_samples(tmp_path, 1, SAMPLES[1:]).read_text()
    assert "````text\n```\n# not a heading\n2 + 2 + 2\n````" in text


def test_missing_fields_are_left_out(tmp_path):
    text = write_samples(tmp_path, 1, [{"answer": "hello"}]).read_text()
    assert text == (
        "# Samples at step 1\n\n1 shown.\n\n---\n\n## 1\n\n"
        "**Answer**\n\n```text\nhello\n```\n"
    )
    assert write_samples(tmp_path, 2, []).read_text() == (
        "# Samples at step 2\n\n0 shown.\n"
    )
