"""HTML pages from the templates in `templates/`, in which every text is escaped: tables, pictures inside, one look.

A page needs nothing else: no script, no network. It is read light and dark, wide and narrow, and on paper.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

TEMPLATES = Path(__file__).parent / "templates"
Rows = Sequence[Mapping[str, Any]]  # {heading: cell} each


class Table(NamedTuple):
    """What the macro `table` shows."""

    label: str
    columns: dict[str, str]  # the class of each heading, which says what the cells hold
    groups: Mapping[str, Rows]  # the group "" has no heading of its own


class Picture(NamedTuple):
    """What the macro `figure` shows."""

    svg: Markup
    caption: str


@functools.cache
def environment() -> Environment:
    """Return jinja2 with our templates; what is not Markup is escaped, and a missing value is an error."""
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["anchor"] = anchor
    return templates


def render(template: str, **values: Any) -> str:
    """Return a whole page."""
    return environment().get_template(template).render(values)


def anchor(heading: str) -> str:
    """Return the id of a section.

    >>> anchor("Hardest trials")
    'hardest-trials'
    """
    return heading.lower().replace(" ", "-")


def table(label: str, columns: Mapping[str, str], groups: Mapping[str, Rows]) -> Table:
    """Return a table of {heading: class} and {group: rows}, without the columns that are empty in all rows."""
    rows = [row for group in groups.values() for row in group]
    filled = {heading: kind for heading, kind in columns.items() if any(row.get(heading) for row in rows)}
    return Table(label, filled, groups)


def picture(label: str, caption: str, draw: Callable[[io.StringIO], None]) -> Picture:
    """Return the SVG that a function of `plots` draws, in the page's colours and with ids that no other picture has."""
    file = io.StringIO()
    draw(file)
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", file.getvalue(), flags=re.DOTALL)
    svg = svg[svg.index("<svg") :].strip()
    used = set(re.findall(r'(?:href="|url\()#([\w-]+)', svg))
    key, colors = anchor(label), _colors()

    def rewritten(tag: re.Match) -> str:
        text = re.sub(r' id="([^"]*)"', lambda i: f' id="{key}-{i[1]}"' if i[1] in used else "", tag[0])
        text = re.sub(r'(?:xlink:)?href="#', f'href="#{key}-', text).replace("url(#", f"url(#{key}-")
        return re.sub(r": (#[0-9a-f]{6})", lambda color: f": {colors.get(color[1], color[1])}", text)

    svg = re.sub(r"<[^>]*>", rewritten, svg)
    opening = re.sub(r' (?:xmlns(?::\w+)?|version|width|height)="[^"]*"', "", svg[: svg.index(">")])
    return Picture(Markup(f'{opening} role="img" aria-label="{escape(label)}"{svg[svg.index(">") :]}'), caption)


def _colors() -> dict[str, str]:
    """Return for the colours of the pictures those of the page, which are others in the dark."""
    from sv_ssl.reporting.plots import COLORS, GREY, INK, PALE, PAPER

    names = {INK: "ink", GREY: "soft", PALE: "line", PAPER: "paper", COLORS[0]: "blue", COLORS[1]: "red"}
    return {color.lower(): f"var(--{name})" for color, name in names.items()}
