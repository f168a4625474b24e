"""Every row of the tables in ``docs/errors.md`` is what really happens."""

from __future__ import annotations

import importlib
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
from bad_input import CASES, ROOMS
from bad_input.command_line import Exited
from bad_input.shared import Case, Shared

PAGE = Path(__file__).parent.parent / "docs" / "errors.md"
#: What no row is about, and why.
NOT_IN_THE_TABLES = {
    "CorpusCheck": "check_corpus makes it",
    "Protocol": "make_protocol makes it",
    "MediaError": "an error of the tables",
    "ModelError": "an error of the tables",
    "FDANOutput": "holds what it is given",
    "FDRLOutput": "holds what it is given",
    "MISAOutput": "holds what it is given",
    "Padded": "holds what it is given",
    "SDTOutput": "holds what it is given",
    "WavFusionOutput": "holds what it is given",
    "TFMixOutput": "holds what it is given",
    "InputSpec": "holds what it is given",
    "LayerShape": "holds what it is given",
    "Embedded": "holds what it is given",
    # Plain torch, one step below what reads users' data: torch's own errors name the shapes.
    "DANNLoss": "tensors alone",
    "FDRLLoss": "takes what FDRLNet returns",
    "GMTCNet": "tensors alone",
    "LVC": "tensors alone",
    "LastLayers": "tensors alone",
    "InputNorm": "tensors alone",
    "a_distance": "tensors alone",
    "cross_attention": "tensors alone",
    "dsan_ramp": "one number, any",
    "dynamic_factor": "tensors alone",
    "grad_reverse": "tensors alone",
    "memberships": "tensors alone",
    "homogeneous_margin_loss": "tensors alone",
    "paper_factor": "tensors alone",
    "sdt_loss": "takes what SDTNet returns",
    "wavfusion_loss": "takes what WavFusionNet returns",
    "misa_losses": "takes what MISANet returns",
}


@dataclass
class Row:
    """One row of the tables."""

    words: str
    outcomes: list[tuple[str, str]]  # type and beginning of each error or warning
    remedies: list[str]  # what the message itself says to do


def read_page(text: str) -> list[Row]:
    rows = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        if not line.startswith("| ") or line.startswith(("| What you do", "| ---")):
            continue
        assert len(cells) == 3, line
        outcomes = [
            (kind, beginning)
            for kind, beginning in re.findall(r"`([A-Z]\w+|exit code \d): (.*?)`", cells[1])
        ]
        rows.append(Row(cells[0], outcomes, re.findall(r"`(.*?)`", cells[2])))
    return rows


ROWS = {row.words: row for row in read_page(PAGE.read_text(encoding="utf-8"))}


def pattern(documented: str) -> str:
    """Return a regular expression in which ``...`` stands for anything."""
    return ".*?".join(map(re.escape, documented.split("...")))


def described(error: Exception) -> tuple[str, str]:
    if isinstance(error, Exited):
        code, message = error.args
        return f"exit code {code}", message
    return type(error).__name__, str(error)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return Shared(tmp_path_factory.mktemp("shared"))


@pytest.mark.parametrize("words", CASES)
def test_what_you_get(words, shared, tmp_path, monkeypatch, request):
    row = ROWS[words]
    case = Case(shared, tmp_path, monkeypatch, request)
    data, files = shared.data.digest(), shared.files.digest()
    found = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            CASES[words](case)
        except AssertionError:
            raise
        except Exception as error:
            found.append(described(error))
    found = [(w.category.__name__, str(w.message)) for w in warned] + found
    # Nothing beyond what is written down, no second warning of the same thing.
    assert [kind for kind, _ in found] == [kind for kind, _ in row.outcomes], found
    for (kind, message), (_, beginning) in zip(found, row.outcomes, strict=True):
        message = " ".join(message.split())
        assert re.match(pattern(beginning), message, re.DOTALL), (message, beginning)
        assert len(message) > 20
        if kind != "FitFailedWarning":  # scikit-learn's, which is made of tracebacks
            assert not re.search(r'Traceback|File "|object at 0x|<function|<class', message)
    everything = "\n".join(message for _, message in found)
    for remedy in row.remedies:
        assert re.search(pattern(remedy), everything), (remedy, everything)
    assert shared.data.digest() == data
    assert shared.files.digest() == files
    case.check_lent()


def test_every_row_has_a_case_and_every_case_a_row():
    words = [row.words for row in read_page(PAGE.read_text(encoding="utf-8"))]
    assert sorted(words) == sorted(CASES)
    assert len(CASES) == sum(len(room.CASES) for room in ROOMS)


def test_a_row_says_what_happens():
    for row in ROWS.values():
        assert row.outcomes, row
        for _, beginning in row.outcomes:
            assert len(beginning.replace("...", "")) >= 12, row


@pytest.mark.parametrize(
    "room",
    [
        *("skfdan", "skfdan.datasets", "skfdan.preprocessing", "skfdan.classifiers"),
        *("skfdan.feature_selection", "skfdan.model_selection", "skfdan.metrics"),
        *("skfdan.persistence", "skfdan.nn"),
    ],
)
def test_every_public_callable_is_in_the_tables(room):
    module = importlib.import_module(room)
    code = " ".join(span for words in ROWS for span in re.findall(r"`(.*?)`", words))
    known = set(re.findall(r"\w+", code))
    public = {name for name in module.__all__ if callable(getattr(module, name))}
    assert public - known <= NOT_IN_THE_TABLES.keys()
    assert not public & known & NOT_IN_THE_TABLES.keys()
