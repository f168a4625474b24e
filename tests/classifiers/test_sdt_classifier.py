"""SDTClassifier on dialogues of three modalities."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback

from skfdan import make_table
from skfdan.classifiers import SDTClassifier

QUICK = {
    "hidden": 32,
    "n_heads": 4,
    "dropout": 0.1,
    "lr": 3e-3,
    "max_epochs": 15,
    "random_state": 0,
    "verbose": 0,
}
FEW = QUICK | {"hidden": 8, "max_epochs": 2}
LABELS = np.array(["anger", "fear", "joy", "sadness"])
WIDTHS = {"text": 6, "audio": 5, "visual": 4}


def conversations(n=60, length=4, seed=0):
    """Return a table and its labels, the emotions that the utterance before showed.

    The first one's is its own.
    """
    rng = np.random.default_rng(seed)
    shown = rng.integers(4, size=(n, length))
    y = np.hstack([shown[:, :1], shown[:, :-1]])
    cells = 0.3 * rng.normal(size=(n * length, 6)).astype(np.float32)
    cells[np.arange(n * length), shown.ravel()] += 2
    X = make_table(text=list(cells))
    X["dialogue"] = np.repeat([f"talk {i}" for i in range(n)], length)
    return X, LABELS[y.ravel()]


def small(n=12, seed=0):
    """A table of three modalities in dialogues of unequal lengths."""
    rng = np.random.default_rng(seed)
    cells = {m: list(rng.normal(size=(n, d)).astype(np.float32)) for m, d in WIDTHS.items()}
    X = make_table(**cells)
    X["dialogue"] = ([7] * 3 + [9] * 5 + [8] + [4] * n)[:n]
    X["speaker"] = (["Ross", "Rachel", "Joey"] * n)[:n]
    return X, np.resize(LABELS, n)


@pytest.fixture(scope="module")
def talks():
    return conversations()


def test_context_is_learned():
    X, y = conversations(150, 2)
    train, test = np.arange(200), np.arange(200, 300)
    later = test[test % 2 > 0]

    def score(**params):
        clf = SDTClassifier(**QUICK | params).fit(X.iloc[train], y[train])
        predicted = pd.Series(clf.predict(X.iloc[test]), index=test)
        return balanced_accuracy_score(y[later], predicted[later])

    assert score() > 0.9
    assert score(dialogue=None) < 0.45


def test_every_modality_carries_part():
    rng = np.random.default_rng(0)
    emotion = rng.integers(8, size=360)
    told = {m: 2.0 * (emotion >> bit & 1) - 1 for bit, m in enumerate(WIDTHS)}
    X = make_table(
        **{
            m: list((rng.normal(size=(360, d)) + 3 * told[m][:, None]).astype(np.float32))
            for m, d in WIDTHS.items()
        }
    )
    X["dialogue"] = np.arange(360) // 4
    y, train, test = emotion.astype(str), np.arange(240), np.arange(240, 360)
    scores = {}
    for chosen in (("text", "audio", "visual"), ("text", "audio"), ("text",)):
        clf = SDTClassifier(modalities=chosen, **QUICK).fit(X.iloc[train], y[train])
        scores[len(chosen)] = balanced_accuracy_score(y[test], clf.predict(X.iloc[test]))
    # Of eight emotions, n bits leave 8 / 2^n to choose from.
    assert scores[3] > 0.8
    assert 0.35 < scores[2] < 0.65
    assert 0.15 < scores[1] < 0.4


def test_speakers_are_learned():
    rng = np.random.default_rng(0)
    who = rng.integers(4, size=120)
    X = make_table(text=list(rng.normal(size=(120, 3)).astype(np.float32)))
    X["speaker"] = np.array(["Monica", "Chandler", "Phoebe", "Joey"])[who]
    y = LABELS[who]
    known = SDTClassifier(**QUICK).fit(X[:80], y[:80])
    assert list(known.speakers_) == ["Chandler", "Joey", "Monica", "Phoebe"]
    assert known.score(X[80:], y[80:]) > 0.9
    nobody = SDTClassifier(speaker=None, **QUICK).fit(X[:80], y[:80])
    assert len(nobody.speakers_) == 0
    assert nobody.score(X[80:], y[80:]) < 0.5
    # Somebody new is the same as nobody known, and as no column.
    new = known.predict_proba(X[80:].assign(speaker="Gunther"))
    np.testing.assert_array_equal(new, known.predict_proba(X[80:].assign(speaker=None)))
    np.testing.assert_array_equal(new, known.predict_proba(X[80:].drop(columns="speaker")))


def test_features_are_standardised_unless_told_not():
    X, y = small(12)
    scaled = X.assign(audio=[1000 * cell + 5 for cell in X["audio"]])
    first, second = (SDTClassifier(**FEW).fit(table, y) for table in (X, scaled))
    np.testing.assert_allclose(
        first.predict_proba(X), second.predict_proba(scaled), rtol=1e-3, atol=1e-5
    )
    raw = SDTClassifier(standardize=False, **FEW).fit(X, y)
    norm = raw.module_.inputs["audio"]
    cells = torch.from_numpy(np.stack(X["audio"]))
    assert torch.equal(norm(cells), cells)
    assert not np.allclose(raw.predict_proba(X), first.predict_proba(X), rtol=1e-3)


def test_dialogues_do_not_touch_each_other_and_rows_may_be_mixed():
    X, y = small(12)
    clf = SDTClassifier(**FEW).fit(X, y)
    together = clf.predict_proba(X)
    for _, rows in X.groupby("dialogue").indices.items():
        np.testing.assert_allclose(
            clf.predict_proba(X.iloc[rows]), together[rows], rtol=1e-6, atol=1e-9
        )
    assert not np.allclose(clf.predict_proba(X.iloc[[1]]), together[[1]], rtol=1e-3)
    # Between each other's rows, dialogues keep their own order.
    mixed = np.argsort(np.arange(12) % 4, kind="stable")
    order = X.assign(order=np.arange(12)).iloc[mixed]
    np.testing.assert_allclose(clf.predict_proba(order), together[mixed], rtol=1e-6, atol=1e-9)
    assert not np.allclose(clf.predict_proba(X.iloc[::-1])[::-1], together, rtol=1e-3)
    # The order of one batch or of many is no matter either.
    one = clf.set_params(batch_size=1).predict_proba(X)
    np.testing.assert_allclose(one, together, rtol=1e-6, atol=1e-9)


def test_rows_without_dialogues_are_their_own():
    X, y = small(12)
    alone = X.drop(columns=["dialogue", "speaker"])
    clf = SDTClassifier(**FEW).fit(alone, y)
    assert not clf.in_dialogues_
    together = clf.predict_proba(alone)
    single = np.concatenate([clf.predict_proba(alone.iloc[[i]]) for i in range(12)])
    np.testing.assert_allclose(together, single, rtol=1e-6, atol=1e-9)
    own = clf.predict_proba(alone.assign(dialogue=np.arange(12)))
    np.testing.assert_array_equal(own, together)


def test_warns_where_dialogues_are_forgotten():
    X, y = small(12)
    clf = SDTClassifier(**FEW).fit(X, y)
    with pytest.warns(UserWarning, match="X has no column 'dialogue': each row is read alone"):
        clf.predict(X.drop(columns="dialogue"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.predict(X)


@pytest.mark.parametrize("predict_modality", ["fused", "text"])
def test_missing_modalities(predict_modality):
    X, y = small(12)
    for i, m in enumerate(["audio", "visual", "audio", "visual", "audio"]):
        X.at[i, m] = None
    if predict_modality == "fused":
        X.at[5, "text"] = None
    clf = SDTClassifier(predict_modality=predict_modality, **FEW).fit(X, y)
    proba = clf.predict_proba(X)
    assert np.isfinite(proba).all()
    changed = X.copy()
    changed.at[6, "audio"] = 5 + X.at[6, "audio"]
    same = np.allclose(clf.predict_proba(changed), proba)
    assert same == (predict_modality == "text")


def test_rows_of_nothing_are_left_out_of_their_dialogue():
    X, y = small(12)
    for m in WIDTHS:
        X.at[4, m] = None
    with pytest.raises(ValueError, match="Row 4 has no visual, audio or text cell"):
        SDTClassifier(**FEW).fit(X, y)
    clf = SDTClassifier(on_error="missing", **FEW)
    with pytest.warns(UserWarning, match="1 are left out"):
        clf.fit(X, y)
    with pytest.warns(UserWarning, match="1 of 12 rows have no usable"):
        proba = clf.predict_proba(X)
    np.testing.assert_allclose(proba[4], clf.class_count_ / 11)
    rest = np.delete(np.arange(12), 4)
    np.testing.assert_allclose(proba[rest], clf.predict_proba(X.iloc[rest]), rtol=1e-6)


def test_columns_have_other_names_and_come_in_other_forms():
    X, y = small(12)
    clf = SDTClassifier(**FEW).fit(X, y)
    expected = clf.predict_proba(X)
    mapping = {name: X[name].tolist() for name in X}
    np.testing.assert_array_equal(clf.predict_proba(mapping), expected)
    named = X.rename(columns={"dialogue": "Dialogue_ID", "speaker": "who"})
    other = SDTClassifier(dialogue="Dialogue_ID", speaker="who", **FEW).fit(named, y)
    np.testing.assert_array_equal(other.predict_proba(named), expected)
    # A column of floats, where a row was missing once, names the same dialogues.
    np.testing.assert_array_equal(clf.predict_proba(X.assign(dialogue=X.dialogue * 1.0)), expected)
    flat = pd.DataFrame(np.hstack([np.stack(X[m]) for m in ("text", "audio")]))
    flat.columns = [f"x{i}" for i in range(11)]
    slices = {"text": slice(0, 6), "audio": slice(6, 11), "modalities": ("text", "audio")}
    frame = flat.assign(dialogue=X.dialogue, speaker=X.speaker)
    a = SDTClassifier(**FEW, **slices).fit(frame, y)
    b = SDTClassifier(modalities=("text", "audio"), **FEW).fit(X, y)
    assert a.feature_names_in_.tolist() == flat.columns.tolist()
    np.testing.assert_allclose(a.predict_proba(frame), b.predict_proba(X), rtol=1e-5)


@pytest.mark.parametrize("what", ["dialogue", "speaker", "order"])
def test_columns_that_are_not_wanted_are_no_features(what):
    X, y = small(12)
    X["order"] = np.arange(12) + 0.5
    flat = pd.DataFrame(np.stack(X["text"]), columns=list("abcdef"))
    flat = flat.assign(**{name: X[name] for name in ("dialogue", "speaker", "order")})
    slices = {"text": slice(0, 6), "modalities": ("text",)}
    clf = SDTClassifier(**{what: None}, **FEW, **slices)
    expected = clf.fit(flat.drop(columns=what), y).predict_proba(flat.drop(columns=what))
    clf.fit(flat, y)
    assert clf.feature_names_in_.tolist() == list("abcdef")
    np.testing.assert_array_equal(clf.predict_proba(flat), expected)
    # Of mappings and tables too, whatever the column holds.
    words = X.assign(**{what: [f"w{i}" for i in range(12)]})
    mapping = {name: words[name].tolist() for name in words}
    table = SDTClassifier(**{what: None}, **FEW).fit(words, y)
    np.testing.assert_array_equal(table.predict_proba(mapping), table.predict_proba(words))


def test_one_modality_needs_no_table():
    X, y = small(12)
    clf = SDTClassifier(modalities=("text",), **FEW).fit(X["text"].tolist(), y)
    table = SDTClassifier(modalities=("text",), **FEW).fit(X[["text"]], y)
    expected = table.predict_proba(X[["text"]])
    np.testing.assert_array_equal(clf.predict_proba(np.stack(X["text"])), expected)
    np.testing.assert_array_equal(clf.predict_proba(X["text"].tolist()), expected)
    with pytest.raises(
        ValueError, match=r"needs all modalities.*make_table\(text=.*visual=\.\.\.\)"
    ):
        SDTClassifier(**FEW).fit([np.zeros((2, 3))] * 12, y)


def test_columns_go_through_pipelines_searches_and_folds(talks):
    X, y = talks[0][:80], talks[1][:80]
    clf = SDTClassifier(**FEW)
    folds = GroupKFold(2)
    with warnings.catch_warnings():
        # Read without context, the prediction would warn.
        warnings.simplefilter("error", UserWarning)
        scores = cross_val_score(clf, X, y, cv=folds, groups=X["dialogue"], error_score="raise")
        assert scores.shape == (2,)
        columns = ColumnTransformer(
            [("words", "passthrough", ["text"]), ("talk", "passthrough", ["dialogue"])]
        ).set_output(transform="pandas")
        search = GridSearchCV(
            make_pipeline(columns, clf), {"sdtclassifier__temperature": [1.0, 8.0]}, cv=folds
        )
        search.fit(X, y, groups=X["dialogue"])
        assert search.best_estimator_[-1].in_dialogues_
        np.testing.assert_array_equal(
            make_pipeline(columns, clf).fit(X, y).predict_proba(X), clf.fit(X, y).predict_proba(X)
        )


def test_validation_keeps_dialogues_whole(talks, monkeypatch):
    X, y = talks
    seen = []
    start = SDTClassifier._make_batches

    def note(self, samples, labels):
        seen.append(samples["text"].rows)
        return start(self, samples, labels)

    monkeypatch.setattr(SDTClassifier, "_make_batches", note)
    params = FEW | {"early_stopping": True, "validation_fraction": 0.2}
    clf = SDTClassifier(**params).fit(X, y)
    assert clf.history_[-1]["valid_uar"] > 0
    kept = X["dialogue"].iloc[seen[0]].value_counts()
    assert len(kept) == 48
    assert set(kept) == {4}
    # Groups are joined where they share a dialogue.
    sessions = np.repeat([0, 1, 2], 80)
    sessions[78] = 1
    SDTClassifier(**params).fit(X, y, groups=sessions)
    assert sorted({*sessions[seen[1]]}) in ([0, 1], [2])
    with pytest.raises(ValueError, match="groups has 3 entries but X has 240 rows"):
        SDTClassifier(**params).fit(X, y, groups=[0, 1, 2])


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_missing_groups_are_refused_where_they_count(missing):
    X, y = small(12)
    groups = np.array(["a", missing, "a", *"bbbbb", "c", missing, "c", "c"], dtype=object)
    with pytest.raises(ValueError, match=r"groups is missing \(NaN or None\) in row 1"):
        SDTClassifier(early_stopping=True, **FEW).fit(X, y, groups=groups)
    SDTClassifier(**FEW).fit(X, y, groups=groups)  # nothing reads them


def test_training_goes_on_and_is_kept(tmp_path):
    X, y = small(24)
    clf = SDTClassifier(**FEW).fit(X, y)
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    clf.save_pretrained(tmp_path / "model")
    kept = SDTClassifier.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(kept.predict_proba(X), clf.predict_proba(X))
    assert kept.speakers_.tolist() == clf.speakers_.tolist() == ["Joey", "Rachel", "Ross"]
    assert kept.in_dialogues_ is True
    again.partial_fit(X.assign(speaker="Gunther"), y)
    assert again.speakers_.tolist() == ["Joey", "Rachel", "Ross"]
    assert not np.array_equal(again.predict_proba(X), clf.predict_proba(X))
    first = SDTClassifier(**FEW).partial_fit(X, y)
    assert first.in_dialogues_
    assert first.predict(X).shape == (24,)


class Stop(Exception):
    pass


class Interrupt(Callback):
    only_watches = True

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history_) == 2:
            raise Stop


def test_checkpoint_goes_on_bit_by_bit_with_the_same_dialogues(tmp_path):
    X, y = small(24)
    params = FEW | {"max_epochs": 3, "modality_dropout": 0.5, "batch_size": 2}
    whole = SDTClassifier(**params).fit(X, y)
    with pytest.raises(Stop):
        SDTClassifier(**params, checkpoint_dir=tmp_path, callbacks=[Interrupt()]).fit(X, y)
    for other in (
        X.assign(dialogue=1),
        X.assign(speaker="Ross"),
        X.assign(order=-np.arange(24)),
        X.drop(columns=["dialogue", "speaker"]),
    ):
        with pytest.raises(ValueError, match="holds another fit"):
            SDTClassifier(**params, checkpoint_dir=tmp_path).fit(other, y)
    resumed = SDTClassifier(**params, checkpoint_dir=tmp_path).fit(X, y)
    np.testing.assert_array_equal(resumed.predict_proba(X), whole.predict_proba(X))


def test_settings_change_what_they_should():
    X, y = small(12)

    def fit(**params):
        return SDTClassifier(**FEW | {"dropout": 0.0} | params).fit(X, y)

    def names(clf):
        return {n for n, _ in clf.module_.named_parameters()}

    whole = fit()
    row = whole.history_[-1]
    assert row["train_loss"] == pytest.approx(
        row["ce"] + row["unimodal"] + row["distillation"], rel=1e-5
    )
    assert any(n.startswith("gates") for n in names(whole))
    assert not any(n.startswith("gates") for n in names(fit(unimodal_gate="frozen")))
    assert not any("visual" in n for n in names(fit(modalities=("text", "audio"))))
    assert whole.module_.classifier.in_features == whole.transform(X).shape[1] == 8
    without = fit(unimodal_weight=0.0, distillation_weight=0.0, weight_decay=0.0)
    row = without.history_[-1]
    assert row["train_loss"] == pytest.approx(row["ce"], rel=1e-6)
    assert row["distillation"] > 0
    head = "heads.text.2.weight"
    hot, detached = fit(temperature=8.0), fit(detach_teacher=True)
    for other in (hot, detached, without):
        assert not torch.equal(other.module_.state_dict()[head], whole.module_.state_dict()[head])


def test_weights_of_classes_count_rows():
    X, y = small(12)
    y = np.where(np.arange(12) < 9, "joy", "anger")
    clf = SDTClassifier(class_weight="balanced", **FEW).fit(X, y)
    np.testing.assert_allclose(clf._class_weights["fused"].numpy(), [2.0, 2 / 3], rtol=1e-6)
    assert clf.class_count_.tolist() == [3, 9]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"modalities": ()}, "give one or several of 'text', 'audio', 'visual'"),
        ({"modalities": ("text", "smell")}, "give one or several"),
        ({"temperature": 0}, "temperature=0: it must be a number, above 0"),
        ({"unimodal_gate": "open"}, "unimodal_gate='open' is unknown"),
        ({"hidden": 10, "n_heads": 4}, "hidden=10 can't be divided among n_heads=4"),
        ({"dialogue": [1, 2]}, r"dialogue=\[1, 2\]: give the name of a column of X, or None"),
        ({"speaker": np.arange(3)}, "give the name of a column of X, or None"),
        ({"modalities": ("text",), "predict_modality": "audio"}, "predict_modality='audio'"),
        ({"dropout": 2}, "dropout=2: it must be a number, between 0 and 1"),
    ],
)
def test_parameters_are_refused(params, message):
    X, y = small(12)
    with pytest.raises(ValueError, match=message):
        SDTClassifier(**FEW | params).fit(X, y)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"dialogue": [1, None] + [2] * 10}, "Row 1 has no value in the column 'dialogue'"),
        ({"order": [0, "x"] + [2] * 10}, "Row 1 has 'x' in the column 'order'; a number"),
        ({"order": [0, 1, 1, *range(9)]}, "Rows 1 and 2 of one dialogue have the same 'order', 1"),
        ({"talk__dialogue": 1}, "Both columns 'dialogue' and 'talk__dialogue' are the dialogue"),
    ],
)
def test_columns_are_refused(columns, message):
    X, y = small(12)
    with pytest.raises(ValueError, match=message):
        SDTClassifier(**FEW).fit(X.assign(**columns), y)
    clf = SDTClassifier(**FEW).fit(X, y)
    with pytest.raises(ValueError, match=message):
        clf.predict(X.assign(**columns))
