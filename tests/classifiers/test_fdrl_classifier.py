"""FDRLClassifier on embeddings of voice and text."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skfdan import FDANClassifier, make_table
from skfdan.classifiers import FDRLClassifier, MISAClassifier

QUICK = {
    "hidden": 32,
    "lr": 3e-3,
    "max_epochs": 30,
    "batch_size": 16,
    "random_state": 0,
    "verbose": 0,
}


def signals(n=160, seed=0):
    """Embeddings of three modalities, each of which tells one of two halves of four classes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(4, size=n)
    told = {"audio": y // 2, "text": y % 2, "visual": (y // 2 + y) % 2}
    cells = {
        m: np.hstack([np.eye(2)[t], np.zeros((n, 3))]) + 0.3 * rng.normal(size=(n, 5))
        for m, t in told.items()
    }
    return cells, np.array(["anger", "joy", "calm", "sadness"])[y]


@pytest.mark.slow
@pytest.mark.long
def test_every_modality_carries_part_and_both_together_tell():
    cells, y = signals(320)
    train, test = np.arange(160), np.arange(160, 320)
    for pair in (("audio", "text"), ("visual", "text"), ("audio", "visual")):
        X = make_table(**{m: list(cells[m]) for m in pair})
        clf = FDRLClassifier(modalities=pair, modality_dropout=0.3, **QUICK)
        clf.fit(X.iloc[train], y[train])
        both = balanced_accuracy_score(y[test], clf.predict(X.iloc[test]))
        assert both > 0.8
        for m in pair:
            alone = clf.set_params(predict_modality=m).predict(X.iloc[test])
            # One of two halves of four classes: a half right, a quarter by chance.
            assert 0.35 < balanced_accuracy_score(y[test], alone) < both


def test_sequences_are_averaged_over_time():
    cells, y = signals(60)
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 9, 60)
    sequences = [np.repeat(c[None], t, 0) for c, t in zip(cells["text"], lengths, strict=True)]
    for s in sequences:  # the same mean, other values
        if len(s) > 1:
            s[0] += 1
            s[-1] -= 1
    vectors = make_table(audio=list(cells["audio"]), text=list(cells["text"]))
    uneven = make_table(audio=list(cells["audio"]), text=sequences)
    few = QUICK | {"max_epochs": 3}
    a = FDRLClassifier(**few).fit(vectors, y).predict_proba(vectors)
    b = FDRLClassifier(**few).fit(uneven, y).predict_proba(uneven)
    np.testing.assert_allclose(a, b, atol=1e-3)


@pytest.mark.slow
@pytest.mark.long
def test_rows_that_lack_a_modality_cost_little_against_dropping_them():
    cells, y = signals(480, seed=1)
    train, test = np.arange(150), np.arange(150, 480)
    lacking = train[np.arange(150) % 3 > 0]  # two thirds lack one of both
    columns = {m: [*cells[m]] for m in ("audio", "text")}
    for i in lacking:
        columns["audio" if i % 3 == 1 else "text"][i] = None
    X = make_table(**columns)
    whole = np.setdiff1d(train, lacking)
    scores = {"kept": [], "dropped": []}
    for seed in range(3):
        for name, rows in (("kept", train), ("dropped", whole)):
            clf = FDRLClassifier(**QUICK | {"random_state": seed}).fit(X.iloc[rows], y[rows])
            assert len(clf.predict(X.iloc[test])) == len(test)
            scores[name].append(balanced_accuracy_score(y[test], clf.predict(X.iloc[test])))
    assert np.mean(scores["kept"]) > 0.5
    # Rows that lack a modality must not spoil what whole rows teach.
    assert np.mean(scores["kept"]) > np.mean(scores["dropped"]) - 0.05


def test_prediction_of_a_row_does_not_depend_on_the_others():
    cells, y = signals(40)
    X = make_table(audio=[None, *cells["audio"][1:]], text=[*cells["text"][:-1], None])
    clf = FDRLClassifier(**QUICK | {"max_epochs": 2}).fit(X, y)
    together = clf.predict_proba(X)
    alone = np.concatenate([clf.predict_proba(X.iloc[[i]]) for i in range(40)])
    np.testing.assert_allclose(together, alone, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("ablation", "gone"),
    [
        ("S1", {"global", "local", "private", "difference"}),
        ("S2", {"global"}),
        ("S3", {"local"}),
        ("S4", {"global", "local"}),
        ("S5", {"private", "difference"}),
        ("S6", {"predictor"}),
    ],
)
def test_ablations_leave_terms_and_parameters_out(ablation, gone):
    cells, y = signals(40)
    X = make_table(audio=list(cells["audio"]), text=list(cells["text"]))
    terms = {"global", "local", "private", "difference", "predictor"}
    whole = FDRLClassifier(**QUICK | {"max_epochs": 1}).fit(X, y)
    part = FDRLClassifier(ablation=ablation, **QUICK | {"max_epochs": 1}).fit(X, y)
    assert terms <= set(whole.history_[-1])
    assert terms & set(part.history_[-1]) == terms - gone
    count = lambda c: sum(p.numel() for p in c.criterion_.parameters())  # noqa: E731
    assert (count(part) < count(whole)) == bool(gone & {"global", "local", "private"})


