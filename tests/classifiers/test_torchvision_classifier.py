import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone

from classifiers.small_clips import QUICK, make_clips
from skfdan import make_table
from skfdan.classifiers import TorchvisionClassifier

TINY = {k: v for k, v in QUICK.items() if k not in ("backbone", "bottleneck")} | {"arch": "cnn"}


@pytest.fixture(scope="module")
def late_fusion(clips):
    X_vis, X_aud, y = clips
    clf = TorchvisionClassifier(**TINY, predict_modality="fused")
    return clf.fit(make_table(visual=X_vis, audio=X_aud), y)


def log_proba(clf, modality, cells):
    """Log-probabilities of one network, asked without the classifier."""
    with torch.no_grad():
        logits = clf.module_.eval()(**{modality: torch.from_numpy(cells)}).logits[modality]
    return logits.double().log_softmax(1).numpy()


@pytest.mark.parametrize("modality", ["audio", "visual", "fused"])
def test_learns(clips, modality):
    X_vis, X_aud, y = clips
    clf = TorchvisionClassifier(**TINY, predict_modality=modality)
    clf.fit(make_table(visual=X_vis, audio=X_aud), y)
    new_vis, new_aud, new_y = make_clips(seed=1)
    assert clf.score(make_table(visual=new_vis, audio=new_aud), new_y) > 0.9
    modalities = {"visual", "audio"} if modality == "fused" else {modality}
    assert set(clf.module_.backbones) == modalities
    row = clf.history_[-1]
    assert row["train_loss"] == pytest.approx(sum(row[f"ce_{m}"] for m in modalities), rel=1e-5)


@pytest.mark.parametrize(("modality", "other"), [("audio", "visual"), ("visual", "audio")])
def test_only_the_cells_of_predict_modality_are_read(clips, modality, other):
    cells = dict(zip(("visual", "audio"), clips[:2], strict=True))
    y = clips[2]
    clf = TorchvisionClassifier(**{**TINY, "max_epochs": 2}, predict_modality=modality)
    alone = make_table(**{modality: cells[modality]})
    expected = clone(clf).fit(alone, y).predict_proba(alone)
    unread = [None if i % 2 else f"no such file {i}" for i in range(len(y))]
    for column in (unread, cells[other][::-1]):
        table = make_table(**{modality: cells[modality], other: column})
        np.testing.assert_array_equal(clone(clf).fit(table, y).predict_proba(table), expected)
    two_arrays = clone(clf).fit(*clips)
    np.testing.assert_array_equal(two_arrays.predict_proba(alone), expected)


def test_late_fusion_is_the_mean_log_probability(late_fusion):
    X_vis, X_aud, _ = make_clips(n=12, seed=3)
    X_vis[::2] = X_vis[::-1][::2]  # faces and voices that contradict each other
    visual = log_proba(late_fusion, "visual", X_vis)
    audio = log_proba(late_fusion, "audio", X_aud[:, None])
    expected = (visual + audio) / 2
    expected[:4], expected[4:8] = audio[:4], visual[4:8]
    table = make_table(
        visual=[None if i < 4 else face for i, face in enumerate(X_vis)],
        audio=[None if 4 <= i < 8 else voice for i, voice in enumerate(X_aud)],
    )
    np.testing.assert_allclose(late_fusion.decision_function(table), expected, atol=1e-5)
    proba = np.exp(expected) / np.exp(expected).sum(1, keepdims=True)
    np.testing.assert_allclose(late_fusion.predict_proba(table), proba, atol=1e-6)


def test_one_of_two_networks_can_be_asked_alone(late_fusion):
    X_vis, X_aud, _ = make_clips(n=8, seed=3)
    table = make_table(visual=X_vis, audio=X_aud)
    visual = copy.copy(late_fusion).set_params(predict_modality="visual")
    audio = copy.copy(late_fusion).set_params(predict_modality="audio")
    np.testing.assert_allclose(
        late_fusion.decision_function(table),
        (visual.decision_function(table) + audio.decision_function(table)) / 2,
    )
    assert audio.transform(table).shape == (8, 128)
    assert len(audio.get_feature_names_out()) == 128


def test_features_of_late_fusion_are_its_log_probabilities(late_fusion):
    X_vis, X_aud, _ = make_clips(n=8, seed=3)
    table = make_table(visual=[None, *X_vis[1:]], audio=X_aud)
    features = late_fusion.transform(table)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, late_fusion.decision_function(table), rtol=1e-5)
    assert len(late_fusion.get_feature_names_out()) == features.shape[1] == 4


def test_unpaired_rows(clips):
    X_vis, X_aud, y = clips
    none = [None] * len(y)
    table = make_table(visual=[*X_vis, *none], audio=[*none, *X_aud])
    clf = TorchvisionClassifier(**TINY, predict_modality="fused").fit(table, np.append(y, y))
    assert clf.score(table, np.append(y, y)) > 0.9
    audio = TorchvisionClassifier(**TINY).fit(table, np.append(y, y))
    assert audio.score(make_table(audio=X_aud), y) > 0.9
    with pytest.raises(ValueError, match="Row 0 has no audio cell"):
        audio.predict(table)


