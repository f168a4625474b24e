import copy

import numpy as np
import pytest
import torch
from classifiers.small_clips import EMOTIONS, QUICK, make_clips
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC

from skfdan import FDANClassifier, make_table, stack_modalities
from skfdan.classifiers import (
    CoAttentionClassifier,
    FDRLClassifier,
    GMTCNetClassifier,
    MISAClassifier,
    SDTClassifier,
    WavFusionClassifier,
)
from skfdan.inspection import AlignedSpaceDisplay
from skfdan.inspection._figure import COLOURS, class_styles


def pca_by_hand(z):
    z = z - z.mean(0)
    left, size, _ = np.linalg.svd(z.astype(float), full_matrices=False)
    return left[:, :2] * size[:2], (size**2 / (size**2).sum())[:2]


def features_of(clf, modality, cells):
    read = clone(clf)
    vars(read).update({k: v for k, v in vars(clf).items() if k != "predict_modality"})
    read.predict_modality = modality
    return read.transform(make_table(**{modality: cells}))


def assert_same_up_to_sign(points, expected):
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-4)


def test_points_are_principal_components(fitted, table, clips):
    faces, sound, y = clips
    display = AlignedSpaceDisplay.from_estimator(fitted, table, y)
    z = [features_of(fitted, m, cells) for m, cells in (("visual", faces), ("audio", sound))]
    expected, share = pca_by_hand(np.concatenate(z))
    drawn = np.empty_like(expected)
    for (modality, label), scatter in display.scatters_.items():
        rows = np.flatnonzero(y == label) + (40 if modality == "audio" else 0)
        drawn[rows] = scatter.get_offsets()
    assert_same_up_to_sign(drawn, expected)
    assert f"({100 * share[0]:.0f} % of the variance)" in display.ax_.get_xlabel()
    assert fitted.predict_modality == "audio"


def test_every_form_of_input_gives_the_same_points(fitted, table, clips):
    faces, sound, y = clips
    paired = AlignedSpaceDisplay.from_estimator(fitted, table, y)
    stacked, labels, _ = stack_modalities(visual=(faces, y), audio=(sound, y))
    forms = [
        (stacked, labels),
        ((faces, sound), y),
        ({"visual": faces, "audio": sound}, y),
        ((faces, sound), (y, y)),
        ({"visual": faces, "audio": sound}, (y, y)),
    ]
    for X, target in forms:
        display = AlignedSpaceDisplay.from_estimator(fitted, X, target)
        for modality in ("visual", "audio"):
            np.testing.assert_allclose(
                display.embedding[modality], paired.embedding[modality], atol=1e-6
            )
    ragged = [x[:, : -1 - i % 3] for i, x in enumerate(sound)]  # of different width
    alone = AlignedSpaceDisplay.from_estimator(fitted, ragged, y)
    of_table = AlignedSpaceDisplay.from_estimator(fitted, make_table(audio=ragged), y)
    np.testing.assert_allclose(alone.embedding["audio"], of_table.embedding["audio"], atol=1e-6)
    pipe = make_pipeline(FunctionTransformer(), fitted)
    display = AlignedSpaceDisplay.from_estimator(pipe, table, y)
    np.testing.assert_allclose(display.embedding["audio"], paired.embedding["audio"], atol=1e-6)


def test_unpaired_numbers_may_differ(fitted, clips):
    faces, sound, y = clips
    display = AlignedSpaceDisplay.from_estimator(fitted, (faces[:12], sound), (y[:12], y))
    assert {m: len(p) for m, p in display.embedding.items()} == {"visual": 12, "audio": 40}
    names = [t.get_text() for t in display.legend_.get_texts()]
    assert names == ["faces (12)", "voices (40)", *EMOTIONS]


