"""FER2013: face images collected from the web, no voice."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from ..table import as_cells
from ._base import (
    IMAGE_SUFFIXES,
    Report,
    canonical_emotion,
    check_found,
    check_root,
    index_takes,
    make_bunch,
    read_csv,
)

#: In the order of the csv file's numbers.
LABELS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
#: Part of the corpus, by the names that csv files and folders give it.
SPLITS = {
    "training": "train",
    "train": "train",
    "publictest": "public_test",
    "privatetest": "private_test",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
SIZE = 48

SCHEME = "the FER2013 image folders, e.g. train/angry/1.jpg"

DESCR = """\
Facial Expression Recognition 2013 (FER2013)
============================================
35,887 grey face images of 48 x 48 pixels from a web search, labelled with seven emotions:
28,709 of training, 3,589 of the public and 3,589 of the private test. No voice: the audio
column is missing.

Reference: I. J. Goodfellow et al., "Challenges in Representation Learning: A Report on
Three Machine Learning Contests", Proc. ICONIP, 2013.
Source: the Kaggle contest "Challenges in Representation Learning: Facial Expression
Recognition Challenge". For research; the images' own licences are unknown.

Forms: fer2013.csv (columns emotion, pixels, Usage; emotion 0 angry, 1 disgust, 2 fear,
3 happy, 4 sad, 5 surprise, 6 neutral); an npz file with the arrays images (n, 48, 48) uint8,
labels (numbers of classes), classes and split; or image folders train/angry, test/angry and
so on. Names here: anger, disgust, fear, happiness, sadness, surprise, neutral.

Visual cells are arrays (48, 48) uint8 from a csv or npz file, and paths from folders. The
frame's column `split` is train, public_test or private_test after the csv file's Usage;
image folders know train and test only. The clip id is the row number, or the image's path.

Groups: who is on an image is not known, so every image is a group of its own, and no split
of this corpus can be called person-independent.

