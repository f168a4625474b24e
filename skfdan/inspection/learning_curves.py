"""What ``history_`` of a network classifier holds, over the epochs."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real

import numpy as np

from ._figure import COLOURS, LINES, import_pyplot, make_panels, merge
from ._reading import network_classifier

__all__ = ["LearningCurvesDisplay"]

# What is no course of training: counts, durations, and skorch's marks of best epochs.
_NO_TERMS = ("epoch", "dur", "batches")
_NO_ENDS = ("_best", "_batch_count")

_FACTORS = {"alpha": "Weight α", "mu": "Factor μ"}


class LearningCurvesDisplay:
    """The loss, its terms and whatever else was recorded, epoch by epoch.

    Make one with :meth:`from_estimator` or :meth:`from_history`.

    Parameters
    ----------
    history : dict of str to ndarray of shape (n_epochs,)
        Terms; NaN where an epoch has none.
    panels : list of tuple (title, list of str) or None, default=None
        Which terms share a panel; None groups them by their names.

    Attributes
    ----------
    figure_ : Figure
        The figure.
    axes_ : ndarray of Axes of shape (n_panels,)
        The panels.
    lines_ : dict of str to Line2D
        The curve of each term.

    Notes
    -----
    Terms are means over the training batches of an epoch, before their weights: a term's
    share of the loss is what its weight makes of it. ``feature_std`` near 0 says that the
    features of all clips have become one.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from skfdan.inspection import LearningCurvesDisplay
    >>> history = [{"epoch": 1, "train_loss": 1.9, "ce_audio": 1.9, "lmmd": 0.4},
    ...            {"epoch": 2, "train_loss": 1.2, "ce_audio": 1.2, "lmmd": 0.2}]
    >>> display = LearningCurvesDisplay.from_history(history)
    >>> [title for title, _ in display.panels]
    ['Loss', 'Cross-entropy', 'Adaptation']
    >>> plt.close(display.figure_)
    """

    def __init__(self, history, *, panels=None):
        self.history = history
        self.panels = panels

    @classmethod
    def from_estimator(cls, estimator, *, terms=None, ax=None, **plot_kw):
        """Draw the history of a fitted classifier.

        Parameters
        ----------
        estimator : classifier, Pipeline or search
            A fitted network classifier, a pipeline that ends in one, or a search for one
            (of which the refitted one counts).
        terms : sequence of str or None, default=None
            Which to show; None shows all.
        ax : Axes, array-like of n_panels Axes, or None, default=None
            Where to draw. One axes is divided among the panels.
        **plot_kw : dict
            Further arguments of :meth:`plot`.

        Returns
        -------
        LearningCurvesDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        NotFittedError
            If the classifier is not fitted.
        TypeError
            If it is no network classifier.
        """
        who = f"{cls.__name__}.from_estimator"
        import_pyplot(who)
        _, clf = network_classifier(who, estimator)
        return cls.from_history(clf.history_, terms=terms, ax=ax, **plot_kw)

    @classmethod
    def from_history(cls, history, *, terms=None, ax=None, **plot_kw):
        """Draw a history.

        Parameters
        ----------
        history : History, list of dict or DataFrame
            An epoch a row.
        terms, ax, **plot_kw
            As in :meth:`from_estimator`.

        Returns
        -------
        LearningCurvesDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If there are no epochs, no terms, or not those asked for.
        """
        who = f"{cls.__name__}.from_history"
        import_pyplot(who)
        if hasattr(history, "to_dict") and hasattr(history, "columns"):
            history = history.to_dict("records")
        rows = list(history)
        if not rows or not all(isinstance(row, Mapping) for row in rows):
            raise ValueError(
                f"{who}: the history must hold an epoch a row, as history_ of a fitted classifier "
                f"does; got {len(rows)} rows."
            )
        known = dict.fromkeys(
            name
            for row in rows
            for name, value in row.items()
            if isinstance(value, Real)
            and not isinstance(value, (bool, np.bool_))
            and name not in _NO_TERMS
            and not name.endswith(_NO_ENDS)
        )
        if not known:
            raise ValueError(f"{who}: the history holds no numbers; its keys are {list(rows[0])}.")
        if isinstance(terms, str):
            terms = [terms]
        chosen = list(known if terms is None else terms)
        unknown = [name for name in chosen if name not in known]
        if unknown or not chosen:
            raise ValueError(
                f"{who}: terms={chosen!r}: the history holds {', '.join(map(repr, known))}."
            )
        values = {
            name: np.array([_number(row.get(name)) for row in rows], dtype=float) for name in chosen
        }
        return cls(values).plot(ax=ax, **plot_kw)

    def plot(self, *, ax=None, n_cols=3, line_kw=None):
        """Draw the curves.

        Parameters
        ----------
        ax : Axes, array-like of n_panels Axes, or None, default=None
            Where to draw. One axes is divided among the panels.
        n_cols : int, default=3
            Panels in a row, in a new figure or a divided axes.
        line_kw : dict, default=None
            Further arguments of ``Axes.plot``.

        Returns
        -------
        LearningCurvesDisplay
            The display.
        """
        plt = import_pyplot(f"{type(self).__name__}.plot")
        from matplotlib.lines import Line2D
        from matplotlib.ticker import MaxNLocator

        if self.panels is None:
            self.panels = _group(list(self.history))
        if len(self.panels) == 4:
            n_cols = min(n_cols, 2)
        figure, axes = make_panels(plt, ax, len(self.panels), n_cols=n_cols, size=(3.6, 2.7))
        self.lines_ = {}
        for axis, (title, names) in zip(axes, self.panels, strict=True):
            for i, name in enumerate(names):
                values = self.history[name]
                epochs = np.arange(1, len(values) + 1)
                alone = np.isfinite(values).sum() < 2  # no line would be seen
                kw = {
                    "color": COLOURS[i % len(COLOURS)],
                    "linestyle": LINES[i % len(LINES)],
                    "linewidth": 1.6,
                    "marker": "o" if alone else "",
                    "label": name,
                }
                (self.lines_[name],) = axis.plot(epochs, values, **merge(kw, line_kw, Line2D))
            axis.set_title(title, fontsize=10)
            axis.set_xlabel("Epoch")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            axis.grid(alpha=0.3)
            axis.tick_params(labelsize=9)
            if "valid_uar" in names:
                self._mark_best(axis)
            axis.legend(fontsize=8, framealpha=0.8)
        self.figure_, self.axes_ = figure, axes
        return self

    def _mark_best(self, axis) -> None:
        """Mark the epoch whose weights early stopping keeps: the first of the best."""
        values = self.history["valid_uar"]
        if not np.isfinite(values).any():
            return
        best = int(np.nanargmax(values))
        axis.plot(
            *(best + 1, values[best], "o"),
            color=COLOURS[5],
            mfc="none",
            ms=9,
            label=f"best, epoch {best + 1}",
        )
        axis.margins(y=0.18)
        axis.annotate(
            f"{values[best]:.3f}",
            (best + 1, values[best]),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )


def _number(value) -> float:
    return float(value) if isinstance(value, Real) else np.nan


def _group(names: list[str]) -> list[tuple[str, list[str]]]:
    """Put terms that can be compared with each other into one panel."""
    from skfdan.nn.adaptation import ADAPTATIONS  # with torch, which the import of a display spares

    groups: dict[str, list[str]] = {}
    for name in names:
        if name in ("train_loss", "valid_loss"):
            title = "Loss"
        elif name == "ce" or name.startswith("ce_"):
            title = "Cross-entropy"
        elif name in ADAPTATIONS:
            title = "Adaptation"
        elif name == "feature_std":
            title = "Spread of features"
        elif name == "valid_uar":
            title = "Validation UAR"
        else:
            title = _FACTORS.get(name, "Other terms")
        groups.setdefault(title, []).append(name)
    order = (
        "Loss",
        "Cross-entropy",
        "Adaptation",
        "Other terms",
        *_FACTORS.values(),
        "Spread of features",
        "Validation UAR",
    )
    return [(title, groups[title]) for title in order if title in groups]
