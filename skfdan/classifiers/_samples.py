"""Reading what users pass as X into samples of each modality."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import issparse

from skfdan.classifiers._paths import Decoder, PathCells
from skfdan.nn.encoders import Embedded
from skfdan.nn.inputs import InputSpec, Padded, image_spec, resize, some_of
from skfdan.table import MODALITIES, SKIP, TEXT, as_cells, is_missing, make_table


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
        import torch

        if self.kind == "sequence":
            return Padded.of([torch.from_numpy(self.cells[i]) for i in samples])
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
        # Cells of unequal size are resized before they can be stacked.
        resized = [
            resize(
                torch.from_numpy(np.ascontiguousarray(c))
                .expand(3 if any(len(o) == 3 for o in cells) else len(c), -1, -1)[None]
                .float(),
                size,
            )
            for c in cells
        ]
        return torch.cat(resized)

    def spec(self, coarse: bool = False) -> InputSpec:
        """Describe the cells and measure their statistics, for a network.

        ``coarse`` rounds those of images, see :func:`skfdan.nn.inputs.image_spec`.
        """
        if self.kind != "image":
            if self.kind == "sequence":
                cells = np.concatenate(self._some())
            else:
                cells = self._some() if self.on_disk else self.cells
            values = np.asarray(cells, dtype=np.float64)
            std = values.std(0)
            return InputSpec(
                self.kind, False, values.shape[1], values.mean(0), np.where(std > 1e-12, std, 1.0)
            )
        return image_spec([self.cells[0]] if self.uint8 else self._some(), coarse)

    def _some(self) -> list[np.ndarray]:
        some = some_of(len(self))
        return self.cells.load(some) if self.on_disk else [self.cells[i] for i in some]


Samples = dict[str, ModalitySamples]

#: All that a column of X can be.
_COLUMNS = (*MODALITIES, TEXT)

#: How most classifiers that know it take text, see :func:`table_samples`.
TEXT_AS_VECTORS = {TEXT: "vector"}


def is_table(X: Any) -> bool:
    """Tell a modality table (or what a transformer makes of one) from numbers."""
    if isinstance(X, Mapping):
        return True
    if _modality_columns(X):
        return True
    if hasattr(X, "iloc") and getattr(X, "ndim", 0) == 2 and len(X):
        strange = [c for c in X.columns if isinstance(X[c].iloc[0], (np.ndarray, str, Path))]
        if strange:
            raise ValueError(
                f"X has the column {strange[0]!r} of paths or arrays, which is no modality; a "
                f"modality table has the columns {', '.join(map(repr, _COLUMNS))}."
            )
        return False
    if isinstance(X, np.ndarray) and X.dtype.kind in "OUT" and X.ndim == 2 and X.shape[1] <= 2:
        return any(
            cell is None or cell is pd.NA or isinstance(cell, (np.ndarray, str, Path))
            for cell in X.ravel()
        )
    return False


def _modality_columns(X: Any) -> dict[str, Any]:
    """Map modalities to column names; ``audio__audio`` counts as ``audio``."""
    found: dict[str, Any] = {}
    for column in getattr(X, "columns", ()):
        name = str(column).rsplit("__", 1)[-1]
        if name in _COLUMNS:
            if name in found:
                raise ValueError(
                    f"Both columns {found[name]!r} and {column!r} are {name}; keep one of them."
                )
            found[name] = column
    return found


def read_table(X: Any, default: str) -> pd.DataFrame:
    """Turn a mapping, frame or object array into a modality table.

    ``default`` is the modality of a single unnamed column.
    """
    if isinstance(X, Mapping):
        unknown = [k for k in X if k not in _COLUMNS]
        if unknown:
            raise ValueError(
                f"Unknown modality {unknown[0]!r}: X as a mapping may hold "
                f"{', '.join(map(repr, _COLUMNS))}."
            )
        return make_table(**{k: v for k, v in X.items() if v is not None})
    columns = _modality_columns(X)
    if columns:
        cells = {m: as_cells(X[column]) for m, column in columns.items()}
    elif X.shape[1] == 2:
        cells = {m: as_cells(X[:, i]) for i, m in enumerate(MODALITIES)}
        _refuse_swapped(cells)
    else:
        cells = {default: as_cells(X[:, 0])}
    return make_table(**cells)


def _refuse_swapped(cells: dict[str, np.ndarray]) -> None:
    """Notice unnamed columns in the order audio, visual, as far as cells tell."""
    first = {
        m: next((c for c in column if isinstance(c, np.ndarray)), None)
        for m, column in cells.items()
    }
    looks_audio = first["visual"] is not None and first["visual"].dtype.kind == "f"
    looks_visual = first["audio"] is not None and first["audio"].dtype == np.uint8
    if looks_visual and (looks_audio or first["visual"] is None):
        raise ValueError(
            "Of two columns without names the first is taken as visual and the second as audio, "
            f"but the second holds bytes of shape {first['audio'].shape}, as faces do. Put "
            '"visual" first in the ColumnTransformer, or give it set_output(transform="pandas").'
        )


def check_rows(empty: np.ndarray, columns: Collection[str] = MODALITIES) -> None:
    """Raise a ValueError if a row is empty."""
    rows = np.flatnonzero(empty).tolist()
    if rows:
        none = "neither a visual nor an audio cell"
        if TEXT in columns:
            none = "no visual, audio or text cell"
        raise ValueError(
            f"Row {rows[0]} has {none}{_and_more(rows)}; drop it, fill "
            'one of them, or leave such rows out with on_error="missing". If FaceFrames found no '
            'face there, on_no_face="center" takes the middle of the picture instead.'
        )


def missing_cells(cells: Any) -> np.ndarray:
    """Return where a column has no cell; a cell to be skipped is none either."""
    return np.array([cell is SKIP or is_missing(cell) for cell in cells], dtype=bool)


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


def n_dim(X: Any) -> int:
    """Count dimensions as NumPy does, but of a list look at one element alone.

    What a list holds need not be of one shape.
    """
    if isinstance(X, (list, tuple)):
        return 1 + next((n_dim(cell) for cell in X if not is_missing(cell)), 0)
    return np.ndim(X)


def holds_paths(X: Any) -> bool:
    """Tell whether X is a sequence of cells of which any is a path."""
    if isinstance(X, np.ndarray):
        one_column = X.ndim == 1 and X.dtype.kind in "OUT"
    else:
        one_column = isinstance(X, (list, tuple)) or getattr(X, "ndim", 0) == 1
    return one_column and any(isinstance(cell, (str, os.PathLike)) for cell in X)


def path_rows(cells: np.ndarray, modality: str) -> list[int]:
    """Return the rows of a column that hold paths; arrays must not stand beside them."""
    rows = [i for i, cell in enumerate(cells) if isinstance(cell, (str, os.PathLike))]
    if rows and len(rows) < (~missing_cells(cells)).sum():
        other = next(
            i
            for i, cell in enumerate(cells)
            if not (cell is SKIP or is_missing(cell) or isinstance(cell, (str, os.PathLike)))
        )
        raise ValueError(
            f"The {modality} column holds paths (row {rows[0]}) and arrays (row {other}); give it "
            "one or the other."
        )
    return rows


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
            f"{name} row {missing[0]} is missing{_and_more(missing)}; a modality that is missing "
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


def _and_more(rows: list[int]) -> str:
    return f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
