"""The features of both modalities in one plane."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from ._figure import NOUNS, class_styles, font_size, import_pyplot, make_panels, merge, write_names
from ._reading import check_known, check_labels, features_by_modality, pick_features

__all__ = ["AlignedSpaceDisplay"]

# Share of the picture's diagonal from which the modalities of an emotion count as apart.
_APART = 0.2


class AlignedSpaceDisplay:
    """Faces and voices in the space that the network brings them to, seen in a plane.

    As Fig. 5 of the FDAN paper [1]_: strokes are faces, discs are voices, colours are
    emotions (from the ninth emotion on, other strokes and areas). Texts, where there are
    any, are full triangles. Make one with
    :meth:`from_estimator` or :meth:`from_features`.

    Parameters
    ----------
    embedding : dict of modality to ndarray of shape (n, 2)
        Coordinates of the samples.
    labels : dict of modality to ndarray of shape (n,)
        Their emotions.
    classes : array-like of shape (n_classes,)
        Emotions, in the order of colours.
    method : {"pca", "tsne"}, default="pca"
        Where the coordinates come from.
    explained_variance_ratio : ndarray of shape (2,) or None, default=None
        Share of the variance along both axes, with PCA.

    Attributes
    ----------
    figure_ : Figure
        The figure.
    ax_ : Axes
        The axes.
    scatters_ : dict of tuple (modality, class) to PathCollection
        The points.
    legend_ : Legend or None
        What colours and markers mean.

    Notes
    -----
    t-SNE keeps neighbours, not distances: apart in the picture is not apart in the space,
    and how close the modalities look depends on chance. PCA keeps distances as far as two
    axes can, whose share of the variance the picture names.

    References
    ----------
    .. [1] S. Li et al., "Multi-modal Speech Emotion Recognition via Feature
       Distribution Adaptation Network", Fig. 5.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import numpy as np
    >>> from skfdan.inspection import AlignedSpaceDisplay
    >>> rng = np.random.default_rng(0)
    >>> display = AlignedSpaceDisplay.from_features(
    ...     {"visual": rng.normal(size=(20, 8)), "audio": rng.normal(size=(30, 8))},
    ...     {"visual": ["joy", "fear"] * 10, "audio": ["fear", "joy", "joy"] * 10})
    >>> display.embedding["audio"].shape, len(display.scatters_)
    ((30, 2), 4)
    >>> plt.close(display.figure_)
    """

    def __init__(self, embedding, labels, *, classes, method="pca", explained_variance_ratio=None):
        self.embedding = embedding
        self.labels = labels
        self.classes = classes
        self.method = method
        self.explained_variance_ratio = explained_variance_ratio

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        method="pca",
        max_samples=None,
        random_state=None,
        ax=None,
        **plot_kw,
    ):
        """Draw the features that a fitted classifier gives for each modality.

        Parameters
        ----------
        estimator : classifier or Pipeline
            A fitted classifier with ``predict_modality``, such as
            :class:`skfdan.FDANClassifier`, or a pipeline that ends in one. It is
            not changed.
        X : DataFrame, mapping, tuple or ndarray
            As in its ``fit``: a modality table, paired or not, two arrays
            ``(X_vis, X_aud)``, or a flat matrix.
        y : array-like of shape (n,) or tuple (y_vis, y_aud)
            Emotions; a tuple for two arrays of unpaired samples.
        method : {"pca", "tsne"}, default="pca"
            How features come to the plane, both modalities together.
        max_samples : int or None, default=None
            Show at most so many samples of each modality, chosen at random. The
            paper shows a fifth of MELD.
        random_state : int, RandomState instance or None, default=None
            Seeds that choice, and t-SNE.
        ax : Axes or None, default=None
            Where to draw.
        **plot_kw : dict
            Further arguments of :meth:`plot`.

        Returns
        -------
        AlignedSpaceDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        NotFittedError
            If the classifier is not fitted.
        TypeError
            If it does not give features of each modality in one space.
        ValueError
            If ``y`` does not fit X, or holds emotions the classifier does not know.

        Notes
        -----
        Features are those of ``transform``: the last layer's, each sample's computed from
        its own row (with ``inference="bank"``, from the bank too), several frames averaged.

        Of classifiers that fuse the cells of a row, they are those of the space that the
        network brings all modalities to, text included: the shared representations of
        :class:`skfdan.classifiers.MISAClassifier` and
        :class:`skfdan.classifiers.FDRLClassifier`, the space of the margin loss of
        :class:`skfdan.classifiers.WavFusionClassifier`, and what the classifier of
        :class:`skfdan.classifiers.SDTClassifier` reads.
        :class:`skfdan.classifiers.CoAttentionClassifier` has none and is refused: each
        modality has columns of its own there, which lie apart whatever was learned.
        """
        who = f"{cls.__name__}.from_estimator"
        import_pyplot(who)
        features, labels = features_by_modality(who, estimator, X, y)
        return cls.from_features(
            features,
            labels,
            classes=getattr(estimator, "classes_", None),
            method=method,
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
        method="pca",
        max_samples=None,
        random_state=None,
        ax=None,
        **plot_kw,
    ):
        """Draw given features.

        Parameters
        ----------
        features : dict of modality to array-like of shape (n, d)
            Features of ``"visual"``, ``"audio"`` and ``"text"`` samples, or of some of
            them, in one space; n may differ.
        labels : dict of modality to array-like of shape (n,)
            Their emotions.
        classes : array-like of shape (n_classes,), default=None
            Emotions in the order of colours; None takes those there are, sorted. Colours
            of two pictures agree if this does.
        method, max_samples, random_state, ax, **plot_kw
            As in :meth:`from_estimator`.

        Returns
        -------
        AlignedSpaceDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If features or labels are no mappings.
        ValueError
            If they do not fit each other, are not finite, or are too few.
        """
        who = f"{cls.__name__}.from_features"
        import_pyplot(who)
        if method not in ("pca", "tsne"):
            raise ValueError(f'{who}: method={method!r} is unknown; choose "pca" or "tsne".')
        features, labels = pick_features(who, features, labels, max_samples, random_state)
        if classes is None:
            classes = np.unique(np.concatenate(list(labels.values())))
        else:
            (classes,) = check_labels(who, classes=classes)
        for modality, y in labels.items():
            check_known(who, f"labels of {modality}", y, classes, "the classes")
        together = np.concatenate(list(features.values()))
        if len(together) < 3 or together.shape[1] < 2:
            raise ValueError(
                f"{who}: a plane needs 3 samples of 2 features or more; got {len(together)} of "
                f"{together.shape[1]}."
            )
        ratio = None
        if method == "pca":
            pca = PCA(2, svd_solver="full")
            points = pca.fit_transform(together)
            ratio = pca.explained_variance_ratio_
        else:
            perplexity = min(30.0, (len(together) - 1) / 3)
            points = TSNE(
                perplexity=perplexity, init="pca", random_state=random_state
            ).fit_transform(together)
        cuts = np.cumsum([len(values) for values in features.values()])[:-1]
        embedding = dict(zip(features, np.split(np.asarray(points), cuts), strict=True))
        display = cls(
            embedding, labels, classes=classes, method=method, explained_variance_ratio=ratio
        )
        return display.plot(ax=ax, **plot_kw)

    def plot(self, *, ax=None, annotate=True, legend=True, scatter_kw=None):
        """Draw the samples.

        Parameters
        ----------
        ax : Axes or None, default=None
            Where to draw.
        annotate : bool, default=True
            Whether to write each emotion's name where the middle (median) of its samples
            is, or those of its modalities where these lie apart, so that the
            picture can be read without colours.
        legend : bool, default=True
            Whether to say what colours and markers mean.
        scatter_kw : dict, default=None
            Further arguments of ``scatter``.

        Returns
        -------
        AlignedSpaceDisplay
            The display.
        """
        plt = import_pyplot(f"{type(self).__name__}.plot")
        from matplotlib.collections import PathCollection
        from matplotlib.lines import Line2D

        figure, (axis,) = make_panels(plt, ax, 1, n_cols=1, size=(7.0, 5.2))
        n_points = sum(map(len, self.labels.values()))
        classes = np.asarray(self.classes)
        size = float(np.clip(5000 / max(n_points, 1), 8, 40))
        self.scatters_ = {}
        handles = []
        for i, label in enumerate(classes):
            for modality, points in self.embedding.items():
                colour, marker = class_styles(len(classes), modality)[i]
                chosen = points[self.labels[modality] == label]
                kw = {"s": size, "marker": marker, "alpha": 0.75}
                if modality == "audio":
                    # Discs are hollow, so that strokes can be seen in them.
                    kw |= {"facecolors": "none", "edgecolors": colour, "linewidths": 1.1}
                else:
                    kw |= {"color": colour, "linewidths": 1.3}
                self.scatters_[modality, label] = axis.scatter(
                    *chosen.T, **merge(kw, scatter_kw, PathCollection)
                )
        self.legend_ = None
        if legend:
            for modality in self.embedding:
                _, marker = class_styles(1, modality)[0]
                name = f"{NOUNS[modality]} ({len(self.labels[modality])})"
                kw = {"color": "0.3"} if modality == "text" else {"color": "0.3", "mfc": "none"}
                handles.append(Line2D([], [], ls="", marker=marker, label=name, **kw))
            for i, label in enumerate(classes):
                colour, marker = class_styles(len(classes), "audio")[i]
                handles.append(Line2D([], [], ls="", marker=marker, color=colour, label=str(label)))
            self.legend_ = axis.legend(
                handles=handles,
                loc="upper left",
                bbox_to_anchor=(1.0, 1.0),
                frameon=False,
                fontsize=font_size(4.5, len(handles), 9.0),
            )
        if self.method == "pca":
            shares = self.explained_variance_ratio
            for k, set_label in enumerate((axis.set_xlabel, axis.set_ylabel)):
                of = "" if shares is None else f" ({100 * shares[k]:.0f} % of the variance)"
                set_label(f"Principal component {k + 1}{of}")
            axis.set_aspect("equal", adjustable="datalim")
        else:
            axis.set(xlabel="t-SNE 1", ylabel="t-SNE 2", xticks=[], yticks=[])
        axis.margins(0.1)
        if annotate:
            if ax is None:
                figure.draw_without_rendering()  # so that names keep clear of each other
            write_names(axis, self._middles())
        self.figure_, self.ax_ = figure, axis
        return self

    def _middles(self) -> list[tuple[str, np.ndarray]]:
        """Return names and places: one an emotion, or one a modality where these lie apart."""
        points = np.concatenate(list(self.embedding.values()))
        labels = np.concatenate(list(self.labels.values()))
        far = _APART * np.linalg.norm(np.ptp(points, axis=0))
        middles = []
        for label in self.classes:
            own = [p[self.labels[m] == label] for m, p in self.embedding.items()]
            each = [np.median(p, axis=0) for p in own if len(p)]
            apart = [np.linalg.norm(a - b) for a, b in combinations(each, 2)]
            if apart and max(apart) <= far:
                each = [np.median(points[labels == label], axis=0)]
            middles += [(str(label), middle) for middle in each]
        return middles
