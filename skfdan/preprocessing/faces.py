"""Face crops of videos, frame folders, pictures and arrays."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from skfdan.utils.identity import code_identity

from ._base import CellTransformer, Recipe, check_numbers
from ._failures import Failure, describe_cell
from .media import MediaError, is_picture, read_frames, read_image, sample_indices

__all__ = ["FaceFrames", "crop_square"]

Box = tuple[float, float, float, float]

# Detection runs on a reduced picture, of about 320 pixels on the longer side, for faces
# of at least 1/5 of that side, and only if nothing is found, of at least 1/8, then, on
# one of about 640 pixels, of at least 1/16. Small windows are what costs time, and the
# reduced picture is no less sure: the cascade sums in single precision, which at full
# resolution runs out of digits.
_ROUNDS = ((320, 5), (320, 8), (640, 16))

_LOCAL = threading.local()


def crop_square(image: np.ndarray, box: Box, size: int, margin: float = 0.0) -> np.ndarray:
    """Cut a square around a box and bring it to a size.

    Parameters
    ----------
    image : ndarray of shape (H, W, 3), dtype uint8
        RGB picture.
    box : tuple (x, y, width, height)
        In pixels from the upper left corner.
    size : int
        Side of the result in pixels.
    margin : float, default=0.0
        Added on every side, as a fraction of the longer side of the box.

    Returns
    -------
    ndarray of shape (3, size, size), dtype uint8
        What lies beyond the border repeats the border.

    Examples
    --------
    >>> image = np.zeros((20, 40, 3), np.uint8)
    >>> crop_square(image, (30, 0, 20, 20), size=8).shape
    (3, 8, 8)
    """
    from PIL import Image

    height, width = image.shape[:2]
    x, y, w, h = box
    side = max(1, round(max(w, h) * (1 + 2 * margin)))
    left, top = round(x + w / 2 - side / 2), round(y + h / 2 - side / 2)
    patch = image[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)]
    if not patch.size:
        raise ValueError(f"the box {box} lies outside the picture of {width} x {height} pixels")
    if patch.shape[:2] != (side, side):
        beyond = (
            (max(-top, 0), max(top + side - height, 0)),
            (max(-left, 0), max(left + side - width, 0)),
            (0, 0),
        )
        patch = np.pad(patch, beyond, mode="edge")
    picture = Image.fromarray(np.ascontiguousarray(patch))
    # Pillow widens its filter when it reduces, so nothing is aliased.
    resized = picture.resize((size, size), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))


def _central_square(image: np.ndarray) -> Box:
    height, width = image.shape[:2]
    side = min(height, width)
    return (width - side) / 2, (height - side) / 2, side, side


def _best_box(boxes: Any, image: np.ndarray) -> Box | None:
    """Choose the largest box, a central one rather than one at the border."""
    if boxes is None or not np.size(boxes):
        return None
    boxes = np.atleast_2d(np.asarray(boxes, dtype=float))
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not (boxes[:, 2:] > 0).all():
        raise ValueError(
            "a detector must return (x, y, width, height), several of them, or None; got "
            f"{boxes.tolist()}"
        )
    height, width = image.shape[:2]
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    away = np.hypot(*(centres / (width, height) - 0.5).T) / np.sqrt(0.5)
    best = np.argmax(boxes[:, 2] * boxes[:, 3] * (1 - 0.75 * away))
    return tuple(float(v) for v in boxes[best])


def _lbp_boxes(grey: np.ndarray, min_size: int) -> list[Box]:
    if not hasattr(_LOCAL, "lbp"):
        from skimage.data import lbp_frontal_face_cascade_filename
        from skimage.feature import Cascade

        _LOCAL.lbp = Cascade(lbp_frontal_face_cascade_filename())
    found = _LOCAL.lbp.detect_multi_scale(
        grey,
        scale_factor=1.2,
        step_ratio=1,
        min_size=(min_size, min_size),
        max_size=(min(grey.shape) + 1,) * 2,
    )
    return [(f["c"], f["r"], f["width"], f["height"]) for f in found]


def _haar_boxes(grey: np.ndarray, min_size: int) -> list[Box]:
    if not hasattr(_LOCAL, "haar"):  # one a thread: OpenCV's keeps its buffers
        cv2 = _import_opencv4()
        _LOCAL.haar = cv2.CascadeClassifier(
            os.path.join(cv2.data.haarcascades, "haarcascade_frontalface_default.xml")
        )
    return _LOCAL.haar.detectMultiScale(
        grey, scaleFactor=1.2, minNeighbors=5, minSize=(min_size, min_size)
    )


def _import_opencv4() -> Any:
    remedy = (
        'FaceFrames(detector="haar") needs OpenCV 4: pip install "skfdan[opencv]". '
        'Without it, detector="lbp" works.'
    )
    try:
        import cv2
    except ImportError as error:
        raise ImportError(remedy) from error
    if not hasattr(cv2, "CascadeClassifier"):
        raise ImportError(f"{remedy} OpenCV {cv2.__version__} is here, which has no Haar cascades.")
    return cv2


def _detect(boxes_of: Callable[[np.ndarray, int], Any], image: np.ndarray) -> list[Box]:
    """Find boxes on a reduced grey picture and scale them back."""
    from PIL import Image

    picture = Image.fromarray(image)
    rounds = []
    for longer_side, fraction in _ROUNDS:
        factor = max(1, round(max(picture.size) / longer_side))
        rounds.append((factor, max(24, -(-max(picture.size) // factor) // fraction)))
    grey, last = np.empty(0), 0
    for factor, min_size in dict.fromkeys(rounds):  # of a small picture, they are all alike
        if factor != last:
            grey, last = np.asarray(picture.reduce(factor).convert("L")), factor
        boxes = boxes_of(grey, min_size)
        if len(boxes):
            return [tuple(factor * v for v in box) for box in boxes]
    return []


def _detector_identity(detector: Any) -> str | None:
    """Name a detector for the cache; refuse one that has no lasting name."""
    if detector is None or isinstance(detector, str):
        return detector
    name = getattr(detector, "__qualname__", type(detector).__qualname__)
    identity = None if "<" in name else code_identity(detector)
    if identity is None:
        raise ValueError(
            f"FaceFrames: results of detector={name} cannot be cached, as nothing tells it "
            "from another such function in the next session. Define it with def at the top "
            "of a module, or set cache_dir=None."
        )
    return identity


class FaceFrames(CellTransformer):
    """Square face crops of videos, frame folders, pictures or picture arrays.

    A few frames are spread evenly over a clip, a face is found in each, and a
    square around it is cut out and resized. Only what these frames depend on is
    decoded. Nothing is learned: a row's result depends on that row alone, and
    ``transform`` works without ``fit``.

    Parameters
    ----------
    n_frames : int, default=3
        Frames of a clip, V1 to Vn: each the middle of one of n equal parts. A
        clip with fewer frames repeats some.
    size : int, default=112
        Side of a crop in pixels.
    detector : {"lbp", "haar"}, callable or None, default="lbp"
        What finds faces. "lbp" is the frontal-face cascade of local binary
        patterns that comes with scikit-image; "haar" is OpenCV 4's Haar cascade
        (``pip install "skfdan[opencv]"``). A callable is given an RGB picture,
        uint8 of shape (H, W, 3), and returns a box ``(x, y, width, height)`` in
        pixels, an array of such boxes, or None. None looks for no face and
        takes the largest central square, for clips that are cropped already.
    margin : float, default=0.1
        Added to the box on every side, as a fraction of its longer side.
    on_no_face : {"missing", "raise", "center"}, default="missing"
        What to do with a clip in none of whose frames a face is found: leave
        its cell missing and warn once for all rows, raise, or take the central
        square.
    n_jobs : int or None, default=None
        Files decoded at the same time; None is 1 unless
        ``joblib.parallel_config`` says otherwise, -1 is one a processor.
    cache_dir : path-like or None, default=None
        Folder in which results are kept, per file, and found again by any
        process as long as file and parameters stay the same. A callable
        detector counts by its name and source text, or by what it holds; not by
        other functions it calls.
    on_error : {"raise", "missing", "skip"}, default="raise"
        What to do about a cell that cannot be used: raise an error that names
        it, leave it missing (None), or mark it with ``skfdan.table.SKIP``, by
        which the classifiers leave its whole row out of the training. What is
        not raised is listed in ``report_`` and summarised in one warning.
    timeout : float, "auto" or None, default="auto"
        Seconds that one file may take. With a limit, files are decoded in
        worker processes, so that one that hangs or crashes its decoder is an
        error like any other; None decodes in threads of this process. "auto" is
        60 s with ``on_error`` other than "raise" or for 100 files or more, and
        None otherwise. Arrays are always handled in threads.
    limits : DecodeLimits or None, default=None
        Bounds on what is decoded from one file, so that none takes up all
        memory; None is ``DecodeLimits()``, which refuses sound of over 10 min.
    verbose : int, default=1
        0 shows no progress bar; others show one in a terminal or notebook.

    Attributes
    ----------
    n_features_in_ : int
        Columns of X at ``fit``, which is 1.
    feature_names_in_ : ndarray of shape (1,)
        Column name of X at ``fit``; only if it is a string.
    input_is_cells_ : bool
        True.
    report_ : DataFrame with the columns row, file, stage and reason
        Cells of the last transform that could not be used, and those without a
        face; see :class:`MediaError` for the stages, besides which there are
        "memory" and "error" (any other exception, of a detector for instance).

    See Also
    --------
    MelSpectrogram : The sound of the same clips.

    Notes
    -----
    A cell is a video file, a folder of pictures, a picture file, an array, or
    missing; a missing cell gives None. Arrays are uint8: one picture of shape
    (H, W), (H, W, 1 or 3) or (1 or 3, H, W), or frames of shape
    (frames, H, W, 1 or 3) or (frames, 1 or 3, H, W). One picture gives a crop of
    shape (3, size, size), everything else (n_frames, 3, size, size).

    Of several faces the largest counts, one in the middle more than one at the
    border. A frame without a face takes the box of the nearest frame that has
    one.

    References
    ----------
    .. [1] Liao, S. et al. (2007). Learning multi-scale block local binary
       patterns for face recognition. Advances in Biometrics, 828-837.
    .. [2] Viola, P. and Jones, M. (2001). Rapid object detection using a boosted
       cascade of simple features. CVPR 2001.

    Examples
    --------
    >>> import numpy as np
    >>> from skfdan.preprocessing import FaceFrames
    >>> clip = np.zeros((25, 120, 160, 3), np.uint8)
    >>> faces = FaceFrames(detector=None, size=32).fit_transform([clip, None, clip[0]])
    >>> faces[0, 0].shape, faces[1, 0], faces[2, 0].shape
    ((3, 3, 32, 32), None, (3, 32, 32))
    """

    _unit = "clip"
    _accepts = "paths of videos, frame folders or pictures, or uint8 arrays"
    _usual = "visual"

    def __init__(
        self,
        *,
        n_frames=3,
        size=112,
        detector="lbp",
        margin=0.1,
        on_no_face="missing",
        n_jobs=None,
        cache_dir=None,
        on_error="raise",
        timeout="auto",
        limits=None,
        verbose=1,
    ):
        self.n_frames = n_frames
        self.size = size
        self.detector = detector
        self.margin = margin
        self.on_no_face = on_no_face
        self.n_jobs = n_jobs
        self.cache_dir = cache_dir
        self.on_error = on_error
        self.timeout = timeout
        self.limits = limits
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        return tags

    def _check_parameters(self) -> None:
        check_numbers(self, "n_frames", "size", whole=True)
        check_numbers(self, "margin")
        for parameter in ("n_frames", "size"):
            if not getattr(self, parameter) >= 1:
                raise ValueError(
                    f"FaceFrames: {parameter}={getattr(self, parameter)!r} must be at least 1."
                )
        if not self.margin > -0.5:
            raise ValueError(
                f"FaceFrames: margin={self.margin!r} leaves nothing; it must exceed -0.5."
            )
        if self.on_no_face not in ("missing", "raise", "center"):
            raise ValueError(
                'FaceFrames: on_no_face must be "missing", "raise" or "center"; got '
                f"{self.on_no_face!r}."
            )
        if not (self.detector in ("lbp", "haar", None) or callable(self.detector)):
            raise ValueError(
                'FaceFrames: detector must be "lbp", "haar", a callable or None; got '
                f"{self.detector!r}."
            )
        if self.detector == "haar":
            _import_opencv4()

    def _recipe(self, training: bool) -> Recipe:
        parameters = {
            "n_frames": self.n_frames,
            "size": self.size,
            "margin": float(self.margin),
            "center": self.on_no_face == "center",
        }
        if self.cache_dir is not None:
            parameters["detector"] = _detector_identity(self.detector)
        return Recipe("FaceFrames/2", parameters, self._crops, self._judge)

    def _judge(self, crops: np.ndarray | None, cell: Any, draw: float | None) -> np.ndarray | None:
        if crops is None and self.on_no_face == "raise":
            raise MediaError(
                describe_cell(cell),
                "no face was found; give another detector, leave the clip out, or set "
                'on_no_face="missing" or "center"',
                stage="no face",
            )
        return crops

    def _report(
        self, cells: np.ndarray, results: np.ndarray, failures: list[Failure]
    ) -> list[Failure]:
        failed = {failure.row for failure in failures}
        rows = [
            row
            for row, (cell, result) in enumerate(zip(cells, results, strict=True))
            if cell is not None and result is None and row not in failed
        ]
        if not rows:
            return []
        named = ", ".join(f"row {row} ({describe_cell(cells[row])})" for row in rows[:3])
        more = "" if len(rows) <= 3 else f" and {len(rows) - 3} more"
        warnings.warn(
            f"FaceFrames: no face was found in {len(rows)} of {len(cells)} rows, whose cells are "
            f"now missing: {named}{more}.",
            UserWarning,
            stacklevel=5,  # the caller of transform, beyond scikit-learn's wrapper
        )
        return [
            Failure.of(MediaError("", "no face was found", stage="no face"), row, cells[row])
            for row in rows
        ]

    def _warm_up(self) -> None:
        import av  # noqa: F401
        import PIL.Image  # noqa: F401

        if isinstance(self.detector, str):
            self._find(np.zeros((64, 64, 3), np.uint8))

    def _find(self, image: np.ndarray) -> Box | None:
        if callable(self.detector):
            return _best_box(self.detector(image), image)
        boxes_of = {"lbp": _lbp_boxes, "haar": _haar_boxes}[self.detector]
        return _best_box(_detect(boxes_of, image), image)

    def _crops(self, cell: Any) -> np.ndarray | None:
        """Crop one cell; None if no face is found and that is to be missing."""
        frames, is_clip = self._frames(cell)
        boxes = [None] * len(frames) if self.detector is None else list(map(self._find, frames))
        found = [i for i, box in enumerate(boxes) if box is not None]
        if found:
            boxes = [boxes[min(found, key=lambda j: abs(j - i))] for i in range(len(frames))]
            crops = [
                crop_square(frame, box, self.size, self.margin)
                for frame, box in zip(frames, boxes, strict=True)
            ]
        elif self.detector is None or self.on_no_face == "center":
            crops = [crop_square(frame, _central_square(frame), self.size) for frame in frames]
        else:
            return None
        return np.stack(crops) if is_clip else crops[0]

    def _frames(self, cell: Any) -> tuple[list[np.ndarray], bool]:
        """Return the frames to crop as (H, W, 3) and whether they come from a clip."""
        if isinstance(cell, (str, os.PathLike)):
            if os.path.isdir(cell) or not is_picture(cell, limits=self.limits):
                return read_frames(cell, self.n_frames, limits=self.limits), True
            return [read_image(cell, limits=self.limits)], False
        source = describe_cell(cell)
        array = np.asarray(cell) if hasattr(cell, "__array__") else None
        if array is None or array.dtype != np.uint8:
            raise MediaError(
                source,
                f"is no picture; a cell is one of {self._accepts}. Turn floats between 0 and 1 "
                "into (255 * x).round().astype(np.uint8)",
            )
        if array.ndim == 2:
            array = array[..., None]
        if array.ndim not in (3, 4) or not array.size:
            raise MediaError(source, "has not the shape of a picture or of a stack of frames")
        is_clip = array.ndim == 4
        last, first = array.shape[-1] in (1, 3), array.shape[-3] in (1, 3)
        if last == first:
            raise MediaError(
                source,
                "could have its channels first or last; use a larger picture"
                if last
                else "has no axis of 1 or 3 channels where one is needed: (H, W, 3), (3, H, W), "
                "(frames, H, W, 3) or (frames, 3, H, W)",
            )
        stack = array if is_clip else array[None]
        if is_clip:
            stack = stack[sample_indices(len(stack), self.n_frames)]
        if first:
            stack = np.moveaxis(stack, -3, -1)
        stack = np.broadcast_to(stack, (*stack.shape[:-1], 3))
        return [np.ascontiguousarray(frame) for frame in stack], is_clip