Known defects: labels are noisy (people agree with them in about two images of three), some
images are not faces, and the same image can be there several times, in different parts and
even with different labels. From a csv or npz file, the frame's column `duplicate_of` holds
the clip id of the first image with exactly the same pixels; drop those rows before a split.
"""


def _error(path: Path, row: int, problem: str) -> ValueError:
    return ValueError(f"FER2013: data row {row + 1} of {str(path)!r} {problem}")


def _array_rows(path: Path, images: np.ndarray, codes: Any, names: Any, split: Any):
    """Rows of a csv or npz file, whose images are at hand."""
    if not len(images):
        raise ValueError(f"FER2013: {str(path)!r} holds no image.")
    codes = pd.to_numeric(pd.Series(codes), errors="coerce").to_numpy(dtype=float)
    wrong = ~np.isin(codes, np.arange(len(names)))
    if wrong.any():
        row = int(wrong.argmax())
        raise _error(path, row, f"has no label in 0 to {len(names) - 1}.")
    parts = pd.Series(split).astype(object).map(lambda part: SPLITS.get(str(part).lower()))
    if parts.isna().any():
        row = int(parts.isna().argmax())
        raise _error(path, row, f"belongs to no part of {sorted(SPLITS)}.")
    clips = pd.Series([f"{i:05d}" for i in range(len(images))])
    pixels = pd.Series([image.tobytes() for image in images])
    first = clips.groupby(pixels).transform("first")
    return pd.DataFrame(
        {
            "clip": clips,
            "visual": as_cells(images),
            "audio": None,
            "emotion": np.asarray(names)[codes.astype(int)],
            "split": parts,
            "duplicate_of": first.astype(object).where(pixels.duplicated(), None),
        }
    )


def _csv_rows(path: Path) -> pd.DataFrame:
    frame = read_csv(path, ["emotion", "pixels", "Usage"], "FER2013")
    images = np.empty((len(frame), SIZE, SIZE), dtype=np.uint8)
    for i, pixels in enumerate(frame["pixels"]):
        try:
            # bytes() accepts 0 to 255 only.
            values = bytes(map(int, str(pixels).split()))
            images[i] = np.frombuffer(values, np.uint8).reshape(SIZE, SIZE)
        except ValueError as error:
            raise _error(
                path, i, f"does not hold {SIZE * SIZE} whole numbers of 0 to 255 as its pixels."
            ) from error
    return _array_rows(path, images, frame["emotion"], LABELS, frame["Usage"])


def _npz_rows(path: Path) -> pd.DataFrame:
    with open(path, "rb") as file:  # which np.load would leave open where it fails
        try:
            arrays = np.load(file, allow_pickle=False)
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"FER2013: {str(path)!r} is no npz file, or is damaged; copy or download it again."
            ) from error
        missing = {"images", "labels", "classes", "split"} - set(arrays)
        if missing:
            raise ValueError(
                f"FER2013: {str(path)!r} lacks the array(s) {sorted(missing)}; it has "
                f"{sorted(arrays)}."
            )
        images, labels = arrays["images"], arrays["labels"]
        names = [canonical_emotion(str(name)) for name in arrays["classes"]]
        split = arrays["split"]
    if images.dtype != np.uint8 or images.shape != (len(labels), SIZE, SIZE):
        raise ValueError(
            f"FER2013: the array images of {str(path)!r} is {images.dtype} of shape "
            f"{images.shape}; it must be uint8 of shape ({len(labels)}, {SIZE}, {SIZE})."
        )
    if not set(names) <= set(LABELS):
        raise ValueError(
            f"FER2013: the array classes of {str(path)!r} has {sorted(set(names) - set(LABELS))}; "
            f"the corpus's emotions are {sorted(LABELS)}."
        )
    return _array_rows(path, images, labels, names, split)


def _parse(path: PurePosixPath, root: Path) -> tuple[str, str, dict[str, Any]] | str:
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return "not an image"
    # The folder that is passed may be that of one part.
    folder = (root / path).parent
    emotion = canonical_emotion(folder.name)
    if emotion not in LABELS:
        return f"its folder {folder.name!r} is no emotion of {sorted(LABELS)}"
    part = SPLITS.get(folder.parent.name.lower())
    return path.with_suffix("").as_posix(), "image", {"emotion": emotion, "split": part}


def _holds_pixels(path: Path) -> bool:
    with open(path, encoding="utf-8", errors="replace") as file:
        return "pixels" in file.readline().lower()


def _find(root: str | os.PathLike) -> Path:
    """Return the csv or npz file, or the folder if it is a tree of images."""
    path = Path(root).expanduser()
    if path.is_file():
        if path.suffix.lower() not in (".csv", ".npz"):
            raise ValueError(f"FER2013: {str(path)!r} is neither a csv nor an npz file.")
        return path
    path = check_root(path, "FER2013")
    entries = [p for p in path.iterdir() if not p.name.startswith(".")]
    files = sorted(p for p in entries if p.suffix.lower() in (".csv", ".npz"))
    if any(canonical_emotion(p.name) in LABELS or p.name.lower() in SPLITS for p in entries):
        # Beside a tree of images, a csv file may be a list of something else.
        files = [p for p in files if p.suffix.lower() == ".npz" or _holds_pixels(p)]
    if len(files) > 1:
        raise ValueError(
            f"FER2013: {str(path)!r} holds several files, {[p.name for p in files]}. Pass the "
            "path of the one to load."
        )
    return files[0] if files else path


def load_fer2013(
    root: str | os.PathLike,
    *,
    emotions: Iterable[str] | Mapping[str, str | None] | None = None,
) -> Bunch:
    """Load FER2013 from its csv file, an npz file or image folders, one row an image.

    Parameters
    ----------
    root : path-like
        The csv file (columns emotion, pixels, Usage), an npz file (arrays images of shape
        (n, 48, 48) uint8, labels, classes, split), a folder that holds one such file, or a
        folder of images such as ``train/angry/1.jpg``.
    emotions : list of str, dict of str to (str or None), or None, default=None
        None keeps all. A list keeps those emotions. A dict renames emotions, drops those
        whose value is None and keeps the others.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        table : DataFrame of shape (n_images, 2)
            Modality table; visual cells are arrays (48, 48) uint8 from a csv or npz file
            and paths from folders; audio cells are None.
        target : ndarray of shape (n_images,)
            Emotion names.
        groups : ndarray of shape (n_images,)
            An id of each image, because people are not known.
        speakers_known : bool
            Whether the groups are speakers, which they are not here.
        frame : DataFrame of shape (n_images, 5) or (n_images, 6)
            clip, corpus, speaker, emotion, split; from a csv or npz file also duplicate_of.
        report : DataFrame
            file, stage and reason of everything left out.
        DESCR : str
            The corpus, its forms, labels and defects.

    Raises
    ------
    FileNotFoundError
        If the path does not exist or the folder holds no image of an emotion.
    ValueError
        If a column or array is missing, a row has bad pixels, a label or part that does not
        exist, an emotion is unknown or nothing is left.

    References
    ----------
    I. J. Goodfellow et al., "Challenges in Representation Learning: A Report on Three
    Machine Learning Contests", Proc. ICONIP, 2013.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from skfdan.datasets import load_fer2013
    >>> with tempfile.TemporaryDirectory() as root:
    ...     np.savez(Path(root, "fer2013.npz"), images=np.zeros((2, 48, 48), np.uint8),
    ...              labels=[0, 1], classes=["angry", "happy"], split=["Training", "PublicTest"])
    ...     data = load_fer2013(root)
    >>> data.target.tolist(), data.frame["split"].tolist(), data.table["visual"][0].shape
    (['anger', 'happiness'], ['train', 'public_test'], (48, 48))
    """
    path = _find(root)
    report = Report()
    if path.suffix.lower() == ".csv" and path.is_file():
        rows = _csv_rows(path)
    elif path.suffix.lower() == ".npz" and path.is_file():
        rows = _npz_rows(path)
    else:
        parse = partial(_parse, root=path.absolute())
        rows = index_takes(path, parse, report, corpus="FER2013", visual=("image",), audio=())
    check_found(rows, path, report, SCHEME)
    return make_bunch(
        rows.assign(speaker="fer2013-" + rows["clip"]),
        root=path,
        corpus="fer2013",
        labels=LABELS,
        emotions=emotions,
        report=report,
        descr=DESCR,
        speakers_known=False,
    )
