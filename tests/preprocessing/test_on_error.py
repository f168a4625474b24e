"""What becomes of cells that cannot be used: an error, missing or to be skipped, and a report."""

import io
import os
import pickle
import signal
import time
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone

from skfdan.preprocessing import (
    MFCC,
    DecodeLimits,
    FaceFrames,
    MediaError,
    MelSpectrogram,
    SpeechFeatures,
    TwineShufflePattern,
)
from skfdan.table import SKIP

COLUMNS = ["row", "file", "stage", "reason"]

# Threads, so that these tests start no processes.
AUDIO = [
    MelSpectrogram(duration=0.2, n_mels=8, timeout=None),
    MFCC(duration=0.2, n_mfcc=8, timeout=None),
    SpeechFeatures(duration=0.2, augment=("noise",), random_state=0, timeout=None),
]


@pytest.fixture
def cells(tmp_path, write_wav, sweep):
    """Cells good and bad by turns, with the stage of those that are bad."""
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "noise.mp4").write_bytes(b"\0\1\2\3" * 99)
    (tmp_path / "empty.wav").touch()
    long = write_wav("long.wav", sweep(1.0))
    return [
        (write_wav("good.wav", sweep(0.3)), None),
        (tmp_path / "gone.wav", "open"),
        (None, None),
        (str(tmp_path / "text.wav"), "open"),
        (tmp_path / "noise.mp4", "decode"),
        (sweep(0.2), None),
        (SKIP, None),
        (tmp_path / "empty.wav", "open"),
        (write_wav("nan.wav", np.array([0, np.nan])), "decode"),
        (long, "limits"),
        ((np.zeros(9, np.float32), -1), "limits"),
        (np.array([0.0, np.inf]), "decode"),
        (tmp_path, "open"),
    ]


LIMITS = DecodeLimits(max_seconds=0.5)


@pytest.mark.parametrize("n_jobs", [None, 3])
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("on_error", ["missing", "skip"])
@pytest.mark.parametrize("transformer", AUDIO, ids=lambda t: type(t).__name__)
def test_bad_cells_are_reported(transformer, on_error, cached, n_jobs, cells, tmp_path):
    X, stages = list(zip(*cells, strict=True))
    transformer = clone(transformer).set_params(
        on_error=on_error,
        limits=LIMITS,
        n_jobs=n_jobs,
        cache_dir=tmp_path / "cache" if cached else None,
    )
    bad = [row for row, stage in enumerate(stages) if stage]
    name = type(transformer).__name__
    fate = {"missing": "missing", "skip": "rows to skip"}[on_error]
    words = rf"{name}: {len(bad)} of 13 cells could not be read and are now {fate}; see report_"
    for method in (transformer.fit_transform, transformer.transform, transformer.transform):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            out = method(list(X))
        assert len(caught) == 1
        assert caught[0].filename == __file__  # the caller of transform
        message = str(caught[0].message)
        assert message.startswith(words)
        assert f"row 1 ({tmp_path}/gone.wav): cannot be read: no such file or folder" in message
        assert message.endswith("; and 6 more.")
        assert out.shape == (13, 1)
        assert out[6, 0] is SKIP
        assert out[2, 0] is None
        for row in bad:
            assert out[row, 0] is (SKIP if on_error == "skip" else None)
        for row in (0, 5):
            alone = clone(transformer).fit(X[:1]).transform([X[row]])[0, 0]
            if method != transformer.fit_transform or name != "SpeechFeatures":
                np.testing.assert_array_equal(out[row, 0], alone)
        report = transformer.report_
        assert report.columns.tolist() == COLUMNS
        assert report["row"].tolist() == bad
        assert report["row"].dtype == np.int64
        assert report["stage"].tolist() == [stages[row] for row in bad]
        assert report["file"][0] == str(tmp_path / "gone.wav")
        assert "NaN or infinite" in report["reason"][4]
        assert report["file"][len(bad) - 3].startswith("tuple (array of shape (9,)")
        read = pd.read_csv(io.StringIO(report.to_csv(index=False)))
        assert read.to_numpy().tolist() == report.to_numpy().tolist()
        pickle.loads(pickle.dumps(transformer))


@pytest.mark.parametrize("n_jobs", [None, 3])
def test_raising_names_the_row_and_is_the_default(n_jobs, cells):
    for row, (cell, stage) in enumerate(cells):
        mel = MelSpectrogram(limits=LIMITS, n_jobs=n_jobs)
        assert mel.on_error == "raise"
        X = [None] * row + [cell]
        if stage is None:
            mel.transform(X)
            continue
        with pytest.raises((MediaError, FileNotFoundError), match=f"row {row}") as caught:
            mel.transform(X)
        if isinstance(caught.value, MediaError):
            assert (caught.value.row, caught.value.stage) == (row, stage)


