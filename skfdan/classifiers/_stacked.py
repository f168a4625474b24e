"""Fits of FDANClassifier that differ in a few numbers, done together."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR

from skfdan.classifiers._batches import SPREAD_EVERY, Batch, relative_spread
from skfdan.classifiers._samples import Samples
from skfdan.classifiers._training import diverged
from skfdan.classifiers.base import count_classes
from skfdan.classifiers.fdan import FDANClassifier
from skfdan.nn.stacked import StackedHeads, stacked_discrepancy
from skfdan.table import MODALITIES
from skfdan.utils.progress import progress_bar

#: Parameters that may differ among fits that are done together: those of the loss's weight,
#: of the optimiser (each fit has its own), and of prediction alone.
VARIABLE = frozenset(
    {
        *("alpha", "ramp", "lr", "lr_schedule", "weight_decay", "momentum"),
        *("optimizer", "optimizer_params", "inference", "bank_size"),
    }
)
#: Adaptation losses that can be computed for all at once.
_ADAPTATIONS = ("lmmd", "mmd", None)
#: Optimisers that treat every number on its own, so that they may get all in one tensor.
_OPTIMIZERS = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)


class NotStackable(Exception):
    """The data don't allow it; the message says why. Nothing has been fitted."""


def obstacle(estimator: Any) -> str | None:
    """Return why an estimator can't be fitted together with others like it, or None."""
    if type(estimator) is not FDANClassifier:
        return f"{type(estimator).__name__} is not FDANClassifier"
    if estimator.variant != "paper":
        return f"variant={estimator.variant!r}"
    if estimator.adaptation not in _ADAPTATIONS:
        return f"adaptation={estimator.adaptation!r} (only {_listed(_ADAPTATIONS)} are stacked)"
    if not isinstance(estimator.random_state, Integral):
        return f"random_state={estimator.random_state!r} is no integer, so no two fits start alike"
    if estimator.optimizer not in _OPTIMIZERS:
        return (
            f"optimizer={getattr(estimator.optimizer, '__name__', estimator.optimizer)} (only "
            f"{', '.join(o.__name__ for o in _OPTIMIZERS)} are stacked)"
        )
    for name in ("early_stopping", "callbacks", "checkpoint_dir", "shared_bottleneck"):
        if getattr(estimator, name):
            return f"{name} is set"
    return None


def _listed(values: tuple) -> str:
    return ", ".join(map(repr, values))


def fit_together(candidates: list[FDANClassifier], X, y) -> list[Exception | None]:
    """Fit classifiers that differ in :data:`VARIABLE` parameters only.

    Afterwards they are what ``fit(X, y)`` of each would have made of them, up to the
    rounding of float32.

    Parameters
    ----------
    candidates : list of FDANClassifier
        Clones without an :func:`obstacle`.
    X, y
        As of ``FDANClassifier.fit(X, y)``.

    Returns
    -------
    list of Exception or None
        What the fit of each would have raised.

    Raises
    ------
    NotStackable
        If the backbones of these data would be trained.
    """
    errors = [_error_of(c._check_params) for c in candidates]
    pending = [i for i, error in enumerate(errors) if error is None]
    while pending:
        try:
            found = _fit([candidates[i] for i in pending], X, y)
        except NotStackable:
            raise
        except Exception as error:
            # The first, which starts for all, can't; that need not be the others' fault.
            errors[pending.pop(0)] = error
        else:
            for i, error in zip(pending, found, strict=True):
                errors[i] = error
            break
    for candidate, error in zip(candidates, errors, strict=True):
        if error is not None:
            # Neither a network without a training nor one of NaN is a result.
            vars(candidate).pop("module_", None)
    return errors


def _error_of(call, *args) -> Exception | None:
    try:
        call(*args)
    except Exception as error:
        return error
    return None


