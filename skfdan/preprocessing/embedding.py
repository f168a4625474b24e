"""Embeddings of faces and spectrograms: vectors that a frozen backbone makes of cells."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ..table import SKIP
from ..utils.progress import progress_bar
from ..utils.threads import all_threads, one_thread
from ._base import check_numbers
from ._column import OneColumn
from ._embedding_store import (
    STORE,
    embed_distinct,
    embedding_context,
    one_at_a_time,
    run_backbone,
    warn_of_full_store,
)
from ._failures import describe_cell
from .cache import FileCache

__all__ = ["BackboneEmbedding"]

#: How the embeddings of a clip's frames become one vector.
_POOLS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda frames: frames.mean(axis=0, dtype=np.float64).astype(np.float32),
    "max": lambda frames: frames.max(axis=0),
}
_PRECISIONS = ("float32", "bfloat16")
#: Cells from one step of the progress bar to the next.
_CHUNK = 256
#: The name of what FrozenEncoder encodes.
_CELLS = "cells"


class BackboneEmbedding(OneColumn):
    """Vectors that a frozen image backbone makes of faces or Mel spectrograms.

    Each cell of a column, a face or a spectrogram, becomes the features that the
    backbone computes of it: a float32 array of shape (d,), which every classifier
    reads as a vector cell. The frames of a clip become one vector. The backbone is
    not trained; ``fit`` builds it and, for spectrograms, measures the mean and
    deviation by which its input is normalised. It is what the classifiers do with
    ``backbone_trainable=False``, as a step of its own.

    No cell is embedded twice: what a backbone made of a cell is kept, in memory (up to 1 GiB a
    process) and with ``cache_dir`` in files, and found again by every fold and candidate of a
    search, and by the classifiers with ``backbone_trainable=False``, as long as cell,
    weights, input size, precision, statistics and kind of device are the same, and of a
    network of your own its code and attributes.

    Parameters
    ----------
    backbone : str or callable, default="resnet34"
        ``"resnet18"``, ``"resnet34"``, ``"resnet50"``, ``"vgg16"``, ``"vgg19"``,
        ``"cnn"`` (small, for demos and tests), or a callable that returns a module
        and its number of features; see :func:`skfdan.nn.make_backbone`.
    weights : {"DEFAULT"}, path or None, default="DEFAULT"
        ``"DEFAULT"`` loads torchvision's ImageNet weights, from its download cache
        or from the network. A path names a state dict with torchvision's parameter
        names. None takes random weights.
    input_size : int or None, default=224
        Side in pixels of the square that cells are resized to; None keeps their size.
    frames : {"mean", "max"}, default="mean"
        What becomes of a clip of several frames: the mean of their vectors, or the
        highest value of each feature.
    batch_size : int, default=32
        Cells that go through the backbone at a time. On a GPU it is halved where the
        memory does not suffice.
    precision : {"float32", "bfloat16"}, default="float32"
        In what the backbone computes; the vectors are float32.
    cache_dir : path-like or None, default=None
        Folder in which vectors are kept, per cell, and found again by any process.
    device : str, default="auto"
        ``"auto"`` takes a GPU if there is one; ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    random_state : int, RandomState instance or None, default=None
        Seed of random weights. With None they are others at each ``fit``, so that
        nothing is found again.
    verbose : int, default=1
        0 shows no progress bar; others show one in a terminal or notebook.

    Attributes
    ----------
    encoder_ : Module or None
        The backbone, behind the normalisation of its input. None if ``fit`` was given
        missing cells alone; such a transformer passes on missing cells and takes no
        others.
    n_features_in_ : int
        Columns of X at ``fit``, which is 1.
    feature_names_in_ : ndarray of shape (1,)
        Column name of X at ``fit``; only if it is a string.

    See Also
    --------
    FaceFrames : Makes faces of videos and pictures.
    MelSpectrogram : Makes spectrograms of sounds.
    skfdan.FDANClassifier : Embeds by itself with ``backbone_trainable=False``.

    Notes
    -----
    A cell is a face, uint8 of shape (3, H, W) or (1, H, W); the faces of a clip,
    uint8 of shape (frames, 3, H, W); a spectrogram, floats of shape (n_mels, T) or
    (1, n_mels, T); or missing. All of a column are bytes, or all are floats. A missing
    cell gives None, and :data:`skfdan.table.SKIP` stays what it is. A stack of
    several samples of floats, as :class:`SpeechFeatures` gives at training, is refused:
    the mean of a clip and its altered copies would be neither.

    Bytes are normalised with ImageNet's mean and deviation. Those of floats are
    measured on (at most 512 of) the cells of ``fit``, the mean rounded to a quarter of
    the deviation, the deviation to a quarter of an octave, so that the folds of a corpus
    nearly always agree and share their vectors. A row's result depends on that row and
    on what ``fit`` has measured, not on the rows beside it.

    Classifiers standardise vector cells feature by feature, which they do not do with
    embeddings of their own; but for that, and for several frames, a classifier on these
    vectors and one with ``backbone_trainable=False`` on the cells are the same.

    ``numpy.stack(vectors[:, 0])`` is the matrix that scikit-learn's other estimators take;
    the FAQ has it as a step of a pipeline.

    ``save_pretrained`` can't save a pipeline with this step; it can save a classifier
    with ``backbone_trainable=False``, which holds its backbone.

    Examples
    --------
    >>> import numpy as np
    >>> from skfdan.preprocessing import BackboneEmbedding
    >>> clips = [np.zeros((2, 3, 40, 40), np.uint8), np.ones((3, 48, 48), np.uint8), None]
    >>> embed = BackboneEmbedding(backbone="cnn", weights=None, input_size=32, random_state=0)
    >>> vectors = embed.fit_transform(clips)
    >>> vectors[0, 0].shape, vectors[1, 0].shape, vectors[2, 0]
    ((128,), (128,), None)
    """

    _accepts = "uint8 faces or Mel spectrograms"
    _choices: ClassVar[dict] = {"frames": tuple(_POOLS), "precision": _PRECISIONS}

    def __init__(
        self,
        *,
        backbone="resnet34",
        weights="DEFAULT",
        input_size=224,
        frames="mean",
        batch_size=32,
        precision="float32",
        cache_dir=None,
        device="auto",
        random_state=None,
        verbose=1,
    ):
        self.backbone = backbone
        self.weights = weights
        self.input_size = input_size
        self.frames = frames
        self.batch_size = batch_size
        self.precision = precision
        self.cache_dir = cache_dir
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None):
        """Build the backbone, and measure the mean and deviation of spectrograms.

        Parameters
        ----------
        X : {DataFrame, Series, array-like} of shape (n, 1) or (n,)
            One column of cells.
        y : None
            Ignored.

        Returns
        -------
        self : object
            The fitted transformer.

        Raises
        ------
        FileNotFoundError
            If ``weights`` names a file that does not exist.
        RuntimeError
            If the ImageNet weights can't be downloaded, or a file does not fit.
        TypeError
            If a cell holds no numbers; names the row.
        ValueError
            If a parameter or a cell can't be used; names the row.
        """
        import torch

        from skfdan.nn.encoders import FrozenEncoder
        from skfdan.nn.inputs import image_spec, some_of
        from skfdan.utils.device import resolve_device

        self._check_parameters()
        resolve_device(self.device)
        cells, _ = self._read(X, reset=True)
        samples = self._samples(cells)
        self.encoder_ = None
        if not samples:
            return self
        row, (first, *_) = samples[0]
        _check_kind(samples, first.dtype == np.uint8, f"row {row}")
        images = [image for _, images in samples for image in images]
        spec = image_spec([images[i] for i in some_of(len(images))], coarse=True)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would seed the user's GPUs too.
            torch.default_generator.manual_seed(seed)
            self.encoder_ = FrozenEncoder(spec, *self._network(), self.input_size, self.precision)
        return self

    def transform(self, X):
        """Send each cell through the backbone, or find what it made of it before.

        Parameters
        ----------
        X : {DataFrame, Series, array-like} of shape (n, 1) or (n,)
            One column of cells.

        Returns
        -------
        ndarray of shape (n, 1), dtype object
            Vectors, float32 of shape (d,); None where a cell is missing, SKIP where it
            is :data:`skfdan.table.SKIP`. With ``set_output(transform="pandas")`` a
            DataFrame of one column.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        TypeError
            If a cell holds no numbers; names the row.
        ValueError
            If a cell can't be used, or is of another kind than at ``fit``; names the row.
        """
        check_is_fitted(self)
        self._check_parameters()
        cells, _ = self._read(X, reset=False)
        out = np.empty((len(cells), 1), dtype=object)
        out[[cell is SKIP for cell in cells]] = SKIP
        samples = self._samples(cells)
        if samples and self.encoder_ is None:
            raise ValueError(
                f"{type(self).__name__}: row {samples[0][0]} holds a cell, but fit was given "
                "missing cells alone; fit it on some like this one."
            )
        if samples:
            _check_kind(samples, self.encoder_.inputs[_CELLS].spec.uint8, "fit was given")
        vectors = iter(self._embed([image for _, images in samples for image in images]))
        for row, images in samples:
            out[row, 0] = self._pool(np.stack([next(vectors) for _ in images]))
        return out

    def __getstate__(self) -> dict:
        """Return a state that a machine without a GPU can load."""
        state = super().__getstate__().copy()
        encoder = state.get("encoder_")
        if encoder is not None:
            state["encoder_"] = copy.deepcopy(encoder).to("cpu")
        return state

    def _network(self) -> tuple[str | Callable, str | os.PathLike | None]:
        """Return what make_backbone takes."""
        return self.backbone, self.weights

    def _pool(self, vectors: np.ndarray) -> np.ndarray:
        return _POOLS[self.frames](vectors)

    def _threads(self) -> AbstractContextManager:
        return one_thread() if self.backbone == "cnn" else all_threads()

    def _check_parameters(self) -> None:
        name = type(self).__name__
        check_numbers(self, "batch_size", whole=True)
        check_numbers(self, "input_size", whole=True, optional=True)
        for parameter in ("batch_size", "input_size"):
            value = getattr(self, parameter)
            if value is not None and value < 1:
                raise ValueError(f"{name}: {parameter}={value!r} must be at least 1.")
        for parameter, choices in self._choices.items():
            value = getattr(self, parameter)
            if not isinstance(value, str) or value not in choices:
                raise ValueError(
                    f"{name}: {parameter} must be {' or '.join(map(repr, choices))}; got {value!r}."
                )

    def _samples(self, cells: np.ndarray) -> list[tuple[int, list[np.ndarray]]]:
        """Return the row and the images, (C, H, W) each, of every cell that there is."""
        filled = [i for i, cell in enumerate(cells) if cell is not None and cell is not SKIP]
        return [(row, self._images(cells[row], row)) for row in filled]

    def _images(self, cell: Any, row: int) -> list[np.ndarray]:
        return _images(cell, f"{type(self).__name__}: row {row} ({describe_cell(cell)})")

    def _embed(self, images: list[np.ndarray]) -> list[np.ndarray]:
        from skfdan.utils.device import resolve_device

        if not images:
            return []
        device = resolve_device(self.device)
        context = embedding_context(self.encoder_, _CELLS, device)
        cache = None if self.cache_dir is None else FileCache(self.cache_dir)
        chunks = [images[i : i + _CHUNK] for i in range(0, len(images), _CHUNK)]
        vectors, lost = [], STORE.begin()
        with one_at_a_time(self.cache_dir, context):
            for chunk in progress_bar(
                chunks,
                total=len(chunks),
                desc=type(self).__name__,
                unit="chunk",
                verbose=self.verbose,
            ):
                vectors += embed_distinct(
                    chunk,
                    context,
                    lambda chosen, chunk=chunk: self._compute(chunk, chosen, device),
                    cache,
                    self.batch_size,
                )
        warn_of_full_store(self, sum(v.nbytes for v in vectors), lost, stacklevel=4)
        return vectors

    def _compute(self, images: list[np.ndarray], chosen: np.ndarray, device: str) -> np.ndarray:
        import torch

        x = torch.from_numpy(np.stack([images[i] for i in chosen]))
        features = run_backbone(self.encoder_, _CELLS, x, device, self._threads())
        if features.ndim != 2:
            raise ValueError(
                f"{type(self).__name__}: the backbone gives an array of shape "
                f"{features.shape[1:]} for a cell; it must give a vector."
            )
        return features


def _images(cell: Any, where: str) -> list[np.ndarray]:
    """Return the images of one cell, uint8 or float32 of shape (C, H, W)."""
    if isinstance(cell, (str, os.PathLike)):
        raise ValueError(
            f"{where} is a path. Put FaceFrames() or MelSpectrogram() before, for example "
            "make_pipeline(MelSpectrogram(), BackboneEmbedding())."
        )
    array = np.asarray(cell) if hasattr(cell, "__array__") else None
    if array is None or array.dtype.kind not in "biuf":
        raise TypeError(f"{where} holds no numbers; a cell is a face or a Mel spectrogram.")
    if not array.size:
        raise ValueError(f"{where} is empty.")
    if array.ndim == 1:
        raise ValueError(
            f"{where} is one-dimensional. A waveform needs MelSpectrogram() before; a vector "
            "needs no backbone."
        )
    uint8 = array.dtype == np.uint8
    if not uint8:
        # What float32 can't hold becomes infinite, and is refused as that.
        with np.errstate(over="ignore"):
            array = array.astype(np.float32, copy=False)
        if not np.isfinite(array).all():
            raise ValueError(f"{where} holds NaN or infinite values; remove or mend that clip.")
    if array.ndim == 4 and not uint8:
        raise ValueError(
            f"{where} holds several samples of floats, of which no single vector can be made. If "
            "they are altered copies, set augment=() of SpeechFeatures."
        )
    images = list(array) if array.ndim == 4 else [array[None] if array.ndim == 2 else array]
    if images[0].ndim != 3 or len(images[0]) not in (1, 3):
        last = array.ndim > 2 and array.shape[-1] in (1, 3)
        raise ValueError(
            f"{where} has the wrong shape; a face is (3, H, W), a clip's faces are "
            "(frames, 3, H, W), a Mel spectrogram is (n_mels, T)."
            + (" The channels are last: move them with numpy.moveaxis(X, -1, -3)." * last)
        )
    return images


def _check_kind(samples: list[tuple[int, list[np.ndarray]]], uint8: bool, known: str) -> None:
    """Refuse cells of another kind than what is ``known``, which is bytes or not."""
    for row, images in samples:
        if (images[0].dtype == np.uint8) != uint8:
            raise ValueError(
                f"BackboneEmbedding: row {row} holds {_kind(not uint8)}, but {known} "
                f"{_kind(uint8)}. Send all cells through the same transformer."
            )


def _kind(uint8: bool) -> str:
    return "bytes" if uint8 else "floats"