def test_nothing_bad_gives_an_empty_report(sweep):
    mel = MelSpectrogram(on_error="missing")
    out = mel.fit_transform([sweep(0.1), None, SKIP])
    assert [cell is SKIP for cell in out[:, 0]] == [False, False, True]
    assert mel.report_.columns.tolist() == COLUMNS
    assert len(mel.report_) == 0
    assert mel.report_["row"].dtype == np.int64
    assert mel.report_.to_csv(index=False) == "row,file,stage,reason\n"
    # A matrix of numbers has no cells to report.
    mel = MelSpectrogram(n_mels=4, on_error="missing").fit(np.zeros((2, 600)))
    mel.transform(np.zeros((2, 600)))
    assert not hasattr(mel, "report_")


@pytest.mark.parametrize("value", ["ignore", None, True])
def test_unknown_ways_are_refused(value):
    with pytest.raises(ValueError, match='on_error must be "raise", "missing" or "skip"; got'):
        FaceFrames(on_error=value).fit([None])


def test_a_mended_file_works_at_once(tmp_path, write_wav, sweep):
    path = write_wav("a.wav", sweep(0.3))
    good = path.read_bytes()
    path.write_bytes(b"RIFF" + bytes(len(good) - 4))
    os.utime(path, ns=(1, 1))
    mel = MelSpectrogram(on_error="missing", timeout=None, cache_dir=tmp_path / "cache")
    with pytest.warns(UserWarning, match="1 of 1 cells could not be read"):
        assert mel.transform([path])[0, 0] is None
    path.write_bytes(good)
    os.utime(path, ns=(1, 1))  # of the same size and time: only what worked is remembered
    assert mel.transform([path])[0, 0].shape == (128, 251)
    assert not len(mel.report_)


def test_errors_of_the_cache_are_no_errors_of_a_file(tmp_path, write_wav, sweep):
    (tmp_path / "file").touch()
    mel = MelSpectrogram(on_error="missing", timeout=None, cache_dir=tmp_path / "file")
    with pytest.raises(OSError, match="file"):
        mel.transform([write_wav("a.wav", sweep(0.1))])


@pytest.fixture
def pictures(tmp_path):
    for name, width in (("a.png", 10), ("b.png", 20), ("c.png", 30), ("d.png", 40)):
        Image.new("L", (width, 10)).save(tmp_path / name)
    return [tmp_path / f"{name}.png" for name in "abcd"]


