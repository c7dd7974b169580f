"""reasoning-gym: our graders on its answers, its generators where it is installed."""

import json
from dataclasses import replace
from typing import Any

import pytest

from jaxrl_reason.tasks.gym_checks import check_answer
from jaxrl_reason.tasks.gym_task import (
    GymQuestion,
    GymSettings,
    gym_questions,
    reasoning_gym,
)
from jaxrl_reason.tasks.questions import ungradable
from tests.tasks.test_questions import Bytes

GRID = [["*", "O", "O"], ["X", "X", "O"], ["O", "O", "#"]]
LOCK = {
    "buttons": [
        {"name": "A", "type": "subtract", "value": 2, "active_state": "green"},
        {"name": "B", "type": "add", "value": 2, "active_state": "any"},
        {"name": "C", "type": "add", "value": 2, "active_state": "red"},
    ],
    **{"initial_state": "red", "initial_value": 0, "target_value": 4},
    "solution_path": ["B", "B"],
}
COLORS = {"vertices": [0, 1, 2], "edges": [(0, 1)], "color_options": [1, 2]}
HANOI = {
    **{"num_disks": 2, "num_pegs": 3, "start_peg": 1, "target_peg": 3},
    "solution_length": 3,
}
MOVES = [
    "Move disk 1 from Peg 1 to Peg 2",
    "Move disk 2 from Peg 1 to Peg 3",
    "Move disk 1 from Peg 2 to Peg 3",
]
CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("gcd", {"answer": "12"}, ["12", " 12.0 "], ["13", "6*2", "__import__('os')"]),
    ("syllogism", {"answer": "Yes"}, ["Yes"], ["yes no", "No", "Yes."]),
    ("caesar_cipher", {"answer": "A  B"}, ["A B", "A\nB"], ["AB", "a b"]),
    ("rotate_matrix", {"answer": "1 2\n3 4"}, ["1 2\n3 4 "], ["1 2\n4 3"]),
    ("list_functions", {"answer": "[1, 2]"}, ["[1,2]"], ["[2, 1]", "[1.0, 2]", "1, 2"]),
    ("number_sorting", {"answer": "['1', '2']"}, ['["1","2"]'], ["[1, 2]", "[" * 9999]),
    (
        "polynomial_multiplication",
        {"answer": "-2*x**3 + 4*x"},
        ["4*x - 2*x**3", "2*x*(2 - x**2)"],
        ["-2*x**3 + 4", "exec('1')", "4*x"],
    ),
    ("simple_integration", {"answer": "x**2/2 + C"}, ["0.5*x**2 + C"], ["x**2/2"]),
    (
        "countdown",
        {"metadata": {"numbers": [2, 3, 4], "target": 14}},
        ["2 + 3*4", "(4*3)+2"],
        ["14", "2+12", "2+3*4+0", "2**3"],
    ),
    ("puzzle24", {"metadata": {"numbers": [8, 3]}}, ["8*3"], ["24", "8*3*1"]),
    ("palindrome_generation", {"metadata": {"letters": [*"oco"]}}, ["oco"], ["coo"]),
    (
        "group_anagrams",
        {"metadata": {"solution": [["ab", "ba"], ["c"]]}},
        ['[["c"], ["ba", "ab"]]'],
        ['[["ab", "ba"]]', '[["ab"], ["ba"], ["c"]]', "[1]"],
    ),
    (
        "palindrome_partitioning",
        {"metadata": {"solution": [["a", "a"], ["aa"]]}},
        ['[["aa"], ["a", "a"]]'],
        ['[["aa"]]', "{}"],
    ),
    (
        "knights_knaves",
        {"answer": "Ann is an angel, Bo is a devil, and Cy is an angel."},
        [
            "Ann is a angel, Bo is a devil, and Cy is a angel",
            "Cy is an angel, Ann is an angel and Bo is a devil.",
        ],
        [
            "Ann is a angel, Bo is a devil, and Cy is a devil",
            "Ann is an angel, Bo is a devil",
            "Ann is an angel, Bo is a devil, Cy is an angel, Cy is a devil",
            "Ann is an angel, Bo is a devil, Cy is an angel or not",
        ],
    ),
    (
        "n_queens",
        {"metadata": {"valid_answers": ["Q _\n_ Q"]}},
        ["Q  _\n_ Q"],
        ["_ Q\nQ _"],
    ),
    (
        "graph_color",
        {"metadata": {"puzzle": COLORS}},
        ['{"0": 1, "1": 2, "2": 2}'],
        ['{"0": 1, "1": 1, "2": 2}', '{"0": 1, "1": 2}', '{"0": 1, "1": 3, "2": 1}'],
    ),
    (
        "shortest_path",
        {"answer": "right right down down", "metadata": {"matrix": GRID}},
        ["right right down down"],
        ["down down right right", "right right down", "infeasible", "up", "jump"],
    ),
    (
        "tower_of_hanoi",
        {"answer": "", "metadata": HANOI},
        ["\n".join(MOVES)],
        ["\n".join(MOVES[::-1]), "\n".join(MOVES[1:]), "\n".join(MOVES + MOVES[-1:])],
    ),
    (
        "jugs",
        {"metadata": {"puzzle": {"jug_capacities": [3, 5], "target": 2}}},
        [json.dumps(["fill B", "pour B->A"])],
        [
            '["fill B"]',
            '["pour A->C"]',
            '["pour B->B"]',
            '["drink A"]',
            "[3]",
            '["fill "]',
        ],
    ),
    (
        "quantum_lock",
        {"metadata": LOCK},
        ["B → B", "C → B"],
        ["B", "A → B", "B → A → B"],
    ),
    (
        "cryptarithm",
        {"metadata": {"words_letters": ["AB", "B"], "result_letters": "CD"}},
        ["A=1,B=6,C=2,D=2", "A=1,B=9,C=2,D=8"][1:],
        ["A=1,B=6,C=2,D=2", "A=0,B=1,C=0,D=2", "A=1,B=9", "A=1,A=1,B=9,C=2,D=8"],
    ),
    (
        "kakurasu",
        {
            "metadata": {
                "n_rows": 2,
                "n_cols": 2,
                "row_sums": [1, 3],
                "col_sums": [3, 2],
            }
        },
        ["1 0\n1 1"],
        ["1 1\n1 1", "1 0", "1 0\n1 2"],
    ),
]


