"""A cleaning as one page with plots, and as the card of its dataset."""

import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from jaxrl_reason.data.clean_dataset import NAME, SPLIT
from jaxrl_reason.data.clean_plots import buckets_plot, lengths_plot

REASONS: Mapping[str, str] = {
    "unreadable": "could not be read",
    "field": "lacks a field, or holds what is not text",
    "url": "holds an address of the web",
    "image": "needs an image",
    "figure": "speaks of a figure",
    "proof": "asks for a proof",
    "choices": "lists choices",
    "yes_no": "is answered by yes or no",
    "long": "is too long",
    "gold": "has an answer that cannot be graded",
    "contaminated": "holds a benchmark's question",
    "duplicate": "repeats an earlier row",
    "conflicting": "has another answer in another row",
    "near_duplicate": "nearly repeats an earlier row with the same answer",
    "same_meaning": "says what an earlier row says",
    "ungraded": "got no response that could be graded",
    "too_hard": "is solved too rarely",
    "too_easy": "is solved too often",
}
_CSS = """
:root { --ink: #1c2128; --soft: #5a6069; --line: #dfe2e6; --bar: #3d7fc9;
  --good: #1a7f4b; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f6f8; color: var(--ink); font: 15px/1.5 system-ui,
  -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 980px; margin: 0 auto; padding: 32px 24px 56px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 0 0 8px; }
p { margin: 0 0 10px; }
.soft { color: var(--soft); }
.verdict { border-left: 6px solid var(--good); background: #fff; padding: 14px 18px;
  margin: 18px 0; font-size: 17px; border-radius: 0 8px 8px 0; }
section { background: #fff; border: 1px solid var(--line); border-radius: 8px;
  padding: 18px 20px; margin-bottom: 18px; }
svg { width: 100%; height: auto; display: block; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 12.5px; }
th, td { padding: 6px 10px 6px 0; border-top: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
thead th { border-top: 0; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums;
  padding-right: 18px; white-space: nowrap; }
td.b { width: 34%; }
.bar { background: var(--bar); height: 12px; margin-top: 5px; border-radius: 2px; }
.kept { background: var(--good); }
code, pre { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: #f5f6f8; padding: 12px 14px; border-radius: 6px; overflow-x: auto;
  margin: 8px 0 0; }
details { margin-top: 10px; }
summary { cursor: pointer; font-weight: 600; }
@media print { body { background: #fff; } section { break-inside: avoid; } }
"""


