"""The paper's Figures 4 and 5, of what was run here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _cells import read_cell
from _plan import Line

#: Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = (
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#000000",
    "#0072B2",
    "#56B4E9",
    "#F0E442",
    "#999999",
)
#: Of a face, a voice and a class; the next ones where the colours begin anew.
MARKERS = (("+", "o", "s"), ("x", "D", "D"), ("1", "^", "^"))


def _styles(classes) -> dict[str, tuple[str, tuple[str, str, str]]]:
    """Give every class a colour, and markers."""
    n = len(COLOURS)
    return {c: (COLOURS[i % n], MARKERS[i // n % len(MARKERS)]) for i, c in enumerate(classes)}


def _axes(n: int, size: float):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, n, figsize=(size * n, size * 0.95), layout="constrained", squeeze=False
    )
    return plt, figure, axes[0]


def confusion(line: Line, protocols: list[str], corpus: str, path: Path, out: Path) -> bool:
    """Draw one row-normalised confusion matrix a protocol; False if nothing was run."""
    matrices = {}
    for protocol in protocols:
        records = [read_cell(cell, out) for cell in line.cells.get(protocol, [])]
        records = [record for record in records if record]
        if records:
            matrices[protocol] = _matrix(records, line.row.variant), len(records)
    if not matrices:
        return False
    plt, figure, axes = _axes(len(matrices), 5.2)
    for axis, (protocol, ((true, heard, matrix), n)) in zip(axes, matrices.items(), strict=True):
        share = matrix / matrix.sum(1, keepdims=True)
        image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for i, j in np.ndindex(*share.shape):
            colour = "white" if share[i, j] > 0.5 else "black"
            axis.text(j, i, f"{share[i, j]:.2f}", ha="center", va="center", color=colour, size=8)
        axis.set_xticks(range(len(heard)), heard, rotation=45, ha="right")
        axis.set_yticks(range(len(true)), true)
        axis.set_xlabel("predicted")
        axis.set_ylabel("true")
        uar = share[range(len(true)), np.searchsorted(heard, true)].mean()
        # Of the matrix that is shown, and so not the mean over runs that the tables have.
        title = f"{protocol} protocol, UAR {100 * uar:.1f} % of {n} runs pooled"
        axis.set_title(title, size=10)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true emotion")
    figure.suptitle(f"{line.name} on {corpus}: what was heard as what", size=12)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return True


def _matrix(records: list[dict], variant: str) -> tuple[list[str], list[str], np.ndarray]:
    """Return the classes of the rows, those of the columns, and the counts."""
    true = [label for record in records for label in record["y_true"]]
    predicted = [label for record in records for label in record["y_pred"][variant]]
    # What no test voice is may be predicted all the same; it has no recall, so no row.
    rows, columns = sorted({*true}), sorted({*true, *predicted})
    matrix = np.zeros((len(rows), len(columns)))
    for t, p in zip(true, predicted, strict=True):
        matrix[rows.index(t), columns.index(p)] += 1
    return rows, columns, matrix


def features(line: Line, protocols: list[str], corpus: str, path: Path, out: Path) -> bool:
    """Draw a t-SNE of voices and faces together; False if no features were kept."""
    from sklearn.manifold import TSNE

    kept = {}
    for protocol in protocols:
        for cell in line.cells.get(protocol, []):
            file = cell.path(out).with_suffix(".npz")
            if file.exists() and protocol not in kept:
                with np.load(file) as stored:
                    kept[protocol] = dict(stored)
    if not kept:
        return False
    labels = [parts[f"y_{m}"] for parts in kept.values() for m in ("visual", "audio")]
    styles = _styles(np.unique(np.concatenate(labels)))
    plt, figure, axes = _axes(len(kept), 5.2)
    for axis, (protocol, parts) in zip(axes, kept.items(), strict=True):
        z = np.concatenate([parts["visual"], parts["audio"]]).astype(np.float64)
        perplexity = min(30, max(2, (len(z) - 1) // 4))
        place = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(z)
        n = len(parts["visual"])
        for c, (colour, (face, voice, _)) in styles.items():
            faces, voices = parts["y_visual"] == c, parts["y_audio"] == c
            axis.scatter(*place[:n][faces].T, c=colour, marker=face, s=28, linewidths=1)
            axis.scatter(
                *place[n:][voices].T, facecolors="none", edgecolors=colour, marker=voice, s=22
            )
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_title(f"{protocol} protocol, fold 0, seed 0", size=10)
    used = list(dict.fromkeys(markers for _, markers in styles.values()))
    handles = [
        *(
            plt.Line2D([], [], color="k", marker=face, linestyle="", label="face (training)")
            for face, _, _ in used
        ),
        *(
            plt.Line2D([], [], color="k", marker=m, mfc="none", linestyle="", label="voice (test)")
            for _, m, _ in used
        ),
        *(
            plt.Line2D([], [], color=colour, marker=marker, linestyle="", label=c)
            for c, (colour, (_, _, marker)) in styles.items()
        ),
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    figure.suptitle(f"{line.name} on {corpus}: t-SNE of the features of both modalities", size=12)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return True
