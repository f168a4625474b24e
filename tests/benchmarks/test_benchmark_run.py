"""The benchmark runner on toy clips in the official layouts, through its real code path."""

import csv
import dataclasses
import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from small_corpora import EMOTIONS, make_clips, make_folder, make_meld, make_savee

from skfdan import FDANClassifier, make_table
from skfdan.model_selection import load_splits

FILE = Path(__file__).parents[2] / "benchmarks" / "run.py"
SPEC = importlib.util.spec_from_file_location("benchmark_run", FILE)
run = importlib.util.module_from_spec(SPEC)
sys.modules["benchmark_run"] = run
SPEC.loader.exec_module(run)

SMALL = ["--quick", "--epochs", "1", "--input-size", "16", "--folds", "2", "--seeds", "1"]


@pytest.fixture(scope="session")
def corpora(tmp_path_factory):
    """The roots of a small SAVEE, MELD and folder of faces, and a cache for all tests."""
    root = tmp_path_factory.mktemp("corpora")
    frame = make_clips(root / "clips")
    return {
        "savee": make_savee(frame, root / "savee"),
        "meld": make_meld(frame, root / "meld"),
        "folder": make_folder(frame, root / "folder"),
        "cache": root / "cache",
    }


def command(corpora, out, *more, corpus="savee", table="4", protocol="disjoint"):
    """The command line of a small run; ``more`` goes last."""
    return [
        *("--corpus", corpus, "--root", str(corpora[corpus]), "--out", str(out)),
        *("--cache", str(corpora["cache"]), "--table", table, "--protocol", protocol),
        *SMALL,
        *more,
    ]


def cells_of(out):
    return {p.stem: json.loads(p.read_text()) for p in (out / "cells").glob("[!.]*.json")}


def table_of(out, name):
    with open(out / f"table_{name}.csv", newline="", encoding="utf-8") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


@pytest.fixture
def fits(monkeypatch):
    """Count every fit; set ``stop_at`` to be interrupted within one."""
    seen = {"n": 0, "stop_at": None, "labels": []}
    fit = FDANClassifier.fit

    def counted(self, X, y, **options):
        seen["n"] += 1
        seen["labels"].append(y)
        if seen["n"] == seen["stop_at"]:
            raise KeyboardInterrupt
        return fit(self, X, y, **options)

    monkeypatch.setattr(FDANClassifier, "fit", counted)
    return seen


def test_ablation_with_published_numbers(corpora, tmp_path, fits, capsys):
    arguments = command(corpora, tmp_path, protocol="both")
    assert run.main(arguments) == 0
    rows = table_of(tmp_path, "4")
    assert list(rows) == ["FDAN1", "FDAN2", "FDAN", "FDAN (bypass)", "FDAN (official code)"]
    # One fit serves both ways of prediction: 4 methods x 2 protocols x 2 folds.
    assert fits["n"] == len(cells_of(tmp_path)) == 16
    assert {row["paper n"] for row in rows.values()} == {"2"}
    assert rows["FDAN"]["published SAVEE WAR"] == "86.66"
    assert rows["FDAN1"]["published SAVEE UAR"] == "82.91"
    assert rows["FDAN (bypass)"]["published SAVEE WAR"] == ""
    assert not any("MELD" in column for column in rows["FDAN"])
    text = (tmp_path / "table_4.md").read_text(encoding="utf-8")
    assert "published on SAVEE: WAR / UAR / wF1" in text
    assert "own run" in text
    for said in ("Chance: UAR 33.3 %", "Nothing was selected on test rows", "--table 4", "Machine"):
        assert said in text
    assert text.replace("# FDAN", "") in capsys.readouterr().out.replace("# FDAN", "")
    for name in ("fig4_confusion.png", "fig5_tsne.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")

    modified = {p: p.stat().st_mtime_ns for p in (tmp_path / "cells").iterdir()}
    assert run.main(arguments) == 0
    assert fits["n"] == 16
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cells").iterdir()} == modified
    assert "16 of 16 cells are finished already" in capsys.readouterr().out


