"""Batches of both modalities, and what an epoch of them leaves in the history."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from skorch.callbacks import Callback

from skfdan.classifiers._paths import ahead
from skfdan.classifiers._samples import Samples
from skfdan.nn.fdan import FUSED


class Batch:
    """One step's cells of each modality; its length counts the leading modality.

    ``origin`` says where they come from: the samples, and the positions among them.
    """

    def __init__(
        self,
        cells: dict[str, torch.Tensor],
        n: int,
        origin: tuple[Samples, dict[str, np.ndarray]],
    ):
        self.cells = cells
        self.n = n
        self.origin = origin

    def pin_memory(self) -> Batch:
        """Move the cells to memory from which a GPU copies by itself, while others work."""
        self.cells = {m: c.pin_memory() for m, c in self.cells.items()}
        return self

    def describe(self) -> str:
        """Name the rows of each modality, and their files if they were read from any."""
        samples, picks = self.origin
        parts = []
        for m, picked in picks.items():
            chosen = samples[m].select(np.unique(picked[picked >= 0]))
            names = [str(row) for row in chosen.rows]
            paths = chosen.cells.paths if chosen.on_disk else chosen.files
            if paths is not None:
                names = [f"{row} ({path})" for row, path in zip(names, paths, strict=True)]
            parts.append(f"the {m} cells of rows {', '.join(names)}")
        return " and ".join(parts)

    def __len__(self) -> int:
        return self.n


class Batches:
    """Batches of an epoch: one pass through the audio samples.

    Audio is the paper's target, so an epoch means the same with and without
    faces. The visual samples are drawn from shuffles of their own, which go on
    from one epoch to the next and start again when they are used up. Batches
    are of even size, so that none is left with a single sample. With ``pinned`` they
    are made ready for a GPU, see :func:`load_each`.
    """

    def __init__(
        self,
        samples: Samples,
        labels: dict[str, np.ndarray],
        batch_size: int,
        input_size: int | None,
        rng: np.random.RandomState,
        pinned: bool = False,
    ):
        self.samples = samples
        self.labels = labels
        self.batch_size = batch_size
        self.input_size = input_size
        self.rng = rng
        self.pinned = pinned
        self.lead = "audio" if "audio" in samples else "visual"
        self.other = next((m for m in samples if m != self.lead), None)
        self._draws = None if self.other is None else Draws(len(samples[self.other]), rng)
        self.n_steps = math.ceil(len(samples[self.lead]) / batch_size)

    def __iter__(self) -> Iterator[tuple[Batch, dict[str, torch.Tensor]]]:
        return load_each(self.samples, self._plans(), self._load, self.pinned)

    def _plans(self) -> Iterator[dict[str, np.ndarray]]:
        n = len(self.samples[self.lead])
        for chosen in np.array_split(self.rng.permutation(n), self.n_steps):
            picks = {self.lead: chosen}
            if self.other is not None:
                picks[self.other] = self._draws.take(self.batch_size)
            yield picks

    def _load(self, picks: dict[str, np.ndarray]) -> tuple[Batch, dict[str, torch.Tensor]]:
        cells = {m: self.samples[m].batch(i, self.input_size, turn=True) for m, i in picks.items()}
        labels = {m: torch.from_numpy(self.labels[m][i]) for m, i in picks.items()}
        return Batch(cells, len(picks[self.lead]), (self.samples, picks)), labels

    def state(self) -> dict[str, np.ndarray]:
        """Return what the next epoch depends on, beside the generator."""
        return turns(self.samples) | ({} if self._draws is None else {"draws": self._draws.pending})

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take up a state."""
        set_turns(self.samples, state)
        if self._draws is not None:
            self._draws.pending = state["draws"]


class Draws:
    """Positions from shuffles that go on from call to call and start again when used up."""

    def __init__(self, n: int, rng: np.random.RandomState):
        self.n = n
        self.rng = rng
        self.pending = np.empty(0, dtype=np.int64)

    def take(self, n: int) -> np.ndarray:
        """Return n positions, or all of them where there are fewer."""
        n = min(n, self.n)
        if len(self.pending) < n:
            self.pending = np.append(self.pending, self.rng.permutation(self.n))
        drawn, self.pending = self.pending[:n], self.pending[n:]
        return drawn


