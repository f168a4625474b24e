import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from skfdan import make_table, summarize_table
from skfdan.table import SKIP
from skfdan.utils._table_html import bytes_text, label_text

TAGS = {
    *("div", "style", "p", "strong", "ul", "li", "details", "summary", "span"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td"),
}
ATTRIBUTES = {"class", "style", "scope", "colspan", "aria-label", "aria-hidden", "role", "tabindex"}
EVIL = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Reads the tables, and that elements are closed in order and harmless."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text, self.tables, self.bars = [], [], {}, []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert tag in TAGS
        assert {name for name, _ in attrs} <= ATTRIBUTES
        attrs = dict(attrs)
        self.open.append(tag)
        if tag == "caption":
            self.caption = ""
        elif tag == "tr":
            self.tables[self.caption].append([])
        elif tag in ("th", "td"):
            if tag == "th":
                assert attrs["scope"] == ("col" if "thead" in self.open else "row")
            self.tables[self.caption][-1] += [""] * int(attrs.get("colspan", 1))
        elif tag == "span":
            assert attrs["class"] == "skfdan-bar"
            self.bars.append(float(re.fullmatch(r"width: ([\d.]+)%", attrs["style"])[1]))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "caption":
            assert self.caption not in self.tables
            self.tables[self.caption] = []

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text.append(data)
        if "caption" in self.open:
            self.caption += data
        elif self.open and self.open[-1] in ("th", "td"):
            self.tables[self.caption][-1][-1] += data

    def frame(self, caption):
        head, *rows = self.tables[caption]
        assert {len(row) for row in rows} <= {len(head)}
        return pd.DataFrame([row[1:] for row in rows], [row[0] for row in rows], head[1:])


def page(*args):
    return Page(summarize_table(*args)._repr_html_())


def voices(n):
    return make_table(audio=["a.wav"] * n)


def test_the_numbers_are_the_summary_s():
    table = make_table(
        visual=[np.zeros((3, 20, 20), np.uint8)] * 3 + [None] * 1500,
        audio=["a.wav"] * 1502 + [SKIP],
    )
    y, groups = ["joy"] * 3 + ["fear"] * 1500, ["Ada"] * 4 + ["Bo"] * 1499
    summary, html = summarize_table(table, y, groups), page(table, y, groups)
    classes = html.frame("Rows and cells by class")
    assert classes["rows"].tolist() == ["1,500", "3"]
    assert classes["share"].tolist() == ["99.8%", "0.2%"]
    assert classes["visual"].tolist() == ["0", "3"]
    assert html.bars == [100.0, 0.2]
    assert html.frame("Rows")["rows"].to_dict() == {
        kind: f"{n:,}" for kind, n in summary.rows.items()
    }
    cells = html.frame("Cells by modality")
    assert cells.loc["visual"].tolist() == ["3", "1,500", "0", "1.2 kB"]
    assert cells.loc["audio"].tolist() == ["1,502", "0", "1", "0 B"]
    kinds = html.frame("Kinds of cells")
    assert kinds.iloc[1].tolist() == ["array", "uint8", "(3, 20, 20)", "3", "1.2 kB"]
    assert kinds.index.tolist() == ["visual", "visual", "audio", "audio"]
    speakers = html.frame("Rows by speaker and class")
    assert speakers.loc["Ada"].tolist() == ["1", "3", "4"]
    assert speakers.loc["Bo"].tolist() == ["1,499", "0", "1,499"]
    assert "Speakers (2)" in html.text
    assert set(summary.notes) <= set(html.text)
    assert f": {summary.headline}" in html.text


def test_labels_are_escaped():
    table = voices(4)
    table["note"] = "<b>"
    y, groups = [EVIL, EVIL, EVIL, "&amp;"], ['"><img src=x>', "a & b", "a & b", EVIL]
    raw = summarize_table(table, y, groups)._repr_html_()
    assert "<script" not in raw
    assert "<img" not in raw
    html = page(table, y, groups)  # which refuses tags and attributes that it does not know
    assert html.frame("Rows and cells by class")["rows"].to_dict() == {EVIL: "3", "&amp;": "1"}
    assert html.frame("Rows by speaker and class").index.tolist() == sorted(set(groups))
    assert any(EVIL in note for note in html.text)


def test_types_and_suffixes_are_escaped():
    odd = type("<i>", (), {})()
    kinds = page(make_table(audio=["a.<b>", odd])).frame("Kinds of cells")
    assert kinds["format"].tolist() == ["", ".<b>", "<i>"]


@pytest.mark.parametrize(("n", "note"), [(50, None), (51, "1"), (1500, "1,450")])
def test_many_speakers(n, note):
    html = page(voices(2 * n), ["joy"] * 2 * n, np.arange(2 * n) % n)
    *lines, last = html.tables["Rows by speaker and class"][1:]
    assert f"Speakers ({n:,})" in html.text
    if note is None:
        assert len(lines) + 1 == n
        assert last == ["49", "2", "2"]
    else:
        assert len(lines) == 50
        assert last[-1] == f"… and {note} more speakers, in summary.speakers"


def test_many_classes():
    html = page(voices(120), [f"class {i // 2:02d}" for i in range(120)], ["Ada", "Bo"] * 60)
    lines = html.tables["Rows and cells by class"][1:]
    assert len(lines) == 51
    assert lines[-1][-1] == "… and 10 more classes, in summary.classes"
    assert len(html.bars) == 50
    speakers = html.frame("Rows by speaker and class (and 30 more classes)")
    assert speakers.columns.tolist() == [f"class {i:02d}" for i in range(30)] + ["all classes"]
    assert speakers["all classes"].tolist() == ["60", "60"]
    assert len(summarize_table(voices(120), range(120))._repr_html_()) < 30_000


@pytest.mark.parametrize("args", [(), ([],), ([], [])])
def test_no_row(args):
    html = page(voices(0), *args)
    assert html.tables["Rows and cells by class"] == [
        ["", "", "rows", "share", "visual", "audio", "paired"]
    ]
    assert html.bars == []


def test_without_speakers_there_is_no_table_of_them():
    assert "details" in summarize_table(voices(2), [0, 1], [0, 0])._repr_html_()
    assert "details" not in summarize_table(voices(2), [0, 1])._repr_html_()


def test_it_takes_the_colours_of_the_page():
    html = summarize_table(voices(2), [0, 1])._repr_html_()
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
    # One colour of its own, which a page may change, and a grey that is seen on both.
    assert re.findall(r"#\w+", style) == ["#4c8bf5"]
    assert "var(--skfdan-bar, #4c8bf5)" in style
    assert set(re.findall(r"[^-]color: ([^;}]+)", style)) == {"inherit"}
    # Nothing outside is touched, and nothing is loaded.
    rules = re.findall(r"([^{}]+)\{", style)
    assert all(s.strip().startswith(".skfdan-summary") for rule in rules for s in rule.split(","))
    assert not re.search(r"url|@import|http", html)


def contrast(a, b):
    """Return the contrast of two colours, as WCAG 2 defines it."""

    def luminance(colour):
        values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("background", ["#ffffff", "#000000", "#111111", "#1e1e1e"])
def test_bars_are_seen(background):
    assert contrast("#4c8bf5", background) >= 3


def test_label_text():
    assert label_text("joy") == "joy"
    assert label_text(3) == "3"
    assert label_text("a\nb\u202e") == "a\\nb\\u202e"
    assert label_text("x" * 60) == "x" * 60
    assert label_text("x" * 61) == "x" * 59 + "…"


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_500_000, "1.5 MB"), (2 * 10**9, "2.0 GB")],
)
def test_bytes_text(n, text):
    assert bytes_text(n) == text