def test_scores_are_those_of_the_predictions(corpora, tmp_path):
    assert run.main(command(corpora, tmp_path, "--estimators", "fdan", "--seeds", "2")) == 0
    cells = cells_of(tmp_path)
    assert len(cells) == 4
    recalls = []
    for cell in cells.values():
        true, predicted = np.array(cell["y_true"]), np.array(cell["y_pred"]["bank"])
        recalls.append(np.mean([np.mean(predicted[true == e] == e) for e in EMOTIONS]))
    row = table_of(tmp_path, "4")["FDAN"]
    assert float(row["disjoint UAR mean"]) == pytest.approx(100 * np.mean(recalls), abs=1e-3)
    assert float(row["disjoint UAR sd"]) == pytest.approx(100 * np.std(recalls), abs=1e-3)
    with open(tmp_path / "results.csv", newline="", encoding="utf-8") as file:
        results = list(csv.DictReader(file))
    assert len(results) == 8  # four cells, bank and bypass
    written = sorted(float(r["UAR"]) for r in results if r["variant"] == "bank")
    assert written == pytest.approx(sorted(recalls))


@pytest.mark.slow
def test_difference_is_paired_by_fold_and_seed(corpora, tmp_path):
    names = ("voices only", "FDAN, bank", "logistic regression")
    arguments = ("--estimators", *names, "--seeds", "2", "--epochs", "3")
    assert run.main(command(corpora, tmp_path, *arguments, table="questions")) == 0
    uar = {}
    for cell in cells_of(tmp_path).values():
        scores = cell["scores"].get("bank") or cell["scores"][""]
        uar[cell["method"], cell["cell"]["fold"], cell["cell"]["seed"]] = scores["UAR"]
    runs = [(f, s) for f in (0, 1) for s in (0, 1)]
    gains = [100 * (uar["FDAN", *key] - uar["voices", *key]) for key in runs]
    rows = table_of(tmp_path, "questions")
    assert list(rows) == list(names)
    row = rows["FDAN, bank"]
    assert float(row["disjoint UAR gain mean"]) == pytest.approx(np.mean(gains), abs=1e-3)
    assert float(row["disjoint UAR gain sd"]) == pytest.approx(np.std(gains), abs=1e-3)
    assert rows["voices only"]["disjoint UAR gain mean"] == ""
    # It has no seeds: the mean over the seeds of every fold stands against it.
    other = [(uar["voices", f, 0] + uar["voices", f, 1]) / 2 for f in (0, 1)]
    gains = [100 * (uar["logistic regression", f, 0] - other[f]) for f in (0, 1)]
    row = rows["logistic regression"]
    assert row["disjoint n"] == "2"
    assert float(row["disjoint UAR gain mean"]) == pytest.approx(np.mean(gains), abs=1e-3)
    assert float(row["disjoint UAR gain sd"]) == pytest.approx(np.std(gains), abs=1e-3)

    def gain_without(method, *lost):
        for key, cell in cells_of(tmp_path).items():
            if cell["method"] == method and (cell["cell"]["fold"], cell["cell"]["seed"]) in lost:
                (tmp_path / "cells" / f"{key}.json").unlink()
        arguments = ("--estimators", *names, "--seeds", "2", "--epochs", "3", "--report-only")
        assert run.main(command(corpora, tmp_path, *arguments, table="questions")) == 0
        rows = table_of(tmp_path, "questions")
        return {name: (row["disjoint UAR gain mean"], row["notes"]) for name, row in rows.items()}

    # What is not finished takes nothing from the pairs that are.
    mean, notes = gain_without("voices", (0, 1))["FDAN, bank"]
    left = [100 * (uar["FDAN", *key] - uar["voices", *key]) for key in runs if key != (0, 1)]
    assert float(mean) == pytest.approx(np.mean(left), abs=1e-3)
    assert "disjoint: difference over 3 of 4 pairs" in notes
    found = gain_without("voices", (0, 0))
    assert float(found["FDAN, bank"][0]) == pytest.approx(np.mean(left[1:]), abs=1e-3)
    mean, notes = found["logistic regression"]
    assert float(mean) == pytest.approx(gains[1], abs=1e-3)
    assert "disjoint: difference over 1 of 2 pairs" in notes
    mean, notes = gain_without("FDAN", (1, 0), (1, 1))["FDAN, bank"]
    assert mean == ""
    assert "disjoint: difference over 0 of 4 pairs" in notes