def report_html(report: Mapping[str, Any]) -> str:
    """The report as a page that needs no other file.

    Args:
      report: of `report_of`.

    Returns:
      HTML.
    """
    parts = [
        "<h1>What became of the data</h1>",
        f'<p class="soft">By <code>jaxrl-reason data clean</code>, version '
        f"{escape(report['identity']['version'])}</p>",
        _verdict(report),
        _funnel(report),
        _examples(report),
        _sources(report),
        _benchmarks(report),
        _lengths(report),
        _pass_rates(report),
        _settings(report),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Cleaned data</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def card_text(report: Mapping[str, Any]) -> str:
    """The card of the dataset, as Markdown.

    Args:
      report: of `report_of`.

    Returns:
      The text.
    """
    words = report["lengths"]["question_words"]["percentiles"]
    rows = "".join(
        f"| {x['source']} | {x['rows']} | {x['kept']} |\n" for x in report["sources"]
    )
    drops = "".join(
        f"| {REASONS[reason]} | {count} |\n"
        for reason, count in report["dropped"].items()
    )
    against = ", ".join(
        f"{x['source']} ({x['questions']} questions)" for x in report["benchmarks"]
    )
    rated = report["pass_rates"] is not None
    more = "; `solved` of `samples` responses of a model were right" if rated else ""
    settings = json.dumps(report["identity"]["settings"], indent=1)
    return f"""# Questions with final answers

{report["kept"]} questions, cleaned by jaxrl-reason data clean, \
version {report["identity"]["version"]}.

Each row has `question`, `answer` and, as JSON in `other_fields_json`, the other \
fields of its source{more}. Half of the questions have {words["50"]} words and numbers \
or fewer, 95% have {words["95"]} or fewer. Licences are those of the sources.

## Use

```sh
jaxrl-reason train --task THIS_FOLDER --model MODEL
```

`tensorflow_datasets` reads it too: `tfds.builder("{NAME}", \
data_dir="THIS_FOLDER/dataset").as_data_source("{SPLIT}")`.

## Sources

| source | rows | kept |
|---|---:|---:|
{rows}
## What was left out

| a row that | rows |
|---|---:|
{drops}
Decontaminated against {against or "nothing"}.

## Settings

```json
{settings}
```
"""


def _verdict(report: Mapping[str, Any]) -> str:
    share = report["kept"] / report["rows"]
    return (
        f'<div class="verdict"><strong>{report["kept"]:,}</strong> of '
        f"{report['rows']:,} rows are kept ({share:.1%}).</div>"
    )


def _table(head: Iterable[str], rows: Iterable[str]) -> str:
    names = "".join(
        f'<th class="n">{name[1:]}</th>' if name.startswith("#") else f"<th>{name}</th>"
        for name in head
    )
    return (
        f"<table><thead><tr>{names}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _funnel(report: Mapping[str, Any]) -> str:
    total = report["rows"]

    def row(what: str, count: int, kind: str = "bar") -> str:
        width = 100 * count / total
        return (
            f'<tr><td>{what}</td><td class="n">{count:,}</td>'
            f'<td class="n">{count / total:.2%}</td><td class="b">'
            f'<div class="{kind}" style="width:{width:.2f}%"></div></td></tr>'
        )

    rows = [row("<strong>kept</strong>", report["kept"], "bar kept")]
    rows += [row(REASONS[name], count) for name, count in report["dropped"].items()]
    table = _table(["a row that", "#rows", "#share", ""], rows)
    return f"<section><h2>Kept and left out</h2>{table}</section>"


def _examples(report: Mapping[str, Any]) -> str:
    parts = []
    for reason in report["dropped"]:
        rows = [
            f"<tr><td>{escape(row['place'])}</td><td>{escape(row['question'])}</td>"
            f"<td>{escape(' '.join(x for x in (row['detail'], row['other']) if x))}"
            "</td></tr>"
            for row in report["examples"].get(reason, [])
        ]
        table = _table(["row", "question", "why"], rows)
        parts.append(f"<details><summary>{REASONS[reason]}</summary>{table}</details>")
    if not parts:
        return ""
    return f"<section><h2>The first rows left out</h2>{''.join(parts)}</section>"


def _sources(report: Mapping[str, Any]) -> str:
    rows = [
        f'<tr><td>{escape(x["source"])}</td><td class="n">{x["rows"]:,}</td>'
        f'<td class="n">{x["kept"]:,}</td>'
        f"<td><code>{escape((x['digest'] or '')[:16])}</code></td></tr>"
        for x in report["sources"]
    ]
    table = _table(["source", "#rows", "#kept", "SHA-256"], rows)
    return f"<section><h2>Sources</h2>{table}</section>"


def _benchmarks(report: Mapping[str, Any]) -> str:
    if not report["benchmarks"]:
        return (
            "<section><h2>Benchmarks</h2><p>The data was compared with no benchmark "
            "(<code>--against</code>).</p></section>"
        )
    rows = [
        f'<tr><td>{escape(x["source"])}</td><td class="n">{x["questions"]:,}</td></tr>'
        for x in report["benchmarks"]
    ]
    table = _table(["benchmark", "#questions"], rows)
    found = report["benchmark_questions_found"]
    text = f"<p>{found:,} of their questions were found in the data.</p>"
    if report["most_matched"]:
        most = [
            f'<tr><td>{escape(place)}</td><td class="n">{count:,}</td></tr>'
            for place, count in report["most_matched"]
        ]
        text += (
            "<details><summary>found most often (a question that is found in many rows "
            "may be a common phrase)</summary>"
            f"{_table(['question', '#rows'], most)}</details>"
        )
    return f"<section><h2>Benchmarks</h2>{table}{text}</section>"


def _lengths(report: Mapping[str, Any]) -> str:
    rows = []
    for name, found in report["lengths"].items():
        cells = "".join(
            f'<td class="n">{value:,}</td>' for value in found["percentiles"].values()
        )
        what = name.replace("_", ", in ")
        rows.append(
            f'<tr><td>{what}</td><td class="n">{found["mean"]}</td>{cells}</tr>'
        )
    heads = ["", "#mean", "#shortest", "#25%", "#median", "#75%", "#95%", "#longest"]
    return (
        f"<section><h2>Lengths of what is kept</h2>{lengths_plot(report['lengths'])}"
        f"{_table(heads, rows)}</section>"
    )


def _pass_rates(report: Mapping[str, Any]) -> str:
    found = report["pass_rates"]
    if found is None:
        return ""
    model = report["identity"]["settings"]["pass_rates"]
    name = escape(str(model["model"]))
    return (
        f"<section><h2>How often the model solves a question</h2>"
        f"<p>{model['samples']} responses of <code>{name}</code> "
        f"at temperature {model['temperature']:g}; {found['mean']:.1%} of all were "
        f"right.</p>{buckets_plot(found)}</section>"
    )


def _settings(report: Mapping[str, Any]) -> str:
    text = json.dumps(report["identity"]["settings"], indent=1)
    return (
        "<section><h2>Settings</h2><pre>jaxrl-reason train --task THIS_FOLDER --model "
        "MODEL</pre><details><summary>all settings of the cleaning</summary>"
        f"<pre>{escape(text)}</pre></details></section>"
    )
