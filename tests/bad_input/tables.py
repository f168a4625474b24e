"""Modality tables."""

import pandas as pd

from bad_input.shared import Case
from skfdan import make_table, stack_modalities, summarize_table, unpair

CASES = {
    "`make_table()` without a column": lambda c: make_table(),
    '`make_table(audio="a.wav")`': lambda c: make_table(audio="a.wav"),
    "`make_table(audio=frame)`": lambda c: make_table(audio=c.table),
    "`make_table` with a number as a column": lambda c: make_table(audio=3),
    "`make_table` with columns of different lengths": lambda c: make_table(
        visual=c.faces, audio=c.sound[:5]
    ),
    "`stack_modalities()` without a source": lambda c: stack_modalities(),
    "`stack_modalities(audio=[cells])`, without labels": lambda c: stack_modalities(
        audio=[c.sound]
    ),
    "`stack_modalities` with more cells than labels": lambda c: stack_modalities(
        audio=(c.sound, c.y[:-2])
    ),
    "`stack_modalities` with strings as one label, integers as the other": lambda c: (
        stack_modalities(visual=(c.faces, [0] * 12), audio=(c.sound, c.y))
    ),
    "`stack_modalities` with speakers of one source alone": lambda c: stack_modalities(
        visual=(c.faces, c.y), audio=(c.sound, c.y, c.speakers)
    ),
    "`unpair` of a frame without modality columns": lambda c: unpair(
        c.table.rename(columns={"visual": "face", "audio": "voice"}), c.y
    ),
    "`unpair` with too few labels": lambda c: unpair(c.table, c.y[:4]),
    "`unpair` of a table with two columns of voices": lambda c: unpair(
        c.table[["audio", "audio"]], c.y
    ),
    "`unpair` of a table without any cell": lambda c: unpair(
        make_table(audio=[None, None]), ["joy", "fear"]
    ),
    "`summarize_table(array)`": lambda c: summarize_table(c.X, c.y),
    "`summarize_table` of a frame without modality columns": lambda c: summarize_table(
        c.table.rename(columns={"visual": "face", "audio": "voice"}), c.y
    ),
    "`summarize_table` of a frame with two columns of voices": lambda c: summarize_table(
        c.table.rename(columns={"visual": "mel__audio"})
    ),
    "`summarize_table` with too few labels": lambda c: summarize_table(c.table, c.y[:4]),
    "`summarize_table` with a frame as labels": lambda c: summarize_table(
        c.table, pd.DataFrame({"emotion": c.y})
    ),
    "`summarize_table` with lists as speakers": lambda c: summarize_table(
        c.table, c.y, [["Ada"]] * 12
    ),
}


def _array(c: Case):
    unpair(c.X, c.y)


CASES["`unpair(array, y)`"] = _array