def test_splits_are_kept_and_nothing_tested_trains(corpora, tmp_path):
    assert run.main(command(corpora, tmp_path, "--estimators", "FDAN1")) == 0
    cells = cells_of(tmp_path)
    known = json.loads((tmp_path / "splits" / "disjoint.json").read_text())
    ids = sorted({i for fold in known["folds"] for part in ("train", "test") for i in fold[part]})
    folds = load_splits(tmp_path / "splits" / "disjoint.json", ids)
    assert len(folds) == len(cells) == 2
    for cell in cells.values():
        train, test = folds[cell["cell"]["fold"]]
        assert sorted(cell["ids"]) == sorted(ids[i] for i in test)
        assert all(i.startswith("audio/savee/") for i in cell["ids"])
        speakers = {ids[i].split("/")[2][:2] for i in test}
        assert not speakers & {ids[i].split("/")[2][:2] for i in train}
        faces = [ids[i] for i in train if ids[i].startswith("visual/")]
        # Three frames of every clip of the training speakers.
        assert len(faces) == cell["n_faces"] == 3 * cell["n_voices"] == 36


def test_other_folds_in_the_same_folder(corpora, tmp_path):
    arguments = command(
        corpora, tmp_path, "--estimators", "logistic regression", table="1", protocol="both"
    )
    for folds in ("2", "4", "2"):
        assert run.main([*arguments, "--folds", folds]) == 0
    folder = tmp_path / "splits"
    sizes = {p.stem: len(json.loads(p.read_text())["folds"]) for p in folder.iterdir()}
    [other] = sizes.keys() - {"paper", "disjoint"} - {n for n in sizes if n.startswith("paper-")}
    assert sizes["disjoint"] == sizes["paper"] == 2
    assert sizes[other] == 4
    with open(tmp_path / "results.csv", newline="", encoding="utf-8") as file:
        results = list(csv.DictReader(file))
    written = [r["splits"] for r in results if r["protocol"] == "disjoint"]
    assert sorted(written) == ["disjoint"] * 2 + [other] * 4
    # The first two of four draws are those of two.
    shared = [r["splits"] for r in results if r["protocol"] == "paper"]
    assert sorted("+" in names for names in shared) == [False, False, True, True]


def test_cells_tell_where_they_come_from(corpora, tmp_path):
    arguments = command(corpora, tmp_path, "--estimators", "logistic regression", table="1")
    assert run.main(arguments) == 0
    text = (tmp_path / "table_1.md").read_text(encoding="utf-8")
    first, second = cells_of(tmp_path).items()
    sources = first[1]["versions"]["sources"]
    assert len(sources) == 12
    assert f"sources {sources}" in text
    assert first[1]["machine"] in text
    assert "not of one origin" not in text
    # A cell of before knows no hash of the sources, and counts as of others.
    del second[1]["versions"]["sources"]
    (tmp_path / "cells" / f"{second[0]}.json").write_text(json.dumps(second[1]))
    assert run.main(arguments) == 0
    text = (tmp_path / "table_1.md").read_text(encoding="utf-8")
    assert "not of one origin (machines: 1, states of skfdan and its libraries: 2" in text


def test_a_machine_is_more_than_its_name():
    import torch
    from _cells import machine

    capability = torch.backends.cpu.get_cpu_capability()
    assert capability in machine()
    if "cpu family" in (info.read_text() if (info := Path("/proc/cpuinfo")).exists() else ""):
        assert "cpu family" in machine()


