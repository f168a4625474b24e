"""Confusion matrices of several models, side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.base import is_classifier
from sklearn.metrics import confusion_matrix
from sklearn.utils.multiclass import unique_labels
from sklearn.utils.validation import check_is_fitted

from skfdan.metrics import uar_score, war_score

from ._figure import import_pyplot, make_panels, merge, turn_long_labels
from ._reading import check_known, check_labels

__all__ = ["ConfusionMatricesDisplay"]

_WHAT = {
    "true": "share of the true label",
    "pred": "share of the predicted label",
    "all": "share of all clips",
    None: "clips",
}


class ConfusionMatricesDisplay:
    """Confusion matrices of several models on the same clips, with one scale.

    As Fig. 4 of the FDAN paper [1]_. Make one with :meth:`from_predictions` or
    :meth:`from_estimators`.

    Parameters
    ----------
    confusion_matrices : dict of str to ndarray of shape (n_classes, n_classes)
        A matrix a model; rows are true labels, columns predicted ones.
    display_labels : array-like of shape (n_classes,)
        Names of rows and columns.
    scores : dict of str to tuple (WAR, UAR), default=None
        What goes into the titles; None leaves it out.
    normalize : {"true", "pred", "all"} or None, default=None
        How the matrices were normalised.

    Attributes
    ----------
    figure_ : Figure
        The figure.
    axes_ : ndarray of Axes of shape (n_models,)
        One a model.
    images_ : list of AxesImage
        One a model.
    texts_ : list of ndarray of Text of shape (n_classes, n_classes), or of None
        Values in the cells.
    colorbar_ : Colorbar or None
        The scale.

    References
    ----------
    .. [1] S. Li et al., "Multi-modal Speech Emotion Recognition via Feature
       Distribution Adaptation Network", Fig. 4.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from skfdan.inspection import ConfusionMatricesDisplay
    >>> y = ["joy", "joy", "fear", "fear"]
    >>> display = ConfusionMatricesDisplay.from_predictions(
    ...     y, {"FDAN": y, "voices only": ["joy", "joy", "joy", "fear"]})
    >>> display.confusion_matrices["voices only"].tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    >>> plt.close(display.figure_)
    """

    def __init__(self, confusion_matrices, *, display_labels, scores=None, normalize=None):
        self.confusion_matrices = confusion_matrices
        self.display_labels = display_labels
        self.scores = scores
        self.normalize = normalize

    @classmethod
    def from_predictions(cls, y_true, y_pred, *, labels=None, normalize="true", ax=None, **plot_kw):
        """Compute and draw the matrices of some predictions.

        Parameters
        ----------
        y_true : array-like of shape (n,)
            True labels.
        y_pred : dict of str to array-like of shape (n,)
            Predictions, by the name of the model.
        labels : array-like of shape (n_classes,), default=None
            The classes in the order to be shown; every label must be among them.
            None takes all labels there are, sorted.
        normalize : {"true", "pred", "all"} or None, default="true"
            Divide by the number of clips of the true label (the diagonal then
            holds recalls), of the predicted label, by that of all clips, or not
            at all. A row or column without clips is 0.
        ax : Axes, array-like of n_models Axes, or None, default=None
            Where to draw. One axes is divided among the models.
        **plot_kw : dict
            Further arguments of :meth:`plot`.

        Returns
        -------
        ConfusionMatricesDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If ``y_pred`` is no mapping.
        ValueError
            If lengths differ, labels are missing or not among ``labels``.
        """
        who = f"{cls.__name__}.from_predictions"
        import_pyplot(who)
        if not isinstance(y_pred, Mapping):
            raise TypeError(
                f"{who}: y_pred must map names of models to predictions, {{'FDAN': y_pred}}; got "
                f"{type(y_pred).__name__}."
            )
        if not y_pred:
            raise ValueError(f"{who}: y_pred holds no predictions.")
        if normalize not in _WHAT:
            raise ValueError(
                f'{who}: normalize={normalize!r} is unknown; choose "true", "pred", "all" or None.'
            )
        predictions = {}
        for name, predicted in y_pred.items():
            true, predicted = check_labels(
                who, **{"y_true": y_true, f"y_pred of {name!r}": predicted}
            )
            predictions[name] = predicted
        everything = unique_labels(true, *predictions.values())
        if labels is None:
            labels = everything
        else:
            (labels,) = check_labels(who, labels=labels)
            if len(set(labels.tolist())) < len(labels):
                raise ValueError(f"{who}: labels={labels.tolist()} names a class twice.")
            for name, given in (("y_true", true), *predictions.items()):
                check_known(who, name, given, labels, "labels=")
        matrices = {
            name: confusion_matrix(true, predicted, labels=labels, normalize=normalize)
            for name, predicted in predictions.items()
        }
        scores = {
            name: (war_score(true, predicted), uar_score(true, predicted))
            for name, predicted in predictions.items()
        }
        display = cls(matrices, display_labels=labels, scores=scores, normalize=normalize)
        return display.plot(ax=ax, **plot_kw)

    @classmethod
    def from_estimators(
        cls, estimators, X, y, *, labels=None, normalize="true", ax=None, **plot_kw
    ):
        """Predict with some fitted classifiers and draw their matrices.

        Parameters
        ----------
        estimators : dict of str to classifier
            Fitted classifiers or pipelines, by name.
        X : DataFrame or array-like
            What all of them predict.
        y : array-like of shape (n,)
            True labels.
        labels, normalize, ax, **plot_kw
            As in :meth:`from_predictions`.

        Returns
        -------
        ConfusionMatricesDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        NotFittedError
            If a classifier is not fitted.
        TypeError
            If ``estimators`` is no mapping of names to classifiers.
        """
        who = f"{cls.__name__}.from_estimators"
        import_pyplot(who)
        if not isinstance(estimators, Mapping):
            raise TypeError(
                f"{who}: estimators must map names to classifiers, {{'FDAN': clf}}; got "
                f"{type(estimators).__name__}."
            )
        for name, estimator in estimators.items():
            if not is_classifier(estimator):
                raise TypeError(f"{who}: {name!r} is no classifier: {type(estimator).__name__}.")
            check_is_fitted(estimator, msg=f"{name!r}, a %(name)s, is not fitted; call fit first.")
        predictions = {name: estimator.predict(X) for name, estimator in estimators.items()}
        return cls.from_predictions(
            y, predictions, labels=labels, normalize=normalize, ax=ax, **plot_kw
        )

    def plot(
        self,
        *,
        ax=None,
        n_cols=3,
        cmap="Blues",
        colorbar=True,
        include_values=True,
        values_format=None,
        xticks_rotation=None,
        im_kw=None,
        text_kw=None,
    ):
        """Draw the matrices.

        Parameters
        ----------
        ax : Axes, array-like of n_models Axes, or None, default=None
            Where to draw. One axes is divided among the models.
        n_cols : int, default=3
            Matrices in a row, in a new figure or a divided axes.
        cmap : str or Colormap, default="Blues"
            Colours.
        colorbar : bool, default=True
            Whether to draw the scale, which all matrices share.
        include_values : bool, default=True
            Whether to write the values into the cells.
        values_format : str, default=None
            Their format; None is ".2f", "d" for numbers of clips, and "0" for nothing at all.
        xticks_rotation : float, str or None, default=None
            Rotation of the predicted labels; None turns long ones.
        im_kw : dict, default=None
            Further arguments of ``imshow``.
        text_kw : dict, default=None
            Further arguments of ``text``.

        Returns
        -------
        ConfusionMatricesDisplay
            The display.
        """
        plt = import_pyplot(f"{type(self).__name__}.plot")
        from matplotlib.text import Text

        names = [str(label) for label in self.display_labels]
        n = len(names)
        side = float(np.clip(1.8 + 0.42 * n, 3.4, 10.0))
        figure, axes = make_panels(
            plt, ax, len(self.confusion_matrices), n_cols=n_cols, size=(side, side)
        )
        highest = max(float(matrix.max()) for matrix in self.confusion_matrices.values())
        by_part = self.normalize in ("true", "pred")
        defaults = {"cmap": cmap, "vmin": 0, "vmax": 1 if by_part else max(highest, 1e-9)}
        self.images_ = []
        for axis, (name, matrix) in zip(axes, self.confusion_matrices.items(), strict=True):
            self.images_.append(axis.imshow(matrix, **{**defaults, **(im_kw or {})}))
            axis.set_xticks(range(n), names)
            axis.set_yticks(range(n), names)
            turn_long_labels(axis, names, xticks_rotation)
            axis.set(xlabel="Predicted label", ylabel="True label")
            title = str(name)
            if self.scores is not None:
                war, uar = self.scores[name]
                title += f"\nWAR {war:.3f}   UAR {uar:.3f}"
            axis.set_title(title, fontsize=10)
        self.colorbar_ = None
        if colorbar:
            self.colorbar_ = figure.colorbar(
                self.images_[0], ax=list(axes), label=_WHAT[self.normalize], shrink=0.7, aspect=25
            )
        if ax is None:
            figure.draw_without_rendering()  # so that the cells have their size
        boxes = [axis.get_window_extent() for axis in axes]
        cell = 72 * min(min(box.width, box.height) for box in boxes) / figure.dpi / n
        for axis in axes:
            axis.tick_params(labelsize=float(np.clip(0.8 * cell, 4, 10)))
        self.texts_ = [None] * len(self.images_)
        if include_values:
            kw = {"ha": "center", "va": "center", "fontsize": float(np.clip(0.34 * cell, 3, 9))}
            kw = merge(kw, text_kw, Text)
            self.texts_ = [self._write(image, values_format, kw) for image in self.images_]
        self.figure_, self.axes_ = figure, axes
        return self

    def _write(self, image, values_format, kw):
        """Write the values of a matrix into its cells."""
        matrix = np.asarray(image.get_array())
        texts = np.empty(matrix.shape, dtype=object)
        for i, j in np.ndindex(matrix.shape):
            # Dark cells take light letters, whatever the colours.
            red, green, blue, _ = image.cmap(image.norm(matrix[i, j]))
            light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
            if values_format is not None:
                text = format(matrix[i, j], values_format)
            elif self.normalize is None or not matrix[i, j]:
                text = f"{matrix[i, j]:.0f}"
            else:
                text = f"{matrix[i, j]:.2f}"
            colour = {"color": "black" if light else "white"}
            texts[i, j] = image.axes.text(j, i, text, **{**colour, **kw})
        return texts
