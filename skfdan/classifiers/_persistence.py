"""Saving fitted classifiers to a folder, and what of them is saved."""

from __future__ import annotations

import numbers
import os
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skfdan.preprocessing._failures import empty_report


class PersistenceMixin:
    """``save_pretrained`` and ``from_pretrained``."""

    #: What a fit learns beside networks, labels and history, and of which type it is. Arrays,
    #: tensors, numbers, strings and dicts of these can be stored; what an instance lacks is
    #: skipped. A name that comes or goes changes the format: see skfdan.persistence._format.
    _state_attributes: ClassVar[dict[str, type | tuple[type, ...]]] = {
        "_specs": dict,
        "_read_files": dict,
        "_class_weights": dict,
        "_cell_shape": tuple,
        "n_features_in_": numbers.Integral,
        "feature_names_in_": np.ndarray,
        "class_count_": np.ndarray,
        "reference_bank_": dict,
        "validation_rows_": np.ndarray,
        "validation_uar_": (np.ndarray, type(None)),
    }

    def save_pretrained(
        self,
        folder: str | os.PathLike,
        *,
        corpora: str | None = None,
        protocol: str | None = None,
        y_true=None,
        y_pred=None,
        overwrite: bool = False,
    ):
        """Save the fitted classifier to a folder that nothing can be executed from.

        Parameters
        ----------
        folder : path-like
            Where to; see :func:`skfdan.save_pretrained`, also for all others.
        corpora, protocol : str or None, default=None
            What it was trained on and how it was tested, in words, for the model card.
        y_true, y_pred : array-like of shape (n,) or None, default=None
            True and predicted labels of a test, for the scores in the model card.
        overwrite : bool, default=False
            Replace a model that is there already.

        Returns
        -------
        Path
            The folder.
        """
        from skfdan.persistence import save_pretrained

        return save_pretrained(
            self,
            folder,
            corpora=corpora,
            protocol=protocol,
            y_true=y_true,
            y_pred=y_pred,
            overwrite=overwrite,
        )

    def push_to_hub(self, repo_id: str, **settings) -> str:
        """Upload the fitted classifier to the Hugging Face Hub.

        Parameters
        ----------
        repo_id : str
            ``"user/model"``.
        **settings : dict
            Handed to :func:`skfdan.persistence.push_to_hub`.

        Returns
        -------
        str
            Address of the commit.
        """
        from skfdan.persistence import push_to_hub

        return push_to_hub(self, repo_id, **settings)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, **params) -> Self:
        """Load a classifier of this class from a folder of :meth:`save_pretrained`.

        Parameters
        ----------
        folder : path-like or str
            The folder, or ``"hf://user/model"``; see
            :func:`skfdan.load_pretrained`.
        **params : dict
            Parameters in the place of the stored ones, such as ``device="cpu"``.

        Returns
        -------
        classifier
            The fitted classifier.

        Raises
        ------
        ModelError
            If the folder holds no such model, or was altered.
        """
        from skfdan.persistence._model import load

        return load(folder, params, expected=cls)

    def load_params(self, *args, **kwargs) -> None:
        """Load weights that skorch's ``save_params`` or its callbacks have saved.

        Weights alone: what prediction keeps of the training samples, such as FDAN's bank, stays
        as it is. ``save_pretrained`` saves it all.

        Parameters
        ----------
        *args, **kwargs
            As of ``load_params`` of ``skorch.NeuralNet``.

        Raises
        ------
        NotFittedError
            If there is no network yet that could take them.
        """
        check_is_fitted(self)
        device = self.device
        self.device = self.device_  # skorch knows no "auto"
        try:
            super().load_params(*args, **kwargs)
        finally:
            self.device = device

    def _assemble(self, module: nn.Module, criterion: nn.Module | None, history) -> None:
        """Take stored networks, as ``_start`` takes new ones; the seed is fresh.

        The optimiser waits for ``partial_fit``: torch's import of its compiler for it takes
        seconds, and whoever loads a model mostly wants to predict.
        """
        self.initialized_ = False
        self.virtual_params_: dict[str, Any] = {}
        self.device_ = "cpu"
        self._initialize_callbacks()
        with self._current_init_context("module"):
            self.module_ = module.eval()
        with self._current_init_context("criterion"):
            self.criterion_ = criterion
        self.optimizer_ = None
        self.history_ = history
        self.initialized_ = True
        self._random_state = check_random_state(self.random_state)
        self.report_ = empty_report()
        self._know_reads()
