"""Unit tests of programs, taken apart: what the program computes, what must hold of it.

A test such as `assert sorted(f(3)) == [1, 2]` has two halves. The program gets `f(3)`
and nothing else. Its value comes out of the sandbox as plain data, and
`sorted(_v0) == [1, 2]` is judged where the program is not.
"""

import ast
import builtins
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

RUN, VALUE = "run", "value"
NAME = "_v"  # of the values: _v0, _v1, ...
_PROGRAM = ("solution", "program", "main")  # what tests may call its module
_BUILTIN = frozenset(dir(builtins))
_RULES = {ast.Eq: "equal", ast.Is: "is"}


class TestsRefused(ValueError):
    """Tests cannot be taken apart; the message says why."""

    __test__ = False  # not a test, whatever pytest makes of its name


@dataclass(frozen=True)
class ScriptTest:
    """A run of the program as a script.

    Attributes:
      stdin: what it reads.
      stdout: what it must write.
    """

    stdin: str
    stdout: str


@dataclass(frozen=True)
class Check:
    """What must hold of the program's values.

    Attributes:
      rule: "equal" or "is": the value is the expected one, for Python; "json": the
        same as JSON, floats to nine digits; "true" or "false", as in a condition;
        "judge": what `judge_steps` of the tests compute is true.
      value: number of the value.
      expected: the expected value as Python writes it.
    """

    rule: str
    value: int = 0
    expected: str = ""


