"""Batches of both modalities, and what an epoch of them leaves in the history."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from skorch.callbacks import Callback

from skfdan.classifiers._samples import Samples


class Batch:
    """One step's cells of each modality; its length counts the leading modality."""

    def __init__(self, cells: dict[str, torch.Tensor], n: int):
        self.cells = cells
        self.n = n

    def __len__(self) -> int:
        return self.n


class Batches:
    """Batches of an epoch: one pass through the audio samples.

    Audio is the paper's target, so an epoch means the same with and without
    faces. The visual samples are drawn from shuffles of their own, which go on
    from one epoch to the next and start again when they are used up. Batches
    are of even size, so that none is left with a single sample.
    """

    def __init__(
        self,
        samples: Samples,
        labels: dict[str, np.ndarray],
        batch_size: int,
        input_size: int | None,
        rng: np.random.RandomState,
    ):
        self.samples = samples
        self.labels = labels
        self.batch_size = batch_size
        self.input_size = input_size
        self.rng = rng
        self.lead = "audio" if "audio" in samples else "visual"
        self.other = next((m for m in samples if m != self.lead), None)
        self._pending = np.empty(0, dtype=int)

    def __iter__(self) -> Iterator[tuple[Batch, dict[str, torch.Tensor]]]:
        n = len(self.samples[self.lead])
        for chosen in np.array_split(self.rng.permutation(n), math.ceil(n / self.batch_size)):
            picks = {self.lead: chosen}
            if self.other is not None:
                picks[self.other] = self._draw(self.batch_size)
            cells = {m: self.samples[m].batch(i, self.input_size) for m, i in picks.items()}
            labels = {m: torch.from_numpy(self.labels[m][i]) for m, i in picks.items()}
            yield Batch(cells, len(chosen)), labels

    def _draw(self, n: int) -> np.ndarray:
        n_other = len(self.samples[self.other])
        n = min(n, n_other)
        if len(self._pending) < n:
            self._pending = np.append(self._pending, self.rng.permutation(n_other))
        drawn, self._pending = self._pending[:n], self._pending[n:]
        return drawn


class EpochMeans(Callback):
    """Average what the batches of an epoch recorded, then forget the batches."""

    def on_epoch_end(self, net, **kwargs):
        batches = net.history_[-1]["batches"]
        sizes = np.array([b["train_batch_size"] for b in batches], dtype=float)
        for key in batches[0]:
            if key != "train_batch_size":
                values = np.array([b[key] for b in batches])
                net.history_.record(key, float(np.average(values, weights=sizes)))

    def on_epoch_begin(self, net, **kwargs):
        # 300 epochs of batch records would outweigh the network in a pickle.
        if len(net.history_) > 1:
            net.history_[-2]["batches"] = []

    def on_train_end(self, net, **kwargs):
        if len(net.history_):
            net.history_[-1]["batches"] = []


def number(value: float | torch.Tensor) -> float:
    return value.item() if torch.is_tensor(value) else float(value)


def relative_spread(z: torch.Tensor) -> float:
    """Spread of the features over the samples, relative to their size."""
    size = z.square().mean().sqrt()
    return float(z.std(0, correction=0).square().mean().sqrt() / size) if size > 0 else 0.0