def test_a_missing_face_is_in_the_report(pictures, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG....")

    def find(image):
        return (0, 0, 5, 5) if image.shape[1] == 10 else None

    faces = FaceFrames(detector=find, size=8, on_error="missing", timeout=None)
    cells = [tmp_path / "bad.png", pictures[1], pictures[0], None, SKIP]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        faces.transform(cells)
    assert [w.filename for w in caught] == [__file__] * 2
    assert "FaceFrames: 1 of 5 cells could not be read" in str(caught[0].message)
    assert "no face was found in 1 of 5 rows" in str(caught[1].message)
    assert faces.report_["row"].tolist() == [0, 1]
    assert faces.report_["stage"].tolist() == ["decode", "no face"]
    # on_no_face="raise" makes it an error, and on_error says what becomes of errors.
    with pytest.warns(UserWarning, match=r"2 of 5 cells.*rows to skip.*row 1.*no face was found"):
        out = faces.set_params(on_no_face="raise", on_error="skip").transform(cells)
    assert [cell is SKIP for cell in out[:, 0]] == [True, True, False, False, True]
    assert faces.report_["stage"].tolist() == ["decode", "no face"]
    with pytest.raises(MediaError, match=r"row 0 .*no face was found"):
        FaceFrames(detector=find, on_no_face="raise").transform(pictures[1:])


@pytest.mark.slow
def test_whatever_a_detector_does_costs_one_row(pictures):
    """In worker processes, which is what "auto" means here."""

    def find(image):
        if image.shape[1] == 20:
            os.kill(os.getpid(), signal.SIGSEGV)
        if image.shape[1] == 30:
            raise TypeError("odd face")
        if image.shape[1] == 40:
            raise MemoryError("12 GB")
        return 0, 0, 5, 5

    faces = FaceFrames(detector=find, size=8, on_error="missing")
    with pytest.warns(UserWarning, match=r"3 of 5 cells could not be read"):
        out = faces.transform([*pictures, pictures[0]])
    assert [cell is None for cell in out[:, 0]] == [False, True, True, True, False]
    reasons = [
        "the decoder crashed (signal SIGSEGV)",
        "TypeError: odd face",
        "not enough memory: 12 GB",
    ]
    assert faces.report_["reason"].tolist() == reasons
    assert faces.report_["stage"].tolist() == ["crash", "error", "memory"]
    # As errors, they name the row.
    for row, kind in ((2, TypeError), (3, MemoryError)):
        faces = FaceFrames(detector=find, timeout=60, n_jobs=2)
        with pytest.raises(kind) as caught:
            faces.transform([None] * row + [pictures[row]])
        notes = " ".join(getattr(caught.value, "__notes__", []))
        assert f"row {row}" in f"{caught.value} {notes}"


def test_what_takes_too_long_costs_one_row(pictures):
    def find(image):
        if image.shape[1] == 20:
            time.sleep(60)
        return 0, 0, 5, 5

    faces = FaceFrames(detector=find, size=8, on_error="skip", timeout=1.0)
    with pytest.warns(UserWarning, match=r"row 1 .*: took longer than 1 s"):
        out = faces.transform(pictures[:2])
    assert out[1, 0] is SKIP
    assert out[0, 0].shape == (3, 8, 8)
    assert faces.report_["stage"].tolist() == ["time limit"]


def test_a_package_that_is_not_there_is_no_error_of_a_file(pictures):
    def find(image):
        import skfdan_has_no_such_module  # noqa: F401

    faces = FaceFrames(detector=find, on_error="missing", timeout=None)
    with pytest.raises(ModuleNotFoundError, match="skfdan_has_no_such_module") as caught:
        faces.transform(pictures)
    assert "row 0" in caught.value.__notes__[0]


def test_twine_gives_rows_of_nan(cells, sweep):
    X, stages = list(zip(*cells, strict=True))
    twine = TwineShufflePattern(n_levels=2, on_error="missing", timeout=None, limits=LIMITS)
    bad = [row for row, stage in enumerate(stages) if stage]
    with pytest.warns(UserWarning, match=r"TwineShufflePattern: 9 of 13 cells.*missing"):
        features = twine.fit_transform(list(X))
    assert (features.shape, features.dtype) == ((13, 2048), np.float32)
    absent = [row for row, cell in enumerate(X) if cell is None or cell is SKIP]
    assert np.flatnonzero(np.isnan(features).all(axis=1)).tolist() == sorted([*bad, *absent])
    good = TwineShufflePattern(n_levels=2).transform([X[0], X[5]])
    np.testing.assert_array_equal(features[[0, 5]], good)
    assert not np.isnan(good).any()
    assert twine.report_["row"].tolist() == bad
    for absent in (None, SKIP):
        with pytest.raises(ValueError, match="row 1 has no voice"):
            TwineShufflePattern().fit_transform([X[0], absent])
    for method in ("fit", "transform", "fit_transform"):
        with pytest.raises(ValueError, match='on_error="skip" needs cells to mark'):
            getattr(TwineShufflePattern(on_error="skip"), method)([sweep(0.1)])


@pytest.mark.slow
def test_with_the_backend_of_the_user(cells):
    X, stages = list(zip(*cells, strict=True))
    mel = MelSpectrogram(on_error="missing", limits=LIMITS, n_jobs=2)
    with (
        joblib.parallel_config(backend="loky"),
        pytest.warns(UserWarning, match="9 of 13 cells"),
    ):
        out = mel.transform(list(X))
    assert mel.report_["row"].tolist() == [row for row, stage in enumerate(stages) if stage]
    assert out[0, 0].shape == (128, 251)


def test_pandas_output_keeps_the_marker(tmp_path):
    mel = MelSpectrogram(on_error="skip").set_output(transform="pandas")
    frame = pd.DataFrame({"audio": [str(tmp_path / "gone.wav"), None]}, dtype=object)
    with pytest.warns(UserWarning, match="1 of 2 cells"):
        out = mel.fit_transform(frame)
    assert out["audio"][0] is SKIP
    assert mel.report_["row"].tolist() == [0]
    # And it goes through a second transformer.
    assert MelSpectrogram().fit_transform(out)[0, 0] is SKIP


@pytest.mark.parametrize("transformer", [MelSpectrogram(), FaceFrames(detector=None)])
def test_a_column_of_nothing_but_skipped_cells(transformer):
    cells = np.empty((2, 1), object)
    cells[:] = SKIP
    out = clone(transformer).set_params(verbose=0).fit_transform(cells)
    assert all(cell is SKIP for cell in np.ravel(out))
