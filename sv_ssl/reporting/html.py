"""An HTML page that needs nothing else: elements that escape their text, tables, pictures inside, one look.

No script, no network; light and dark, wide and narrow, on paper.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


class Html(str):
    """Text that is HTML already; any other is escaped."""


def el(tag: str, *inside: Any, **attributes: Any) -> Html:
    """An element; whatever is not Html is escaped, in it and in its attributes.

    >>> el("td", "a<b", class_="id")
    '<td class="id">a&lt;b</td>'
    """
    names = {name: name.rstrip("_").replace("_", "-") for name in attributes}
    given = "".join(f' {names[name]}="{html.escape(str(value))}"' for name, value in attributes.items())
    content = "".join(part if isinstance(part, Html) else html.escape(str(part)) for part in inside)
    return Html(f"<{tag}{given}>{content}</{tag}>")


def anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def document(title: str, header: Html, sections: Mapping[str, Iterable[Html]], footer: Html) -> str:
    """Title, header, {heading: what is below it}, footer -> the whole file."""
    parts = [el("section", el("h2", heading), *inside, id=anchor(heading)) for heading, inside in sections.items()]
    head = el("head", META, el("title", title), el("style", CSS))
    return f"<!DOCTYPE html>\n{el('html', head, el('body', el('main', header, *parts), footer), lang='en')}\n"


def definitions(pairs: Mapping[str, str]) -> Html:
    """{term: what it is} -> a list of them; terms and texts keep their own direction of writing."""
    parts = (el("dt", el("bdi", term)) + el("dd", el("bdi", text)) for term, text in pairs.items())
    return el("dl", Html("".join(parts)))


def table(label: str, columns: Mapping[str, str], groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> Html:
    """{heading: class} of the columns, {group: rows of {heading: cell}} -> a table in a box that scrolls by itself.

    The group "" has no heading of its own. A column that is empty in all rows is left out.
    """
    every = [row for rows in groups.values() for row in rows]
    columns = {name: kind for name, kind in columns.items() if any(row.get(name) for row in every)}
    head = el("thead", el("tr", *(el("th", name, class_=kind, scope="col") for name, kind in columns.items())))
    bodies = []
    for group, rows in groups.items():
        lines = [el("tr", el("th", el("bdi", group), scope="rowgroup", colspan=len(columns)))] if group else []
        for row in rows:
            lines.append(el("tr", *(el("td", row.get(name, ""), class_=kind) for name, kind in columns.items())))
        bodies.append(el("tbody", *lines))
    return el("div", el("table", head, *bodies), class_="scroll", role="region", aria_label=label, tabindex=0)


def picture(label: str, caption: str, draw: Callable[[io.StringIO], None]) -> Html:
    """A function of `plots` that writes SVG -> a figure in the page's colours, its ids not those of other figures."""
    file = io.StringIO()
    draw(file)
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", file.getvalue(), flags=re.DOTALL)
    svg = svg[svg.index("<svg") :].strip()
    used, key, colors = set(re.findall(r'(?:href="|url\()#([\w-]+)', svg)), anchor(label), _colors()

    def tag(found: re.Match) -> str:
        text = re.sub(r' id="([^"]*)"', lambda i: f' id="{key}-{i[1]}"' if i[1] in used else "", found[0])
        text = re.sub(r'(?:xlink:)?href="#', f'href="#{key}-', text).replace("url(#", f"url(#{key}-")
        return re.sub(r": (#[0-9a-f]{6})", lambda color: f": {colors.get(color[1], color[1])}", text)

    svg = re.sub(r"<[^>]*>", tag, svg)
    opening = re.sub(r' (?:xmlns(?::\w+)?|version|width|height)="[^"]*"', "", svg[: svg.index(">")])
    svg = f'{opening} role="img" aria-label="{html.escape(label)}"{svg[svg.index(">") :]}'
    return el("figure", Html(svg), el("figcaption", caption))


def _colors() -> dict[str, str]:
    """Colours of the pictures -> those of the page, which are others in the dark."""
    from sv_ssl.reporting.plots import COLORS, GREY, INK, PALE, PAPER

    names = {INK: "ink", GREY: "soft", PALE: "line", PAPER: "paper", COLORS[0]: "blue", COLORS[1]: "red"}
    return {color.lower(): f"var(--{name})" for color, name in names.items()}