@pytest.mark.parametrize(("name", "entry", "right", "wrong"), CASES)
def test_answers(
    name: str, entry: dict[str, Any], right: list[str], wrong: list[str]
) -> None:
    assert [check_answer(name, answer, entry) for answer in right] == [True] * len(
        right
    )
    assert [x for x in (*wrong, "", "9" * 30_000) if check_answer(name, x, entry)] == []


def test_grades() -> None:
    task = reasoning_gym(Bytes())
    question = GymQuestion(0, "?", "12", "gcd", entry={"answer": "12"})

    def grade(text: str, truncated: bool = False) -> tuple[bool, bool]:
        found = task.grade(question, text, truncated)
        return found.correct, found.format_ok

    assert grade("So <answer> 12 </answer>") == (True, True)
    assert grade("<answer>12</answer> no: <answer>13</answer>") == (False, True)
    assert grade("12") == (False, False)
    assert grade("<think><answer>12</answer></think> 12") == (False, False)
    assert grade("<answer>12</answer>", truncated=True) == (False, True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"generators": ()}, "must be different"),
        ({"generators": ("sokoban",)}, "sokoban has several right answers"),
        ({"options": "[1]"}, "must be a JSON object"),
        ({"options": '{"seed": 1}'}, "without seed and size"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        GymSettings(**settings)


def test_generators() -> None:
    pytest.importorskip("reasoning_gym", reason="the extra reasoning-gym")
    settings = GymSettings(
        generators=("chain_sum", "graph_color", "tower_of_hanoi"), problems=12
    )
    splits = gym_questions(settings)
    every = [question for part in splits.values() for question in part]
    assert len({question.question for question in every}) == 12
    assert {question.kind for question in every} == set(settings.generators)
    assert ungradable(every) == {}
    gym_questions.cache_clear()
    assert gym_questions(settings) == splits
    assert gym_questions(replace(settings, seed=1)) != splits
    # More questions leave the first ones as they are, also where entries repeat.
    sums = '{"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}'
    few = GymSettings(options=sums, problems=50)
    first = gym_questions(few)["train"]
    assert gym_questions(replace(few, problems=60))["train"][: len(first)] == first
    with pytest.raises(ValueError, match="must know nothing and its options"):
        gym_questions(GymSettings(generators=("nothing",)))
    with pytest.raises(ValueError, match="must know chain_sum and its options"):
        gym_questions(GymSettings(options='{"colour": 1}'))
