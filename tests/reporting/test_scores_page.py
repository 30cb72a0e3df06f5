import re
from html.parser import HTMLParser

import numpy as np
import pytest

from sv_ssl.core.errors import InputError
from sv_ssl.reporting import scores_page
from sv_ssl.verification import scoring
from sv_ssl.verification.conditions import evaluate_each
from sv_ssl.verification.trials import Trials

UGLY = [
    '<script src="http://x/a.js"></script>',
    "a&b\"c'd/\u8a71\u8005.wav",
    "\u202eevil",
    "</code></td>",
    "x" * 300,
    "\x1b[31m",
]
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """The page's tags, checked for balance, and its texts."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.cells, self.ids = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        assert len(dict(attributes)) == len(attributes)
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if "td" in self.open or "th" in self.open:
            self.cells[-1] += data


def listed(ids, n=200, seed=0, notes=()):
    """Trials of random pairs of ids, and their scores."""
    rng = np.random.default_rng(seed)
    enroll, test = rng.integers(0, len(ids), (2, n)).astype(np.int32)
    labels = np.arange(n) % 3 == 0
    facts = "lists/my <list>.txt", "da39a3ee", '"label enroll test"'
    return Trials(*facts, list(ids), enroll, test, labels, None, list(notes)), rng.normal(size=n) + 1.5 * labels


def made(tmp_path, trials, scores, conditions=None, ci=False, points=((0.01, 1, 1), (0.05, 10, 1)), **options):
    path = tmp_path / "report.html"
    scores_page.write(path, trials, scores, scoring.report(trials, scores, points, ci), conditions, **options)
    return path.read_text(encoding="utf-8")


IDS = [f"id{i // 5:03d}/s/{i}.wav" for i in range(50)]


def test_tags_are_balanced_and_ids_unique(tmp_path):
    page = Page(made(tmp_path, *listed(IDS)))
    assert len(page.ids) == len(set(page.ids)) > 3
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert links and links <= {f"#{i}" for i in page.ids}


def test_the_page_needs_nothing_else(tmp_path):
    text = made(tmp_path, *listed(IDS))
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "base", "image"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not {"src", "srcset", "data", "poster", "action"} & set(attributes)
        assert all((value or "#")[0] == "#" for name, value in attributes.items() if name.endswith("href"))
    assert "http:" not in text and "https:" not in text and "@import" not in text
    assert set(re.findall(r"url\((.)", text)) == {"#"}


def test_ids_and_names_are_escaped_wherever_they_appear(tmp_path):
    trials, scores = listed(UGLY, n=60, notes=["<note>"])
    report_of = scoring.report(trials, scores)
    row = {"by": "<by>", "value": "<value>", "n_target": 1, "n_nontarget": 0, "eer": None, "min_dcf": {}}
    row["note"] = "<why>"
    told = {"about": {"<key>": "<words>"}, "notes": ["<more>"], "command": "sv-score '<a>' && rm"}
    scores_page.write(tmp_path / "a.html", trials, scores, {**report_of, "scores": "<scores>"}, [row], **told)
    page = Page((tmp_path / "a.html").read_text(encoding="utf-8"))
    assert not {"script", "note", "by", "value", "why", "scores", "key", "words", "more", "a", "list"} & {
        tag for tag, attributes in page.tags if "href" not in attributes
    }
    shown = {"<note>", "<by>", "<value>", "<why>", "<scores>", "<key>", "<words>", "<more>", told["command"], *UGLY}
    assert shown <= {*page.texts}
    assert "my <list>.txt" in page.texts and any("my <list>.txt: EER" in text for text in page.texts)


def test_ids_keep_their_direction_to_themselves(tmp_path):
    text = made(tmp_path, *listed(UGLY, n=60))
    assert text.count("\u202e") == text.count("<bdi>\u202e") > 0


def test_a_name_that_is_no_text_is_spelled_out(tmp_path):
    trials, scores = listed(IDS)
    assert "bad\\udcff.txt" in made(tmp_path, trials._replace(name="bad\udcff.txt"), scores)


def test_every_metric_is_there_with_its_convention(tmp_path):
    trials, scores = listed(IDS)
    facts = scoring.report(trials, scores, [(0.01, 1, 1), (0.05, 10, 1)])
    cells = Page(made(tmp_path, trials, scores)).cells
    rows = {cells[i]: cells[i + 1 : i + 6] for i in range(len(cells) - 5)}
    assert rows["EER"][0] == f"{100 * facts['eer']:.3f}\u202f%"
    assert float(rows["EER"][1]) == pytest.approx(facts["eer_threshold"], rel=1e-5)
    for kind in ("min_dcf", "act_dcf"):
        name = kind.replace("_", "").replace("dcf", "DCF")
        assert rows[f"{name}(0.05,10,1)"][0] == f"{facts[kind]['0.05,10,1']:.4f}"
        assert rows[f"{name}(0.05,10,1)"][2:] == ["0.05", "10", "1"]
        assert rows[f"{name}(0.01)"][0] == f"{facts[kind]['0.01']:.4f}"
    assert float(rows["actDCF(0.05,10,1)"][1]) == pytest.approx(np.log(0.95 / 0.5), rel=1e-5)
    assert rows["ROCCH-EER"][0] == f"{100 * facts['eer_rocch']:.3f}\u202f%" and rows["AUC"][0] == f"{facts['auc']:.5f}"
    assert rows["Cllr"][0] == f"{facts['cllr']:.4f}" and rows["minCllr"][0] == f"{facts['min_cllr']:.4f}"
    assert "95 % interval" not in cells


def test_what_was_scored_is_told(tmp_path):
    page = Page(made(tmp_path, *listed(IDS), about={"left out": "3 trials"}, notes=["note: rounded", "rounded"]))
    for text in ("my <list>.txt", "lists/my <list>.txt", "da39a3ee", '"label enroll test"', "left out", "3 trials"):
        assert text in page.texts
    assert "200 trials (67 target, 133 non-target) of 50 utterances" in page.texts
    assert page.texts.count("rounded") == 1


def test_intervals_are_shown_with_how_they_were_made(tmp_path):
    trials, scores = listed(IDS)
    ci = scoring.report(trials, scores, ci=True)["ci"]
    page = Page(made(tmp_path, trials, scores, ci=True))
    low, high = (f"{100 * end:.3f}\u202f%" for end in ci["eer"])
    assert f"{low} to {high}" in page.cells
    assert any(text.startswith("95 % intervals by 1,000 resamplings of 50 utterances") for text in page.texts)


def test_infinite_values_are_shown(tmp_path):
    trials, scores = listed(IDS)
    scores = np.where(trials.labels, scores, np.inf)
    text = made(tmp_path, trials, scores)
    cells = Page(text).cells
    assert cells[cells.index("Cllr") + 1] == "\u221e" and "inf<" not in text


def test_few_errors_are_told(tmp_path):
    assert "fewer than 30" in " ".join(Page(made(tmp_path, *listed(IDS))).texts).replace("thin: fewer than 30", "")
    texts = Page(made(tmp_path, *listed(IDS, n=3000))).texts
    assert not [text for text in texts if "fewer than 30" in text and "thin" not in text]


def test_the_breakdown_shows_each_condition_and_why_one_has_no_rates(tmp_path):
    trials, scores = listed(IDS, n=3000)
    half = np.arange(3000) % 2 == 0
    split = [("sex", "f", half), ("sex", "m", ~half), ("length", "long", trials.labels)]
    conditions = evaluate_each(trials, scores, split, points=[(0.01, 1, 1), (0.05, 10, 1)], ci=True)
    cells = Page(made(tmp_path, trials, scores, conditions)).cells
    at = cells.index("sex")
    rows = [cells[at + 1 + 9 * i : at + 10 + 9 * i] for i in range(2)]
    for row, condition in zip(rows, conditions):
        assert row[:4] == [condition["value"], "500", "1,000", f"{100 * condition['eer']:.2f}\u202f%"]
        assert row[4].startswith(f"{100 * condition['ci']['eer'][0]:.2f}") and row[5] == ""
        assert row[6:] == [f"{condition['min_dcf'][name]:.3f}" for name in ("0.01", "0.05,10,1")] + [condition["note"]]
    assert cells[at + 19 : at + 29] == [
        "length",
        "long",
        "1,000",
        "0",
        "\u2013",
        "",
        "",
        "\u2013",
        "\u2013",
        "no non-target trials",
    ]


def test_bars_are_as_long_as_the_error_rates(tmp_path):
    trials, scores = listed(IDS, n=3000)
    counts = {"by": "kind", "n_target": 1, "n_nontarget": 1, "min_dcf": {}}
    text = made(tmp_path, trials, scores, [{**counts, "value": rate, "eer": rate} for rate in (0.4, 0.8, 0.0)])
    widths = [float(width) for width in re.findall('class="rate" x="0.00" width="(.*?)"', text)]
    whole = scoring.report(trials, scores)["eer"]
    assert widths == pytest.approx([100 * whole / 0.8, 50, 100, 0], abs=0.01)
    assert "Breakdown" not in made(tmp_path, trials, scores)


@pytest.mark.parametrize("decimals", [9, 1, 0])
def test_the_hardest_trials_are_those_of_a_full_sort(decimals):
    trials, scores = listed(IDS, n=500)
    scores = np.round(scores, decimals)
    rows = [(float(s), trials.ids[e], trials.ids[t]) for s, e, t in zip(scores, trials.enroll, trials.test)]
    for target, sign in ((True, 1), (False, -1)):
        kind = [row for row, label in zip(rows, trials.labels) if label == target]
        assert (
            scores_page.hardest(trials, scores, target, 20)
            == sorted(kind, key=lambda r: (sign * r[0], r[1], r[2]))[:20]
        )
        assert len(scores_page.hardest(trials, scores, target, 1000)) == len(kind)


def test_hardest_trials_are_listed_with_their_decision(tmp_path):
    enroll, test, labels = np.array([0, 0, 1, 2]), np.array([1, 2, 3, 3]), np.array([1, 1, 0, 0], bool)
    trials = Trials("l", "0", "f", ["a", "b", "c", "d"], enroll, test, labels, None)
    scores = np.array([0.2, 0.9, 0.5, 0.1])
    cells = Page(made(tmp_path, trials, scores)).cells
    first = cells.index("score")
    assert scoring.report(trials, scores)["eer_threshold"] == 0.5
    assert cells[first + 4 : first + 12] == ["0.5", "b", "d", "accepted", "0.1", "c", "d", "refused"]
    assert cells[first + 16 : first + 24] == ["0.2", "a", "b", "refused", "0.9", "a", "c", "accepted"]


def test_the_same_input_gives_the_same_bytes_in_any_order(tmp_path):
    trials, scores = listed(IDS, n=500)
    first = made(tmp_path, trials, scores, command="sv-score")
    assert made(tmp_path, trials, scores, command="sv-score") == first
    other = np.random.default_rng(1).permutation(500)
    shuffled = trials._replace(enroll=trials.enroll[other], test=trials.test[other], labels=trials.labels[other])
    assert made(tmp_path, shuffled, scores[other], command="sv-score") == first


def test_the_file_is_written_aside(tmp_path):
    trials, scores = listed(IDS)
    (tmp_path / "report.html").write_text("old")
    with pytest.raises(InputError, match="NaN"):
        scores_page.write(tmp_path / "report.html", trials, scores * np.nan, scoring.report(trials, scores))
    assert (tmp_path / "report.html").read_text() == "old"
    with pytest.raises(InputError, match="cannot write"):
        scores_page.write(tmp_path / "report.html" / "a.html", trials, scores, scoring.report(trials, scores))
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_list_without_labels_is_refused(tmp_path):
    trials, scores = listed(IDS)
    with pytest.raises(InputError, match="no labels"):
        scores_page.write(tmp_path / "a.html", trials._replace(labels=None), scores, scoring.report(trials, scores))
