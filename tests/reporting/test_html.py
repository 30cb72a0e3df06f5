import re

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from sv_ssl.reporting import html, plots

UGLY = "<b>\"'&amp; \u8a71\u8005 \u202e"


def system(n=400):
    return [i % 7 + 3 * (i % 2) for i in range(n)], [i % 2 for i in range(n)]


def part(name, *values):
    """A macro of parts.html, as the pages use it."""
    return getattr(html.environment().get_template("parts.html").module, name)(*values)


def test_texts_and_attributes_are_escaped():
    escaped = "&lt;b&gt;&#34;&#39;&amp;amp; \u8a71\u8005 \u202e"
    assert part("cell", "n", UGLY) == escaped and part("cell", "n", Markup("<i>it</i>")) == "<i>it</i>"
    assert part("cell", "id", UGLY) == f"<code><bdi>{escaped}</bdi></code>"
    assert f"<dt><bdi>{escaped}</bdi></dt><dd><bdi>{escaped}</bdi></dd>" in part("definitions", {UGLY: UGLY})
    made = part("table", html.table(UGLY, {UGLY: UGLY}, {UGLY: [{UGLY: UGLY}]}))
    assert f'aria-label="{escaped}"' in made and f'<td class="{escaped}">{escaped}</td>' in made
    assert made.count(escaped) == 6 and "<b>" not in made


def test_no_template_turns_escaping_off():
    paths = list(html.TEMPLATES.glob("*.html"))
    assert len(paths) >= 3
    for path in paths:
        assert not re.search(r"\|\s*safe|autoescape|<script|\bon\w+=", path.read_text())


def test_a_missing_value_is_an_error():
    with pytest.raises(UndefinedError):
        html.render("page.html")


def test_a_table_leaves_out_columns_that_are_empty_in_all_rows():
    groups = {"": [{"a": "1"}], "group": [{"a": "2", "b": "", "c": "3"}]}
    made = part("table", html.table("T", {"a": "n", "b": "n", "c": "n"}, groups))
    assert re.findall(r'scope="col">(.*?)</th>', made) == ["a", "c"]
    assert re.findall(r"<td.*?>(.*?)</td>", made) == ["1", "", "2", "3"]
    assert '<th scope="rowgroup" colspan="2"><bdi>group</bdi></th>' in made


@pytest.mark.parametrize("name", ["plain", UGLY, 'id="x" href="#x" xmlns="y" : #0072b2'])
def test_a_picture_keeps_names_and_its_own_ids(name):
    drawn = html.picture("DET curve", "caption", lambda file: plots.det_curve(file, {name[:30]: system()}))
    made = part("figure", drawn)
    shown = name[:30].replace("\u202e", "\ufffd").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert f">{shown}: EER" in made
    tags = "".join(re.findall("<[^>]*>", made))
    ids = re.findall(r' id="([^"]*)"', tags)
    assert len(ids) == len(set(ids)) > 0 and all(i.startswith("det-curve-") for i in ids)
    assert set(re.findall(r'(?:href="|url\()#([\w-]+)', tags)) == set(ids)
    assert "http" not in made and "<style" not in made


def test_the_colours_of_a_picture_are_the_pages():
    made = html.picture("Scores", "", lambda file: plots.score_histogram(file, *system(), 3.0)).svg
    css = (html.TEMPLATES / "style.css").read_text()
    assert not re.findall("#[0-9a-f]{6}", made)
    for name in re.findall(r"var\((--\w+)\)", made):
        assert css.count(f" {name}: #") == 2  # light and dark
