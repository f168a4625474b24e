"""The numbers that publications report, each with its source, split and known problems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

__all__ = ["load_published_results"]

#: Beside this file in an installed package, among the benchmarks in a checkout.
_PLACES = (
    Path(__file__).with_name("published.csv"),
    Path(__file__).parents[2] / "benchmarks" / "published.csv",
)


def load_published_results(
    paper: str | None = None, table: int | None = None, corpus: str | None = None
) -> pd.DataFrame:
    r"""Load every number of the result tables of three publications, one number a row.

    These are Tables 1-4 of FDAN, Tables 1-6 of WavFusion and Tables 1-2 of FDRL, as printed.
    Read ``split`` and ``caveat`` before you compare: several numbers are of another protocol
    than their table, or do not fit the test set that their publication describes.

    Parameters
    ----------
    paper : {"FDAN", "WavFusion", "FDRL"} or None, default=None
        Keep the tables of one publication; None keeps all.
    table : int or None, default=None
        Keep the tables of this number.
    corpus : {"SAVEE", "MELD", "IEMOCAP"} or None, default=None
        Keep the results on one corpus.

    Returns
    -------
    DataFrame of shape (n_numbers, 13)
        paper, table
            Where the number is printed.
        row
            The system or setting as printed, without the mark of its reference. "Ours" is
            the publication's own system; rows of WavFusion's Table 6 are named by method and
            shallow+deep layers.
        skfdan
            The system's name in this toolkit, empty if it has none.
        modalities
            What the system reads, joined by ``+``; FDAN reads voices alone when tested.
        corpus, task
            The corpus, and what is classified. ``SAVEE{S_v,M_v,S_a}`` is FDAN's notation of
            Table 3 for the samples that take part, by corpus and modality; it is used for
            all tables of FDAN here, and continued with ``_t`` for text.
        split
            How test samples were chosen, as far as known.
        metric, value
            WAR, UAR, wF1, ACC or WF1 as named in the table, in percent (float).
        source
            "own run" of the publication, or the publication that the number is quoted from.
        caveat
            What is known to be wrong with the number or its comparison.
        available
            "yes" if skfdan has the system, "not yet" if it could, or "no: " and why not.

    Raises
    ------
    ValueError
        If nothing is known by the given name or number; the message lists what is.

    References
    ----------
    S. Li, Y. Ji, P. Song, H. Sun and W. Zheng, "Multi-modal Speech Emotion Recognition via
    Feature Distribution Adaptation Network".

    F. Li, J. Luo and W. Xia, "WavFusion: Towards wav2vec 2.0 Multimodal Speech Emotion
    Recognition".

    "Fine-grained Disentangled Representation Learning for Multimodal Emotion Recognition",
    arXiv:2312.13567.

    Examples
    --------
    >>> from skfdan.datasets import load_published_results
    >>> results = load_published_results("FDAN", table=1)
    >>> results.pivot(index="row", columns="metric", values="value").loc["Ours"].to_dict()
    {'UAR': 86.19, 'WAR': 86.66, 'wF1': 86.96}
    >>> print(results.query("row == 'Ours' and metric == 'WAR'")["caveat"].item())
    fits no k/96, but 416/480 truncated; ...
    """
    path = next((place for place in _PLACES if place.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"The published results are at none of {[str(p) for p in _PLACES]}; install skfdan "
            "anew, or restore benchmarks/published.csv in the checkout."
        )
    # Only `value` may be a number: an empty `skfdan` is an empty string, not a NaN.
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    frame = frame.astype({"table": int, "value": float})
    for column, wanted in (("paper", paper), ("table", table), ("corpus", corpus)):
        if wanted is not None:
            frame = _keep(frame, column, wanted)
    return frame.reset_index(drop=True)


def _keep(frame: pd.DataFrame, column: str, wanted: Any) -> pd.DataFrame:
    kept = frame[frame[column] == wanted]
    if kept.empty:
        raise ValueError(
            f"load_published_results: there is no {column}={wanted!r} among the results asked "
            f"for; known are {frame[column].unique().tolist()}."
        )
    return kept