def test_interrupted_run_goes_on(corpora, tmp_path, fits, capsys):
    arguments = command(corpora, tmp_path, "--estimators", "FDAN1", "FDAN2")
    fits["stop_at"] = 2
    assert run.main(arguments) == 130
    assert "goes on from there" in capsys.readouterr().err
    first = cells_of(tmp_path)
    assert len(first) == 1
    assert not (tmp_path / "table_4.md").exists()
    assert run.main([*arguments, "--report-only"]) == 0
    assert len(cells_of(tmp_path)) == 1
    table = table_of(tmp_path, "4")
    assert table["FDAN1"]["disjoint UAR mean"]
    assert not table["FDAN2"]["disjoint UAR mean"]
    assert "1 of 2 runs are not finished" in (tmp_path / "table_4.md").read_text()
    assert run.main(arguments) == 0
    # One was finished, one was begun in vain, and three were left with it.
    assert fits["n"] == 2 + 3
    assert len(cells_of(tmp_path)) == 4
    assert cells_of(tmp_path)[next(iter(first))] == next(iter(first.values()))
    assert not list((tmp_path / "cells").glob(".*"))


def test_training_that_ended_early_is_no_result():
    from _cells import _check_complete

    class Model:
        history_ = range(3)
        max_epochs = 3

    _check_complete(Model())
    Model.max_epochs = 4
    with pytest.raises(KeyboardInterrupt):
        _check_complete(Model())


def test_choice_of_alpha_never_sees_test_rows(corpora, tmp_path, fits):
    arguments = ("--estimators", "FDAN, α by validation")
    assert run.main(command(corpora, tmp_path, *arguments, table="questions")) == 0
    cells = cells_of(tmp_path).values()
    splits = json.loads((tmp_path / "splits" / "disjoint.json").read_text())["folds"]
    candidates = [c for c in cells if c["cell"]["role"] == "selection"]
    finals = [c for c in cells if c["cell"]["role"] == "test"]
    assert len(candidates) == 2 * 4
    assert len(finals) == 2
    for cell in candidates:
        fold = splits[cell["cell"]["fold"]]
        assert set(cell["ids"]) <= set(fold["train"])
        held = {i.split("/")[2][:2] for i in cell["ids"]}
        assert not held & {i.split("/")[2][:2] for i in fold["test"]}
        # Of two training speakers one validates, and neither voice nor face of it trains.
        assert len(held) == 1
        assert cell["n_voices"] == 6
        assert cell["n_faces"] == 18
    for cell in finals:
        rivals = [c for c in candidates if c["cell"]["fold"] == cell["cell"]["fold"]]
        best = max(c["scores"][""]["UAR"] for c in rivals)
        chosen = min(c["overrides"]["alpha"] for c in rivals if c["scores"][""]["UAR"] == best)
        assert cell["overrides"] == {"alpha": chosen}
        assert cell["cell"]["estimator"]["alpha"] == chosen
    assert (
        "chosen α of each fold" in table_of(tmp_path, "questions")["FDAN, α by validation"]["notes"]
    )


def test_cells_differ_when_a_parameter_differs(corpora, tmp_path):
    base = command(corpora, tmp_path, "--estimators", "FDAN1")
    keys = set()
    for more in ((), ("--lr", "0.02"), ("--epochs", "2"), ("--input-size", "20")):
        assert run.main([*base, *more]) == 0
        assert len(cells_of(tmp_path)) == len(keys) + 2
        keys = set(cells_of(tmp_path))
    assert run.main([*base, "--seeds", "2"]) == 0
    assert len(cells_of(tmp_path)) == len(keys) + 2


