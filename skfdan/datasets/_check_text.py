"""The report of a corpus check, to be read by people."""

from __future__ import annotations

from typing import Any

import pandas as pd

#: Problems of one kind that are listed, and lines of the balance table; the frames hold all.
SHOWN, SPEAKERS = 5, 40


def describe(problems: pd.DataFrame, balance: pd.DataFrame, summary: dict[str, Any]) -> str:
    """Write a check's summary, problems by kind and balance as lines of text."""
    lines = [_head(summary), *_media(summary), _verdict(summary)]
    for (severity, kind), rows in problems.groupby(["severity", "kind"], sort=False):
        lines += ["", f"{severity}: {kind} ({len(rows)})"]
        for row in rows.head(SHOWN).itertuples():
            place = [] if pd.isna(row.row) else [f"row {row.row}"]
            place += [_printable(row.file)] if row.file else []
            lines.append("  " + ": ".join([*([" ".join(place)] if place else []), row.detail]))
        if len(rows) > SHOWN:
            lines.append(f"  ... and {len(rows) - SHOWN} more")
    return "\n".join([*lines, "", *_balance(balance, summary)])


def _head(summary: dict[str, Any]) -> str:
    parts = [f"{summary['rows']:,} rows", f"{summary['files']:,} files"]
    parts += [f"{summary[k]} {k}" for k in ("speakers", "emotions") if summary[k]]
    return ", ".join(parts)


def _media(summary: dict[str, Any]) -> list[str]:
    lines = []
    rates = (f"{rate} Hz ({n:,})" for rate, n in summary["sample_rates"].items())
    if summary["sample_rates"]:
        lines.append(f"sound: {_time(summary['hours_of_sound'])}, {', '.join(rates)}")
    sizes = [f"{size} ({n:,})" for size, n in summary["frame_sizes"].items()]
    if sizes:
        film = f"{_time(summary['hours_of_video'])}, " if summary["hours_of_video"] else ""
        more = f" and {len(sizes) - SHOWN} more sizes" if len(sizes) > SHOWN else ""
        lines.append(f"pictures: {film}{', '.join(sizes[:SHOWN])}{more}")
    return lines


def _time(hours: float) -> str:
    return f"{hours:.2f} h" if hours >= 0.1 else f"{3600 * hours:.1f} s"


def _verdict(summary: dict[str, Any]) -> str:
    counts = [(summary["errors"], "error"), (summary["warnings"], "warning")]
    if not any(n for n, _ in counts):
        return "no problems"
    return ", ".join(f"{n:,} {word}{'' if n == 1 else 's'}" for n, word in counts)


def _balance(balance: pd.DataFrame, summary: dict[str, Any]) -> list[str]:
    if not summary["rows"]:
        return ["no clip has a label"]
    counts = balance.iloc[:-1, :-1]
    lines = ["rows by speaker and emotion (. is none)"]
    shown = balance
    if len(counts) > SPEAKERS:
        shown = pd.concat([balance.head(SPEAKERS), balance.tail(1)])
    lines += shown.astype(object).where(shown != 0, ".").to_string().splitlines()
    if len(counts) > SPEAKERS:
        lines.insert(-1, f"... and {len(counts) - SPEAKERS} more speakers")
    if summary["speakers"] is None:
        return [*lines, "speakers are not known: no split can be called speaker-independent"]
    lacking = int((counts == 0).any(axis=1).sum())
    return [*lines, f"{lacking} of {len(counts)} speakers lack an emotion"] if lacking else lines


def _printable(file: str) -> str:
    """Return a file name that can't steer a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in file)
