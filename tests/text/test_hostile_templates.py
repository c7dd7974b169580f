"""Templates that would run for ever or fill the memory, and those that would not."""

import resource
import time

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from jaxrl_reason.text import template_limits
from jaxrl_reason.text.chat_template import render
from jaxrl_reason.text.template_limits import size
from jaxrl_reason.text.text_tokenizer import TextTokenizer
from tests.text.tokenizer_families import family

MESSAGES = [{"role": "user", "content": "a b " * 50}, {"role": "user", "content": "x"}]
NS = "{% set n = namespace(x='aaaaaaaaaa', y=[1]) %}"
FORTY = "{% for i in range(40) %}"
MANY = "{% for i in range(99999) %}"

BOMBS = {
    "nested loops": MANY * 3 + "a" + "{% endfor %}" * 3,
    "nested loops of nothing": MANY * 3 + "{% endfor %}" * 3,
    "nested loops that keep nothing": (
        "{% for i in range(99999) if range(99999) | select('odd') | sum < 0 %}"
        "{% endfor %}"
    ),
    "chained filters": (
        MANY + "{% if range(99999)" + " | select('number')" * 50 + " | first == 1 %}"
        "{% endif %}{% endfor %}"
    ),
    "a filter without a test": (
        MANY + "{% if range(99999) | select | first == 7 %}{% endif %}{% endfor %}"
    ),
    "recursive loop": (
        "{% for i in range(99999) recursive %}{{ loop(range(99999)) }}{% endfor %}"
    ),
    "doubling by +": NS + FORTY + "{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
    "doubling by ~": NS + FORTY + "{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "doubling by join": (
        NS + FORTY + "{% set n.x = [n.x, n.x] | join %}{% endfor %}{{ n.x }}"
    ),
    "doubling by the method join": (
        NS + FORTY + "{% set n.x = n.x.join(['b', n.x]) %}{% endfor %}{{ n.x }}"
    ),
    "doubling by a block": (
        NS + FORTY + "{% set b %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = b %}"
        "{% endfor %}{{ n.x }}"
    ),
    "doubling by a macro": (
        "{% macro m(k) %}{% if k %}{{ m(k - 1) }}{{ m(k - 1) }}{% endif %}"
        "{% endmacro %}{{ m(60) }}"
    ),
    "doubling by a format": (
        NS + FORTY + "{% set n.x = '%s%s' % (n.x, n.x) %}{% endfor %}{{ n.x }}"
    ),
    "doubling by the filter format": (
        NS + FORTY + "{% set n.x = '%s%s' | format(n.x, n.x) %}{% endfor %}{{ n.x }}"
    ),
    "doubling by the method format": (
        NS + FORTY + "{% set n.x = '{0}{0}'.format(n.x) %}{% endfor %}{{ n.x }}"
    ),
    "doubling by replace": (
        NS + FORTY + "{% set n.x = n.x | replace('a', 'aa') %}{% endfor %}{{ n.x }}"
    ),
    "doubling a list": NS + FORTY + "{% set n.y = n.y + n.y %}{% endfor %}{{ n.y }}",
    "lists in lists": NS + FORTY + "{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.y }}",
    "lists in lists as JSON": (
        NS + FORTY + "{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.y | tojson }}"
    ),
    "lists in lists that are compared": (
        NS + "{% set k = namespace(y=[1]) %}" + FORTY + "{% set n.y = [n.y, n.y] %}"
        "{% set k.y = [k.y, k.y] %}{% endfor %}{{ n.y == k.y }}"
    ),
    "dicts in dicts": (
        NS + FORTY + "{% set n.y = {'a': n.y, 'b': n.y} %}{% endfor %}{{ n.y }}"
    ),
    "dicts by a call": (
        NS + FORTY + "{% set n.y = dict(a=n.y, b=n.y) %}{% endfor %}{{ n.y }}"
    ),
    "batches of batches": (
        NS + FORTY + "{% set n.y = (n.y + n.y) | batch(2) | list %}{% endfor %}"
        "{{ n.y }}"
    ),
    "arguments of a macro": (
        NS
        + "{% macro m() %}{% set n.y = kwargs %}{% endmacro %}"
        + FORTY
        + "{{ m(a=n.y, b=n.y) }}{% endfor %}{{ n.y }}"
    ),
    "a tuple as a key": (
        NS + "{% set n.y = (1,) %}" + FORTY + "{% set n.y = (n.y, n.y) %}{% endfor %}"
        "{{ {n.y: 1} }}"
    ),
    "a sum of lists": (
        "{% set rows = range(99999) | batch(1) | list %}{{ rows | sum(start=[]) }}"
    ),
    "squares": NS
    + "{% set n.x = 9 %}"
    + FORTY
    + "{% set n.x = n.x * n.x %}{% endfor %}",
    "a power": "{{ 10 ** 10 ** 10 }}",
    "a power that takes for ever": "{% set n = 10 %}{{ n ** (n ** n) }}",
    "such a power of numbers": "{{ 10 ** (10 ** 10) }}",
    "a wide format": "{{ '%99999999999d' % 1 }}",
    "a wide format of the filter": "{{ '%99999999999d' | format(1) }}",
    "a wide format by a star": "{{ '%*d' % (9999999999, 1) }}",
    "a wide format of the method": "{{ '{:99999999999}'.format(1) }}",
    "a width in a field": "{{ '{:{w}}'.format(1, w=9999999999) }}",
    "a wide date": "{{ strftime_now('%9999999999d') }}",
    "many wide formats": "{{ ('%99999d' * 9999) % range(9999) }}",
    "a repeated text": "{{ 'a' * 10**10 }}",
    "a repeated list": "{{ ([1] * 10**6) * 10**6 }}",
    "ljust": "{{ 'a'.ljust(10**10) }}",
    "rjust": "{{ 'a'.rjust(10**10) }}",
    "zfill": "{{ 'a'.zfill(10**10) }}",
    "center": "{{ 'a'.center(10**10) }}",
    "the filter center": "{{ 'a' | center(10**10) }}",
    "indent": "{{ ('a\n' * 10**6) | indent(10**5) }}",
    "indent by a text": "{{ ('a\n' * 10**6) | indent('b' * 10**6) }}",
    "JSON with an indent": "{{ messages | tojson(indent=10**10) }}",
    "JSON with separators": (
        "{{ range(99999) | list | tojson(separators=('a' * 10**6, ':')) }}"
    ),
    "batch": "{{ [1] | batch(10**10, 'a') | list }}",
    "slice": "{{ [1] | slice(10**10) | list }}",
    "round": "{{ 1.5 | round(10**10) }}",
    "replace of nothing": "{{ ('a' * 10**6).replace('', 'b' * 10**6) }}",
    "the filter replace": "{{ ('a' * 10**6) | replace('a', 'b' * 10**6) }}",
    "expandtabs": "{{ ('\t' * 10**6).expandtabs(10**6) }}",
    "translate": "{{ ('a' * 10**6).translate({97: 'b' * 10**6}) }}",
    "to_bytes": "{{ (1).to_bytes(10**10, 'big') }}",
    "slices of a long text": (
        "{% set x = 'a' * 10**7 %}"
        + MANY
        + "{% if x[1:] == 1 %}{% endif %}{% endfor %}"
    ),
    "searches of a long text": (
        "{% set x = 'a' * 10**7 %}" + MANY + "{% if 'b' in x %}{% endif %}{% endfor %}"
    ),
    "cases of a long text": (
        "{% set x = 'a' * 10**7 %}" + MANY + "{% if x.upper() %}{% endif %}{% endfor %}"
    ),
    "a filter that is not linear": "{{ ('<!--' * 10**6) | striptags }}",
    "a long body": MANY + "a" * 10**5 + "{% endfor %}",
    "a long template": "a" * 2**21,
    "blocks in blocks": "{% if 1 %}" * 10**4 + "{% endif %}" * 10**4,
    "loops in loops in loops": ("{% for i in [1] %}" * 60 + "{% endfor %}" * 60),
    "parentheses": "{{ " + "(" * 10**4 + "1" + ")" * 10**4 + " }}",
    "a long number": "{{ " + "9" * 10**5 + " }}",
    "a namespace that holds itself": (
        NS
        + "{% set n.a = n %}{% set n.b = n %}{{ [n, n] }}"
        + MANY * 2
        + "{% endfor %}{% endfor %}"
    ),
}