def test_other_contents_of_files_make_other_cells(corpora, tmp_path):
    import _corpora
    from _cells import _contents
    from _methods import METHODS
    from _setting import QUICK

    voice, weights = tmp_path / "a.wav", tmp_path / "w.pth"
    found = []
    for content in (b"one", b"two"):
        voice.write_bytes(content)
        weights.write_bytes(content)
        for i, file in enumerate((voice, weights)):
            os.utime(file, ns=(len(found) + i, len(found) + i))
        names = {k: np.array(["x"]) for k in ("y", "groups", "ids", "parts")}
        table = make_table(visual=[None], audio=[str(voice)])
        corpus = _corpora.Corpus("savee", table, origin=np.array(["audio"]), **names)
        model = FDANClassifier(weights=str(weights))
        how = METHODS[next(m for m in METHODS if METHODS[m].front_end)]
        contents = _contents(model, how, _corpora.Source("savee", ""), QUICK)
        found.append((corpus.fingerprint(np.array([True])), contents["contents"]["estimator"]))
    assert found[0][0] != found[1][0]
    assert found[0][1]["weights"] != found[1][1]["weights"]


def test_what_is_peculiar_about_folds(tmp_path):
    from _corpora import Corpus
    from _plan import Split

    for name, content in (("a", b"one"), ("b", b"two"), ("c", b"one"), ("d", b"three")):
        (tmp_path / name).write_bytes(content)
    audio = [None, None, *(str(tmp_path / name) for name in "abcd")]
    corpus = Corpus(
        "savee",
        make_table(visual=[np.zeros((3, 2, 2), np.uint8)] * 2 + [None] * 4, audio=audio),
        y=np.array(["fear", "joy", "fear", "joy", "fear", "anger"]),
        groups=np.array(["DC", "JE", "DC", "DC", "JE", "JE"]),
        ids=np.array([f"row {i}" for i in range(6)]),
        origin=np.array(["own", "own", *["audio"] * 4]),
        parts=np.array([""] * 6),
    )
    halves = np.array([2, 3]), np.array([4, 5])
    disjoint = [
        Split("disjoint", 0, np.append(1, halves[1]), halves[0]),
        Split("disjoint", 1, np.append(0, halves[0]), halves[1]),
    ]
    assert run._fold_notes(
        corpus, [Split("paper", 0, np.array([0, 1, 4]), np.array([2, 3, 5]))]
    ) == [
        "Recordings that several voices hold, byte by byte: 1. A twin of a test voice trains in 1 "
        "of 1 folds of protocol paper."
    ]
    notes = run._fold_notes(corpus, disjoint)
    assert notes[:3] == [
        "Protocol disjoint, fold 0: no voice of anger is tested, so its scores are over 2 of 3 "
        "emotions.",
        "Protocol disjoint, fold 1: no voice of joy is tested, so its scores are over 2 of 3 "
        "emotions.",
        "Protocol disjoint: of 2 faces of SAVEE, 1, 1 train in the folds.",
    ]
    assert "2 of 2 folds of protocol disjoint" in notes[3]


