"""Reading what users pass as X into samples of each modality."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.sparse import issparse

from skfdan.classifiers._forms import and_more, missing_cells
from skfdan.classifiers._paths import Decoder, PathCells
from skfdan.nn.encoders import Embedded
from skfdan.nn.inputs import (
    InputSpec,
    Padded,
    as_floats,
    image_spec,
    mean_and_std,
    resize,
    some_of,
)
from skfdan.table import MODALITIES, TEXT, as_cells, make_table


@dataclass
class ModalitySamples:
    """The samples of one modality.

    ``cells`` is an array (n, ...), a list of n arrays, or n paths that are decoded
    when they are needed; ``rows`` the row of X that each sample comes from. The
    frames of one clip share a row. With ``embedded`` they are what the frozen part of a
    backbone made of the cells; ``files`` says what they were read from, if it was files.
    """

    cells: np.ndarray | list[np.ndarray] | PathCells
    rows: np.ndarray
    embedded: bool = False
    files: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def kind(self) -> str:
        return {1: "vector", 2: "sequence"}.get(self.cells[0].ndim, "image")

    @property
    def uint8(self) -> bool:
        return self.cells[0].dtype == np.uint8

    @property
    def on_disk(self) -> bool:
        return isinstance(self.cells, PathCells)

    def select(self, samples: np.ndarray) -> ModalitySamples:
        """Return a subset, given as integer positions; cells are not copied."""
        if self.on_disk:
            cells = self.cells.take(samples)
        elif isinstance(self.cells, np.ndarray):
            cells = self.cells[samples]
        else:
            cells = [self.cells[i] for i in samples]
        files = None if self.files is None else self.files[samples]
        return ModalitySamples(cells, self.rows[samples], self.embedded, files)

    def decoded(self, samples: np.ndarray) -> ModalitySamples:
        """Return a subset of what is on disk as arrays; each frame is a sample of its own."""
        frames = self.cells.frames(samples)
        times = [len(f) for f in frames]
        return ModalitySamples(
            [frame for f in frames for frame in f],
            np.repeat(self.rows[samples], times),
            files=np.repeat(self.cells.paths[samples], times),
        )

    def batch(self, samples: np.ndarray, size: int | None, turn: bool = False):
        """Return the cells of some samples as one tensor, still unnormalised.

        ``turn`` makes files of several frames give the next one next time, as a
        training does; validation must see the same ones in every epoch.
        """
        if self.kind == "sequence":
            return Padded.of([_tensor(self.cells[i]) for i in samples])
        if isinstance(self.cells, np.ndarray):
            block = torch.from_numpy(np.ascontiguousarray(self.cells[samples]))
            return Embedded(block) if self.embedded else block
        if self.on_disk:
            cells = self.cells.load(samples, turn=turn)
        else:
            cells = [self.cells[i] for i in samples]
        if len({c.shape for c in cells}) == 1:
            return torch.from_numpy(np.stack(cells))
        if size is None:
            shapes = sorted({c.shape for c in cells})
            raise ValueError(
                f"Cells of different sizes, such as {shapes[0]} and {shapes[-1]}, can't share a "
                "batch: set input_size, or give all cells one size (duration= of MelSpectrogram, "
                "size= of FaceFrames)."
            )
        # Cells of unequal size are resized before they can be stacked. Scaled before that, as
        # the network does: a cell's digits must not tell what it stood beside.
        channels = max(len(c) for c in cells)
        resized = [resize(as_floats(_tensor(c))[None], size) for c in cells]
        return torch.cat([c.expand(-1, channels, -1, -1) for c in resized])

    def spec(self, coarse: bool = False) -> InputSpec:
        """Describe the cells and measure their statistics, for a network.

        ``coarse`` rounds those of images, see :func:`skfdan.nn.inputs.image_spec`.
        """
        if self.kind != "image":
            if self.kind == "sequence":
                cells = np.concatenate(self.some())
            else:
                cells = self.some() if self.on_disk else self.cells
            values = np.asarray(cells)
            return InputSpec(self.kind, False, values.shape[1], *mean_and_std(values))
        return image_spec([self.cells[0]] if self.uint8 else self.some(), coarse)

    def some(self) -> list[np.ndarray]:
        """Return some hundred of the cells, evenly spread."""
        some = some_of(len(self))
        return self.cells.load(some) if self.on_disk else [self.cells[i] for i in some]


Samples = dict[str, ModalitySamples]

#: How most classifiers that know it take text, see :func:`table_samples`.
TEXT_AS_VECTORS = {TEXT: "vector"}


def _tensor(cell: np.ndarray) -> torch.Tensor:
    """Return a cell as a tensor, which takes no turned or read-only memory."""
    # NumPy calls an axis of length 1 contiguous, whichever way it is turned.
    turned = min(cell.strides, default=0) < 0
    return torch.from_numpy(cell.copy() if turned else np.require(cell, requirements=["C", "W"]))


def table_samples(
    table: pd.DataFrame | Mapping[str, np.ndarray],
    modalities: tuple[str, ...] = MODALITIES,
    decoders: Mapping[str, Decoder] | None = None,
    embedded: Mapping[str, str] = TEXT_AS_VECTORS,
) -> Samples:
    """Read the cells of a modality table.

    ``modalities`` limits what is read; ``decoders`` are for columns of paths. The modalities
    in ``embedded`` are not images but vectors (d,) or sequences (T, d): as a "vector", a
    sequence is averaged over time; as a "sequence", a vector has one step.
    """
    samples: Samples = {}
    for modality in modalities:
        filled = np.flatnonzero(~missing_cells(table[modality]))
        if not len(filled):
            continue
        column = np.asarray(table[modality], dtype=object)
        if decoders is not None and modality in decoders:
            read = partial(_cell_samples, modality=modality, embedded=embedded)
            cells = PathCells(column[filled], filled, decoders[modality], read)
            samples[modality] = ModalitySamples(cells, filled)
            continue
        vectors = _plain_vectors(column[filled]) if embedded.get(modality) != "sequence" else None
        if vectors is not None:
            samples[modality] = ModalitySamples(vectors, filled)
            continue
        parts = [list(_cell_samples(column[i], modality, i, embedded)) for i in filled]
        rows = np.repeat(filled, [len(p) for p in parts])
        samples[modality] = _uniform([c for p in parts for c in p], rows, modality)
    return samples


def _plain_vectors(cells: np.ndarray) -> np.ndarray | None:
    """Return cells as a block if all are good vectors of float32 and of one length, else None.

    What embeddings usually are; a look at each cell takes five times as long.
    """
    shape = getattr(cells[0], "shape", None)
    if shape is None or len(shape) != 1 or not shape[0]:
        return None
    if not all(type(c) is np.ndarray and c.shape == shape and c.dtype == np.float32 for c in cells):
        return None
    block = np.stack(cells)
    return block if np.isfinite(block).all() else None


def array_samples(
    X: Any, modality: str, name: str, embedded: Mapping[str, str] = TEXT_AS_VECTORS
) -> ModalitySamples:
    """Read one array (n, ...) or sequence of arrays as the samples of a modality."""
    if issparse(X):
        raise TypeError(f"{name} is sparse; dense arrays are needed: {name}.toarray().")
    if (hasattr(X, "iloc") and X.ndim == 2) or hasattr(X, "numpy"):
        X = np.asarray(X)
    if len(X) == 0:
        raise ValueError(f"{name} has no rows: it has shape {np.shape(X)}.")
    if isinstance(X, np.ndarray) and X.dtype != object and X.ndim == 2:
        X = _numbers(X, name)
        _check_finite(X, name)
        sequences = embedded.get(modality) == "sequence"
        return ModalitySamples(X[:, None] if sequences else X, np.arange(len(X)))
    if (
        isinstance(X, np.ndarray)
        and X.dtype != object
        and X.ndim in (3, 4)
        and (modality not in embedded)
    ):
        X = _check_block(X, modality, name)
        return ModalitySamples(X, np.arange(len(X)))
    cells = as_cells(X)
    missing = np.flatnonzero(missing_cells(cells)).tolist()
    if missing:
        raise ValueError(
            f"{name} row {missing[0]} is missing{and_more(missing)}; a modality that is missing "
            "for some clips belongs in a table: make_table(visual=..., audio=...)."
        )
    return table_samples(make_table(**{modality: cells}), (modality,), embedded=embedded)[modality]


def _check_block(X: np.ndarray, modality: str, name: str) -> np.ndarray:
    """Check an (n, H, W) or (n, C, H, W) array as a whole, without a cell loop."""
    _check_image(X[0], modality, f"{name} of shape {X.shape}")
    if X.dtype != np.uint8:
        X = _numbers(X, name)
        _check_finite(X, name)
    return X[:, None] if X.ndim == 3 else X


def _check_finite(X: np.ndarray, name: str) -> None:
    finite = np.isfinite(X).reshape(len(X), -1).all(1)
    if not finite.all():
        raise ValueError(
            f"{name} row {int(np.argmin(finite))} holds NaN or infinite values; "
            "remove or mend that clip."
        )


def _cell_samples(
    cell: Any, modality: str, row: int, embedded: Mapping[str, str] = TEXT_AS_VECTORS
) -> Iterator[np.ndarray]:
    """Yield the samples of one cell: one, or one a frame or altered copy."""
    where = f"{modality} cell of row {row}"
    if modality in embedded:
        yield _embedding(cell, modality, where, embedded[modality])
        return
    if isinstance(cell, (str, Path)):
        step = "FaceFrames()" if modality == "visual" else "MelSpectrogram()"
        raise ValueError(
            f"The {where} is the path {str(cell)!r}. Put {step} before the classifier, for "
            f'example make_pipeline(ColumnTransformer([("{modality}", {step}, ["{modality}"])]), '
            "FDANClassifier())."
        )
    cell = _one_array(cell, where)
    if cell.size == 0:
        raise ValueError(f"The {where} is empty: it has shape {cell.shape}.")
    if cell.dtype != np.uint8:
        cell = _numbers(cell, where)
        if not np.isfinite(cell).all():
            raise ValueError(f"The {where} holds NaN or infinite values; remove or mend that clip.")
    if cell.ndim == 1:
        yield cell.astype(np.float32, copy=False)
        return
    if cell.ndim == 4:
        _check_image(cell[0], modality, where)
        yield from cell
        return
    _check_image(cell, modality, where)
    yield cell if cell.ndim == 3 else cell[None]


def _embedding(cell: Any, modality: str, where: str, kind: str) -> np.ndarray:
    """Return a vector or a sequence of vectors as a ``kind``, "vector" or "sequence"."""
    encoder = {"text": "TextEmbedding", "audio": "Wav2Vec2Embedding"}.get(
        modality, "FrameEmbedding"
    )
    if isinstance(cell, (str, Path)):
        what = "text" if modality == TEXT else "path"
        raise ValueError(
            f"The {where} is the {what} {str(cell)!r:.60}; this classifier reads embeddings. Put "
            f"{encoder}() before it, or give vectors (d,) or sequences (T, d)."
        )
    cell = _one_array(cell, where)
    if cell.ndim not in (1, 2) or cell.size == 0 or cell.dtype == np.uint8:
        raise ValueError(
            f"The {where} is {_describe(cell)}; a vector (d,) or a sequence (T, d) of an encoder "
            f"is needed, such as {encoder} gives."
        )
    cell = _numbers(cell, where)
    if not np.isfinite(cell).all():
        raise ValueError(f"The {where} holds NaN or infinite values; remove or mend that row.")
    if kind == "sequence":
        return cell[None] if cell.ndim == 1 else cell
    return cell if cell.ndim == 1 else cell.mean(0, dtype=np.float64).astype(np.float32)


def _one_array(cell: Any, where: str) -> np.ndarray:
    try:
        return np.asarray(cell)
    except ValueError:
        raise ValueError(
            f"The {where} is a {type(cell).__name__} of what differs in shape, but a cell is one "
            "array. Faces and voices are arguments of their own, fit(X_vis, X_aud, y), or columns "
            "of a table, make_table(visual=..., audio=...)."
        ) from None


def _check_image(image: np.ndarray, modality: str, where: str) -> None:
    if image.ndim == 2 or (image.ndim == 3 and image.shape[0] in (1, 3)):
        return
    expected = (
        "a face is (3, H, W) or (1, H, W), several frames (frames, 3, H, W)"
        if modality == "visual"
        else "a Mel spectrogram is (n_mels, T), several samples (samples, 1, n_mels, T)"
    )
    hint = ""
    if image.ndim == 3 and image.shape[-1] in (1, 3):
        hint = " The channels are last: move them with numpy.moveaxis(X, -1, -3)."
    raise ValueError(
        f"The {where} has the wrong shape: one sample is {image.shape}, but {expected}.{hint}"
    )


def _numbers(array: np.ndarray, where: str) -> np.ndarray:
    if array.dtype.kind not in "biuf":
        raise TypeError(f"The {where} has dtype {array.dtype}; numbers are needed.")
    # What float32 can't hold becomes infinite, and is refused as that.
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


def _uniform(cells: list[np.ndarray], rows: np.ndarray, modality: str) -> ModalitySamples:
    """Refuse mixtures that one network input can't take."""
    first = cells[0]
    for cell, row in zip(cells, rows, strict=True):
        if cell.ndim != first.ndim or (cell.dtype == np.uint8) != (first.dtype == np.uint8):
            raise ValueError(
                f"The {modality} cells differ in kind: row {rows[0]} is {_describe(first)}, "
                f"row {row} is {_describe(cell)}. Send all through the same transformer."
            )
        if cell.ndim < 3 and cell.shape[-1] != first.shape[-1]:
            raise ValueError(
                f"The {modality} cells differ in length: row {rows[0]} has {first.shape[-1]} "
                f"features, row {row} has {cell.shape[-1]}."
            )
    # Vectors are small: one block makes a batch one indexing step.
    return ModalitySamples(np.stack(cells) if first.ndim == 1 else cells, rows)


def _describe(cell: np.ndarray) -> str:
    return f"{cell.dtype} of shape {cell.shape}"
