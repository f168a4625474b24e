"""Tables of paths given straight to a classifier, and what becomes of files that can't be read."""

import copy
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import make_pipeline

from classifiers.small_clips import QUICK
from skfdan import FDANClassifier, make_table
from skfdan.classifiers import GMTCNetClassifier, MISAClassifier, TorchvisionClassifier
from skfdan.preprocessing import FaceFrames, MelSpectrogram
from skfdan.table import SKIP

RATE = 8000
MEL = MelSpectrogram(sample_rate=RATE, n_fft=256, hop_length=128, n_mels=16, duration=0.25)
FACES = FaceFrames(detector=None, size=16)
SMALL = QUICK | {"max_epochs": 12, "audio_transformer": MEL, "visual_transformer": FACES}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """24 clips of two emotions, a wav and a picture each."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    y = np.array(["anger", "joy"] * 12)
    t = np.arange(RATE // 4) / RATE
    visual, audio = [], []
    for i, emotion in enumerate(y):
        pitch = 300 if emotion == "anger" else 1500
        sound = 0.5 * np.sin(2 * np.pi * pitch * t) + 0.05 * rng.normal(size=len(t))
        audio.append(str(folder / f"{i}.wav"))
        soundfile.write(audio[-1], sound, RATE)
        pixels = rng.integers(0, 100, (20, 20, 3)) + (100 if emotion == "joy" else 0)
        visual.append(str(folder / f"{i}.png"))
        Image.fromarray(pixels.astype(np.uint8)).save(visual[-1])
    return make_table(visual=visual, audio=audio), y


def decoded(table):
    return make_table(
        visual=FACES.transform(table[["visual"]])[:, 0],
        audio=MEL.transform(table[["audio"]])[:, 0],
    )


def broken(table, tmp_path, rows, column="audio"):
    """Put a file that is none in the place of some."""
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF\0\0\0\0WAVE" + b"\x01" * 40)
    table = table.copy()
    for row in rows:
        table.loc[row, column] = str(bad)
    return table


@pytest.mark.parametrize("kind", [FDANClassifier, TorchvisionClassifier, MISAClassifier])
def test_paths_give_what_their_arrays_give(files, kind):
    table, y = files
    if kind is MISAClassifier:
        params = {"lr": 3e-3, "hidden": 16, "ffn_dim": 16, "max_epochs": 3, "backbone": "cnn"}
    else:
        params = {k: v for k, v in QUICK.items() if k in kind().get_params()} | {"max_epochs": 3}
        if kind is TorchvisionClassifier:
            params["arch"] = "cnn"
    params |= {"weights": None, "input_size": 16, "random_state": 0}
    arrays = kind(**params).fit(decoded(table), y)
    paths = kind(**params, audio_transformer=MEL, visual_transformer=FACES).fit(table, y)
    for key, value in arrays.module_.state_dict().items():
        assert value.equal(paths.module_.state_dict()[key]), key
    expected = arrays.predict_proba(decoded(table))
    np.testing.assert_array_equal(paths.predict_proba(table), expected)
    np.testing.assert_array_equal(paths.predict_proba(decoded(table)), expected)


class Plain(BaseEstimator):
    """A step of a user's own, which can't make frames."""

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X


@pytest.mark.parametrize("how", ["config", "set_output", "a step without set_output"])
def test_frames_as_output_of_a_transformer_change_nothing(files, how):
    table, y = files
    params = SMALL | {"max_epochs": 2}
    expected = FDANClassifier(**params).fit(table, y).predict_proba(table)
    steps = make_pipeline(clone(MEL))
    if how == "set_output":
        steps.set_output(transform="pandas")
    elif how == "a step without set_output":
        steps = make_pipeline(clone(MEL), Plain())
    output = "pandas" if how == "config" else "default"
    with config_context(transform_output=output):
        clf = FDANClassifier(**params | {"audio_transformer": steps}).fit(table, y)
        np.testing.assert_array_equal(clf.predict_proba(table), expected)
    if how == "set_output":
        assert steps[0]._sklearn_output_config == {"transform": "pandas"}  # only the clone's is


def test_paths_are_learned_from_with_default_transformers(files):
    table, y = files
    clf = FDANClassifier(**QUICK).fit(table, y)
    assert clf.score(table, y) > 0.9


def test_files_given_to_a_classifier_of_arrays(files):
    """Nothing says what made the arrays, so nobody can say that the files are decoded alike."""
    table, y = files
    voices = list(table["audio"])
    cells = MelSpectrogram(n_mels=64, hop_length=512).fit_transform(table[["audio"]])[:, 0]
    clf = FDANClassifier(**QUICK | {"max_epochs": 1}).fit(make_table(audio=cells), y)
    with pytest.warns(UserWarning, match=r"fitted on arrays of audio.*with MelSpectrogram\(\)"):
        clf.predict(voices)
    expected = clf.predict_proba(make_table(audio=cells))
    clf.set_params(audio_transformer=MelSpectrogram(n_mels=64, hop_length=512))
    np.testing.assert_allclose(clf.predict_proba(voices), expected, atol=1e-6)


def test_a_list_of_paths_will_do(files):
    table, y = files
    voices = list(table["audio"])
    clf = FDANClassifier(**SMALL).fit(table, y)
    expected = clf.predict_proba(table)
    for X in (
        voices,
        [Path(voice) for voice in voices],
        tuple(voices),
        np.array(voices),
        table["audio"],
        pd.Series(voices, dtype="str"),
        (list(table["visual"]), voices),
        np.array([*zip(table["visual"], voices, strict=True)]),
    ):
        np.testing.assert_allclose(clf.predict_proba(X), expected, atol=1e-6)
    alone = FDANClassifier(**SMALL).fit(voices, y)
    by_table = FDANClassifier(**SMALL).fit(make_table(audio=voices), y)
    np.testing.assert_allclose(
        alone.predict_proba(voices), by_table.predict_proba(table), atol=1e-6
    )
    faces = copy.copy(clf).set_params(predict_modality="visual")
    np.testing.assert_allclose(
        faces.predict_proba(list(table["visual"])), faces.predict_proba(table), atol=1e-6
    )
    with pytest.raises(ValueError, match='"fused" needs both'):
        copy.copy(clf).set_params(predict_modality="fused").predict(voices)
    with pytest.raises(ValueError, match=r"Row 1 has neither"):
        clf.predict([voices[0], None])
    for path in (voices[0], Path(voices[0])):
        with pytest.raises(ValueError, match=r"X is a single path, .*0\.wav.*; give a list"):
            clf.predict(path)


def test_parameters_of_the_transformers_can_be_searched(files):
    clf = FDANClassifier(**SMALL)
    assert clf.set_params(audio_transformer__n_mels=8).audio_transformer.n_mels == 8
    clf.set_params(audio_transformer__n_mels=16)


def test_every_epoch_takes_the_next_frame_of_a_clip(tmp_path):
    folders = []
    for clip in range(4):
        folder = tmp_path / str(clip)
        folder.mkdir()
        for frame in range(3):
            Image.new("RGB", (8, 8), (40 * clip, 80 * frame, 7)).save(folder / f"{frame}.png")
        folders.append(str(folder))
    faces = FaceFrames(detector=None, size=8, n_frames=3)
    seen = []

    class Watching(FDANClassifier):
        def infer(self, x, **_):
            seen.append(x.cells["visual"][:, 1].float().mean((1, 2)).round().tolist())
            return super().infer(x)

    params = QUICK | {"input_size": 8, "max_epochs": 3, "predict_modality": "visual"}
    clf = Watching(**params, visual_transformer=faces)
    clf.fit(make_table(visual=folders), ["a", "b", "a", "b"])
    assert [set(epoch) for epoch in seen] == [{0.0}, {80.0}, {160.0}]
    # A prediction reads all frames.
    stack = faces.transform(folders)[:, 0]
    np.testing.assert_array_equal(
        clf.predict_proba(make_table(visual=folders)), clf.predict_proba(make_table(visual=stack))
    )


def test_an_unreadable_file_stops_the_fit_and_is_named(files, tmp_path):
    table, y = files
    with pytest.raises(ValueError, match=r"row 5 .*bad\.wav"):
        FDANClassifier(**SMALL).fit(broken(table, tmp_path, [5]), y)


def test_missing_leaves_the_face_of_a_broken_voice(files, tmp_path):
    table, y = files
    worse = broken(table, tmp_path, [5, 8])
    worse.loc[8, "visual"] = None
    clf = FDANClassifier(**SMALL, on_error="missing")
    with pytest.warns(UserWarning, match=r"of 24 rows 1 are left out.*row 5 .*bad\.wav"):
        clf.fit(worse, y)
    assert clf.report_["row"].tolist() == [5, 8]
    assert list(clf.report_.columns) == ["row", "file", "stage", "reason"]
    assert clf.class_count_.tolist() == [11, 12]
    # As if the cells had been missing to begin with, and row 8 not there.
    expected = worse.copy()
    expected.loc[[5, 8], "audio"] = None
    keep = np.arange(24) != 8
    other = FDANClassifier(**SMALL).fit(expected[keep].reset_index(drop=True), y[keep])
    for key, value in clf.module_.state_dict().items():
        assert value.equal(other.module_.state_dict()[key]), key


def test_skip_leaves_out_the_row(files, tmp_path):
    table, y = files
    with pytest.warns(UserWarning, match="of 24 rows 1 are left out"):
        clf = FDANClassifier(**SMALL, on_error="skip").fit(broken(table, tmp_path, [5]), y)
    keep = np.arange(24) != 5
    other = FDANClassifier(**SMALL).fit(table[keep].reset_index(drop=True), y[keep])
    for key, value in clf.module_.state_dict().items():
        assert value.equal(other.module_.state_dict()[key]), key


def test_a_skipped_cell_of_a_transformer_leaves_out_the_row(files):
    table, y = files
    arrays = decoded(table)
    arrays.loc[3, "audio"] = SKIP
    with pytest.warns(UserWarning, match="of 24 rows 1 are left out"):
        clf = FDANClassifier(**SMALL).fit(arrays, y)
    assert clf.class_count_.tolist() == [12, 11]
    assert clf.report_["row"].tolist() == [3]


def test_a_class_whose_rows_are_all_left_out_is_no_class(files):
    table, y = files
    arrays = decoded(table)
    arrays.loc[len(arrays)] = [None, None]
    y = np.append(y, "fear")
    with pytest.warns(UserWarning, match="row 24 has no usable cell"):
        clf = FDANClassifier(**SMALL, on_error="missing").fit(arrays, y)
    assert clf.classes_.tolist() == ["anger", "joy"]


def test_rows_without_a_usable_cell_are_predicted_by_the_shares_of_the_classes(files, tmp_path):
    table, y = files
    y = np.where(np.arange(24) < 6, "joy", y)
    clf = FDANClassifier(**SMALL, on_error="missing").fit(table, y)
    worse = broken(table, tmp_path, [2])
    worse.loc[7, "audio"] = None
    good = np.setdiff1d(np.arange(24), [2, 7])
    with pytest.warns(UserWarning, match=r"2 of 24 rows have no usable audio cell.*row 2 .*bad"):
        proba = clf.predict_proba(worse)
    np.testing.assert_allclose(proba[good], clf.predict_proba(table)[good], rtol=1e-12)
    np.testing.assert_allclose(proba[[2, 7]], [[9 / 24, 15 / 24]] * 2)
    with pytest.warns(UserWarning, match="no usable audio cell"):
        assert np.isnan(clf.transform(worse)[[2, 7]]).all()
    with pytest.warns(UserWarning, match="24 of 24"):
        alone = clf.predict(make_table(audio=[None] * 24, visual=list(table["visual"])))
    assert set(alone) == {"joy"}
    clf.set_params(on_error="raise")
    with pytest.raises(ValueError, match=r"row 2 .*bad\.wav"):
        clf.predict(worse.drop(index=7))
    with pytest.raises(ValueError, match="Row 7 has no audio cell"):
        clf.predict(worse)


def test_one_bad_file_among_many_rows_is_reported_for_each(files, tmp_path):
    table, y = files
    worse = broken(table, tmp_path, [1, 4, 9])
    with pytest.warns(UserWarning, match="3 files could not be read"):
        clf = FDANClassifier(**SMALL, on_error="skip").fit(worse, y)
    assert clf.report_["row"].tolist() == [1, 4, 9]


def test_chunks_change_nothing(files, monkeypatch):
    table, y = files
    clf = FDANClassifier(**SMALL).fit(table, y)
    whole = clf.predict_proba(table)
    monkeypatch.setattr("skfdan.classifiers._prediction.CHUNK", 5)
    np.testing.assert_allclose(clf.predict_proba(table), whole, rtol=1e-13)


def test_paths_beside_arrays_are_refused(files):
    table, y = files
    mixed = table.copy()
    mixed.at[4, "audio"] = np.zeros((16, 16), np.float32)
    with pytest.raises(
        ValueError, match=r"audio column holds paths \(row 0\) and arrays \(row 4\)"
    ):
        FDANClassifier(**SMALL).fit(mixed, y)


def test_a_method_without_transformers_says_what_to_put_before_it(files):
    table, y = files
    with pytest.raises(ValueError, match=r"row 0 is the path .*\.wav'\. Put MelSpectrogram"):
        GMTCNetClassifier(max_epochs=1).fit(make_table(audio=table["audio"]), y)


def test_paths_in_two_columns_of_their_own(files):
    table, y = files
    visual, audio = table["visual"].tolist(), table["audio"].tolist()
    one = FDANClassifier(**SMALL).fit(visual, audio, y)
    np.testing.assert_array_equal(
        one.predict_proba(table), FDANClassifier(**SMALL).fit(table, y).predict_proba(table)
    )


def test_an_unreadable_file_of_two_columns_goes_as_on_error_says(files, tmp_path):
    table, y = files
    worse = broken(table, tmp_path, [5])
    visual, audio = table["visual"].tolist(), worse["audio"].tolist()
    expected = worse.copy()
    expected.loc[5, "audio"] = None
    other = FDANClassifier(**SMALL).fit(expected, y)
    with pytest.warns(UserWarning, match="1 files could not be read"):
        clf = FDANClassifier(**SMALL, on_error="missing").fit(visual, audio, y)
    for key, value in clf.module_.state_dict().items():
        assert value.equal(other.module_.state_dict()[key]), key
    with pytest.warns(UserWarning, match="of 30 rows 1 are left out"):
        clf = FDANClassifier(**SMALL, on_error="missing").fit(
            visual[:6], audio, y_vis=y[:6], y_aud=y
        )
    assert clf.report_["row"].tolist() == [11]
    assert clf.class_count_.sum() == 29


def test_nothing_is_warned_of_where_nothing_is_wrong(files):
    table, y = files
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf = FDANClassifier(**SMALL, on_error="missing").fit(table, y)
        clf.predict(table)
    assert len(clf.report_) == 0
