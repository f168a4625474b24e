"""Fit on shared batches and write what came out; started by a launcher, or alone."""

import sys

import numpy as np

from skfdan import FDANClassifier, make_table
from skfdan.classifiers.distributed import SharedBatches


def main(out):
    rng = np.random.default_rng(0)
    y = np.array(["anger", "joy"] * 32)
    shift = (y == "joy")[:, None]
    X = make_table(visual=rng.normal(size=(64, 8)) + shift, audio=rng.normal(size=(64, 12)) + shift)
    images = rng.integers(0, 255, (16, 3, 16, 16)).astype(np.uint8)
    common = {"device": "cpu", "random_state": 0, "verbose": 0}
    common |= {"max_epochs": 3, "batch_size": 16, "lr": 0.05}
    fits = {
        # Neither attention nor adaptation: each sample's loss is its own.
        "own": (FDANClassifier(adaptation=None, n_layers=0, bottleneck=8, **common), X, y),
        "lmmd": (FDANClassifier(alpha=0.1, bottleneck=8, **common), X, y),
        "norm": (
            FDANClassifier(backbone="cnn", weights=None, input_size=16, bottleneck=8, **common),
            make_table(visual=list(images)),
            y[:16],
        ),
        "frozen": (
            FDANClassifier(
                backbone="cnn", weights=None, backbone_trainable=False, input_size=16, **common
            ),
            make_table(visual=list(images)),
            y[:16],
        ),
    }
    for name, (clf, cells, labels) in fits.items():
        shared = SharedBatches()
        clf.set_params(callbacks=[shared])
        if name in ("norm", "frozen"):
            clf.set_params(predict_modality="visual")
        clf.fit(cells, labels)
        rank = shared.rank_ if shared.world_ > 1 else "alone"
        state = {k: t.numpy() for k, t in clf.module_.state_dict().items()}
        np.savez(f"{out}/{name}-{rank}.npz", **state, predicted=clf.predict_proba(cells))


if __name__ == "__main__":
    main(sys.argv[1])
