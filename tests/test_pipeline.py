"""From paths on disk to scores, as users write it."""

import copy
import pickle
from collections import Counter
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedShuffleSplit, cross_validate
from sklearn.pipeline import make_pipeline

from skfdan import SCORING, AudioHoldout, FDANClassifier, make_table, unpair
from skfdan.datasets import make_emotion_clips
from skfdan.preprocessing import FaceFrames, MediaError, MelSpectrogram


class CountingMel(MelSpectrogram):
    """Notes every file that it decodes, from whatever process."""

    def _waveform(self, cell):
        with open(Path(self.cache_dir).parent / "decoded.log", "a") as log:
            log.write(f"{cell}\n")
        return super()._waveform(cell)


class CountingFaces(FaceFrames):
    """Notes every file that it decodes, from whatever process."""

    def _frames(self, cell):
        with open(Path(self.cache_dir).parent / "decoded.log", "a") as log:
            log.write(f"{cell}\n")
        return super()._frames(cell)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_emotion_clips(
        24,
        4,
        emotions=("anger", "sadness", "surprise"),
        duration=0.8,
        frame_size=64,
        fps=5,
        root=tmp_path_factory.mktemp("clips"),
        random_state=0,
    )


def make_model(cache_dir, **parameters):
    prepare = ColumnTransformer(
        [
            (
                "visual",
                CountingFaces(n_frames=2, size=32, detector=None, cache_dir=cache_dir / "cache"),
                ["visual"],
            ),
            (
                "audio",
                CountingMel(n_mels=32, duration=0.8, cache_dir=cache_dir / "cache"),
                ["audio"],
            ),
        ]
    )
    quick = {
        "backbone": "cnn",
        "weights": None,
        "input_size": 32,
        "bottleneck": 32,
        "lr": 0.01,
        "momentum": 0.9,
        "max_epochs": 3,
        "random_state": 0,
    }
    return make_pipeline(prepare, FDANClassifier(**{**quick, **parameters}))


def decoded(folder):
    return Counter((folder / "decoded.log").read_text().split("\n")[:-1])


def all_files(clips):
    return {*clips.table["visual"], *clips.table["audio"]}


def test_pipeline_from_paths_learns_and_predicts_a_wav(clips, tmp_path):
    model = make_model(tmp_path, max_epochs=60).fit(clips.table, clips.target)
    assert model.score(clips.table, clips.target) > 0.8
    wav = clips.table["audio"].iloc[0]
    assert model.predict(make_table(audio=[wav])).tolist() == [clips.target[0]]
    assert decoded(tmp_path) == Counter(all_files(clips))


@pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_grid_search_decodes_every_file_once(clips, tmp_path, n_jobs):
    search = GridSearchCV(
        make_model(tmp_path),
        {
            "fdanclassifier__alpha": [1e-3, 1e-4],
            "fdanclassifier__weight_decay": [1e-3, 1e-4],
        },
        cv=GroupKFold(2),
        scoring=SCORING,
        refit="UAR",
        n_jobs=n_jobs,
        error_score="raise",
    ).fit(clips.table, clips.target, groups=clips.groups)
    assert len(search.cv_results_["mean_test_WAR"]) == 4
    for metric in SCORING:
        assert np.isfinite(search.cv_results_[f"mean_test_{metric}"]).all()
    assert decoded(tmp_path) == Counter(all_files(clips))
    audio = make_table(audio=clips.table["audio"])
    expected = search.predict_proba(audio)
    for copied in (pickle.loads(pickle.dumps(search)), copy.deepcopy(search)):
        np.testing.assert_array_equal(copied.predict_proba(audio), expected)
    joblib.dump(search.best_estimator_, tmp_path / "model.joblib")
    np.testing.assert_array_equal(
        joblib.load(tmp_path / "model.joblib").predict_proba(audio), expected
    )


@pytest.mark.parametrize("visual", ["all", "disjoint"])
def test_nested_validation_in_both_protocols_decodes_once(clips, tmp_path, visual):
    table, y, groups = unpair(clips.table, clips.target, clips.groups)
    inner = AudioHoldout(StratifiedShuffleSplit(2, test_size=0.4, random_state=0), "all")
    search = GridSearchCV(
        make_model(tmp_path),
        {"fdanclassifier__alpha": [1e-3, 1e-4]},
        cv=inner,
        refit="UAR",
        scoring=SCORING,
        error_score="raise",
    )
    scores = cross_validate(
        search,
        table,
        y,
        groups=groups,
        cv=AudioHoldout(GroupKFold(2), visual),
        scoring=SCORING,
        error_score="raise",
    )
    for metric in SCORING:
        assert scores[f"test_{metric}"].shape == (2,)
    assert decoded(tmp_path) == Counter(all_files(clips))


def test_order_of_columns_does_not_matter_with_named_output(clips, tmp_path):
    model = make_model(tmp_path)
    prepare = model[0]
    swapped = ColumnTransformer(prepare.transformers[::-1]).set_output(transform="pandas")
    other = make_pipeline(swapped, clone(model[1])).fit(clips.table, clips.target)
    model.fit(clips.table, clips.target)
    np.testing.assert_allclose(
        other.predict_proba(clips.table), model.predict_proba(clips.table), atol=1e-6
    )


def test_swapped_columns_without_names_are_noticed(clips, tmp_path):
    model = make_model(tmp_path)
    swapped = ColumnTransformer(model[0].transformers[::-1])
    with pytest.raises(ValueError, match=r"first is taken as visual.*Put \"visual\" first"):
        make_pipeline(swapped, model[1]).fit(clips.table, clips.target)


def test_a_broken_file_is_named_with_its_row(clips, tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    table = clips.table.copy()
    table.loc[5, "audio"] = str(broken)
    with pytest.raises(MediaError, match=r"row 5.*broken\.wav"):
        make_model(tmp_path).fit(table, clips.target)
    # What was decoded before is kept: mended, only that file is new.
    before = decoded(tmp_path)
    make_model(tmp_path).fit(clips.table, clips.target)
    files = decoded(tmp_path) - before
    assert all(before[name] == 0 for name in files)


@pytest.mark.slow
def test_real_voices_and_other_peoples_faces(real_data, tmp_path):
    from skfdan import stack_modalities
    from skfdan.datasets import load_fer2013, load_ravdess

    voices = load_ravdess(real_data / "ravdess", emotions=["anger", "sadness"])
    faces = load_fer2013(real_data / "fer2013" / "fer2013_48.npz", emotions=["anger", "sadness"])
    few = voices.frame["speaker"].isin(sorted(set(voices.groups))[:6]).to_numpy()
    X_aud = MelSpectrogram(n_mels=32, hop_length=512).fit_transform(
        voices.table.loc[few, ["audio"]]
    )
    X_vis = FaceFrames(detector=None, size=32).fit_transform(faces.table[["visual"]].iloc[:200])
    table, y, groups = stack_modalities(
        visual=(X_vis[:, 0], faces.target[:200], faces.groups[:200]),
        audio=(X_aud[:, 0], voices.target[few], voices.groups[few]),
    )
    scores = cross_validate(
        make_model(tmp_path, max_epochs=40)[-1],
        table,
        y,
        groups=groups,
        scoring=SCORING,
        cv=AudioHoldout(GroupKFold(3), "disjoint"),
        error_score="raise",
    )
    assert scores["test_UAR"].mean() > 0.65
