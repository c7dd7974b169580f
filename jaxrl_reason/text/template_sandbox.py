"""The sandbox of chat templates: Jinja's, in which everything is paid for.

What is not known to be paid for (`template_limits`) cannot be called.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinMethodType
from typing import Any

from jinja2 import nodes, sandbox, visitor
from jinja2.runtime import LoopContext
from jinja2.utils import Namespace

from jaxrl_reason.text.template_limits import (
    METER,
    METHODS,
    NODE,
    STEP,
    check_operation,
)

LONGEST_TEMPLATE = 2**18
"""Characters of a template's source, which takes seconds to compile at most."""

# Filters of Jinja's that no chat needs and whose time is not linear.
_NO_FILTERS = (
    *("filesizeformat", "pprint", "random", "striptags"),
    *("urlize", "wordwrap", "xmlattr"),
)
_COMPARING_TESTS = frozenset(
    (
        *("==", "!=", "<", "<=", ">", ">=", "eq", "equalto", "ge", "greaterthan"),
        *("gt", "in", "le", "lessthan", "lt", "ne"),
    )
)
# Not names in a template's grammar, so templates can neither call nor hide them.
_SPEND, _MADE, _SEEN = "spend work", "made value", "seen value"


class MeteredEnvironment(sandbox.ImmutableSandboxedEnvironment):
    """Jinja's sandbox in which templates pay for what they do."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(
        self, filters: Mapping[str, Callable[..., Any]], **options: Any
    ) -> None:
        # Nothing is calculated while a template is compiled: no meter runs then.
        super().__init__(optimized=False, finalize=_written, **options)
        for name in _NO_FILTERS:
            del self.filters[name]
        self.filters |= filters
        self.filters = {n: _metered(n, f) for n, f in self.filters.items()}
        tests: Mapping[str, Any] = self.tests
        self.tests = {n: _metered_test(n, f) for n, f in tests.items()}
        self.filters[_SPEND] = _spend
        self.filters[_MADE] = _made
        self.filters[_SEEN] = lambda value: METER.get().see(value)
        del self.globals["lipsum"]  # an extra that reaches Python's own modules
        self.globals["namespace"] = _Namespace

    def template(self, source: str) -> Any:
        """Compiles a template in which bodies and values are paid for.

        Raises:
          ValueError: it is too long.
          jinja2.TemplateError: it has errors.
        """
        if len(source) > LONGEST_TEMPLATE:
            raise ValueError(
                f"its source must stay below {LONGEST_TEMPLATE} characters, "
                f"got {len(source)}"
            )
        tree = self.parse(source)
        tree = _Metering().visit(tree)
        return self.from_string(tree.set_environment(self))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Pays for an operator."""
        meter = METER.get()
        meter.spend(STEP + check_operation(operator, left, right))
        return meter.make(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **named: Any) -> Any:
        """Pays for a call. The names are Jinja's, which `named` must not hide."""
        meter = METER.get()
        inner = getattr(__obj, "__wrapped__", __obj)  # str.format is wrapped
        if isinstance(inner, BuiltinMethodType):
            value, name = inner.__self__, inner.__name__
            if not any(isinstance(value, k) and name in METHODS[k] for k in METHODS):
                raise ValueError(f"it must not call {name} of {type(value).__name__}")
            if name == "join":
                args = tuple(map(meter.held, args))
            meter.call(name, value, (*args, *named.values()))
        else:
            meter.spend(STEP)
            for arg in (*args, *named.values()):
                meter.see(arg)
        return _made(super().call(__context, __obj, *args, **named))


class _Namespace(Namespace):
    """One that is not written out: it may hold itself."""

    def __repr__(self) -> str:
        return "<Namespace>"


def _metered(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is paid for."""
    passed = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def filter_(*args: Any, **named: Any) -> Any:
        meter = METER.get()
        first, (value, *rest) = args[:passed], args[passed:]
        if name == "join":
            value = meter.held(value)
        if name == "sum":  # of lists it would copy them again and again
            begin = named.get("start", rest[1] if rest[1:] else 0)
            if not isinstance(begin, int | float):
                raise ValueError(f"sum must start with a number, got {begin!r:.80}")
        meter.call(name, value, (*rest, *named.values()))
        return _made(function(*first, value, *rest, **named))

    return filter_


def _metered_test(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A test that is paid for."""

    @functools.wraps(function)
    def test(*args: Any, **named: Any) -> Any:
        meter = METER.get()
        meter.spend(STEP)
        if name in _COMPARING_TESTS:
            for arg in args:
                meter.see(arg)
        return function(*args, **named)

    return test


def _made(value: Any) -> Any:
    """A value that is paid for, iterators item by item."""
    if isinstance(value, Iterator) and not isinstance(value, LoopContext):
        return METER.get().counted(value)
    return METER.get().make(value)


def _spend(work: int) -> bool:
    """True, so that it can stand in a condition."""
    METER.get().spend(work)
    return True


def _written(value: Any) -> Any:
    """A value as it is written."""
    meter = METER.get()
    meter.spend(STEP)
    meter.see(value)
    return value


class _Metering(visitor.NodeTransformer):
    """Puts the payments into a template."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        if node.test is not None:
            paid = _filter(nodes.Const(_cost(node.test), lineno=node.lineno), _SPEND)
            node.test = nodes.And(paid, node.test, lineno=node.lineno)
        return self._with_paid_body(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._with_paid_body(self.generic_visit(node))

    visit_CallBlock = visit_Block = visit_Macro

    def _with_paid_body(self, node: Any) -> nodes.Node:
        cost = nodes.Const(_cost(node), lineno=node.lineno)
        pay = nodes.ExprStmt(_filter(cost, _SPEND), lineno=node.lineno)
        node.body.insert(0, pay)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), "join")

    def visit_List(self, node: nodes.Expr) -> nodes.Node:
        return _filter(self.generic_visit(node), _MADE)

    visit_Dict = visit_List

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _filter(node, _MADE) if node.ctx == "load" else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        sliced = isinstance(node.arg, nodes.Slice)
        return _filter(node, _MADE) if sliced else node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _filter(node.expr, _SEEN)
        for operand in node.ops:
            operand.expr = _filter(operand.expr, _SEEN)
        return node


def _filter(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _cost(node: nodes.Node) -> int:
    """What it takes to run a part of a template once."""
    parts = [*node.find_all(nodes.Node)]
    text = sum(len(part.data) for part in parts if isinstance(part, nodes.TemplateData))
    return STEP + NODE * len(parts) + text