@dataclass
class _Head:
    """One of the fits: its classifier, and the optimiser of its row of numbers."""

    fit: FDANClassifier
    optimizer: torch.optim.Optimizer
    schedule: Any
    error: Exception | None = None


def _fit(fits: list[FDANClassifier], X, y) -> list[Exception | None]:
    # The first reads the data, draws the seeds and builds the network for all.
    leader = fits[0]
    samples, _, encoded, classes = leader._read_labelled(X, y, None, None, None, None, None)
    if leader._trainable is not False and any(s.kind != "vector" for s in samples.values()):
        raise NotStackable(
            f"backbone_trainable={leader.backbone_trainable!r}: backbones would be trained"
        )
    leader._random_state = check_random_state(leader.random_state)
    leader.class_count_ = count_classes(samples, encoded, len(classes))
    labels = {m: encoded[s.rows] for m, s in samples.items()}
    leader._know_cells(samples)
    with leader._training():
        leader._start(labels, classes)
        errors = [None, *(_error_of(_follow, leader, fit) for fit in fits[1:])]
        started = [fit for fit, error in zip(fits, errors, strict=True) if error is None]
        networks = StackedHeads([fit.module_ for fit in started])
        heads = [_head(fit, row) for fit, row in zip(started, networks.rows, strict=True)]
        samples, labels = leader._embedded_training(samples, labels)
        _train(heads, networks, samples, labels)
        _finish(heads, networks, samples, labels)
    found = iter(head.error for head in heads)
    return [next(found) if error is None else error for error in errors]


def _follow(leader: FDANClassifier, fit: FDANClassifier) -> None:
    """Start a fit as the leader's was started, with parameters of its own."""
    parameters = fit.get_params(deep=False)
    state = {name: value for name, value in vars(leader).items() if name not in parameters}
    # Frozen backbones are the same for all.
    shared = {id(b): b for b in leader.module_.backbones.values()}
    vars(fit).update(copy.deepcopy(state, shared))
    fit.initialized_ = False  # or skorch says that it does this again
    fit._initialize_optimizer()
    fit.initialized_ = True


def _head(fit: FDANClassifier, row: torch.nn.Parameter) -> _Head:
    _, kwargs = fit.get_params_for_optimizer("optimizer", [("head", row)])
    optimizer = fit.optimizer([row], **kwargs)
    schedule = None
    if fit.lr_schedule == "cosine":
        schedule = CosineAnnealingLR(optimizer, fit.max_epochs)
    return _Head(fit, optimizer, schedule)


def _train(heads: list[_Head], networks: StackedHeads, samples: Samples, labels) -> None:
    leader = heads[0].fit
    leader.module_.train()
    batches = leader._make_batches(samples, labels)
    for head in heads:
        head.fit.notify("on_train_begin", X=samples, y=labels)
    bar = progress_bar(
        range(leader.max_epochs),
        total=leader.max_epochs,
        desc=f"{len(heads)} x {type(leader).__name__}",
        unit="epoch",
        verbose=leader.verbose if leader.max_epochs > 1 else 0,
    )
    for epoch in bar:
        for head in heads:
            head.fit._progress = min(1.0, epoch / leader.max_epochs)
            if head.error is None:
                head.fit.notify("on_epoch_begin", dataset_train=samples, dataset_valid=None)
        _record(heads, _epoch(heads, networks, batches))
        finite = torch.isfinite(networks.values.sum(1)).tolist()
        for i, head in enumerate(heads):
            if head.error is None and not finite[i]:
                networks.write_back(i, head.fit.module_)
                head.error = _error_of(head.fit._check_parameters_finite)
            if head.error is None:
                if head.schedule is not None:
                    head.schedule.step()
                head.fit.notify("on_epoch_end", dataset_train=samples, dataset_valid=None)
        if all(head.error is not None for head in heads):
            break