# These spend the whole budget; the others a fiftieth of it, which shows the same.
WHOLE = ("nested loops", "doubling by ~", "lists in lists as JSON")


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_in_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name not in WHOLE:
        monkeypatch.setattr(template_limits, "_WORK", template_limits._WORK // 50)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    said = r"^qwen/x: a chat template must accept the"
    with pytest.raises(ValueError, match=said) as refused:
        render(BOMBS[name], {"messages": MESSAGES}, "qwen/x")
    assert "MemoryError" not in str(refused.value)  # refused, not tried
    assert time.process_time() - start < 10
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 2**20  # kibibytes


USED = [
    "{%- set ns = namespace(text='', last=0) -%}"
    "{%- for message in messages if message.role == 'user' -%}"
    "{%- set ns.text = ns.text + message.content.strip() ~ loop.index -%}"
    "{%- set ns.last = loop.index0 if message.content is string else 0 -%}"
    "{{- loop.length }}{{ loop.last }}{{ loop.previtem }}{{ message | length -}}"
    "{%- endfor -%}{{ ns.text[-3:] }}{{ ns.last }}{{ ns.missing is defined }}",
    "{%- macro show(tool) -%}{{ tool.name }}({{ tool.arguments }}){%- endmacro -%}"
    "{{ show({'name': 'f', 'arguments': {'x': 1}}) }}",
    "{{ messages | map(attribute='role') | join(',') }}{{ messages | length }}",
    "{{ (messages | selectattr('role', 'equalto', 'user') | list)[-1].content }}",
    "{{ 'a</think>b'.split('</think>')[-1].lstrip('a') }}{{ ' b '.strip() }}",
    "{{ '%05.1f|%s' % (2.5, 'x') }}{{ '{} of {n}'.format(1, n=2) }}{{ 'a%' ~ 1 }}",
    "{{ messages[1:] | length }}{{ 'x' in 'xyz' }}{{ 'a' in messages[0] }}{{ 7 // 2 }}",
    "{{ {'b': 1, 'a': [1, 2]} | dictsort | list }}{{ [3, 1] | sort | last }}",
    "{{ 'a\nb' | indent(2) }}{{ 'ab' | replace('a', 'c') }}{{ (1, 2) }}{{ [] + [1] }}",
    "{% for k, v in messages[0].items() %}{{ k }}{{ v | trim | upper }}{% endfor %}",
    "{% for i in range(3) recursive %}{{ i }}{{ loop([]) if i else '' }}{% endfor %}",
    "{% for m in messages | reverse %}{{ loop.index }}{{ m.role | first }}{% endfor %}",
    "{% set x %}a{{ 1 }}{% endset %}{{ x | upper }}{% filter upper %}b{% endfilter %}",
    "{{ [1, 2, 3] | sum }}{{ messages | sum(attribute='n', start=1) }}",
    "{{ range(5) | batch(2, 0) | list }}{{ 10000000 | default(99999999) }}{{ none }}",
    "{{ x | default('d') }}{{ messages[0].y is defined }}{{ cycler('a', 'b').next() }}",
    "{{ 1 < 2 }}{{ 2.5 | round }}{{ -3 | abs }}{{ messages[0].get('role', 'x') }}",
]


@pytest.mark.parametrize("template", USED)
def test_a_template_writes_what_jinja_writes(template: str) -> None:
    messages = [{**message, "n": 1} for message in MESSAGES]
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    wanted = plain.from_string(template).render(messages=messages)
    assert render(template, {"messages": messages}) == wanted


def test_long_chats_are_written() -> None:
    messages = [{"role": "user", "content": "word " * 2000}] * 200
    tokenizer = family("qwen")
    start = time.process_time()
    text = tokenizer.render_chat(messages)
    assert len(text) > 2 * 10**6 - 200
    assert time.process_time() - start < 5


def test_the_file_of_a_template_is_named() -> None:
    made = family("qwen")
    bad = TextTokenizer(
        made.spec, made.special_tokens, "{{ 1 / 0 }}", source="models/x.gguf"
    )
    with pytest.raises(ValueError, match=r"^models/x\.gguf: a chat template must"):
        bad.encode_chat(MESSAGES)


def test_size_counts_what_is_shared_as_often_as_it_is_written() -> None:
    value: list[object] = ["abc"]
    for _ in range(10):
        value = [value, value]
    assert size(value, 10**6) > 1024 * 3
    with pytest.raises(ValueError, match="within bounds"):
        size(value, 1000)
    deep: list[object] = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(ValueError, match="at most 100 deep"):
        size(deep, 10**6)