def test_people_of_other_corpora_are_others(tmp_path):
    import _corpora
    from PIL import Image

    for name in "ab":
        Image.new("RGB", (32, 32)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.wav").touch()
    faces, voices = tmp_path / "faces.csv", tmp_path / "voices.csv"
    faces.write_text("visual,emotion,speaker\na.png,joy,DC\nb.png,fear,DC\n")
    voices.write_text("audio,emotion,speaker\na.wav,joy,DC\nb.wav,fear,JE\n")
    source = _corpora.Source("folder", str(voices), (("folder", str(faces)),), face_size=16)
    corpus = _corpora.load(source)
    assert set(corpus.groups[corpus.heard]) == {"DC", "JE"}
    assert set(corpus.groups[~corpus.heard]) == {"folder:DC"}
    assert _corpora._same_people("folder", str(voices), source)
    assert _corpora._same_people("savee", "faces", _corpora.Source("savee", "voices"))
    # Without a name in common, groups are as they were: cells are named by them.
    faces.write_text(faces.read_text().replace("DC", "KL"))
    corpus = _corpora.load(source._replace(face_size=17))
    assert set(corpus.groups[~corpus.heard]) == {"KL"}


def test_unknown_speakers_are_not_said_to_be_kept_apart(corpora, tmp_path, capsys):
    from _plan import named_protocol

    corpus = run._corpora.load(run._corpora.Source("savee", str(corpora["savee"])))
    unknown = dataclasses.replace(corpus, speakers_known=False)
    assert "voices of unknown speakers" in run._summary(unknown)
    with pytest.raises(ValueError, match="who speaks in SAVEE is not known here"):
        named_protocol(unknown, "disjoint", 2)
    named_protocol(unknown, "paper", 2)


def test_a_selection_that_was_not_run_did_not_fail(corpora, tmp_path):
    arguments = ("--estimators", "FDAN, α by validation", "--report-only")
    assert run.main(command(corpora, tmp_path, *arguments, table="questions")) == 0
    notes = table_of(tmp_path, "questions")["FDAN, α by validation"]["notes"]
    assert "the selection is not finished" in notes
    assert "failed" not in notes


def test_an_output_that_is_a_file(corpora, tmp_path, capsys):
    (tmp_path / "out").touch()
    assert run.main(command(corpora, tmp_path / "out")) == 2
    assert "is a file; give a folder" in capsys.readouterr().err


def test_meld_official_parts(corpora, tmp_path):
    arguments = ("--estimators", "FDAN, α by validation", "logistic regression")
    arguments = command(
        corpora, tmp_path, *arguments, corpus="meld", table="questions", protocol="meld-official"
    )
    assert run.main(arguments) == 0
    parts = {}
    for cell in cells_of(tmp_path).values():
        role = cell["cell"]["role"]
        parts.setdefault(role, set()).update(i.split("/")[2].split("_")[0] for i in cell["ids"])
        # Dev trains with the rest, unless it is what a choice is validated on.
        assert cell["n_voices"] == (12 if role == "selection" else 18)
    assert parts == {"test": {"test"}, "selection": {"dev"}}


def test_meld_table_lists_what_is_not_ours(corpora, tmp_path):
    arguments = command(
        corpora, tmp_path, "--estimators", "FDAN", corpus="meld", table="2", protocol="paper"
    )
    assert run.main(arguments) == 0
    rows = table_of(tmp_path, "2")
    assert rows["FDAN"]["published MELD UAR"] == "75.91"
    assert rows["FDAN"]["paper n"] == "2"
    assert rows["SMIN"]["published MELD WAR"] == "65.59"
    assert rows["SMIN"]["not run"].startswith("not in skfdan")
    assert "official test split" in rows["SMIN"]["notes"]
    assert rows["SMIN"]["published source"] == "quoted: Lian et al. 2022"
    assert rows["SDT"]["published MELD WAR"] == "67.55"
    assert rows["SDT"]["not run"] == "reads what these tables have not; see --table wavfusion"


@pytest.mark.slow
def test_faces_of_several_corpora(corpora, tmp_path):
    arguments = command(corpora, tmp_path, table="3")
    assert run.main(arguments) == 0
    rows = table_of(tmp_path, "3")
    assert list(rows) == [
        "FDAN: SAVEE voices, faces of SAVEE",
        "FDAN: SAVEE voices, faces of several corpora",
    ]
    own, several = rows.values()
    assert own["published SAVEE WAR"] == "86.66"
    assert "another --faces" in several["not run"]
    assert several["published SAVEE WAR"] == "87.5"

    before = cells_of(tmp_path)
    assert run.main([*arguments, "--faces", f"folder:{corpora['folder']}"]) == 0
    rows = table_of(tmp_path, "3")
    assert rows["FDAN: SAVEE voices, faces of SAVEE + folder"]["disjoint n"] == "2"
    new = [cell for key, cell in cells_of(tmp_path).items() if key not in before]
    # The first row's cells are those of the run before.
    assert [cell["cell"]["faces"] for cell in new] == [["own", "folder"]] * 2
    # 36 faces of training speakers, and all 72 of the folder, whose speakers are others.
    assert {cell["n_faces"] for cell in new} == {108}


def test_a_row_that_fails_does_not_end_the_others(corpora, tmp_path, monkeypatch, capsys):
    fit = FDANClassifier.fit

    def fit_or_fail(self, X, y, **options):
        if self.n_layers == 0:
            raise ValueError("Training diverged")
        return fit(self, X, y, **options)

    monkeypatch.setattr(FDANClassifier, "fit", fit_or_fail)
    assert run.main(command(corpora, tmp_path, "--estimators", "FDAN1", "FDAN2")) == 1
    rows = table_of(tmp_path, "4")
    assert "2 of 2 runs are not finished" in rows["FDAN1"]["notes"]
    assert rows["FDAN2"]["disjoint n"] == "2"
    assert "Training diverged" in capsys.readouterr().err


def test_hidden_labels_are_hidden(corpora, tmp_path, fits):
    arguments = command(corpora, tmp_path, table="adaptation")
    assert run.main([*arguments, "--estimators", "DSAN, unsupervised"]) == 0
    for y in fits["labels"]:
        unknown = np.array([label is None for label in y])
        assert (~unknown).sum() == 36  # the faces
        assert unknown.sum() == 12  # the voices
    assert len(fits["labels"]) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("--corpus", "emovo"), "--corpus 'emovo' is unknown; choose one of ravdess"),
        (("--table", "9"), "--table '9' is unknown; choose from 1, 2, 3"),
        (
            ("--estimators", "SVM"),
            "--estimators 'SVM' is unknown; choose from: 'voices only'",
        ),
        (("--protocol", "loso"), "--protocol 'loso' is unknown; choose from paper"),
        (("--protocol", "meld-official"), "needs --corpus meld"),
        (("--faces", "fer2013.csv"), "not of the form CORPUS:PATH"),
        (("--faces", "fer:fer2013.csv"), "not of the form CORPUS:PATH"),
        (("--faces", "fer2013:nowhere.csv"), "--faces 'nowhere.csv' does not exist"),
        (("--root", "nowhere"), "--root 'nowhere' does not exist"),
        (("--epochs", "0"), "--epochs 0 must be at least 1"),
        (("--table", "3", "--estimators", "INCA"), "None of the rows INCA is in a table"),
    ],
)
def test_errors(corpora, tmp_path, capsys, change, said):
    arguments = ["--corpus", "savee", "--root", str(corpora["savee"]), *SMALL]
    arguments += ["--out", str(tmp_path / "out"), "--cache", str(corpora["cache"])]
    assert run.main([*arguments, *change]) == 2
    assert said in capsys.readouterr().err