def _epoch(heads: list[_Head], networks: StackedHeads, batches) -> list[tuple[Batch, dict]]:
    """Train for one epoch, and return the loss and its terms of every batch."""
    leader = heads[0].fit
    alphas = [head.fit.alpha * head.fit._ramp() for head in heads]
    weight = torch.tensor(alphas, dtype=torch.float32, device=leader.device_)
    running = [head.optimizer for head in heads if head.error is None]
    records = []
    for batch, y in batches:
        with torch.no_grad():
            features = {
                m: leader.module_.features(m, batch.cells[m].to(leader.device_)).float()
                for m in MODALITIES
                if m in batch.cells
            }
        y = {m: labels.to(leader.device_) for m, labels in y.items()}
        output = networks(features)
        terms = {f"ce_{m}": _cross_entropy(leader, m, output.logits[m], y[m]) for m in y}
        loss = sum(terms.values())
        adapt = leader.criterion_
        if adapt is not None and len(y) == len(MODALITIES):
            terms[adapt.name] = stacked_discrepancy(adapt, output.adapted(), y)
            loss = loss + weight * terms[adapt.name]
            terms["alpha"] = weight
        loss.sum().backward()
        for optimizer in running:
            optimizer.step()
        features = []
        if len(records) % SPREAD_EVERY == 0:
            features = [z[-1].detach() for z in output.layers.values() if z[-1].shape[1] > 1]
        if features:
            terms["feature_std"] = torch.stack([*map(relative_spread, features)]).amin(0)
        records.append((batch, {"train_loss": loss} | terms))
    return [(batch, {k: v.detach().cpu().numpy() for k, v in t.items()}) for batch, t in records]


def _cross_entropy(fit: FDANClassifier, modality: str, logits: torch.Tensor, y: torch.Tensor):
    """Return what ``fit._cross_entropy`` does of the logits (m, n, C) of every network."""
    labelled = y >= 0
    if not labelled.all():
        logits, y = logits[:, labelled], y[labelled]
        if len(y) == 0:
            return 0.0 * logits.sum((1, 2))
    losses = F.cross_entropy(logits.flatten(0, 1), y.repeat(len(logits)), reduction="none")
    losses = losses.view(len(logits), -1)
    weights = fit._class_weights.get(modality)
    return losses.mean(1) if weights is None else (losses * weights.to(y.device)[y]).mean(1)


def _record(heads: list[_Head], records: list[tuple[Batch, dict[str, np.ndarray]]]) -> None:
    """Write an epoch into the histories, up to where a fit would have ended in an error."""
    for i, head in enumerate(heads):
        if head.error is not None:
            continue
        history = head.fit.history_
        for number, (batch, terms) in enumerate(records, start=1):
            own = {name: float(values[i]) for name, values in terms.items()}
            if not np.isfinite(own["train_loss"]):
                loss = own.pop("train_loss")
                own.pop("feature_std", None)
                head.error = diverged(loss, own, (len(history), number), batch)
                break
            history.new_batch()
            for name, value in own.items():
                history.record_batch(name, value)
            history.record_batch("train_batch_size", len(batch))
        else:
            history.record("train_batch_count", len(records))


def _finish(heads: list[_Head], networks: StackedHeads, samples: Samples, labels) -> None:
    """Make of each what is left of an ordinary fit."""
    drawn = heads[0].fit._random_state
    for i, head in enumerate(heads):
        fit = head.fit
        fit._random_state = copy.deepcopy(drawn)
        if head.error is None:
            networks.write_back(i, fit.module_)
            state = networks.optimizer_state(i, head.optimizer.state[networks.rows[i]])
            for name, values in state.items():
                fit.optimizer_.state[fit.module_.get_parameter(name)] = values
            head.error = _error_of(_end, fit, samples, labels)


def _end(fit: FDANClassifier, samples: Samples, labels) -> None:
    fit._finish(samples, labels)
    fit.notify("on_train_end", X=samples, y=labels)
    fit._warn_if_collapsed()
