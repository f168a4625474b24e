import copy
import pickle

import numpy as np
import pytest
import torch

from classifiers.small_clips import make_clips
from skfdan import make_table, stack_modalities
from skfdan.classifiers import MISAClassifier
from skfdan.classifiers._batches import JointBatches, joint_index
from skfdan.classifiers._samples import ModalitySamples, table_samples

QUICK = {
    "backbone": "cnn",
    "weights": None,
    "input_size": 16,
    "hidden": 32,
    "ffn_dim": 64,
    "dropout": 0.2,
    "lr": 0.003,
    "batch_size": 16,
    "max_epochs": 15,
    "random_state": 0,
}


#: Enough for `vectors`, whose labels no modality tells alone.
PAIRS = QUICK | {"hidden": 64, "dropout": 0.1, "max_epochs": 40}


def vectors(n=120, seed=0):
    """Two binary signals, each in one modality, and whether they agree."""
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1, 1], (n, 2))
    X_vis, X_aud = (
        np.hstack([signs[:, [k]], np.zeros((n, 2))]) + 0.2 * rng.normal(size=(n, 3)) for k in (0, 1)
    )
    return X_vis, X_aud, np.where(signs.prod(1) > 0, "agree", "differ")


@pytest.fixture(scope="module")
def partial_table():
    """Clips of one or three frames, some without a face, some without a voice."""
    X_vis, X_aud, y = make_clips(seed=1)
    faces = [np.stack([f, 255 - f, f // 2]) if i % 3 == 0 else f for i, f in enumerate(X_vis)]
    faces = [None if i % 5 == 1 else f for i, f in enumerate(faces)]
    voices = [None if i % 5 == 3 else a for i, a in enumerate(X_aud)]
    return make_table(visual=faces, audio=voices), y


@pytest.fixture(scope="module")
def fitted(partial_table):
    return MISAClassifier(**QUICK).fit(*partial_table)


# ---------------------------------------------------------------------- batches


def numbered(rows):
    """Samples whose one feature is their own number."""
    return ModalitySamples(np.arange(len(rows), dtype=np.float32)[:, None], np.asarray(rows))


def epochs_of(batches, n=1):
    for _ in range(n):
        for batch, labels in batches:
            index = {m: i.numpy() for m, i in batch.index.items()}
            found = {
                m: np.where(i >= 0, batch.cells[m].numpy()[i, 0], -1).astype(int)
                for m, i in index.items()
            }
            yield batch, found, labels["fused"].numpy()


def test_batches_keep_rows_together():
    samples = {
        "visual": numbered([0, 0, 0, 1, 3, 3, 4, 5, 6, 7]),  # rows 3 and 5 to 7 have no voice
        "audio": numbered([0, 1, 2, 4]),
    }
    labels = {m: s.rows % 3 for m, s in samples.items()}
    batches = JointBatches(samples, labels, 3, None, np.random.RandomState(0))
    frames, alone, voices = [], [], []
    for batch, found, y in epochs_of(batches, 40):
        assert len(batch) == len(y) == 2 + 2
        for v, a, label in zip(found["visual"], found["audio"], y, strict=True):
            rows = [samples[m].rows[i] for m, i in (("visual", v), ("audio", a)) if i >= 0]
            assert len(set(rows)) == 1
            assert label == rows[0] % 3
            if a >= 0:
                voices.append(a)
                frames += [v] if rows[0] == 0 else []
                assert (v >= 0) == (rows[0] != 2)
            else:
                alone.append(v)
    # Each row once an epoch, whatever it has, with a random frame.
    assert np.bincount(voices).tolist() == [40] * 4
    assert set(frames) == {0, 1, 2}
    rows = samples["visual"].rows[alone]
    assert np.bincount(rows).tolist() == [0, 0, 0, 40, 0, 40, 40, 40]
    assert set(np.array(alone)[rows == 3]) == {4, 5}
    assert sorted(batches.labels) == sorted(np.arange(8) % 3)


@pytest.mark.parametrize("n_alone", [0, 1, 3, 10, 25, 40, 100])
def test_rows_without_audio_are_spread_over_the_epoch(n_alone):
    samples = {"audio": numbered(np.arange(37)), "text": numbered(37 + np.arange(n_alone))}
    samples = {m: s for m, s in samples.items() if len(s)}
    labels = {m: np.zeros(len(s), int) for m, s in samples.items()}
    batches = JointBatches(samples, labels, 4, None, np.random.RandomState(0))
    epochs = []
    for _ in range(30):
        steps = [found.get("text", np.empty(0)) for _, found, _ in epochs_of(batches)]
        steps = [step[step >= 0] for step in steps]
        sizes = [len(step) for step in steps]
        assert len(steps) == 10
        assert max(sizes) - min(sizes) <= 1
        assert sum(sizes) == min(n_alone, 4 * 10)
        epochs.append(np.concatenate(steps))
        assert len(set(epochs[-1])) == len(epochs[-1])
    # Where only part of them has a place, it is another one each time.
    assert len(set(np.concatenate(epochs))) == n_alone


def test_few_rows_without_audio_weigh_little():
    """They were in every step once, where they had the weight of all others."""
    samples = {"audio": numbered(np.arange(640)), "text": numbered([640])}
    labels = {"audio": np.zeros(640, int), "text": np.ones(1, int)}
    batches = JointBatches(samples, labels, 32, None, np.random.RandomState(0))
    seen = np.concatenate([y for _, _, y in epochs_of(batches)])
    assert np.bincount(seen).tolist() == [640, 1]
    assert sorted(seen) == sorted(batches.labels)


def test_epoch_without_audio_goes_through_the_faces():
    samples = {"visual": numbered([0, 0, 1, 2])}
    batches = JointBatches(samples, {"visual": np.zeros(4, int)}, 3, None, np.random.RandomState(0))
    seen = np.concatenate([found["visual"] for _, found, _ in epochs_of(batches)])
    assert sorted(seen) == [0, 1, 2, 3]


def test_modality_dropout_leaves_every_row_something():
    samples = {"visual": numbered(np.arange(200)), "audio": numbered(np.arange(100, 300))}
    labels = {m: np.zeros(200, int) for m in samples}
    for share in (0.0, 0.4, 1.0):
        batches = JointBatches(samples, labels, 50, None, np.random.RandomState(0), share)
        counts = np.zeros(3)
        for batch, found, _ in epochs_of(batches, 20):
            if batch.ignored is None:
                assert share == 0
                continue
            there = {m: found[m] >= 0 for m in samples}
            both = there["visual"] & there["audio"]
            v, a = (batch.ignored[m].numpy() & there[m] for m in ("visual", "audio"))
            assert not (v & a).any()
            assert not (v | a)[~both].any()
            counts += [v.sum(), a.sum(), both.sum()]
        if share:
            np.testing.assert_allclose(counts[:2] / counts[2], share / 2, atol=0.03)


def test_joint_index_pairs_every_frame_with_the_voice():
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = {m: np.sort(rng.integers(0, 6, rng.integers(1, 9))) for m in ("visual", "audio")}
        samples = {m: numbered(r) for m, r in rows.items()}
        expected = []
        for row in range(6):
            own = {m: np.flatnonzero(r == row).tolist() for m, r in rows.items()}
            for turn in range(max(map(len, own.values()))):
                picks = [s[turn % len(s)] if s else -1 for s in own.values()]
                expected.append((row, *picks))
        index, row = joint_index(samples)
        assert list(zip(row, index["visual"], index["audio"], strict=True)) == expected


# ---------------------------------------------------------------------- training


def test_pairs_stay_together():
    """Each modality alone says nothing; the pair says everything."""
    X_vis, X_aud, y = vectors()
    clf = MISAClassifier(**PAIRS).fit(X_vis, X_aud, y)
    new_vis, new_aud, new_y = vectors(seed=1)
    table = make_table(visual=new_vis, audio=new_aud)
    assert clf.score(table, new_y) > 0.95
    assert abs(clf.set_params(predict_modality="audio").score(table, new_y) - 0.5) < 0.15


def test_unpaired_sources_teach_the_voices():
    X_vis, X_aud, y = make_clips()
    table, labels, _ = stack_modalities(visual=(X_vis, y), audio=(X_aud, y))
    clf = MISAClassifier(**QUICK).fit(table, labels)
    _, new_aud, new_y = make_clips(seed=5)
    voices = make_table(audio=new_aud)
    assert clf.score(voices, new_y) > 0.8
    assert clf.history_[-1]["cmd"] > 0


def test_loss_and_history(partial_table):
    clf = MISAClassifier(
        **QUICK | {"max_epochs": 2}, diff_weight=0.7, cmd_weight=0.4, recon_weight=2.0
    )
    row = clf.fit(*partial_table).history_[-1]
    total = row["ce"] + 0.7 * row["diff"] + 0.4 * row["cmd"] + 2.0 * row["recon"]
    assert row["train_loss"] == pytest.approx(total, rel=1e-5)
    assert min(row[k] for k in ("ce", "diff", "cmd", "recon", "feature_std")) > 0


def test_cmd_weight_aligns_the_shared_representations():
    clips = make_clips()
    end = {
        w: MISAClassifier(**QUICK, cmd_weight=w).fit(*clips).history_[-1]["cmd"] for w in (0.0, 1.0)
    }
    assert end[1.0] < 0.8 * end[0.0]


@pytest.mark.slow
@pytest.mark.long
def test_modality_dropout_teaches_reading_the_weaker_modality():
    rng = np.random.default_rng(0)
    code = np.arange(160) % 3
    clear = 4 * np.eye(3)[code]
    faint, new = (1.5 * np.eye(3)[code] + rng.normal(size=(160, 3)) for _ in range(2))
    loss = {}
    for share in (0.0, 0.5):
        clf = MISAClassifier(**QUICK, modality_dropout=share).fit(clear, faint, code)
        proba = clf.predict_proba(make_table(audio=new))
        loss[share] = -np.log(proba[np.arange(160), code]).mean()
        assert clf.score(make_table(visual=clear, audio=new), code) > 0.9
    assert loss[0.5] < 0.9 * loss[0.0]


def test_every_gradient_entry_is_bounded(partial_table):
    largest = {}

    class Watch(MISAClassifier):
        def on_grad_computed(self, net, named_parameters, **kwargs):
            super().on_grad_computed(net, named_parameters, **kwargs)
            entries = [p.grad.abs().max() for _, p in named_parameters if p.grad is not None]
            largest[self.clip_value] = max(largest.get(self.clip_value, 0), float(max(entries)))

    for bound in (0.01, None):
        Watch(**QUICK | {"max_epochs": 1}, clip_value=bound).fit(*partial_table)
    assert largest[0.01] == pytest.approx(0.01)
    assert largest[None] > 0.02
    with pytest.raises(ValueError, match="clip_value=0: it must be a number, above 0"):
        MISAClassifier(**QUICK, clip_value=0).fit(*partial_table)


def test_class_weight():
    rng = np.random.default_rng(0)
    _, X_aud, y = make_clips()
    noise = rng.normal(size=X_aud.shape).astype(np.float32)
    heavy = MISAClassifier(**QUICK, class_weight={"joy": 50.0}).fit(make_table(audio=noise), y)
    assert (heavy.predict(make_table(audio=noise)) == "joy").mean() > 0.5
    # Scaled to an average of 1 over the rows, whatever the modalities they have.
    assert float(heavy._class_weights["fused"].mean()) == pytest.approx(1)


def test_early_stopping_listens_to_whole_rows():
    X_vis, X_aud, y = vectors()
    clf = MISAClassifier(
        **PAIRS, early_stopping=True, validation_fraction=0.3, n_iter_no_change=8
    ).fit(X_vis, X_aud, y)
    scores = clf.history_[:, "valid_uar"]
    assert len(scores) == int(np.argmax(scores)) + 1 + 8
    assert max(scores) > 0.9  # no single modality could


# ---------------------------------------------------------------------- prediction


@pytest.mark.parametrize("modality", ["fused", "audio", "visual"])
def test_a_row_is_predicted_as_if_alone(partial_table, fitted, modality):
    table, _ = partial_table
    clf = copy.copy(fitted).set_params(predict_modality=modality)
    if modality != "fused":
        table = table[[cell is not None for cell in table[modality]]]
    together = clf.predict_proba(table)
    features = clf.transform(table)
    alone = np.concatenate([clf.predict_proba(table.iloc[[i]]) for i in range(len(table))])
    np.testing.assert_allclose(alone, together, atol=1e-6)
    np.testing.assert_allclose(clf.set_params(batch_size=7).transform(table), features, atol=1e-5)
    assert features.shape == (len(table), 2 * 32)


def test_partial_rows_are_learned_and_predicted(partial_table, fitted):
    table, y = partial_table
    assert fitted.score(table, y) > 0.8
    lacking = table["visual"].isna() | table["audio"].isna()
    assert 0 < lacking.sum() < len(table)
    # A row that lacks its face is read as its voice is.
    voices = copy.copy(fitted).set_params(predict_modality="audio")
    rows = table[table["visual"].isna()]
    np.testing.assert_allclose(fitted.predict_proba(rows), voices.predict_proba(rows), rtol=1e-6)
    with pytest.raises(ValueError, match=r"Row 0 has no audio cell.*1 of 1 rows"):
        voices.predict(make_table(visual=[table["visual"].iloc[0]]))


def test_other_cells_never_change_a_single_modality_prediction(partial_table, fitted):
    table, _ = partial_table
    table = table[table["audio"].notna()]
    clf = copy.copy(fitted).set_params(predict_modality="audio")
    rng = np.random.default_rng(0)
    faces = [rng.integers(0, 255, (3, 9, 9), np.uint8) for _ in range(len(table))]
    np.testing.assert_array_equal(
        clf.predict_proba(table),
        clf.predict_proba(make_table(visual=faces, audio=table["audio"])),
    )


def test_frames_share_the_voice(partial_table, fitted):
    table, _ = partial_table
    row = table.iloc[[0]]
    frames, voice = row["visual"].iloc[0], row["audio"].iloc[0]
    assert frames.shape == (3, 3, 16, 16)
    each = fitted.predict_log_proba(make_table(visual=frames, audio=[voice] * 3))
    mean = each.mean(0)
    np.testing.assert_allclose(
        fitted.predict_log_proba(row)[0], mean - np.logaddexp.reduce(mean), atol=1e-6
    )
    assert np.ptp(each, axis=0).max() > 1e-3


def test_flat_matrix():
    X_vis, X_aud, y = (part[:40] for part in vectors())
    X = np.hstack([X_vis, X_aud])
    parameters = QUICK | {"max_epochs": 2}
    by_columns = MISAClassifier(**parameters, visual=slice(0, 3), audio=slice(3, 6)).fit(X, y)
    by_tables = MISAClassifier(**parameters).fit(X_vis, X_aud, y)
    np.testing.assert_array_equal(
        by_columns.predict_proba(X),
        by_tables.predict_proba(make_table(visual=X_vis, audio=X_aud)),
    )
    whole = MISAClassifier(**parameters).fit(X, y)
    assert list(whole.module_.modalities) == ["audio"]
    assert whole.predict_proba(X).shape == (40, 2)


def test_partial_fit_takes_rows_as_they_come(partial_table):
    table, y = partial_table
    clf = MISAClassifier(**QUICK)
    clf.partial_fit(table, y)
    clf.partial_fit(make_table(audio=table["audio"][:10]).dropna(subset=["audio"]), y[:8])
    assert len(clf.history_) == 2
    assert clf.history_[-1]["cmd"] == 0


def test_reproducible_and_pickles(partial_table, fitted):
    table, y = partial_table
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(table), fitted.predict_proba(table))
    parameters = QUICK | {"max_epochs": 2}
    first, second = (MISAClassifier(**parameters).fit(table, y) for _ in range(2))
    np.testing.assert_array_equal(first.predict_proba(table), second.predict_proba(table))
    again.partial_fit(table, y)
    assert torch.isfinite(again.module_.classifier.weight).all()


def test_says_that_without_text_it_is_an_adaptation():
    assert MISAClassifier.fidelity == "partial"
    assert "Without text four tokens remain, an adaptation" in MISAClassifier.__doc__


def test_samples_of_a_table_are_sorted_by_row(partial_table):
    # What the joint batches rely on.
    for samples in table_samples(partial_table[0]).values():
        assert (np.diff(samples.rows) >= 0).all()
