"""The sandbox that chat templates run in."""

import re

import pytest

from jaxrl_reason.text.chat_template import render

MESSAGES = [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__.__base__.__subclasses__() }}",
        "{{ raise_exception.__globals__.keys() }}",
        "{{ strftime_now.__globals__['json'] }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ lipsum.__globals__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{{ range(10000000) | list }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ self.__init__.__globals__ }}",
        "{{ ('%1000000000000d') % 'x' }}",
        "{{ ('%1000000000000d') % 1 }}",
        "{{ 'a' * 10**10 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ 'a' * 99999999 }}",
        "{{ 99999999 * [messages] }}",
        "{% set n = namespace(x='aaaaaaaaaa') %}"
        "{% for i in range(40) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
    ],
)
def test_escapes_are_refused(template: str) -> None:
    with pytest.raises(ValueError, match="chat template must accept"):
        render(template, {"messages": MESSAGES})
    assert MESSAGES == [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    "template",
    ["{% for m in messages %}", "{{ 1 / 0 }}", "{{ [1][5].x }}", "{{ none + 'a' }}"],
)
def test_faulty_templates_are_refused(template: str) -> None:
    with pytest.raises(ValueError, match="chat template must accept"):
        render(template, {"messages": MESSAGES})


def test_json_is_written_for_models_and_not_for_browsers() -> None:
    value = {"b": "<é>", "a": [1, None]}
    assert render("{{ v | tojson }}", {"v": value}) == '{"b": "<é>", "a": [1, null]}'
    indented = render("{{ v | tojson(indent=2) }}", {"v": value})
    assert indented.startswith('{\n  "b": "<é>"')


def test_blocks_leave_no_lines_and_loops_have_controls() -> None:
    template = (
        "{% for i in range(9) %}\n    {% if i == 1 %}{% continue %}{% endif %}\n"
        "    {% if i == 3 %}{% break %}{% endif %}\n{{ i }}\n{% endfor %}\n"
    )
    assert render(template, {}) == "0\n2\n"


def test_small_arithmetic_is_allowed() -> None:
    template = "{{ 2 ** 8 }} {{ '-' * 5 }} {{ [1] + [2] }} {{ 7 % 4 }} {{ 2 * 3.5 }}"
    assert render(template, {}) == "256 ----- [1, 2] 3 7.0"
    assert render("{{ '%05d' % 7 }} {{ 2 ** -1 }} {{ 1 ** 99 }}", {}) == "00007 0.5 1"


def test_the_date_is_todays() -> None:
    assert re.fullmatch(
        r"\d\d \w+ 20\d\d", render("{{ strftime_now('%d %B %Y') }}", {})
    )


def test_generation_blocks_only_frame() -> None:
    assert render("a{% generation %}{{ x }}{% endgeneration %}c", {"x": "b"}) == "abc"
