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


def render(template: str, variables: Mapping[str, Any], source: str = "") -> str:
    """Write a chat.

    What a template does is bounded (`template_limits`).

    Args:
      template: Jinja source, as model files carry it.
      variables: of the template: `messages`, `add_generation_prompt`, `bos_token` and
        so on.
      source: the file that the template is from, for messages.

    Returns:
      The text.

    Raises:
      ValueError: if the template has errors, breaks the sandbox's rules or its bounds,
      or rejects the messages; the message names the file.

    Example:
      >>> render("{{ messages[0].content | trim }}", {"messages": [{"content": "a"}]})
      'a'
    """
    import jinja2

    from jaxrl_reason.text.template_limits import METER, Meter

    before = None
    try:
        before = METER.set(Meter(variables))
        text: str = METER.get().make(_compiled(template).render(**variables))
        return text
    # A template is code from a file: all its errors are the file's.
    except (
        jinja2.TemplateError,
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RuntimeError,
        SyntaxError,  # of the Python that Jinja writes
        TypeError,
        ValueError,
    ) as error:
        where = f"{source}: " if source else ""
        raise ValueError(
            f"{where}a chat template must accept the messages, got "
            f"{type(error).__name__}: {error!s:.500}"
        ) from error
    finally:
        if before is not None:
            METER.reset(before)


@functools.lru_cache(maxsize=16)
def _compiled(template: str) -> "jinja2.Template":
    import jinja2
    from jinja2 import ext, nodes, parser

    from jaxrl_reason.text.template_sandbox import MeteredEnvironment

    class GenerationBlock(ext.Extension):
        """`{% generation %}...{% endgeneration %}` marks the assistant's text."""

        tags = {"generation"}  # noqa: RUF012 - the name is Jinja's

        def parse(self, source: parser.Parser) -> list[nodes.Node]:
            next(source.stream)
            return source.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    # Blocks leave no empty lines: templates assume these two settings.
    environment = MeteredEnvironment(
        {"tojson": _to_json},
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[ext.loopcontrols, GenerationBlock],
    )
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = _strftime_now
    return environment.template(template)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON for a model; Jinja's own filter escapes it for HTML."""
    from jaxrl_reason.text.template_limits import METER

    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
    if indent is None and separators is None:  # several times as fast
        return encoder.encode(value)
    return METER.get().text(encoder.iterencode(value))


# The C library pads a field to any width.
_WIDE_DATE = re.compile("%[^a-zA-Z%]*[0-9]{3}")


def _strftime_now(form: str) -> str:
    if len(form) > 1000 or _WIDE_DATE.search(form):
        raise ValueError(f"a date's format must not be that wide, got {form!r:.80}")
    return datetime.datetime.now().strftime(form)
