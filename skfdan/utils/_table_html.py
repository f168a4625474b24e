"""HTML of a table's summary: plain semantic markup, no script, the colours of the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from skfdan.summary import TableSummary

__all__ = ["bytes_text", "label_text", "summary_html"]

#: Rows and columns of one table that are written out; the frames hold all.
ROWS, COLUMNS = 50, 30
LONGEST_LABEL = 60

# Text, background and borders come from the page, so that light and dark themes need nothing
# of their own; the one colour has a contrast above 3:1 to white and to black. Selectors are
# longer than those that notebooks have for every table of an output.
STYLE = """
.skfdan-summary {color: inherit; font-size: 0.9em; line-height: 1.4; max-width: 100%;}
.skfdan-summary p {margin: 0 0 0.4em;}
.skfdan-summary ul {margin: 0 0 0.6em; padding-left: 1.4em;}
.skfdan-summary .skfdan-parts {display: flex; flex-wrap: wrap; gap: 0.4em 2.5em;
  align-items: flex-start;}
.skfdan-summary .skfdan-part {overflow-x: auto; max-width: 100%;}
.skfdan-summary .skfdan-part table {border-collapse: collapse; margin: 0 0 0.6em;
  color: inherit; border: none;}
.skfdan-summary .skfdan-part caption {caption-side: top; text-align: left; font-weight: bold;
  padding: 0.2em 0; color: inherit; white-space: nowrap;}
.skfdan-summary .skfdan-part tr {background: transparent; color: inherit;}
.skfdan-summary .skfdan-part th, .skfdan-summary .skfdan-part td {padding: 0.1em 0.6em;
  background: transparent; color: inherit; border: none; text-align: right;
  font-variant-numeric: tabular-nums; max-width: 22em; overflow-wrap: break-word;}
.skfdan-summary .skfdan-part td {white-space: nowrap;}
.skfdan-summary .skfdan-part thead th, .skfdan-summary .skfdan-part thead td {
  border-bottom: 1px solid rgba(128, 128, 128, 0.6);}
