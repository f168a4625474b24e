"""Cells of small units and of unequal sizes."""

import warnings

import numpy as np
import pytest

from skfdan import FDANClassifier, make_table
from skfdan.classifiers import TorchvisionClassifier
from skfdan.classifiers._samples import table_samples
from skfdan.classifiers._stacked import fit_together
from skfdan.nn import InputNorm, InputSpec
from skfdan.persistence import load_pretrained

K = np.arange(48) % 3
Y = np.array(["anger", "joy", "sad"])[K]
RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(48, 6)) + 2 * np.eye(3, 6)[K]
IMAGES = RNG.normal(size=(48, 16, 12)) + 2 * K[:, None, None]
QUICK = {
    "backbone": "cnn",
    "weights": None,
    "input_size": 16,
    "bottleneck": 8,
    "max_epochs": 10,
    "lr": 0.05,
    "momentum": 0.9,
    "batch_size": 8,
    "random_state": 0,
    "verbose": 0,
}


@pytest.mark.parametrize("unit", [1e-13, 1e-20])
@pytest.mark.parametrize("X", [VECTORS, IMAGES], ids=["vectors", "images"])
def test_the_unit_of_cells_does_not_matter(X, unit):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as one of features that have collapsed
        clf = FDANClassifier(**QUICK).fit(unit * X, Y)
    assert clf.score(unit * X, Y) > 0.85


def test_small_units_in_stacks_and_saved_models(tmp_path):
    X = 1e-13 * VECTORS
    alone = FDANClassifier(**QUICK).fit(X, Y)
    together = [FDANClassifier(**QUICK), FDANClassifier(**QUICK, alpha=0.1)]
    assert fit_together(together, X, Y) == [None, None]
    np.testing.assert_allclose(together[0].predict_proba(X), alone.predict_proba(X), atol=1e-4)
    alone.save_pretrained(tmp_path / "model")
    loaded = load_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(X), alone.predict_proba(X))


def faces():
    return [
        (RNG.integers(0, 99, (1 if i % 5 == 4 else 3, 20 + i % 4, 24 + i % 3)) + 50 * k).astype(
            np.uint8
        )
        for i, k in enumerate(K)
    ]


def test_faces_of_unequal_sizes_get_the_digits_of_single_ones():
    cells = faces()
    together = table_samples(make_table(visual=cells))["visual"].batch(np.arange(48), 16)
    norm = InputNorm(InputSpec("image", uint8=True), 16)
    for i, cell in enumerate(cells):
        single = table_samples(make_table(visual=[cell]))["visual"].batch(np.arange(1), 16)
        np.testing.assert_array_equal(norm(together[i : i + 1]).numpy(), norm(single).numpy())


@pytest.mark.parametrize(
    "make",
    [
        lambda **p: FDANClassifier(predict_modality="visual", **p),
        lambda backbone, bottleneck, **p: TorchvisionClassifier(
            arch=backbone, predict_modality="visual", **p
        ),
    ],
    ids=["FDAN", "Torchvision"],
)
def test_a_face_is_predicted_alike_beside_faces_of_other_sizes(make):
    X = make_table(visual=faces())
    clf = make(**QUICK | {"max_epochs": 2}).fit(X, Y)
    alone = np.vstack([clf.predict_proba(X.iloc[[i]]) for i in range(len(X))])
    np.testing.assert_allclose(clf.predict_proba(X), alone, rtol=0, atol=1e-13)
