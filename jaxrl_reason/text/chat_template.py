"""Chat templates: renders messages as one text, with Jinja in a sandbox."""

import datetime
import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxrl_reason.text.tokenizer import Message

if TYPE_CHECKING:
    import jinja2

# A role may be part of a control token (`<|user|>`), so it is never marked as text.
_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


def check_messages(messages: Sequence[Message]) -> None:
    """Raises for values that are not a chat.

    Args:
      messages: the chat.

    Raises:
      ValueError: if there is no message, or one is not a mapping or has no role of
      letters, digits, `_`, `.` and `-`.
    """
    if isinstance(messages, str | Mapping) or not messages:
        raise ValueError(f"messages must be a list of at least one, got {messages!r}")
    for message in messages:
        if not isinstance(message, Mapping):
            raise ValueError(f"a message must be a mapping, got {message!r:.80}")
        role = message.get("role")
        if not isinstance(role, str) or not _ROLE.fullmatch(role):
            raise ValueError(f"a message's role must be a plain word, got {role!r:.80}")


# No template needs larger numbers, or longer texts by arithmetic than a whole chat.
_LARGEST_NUMBER, _LONGEST_TEXT = 10**9, 10**7
_WIDE = re.compile("[0-9]{7}")


def check_operation(operator: str, left: Any, right: Any) -> None:
    """Raises for arithmetic in a template that would fill the memory.

    Jinja's sandbox bounds only `range`.

    Args:
      operator: *, **, + or %.
      left: its left side.
      right: its right side.

    Raises:
      ValueError: the result would be too large.

    Example:
      >>> check_operation("*", "-", 80)
      >>> check_operation("**", 10, 10)
      Traceback (most recent call last):
      ValueError: arithmetic must stay below 1000000000, got 10 ** 10
    """
    numbers = all(isinstance(x, int) for x in (left, right))
    if numbers and operator == "**":
        # 2 ** 30 is the first power beyond; the power itself is not calculated.
        too_large = abs(left) > 1 and right * (abs(left).bit_length() - 1) >= 30
        if too_large or (right >= 0 and abs(left**right) > _LARGEST_NUMBER):
            raise ValueError(
                f"arithmetic must stay below {_LARGEST_NUMBER}, got {left} ** {right}"
            )
    elif operator == "*" and not numbers:
        sizes = [len(x) if hasattr(x, "__len__") else x for x in (left, right)]
        if all(isinstance(x, int) for x in sizes) and sizes[0] * sizes[1] > (
            _LONGEST_TEXT
        ):
            raise ValueError(
                f"a text must stay below {_LONGEST_TEXT} characters, got "
                f"{sizes[0]} * {sizes[1]}"
            )
    elif operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
        if len(left) + len(right) > _LONGEST_TEXT:
            raise ValueError(
                f"a text must stay below {_LONGEST_TEXT} characters, got "
                f"{len(left)} + {len(right)}"
            )
    elif operator == "%" and isinstance(left, str) and _WIDE.search(left):
        raise ValueError(f"a format must not be that wide, got {left!r:.80}")


def render(template: str, variables: Mapping[str, Any]) -> str:
    """Write a chat.

    Args:
      template: Jinja source, as model files carry it.
      variables: of the template: `messages`, `add_generation_prompt`, `bos_token` and
        so on.

    Returns:
      The text.

    Raises:
      ValueError: if the template has errors, breaks the sandbox's rules or rejects the
      messages.

    Example:
      >>> render("{{ messages[0].content | trim }}", {"messages": [{"content": "a"}]})
      'a'
    """
    import jinja2

    try:
        return _compiled(template).render(**variables)
    # A template is code from a file: all its errors are the file's.
    except (
        jinja2.TemplateError,
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(
            "a chat template must accept the messages, got "
            f"{type(error).__name__}: {error}"
        ) from error


@functools.lru_cache(maxsize=16)
def _compiled(template: str) -> "jinja2.Template":
    import jinja2
    from jinja2 import ext, nodes, parser, sandbox

    class GenerationBlock(ext.Extension):
        """`{% generation %}...{% endgeneration %}` marks the assistant's text."""

        tags = {"generation"}  # noqa: RUF012 - the name is Jinja's

        def parse(self, source: parser.Parser) -> list[nodes.Node]:
            next(source.stream)
            return source.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    class Environment(sandbox.ImmutableSandboxedEnvironment):
        """The sandbox, with bounds for arithmetic."""

        intercepted_binops = frozenset(("*", "**", "+", "%"))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            check_operation(operator, left, right)
            return super().call_binop(context, operator, left, right)

    # Blocks leave no empty lines: templates assume these two settings.
    environment = Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[ext.loopcontrols, GenerationBlock],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = _strftime_now
    del environment.globals["lipsum"]  # a Jinja extra that reaches Python's own modules
    return environment.from_string(template)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON for a model; Jinja's own filter escapes it for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)