def test_frames_of_a_face_are_averaged(late_fusion):
    X_vis, _, _ = make_clips(n=6, seed=4)
    clf = copy.copy(late_fusion).set_params(predict_modality="visual")
    frames = make_table(visual=[np.stack([X_vis[i], X_vis[i - 1]]) for i in range(6)])
    one = clf.decision_function(make_table(visual=X_vis))
    expected = (one + np.roll(one, 1, axis=0)) / 2
    np.testing.assert_allclose(clf.decision_function(frames), expected, atol=1e-6)


def test_predictions_depend_on_their_own_row_only(late_fusion):
    X_vis, X_aud, _ = make_clips(seed=5)
    table = make_table(visual=X_vis, audio=X_aud)
    expected = late_fusion.predict_proba(table)
    for rows in ([3], [7, 3, 3, 20], range(11, 40)):
        rows = list(rows)
        proba = late_fusion.predict_proba(table.iloc[rows])
        np.testing.assert_allclose(proba, expected[rows], atol=1e-6)


def test_matrices_whose_modalities_have_unequal_widths():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 90)
    X = rng.normal(size=(90, 7)) + 2 * np.eye(3, 7)[y] + 2 * np.eye(3, 7)[y][:, ::-1]
    clf = TorchvisionClassifier(
        visual=[0, 1, 2], audio=slice(3, 7), predict_modality="fused", lr=0.05, max_epochs=30
    )
    assert clf.fit(X, y).score(X, y) > 0.9
    widths = {m: head.in_features for m, head in clf.module_.classifiers.items()}
    assert widths == {"visual": 3, "audio": 4}


def test_early_stopping_waits_for_a_better_epoch(clips):
    X_vis, X_aud, y = clips
    clf = TorchvisionClassifier(
        **TINY,
        predict_modality="fused",
        early_stopping=True,
        validation_fraction=0.2,
        n_iter_no_change=2,
    )
    clf.fit(make_table(visual=X_vis, audio=X_aud), y)
    scores = clf.history_[:, "valid_uar"]
    assert len(scores) < TINY["max_epochs"]
    assert len(scores) == int(np.argmax(scores)) + 1 + 2


def test_errors(clips, late_fusion):
    X_vis, X_aud, y = clips
    table = make_table(visual=X_vis, audio=X_aud)
    with pytest.raises(ValueError, match="predict_modality='speech' is unknown"):
        TorchvisionClassifier(**TINY, predict_modality="speech").fit(table, y)
    with pytest.raises(ValueError, match=r"arch='vgg11' is unknown; choose one of.*'vgg16'"):
        TorchvisionClassifier(**{**TINY, "arch": "vgg11"}).fit(table, y)
    with pytest.raises(ValueError, match="no audio cell, which TorchvisionClassifier learns from"):
        TorchvisionClassifier(**TINY).fit(make_table(visual=X_vis), y)
    with pytest.raises(ValueError, match="backbone_trainable='layer4': give True or False"):
        TorchvisionClassifier(**TINY, backbone_trainable="layer4").fit(table, y)
    audio = TorchvisionClassifier(**{**TINY, "max_epochs": 1}).fit(table, y)
    audio.set_params(predict_modality="visual")
    with pytest.raises(ValueError, match=r"fitted without any; it knows audio"):
        audio.predict(table)


def pool():
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten()), 48


@pytest.mark.parametrize(("arch", "expected"), [("cnn", 1), (pool, 2)])
def test_only_small_networks_run_on_one_thread(clips, arch, expected):
    seen = set()

    class Watched(TorchvisionClassifier):
        def _make_module(self):
            module = super()._make_module()
            module.register_forward_pre_hook(lambda *_: seen.add(torch.get_num_threads()))
            return module

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        clf = Watched(**{**TINY, "arch": arch, "max_epochs": 1, "input_size": 32})
        clf.fit(clips[1][:4], clips[2][:4]).predict(clips[1][:2])
    finally:
        torch.set_num_threads(before)
    assert seen == {expected}


@pytest.mark.slow
@pytest.mark.long
def test_vgg_trains(clips):
    _, X_aud, y = clips
    parameters = {**TINY, "arch": "vgg16", "max_epochs": 1, "input_size": 32, "lr": 1e-4}
    clf = TorchvisionClassifier(**parameters).fit(X_aud[:4], y[:4])
    assert isinstance(clf.module_.backbones["audio"].classifier[5], torch.nn.Dropout)
    assert clf.transform(X_aud[:2]).shape == (2, 4096)
    untouched = [
        name
        for name, p in clf.module_.named_parameters()
        if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert untouched == []