.skfdan-summary .skfdan-part th {font-weight: 600;}
.skfdan-summary .skfdan-part .skfdan-text {text-align: left; min-width: 4em;}
.skfdan-summary .skfdan-part .skfdan-zero {opacity: 0.65;}
.skfdan-summary .skfdan-part .skfdan-rail {width: 7em; padding-right: 0;}
.skfdan-summary .skfdan-bar {display: block; height: 0.7em; min-width: 1px;
  background: var(--skfdan-bar, #4c8bf5); forced-color-adjust: none;}
.skfdan-summary summary {cursor: pointer; font-weight: bold;}
"""


def bytes_text(n: int) -> str:
    """Write a number of bytes, as in ``"1.5 MB"``.

    Parameters
    ----------
    n : int
        Bytes.

    Returns
    -------
    str
        The number in B, kB (1000 B), MB or GB.
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n} B"


def label_text(label: Any) -> str:
    """Write a label or a name on one line.

    Parameters
    ----------
    label : object
        A class, speaker, shape or format.

    Returns
    -------
    str
        Its text, shortened; what cannot be printed (line ends, what steers a terminal or
        turns the direction of writing) is escaped.
    """
    text = str(label)
    text = text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def summary_html(summary: TableSummary) -> str:
    """Write a summary as HTML that can stand in any page.

    Parameters
    ----------
    summary : TableSummary
        What :func:`skfdan.summarize_table` returned.

    Returns
    -------
    str
        One ``div`` with its style.
    """
    classes, modalities, rows = summary.classes, summary.modalities, summary.rows
    parts = [
        _table(
            "Rows and cells by class",
            classes.columns,
            classes.index,
            classes.assign(share=[f"{v:.1%}" for v in classes["share"]]),
            bars=classes["rows"].tolist(),
            rest="classes, in summary.classes",
        ),
        _table("Rows", ["rows"], rows.index, pd.DataFrame({"rows": rows})),
        _table(
            "Cells by modality",
            [*modalities.columns[:-1], "memory"],
            modalities.index,
            modalities.assign(nbytes=[bytes_text(n) for n in modalities["nbytes"]]),
        ),
        _table(
            "Kinds of cells",
            [*summary.cells.columns[1:-1], "memory"],
            summary.cells["modality"],
            summary.cells.iloc[:, 1:].assign(
                nbytes=[bytes_text(n) if n else "" for n in summary.cells["nbytes"]]
            ),
            rest="kinds, in summary.cells",
        ),
    ]
    notes = "".join(f"<li>{escape(note)}</li>" for note in summary.notes)
    return "\n".join(
        [
            f'<div class="skfdan-summary"><style>{STYLE}</style>',
            f"<p><strong>Modality table</strong>: {escape(summary.headline)}</p>",
            f"<ul>{notes}</ul>" if notes else "",
            f'<div class="skfdan-parts">{"".join(parts)}</div>',
            _speakers(summary.speakers),
            "</div>",
        ]
    )


def _speakers(speakers: pd.DataFrame | None) -> str:
    if speakers is None or not len(speakers):
        return ""
    shown = speakers.iloc[:, :COLUMNS].assign(**{"all classes": speakers.sum(axis=1)})
    wide = len(speakers.columns) - COLUMNS
    table = _table(
        "Rows by speaker and class" + (f" (and {wide:,} more classes)" if wide > 0 else ""),
        shown.columns,
        shown.index,
        shown,
        rest="speakers, in summary.speakers",
    )
    return (
        f"<details><summary>Speakers ({len(speakers):,})</summary>"
        f'<div class="skfdan-parts">{table}</div></details>'
    )


def _table(
    caption: str,
    columns: Iterable[Any],
    names: Sequence[Any],
    frame: pd.DataFrame,
    *,
    bars: Sequence[int] | None = None,
    rest: str = "",
) -> str:
    """Write one table; ``names`` are the heads of its rows, ``rest`` what a long one leaves out."""
    texts = [frame.iloc[:, i].dtype.kind not in "iuf" for i in range(frame.shape[1])]
    # Percentages and bytes are words for pandas, numbers for readers.
    left = [t and c in ("kind", "format", "shape") for t, c in zip(texts, columns, strict=True)]
    head = "".join(
        _cell("th", label_text(c), text, ' scope="col"')
        for c, text in zip(columns, left, strict=True)
    )
    rail = '<td class="skfdan-rail"></td>' if bars is not None else ""
    largest = max(bars, default=0) if bars is not None else 0
    body = []
    for i, (name, values) in enumerate(
        zip(names[:ROWS], frame.head(ROWS).itertuples(index=False, name=None), strict=True)
    ):
        cells = [_cell("th", label_text(name), True, ' scope="row"')]
        if bars is not None:
            cells.append(_bar(bars[i], largest))
        cells += [_value(v, text) for v, text in zip(values, left, strict=True)]
        body.append(f"<tr>{''.join(cells)}</tr>")
    if len(frame) > ROWS:
        span = len(left) + 1 + (bars is not None)
        note = f"… and {len(frame) - ROWS:,} more {rest}"
        body.append(f'<tr><td class="skfdan-text" colspan="{span}">{escape(note)}</td></tr>')
    # What scrolls must be reached by the keyboard too.
    return (
        f'<div class="skfdan-part" role="group" tabindex="0" aria-label="{escape(caption)}">'
        f"<table><caption>{escape(caption)}</caption><thead><tr><td></td>{rail}{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _cell(tag: str, text: str, left: bool, more: str = "") -> str:
    look = ' class="skfdan-text"' if left else ""
    return f"<{tag}{more}{look}>{escape(text)}</{tag}>"


def _value(value: Any, left: bool) -> str:
    if isinstance(value, str):
        return _cell("td", label_text(value), left)
    look = ' class="skfdan-zero"' if value == 0 else ""
    return f"<td{look}>{value:,}</td>"


def _bar(value: int, largest: int) -> str:
    # The number stands beside it: the bar says nothing that it does not.
    width = 100 * value / largest if largest else 0
    return (
        '<td class="skfdan-rail" aria-hidden="true">'
        f'<span class="skfdan-bar" style="width: {width:.1f}%"></span></td>'
    )
