"""Cleans a million made-up rows and says how long it took and how much memory.

    python experiments/benchmarks/clean_million.py --rows 1000000 --folder runs/million

Makes the rows once (questions of 20 to 120 words with numbers and LaTeX, answers that
are numbers and LaTeX; a tenth are copies, a twentieth near copies, some are broken,
some hold a benchmark's question), runs `jaxrl-reason data clean` twice into new
folders, and compares every byte of the results. The second run is killed on the way and
started again.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from jaxrl_reason.runs.files import file_sha256, list_files

FIRST = "ba be bi bo ca ce co da de di fa fe ga ha he ka la le li ma"
LAST = "ck ddle ll mp nd nner rd rst sket st ter tch ver wn xes zz"
WORDS = [
    first + last
    for first in re.findall(r"\w+", FIRST)
    for last in re.findall(r"\w+", LAST)
]
SUMS = (
    r"Evaluate $\int_0^{{{a}}} \frac{{x}}{{{b}+x^2}}\,dx$ for the {w}.",
    "If {w} has {a} {v} and gives {b} to each {w}, how many {v} are left?",
    r"Let $f(x) = {a}x^2 - {b}x$. Find the sum of all $x$ such that $f(x) = 0$.",
    "A {w} runs {a} miles in {b} hours. How far does it run in {c} hours?",
)


def question(rng: random.Random) -> str:
    """A question that no other row has."""
    numbers = {name: rng.randint(2, 9999) for name in "abc"}
    words = [rng.choice(WORDS) for _ in range(rng.randint(12, 100))]
    asked = rng.choice(SUMS).format(**numbers, w=words[0], v=words[1])
    return " ".join(words).capitalize() + ". " + asked


def answer(rng: random.Random) -> str:
    """A number, and of every fourth row LaTeX."""
    a, b = rng.randint(1, 99_999), rng.randint(2, 999)
    forms = (f"{a}", f"{a}", f"{a}.5", rf"\frac{{{a}}}{{{b}}}", rf"{a}\sqrt{{{b}}}")
    return rng.choice(forms)


def write_rows(path: Path, rows: int, benchmark: list[str]) -> None:
    """Writes the raw set."""
    rng = random.Random(0)
    held: list[dict[str, str]] = []
    unfinished = path.with_suffix(".tmp")
    with open(unfinished, "w", encoding="utf-8") as file:
        for i in range(rows):
            kind = rng.random()
            row = {
                "question": question(rng),
                "answer": answer(rng),
                "source": f"{i % 7}",
            }
            if held and kind < 0.1:
                row = dict(rng.choice(held))
            elif held and kind < 0.15:
                row = dict(rng.choice(held))
                words = row["question"].split()
                words[rng.randrange(len(words))] = rng.choice(WORDS)
                row["question"] = " ".join(words)
            elif kind < 0.155:
                row["question"] = f"Answer this. {rng.choice(benchmark).upper()}"
            elif kind < 0.16:
                row["question"] += f" See https://example.org/{i}."
            elif kind < 0.165:
                row["answer"] = "(1, 2"
            text = json.dumps(row)
            file.write((text[:-9] if 0.165 <= kind < 0.17 else text) + "\n")
            if len(held) < 100_000:
                held.append(row)
            else:
                held[rng.randrange(100_000)] = row
    unfinished.replace(path)


def command(raw: Path, against: Path, out: Path) -> list[str]:
    """The command that is measured."""
    run = [sys.executable, "-m", "jaxrl_reason", "data", "clean", str(raw)]
    return [*run, "--against", str(against), "--out", str(out)]


def largest_memory(process: "subprocess.Popen[bytes]") -> float:
    """Waits for a process; the most memory of it and its children at once, in GB.

    Memory that several of them share is counted once (PSS).
    """
    largest = 0.0
    while process.poll() is None:
        total = 0
        for pid in [process.pid, *children(process.pid)]:
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8")
            except OSError:
                continue
            total += int(text.split("Pss:")[1].split()[0])
        largest = max(largest, total / 1e6)
        time.sleep(0.5)
    return largest


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8")
    except OSError:
        return []
    return [int(child) for child in text.split()]


def main() -> None:
    """Runs the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("runs/million"))
    given = parser.parse_args()
    folder: Path = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    raw, against = folder / f"raw-{given.rows}.jsonl", folder / "benchmark.jsonl"
    rng = random.Random(1)
    benchmark = [question(rng) for _ in range(5000)]
    against.write_text(
        "".join(json.dumps({"problem": text}) + "\n" for text in benchmark), "utf-8"
    )
    if not raw.exists():
        write_rows(raw, given.rows, benchmark)
    print(f"raw: {raw.stat().st_size / 1e6:.0f} MB", flush=True)
    outs = [folder / "first", folder / "second"]
    for out in outs:
        shutil.rmtree(out, ignore_errors=True)
    began = time.monotonic()
    before = os.times()
    process = subprocess.Popen(command(raw, against, outs[0]))
    memory = largest_memory(process)
    seconds, after = time.monotonic() - began, os.times()
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    print(f"{seconds:.0f} s, {used:.0f} s of processors, {memory:.2f} GB", flush=True)
    process = subprocess.Popen(command(raw, against, outs[1]))
    time.sleep(seconds / 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    print("killed and started again", flush=True)
    subprocess.run(command(raw, against, outs[1]), check=True)
    digests = [
        {name: file_sha256(out / name) for name in list_files(out)} for out in outs
    ]
    for found in digests:
        found.pop(".lock", None)
    same = digests[0] == digests[1]
    print(f"{len(digests[0])} files, the same bytes: {same}")
    raise SystemExit(not (process.returncode == -signal.SIGKILL and same))


if __name__ == "__main__":
    main()
