"""Finding every public estimator, for the tests and the documentation."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

__all__ = ["all_estimators"]


def all_estimators() -> dict[str, type]:
    """List the public classifiers and transformers of the package.

    Returns
    -------
    dict of str to type
        Every scikit-learn estimator that a public sub-package names in its
        ``__all__``, by name, sorted.

    Examples
    --------
    >>> "FDANClassifier" in all_estimators()
    True
    """
    from sklearn.base import BaseEstimator

    import skfdan

    found = {}
    for info in pkgutil.walk_packages(skfdan.__path__, "skfdan."):
        if not info.ispkg or any(part.startswith("_") for part in info.name.split(".")):
            continue
        module = importlib.import_module(info.name)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if inspect.isclass(value) and issubclass(value, BaseEstimator):
                found[name] = value
    return dict(sorted(found.items()))
