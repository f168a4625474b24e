"""WavFusionClassifier on sequences of three modalities."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import cross_val_score
from skorch.callbacks import Callback

from skfdan import make_table
from skfdan.classifiers import WavFusionClassifier
from skfdan.nn import Padded

QUICK = {
    "dim": 32,
    "hidden": 16,
    "n_deep": 1,
    "common_dim": 16,
    "n_codes": 8,
    "lr": 3e-3,
    "max_epochs": 8,
    "batch_size": 16,
    "random_state": 0,
    "verbose": 0,
}
FEW = QUICK | {"max_epochs": 2}
EIGHT = np.array(["anger", "calm", "disgust", "fear", "joy", "neutral", "sadness", "surprise"])


def corpus(n=240, seed=0):
    """Sequences of unequal length; every modality tells one bit of eight emotions."""
    rng = np.random.default_rng(seed)
    y = rng.integers(8, size=n)
    cells = {}
    for bit, (m, d) in enumerate({"audio": 6, "text": 5, "visual": 8}.items()):
        told = 2.0 * (y >> bit & 1) - 1
        cells[m] = []
        for sign in told:
            x = rng.normal(size=(rng.integers(2, 9), d))
            x[:, 0] += 1.5 * sign
            cells[m].append(x.astype(np.float32))
    return cells, EIGHT[y]


@pytest.fixture(scope="module")
def clips():
    return corpus()


@pytest.fixture(scope="module")
def table(clips):
    return make_table(**clips[0])


def uar(clf, table, y, rows):
    return balanced_accuracy_score(y[rows], clf.predict(table.iloc[rows]))


def test_every_modality_carries_part(table, clips):
    _, y = clips
    train, test = np.arange(160), np.arange(160, 240)
    scores = {}
    for chosen in (("audio", "text", "visual"), ("audio", "text"), ("audio",), ("text",)):
        clf = WavFusionClassifier(modalities=chosen, **QUICK).fit(table.iloc[train], y[train])
        scores[len(chosen), chosen[0]] = uar(clf, table, y, test)
    # Of eight emotions, n bits leave 8 / 2^n to choose from.
    assert scores[3, "audio"] > 0.75
    assert 0.3 < scores[2, "audio"] < scores[3, "audio"]
    for single in ("audio", "text"):
        assert 0.125 < scores[1, single] < scores[2, "audio"]


@pytest.mark.slow
@pytest.mark.long
def test_missing_in_a_third_of_rows_costs_little_against_dropping_them(clips):
    cells, y = clips
    columns = {m: list(c) for m, c in cells.items()}
    for i in range(0, 160, 3):
        columns[("audio", "text", "visual")[i // 3 % 3]][i] = None
    X = make_table(**columns)
    train, test = np.arange(160), np.arange(160, 240)
    whole = train[train % 3 > 0]
    kept, dropped = [], []
    for seed in range(2):
        clf = WavFusionClassifier(**QUICK | {"random_state": seed})
        kept.append(uar(clf.fit(X.iloc[train], y[train]), X, y, test))
        dropped.append(uar(clf.fit(X.iloc[whole], y[whole]), X, y, test))
    assert np.mean(kept) > 0.6
    assert np.mean(kept) > np.mean(dropped) - 0.05


def test_prediction_of_a_row_depends_on_its_own_cells_alone(clips):
    cells, y = clips
    columns = {m: list(c[:30]) for m, c in cells.items()}
    columns["audio"][0] = columns["text"][1] = columns["visual"][2] = None
    columns["text"][3] = columns["visual"][3] = None
    columns["audio"][4] = columns["text"][4] = None
    X = make_table(**columns)
    clf = WavFusionClassifier(**FEW).fit(X, y[:30])
    together = clf.predict_proba(X)
    alone = np.concatenate([clf.predict_proba(X.iloc[[i]]) for i in range(30)])
    np.testing.assert_allclose(together, alone, rtol=1e-6, atol=1e-9)
    # What is missing cannot matter, and what is not does.
    by_voice = clf.set_params(predict_modality="audio").predict_proba(X.iloc[1:4])
    np.testing.assert_allclose(by_voice[2], together[3], rtol=1e-6)
    assert not np.allclose(by_voice[0], together[1])


def test_vector_is_a_sequence_of_one_step(clips):
    cells, y = clips
    vectors = {m: np.stack([c[0] for c in column[:40]]) for m, column in cells.items()}
    steps = {m: [v[None] for v in column] for m, column in vectors.items()}
    clf = WavFusionClassifier(**FEW)
    a = clf.fit(make_table(**vectors), y[:40]).predict_proba(make_table(**vectors))
    b = clf.fit(make_table(**steps), y[:40]).predict_proba(make_table(**steps))
    matrix = np.hstack(list(vectors.values()))
    slices = {"audio": slice(0, 6), "text": slice(6, 11), "visual": slice(11, 19)}
    c = WavFusionClassifier(**FEW, **slices).fit(matrix, y[:40]).predict_proba(matrix)
    np.testing.assert_array_equal(a, b)
    # A float64 matrix becomes float32 elsewhere than cells do, but to the same numbers.
    np.testing.assert_allclose(a, c, rtol=1e-5)


def test_features_have_names(table, clips):
    clf = WavFusionClassifier(**FEW).fit(table, clips[1])
    found = clf.set_output(transform="pandas").transform(table[:3])
    assert list(found.columns) == list(clf.get_feature_names_out())


def parameters(clf):
    return {name for name, _ in clf.module_.named_parameters()}


def test_ablations_change_what_they_should(table, clips):
    _, y = clips

    def fit(**params):
        return WavFusionClassifier(**FEW | params).fit(table[:48], y[:48])

    whole = fit()
    assert any("attention.gate." in p for p in parameters(whole))
    assert any("lvc" in p for p in parameters(whole))
    # Table 4
    assert not any("lvc" in p for p in parameters(fit(lvc=False)))
    # Table 6: plain self-attention, and all means side by side
    concat = fit(fusion="concat")
    assert not any("attention.gate." in p or "cross" in p for p in parameters(concat))
    assert concat.module_.rest.classifier.in_features == 32 + 16 + 16 + 8
    assert whole.module_.rest.classifier.in_features == 32
    assert len(fit(n_deep=2).module_.layers) == 2
    # Table 5: without weight the margin loss is still told, and moves nothing
    without = fit(margin_weight=0.0)
    shared = "rest.shared.weight"
    assert without.history_[-1]["margin"] > 0
    assert without.history_[-1]["train_loss"] == pytest.approx(without.history_[-1]["ce"], 1e-6)
    assert whole.history_[-1]["train_loss"] == pytest.approx(
        whole.history_[-1]["ce"] + whole.history_[-1]["margin"], 1e-5
    )
    decayed = dict(without.module_.named_parameters())[shared]
    moved = dict(whole.module_.named_parameters())[shared]
    assert not torch.allclose(decayed, moved)
    # Table 3
    two = fit(modalities=("audio", "text"))
    assert not any("visual" in p for p in parameters(two))
    alone = fit(modalities=("visual",))
    assert not hasattr(alone.module_, "layers")


def test_without_deep_layers_all_modalities_are_read_side_by_side(table, clips):
    _, y = clips
    clf = WavFusionClassifier(**FEW | {"n_deep": 0}).fit(table[:48], y[:48])
    assert clf.transform(table[:3]).shape == (3, 32 + 16 + 16 + 8)
    proba = clf.predict_proba(table[:20])
    for m in ("text", "visual"):
        changed = table[:20].assign(**{m: [cell + 3 for cell in table[m][:20]]})
        assert not np.allclose(clf.predict_proba(changed), proba, rtol=1e-3)
    concat = WavFusionClassifier(**FEW | {"n_deep": 0, "fusion": "concat"})
    expected = concat.fit(table[:48], y[:48]).predict_proba(table[:20])
    np.testing.assert_array_equal(proba, expected)


@pytest.mark.slow
@pytest.mark.long
def test_margin_loss_brings_modalities_of_an_emotion_together(table, clips):
    _, y = clips

    def distance(weight):
        clf = WavFusionClassifier(**QUICK | {"margin_weight": weight, "weight_decay": 0.0})
        clf.fit(table, y)
        return clf.history_[-1]["margin"]

    assert distance(1.0) < 0.8 * distance(0.0)


def test_training_goes_on_and_is_kept(table, clips, tmp_path):
    _, y = clips
    clf = WavFusionClassifier(**FEW).fit(table, y)
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.predict_proba(table), clf.predict_proba(table))
    clf.save_pretrained(tmp_path / "model")
    kept = WavFusionClassifier.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(kept.predict_proba(table), again.predict_proba(table))
    again.partial_fit(table, y)
    assert not np.array_equal(again.predict_proba(table), clf.predict_proba(table))


def test_checkpoint_goes_on_bit_by_bit(table, clips, tmp_path):
    _, y = clips

    class Stop(Exception):
        pass

    class Interrupt(Callback):
        only_watches = True

        def on_epoch_begin(self, net, **kwargs):
            if len(net.history_) == 2:
                raise Stop

    params = QUICK | {"max_epochs": 3}
    table, y = table[:60], y[:60]
    whole = WavFusionClassifier(**params).fit(table, y)
    with pytest.raises(Stop):
        WavFusionClassifier(**params, checkpoint_dir=tmp_path, callbacks=[Interrupt()]).fit(
            table, y
        )
    resumed = WavFusionClassifier(**params, checkpoint_dir=tmp_path).fit(table, y)
    np.testing.assert_array_equal(resumed.predict_proba(table), whole.predict_proba(table))


def test_cross_validation_of_a_table(table, clips):
    clf = WavFusionClassifier(**FEW | {"max_epochs": 1})
    scores = cross_val_score(clf, table[:80], clips[1][:80], cv=2, error_score="raise")
    assert scores.shape == (2,)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"modalities": ()}, "give one or several of 'audio', 'text', 'visual'"),
        ({"modalities": ("audio", "audio")}, "give one or several"),
        ({"modalities": ("text", "visual")}, "fusion='gated' needs audio"),
        ({"fusion": "sum"}, "fusion='sum' is unknown"),
        ({"margin": 3}, "margin=3: it must be a number, between 0 and 2"),
        ({"n_deep": 1.5}, "n_deep=1.5: it must be a whole number"),
        ({"dim": 30}, "width of 30 can't be divided among n_heads=4"),
        ({"modalities": ("audio",), "predict_modality": "text"}, "predict_modality='text'"),
    ],
)
def test_parameters_are_refused(params, message, table, clips):
    with pytest.raises(ValueError, match=message):
        WavFusionClassifier(**FEW | params).fit(table, clips[1])


def test_frames_of_another_width_are_refused(table, clips):
    clf = WavFusionClassifier(**FEW).fit(table, clips[1])
    with pytest.raises(ValueError, match="kind sequence with 6 features"):
        clf.predict(make_table(audio=[np.zeros((3, 7))]))
    with pytest.raises(ValueError, match="row 0 has 4 features, row 1 has 5"):
        clf.fit(make_table(audio=[np.zeros((2, 4)), np.zeros((2, 5))]), ["joy", "fear"])


def test_padded_batches_go_to_memory_and_slices():
    batch = Padded.of([torch.ones(2, 3), torch.ones(4, 3)])
    assert batch.values.shape == (2, 4, 3)
    assert batch.values[0, 2:].abs().sum() == 0
    assert batch[:1].mask().tolist() == [[True, True, False, False]]
    assert batch.to("meta").values.device.type == "meta"
