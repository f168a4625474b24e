"""The scores of every speaker."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted

from skfdan.metrics import uar_score, war_score

from ._figure import COLOURS, font_size, import_pyplot, make_panels, merge
from ._reading import check_known, check_labels

__all__ = ["SpeakerScoresDisplay"]


class SpeakerScoresDisplay:
    """WAR and UAR of every speaker, sorted, beside those of all clips.

    Make one with :meth:`from_predictions` or :meth:`from_estimator`.

    Parameters
    ----------
    scores : DataFrame with the columns n, WAR and UAR
        A speaker a row, from the best to the worst; the index names them.
    overall : dict of {"WAR", "UAR"} to float
        Scores of all clips together.

    Attributes
    ----------
    figure_ : Figure
        The figure.
    ax_ : Axes
        The axes.
    points_ : dict of {"WAR", "UAR"} to Line2D
        The speakers' scores.
    lines_ : dict of {"WAR", "UAR"} to Line2D
        The overall scores.

    Notes
    -----
    A speaker's UAR is the mean recall of the emotions that this speaker shows. Speakers
    with few clips lie far from the rest by chance alone, which is why their number of
    clips stands beside the name.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from skfdan.inspection import SpeakerScoresDisplay
    >>> display = SpeakerScoresDisplay.from_predictions(
    ...     ["joy", "joy", "fear", "joy"], ["joy", "fear", "fear", "joy"], ["A", "A", "A", "B"])
    >>> display.scores
             n       WAR   UAR
    speaker
    B        1  1.000000  1.00
    A        3  0.666667  0.75
    >>> plt.close(display.figure_)
    """

    def __init__(self, scores, *, overall):
        self.scores = scores
        self.overall = overall

    @classmethod
    def from_predictions(
        cls, y_true, y_pred, groups, *, speakers=None, sort_by="UAR", ax=None, **plot_kw
    ):
        """Score predictions speaker by speaker and draw the scores.

        Parameters
        ----------
        y_true, y_pred : array-like of shape (n,)
            True and predicted labels.
        groups : array-like of shape (n,)
            Speakers.
        speakers : array-like or None, default=None
            Show these only; the overall scores stay those of all clips.
        sort_by : {"UAR", "WAR"} or None, default="UAR"
            What the best speakers are best in; None keeps the order of ``speakers``, or of
            their names.
        ax : Axes or None, default=None
            Where to draw.
        **plot_kw : dict
            Further arguments of :meth:`plot`.

        Returns
        -------
        SpeakerScoresDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If lengths differ, something is missing, or a speaker has no clip.
        """
        who = f"{cls.__name__}.from_predictions"
        import_pyplot(who)
        if sort_by not in ("UAR", "WAR", None):
            raise ValueError(f'{who}: sort_by={sort_by!r} must be "UAR", "WAR" or None.')
        true, predicted, groups = check_labels(who, y_true=y_true, y_pred=y_pred, groups=groups)
        if speakers is None:
            speakers = np.unique(groups)
        else:
            (speakers,) = check_labels(who, speakers=speakers)
            check_known(who, "speakers", speakers, np.unique(groups), "the groups")
        rows = []
        for speaker in speakers.tolist():
            own = groups == speaker
            scores = (war_score(true[own], predicted[own]), uar_score(true[own], predicted[own]))
            rows.append((speaker, int(own.sum()), *scores))
        scores = pd.DataFrame(rows, columns=["speaker", "n", "WAR", "UAR"]).set_index("speaker")
        if sort_by is not None:
            scores = scores.sort_values(sort_by, ascending=False, kind="stable")
        overall = {"WAR": war_score(true, predicted), "UAR": uar_score(true, predicted)}
        return cls(scores, overall=overall).plot(ax=ax, **plot_kw)

    @classmethod
    def from_estimator(cls, estimator, X, y, groups, *, ax=None, **plot_kw):
        """Predict with a fitted classifier and draw its scores, speaker by speaker.

        Parameters
        ----------
        estimator : classifier
            A fitted classifier or pipeline.
        X : DataFrame or array-like
            What it predicts.
        y : array-like of shape (n,)
            True labels.
        groups : array-like of shape (n,)
            Speakers.
        ax, **plot_kw
            As in :meth:`from_predictions`, ``speakers`` and ``sort_by`` among them.

        Returns
        -------
        SpeakerScoresDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        NotFittedError
            If the classifier is not fitted.
        TypeError
            If it is no classifier.
        """
        who = f"{cls.__name__}.from_estimator"
        import_pyplot(who)
        if not is_classifier(estimator):
            raise TypeError(f"{who} takes a classifier; got {type(estimator).__name__}.")
        check_is_fitted(estimator)
        return cls.from_predictions(y, estimator.predict(X), groups, ax=ax, **plot_kw)

    def plot(self, *, ax=None, point_kw=None, line_kw=None):
        """Draw the scores.

        Parameters
        ----------
        ax : Axes or None, default=None
            Where to draw. A new figure is as high as the speakers need.
        point_kw : dict, default=None
            Further arguments of ``Axes.plot`` for the speakers.
        line_kw : dict, default=None
            Further arguments of ``axvline`` for the overall scores.

        Returns
        -------
        SpeakerScoresDisplay
            The display.
        """
        plt = import_pyplot(f"{type(self).__name__}.plot")
        from matplotlib.lines import Line2D

        n = len(self.scores)
        height = float(np.clip(1.4 + 0.24 * n, 2.4, 24.0))
        figure, (axis,) = make_panels(plt, ax, 1, n_cols=1, size=(6.4, height))
        at = np.arange(n)
        axis.hlines(at, self.scores["WAR"], self.scores["UAR"], color="0.75", linewidth=2, zorder=1)
        styles = {
            "UAR": {"color": COLOURS[0], "marker": "o", "mfc": COLOURS[0]},
            "WAR": {"color": COLOURS[5], "marker": "D", "mfc": "white"},
        }
        self.points_, self.lines_ = {}, {}
        # WAR is drawn last and hollow: where both are equal, both can be seen.
        for name, style in styles.items():
            kw = {"linestyle": "", "markersize": 8 if name == "UAR" else 4.5, "label": name}
            kw |= {"color": style["color"], "marker": style["marker"]}
            kw |= {"markerfacecolor": style["mfc"]}
            (self.points_[name],) = axis.plot(
                self.scores[name].to_numpy(), at, **merge(kw, point_kw, Line2D)
            )
            score = self.overall[name]
            kw = {
                "color": style["color"],
                "linestyle": "-" if name == "UAR" else "--",
                "linewidth": 1.4,
                "zorder": 0,
                "label": f"{name} of all clips, {score:.3f}",
            }
            self.lines_[name] = axis.axvline(score, **merge(kw, line_kw, Line2D))
        names = [f"{name} (n={count})" for name, count in self.scores["n"].items()]
        axis.set_yticks(at, names)
        inches = axis.get_window_extent().height / axis.figure.dpi
        axis.tick_params(axis="y", labelsize=font_size(inches, n, 9.0))
        axis.set_ylim(n - 0.4, -0.6)  # the best on top
        axis.set(xlim=(-0.03, 1.03), xlabel="Score", ylabel="Speaker")
        axis.grid(axis="x", alpha=0.3)
        axis.legend(
            loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=8.5
        )
        self.figure_, self.ax_ = figure, axis
        return self