class JointBatch(Batch):
    """One step's joint rows: cells, and which sample of each modality a row has.

    ``index`` maps a modality to the position of every row's sample among its
    cells, -1 where the row lacks it; ``ignored`` to where a row's modality is
    to be treated as lacking. The length counts rows.
    """

    def __init__(
        self,
        cells: dict[str, torch.Tensor],
        index: dict[str, torch.Tensor],
        ignored: dict[str, torch.Tensor] | None,
        origin: tuple[Samples, dict[str, np.ndarray]],
    ):
        super().__init__(cells, len(next(iter(index.values()))), origin)
        self.index = index
        self.ignored = ignored

    def pin_memory(self) -> JointBatch:
        """Move all tensors to memory from which a GPU copies by itself, while others work."""
        self.index = {m: i.pin_memory() for m, i in self.index.items()}
        if self.ignored is not None:
            self.ignored = {m: i.pin_memory() for m, i in self.ignored.items()}
        return super().pin_memory()


class JointBatches:
    """Batches of rows, in which the modalities of a row stay together.

    An epoch is one pass through the audio samples, as in :class:`Batches`. Each
    comes with one sample of every other modality that its row has, drawn at
    random if there are several (frames). Rows without audio are spread evenly over the
    steps, each at most once an epoch and at most ``batch_size`` in a step: a random part of
    them where there are more, and steps without any where there are few. Without any audio
    sample an epoch is one pass through those of another modality in its place.

    With probability ``modality_dropout`` a row that has several modalities is
    to be read by one of them alone, whichever. ``pinned`` is as in :class:`Batches`.
    """

    def __init__(
        self,
        samples: Samples,
        labels: dict[str, np.ndarray],
        batch_size: int,
        input_size: int | None,
        rng: np.random.RandomState,
        modality_dropout: float = 0.0,
        pinned: bool = False,
    ):
        self.samples = samples
        self.batch_size = batch_size
        self.input_size = input_size
        self.rng = rng
        self.modality_dropout = modality_dropout
        self.pinned = pinned
        self._spans = {m: _spans(s.rows, n_rows(samples)) for m, s in samples.items()}
        self._order = sorted(samples, key=lambda m: m != "audio")
        rows = samples[self._order[0]].rows
        others = np.setdiff1d(np.concatenate([s.rows for s in samples.values()]), rows)
        self._rows = np.append(rows, others)
        self._n_first = len(rows)
        of_row = np.full(n_rows(samples), -1)
        for m, s in samples.items():
            of_row[s.rows] = labels[m]
        self.labels = of_row[self._rows]

    def __iter__(self) -> Iterator[tuple[JointBatch, dict[str, torch.Tensor]]]:
        return load_each(self.samples, self._plans(), self._load, self.pinned)

    def _plans(self) -> Iterator[tuple]:
        n = self._n_first
        n_steps = math.ceil(n / self.batch_size)
        first = self.rng.permutation(n)
        others = n + self.rng.permutation(len(self._rows) - n)[: n_steps * self.batch_size]
        parts = (np.array_split(which, n_steps) for which in (first, others))
        for chosen in map(np.concatenate, zip(*parts, strict=True)):
            index = self._samples_of(chosen)
            ignored = ignored_at_random(index, self.modality_dropout, self.rng)
            yield index, ignored, self.labels[chosen]

    def _load(self, plan: tuple) -> tuple[JointBatch, dict[str, torch.Tensor]]:
        index, ignored, labels = plan
        cells, places = gather(self.samples, index, self.input_size, turn=True)
        batch = JointBatch(cells, places, ignored, (self.samples, index))
        return batch, {FUSED: torch.from_numpy(labels)}

    def state(self) -> dict[str, np.ndarray]:
        """Return what the next epoch depends on, beside the generator."""
        return turns(self.samples)

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take up a state."""
        set_turns(self.samples, state)

    def _samples_of(self, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """Return a sample of each modality for the chosen rows; -1 is none."""
        index = {}
        for m in self._order:
            first, count = (span[self._rows[chosen]] for span in self._spans[m])
            picked = first + self.rng.randint(np.maximum(count, 1))
            index[m] = np.where(count > 0, picked, -1)
        # Of the first modality the chosen are the samples themselves.
        index[self._order[0]] = np.where(chosen < self._n_first, chosen, -1)
        return index


def ignored_at_random(
    index: dict[str, np.ndarray], share: float, rng: np.random.RandomState
) -> dict[str, torch.Tensor] | None:
    """Return where a modality is ignored: of that share of rows all but one that they have."""
    if not share:
        return None
    present = np.stack([i >= 0 for i in index.values()])
    # 1 - [0, 1) is never 0, so the largest is one that the row has.
    kept = ((1 - rng.random_sample(present.shape)) * present).argmax(0)
    alone = rng.random_sample(present.shape[1]) < share
    return {m: torch.from_numpy(alone & (kept != k)) for k, m in enumerate(index)}


def load_each(samples: Samples, plans: Iterable, load: Callable, pinned: bool = False) -> Iterator:
    """Load the batches of an epoch; what comes from files, one batch ahead.

    So is all with ``pinned``: another thread gathers the next batch in pinned memory while a
    GPU computes. Torch keeps that memory until the copy to the device is done.
    """
    if pinned:
        return ahead(plans, lambda plan: _pin(*load(plan)))
    if any(s.on_disk for s in samples.values()):
        return ahead(plans, load)
    return map(load, plans)


def _pin(batch: Batch, labels: dict[str, torch.Tensor]) -> tuple[Batch, dict[str, torch.Tensor]]:
    return batch.pin_memory(), {m: y.pin_memory() for m, y in labels.items()}


def turns(samples: Samples) -> dict[str, np.ndarray]:
    """Return how often the files of each modality were drawn."""
    return {f"turns.{m}": s.cells.turns for m, s in samples.items() if s.on_disk}


def set_turns(samples: Samples, state: dict[str, np.ndarray]) -> None:
    """Go on from where :func:`turns` was."""
    for m, s in samples.items():
        if s.on_disk:
            s.cells.turns = state[f"turns.{m}"].copy()


def n_rows(samples: Samples) -> int:
    """Return how many rows there are up to the last that has a sample."""
    return 1 + max(int(s.rows[-1]) for s in samples.values())


def _spans(rows: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first sample and the number of samples of every row; rows are sorted."""
    return np.searchsorted(rows, np.arange(n)), np.bincount(rows, minlength=n)


