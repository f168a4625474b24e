"""Named settings of FDANClassifier."""

from __future__ import annotations

from typing import Self


class FDANRecipes:
    """Constructors of the ablations of the FDAN paper, and of DSAN."""

    @classmethod
    def fdan1(cls, **params) -> Self:
        """Return the paper's ablation FDAN1: no cross-attention.

        Parameters
        ----------
        **params : dict
            Parameters of the classifier, other than ``n_layers``.

        Returns
        -------
        FDANClassifier
            With ``n_layers=0``.

        Examples
        --------
        >>> from skfdan import FDANClassifier
        >>> FDANClassifier.fdan1(lr=0.01)
        FDANClassifier(lr=0.01, n_layers=0)
        """
        return cls(n_layers=0, **params)

    @classmethod
    def fdan2(cls, **params) -> Self:
        """Return the paper's ablation FDAN2: no adaptation.

        Parameters
        ----------
        **params : dict
            Parameters of the classifier, other than ``alpha``.

        Returns
        -------
        FDANClassifier
            With ``alpha=0``; the history still tells the LMMD.

        Examples
        --------
        >>> from skfdan import FDANClassifier
        >>> FDANClassifier.fdan2()
        FDANClassifier(alpha=0)
        """
        return cls(alpha=0, **params)

    @classmethod
    def dsan(cls, **params) -> Self:
        """Return the recipe of DSAN, as far as it fits this classifier.

        One network without attention for both modalities, LMMD with weight 0.5
        and DSAN's ramp, SGD with momentum 0.9 and weight decay 5e-4, 200 epochs,
        all from the DSAN code. Leave out the labels of the voices, as DSAN has
        none in its target; labels that are given are learned from.

        Other than there, the learning rate is one for all layers (the default
        is DSAN's for the backbone, its head has ten times that) and falls along
        a cosine, the ramp begins with 0 in the first epoch (there with 1/200 of
        the way), the bottleneck ends in a ReLU, LMMD divides by all classes, no
        epoch is chosen on test data, and the backbone is a ResNet-34 where DSAN
        has ResNet-50.

        Parameters
        ----------
        **params : dict
            Parameters of the classifier; they replace the recipe's.

        Returns
        -------
        FDANClassifier
            An ordinary classifier.

        Examples
        --------
        >>> from skfdan import FDANClassifier
        >>> FDANClassifier.dsan(backbone="resnet50").adaptation
        'dsan'
        """
        recipe = {
            "adaptation": "dsan",
            "alpha": 0.5,
            "ramp": "dsan",
            "n_layers": 0,
            "shared_backbone": True,
            "shared_bottleneck": True,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "max_epochs": 200,
        }
        return cls(**(recipe | params))