def test_missing_root(tmp_path, capsys):
    assert run.main(["--corpus", "savee", "--out", str(tmp_path)]) == 2
    assert "--root is missing" in capsys.readouterr().err


def test_folder_of_another_corpus(corpora, tmp_path, capsys):
    arguments = ("--estimators", "logistic regression")
    assert run.main(command(corpora, tmp_path, *arguments, table="1")) == 0
    assert run.main(command(corpora, tmp_path, *arguments, corpus="meld", table="1")) == 2
    assert "holds results on savee, not on meld" in capsys.readouterr().err


def test_a_predicted_emotion_that_no_test_voice_has():
    from _figures import _matrix

    records = [{"y_true": ["fear", "joy"], "y_pred": {"": ["anger", "joy"]}}] * 2
    rows, columns, matrix = _matrix(records, "")
    assert (rows, columns) == (["fear", "joy"], ["anger", "fear", "joy"])
    assert matrix.tolist() == [[2, 0, 0], [0, 0, 2]]


def test_figure_of_confusions(tmp_path, monkeypatch):
    from types import SimpleNamespace

    import _figures
    from matplotlib.axes import Axes

    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda self, text, **_: titles.append(text))
    # The mean over the runs would be 91.7 %.
    predicted = [["joy"], ["joy", "joy", "fear", "fear"]]
    true = [["joy"], ["joy", "joy", "joy", "fear"]]
    records = [{"y_true": t, "y_pred": {"": p}} for t, p in zip(true, predicted, strict=True)]
    monkeypatch.setattr(_figures, "read_cell", lambda cell, out: records[cell])
    line = SimpleNamespace(cells={"paper": [0, 1]}, row=SimpleNamespace(variant=""), name="FDAN")
    assert _figures.confusion(line, ["paper"], "SAVEE", tmp_path / "a.png", tmp_path)
    assert titles == ["paper protocol, UAR 87.5 % of 2 runs pooled"]