def joint_index(samples: Samples) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Pair the samples of every row.

    A row counts as often as the modality of which it has most samples; the
    samples of the others take turns, so each frame comes with the row's voice.

    Returns
    -------
    index : dict of modality to ndarray of shape (n,)
        Sample of each pair, -1 where the row lacks the modality.
    rows : ndarray of shape (n,)
        Row of each pair.
    """
    spans = {m: _spans(s.rows, n_rows(samples)) for m, s in samples.items()}
    most = np.max([count for _, count in spans.values()], axis=0)
    rows = np.repeat(np.arange(len(most)), most)
    turn = np.arange(len(rows)) - np.repeat(np.cumsum(most) - most, most)
    index = {
        m: np.where(count[rows] > 0, first[rows] + turn % np.maximum(count[rows], 1), -1)
        for m, (first, count) in spans.items()
    }
    return index, rows


def gather(
    samples: Samples, index: dict[str, np.ndarray], input_size: int | None, turn: bool = False
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the cells that an index names, each once, and the index into these cells."""
    cells, places = {}, {}
    for m, i in index.items():
        used, inverse = np.unique(i[i >= 0], return_inverse=True)
        if len(used):
            place = np.full(len(i), -1)
            place[i >= 0] = inverse
            cells[m] = samples[m].batch(used, input_size, turn)
            places[m] = torch.from_numpy(place)
    return cells, places


class EpochMeans(Callback):
    """Average what the batches of an epoch recorded; forget the batches of the one before."""

    def on_epoch_end(self, net, **kwargs):
        batches = net.history_[-1]["batches"]
        for key in batches[0]:
            if key != "train_batch_size":
                has_it = [b for b in batches if key in b]
                values = np.array([b[key] for b in has_it])
                sizes = np.array([b["train_batch_size"] for b in has_it], dtype=float)
                net.history_.record(key, float(np.average(values, weights=sizes)))

    def on_epoch_begin(self, net, **kwargs):
        # 300 epochs of batch records would outweigh the network in a pickle.
        if len(net.history_) > 1:
            net.history_[-2]["batches"] = []


def number(value: float | torch.Tensor) -> float:
    return value.item() if torch.is_tensor(value) else float(value)


def read_numbers(records: list[dict]) -> None:
    """Turn the tensors in what batches have recorded into numbers, in one transfer."""
    places = [(r, name) for r in records for name, value in r.items() if torch.is_tensor(value)]
    if places:
        values = torch.stack([record[name].float() for record, name in places]).tolist()
        for (record, name), value in zip(places, values, strict=True):
            record[name] = value


#: The spread of the features is measured in the first step of so many: in every one, it would be
#: about a hundredth of the time of a small network on the CPU.
SPREAD_EVERY = 4


def relative_spread(z: torch.Tensor) -> torch.Tensor:
    """Spread of features (..., n, d) over the n samples, relative to their size: shape (...)."""
    # Of features that are all nought the spread is nought too, and no comparison is needed, for
    # which the CPU would have to wait for another device.
    size = torch.linalg.vector_norm(z, dim=(-2, -1)).clamp_min(torch.finfo(z.dtype).tiny)
    # Not std(-2), which takes ten times as long.
    return torch.linalg.vector_norm(z - z.mean(-2, keepdim=True), dim=(-2, -1)) / size
