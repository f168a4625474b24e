"""Colours, markers and the places where displays draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = [
    "COLOURS",
    "LINES",
    "MARKERS",
    "NOUNS",
    "class_styles",
    "font_size",
    "import_pyplot",
    "make_panels",
    "merge",
    "split_place",
    "turn_long_labels",
    "write_names",
]

#: Okabe and Ito's colours, which people with colour-blindness can tell apart; the one that
#: is pale on white comes last.
COLOURS = (
    "#0072B2",  # blue
    "#E69F00",  # orange
    "#009E73",  # bluish green
    "#CC79A7",  # reddish purple
    "#56B4E9",  # sky blue
    "#D55E00",  # vermilion
    "#000000",  # black
    "#F0E442",  # yellow
)

#: Strokes for faces and areas for voices, as in Fig. 5 of the FDAN paper, and full areas for
#: texts; one of each for every eight emotions.
MARKERS = {
    "visual": ("+", "x", (6, 2), (3, 2)),
    "audio": ("o", "s", "^", "D"),
    "text": ("v", "*", "<", ">"),
}

#: What samples of a modality are called.
NOUNS = {"visual": "faces", "audio": "voices", "text": "texts"}

#: Lines that differ without their colours too.
LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))


def import_pyplot(caller: str) -> Any:
    """Import matplotlib.pyplot, or say what needs it and how to get it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(f'{caller} needs matplotlib: pip install "skfdan[plot]".') from error
    return plt


def class_styles(n_classes: int, modality: str) -> list[tuple[str, Any]]:
    """Return a colour and a marker for every class; no two classes share both.

    Raises
    ------
    ValueError
        If there are more classes than colours and markers.
    """
    markers = MARKERS[modality]
    if n_classes > len(COLOURS) * len(markers):
        raise ValueError(
            f"{n_classes} classes can't be told apart by {len(COLOURS)} colours and "
            f"{len(markers)} markers; show {len(COLOURS) * len(markers)} or fewer."
        )
    return [(COLOURS[i % len(COLOURS)], markers[i // len(COLOURS)]) for i in range(n_classes)]


def merge(defaults: Mapping, given: Mapping | None, artist: type) -> dict:
    """Return matplotlib arguments; given ones win, under whichever of their names."""
    from matplotlib.cbook import normalize_kwargs

    return {**defaults, **normalize_kwargs(dict(given or {}), artist)}


def make_panels(
    plt: Any, ax: Any, n: int, *, n_cols: int, size: tuple[float, float]
) -> tuple[Any, np.ndarray]:
    """Return a figure and n axes: new ones, ones in the place of ``ax``, or those given.

    ``size`` is the width and height of a panel of a new figure in inches.
    """
    from matplotlib.axes import Axes

    n_cols = min(n, n_cols)
    n_rows = -(-n // n_cols)
    if ax is None:
        figure = plt.figure(figsize=(size[0] * n_cols, size[1] * n_rows), layout="constrained")
        grid = figure.add_gridspec(n_rows, n_cols)
    elif isinstance(ax, Axes):
        figure = ax.figure
        if n == 1:
            return figure, np.array([ax], dtype=object)
        grid = split_place(ax, n_rows, n_cols)
    else:
        axes = np.asarray(ax, dtype=object).ravel()
        if len(axes) != n:
            raise ValueError(f"ax holds {len(axes)} axes, but there are {n} panels to draw.")
        return axes[0].figure, axes
    panels = [figure.add_subplot(grid[divmod(i, n_cols)]) for i in range(n)]
    return figure, np.array(panels, dtype=object)


def split_place(ax: Any, n_rows: int, n_cols: int, **ratios) -> Any:
    """Hide the axes and return a grid in their place."""
    if not ax.axison:
        raise ValueError(
            "ax was divided by another plot already; give axes of their own, or the attribute "
            "axes_ of that display."
        )
    ax.set_axis_off()
    place = ax.get_subplotspec()
    if place is not None:
        return place.subgridspec(n_rows, n_cols, **ratios)
    box = ax.get_position()
    return ax.figure.add_gridspec(
        n_rows, n_cols, left=box.x0, right=box.x1, bottom=box.y0, top=box.y1, **ratios
    )


def font_size(inches: float, n: int, largest: float = 10.0) -> float:
    """Return a size in points at which n lines fit into some inches; never below 4."""
    return float(np.clip(0.8 * 72 * inches / max(n, 1), 4.0, largest))


def turn_long_labels(axis: Any, labels: Sequence[str], rotation: float | str | None) -> None:
    """Set the rotation of the tick labels of an x axis; by their length if it is None."""
    if rotation is None:
        rotation = 0 if max((len(label) for label in labels), default=0) <= 3 else 45
    slanted = rotation not in (0, 90, "horizontal", "vertical")
    for label in axis.get_xticklabels():
        label.set(rotation=rotation, rotation_mode="anchor" if slanted else "default")
        label.set_horizontalalignment("right" if slanted else "center")


def write_names(axis: Any, names: Sequence[tuple[str, np.ndarray]]) -> None:
    """Write names at places in data coordinates, each moved down until it covers no other.

    A thin line leads from a name that was moved to its place.
    """
    from matplotlib import patheffects

    size = 9.0 if len(names) <= 16 else 7.0
    box = axis.get_window_extent()
    letter = size / 72 * axis.figure.dpi
    placed: list[tuple[float, float, float]] = []
    at = axis.transData.transform([place for _, place in names])
    for i in np.argsort(-at[:, 1]):
        (x, y), name = at[i], names[i][0]
        half = 0.32 * letter * len(name)
        x = float(np.clip(x, box.x0 + half, max(box.x1 - half, box.x0 + half)))
        while any(
            abs(x - other_x) < half + other_half and abs(y - other_y) < 1.2 * letter
            for other_x, other_y, other_half in placed
        ):
            y -= 0.3 * letter
        placed.append((x, y, half))
        moved = abs(y - at[i][1]) > letter
        axis.annotate(
            name,
            names[i][1],
            # In points from its place, so that it stays there whatever becomes of the axes.
            xytext=(np.array([x, y]) - at[i]) * 72 / axis.figure.dpi,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            weight="bold",
            arrowprops={"arrowstyle": "-", "color": "0.4", "linewidth": 0.7} if moved else None,
            path_effects=[patheffects.withStroke(linewidth=2.5, foreground="white")],
        )