def test_figure_of_features_draws_every_class(tmp_path, monkeypatch):
    from types import SimpleNamespace

    import _figures
    from matplotlib.axes import Axes

    drawn = []
    scatter = Axes.scatter

    def counted(self, x, *more, **options):
        drawn.append((len(x), options.get("c", options.get("edgecolors")), options["marker"]))
        return scatter(self, x, *more, **options)

    monkeypatch.setattr(Axes, "scatter", counted)
    y = np.repeat([f"e{i:02d}" for i in range(11)], 2)
    z = np.random.default_rng(0).normal(size=(22, 3))
    np.savez(tmp_path / "cell.npz", audio=z, visual=z, y_audio=y, y_visual=y)
    cell = SimpleNamespace(path=lambda out: out / "cell.json")
    line = SimpleNamespace(cells={"paper": [cell]}, name="FDAN")
    assert _figures.features(line, ["paper"], "SAVEE", tmp_path / "a.png", tmp_path)
    assert sum(n for n, *_ in drawn) == 44
    assert len({tuple(look) for _, *look in drawn}) == 22


def test_defaults_are_those_of_the_estimator():
    from _setting import PAPER

    default = FDANClassifier().get_params()
    for name, value in PAPER.network.items():
        if name != "verbose":
            assert value == default[name], name


def test_vgg_is_run_only_when_named():
    from _methods import rows_of

    slow = [row.name for row in rows_of("1", None) if row.slow]
    assert slow == ["VGG-16", "VGG-19"]
    assert [row.name for row in rows_of("1", ["vgg16"])] == ["VGG-16"]


@pytest.mark.parametrize(("protocol", "told"), [("disjoint", True), ("paper", False)])
def test_a_method_that_holds_out_rows_knows_the_speakers(
    corpora, tmp_path, monkeypatch, protocol, told
):
    from sklearn.pipeline import Pipeline

    seen = []

    def see(self, X, y, **options):
        seen.append((len(X), options))
        raise ValueError("seen enough")

    monkeypatch.setattr(Pipeline, "fit", see)
    arguments = command(corpora, tmp_path, "--estimators", "TF-Mix", table="1", protocol=protocol)
    assert run.main(arguments) == 1
    n, options = seen[0]
    assert list(options) == (["tfmixclassifier__groups"] if told else [])
    if told:
        assert len(options["tfmixclassifier__groups"]) == n == 12
        assert len(set(options["tfmixclassifier__groups"])) == 2


@pytest.mark.slow
@pytest.mark.long
def test_every_row_of_every_table(corpora, tmp_path):
    arguments = command(corpora, tmp_path, table="1", protocol="paper")
    for table in ("2", "3", "questions", "adaptation"):
        arguments += ["--table", table]
    assert run.main([*arguments, "--folds", "1"]) == 0
    for table in ("1", "2", "3", "questions", "adaptation"):
        for name, row in table_of(tmp_path, table).items():
            run_here = row["paper n"] == "1"
            assert run_here or row["not run"].startswith(
                ("not in skfdan", "reads what", "too slow", "one source")
            )
            assert run_here or name != "FDAN"


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_give_the_same(corpora, tmp_path):
    arguments = ("--estimators", "FDAN1", "FDAN2")
    assert run.main(command(corpora, tmp_path / "one", *arguments)) == 0
    assert run.main(command(corpora, tmp_path / "two", *arguments, "--n-jobs", "2")) == 0
    one, two = cells_of(tmp_path / "one"), cells_of(tmp_path / "two")
    assert one.keys() == two.keys()
    for key, cell in one.items():
        assert cell["y_pred"] == two[key]["y_pred"]
