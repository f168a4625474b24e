"""Fit on shared batches and write what came out; started by a launcher, or alone."""

import sys

import numpy as np
import torch
from skorch.callbacks import Callback, EarlyStopping, LRScheduler

from skfdan import FDANClassifier, make_table
from skfdan.classifiers.distributed import SharedBatches


class Alter(Callback):
    """Do in the second process alone what spoils the fit of all."""

    def __init__(self, shared, what):
        self.shared = shared
        self.what = what

    def on_epoch_end(self, net, **kwargs):
        if self.shared.rank_ == 1 and self.what == "ends":
            raise KeyboardInterrupt  # as EarlyStopping ends training
        if self.shared.rank_ == 1 and self.what == "apart":
            self.add(net)

    def on_train_end(self, net, **kwargs):
        if self.shared.rank_ == 1 and self.what == "last":
            self.add(net)

    @torch.no_grad()
    def add(self, net):
        next(net.module_.parameters())[0].add_(1e-3)


def deciding(name):
    if name == "plateau":
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
        return LRScheduler(plateau, monitor="train_loss", patience=0, factor=0.5)
    return EarlyStopping("train_loss", patience=1, threshold=0.02, sink=lambda *_: None)


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
    settings = {"adaptation": None, "n_layers": 0, "bottleneck": 8, "lr_schedule": "constant"}
    y = np.array(["anger", "joy"] * 32)
    for name in ("plateau", "stop"):
        shared = SharedBatches()
        clf = FDANClassifier(**settings, **common | {"max_epochs": 30, "lr": 0.5, "momentum": 0.9})
        clf.set_params(callbacks=[deciding(name), shared]).fit(X, y)
        rank = shared.rank_ if shared.world_ > 1 else "alone"
        state = {k: t.numpy() for k, t in clf.module_.state_dict().items()}
        rates = clf.history_[:, "event_lr"] if name == "plateau" else [0]
        losses = clf.history_[:, "train_loss"]
        np.savez(f"{out}/{name}-{rank}.npz", **state, losses=losses, rates=rates)
    for name in ("apart", "ends", "last"):
        shared, problem = SharedBatches(), ""
        clf = FDANClassifier(**settings, **common)
        try:
            clf.set_params(callbacks=[shared, Alter(shared, name)]).fit(X, y)
        except RuntimeError as error:
            problem = str(error)
        rank = shared.rank_ if shared.world_ > 1 else "alone"
        np.savez(f"{out}/{name}-{rank}.npz", problem=problem)


if __name__ == "__main__":
    main(sys.argv[1])
