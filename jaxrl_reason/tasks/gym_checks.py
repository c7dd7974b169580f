"""Our grading of reasoning-gym's answers: nothing of a response is run.

The package's own graders evaluate text of the response in several of its tasks. Here an
answer is text, a number, JSON, an expression or a solution that is followed step by
step, by the generator's name.
"""

import ast
import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from jaxrl_reason.grading.countdown_grader import grade as grade_countdown
from jaxrl_reason.grading.final_answer import RIGHT, grade_final_answer, unreadable_gold

Entry = Mapping[str, Any]  # question, answer, metadata
Check = Callable[[str, Entry], bool]

MAX_CHARACTERS = 20_000
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?(/[0-9]+)?")
_HANOI = re.compile(r"Move disk (\d{1,4}) from Peg (\d{1,4}) to Peg (\d{1,4})")
_ROLE = re.compile(r"(\w+) is an? (\w+)")
_MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}

# Their answers are not unique, and nothing here follows them yet.
REFUSED = MappingProxyType(
    dict.fromkeys(
        (
            "boxnet",
            "knight_swap",
            "propositional_logic",
            "rubiks_cube",
            "rush_hour",
            "sokoban",
            "word_ladder",
        ),
        "has several right answers, which no grader here follows",
    )
    | {"composite": "is made of others: name those"}
)
_ALGEBRA = (
    "complex_arithmetic",
    "intermediate_integration",
    "polynomial_equations",
    "polynomial_multiplication",
    "simple_integration",
)


def check_answer(name: str, answer: str, entry: Entry) -> bool:
    """Whether an answer is right.

    Args:
      name: of the generator.
      answer: the text between the answer tags.
      entry: of the generator's dataset.

    Returns:
      The verdict.

    Example:
      >>> check_answer("gcd", " 12 ", {"answer": "12"})
      True
      >>> check_answer("puzzle24", "8*3", {"metadata": {"numbers": [8, 3]}})
      True
    """
    answer = answer.strip()
    if not answer or len(answer) > MAX_CHARACTERS:
        return False
    try:
        return CHECKS.get(name, _same)(answer, entry)
    except (ValueError, TypeError, LookupError, RecursionError, MemoryError):
        return False  # not of the form that the question asks for


def unreadable_entry(name: str, entry: Entry) -> str | None:
    """Why an entry cannot be graded; None if its own answer is right.

    Args:
      name: of the generator.
      entry: of its dataset.
    """
    if name in REFUSED:
        return REFUSED[name]
    gold = entry.get("answer")
    if name == "graph_color":
        return None
    if not isinstance(gold, str) or not gold.strip():
        return "has no answer"
    if name in _ALGEBRA and (reason := unreadable_gold(_as_latex(gold))):
        return reason
    return None if check_answer(name, gold, entry) else "its own answer is not right"


def _same(answer: str, entry: Entry) -> bool:
    """The same text up to white space, the same number, or the same JSON."""
    gold = str(entry["answer"]).strip()
    if answer.split() == gold.split():
        return True
    if _NUMBER.fullmatch(gold):
        return _equal(answer, gold)
    if gold[0] in "[{":
        # True is not 1, 1 is not 1.0: as text, but for spaces and kinds of quotes.
        return repr(_data(answer)) == repr(_data(gold))
    return False


def _algebra(answer: str, entry: Entry) -> bool:
    return _equal(_as_latex(answer), _as_latex(str(entry["answer"])))


def _equal(answer: str, gold: str) -> bool:
    found = grade_final_answer(answer, gold, extract=str, reasoning=False)
    return found.outcome == RIGHT


def _as_latex(text: str) -> str:
    """Python's powers and products as LaTeX writes them."""
    found = re.sub(r"\*\*\(([^()]*)\)", r"^{\1}", text)
    return found.replace("**", "^").replace("*", " ")


def _data(text: str) -> Any:
    """JSON, or a literal of Python."""
    try:
        return json.loads(text)
    except ValueError:
        return ast.literal_eval(text)


def _list_of(text: str, kind: type) -> list[Any]:
    found = _data(text)
    if not isinstance(found, list) or not all(isinstance(x, kind) for x in found):
        raise ValueError("not a list")
    return found


def _countdown(answer: str, entry: Entry) -> bool:
    numbers = tuple(entry["metadata"]["numbers"])
    target = entry["metadata"].get("target", 24)
    return grade_countdown(f"<answer>{answer}</answer>", numbers, target).correct


def _palindrome(answer: str, entry: Entry) -> bool:
    said = answer.lower()
    return said == said[::-1] and sorted(said) == sorted(entry["metadata"]["letters"])


def _groups(answer: str, entry: Entry) -> bool:
    """Lists in any order, their members in any order."""
    said = [sorted(map(str, group)) for group in _list_of(answer, list)]
    return sorted(said) == sorted(sorted(x) for x in entry["metadata"]["solution"])


def _partitions(answer: str, entry: Entry) -> bool:
    """Lists in any order, their members in order."""
    return sorted(_list_of(answer, list)) == sorted(entry["metadata"]["solution"])


def _roles(answer: str, entry: Entry) -> bool:
    """The same role for everybody, in any order.

    The question asks for "is a angel", and the entry's own answer says "is an angel".
    """
    return _read_roles(answer) == _read_roles(str(entry["answer"]))


def _read_roles(text: str) -> dict[str, str]:
    said = re.split(r",\s*and\s|,|\sand\s", text.strip().rstrip("."))
    found = [_ROLE.fullmatch(part.strip()) for part in said]
    roles = {match[1]: match[2] for match in found if match}
    if len(roles) != len(found):
        raise ValueError("a part is not a role, or somebody has two")
    return roles


