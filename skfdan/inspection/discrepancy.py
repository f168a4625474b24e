"""How far the modalities lie apart, emotion by emotion."""

from __future__ import annotations

import numpy as np

from ._figure import COLOURS, NOUNS, import_pyplot, make_panels, merge, turn_long_labels
from ._reading import check_known, check_labels, features_by_modality, pick_features

__all__ = ["ClassDiscrepancyDisplay"]


class ClassDiscrepancyDisplay:
    r"""Each class's term of the local maximum mean discrepancy (LMMD) of two modalities.

    The terms of the sum over classes in Eq. 8 of the FDAN paper [1]_,

    .. math::

        d_c = \Bigl\| \sum_n w_{vnc}\,\phi(z_{vn}) - \sum_m w_{amc}\,\phi(z_{am}) \Bigr\|^2,

    whose mean over the classes is :func:`skfdan.nn.lmmd`. Make one with
    :meth:`from_estimator` or :meth:`from_features`.

    Parameters
    ----------
    discrepancies : ndarray of shape (n_classes,)
        d of every class; NaN if a modality lacks the class.
    classes : ndarray of shape (n_classes,)
        Emotions.
    counts : ndarray of shape (n_classes, 2), int
        Samples of each, of both modalities.
    modalities : tuple of two of {"visual", "audio", "text"}, default=("visual", "audio")
        What is compared.

    Attributes
    ----------
    figure_ : Figure
        The figure.
    ax_ : Axes
        The axes.
    bars_ : BarContainer
        One bar a class.
    line_ : Line2D
        The LMMD: the sum over classes (NaN counts 0, as in training) divided by their
        number.

    Notes
    -----
    All samples count at once and share one bandwidth, while training sees batches and sums
    over the layers, so these numbers are not those of ``history_``. The estimate is never
    negative, and larger for fewer samples even where nothing differs: compare classes with
    like numbers of samples, which stand under the bars. The kernel matrix takes memory as
    the square of the number of samples.

    References
    ----------
    .. [1] S. Li et al., "Multi-modal Speech Emotion Recognition via Feature
       Distribution Adaptation Network", Eq. 8.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import numpy as np
    >>> from skfdan.inspection import ClassDiscrepancyDisplay
    >>> z = np.random.default_rng(0).normal(size=(40, 8))
    >>> y = np.array(["fear", "joy"] * 20)
    >>> display = ClassDiscrepancyDisplay.from_features(
    ...     {"visual": z, "audio": z + 2 * (y == "joy")[:, None]}, {"visual": y, "audio": y})
    >>> (display.discrepancies > 0.1).tolist()
    [False, True]
    >>> plt.close(display.figure_)
    """

    def __init__(self, discrepancies, *, classes, counts, modalities=("visual", "audio")):
        self.discrepancies = discrepancies
        self.classes = classes
        self.counts = counts
        self.modalities = modalities

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        modalities=None,
        max_samples=None,
        random_state=None,
        ax=None,
        **plot_kw,
    ):
        """Draw the discrepancies between the features of a fitted classifier.

        Parameters
        ----------
        estimator, X, y
            As in :meth:`skfdan.inspection.AlignedSpaceDisplay.from_estimator`, as are the
            features that are compared; X must hold both modalities.
        modalities : tuple of two of {"visual", "audio", "text"} or None, default=None
            What to compare; None takes the two that there are.
        max_samples, random_state, ax
            As in :meth:`skfdan.inspection.AlignedSpaceDisplay.from_estimator`.
        **plot_kw : dict
            Further arguments of :meth:`plot`.

        Returns
        -------
        ClassDiscrepancyDisplay
            The display, drawn.
        """
        who = f"{cls.__name__}.from_estimator"
        import_pyplot(who)
        features, labels = features_by_modality(who, estimator, X, y)
        return cls.from_features(
            features,
            labels,
            classes=estimator.classes_,
            modalities=modalities,
            max_samples=max_samples,
            random_state=random_state,
            ax=ax,
            **plot_kw,
        )

    @classmethod
    def from_features(
        cls,
        features,
        labels,
        *,
        classes=None,
        modalities=None,
        max_samples=None,
        random_state=None,
        ax=None,
        **plot_kw,
    ):
        """Draw the discrepancies between given features.

        Parameters
        ----------
        features : dict of {"visual", "audio", "text"} to array-like of shape (n, d)
            Features in one space; n may differ.
        labels : dict of modality to array-like of shape (n,)
            Their emotions.
        classes : array-like of shape (n_classes,), default=None
            Emotions to show; None takes those there are, sorted.
        modalities, max_samples, random_state, ax, **plot_kw
            As in :meth:`from_estimator`.

        Returns
        -------
        ClassDiscrepancyDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If a modality is missing, there are three and ``modalities`` does not say which
            to compare, or features and labels do not fit.
        """
        who = f"{cls.__name__}.from_features"
        import_pyplot(who)
        features, labels = pick_features(who, features, labels, max_samples, random_state)
        if len(features) < 2:
            raise ValueError(
                f"{who}: there are {next(iter(features))} features only; a discrepancy needs both "
                "modalities."
            )
        pair = tuple(features) if modalities is None else tuple(modalities)
        if len(set(pair)) != 2 or len(pair) != 2 or set(pair) - set(features):
            raise ValueError(
                f"{who}: there are features of {', '.join(features)}, and modalities="
                f"{modalities!r}; name two of them."
            )
        features, labels = ({m: of[m] for m in pair} for of in (features, labels))
        if classes is None:
            classes = np.unique(np.concatenate(list(labels.values())))
        else:
            (classes,) = check_labels(who, classes=classes)
        for modality, y in labels.items():
            check_known(who, f"labels of {modality}", y, classes, "the classes")
        member = {m: (y[:, None] == classes).astype(float) for m, y in labels.items()}
        counts = np.stack([member[m].sum(0) for m in pair], axis=1).astype(int)
        display = cls(_terms(features, member), classes=classes, counts=counts, modalities=pair)
        return display.plot(ax=ax, **plot_kw)

    def plot(self, *, ax=None, xticks_rotation=None, bar_kw=None):
        """Draw the discrepancies.

        Parameters
        ----------
        ax : Axes or None, default=None
            Where to draw.
        xticks_rotation : float, str or None, default=None
            Rotation of the emotions' names; None turns them.
        bar_kw : dict, default=None
            Further arguments of ``bar``.

        Returns
        -------
        ClassDiscrepancyDisplay
            The display.
        """
        plt = import_pyplot(f"{type(self).__name__}.plot")
        from matplotlib.patches import Rectangle

        n = len(self.classes)
        width = float(np.clip(2.0 + 0.55 * n, 4.5, 16.0))
        figure, (axis,) = make_panels(plt, ax, 1, n_cols=1, size=(width, 4.0))
        heights = np.nan_to_num(self.discrepancies)
        kw = {"color": COLOURS[4], "edgecolor": "0.2", "linewidth": 0.8}
        self.bars_ = axis.bar(np.arange(n), heights, **merge(kw, bar_kw, Rectangle))
        for i in np.flatnonzero(np.isnan(self.discrepancies)):
            axis.annotate("none", (i, 0), ha="center", va="bottom", fontsize=8, color="0.3")
        lmmd = heights.sum() / n
        self.line_ = axis.axhline(
            lmmd, color=COLOURS[5], linestyle="--", linewidth=1.4, label=f"LMMD (mean), {lmmd:.3g}"
        )
        names = [
            f"{label} ({first}+{second})"
            for label, (first, second) in zip(self.classes, self.counts, strict=True)
        ]
        axis.set_xticks(np.arange(n), names)
        turn_long_labels(axis, names, xticks_rotation)
        first, second = (NOUNS[m] for m in self.modalities)
        axis.set_xlabel(f"Emotion (number of {first} + {second})")
        axis.set_ylabel(f"Discrepancy of {first} and {second}, $d_c$")
        axis.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
        self.figure_, self.ax_ = figure, axis
        return self


def _terms(features, member) -> np.ndarray:
    """Return every class's term; the samples of all classes set the bandwidth."""
    import torch

    from skfdan.nn import lmmd

    first, second = (torch.from_numpy(values) for values in features.values())
    terms = []
    for own in zip(*(columns.T for columns in member.values()), strict=True):
        if not all(column.any() for column in own):
            terms.append(np.nan)
            continue
        terms.append(
            float(lmmd(first, second, *(torch.from_numpy(c[:, None].copy()) for c in own)))
        )
    return np.array(terms)
