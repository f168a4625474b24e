"""One module a room: what users do wrong, under the words of ``docs/errors.md``."""

from bad_input import (
    choosing,
    command_line,
    corpora,
    media,
    models,
    networks,
    prediction,
    tables,
    training,
)

ROOMS = (
    tables,
    corpora,
    media,
    training,
    prediction,
    choosing,
    models,
    networks,
    command_line,
)
#: What the user does, as in the first column of the tables: a function that does it.
CASES = {words: do for room in ROOMS for words, do in room.CASES.items()}