@dataclass(frozen=True)
class CodeTests:
    """The tests of one question.

    Attributes:
      scripts: runs with input and output.
      steps: statements and expressions that the program's process runs.
      judge_steps: statements, and an expression for each check with the rule "judge",
        that another process runs.
      checks: of the values of `steps`.
      names: functions and classes that the program must define.
    """

    scripts: tuple[ScriptTest, ...] = ()
    steps: tuple[tuple[str, str], ...] = ()
    judge_steps: tuple[tuple[str, str], ...] = ()
    checks: tuple[Check, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """The number of tests."""
        return len(self.scripts) + len(self.checks)

    def __post_init__(self) -> None:
        if not self.count:
            raise TestsRefused("tests must hold at least one, got none")


def assert_tests(texts: Sequence[str], candidate: str | None = None) -> CodeTests:
    """Tests that are Python: asserts, and assignments and imports between them.

    `def check(candidate)` of HumanEval and `def test_...()` of pytest count as the
    statements in them. A helper function must not call the program.

    Args:
      texts: of the tests, in order.
      candidate: what the name `candidate` stands for.

    Returns:
      The tests.

    Raises:
      TestsRefused: they are not Python, or hold other statements (loops, ...).

    Example:
      >>> assert_tests(["assert sorted(f(3)) == [1, 2]"]).steps
      (('value', 'f(3)'),)
      >>> assert_tests(["assert f(3) == [1, 2]"]).checks[0].expected
      '[1, 2]'
    """
    try:
        tree = ast.parse("\n".join(texts))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise TestsRefused(f"tests must be Python, got {error}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if node.id == "candidate" and candidate is not None:
                node.id = candidate
            if node.id.startswith(NAME):
                raise TestsRefused(f"names must not begin with {NAME}, got {node.id}")
    return _Parts(list(_flat(tree.body))).tests()


def _flat(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements, with those of test functions in place of the functions."""
    for node in body:
        is_test = isinstance(node, ast.FunctionDef) and (
            node.name == "check" or node.name.startswith("test")
        )
        if is_test:
            assert isinstance(node, ast.FunctionDef)
            yield from _flat(node.body)
        elif not _is_idle(node):
            yield node


def _is_idle(node: ast.stmt) -> bool:
    """A docstring, or the call of a test function that was opened."""
    if isinstance(node, ast.If):
        return "__main__" in ast.unparse(node.test)
    if not isinstance(node, ast.Expr):
        return False
    value = node.value
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
        return value.func.id == "check" or value.func.id.startswith("test")
    return isinstance(value, ast.Constant)


class _Parts:
    """Sorts statements into the program's process and the judge's."""

    def __init__(self, body: list[ast.stmt]) -> None:
        self.body = body
        # Names that the judge has; all others are the program's.
        self.judge_names = set(_BUILTIN)
        self.steps: list[tuple[str, str]] = []
        self.judge: list[tuple[str, str]] = []
        self.checks: list[Check] = []
        self.names: list[str] = []
        self.own: set[str] = set()  # assigned on the program's side
        self.variables: set[str] = set()  # assigned on both sides
        self.given: set[str] = set()  # of these, what the program may have changed
        self.count = 0

    def tests(self) -> CodeTests:
        for node in self.body:
            if isinstance(node, ast.Assert):
                self._assert(node.test)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                self._import(node)
            elif isinstance(node, ast.Assign | ast.AnnAssign | ast.FunctionDef):
                self._define(node)
            elif not isinstance(node, ast.Pass):
                kind = type(node).__name__
                raise TestsRefused(
                    f"tests must be asserts, assignments and imports, got {kind}"
                )
        has_judge = any(check.rule == "judge" for check in self.checks)
        return CodeTests(
            steps=self._needed_steps(),
            judge_steps=tuple(self.judge) if has_judge else (),
            checks=tuple(self.checks),
            names=tuple(dict.fromkeys(self.names)),
        )

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        """Both sides import, but not the program, which is there already."""
        module = getattr(node, "module", None)
        if module in _PROGRAM:
            return
        modules = [module] if module else [name.name for name in node.names]
        for name in modules:
            if name.partition(".")[0] not in sys.stdlib_module_names:
                raise TestsRefused(
                    f"tests must import from the standard library, got {name}"
                )
        bound = {(x.asname or x.name).partition(".")[0] for x in node.names}
        self.judge_names |= bound
        for steps in (self.steps, self.judge):
            steps.append((RUN, ast.unparse(node)))

    def _define(self, node: ast.Assign | ast.AnnAssign | ast.FunctionDef) -> None:
        """A variable or a helper, of the judge unless it uses the program."""
        bound = _bound(node)
        unknown = [
            x.id
            for x in ast.walk(node)
            if isinstance(x, ast.Name) and x.id not in self.judge_names | bound
        ]
        text = ast.unparse(node)
        if isinstance(node, ast.FunctionDef):
            if unknown:
                raise TestsRefused(
                    f"a helper of tests must not call the program, got {node.name}"
                )
            self.judge_names.add(node.name)
            self.judge.append((RUN, text))
            return
        if unknown:
            self.judge_names -= bound
            self.own |= bound
            self.names += [x for x in unknown if x not in self.own]
            self.given |= self.variables & _names(node)
        else:
            self.judge_names |= bound
            self.variables |= bound
            self.given -= bound
            self.judge.append((RUN, text))
        self.steps.append((RUN, text))

    def _assert(self, test: ast.expr) -> None:
        known = self.judge_names
        if _names(test) <= known | _bound(test) | self.own:
            # Nothing is called: it is about what earlier calls have left.
            known = known - self.given
        found = _Separate(known, _bound(test), self.count)
        held = found.visit(test)
        self.steps += [(VALUE, ast.unparse(call)) for call in found.calls]
        self.count += len(found.calls)
        roots = (_root(call) for call in found.calls)
        ours = self.own | self.variables
        self.names += [name for name in roots if name and name not in ours]
        for call in found.calls:
            self.given |= self.variables & _names(call)
        check = _simple(held)
        if check is None:
            check = Check("judge")
            self.judge.append((VALUE, ast.unparse(held)))
        self.checks.append(check)

    def _needed_steps(self) -> tuple[tuple[str, str], ...]:
        """Without variables that no call uses: they may be expected values."""
        kept: list[tuple[str, str]] = []
        used: set[str] = set()
        for kind, text in reversed(self.steps):
            node = ast.parse(text).body[0]
            names = _names(node)
            needed = kind == VALUE or isinstance(node, ast.Import | ast.ImportFrom)
            if needed or _bound(node) & used:
                used |= names
                kept.append((kind, text))
        return tuple(reversed(kept))


class _Separate(ast.NodeTransformer):
    """Replaces what the program computes by _v0, _v1, ...."""

    def __init__(self, known: set[str], bound: set[str], first: int) -> None:
        self.known, self.bound, self.first = known, bound, first
        self.calls: list[ast.expr] = []

    def visit(self, node: ast.AST) -> ast.AST:
        root = _root(node)
        if root is None or root in self.known or root in self.bound:
            return self.generic_visit(node)
        assert isinstance(node, ast.expr)
        if _names(node) & (self.bound - _bound(node)):
            raise TestsRefused(
                f"a call in a loop cannot be taken out of its test: {ast.unparse(node)}"
            )
        self.calls.append(node)
        return ast.Name(f"{NAME}{self.first + len(self.calls) - 1}", ast.Load())


def _root(node: ast.AST) -> str | None:
    """The name with which a chain of calls, attributes and items begins."""
    while True:
        if isinstance(node, ast.Name):
            return node.id if isinstance(node.ctx, ast.Load) else None
        if isinstance(node, ast.Call):
            node = node.func
        elif isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        else:
            return None


def _names(tree: ast.AST) -> set[str]:
    """Names in a statement or an expression."""
    return {x.id for x in ast.walk(tree) if isinstance(x, ast.Name)}


def _bound(tree: ast.AST) -> set[str]:
    """Names that are bound in a statement or an expression."""
    stored = {
        x.id
        for x in ast.walk(tree)
        if isinstance(x, ast.Name) and not isinstance(x.ctx, ast.Load)
    }
    return stored | {x.arg for x in ast.walk(tree) if isinstance(x, ast.arg)}


def _simple(held: ast.AST) -> Check | None:
    """A check that needs no judge: a value beside a literal."""
    if isinstance(held, ast.Name) and _number(held) >= 0:
        return Check("true", _number(held))
    if isinstance(held, ast.UnaryOp) and isinstance(held.op, ast.Not):
        inner = _simple(held.operand)
        has_value = inner is not None and inner.rule == "true"
        return Check("false", inner.value) if inner and has_value else None
    if not isinstance(held, ast.Compare) or len(held.ops) != 1:
        return None
    rule = _RULES.get(type(held.ops[0]))
    left, right = held.left, held.comparators[0]
    if isinstance(right, ast.Name):
        left, right = right, left
    if rule is None or not isinstance(left, ast.Name) or _number(left) < 0:
        return None
    try:
        value = ast.literal_eval(right)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None
    if rule == "is" and not (value is None or isinstance(value, bool)):
        return None
    return Check(rule, _number(left), ast.unparse(right))


def _number(name: ast.Name) -> int:
    return int(name.id.removeprefix(NAME)) if name.id.startswith(NAME) else -1