def _queens(answer: str, entry: Entry) -> bool:
    lines = [" ".join(line.split()) for line in answer.split("\n")]
    return "\n".join(lines) in entry["metadata"]["valid_answers"]


def _coloring(answer: str, entry: Entry) -> bool:
    puzzle, said = entry["metadata"]["puzzle"], json.loads(answer)
    colors = {str(vertex): said[str(vertex)] for vertex in puzzle["vertices"]}
    allowed = set(puzzle["color_options"])
    return (
        len(said) == len(colors)
        and all(type(color) is int and color in allowed for color in colors.values())
        and all(colors[str(a)] != colors[str(b)] for a, b in puzzle["edges"])
    )


def _path(answer: str, entry: Entry) -> bool:
    """A path as short as the known one."""
    moves, known = answer.split(), str(entry["answer"]).split()
    if "infeasible" in (*moves, *known):
        return moves == known
    grid = entry["metadata"]["matrix"]
    (at,) = [
        (r, c) for r, row in enumerate(grid) for c, x in enumerate(row) if x == "*"
    ]
    for move in moves:
        at = at[0] + _MOVES[move][0], at[1] + _MOVES[move][1]
        if min(at) < 0 or grid[at[0]][at[1]] == "X":
            return False
    return grid[at[0]][at[1]] == "#" and len(moves) == len(known)


def _hanoi(answer: str, entry: Entry) -> bool:
    """Legal moves to the target, as few as possible."""
    puzzle = entry["metadata"]
    disks = list(range(puzzle["num_disks"], 0, -1))
    pegs: dict[int, list[int]] = {p: [] for p in range(1, puzzle["num_pegs"] + 1)}
    pegs[puzzle["start_peg"]] = list(disks)
    lines = [line.strip() for line in answer.split("\n") if line.strip()]
    for line in lines:
        found = _HANOI.fullmatch(line)
        if found is None:
            return False
        disk, start, end = map(int, found.groups())
        if pegs[start][-1] != disk or (pegs[end] and pegs[end][-1] < disk):
            return False
        pegs[end].append(pegs[start].pop())
    few = len(lines) <= puzzle["solution_length"]
    return pegs[puzzle["target_peg"]] == disks and few


def _jugs(answer: str, entry: Entry) -> bool:
    puzzle = entry["metadata"]["puzzle"]
    sizes = puzzle["jug_capacities"]
    held = [0] * len(sizes)
    for move in _list_of(answer, str):
        kind, _, jugs = move.partition(" ")
        first, *others = [ord(jug) - ord("A") for jug in jugs.split("->")]
        if not {first, *others} <= set(range(len(held))):
            return False
        if kind == "pour" and len(others) == 1 and others[0] != first:
            poured = min(held[first], sizes[others[0]] - held[others[0]])
            held[first] -= poured
            held[others[0]] += poured
        elif kind in ("fill", "empty") and not others:
            held[first] = sizes[first] if kind == "fill" else 0
        else:
            return False
    return puzzle["target"] in held


def _lock(answer: str, entry: Entry) -> bool:
    """Buttons that reach the target, as few as the known ones."""
    puzzle = entry["metadata"]
    buttons = {button["name"]: button for button in puzzle["buttons"]}
    said = [x.strip() for x in re.split("→|->", answer)]
    value, state = puzzle["initial_value"], puzzle["initial_state"]
    for name in said:
        button = buttons[name]
        if button["active_state"] in ("any", state):
            number = button["value"]
            changed = {
                "add": value + number,
                "subtract": value - number,
                "multiply": value * number,
            }
            value = changed[button["type"]]
        state = "green" if state == "red" else "red"
    return value == puzzle["target_value"] and len(said) == len(puzzle["solution_path"])


def _letters(answer: str, entry: Entry) -> bool:
    """Digits for letters with which the sum is right."""
    puzzle = entry["metadata"]
    pairs = [part.split("=") for part in answer.split(",")]
    digits = {letter.strip(): int(digit) for letter, digit in pairs}
    words = [*puzzle["words_letters"], puzzle["result_letters"]]
    if set(digits) != set("".join(map("".join, words))) or len(pairs) != len(digits):
        return False
    used = set(digits.values())
    fair = len(used) == len(digits) and used <= set(range(10))
    zero = not puzzle.get("allow_leading_zero") and any(
        digits[word[0]] == 0 for word in words
    )
    values = [int("".join(str(digits[letter]) for letter in word)) for word in words]
    return fair and not zero and sum(values[:-1]) == values[-1]


def _kakurasu(answer: str, entry: Entry) -> bool:
    puzzle = entry["metadata"]
    grid = [[int(cell) for cell in line.split()] for line in answer.split("\n")]
    shape = {len(row) for row in grid} == {puzzle["n_cols"]}
    cells = {cell for row in grid for cell in row}
    if not shape or len(grid) != puzzle["n_rows"] or cells - {0, 1}:
        return False
    rows = [sum(j * x for j, x in enumerate(row, 1)) for row in grid]
    columns = [
        sum(i * x for i, x in enumerate(col, 1)) for col in zip(*grid, strict=True)
    ]
    return rows == puzzle["row_sums"] and columns == puzzle["col_sums"]


CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        **dict.fromkeys(_ALGEBRA, _algebra),
        "countdown": _countdown,
        "cryptarithm": _letters,
        "graph_color": _coloring,
        "group_anagrams": _groups,
        "jugs": _jugs,
        "kakurasu": _kakurasu,
        "knights_knaves": _roles,
        "n_queens": _queens,
        "palindrome_generation": _palindrome,
        "palindrome_partitioning": _partitions,
        "puzzle24": _countdown,
        "quantum_lock": _lock,
        "shortest_path": _path,
        "tower_of_hanoi": _hanoi,
    }
)