def test_mu_stays_in_bounds_by_error_rates():
    cells, y = signals(80)
    X = make_table(audio=list(cells["audio"]), text=list(cells["text"]))
    clf = FDRLClassifier(**QUICK | {"max_epochs": 8}).fit(X, y)
    mu = np.array(clf.history_[:, "mu"])
    assert ((mu >= 0) & (mu <= 1)).all()
    assert len(set(mu.tolist())) > 2


def test_discriminators_are_trained_and_kept():
    cells, y = signals(40)
    X = make_table(audio=list(cells["audio"]), text=list(cells["text"]))
    clf = FDRLClassifier(**QUICK | {"max_epochs": 1})
    clf.fit(X, y)
    before = [p.detach().clone() for p in clf.criterion_.parameters()]
    clf.partial_fit(X, y)
    changed = [
        not torch.equal(p, q) for p, q in zip(clf.criterion_.parameters(), before, strict=True)
    ]
    assert all(changed)


def test_in_a_pipeline_and_a_search():
    cells, y = signals(60)
    X = make_table(audio=list(cells["audio"]), text=list(cells["text"]))
    as_they_are = FunctionTransformer(lambda t: t)
    columns = ColumnTransformer([(m, as_they_are, [m]) for m in ("audio", "text")])
    columns.set_output(transform="pandas")
    pipe = make_pipeline(columns, FDRLClassifier(**QUICK | {"max_epochs": 2}))
    search = GridSearchCV(pipe, {"fdrlclassifier__alpha": [0, 1]}, cv=2, error_score="raise")
    search.fit(X, y)
    assert set(search.predict(X)) <= set(y)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"modalities": ("audio",)}, "give two of"),
        ({"modalities": ("audio", "smell")}, "give two of"),
        ({"mu": "guess"}, "mu='guess' is unknown"),
        ({"mu": 1.5}, "a number, between 0 and 1"),
        ({"ablation": "S7"}, "ablation='S7' is unknown"),
        ({"predict_modality": "visual"}, "predict_modality='visual' is unknown"),
        ({"hidden": 30}, "n_heads=4"),
    ],
)
def test_parameters_are_refused(params, message):
    cells, y = signals(20)
    X = make_table(audio=list(cells["audio"]), text=list(cells["text"]))
    with pytest.raises(ValueError, match=message):
        FDRLClassifier(**QUICK | params).fit(X, y)


@pytest.mark.parametrize(
    ("audio", "text", "message"),
    [
        ("a.wav", np.zeros(3), r"audio cell of row 0 is the path 'a.wav'.*Wav2Vec2Embedding"),
        (np.zeros(3), "I am well", r"text cell of row 0 is the text 'I am well'.*TextEmbedding"),
        (np.zeros((1, 4, 5)), np.zeros(3), r"audio cell of row 0 is .*\(1, 4, 5\)"),
        (np.array([0, np.nan]), np.zeros(3), "audio cell of row 0 holds NaN"),
    ],
)
def test_cells_are_refused(audio, text, message):
    X = make_table(audio=[audio] * 4, text=[text] * 4)
    with pytest.raises(ValueError, match=message):
        FDRLClassifier(**QUICK).fit(X, [0, 0, 1, 1])


def test_row_without_any_cell_is_named():
    cells = [np.zeros(2), None]
    for visual in (None, [np.zeros(2)] * 2):  # which is not read
        X = make_table(visual=visual, audio=cells, text=cells)
        with pytest.raises(ValueError, match="Row 1 has no audio or text cell"):
            FDRLClassifier(**QUICK).fit(X, [0, 1])


def test_rows_of_what_is_not_read_are_left_out_where_that_is_wanted():
    rng = np.random.default_rng(0)
    cells = [*rng.normal(size=(12, 3)), None, None]
    X = make_table(visual=[np.zeros(2)] * 14, audio=cells, text=cells)
    clf = FDRLClassifier(on_error="missing", **QUICK)
    with pytest.warns(UserWarning, match="of 14 rows 2 are left out"):
        clf.fit(X, [0, 1] * 7)
    assert clf.report_["row"].tolist() == [12, 13]
    assert clf.class_count_.tolist() == [6, 6]


def test_misa_reads_text_and_fdan_leaves_it_alone():
    cells, y = signals(120)
    three = make_table(**{m: list(v) for m, v in cells.items()})
    two = three[["visual", "audio"]]
    few = {"max_epochs": 15, "random_state": 0, "verbose": 0}
    misa = MISAClassifier(hidden=32, ffn_dim=64, lr=3e-3, dropout=0.1, **few).fit(three, y)
    assert misa.module_.modalities == ("visual", "audio", "text")
    assert misa.n_features_in_ == 3
    # Six tokens, fused side by side.
    assert misa.transform(three).shape == (120, 96)
    by_text = misa.set_params(predict_modality="text").predict(three)
    assert 0.35 < balanced_accuracy_score(y, by_text) < 0.75
    fdan = FDANClassifier(bottleneck=8, **few)
    a = fdan.fit(three, y).predict_proba(three)
    b = fdan.fit(two, y).predict_proba(two)
    np.testing.assert_array_equal(a, b)


def test_text_column_of_another_name_order_and_kind():
    cells, y = signals(30)
    frame = pd.DataFrame({"t__text": list(cells["text"]), "a__audio": list(cells["audio"])})
    same = {"audio": cells["audio"], "text": cells["text"]}
    clf = FDRLClassifier(**QUICK | {"max_epochs": 2}).fit(frame, y)
    np.testing.assert_array_equal(clf.predict_proba(frame), clf.predict_proba(same))