class Frame:
    """As little of a data frame as they all have in common."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


def test_features_in_a_frame_are_read_too(fitted, table, clips, monkeypatch):
    expected = AlignedSpaceDisplay.from_estimator(fitted, table, clips[2]).embedding
    transform = FDANClassifier.transform
    monkeypatch.setattr(FDANClassifier, "transform", lambda self, X: Frame(transform(self, X)))
    with config_context(transform_output="pandas"):
        embedding = AlignedSpaceDisplay.from_estimator(fitted, table, clips[2]).embedding
    for modality, points in expected.items():
        assert type(embedding[modality]) is np.ndarray
        np.testing.assert_array_equal(embedding[modality], points)


def test_one_modality(fitted, clips):
    _, sound, y = clips
    for X in (sound, make_table(audio=sound)):
        display = AlignedSpaceDisplay.from_estimator(fitted, X, y)
        assert list(display.embedding) == ["audio"]


def test_matrix_of_numbers():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 9)), np.arange(20) % 3
    clf = FDANClassifier(
        visual=slice(0, 4), audio=[4, 5, 6, 7, 8], **QUICK | {"max_epochs": 2, "verbose": 0}
    ).fit(X, y)
    display = AlignedSpaceDisplay.from_estimator(clf, X, y)
    assert {m: p.shape for m, p in display.embedding.items()} == {
        "visual": (20, 2),
        "audio": (20, 2),
    }
    assert len(display.scatters_) == 6


def test_tsne_and_a_choice_of_samples():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    z = {m: rng.normal(size=(60, 5)) + 20 * y[:, None] for m in ("visual", "audio")}
    one, other = (
        AlignedSpaceDisplay.from_features(
            z, {"visual": y, "audio": y}, method="tsne", max_samples=40, random_state=3
        )
        for _ in range(2)
    )
    assert {m: len(p) for m, p in one.embedding.items()} == {"visual": 40, "audio": 40}
    for modality in z:
        np.testing.assert_array_equal(one.embedding[modality], other.embedding[modality])
    points = np.concatenate(list(one.embedding.values()))
    labels = np.concatenate(list(one.labels.values()))
    gap = points[labels == 0].mean(0) - points[labels == 1].mean(0)
    within = max(points[labels == k].std(0).max() for k in (0, 1))
    assert np.linalg.norm(gap) > 2 * within


def test_styles_never_repeat():
    for modality in ("visual", "audio"):
        styles = class_styles(32, modality)
        assert len(set(styles)) == 32
        assert {c for c, _ in styles} == set(COLOURS)
    with pytest.raises(ValueError, match="33 classes can't be told apart"):
        class_styles(33, "audio")


def test_colours_follow_classes_and_names_are_there():
    rng = np.random.default_rng(0)
    classes = [f"emotion {i:02d}" for i in range(10)]
    y = np.array(classes * 3)
    display = AlignedSpaceDisplay.from_features(
        {"audio": rng.normal(size=(30, 4))}, {"audio": y}, classes=classes
    )
    for i in (0, 3, 9):
        colour = display.scatters_["audio", classes[i]].get_edgecolors()[0]
        assert to_hex(colour).upper() == COLOURS[i % 8]
    assert sorted(t.get_text() for t in display.ax_.texts) == classes
    assert not display.plot(annotate=False, legend=False).ax_.texts
    assert display.legend_ is None


def test_names_do_not_cover_each_other():
    rng = np.random.default_rng(0)
    y = np.array([f"emotion {i}" for i in range(12)] * 20)
    display = AlignedSpaceDisplay.from_features({"audio": rng.normal(size=(240, 4))}, {"audio": y})
    display.figure_.draw_without_rendering()
    boxes = [t.get_window_extent() for t in display.ax_.texts]
    assert len(boxes) == 12
    for i, box in enumerate(boxes):
        # A name and the line to its place make one box: compare the names' lower edges.
        for other in boxes[:i]:
            assert not (abs(box.y0 - other.y0) < 4 and box.x0 < other.x1 and other.x0 < box.x1)


def test_names_of_modalities_that_lie_apart():
    rng = np.random.default_rng(0)
    z = {"visual": rng.normal(size=(20, 4)), "audio": rng.normal(size=(20, 4)) + 50}
    y = {m: np.array(["fear", "joy"] * 10) for m in z}
    display = AlignedSpaceDisplay.from_features(z, y)
    assert sorted(t.get_text() for t in display.ax_.texts) == ["fear", "fear", "joy", "joy"]


def test_axes_are_used_again(fitted, table, clips):
    _, ax = plt.subplots()
    display = AlignedSpaceDisplay.from_estimator(
        fitted, table, clips[2], ax=ax, scatter_kw={"s": 3}
    )
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    assert display.scatters_["audio", "joy"].get_sizes().tolist() == [3]


def test_errors_of_estimators(fitted, table, clips):
    y = clips[2]
    draw = AlignedSpaceDisplay.from_estimator
    with pytest.raises(NotFittedError):
        draw(FDANClassifier(), table, y)
    with pytest.raises(TypeError, match=r"classifier of skfdan\.classifiers, .*; got SVC"):
        draw(SVC(), table, y)
    with pytest.raises(ValueError, match=r"y has 39 rows, but X has 40"):
        draw(fitted, table, y[:39])
    with pytest.raises(ValueError, match=r"y holds 'calm', which is not among the classes"):
        draw(fitted, table, ["calm", *y[1:]])
    with pytest.raises(ValueError, match=r"y is missing \(NaN or None\) in row 0"):
        draw(fitted, table, [None, *y[1:]])
    with pytest.raises(ValueError, match="y of visual has 40 rows, but X of visual has 3"):
        draw(fitted, (clips[0][:3], clips[1]), (y, y))
    with pytest.raises(ValueError, match="has no usable visual or audio cell"):
        draw(fitted, make_table(audio=[None] * 40), y)


def test_a_classifier_of_voices_alone(table, clips):
    quick = {k: v for k, v in QUICK.items() if k in ("max_epochs", "random_state")}
    gmtcnet = GMTCNetClassifier(**quick | {"max_epochs": 1}, verbose=0).fit(table, clips[2])
    with pytest.raises(TypeError, match="GMTCNetClassifier gives no features of each modality"):
        AlignedSpaceDisplay.from_estimator(gmtcnet, table, clips[2])


def test_cells_that_the_classifier_never_saw_are_left_out():
    faces, sound, y = make_clips(12)
    clf = FDANClassifier(**QUICK | {"max_epochs": 1, "verbose": 0}).fit(make_table(audio=sound), y)
    display = AlignedSpaceDisplay.from_estimator(clf, make_table(visual=faces, audio=sound), y)
    assert list(display.embedding) == ["audio"]


def test_files_that_cannot_be_read_are_left_out(files, model):
    table = files.table.copy()
    table.loc[1, "audio"] = "nowhere.wav"
    with pytest.warns(UserWarning, match="1 of 2 rows have no usable audio cell"):
        display = AlignedSpaceDisplay.from_estimator(model, table, files.target)
    assert {m: y.tolist() for m, y in display.labels.items()} == {
        "visual": ["anger", "sadness"],
        "audio": ["anger"],
    }


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"method": "umap"}, ValueError, "method='umap' is unknown"),
        ({"features": np.zeros((4, 2))}, TypeError, "features must map a modality"),
        ({"features": {"smell": np.zeros((4, 2))}}, ValueError, "modality 'smell' is unknown"),
        ({"labels": {"visual": [1] * 4}}, ValueError, "features are of audio, but labels of"),
        (
            {"labels": {"audio": [1] * 3}},
            ValueError,
            "labels of audio has 3 rows, but features has 4",
        ),
        ({"features": {"audio": np.zeros(4)}}, ValueError, r"must be a matrix \(n, d\)"),
        ({"features": {"audio": np.full((4, 2), np.nan)}}, ValueError, "row 0 are NaN"),
        ({"features": {"audio": np.zeros((4, 1))}}, ValueError, "a plane needs 3 samples of 2"),
        ({"classes": [2, 3]}, ValueError, "labels of audio holds 1, which is not among"),
        ({"max_samples": 0}, ValueError, "max_samples=0 must be at least 1"),
    ],
)
def test_errors_of_features(change, error, message):
    arguments = {"features": {"audio": np.eye(4)}, "labels": {"audio": [1, 1, 2, 2]}} | change
    with pytest.raises(error, match=message):
        AlignedSpaceDisplay.from_features(**arguments)


def test_modalities_of_unequal_width():
    with pytest.raises(ValueError, match="columns differ: visual features 3, audio features 4"):
        AlignedSpaceDisplay.from_features(
            {"visual": np.eye(3), "audio": np.eye(4)}, {"visual": [1] * 3, "audio": [1] * 4}
        )


def test_features_of_dialogues_are_those_of_transform():
    rng = np.random.default_rng(0)
    X = make_table(audio=rng.normal(size=(24, 4)), visual=rng.normal(size=(24, 3)))
    X["dialogue"], X["speaker"] = np.arange(24) // 6, np.tile(["Ross", "Rachel"], 12)
    y = np.tile(["anger", "joy"], 12)
    settings = {"hidden": 8, "n_heads": 2, "max_epochs": 2, "random_state": 0, "verbose": 0}
    clf = SDTClassifier(modalities=("audio", "visual"), **settings).fit(X, y)
    # A warning that there is no column of dialogues would be an error here.
    display = AlignedSpaceDisplay.from_estimator(clf, X, y)
    z = {m: copy.copy(clf).set_params(predict_modality=m).transform(X) for m in ("visual", "audio")}
    expected = AlignedSpaceDisplay.from_features(z, dict.fromkeys(z, y))
    for modality in z:
        np.testing.assert_allclose(
            display.embedding[modality], expected.embedding[modality], atol=1e-4
        )


WIDTHS = {"visual": 3, "audio": 4, "text": 5}
EPOCH = {"max_epochs": 1, "random_state": 0, "verbose": 0}
WAVFUSION = EPOCH | {"dim": 8, "hidden": 4, "n_heads": 2, "common_dim": 6, "n_codes": 4}
TWO = ("audio", "text")


def of_three():
    """Return a table of three modalities, of which two rows lack something, and its labels."""
    rng = np.random.default_rng(0)
    X = make_table(**{m: list(rng.normal(size=(20, d))) for m, d in WIDTHS.items()})
    X.at[3, "text"] = X.at[4, "audio"] = None
    return X, np.tile(["anger", "joy"], 10)


@pytest.mark.parametrize(
    ("clf", "space"),
    [
        (MISAClassifier(hidden=8, ffn_dim=16, **EPOCH), "shared"),
        (FDRLClassifier(hidden=8, **EPOCH), "shared"),
        (WavFusionClassifier(**WAVFUSION), "common"),
        (WavFusionClassifier(fusion="concat", **WAVFUSION), "common"),
        (WavFusionClassifier(modalities=TWO, n_deep=0, **WAVFUSION), "common"),
    ],
)
@pytest.mark.parametrize("output", ["default", "pandas"])
def test_joint_classifiers_are_shown_in_the_space_that_modalities_share(clf, space, output):
    X, y = of_three()
    clf = clone(clf).fit(X, y)
    kept = vars(clf).copy()
    with config_context(transform_output=output):
        display = AlignedSpaceDisplay.from_estimator(clf, X, y)
    assert {k: v for k, v in vars(clf).items() if k in kept} == kept
    net = copy.deepcopy(clf.module_).double().eval()
    z, labels = {}, {}
    for m in sorted(clf._specs, key=list(WIDTHS).index):
        cells = np.stack([cell for cell in X[m] if cell is not None])
        with torch.inference_mode():
            z[m] = getattr(net(**{m: torch.from_numpy(cells).float()}), space)[m].numpy()
        labels[m] = y[X[m].notna()]
    assert len({features.shape[1] for features in z.values()}) == 1
    expected, _ = pca_by_hand(np.concatenate(list(z.values())))
    assert list(display.embedding) == list(z)
    assert "text" in z
    assert_same_up_to_sign(np.concatenate(list(display.embedding.values())), expected)
    for m, own in labels.items():
        np.testing.assert_array_equal(display.labels[m], own)
    assert f"texts ({len(labels['text'])})" in [t.get_text() for t in display.legend_.get_texts()]


def test_a_classifier_without_a_common_space_is_refused():
    X, y = of_three()
    clf = CoAttentionClassifier(dim=8, **EPOCH).fit(X, y)
    message = "CoAttentionClassifier has no space that its modalities share.*by from_features"
    with pytest.raises(TypeError, match=message):
        AlignedSpaceDisplay.from_estimator(clf, X, y)
    assert clf.transform(X).shape == (20, 32)


def test_texts_of_a_matrix_and_of_dialogues():
    X, y = of_three()
    X = X.drop(index=[3, 4])
    matrix, columns = np.hstack([np.stack(X[m]) for m in TWO]), {"audio": [0, 1, 2, 3]}
    clf = FDRLClassifier(hidden=8, text=slice(4, 9), **columns, **EPOCH).fit(matrix, y[:18])
    display = AlignedSpaceDisplay.from_estimator(clf, matrix, y[:18])
    assert {m: len(p) for m, p in display.embedding.items()} == dict.fromkeys(TWO, 18)
    X["dialogue"] = np.arange(18) // 6
    clf = SDTClassifier(hidden=8, n_heads=2, **EPOCH).fit(X, y[:18])
    display = AlignedSpaceDisplay.from_estimator(clf, X, y[:18])
    assert list(display.embedding) == ["visual", "audio", "text"]


def test_names_of_an_emotion_whose_modalities_lie_apart():
    rng = np.random.default_rng(0)
    near = {m: 0.01 * rng.normal(size=(9, 2)) for m in WIDTHS}
    y = dict.fromkeys(WIDTHS, ["joy"] * 8 + ["fear"])
    for places, n_names in (({}, 1), ({"text": 9.0}, 3), ({"text": 9.0, "audio": -9.0}, 3)):
        z = {m: values + places.get(m, 0.0) for m, values in near.items()}
        for values in z.values():
            values[8] = 20.0
        display = AlignedSpaceDisplay.from_features(z, y)
        assert sum(name == "joy" for name, _ in display._middles()) == n_names


def test_columns_set_after_the_fit_are_of_the_next():
    y = np.array(["anger", "joy"] * 10)
    X = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    columns = {"visual": slice(0, 3), "audio": slice(3, 6)}
    clf = FDANClassifier(**columns, bottleneck=4, max_epochs=1, random_state=0, verbose=0).fit(X, y)
    expected = AlignedSpaceDisplay.from_estimator(clf, X, y, random_state=0).embedding
    clf.set_params(visual=None, audio=None)
    found = AlignedSpaceDisplay.from_estimator(clf, X, y, random_state=0).embedding
    assert set(found) == {"visual", "audio"}
    for modality in found:
        np.testing.assert_array_equal(found[modality], expected[modality])
