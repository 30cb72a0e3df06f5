import re

import pytest

from sv_ssl.reporting import html, plots

UGLY = "<b>\"'&amp; \u8a71\u8005 \u202e"


def system(n=400):
    return [i % 7 + 3 * (i % 2) for i in range(n)], [i % 2 for i in range(n)]


def test_an_element_escapes_its_text_and_its_attributes():
    escaped = "&lt;b&gt;&quot;&#x27;&amp;amp; \u8a71\u8005 \u202e"
    assert html.el("td", UGLY, html.Html("<i>it</i>"), 3) == f"<td>{escaped}<i>it</i>3</td>"
    assert html.el("td", class_="n", aria_label=UGLY) == f'<td class="n" aria-label="{escaped}"></td>'


def test_a_table_leaves_out_columns_that_are_empty_in_all_rows():
    made = html.table("T", {"a": "n", "b": "n", "c": "n"}, {"": [{"a": "1"}], "group": [{"a": "2", "b": "", "c": "3"}]})
    assert re.findall(r'scope="col">(.*?)</th>', made) == ["a", "c"]
    assert re.findall(r"<td.*?>(.*?)</td>", made) == ["1", "", "2", "3"]
    assert '<th scope="rowgroup" colspan="2"><bdi>group</bdi></th>' in made


@pytest.mark.parametrize("name", ["plain", UGLY, 'id="x" href="#x" xmlns="y" : #0072b2'])
def test_a_picture_keeps_names_and_its_own_ids(name):
    made = html.picture("DET curve", "caption", lambda file: plots.det_curve(file, {name[:30]: system()}))
    shown = name[:30].replace("\u202e", "\ufffd").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert f">{shown}: EER" in made
    tags = "".join(re.findall("<[^>]*>", made))
    ids = re.findall(r' id="([^"]*)"', tags)
    assert len(ids) == len(set(ids)) > 0 and all(i.startswith("det-curve-") for i in ids)
    assert set(re.findall(r'(?:href="|url\()#([\w-]+)', tags)) == set(ids)
    assert "http" not in made and "<style" not in made


def test_the_colours_of_a_picture_are_the_pages():
    made = html.picture("Scores", "", lambda file: plots.score_histogram(file, *system(), 3.0))
    assert not re.findall("#[0-9a-f]{6}", made)
    for name in re.findall(r"var\((--\w+)\)", made):
        assert html.CSS.count(f" {name}: #") == 2  # light and dark