META = Html("""
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
""")
CSS = Html("""
:root { color-scheme: light dark; --paper: #fff; --wash: #f3f5f7; --ink: #1f2428; --soft: #5b6670; --line: #dce1e6;
  --warn: #a86b00; --blue: #0072b2; --red: #c75300 }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #15181b; --wash: #1e2327; --ink: #e4e7ea;
  --soft: #9da7b0; --line: #343a40; --warn: #e3b04b; --blue: #58b0ea; --red: #ff9350 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: anywhere; -webkit-text-size-adjust: 100%;
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Liberation Sans", sans-serif }
main, footer { max-width: 84rem; margin: 0 auto; padding: 0 1.5rem }
header { padding-top: 2.5rem } section { margin-top: 3rem } p { max-width: 48rem; margin: .5rem 0 }
h1 { font-size: 2rem; line-height: 1.2; margin: .25rem 0 .5rem } h2 { font-size: 1.3rem; margin: 0 0 .75rem }
h3 { font-size: 1rem; margin: 0 0 .5rem } a { color: var(--blue) }
.kind, .soft, dt, figcaption, footer, .big small { color: var(--soft) } .soft, dl, figcaption { font-size: .9rem }
.kind { font-size: .8rem; letter-spacing: .06em; text-transform: uppercase }
.lede { font-size: 1.1rem; max-width: none }
.big { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.25rem 0; padding: 0; list-style: none }
.big li { background: var(--wash); border-radius: 8px; padding: .75rem 1.1rem; min-width: 11rem }
.big b { display: block; font-size: 1.7rem; line-height: 1.25; font-variant-numeric: tabular-nums }
.notes { border-left: 4px solid var(--warn); background: var(--wash); margin: 1.25rem 0;
  padding: .6rem 1rem .6rem 2rem }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; font-size: .9rem }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .4rem 1.5rem; margin: 0 } dd { margin: 0 }
code, pre { font: .85em/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace }
pre { background: var(--wash); border-radius: 8px; padding: .75rem 1rem; margin: 0; white-space: pre-wrap }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: .9rem }
th, td { padding: .4rem 1.25rem .4rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
th { color: var(--soft); font-weight: 500; vertical-align: bottom } thead th, .key { white-space: nowrap }
tbody th { padding-top: 1.25rem } .key, td.name { font-weight: 600 } th.key { font-weight: 500 }
th.n, td.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
.name { min-width: 9rem } .note { min-width: 11rem } .wrong { color: var(--red); font-weight: 600 }
.id { min-width: 8rem; padding-right: .75rem; font-size: .94em } th.id { font-size: inherit }
.bar { min-width: 8rem; width: 22% } .bar svg { display: block; width: 100%; height: 1.35rem }
.rate { fill: var(--blue); opacity: .6 } .ends { fill: var(--ink) } .whole { fill: var(--soft) }
.pictures, .two { display: grid; gap: 2rem 2.5rem; align-items: start }
.pictures { grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)) }
.two { grid-template-columns: repeat(auto-fit, minmax(min(100%, 34rem), 1fr)) } .two > * { min-width: 0 }
figure { margin: 0; max-width: 34rem } figcaption { margin-top: .5rem } figure text { font-family: inherit !important }
figure svg { display: block; width: 100%; height: auto; stroke-linejoin: round }
footer { border-top: 1px solid var(--line); margin-top: 3rem; padding: 1rem 1.5rem 2.5rem; font-size: .9rem }
@media (max-width: 600px) { main, footer { padding-left: 1rem; padding-right: 1rem } header { padding-top: 1.25rem }
  h1 { font-size: 1.5rem } .big li { flex: 1 1 8rem; min-width: 0 } dl { display: block } dd { margin-bottom: .5rem } }
@media print { body { font-size: 10pt } nav { display: none } main, footer { padding: 0 } .scroll { overflow: visible }
  h2, h3 { break-after: avoid } figure, tr, .big li { break-inside: avoid } table { font-size: 8pt }
  th, td { padding-right: .75rem } .name, .bar { min-width: 4rem; width: auto } .note { min-width: 7rem } }
""")
