"""FDAN's head on cached features, written with skorch alone: what `_speed_training` compares with.

It draws the weights and batches of ``FDANClassifier(random_state=0)``, so that both find the
same scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from _speed_losses import N_CLASSES
from skorch import NeuralNetClassifier
from skorch.callbacks import LRScheduler
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, Dataset, default_collate

from skfdan.nn import FDANNet, InputSpec
from skfdan.table import MODALITIES


class PlainModule(torch.nn.Module):
    """FDANNet with logits and features in a tuple, as skorch expects."""

    def __init__(self, mean, std):
        super().__init__()
        specs = {
            m: InputSpec("vector", False, len(mean[m]), mean[m], std[m])
            for m in MODALITIES
            if m in mean
        }
        self.net = FDANNet(N_CLASSES, specs)

    def forward(self, audio, visual=None):
        out = self.net(visual=visual, audio=audio)
        if visual is None:
            return out.logits["audio"]
        return *(out.logits[m] for m in MODALITIES), *(out.layers[m][1] for m in MODALITIES)


class Pairs(Dataset):
    """A voice and a face, by their places; or a voice alone."""

    def __init__(self, cells: dict[str, np.ndarray], labels: dict[str, np.ndarray]):
        self.cells, self.labels = cells, labels

    def __len__(self):
        return len(self.cells["audio"])

    def __getitem__(self, i):
        places = {"audio": i[0], "visual": i[1]} if isinstance(i, tuple) else {"audio": i}
        x = {m: self.cells[m][k] for m, k in places.items()}
        return x, {m: self.labels[m][k] for m, k in places.items()}


class BothModalities:
    """The batches of an epoch, by the DataLoader's own collation."""

    def __init__(self, dataset: Pairs, batch_size: int, rng: np.random.RandomState):
        self.dataset, self.batch_size, self.rng = dataset, batch_size, rng
        self.pending = np.empty(0, dtype=int)

    def _batches(self) -> Iterator[list[tuple[int, int]]]:
        n, n_visual = (len(self.dataset.cells[m]) for m in ("audio", "visual"))
        for chosen in np.array_split(self.rng.permutation(n), -(-n // self.batch_size)):
            if len(self.pending) < len(chosen):
                self.pending = np.append(self.pending, self.rng.permutation(n_visual))
            faces, self.pending = np.split(self.pending, [len(chosen)])
            yield list(zip(chosen.tolist(), faces.tolist(), strict=True))

    def __iter__(self):
        batches = list(self._batches())
        return iter(DataLoader(self.dataset, batch_sampler=batches, collate_fn=default_collate))


class PlainFDAN(NeuralNetClassifier):
    """Rows are places in a table of cached features; predictions hear the voice alone."""

    def __init__(self, *args, table=None, loss=None, alpha=1e-3, weight_decay=1e-4, **kwargs):
        super().__init__(*args, **kwargs)
        self.table, self.loss = table, loss
        self.alpha, self.weight_decay = alpha, weight_decay

    def fit(self, X, y):
        """Train on some rows of the table."""
        self.rng_ = np.random.RandomState(0)
        cells, labels = {}, {}
        for m in MODALITIES:
            filled = self.table[m].notna().to_numpy()[X]
            cells[m], labels[m] = np.stack(self.table[m].iloc[X[filled]]), y[filled]
        self.set_params(
            module__mean={m: x.astype(float).mean(0) for m, x in cells.items()},
            module__std={m: x.astype(float).std(0) for m, x in cells.items()},
            optimizer__weight_decay=self.weight_decay,
        )
        self.initialized_ = False
        torch.manual_seed(int(self.rng_.randint(2**31 - 1)))
        self.batches_ = BothModalities(Pairs(cells, labels), self.batch_size, self.rng_)
        return super().fit(self.batches_.dataset, None)

    def get_iterator(self, dataset, training=False):
        """Return the batches of both modalities in training."""
        return self.batches_ if training else super().get_iterator(dataset, training=False)

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Eq. 9."""
        of_visual, of_audio, z_visual, z_audio = y_pred
        y_visual, y_audio = (y_true[m] for m in MODALITIES)
        loss = cross_entropy(of_audio, y_audio) + cross_entropy(of_visual, y_visual)
        return loss + self.alpha * self.loss(z_visual, z_audio, y_visual, y_audio, N_CLASSES)

    def predict(self, X):
        """Return the classes of the voices in some rows."""
        voices = np.stack(self.table["audio"].iloc[X])
        return self.predict_proba({"audio": voices}).argmax(1)


def plain_skorch(table, epochs: int, loss: Callable, **settings) -> PlainFDAN:
    """Return the estimator, for GridSearchCV over rows of the table.

    Parameters
    ----------
    table : DataFrame
        Vectors in the columns ``visual`` and ``audio``.
    epochs : int
        Length of a fit.
    loss : callable
        LMMD of (z_visual, z_audio, y_visual, y_audio, n_classes).
    **settings : dict
        ``lr`` and ``momentum``.

    Returns
    -------
    PlainFDAN
        Not fitted.
    """
    return PlainFDAN(
        PlainModule,
        table=table,
        loss=loss,
        max_epochs=epochs,
        lr=settings["lr"],
        batch_size=32,
        optimizer=torch.optim.SGD,
        optimizer__momentum=settings["momentum"],
        train_split=None,
        callbacks=[("schedule", LRScheduler(CosineAnnealingLR, T_max=epochs))],
        classes=np.arange(N_CLASSES),
        verbose=0,
    )
