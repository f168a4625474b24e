"""CoAttentionClassifier on sequences of two modalities."""

import copy

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from skfdan import make_table
from skfdan.classifiers import CoAttentionClassifier

QUICK = {
    "dim": 16,
    "n_heads": 2,
    "lr": 5e-3,
    "max_epochs": 8,
    "batch_size": 16,
    "random_state": 0,
    "verbose": 0,
}
FEW = QUICK | {"max_epochs": 2}
FOUR = np.array(["anger", "calm", "joy", "sadness"])
TRAIN, TEST = np.arange(120), np.arange(120, 200)


def corpus(n=200, modalities=("audio", "text")):
    """Sequences of unequal length; every modality tells one bit of four emotions."""
    rng = np.random.default_rng(0)
    y = rng.integers(4, size=n)
    cells = {}
    for bit, (m, d) in enumerate(zip(modalities, (6, 5), strict=True)):
        cells[m] = []
        for sign in 2.0 * (y >> bit & 1) - 1:
            x = rng.normal(size=(rng.integers(2, 7), d))
            x[:, 0] += 1.5 * sign
            cells[m].append(x.astype(np.float32))
    return cells, FOUR[y]


@pytest.fixture(scope="module")
def clips():
    return corpus()


def uar(clf, table, y, rows=TEST):
    return balanced_accuracy_score(y[rows], clf.predict(table.iloc[rows]))


@pytest.mark.parametrize("fusion", ["both", "early", "late"])
def test_every_modality_carries_part(clips, fusion):
    cells, y = clips
    table = make_table(**cells)
    clf = CoAttentionClassifier(**QUICK, fusion=fusion).fit(table.iloc[TRAIN], y[TRAIN])
    both = uar(clf, table, y)
    assert both > 0.7
    # One bit of two leaves two emotions to choose from.
    for m in ("audio", "text"):
        assert 0.25 < uar(clf.set_params(predict_modality=m), table, y) < both
        clf.set_params(predict_modality="fused")
    names = clf.get_feature_names_out()
    assert clf.transform(table[:3]).shape == (3, len(names))
    framed = copy.copy(clf).set_output(transform="pandas").transform(table[:3])
    assert list(framed.columns) == list(names)
    nothing = copy.copy(clf).set_params(on_error="missing")
    with pytest.warns(UserWarning, match="no usable"):
        assert nothing.transform(make_table(audio=[None])).shape == (1, len(names))
    layers = {name.split(".")[0] for name, _ in clf.module_.named_parameters()}
    assert ("layers" in layers, "classifiers" in layers) == (fusion != "late", fusion != "early")


def test_another_pair_of_modalities():
    cells, y = corpus(modalities=("visual", "text"))
    table = make_table(**cells)
    clf = CoAttentionClassifier(modalities=("visual", "text"), **QUICK)
    assert uar(clf.fit(table.iloc[TRAIN], y[TRAIN]), table, y) > 0.8


def test_missing_in_a_third_of_rows(clips):
    cells, y = clips
    columns = {m: list(c) for m, c in cells.items()}
    for i in range(0, 120, 3):
        columns[("audio", "text")[i % 2]][i] = None
    table = make_table(**columns)
    clf = CoAttentionClassifier(**QUICK).fit(table.iloc[TRAIN], y[TRAIN])
    assert uar(clf, table, y) > 0.75


def test_prediction_of_a_row_depends_on_its_own_cells_alone(clips):
    cells, y = clips
    columns = {m: list(c[:12]) for m, c in cells.items()}
    columns["audio"][0] = columns["text"][1] = None
    table = make_table(**columns)
    clf = CoAttentionClassifier(**FEW).fit(table, y[:12])
    together = clf.predict_proba(table)
    alone = np.concatenate([clf.predict_proba(table.iloc[[i]]) for i in range(12)])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-8)
    by_voice = clf.set_params(predict_modality="audio").predict_proba(table.iloc[1:3])
    np.testing.assert_allclose(by_voice[0], together[1], rtol=1e-5)
    assert not np.allclose(by_voice[1], together[2])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"modalities": ("audio",)}, "give two of 'audio', 'text', 'visual'"),
        ({"modalities": ("audio", "audio")}, "give two of"),
        ({"modalities": ("audio", "smell")}, "give two of"),
        ({"modalities": ("audio", "text", "visual")}, "give two of"),
        ({"fusion": "sum"}, "fusion='sum' is unknown"),
        ({"dim": 1.5}, "dim=1.5: it must be a whole number"),
        ({"dropout": 2}, "dropout=2: it must be a number, between 0 and 1"),
        ({"predict_modality": "visual"}, "predict_modality='visual'"),
    ],
)
def test_parameters_are_refused(params, message, clips):
    cells, y = clips
    with pytest.raises(ValueError, match=message):
        CoAttentionClassifier(**FEW | params).fit(make_table(**cells), y)


def test_a_turned_sequence_of_one_step(clips):
    """NumPy calls it contiguous, and torch refuses it."""
    cells, y = clips
    straight = [c[:1] if i == 3 else c for i, c in enumerate(cells["audio"][:20])]
    turned = [c[::-1] if len(c) == 1 else c for c in straight]
    assert turned[3].strides[0] < 0
    proba = []
    for audio in (straight, turned):
        table = make_table(audio=audio, text=cells["text"][:20])
        proba.append(CoAttentionClassifier(**FEW).fit(table, y[:20]).predict_proba(table))
    np.testing.assert_array_equal(*proba)
