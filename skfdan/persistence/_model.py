"""Saving a fitted model to a folder, and loading it."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sklearn.utils.validation import check_is_fitted

from skfdan.persistence._card import check_facts, collect_facts, model_card
from skfdan.persistence._folder import find_model, free_for, new_folder, put
from skfdan.persistence._format import (
    CARD,
    CONFIG,
    SCHEMA,
    VERSION,
    WEIGHTS,
    ModelError,
    check_keys,
    read_config,
    seal,
)

_LIBRARIES = ("numpy", "safetensors", "scikit-learn", "skorch", "torch", "torchvision")
_HUB = "hf://"
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+!_-]{0,39}", re.ASCII)


def save_pretrained(
    estimator,
    folder: str | os.PathLike,
    *,
    corpora: str | None = None,
    protocol: str | None = None,
    y_true=None,
    y_pred=None,
    overwrite: bool = False,
) -> Path:
    """Save a fitted classifier or pipeline to a folder that nothing can be executed from.

    The folder gets three files: ``config.json`` (classes, parameters, check sums),
    ``model.safetensors`` (weights and all other arrays) and ``README.md`` (a model card). It
    appears complete or not at all, and with ``overwrite`` the old model can be loaded until
    the new one can. A folder that is there and empty gets ``config.json`` last, without which
    it is no model.

    Parameters
    ----------
    estimator : estimator
        A fitted network classifier of skfdan, or a fitted ``Pipeline`` or
        ``ColumnTransformer`` of skfdan's transformers (of scikit-learn's,
        ``StandardScaler``, ``MinMaxScaler`` and ``SimpleImputer``), with such a classifier
        at its end or without. Of a search, save ``best_estimator_``.
    folder : path-like
        Where to. Folders above it are made.
    corpora : str or None, default=None
        What it was trained on, in words, for the model card.
    protocol : str or None, default=None
        How it was tested, in words, for the model card.
    y_true, y_pred : array-like of shape (n,) or None, default=None
        True and predicted labels of a test, for the scores in the model card.
    overwrite : bool, default=False
        Replace a model that is there already. A folder that holds anything else than a
        model is never touched.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    FileExistsError
        If the folder is not empty, unless it holds a model, nothing else, and ``overwrite``
        is true. The current folder can be filled, but not overwritten.
    NotFittedError
        If the estimator is not fitted. Transformers, which learn nothing, need no fit.
    TypeError
        If a step or a parameter can't be stored; the message names it.
    ValueError
        If ``y_true`` and ``y_pred`` do not fit each other.

    Warns
    -----
    UserWarning
        If ``weights`` is a file: it is stored as None.

    Notes
    -----
    Not stored: the optimiser's state (``partial_fit`` goes on with a new one), ``report_``,
    values of ``history_`` that are no numbers, metadata requests; and, as they belong to a
    machine or a session, ``cache_dir``, ``checkpoint_dir``, ``callbacks``, a pipeline's
    ``memory`` and a ``RandomState`` (None is stored instead). A function or class of your own
    as a parameter (``backbone=``, ``detector=``) can't be stored either; it has to be given
    again to :func:`load_pretrained`.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from skfdan import FDANClassifier
    >>> from skfdan.persistence import load_pretrained, save_pretrained
    >>> X, y = np.eye(4, dtype=np.float32), ["anger", "joy", "anger", "joy"]
    >>> clf = FDANClassifier(max_epochs=1, bottleneck=8, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     saved = save_pretrained(clf, f"{folder}/model", corpora="Four made-up rows.")
    ...     print(sorted(file.name for file in saved.iterdir()))
    ...     loaded = load_pretrained(saved)
    ['README.md', 'config.json', 'model.safetensors']
    >>> np.array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    True
    """
    from safetensors.torch import save_file

    from skfdan.persistence._writer import Writer

    folder = Path(folder)
    free_for(folder, overwrite)
    if hasattr(estimator, "fit"):
        check_is_fitted(estimator)
    writer = Writer()
    node = writer.estimator(estimator)
    facts = collect_facts(corpora, protocol, y_true, y_pred)
    # Clones: safetensors refuses two names for one memory.
    tensors = {k: t.detach().cpu().contiguous().clone() for k, t in writer.tensors.items()}
    with new_folder(folder) as temporary:
        weights = temporary / WEIGHTS
        save_file(tensors, weights, metadata={"format": "pt"})
        with open(weights, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        config = {
            "schema": SCHEMA,
            "version": VERSION,
            "skfdan": version("skfdan"),
            "libraries": {"python": platform.python_version()}
            | {name: version(name) for name in _LIBRARIES},
            "model": node,
            "facts": facts,
            "weights": {"sha256": digest, "size": weights.stat().st_size},
        }
        raw = seal(config)
        (temporary / CONFIG).write_bytes(raw)
        card = model_card(estimator, config, writer.omitted)
        (temporary / CARD).write_text(card, encoding="utf-8")
        # Better now than when the training is long gone.
        try:
            _read(temporary, writer.omitted, None)
        except ModelError as error:
            raise ValueError(
                f"The model can't be saved, as it could not be loaded: {error}"
            ) from error
        put(temporary, folder)
    return folder


def load_pretrained(folder: str | os.PathLike, **params) -> Any:
    """Load a fitted classifier or pipeline from a folder of :func:`save_pretrained`.

    Nothing in the folder is executed, no other file is opened, and nothing is downloaded.
    Every changed byte is noticed by check sums before anything is built; and since whoever
    makes a model can make its check sums too, everything else is checked as well: classes
    come from a fixed list, parameters are those of the constructor, tensors have the names,
    types and shapes of the network that the parameters describe, and no more memory is taken
    than the files have bytes, but for some 30 MiB.

    Parameters
    ----------
    folder : path-like or str
        The folder, or ``"hf://user/model"`` for one on the Hugging Face Hub; see
        :func:`skfdan.persistence.load_from_hub`, whose ``revision``, ``token`` and
        ``cache_dir`` are taken then.
    **params : dict
        Parameters in the place of the stored ones, such as ``device="cpu"``; those of a
        pipeline with scikit-learn's double-underscore names, such as
        ``faceframes__detector=find_face``. Functions that the model had have to be given.

    Returns
    -------
    estimator
        What was saved. Its predictions are the same to the last bit on the same machine and
        library versions; ``partial_fit`` goes on with a new optimiser. A classifier that was
        saved with ``device="cuda"`` gets ``device="auto"`` where there is no such device.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ModelError
        If the folder holds no model, one that was altered or damaged, one of a later format,
        or one that lacks parameters that could not be stored.
    TypeError
        If ``params`` names a parameter that the model does not have.

    Examples
    --------
    See :func:`save_pretrained`.
    """
    return load(folder, params)


def load(folder: str | os.PathLike, params: dict[str, Any], expected: type | None = None) -> Any:
    """Load a model, of the class ``expected`` if that is given."""
    if isinstance(folder, str) and folder.startswith(_HUB):
        from skfdan.persistence import load_from_hub

        estimator = load_from_hub(folder.removeprefix(_HUB), **params)
        if expected is not None and not isinstance(estimator, expected):
            raise ModelError(f"{folder!r} was refused: {_other(type(estimator), expected)}.")
        return estimator
    folder = Path(folder)
    found = find_model(folder)
    try:
        estimator, unused = _read(found, params, expected)
    except ModelError as error:
        raise ModelError(f"{str(folder)!r} was refused: {str(error).rstrip('.')}.") from error
    if unused:
        raise TypeError(f"The model in {str(folder)!r} has no parameter {min(unused)!r}.")
    return estimator


def _read(folder: Path, params: dict[str, Any], expected: type | None) -> tuple[Any, set[str]]:
    from skfdan.persistence._known import known_classes
    from skfdan.persistence._reader import Reader
    from skfdan.persistence._tensorfile import TensorFile

    config = read_config(folder / CONFIG)
    weights = config["weights"]
    check_keys(weights, ("sha256", "size"), "weights")
    check_keys(config["libraries"], ("python", *_LIBRARIES), "libraries")
    for name, text in config["libraries"].items():
        if not isinstance(text, str) or not _VERSION.fullmatch(text):
            raise ModelError(f"it was saved with {name} {text!r:.60}")
    check_facts(config["facts"])
    if expected is not None:
        name = config["model"].get("class") if isinstance(config["model"], dict) else None
        cls = known_classes().get(name) if isinstance(name, str) else None
        if cls is not None and not issubclass(cls, expected):
            raise ModelError(_other(cls, expected))
    with TensorFile(folder / WEIGHTS, weights["size"], weights["sha256"]) as file:
        reader = Reader(file, params)
        try:
            estimator = reader.estimator(config["model"])
        except (ModelError, ImportError):
            raise
        except Exception as error:
            # Constructors and networks refuse in their own words what no fit would have given.
            raise ModelError(f"{type(error).__name__}: {error!s:.300}") from error
        file.check_empty()
    return estimator, reader.unused


def _other(found: type, expected: type) -> str:
    return (
        f"it holds a {found.__name__} and no {expected.__name__}; use skfdan.persistence."
        "load_pretrained, which loads both"
    )
