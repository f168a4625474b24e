"""Rows without a voice in the training of classifiers that fuse the cells of a row."""

import numpy as np
import pytest

from skfdan import make_table
from skfdan.classifiers import (
    CoAttentionClassifier,
    FDRLClassifier,
    MISAClassifier,
    WavFusionClassifier,
)

SMALL = {"max_epochs": 2, "batch_size": 4, "random_state": 0, "verbose": 0}
WAVFUSION = {"dim": 8, "hidden": 4, "n_heads": 2, "common_dim": 4, "n_codes": 4}
CASES = {
    "fdrl": FDRLClassifier(hidden=8, **SMALL),
    "fdrl, faces": FDRLClassifier(modalities=("audio", "visual"), hidden=8, **SMALL),
    "wavfusion": WavFusionClassifier(**WAVFUSION, **SMALL),
    "wavfusion, concat": WavFusionClassifier(fusion="concat", **WAVFUSION, **SMALL),
    "co-attention": CoAttentionClassifier(dim=8, **SMALL),
    "misa": MISAClassifier(hidden=8, ffn_dim=8, **SMALL),
}


def partial(n_alone, n=24):
    """Rows of voices, of which none has anything else, before rows that have all but a voice."""
    rng = np.random.default_rng(0)
    widths = {"audio": 4, "text": 5, "visual": 3}
    cells = {m: list(rng.normal(size=(n + n_alone, d))) for m, d in widths.items()}
    cells["audio"][n:] = [None] * n_alone
    for m in ("text", "visual"):
        cells[m][:n] = [None] * n
    return make_table(**cells), np.resize(["anger", "joy"], n + n_alone)


@pytest.mark.parametrize("n_alone", [1, 4, 40])
@pytest.mark.parametrize("case", CASES)
def test_steps_with_few_or_none_of_them(case, n_alone):
    """Such a step holds one modality alone, or a single frame of another one."""
    X, y = partial(n_alone)
    clf = CASES[case].fit(X, y)
    for row in clf.history_:
        assert row["train_batch_count"] == 6
        assert all(np.isfinite(v) for k, v in row.items() if k != "batches")
    proba = clf.predict_proba(X)
    assert np.isfinite(proba).all()
    np.testing.assert_array_equal(clf.fit(X, y).predict_proba(X), proba)


@pytest.mark.parametrize("n_alone", [1, 40])
def test_class_weights_average_over_all_rows(n_alone):
    X, _ = partial(n_alone)
    y = np.where(X["audio"].isna(), "joy", "anger")
    clf = MISAClassifier(class_weight={"joy": 5.0}, hidden=8, ffn_dim=8, **SMALL).fit(X, y)
    weights = np.where(y == "joy", 5.0, 1.0)
    expected = np.array([1.0, 5.0]) / weights.mean()
    np.testing.assert_allclose(clf._class_weights["fused"].numpy(), expected, rtol=1e-6)
