"""The model card: what a person should know before using a model."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.metrics import recall_score
from sklearn.pipeline import Pipeline

from skfdan.classifiers.base import ModalityClassifier
from skfdan.metrics import SCORES
from skfdan.persistence._format import ModelError, check_keys
from skfdan.persistence._known import LOCAL

#: Parameters that say nothing about a model.
_UNTOLD = (*LOCAL, "memory", "verbose", "n_jobs")

_LIMITS = """\
Models like this recognise acted or labelled *expressions*, not what a person
feels, and they do so unevenly over speakers, languages and recording
conditions. Do not base decisions about people on them. The licences of the
corpora that a model was trained on may bind its users too.
"""


def collect_facts(corpora, protocol, y_true, y_pred) -> dict[str, Any]:
    """Return what the user says about a model, and its scores."""
    for name, text in (("corpora", corpora), ("protocol", protocol)):
        if text is not None and not isinstance(text, str):
            raise TypeError(f"{name} must be a text or None, not {type(text).__name__}.")
    scores = None
    if (y_true is None) != (y_pred is None):
        raise ValueError("Scores need both y_true and y_pred.")
    if y_true is not None:
        y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
        if y_true.ndim != 1 or y_true.shape != y_pred.shape or not len(y_true):
            raise ValueError(
                f"y_true and y_pred must be labels of the same rows; their shapes are "
                f"{y_true.shape} and {y_pred.shape}."
            )
        labels, support = np.unique(y_true, return_counts=True)
        recall = recall_score(y_true, y_pred, labels=labels, average=None, zero_division=0)
        scores = {"rows": len(y_true)}
        scores |= {name: score(y_true.tolist(), y_pred.tolist()) for name, score in SCORES.items()}
        scores["classes"] = [
            {"label": label, "recall": float(r), "support": int(n)}
            for label, r, n in zip(labels.tolist(), recall, support, strict=True)
        ]
    return {"corpora": corpora, "protocol": protocol, "scores": scores}


def check_facts(facts: Any) -> None:
    """Refuse facts that :func:`collect_facts` does not give."""
    check_keys(facts, ("corpora", "protocol", "scores"), "facts")
    scores = facts["scores"]
    fine = all(t is None or isinstance(t, str) for t in (facts["corpora"], facts["protocol"]))
    if scores is not None:
        check_keys(scores, ("rows", *SCORES, "classes"), "scores")
        fine = fine and type(scores["rows"]) is int and isinstance(scores["classes"], list)
        fine = fine and all(_is_share(scores[name]) for name in SCORES)
        for row in scores["classes"] if fine else ():
            check_keys(row, ("label", "recall", "support"), "scores")
            fine = fine and type(row["label"]) in (bool, int, float, str)
            fine = fine and _is_share(row["recall"]) and type(row["support"]) is int
    if not fine:
        raise ModelError("its facts are not those of a skfdan model")


def _is_share(value: Any) -> bool:
    return type(value) is float and 0 <= value <= 1


def model_card(estimator: Any, config: dict, omitted: dict[str, Any]) -> str:
    """Return the card as Markdown, with the front matter that the Hugging Face Hub reads."""
    clf = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    clf = clf if isinstance(clf, ModalityClassifier) else None
    name = type(estimator if clf is None else clf).__name__
    front = ["library_name: skfdan", "tags:", "- skfdan", "- speech-emotion-recognition"]
    if clf is not None:
        front.insert(1, "pipeline_tag: audio-classification")
    facts = config["facts"]
    parts = [
        "\n".join(["---", *front, "---"]),
        f"# {name}",
        _what(estimator, clf),
        "## Use",
        _use(estimator, omitted),
        "## Parameters",
        "Those that differ from their defaults.",
        "\n".join(_parameters(estimator)),
    ]
    if clf is not None:
        parts += ["## Input", _input(clf), "## Classes", _classes(clf)]
    parts += [
        "## Corpora",
        facts["corpora"] or "Not stated.",
        "## Evaluation",
        f"Protocol: {facts['protocol'] or 'not stated'}",
        _scores(facts["scores"]),
    ]
    if clf is not None:
        parts += ["## Training", _training(clf)]
    libraries = ", ".join(f"{k} {v}" for k, v in config["libraries"].items())
    parts += [
        "## Limits",
        _LIMITS.rstrip(),
        "## Versions",
        f"skfdan {config['skfdan']}, {libraries}",
    ]
    return "\n\n".join(parts) + "\n"


def _what(estimator: Any, clf: ModalityClassifier | None) -> str:
    if clf is None:
        return f"A `{type(estimator).__name__}` of preparing steps, saved by skfdan."
    summary = inspect.getdoc(type(clf)).splitlines()[0]
    text = f"{summary} A fitted classifier of skfdan"
    if clf is not estimator:
        text += ", with what prepares its input"
    return f"{text}. Fidelity to the published method: {clf.fidelity}."


def _use(estimator: Any, omitted: dict[str, Any]) -> str:
    name = type(estimator).__name__
    given = "".join(f", {key}=..." for key in omitted)
    if isinstance(estimator, ModalityClassifier):
        lines = [f"from skfdan.classifiers import {name}", ""]
        lines += [f'model = {name}.from_pretrained("this-folder"{given})']
    else:
        lines = ["from skfdan.persistence import load_pretrained", ""]
        lines += [f'model = load_pretrained("this-folder"{given})']
    if hasattr(estimator, "predict"):
        lines += ["model.predict(X)"]
    code = "\n".join(["```python", *lines, "```"])
    return f"{code}\n\nNothing in these files is executed when they are loaded."


def _parameters(estimator: Any, name: str = "", depth: int = 0) -> list[str]:
    lines = [f"{'  ' * depth}- {_plain(name)}{': ' if name else ''}{type(estimator).__name__}"]
    if isinstance(estimator, Pipeline):
        children = [(step, child) for step, child in estimator.steps]
    elif isinstance(estimator, ColumnTransformer):
        children = [
            (f"{step} of {_list(columns)}", child)
            for step, child, columns in estimator.transformers_
        ]
    else:
        children = []
        defaults = inspect.signature(type(estimator)).parameters
        changed = {
            key: value
            for key, value in estimator.get_params(deep=False).items()
            if key not in _UNTOLD and repr(value) != repr(defaults[key].default)
        }
        if changed:
            told = ", ".join(f"{key}={_show(key, value)}" for key, value in changed.items())
            lines[0] += f": {_plain(told)}"
    for step, child in children:
        if hasattr(child, "get_params"):
            lines += _parameters(child, step, depth + 1)
        else:
            lines.append(f"{'  ' * (depth + 1)}- {_plain(step)}: {child}")
    return lines


def _show(key: str, value: Any) -> str:
    if key == "weights" and value is not None:
        return "a file"  # whose path says something about a machine
    return getattr(value, "__name__", None) or f"{value!r:.200}"


def _list(columns: Any) -> str:
    if isinstance(columns, (str, slice)):
        return f"{columns!s:.80}"
    return f"{', '.join(map(str, columns)):.80}"


def _input(clf: ModalityClassifier) -> str:
    def describe(spec) -> str:
        if spec.kind == "vector":
            return f"vectors of {spec.n_features} numbers"
        if spec.uint8:
            return "pictures of bytes, (3, H, W) or (1, H, W), one or several a cell"
        return "arrays of numbers such as spectrograms, (bands, frames), one or several a cell"

    lines = [f"- {modality}: {describe(spec)}" for modality, spec in clf._specs.items()]
    reads = clf.predict_modality if len(clf._specs) > 1 else next(iter(clf._specs))
    return "\n".join(["What the classifier itself was trained on:", "", *lines]) + (
        f"\n\nA prediction reads: {reads}."
    )


def _classes(clf: ModalityClassifier) -> str:
    return ", ".join(_plain(str(label)) for label in clf.classes_)


def _scores(scores: dict | None) -> str:
    if scores is None:
        return "Not evaluated."
    text = ", ".join(f"{name} {scores[name]:.3f}" for name in SCORES)
    rows = [
        f"| {_plain(str(row['label']))} | {row['recall']:.3f} | {row['support']} |"
        for row in scores["classes"]
    ]
    table = "\n".join(["| class | recall | rows |", "|---|---|---|", *rows])
    return f"{text}, on {scores['rows']} rows.\n\n{table}"


def _training(clf: ModalityClassifier) -> str:
    counts = ", ".join(
        f"{_plain(str(label))} {n}" for label, n in zip(clf.classes_, clf.class_count_, strict=True)
    )
    lines = [f"- epochs: {len(clf.history_)}", f"- labelled rows: {counts}"]
    if len(clf.history_):
        last = {
            key: value
            for key, value in clf.history_[-1].items()
            if isinstance(value, float) and key != "dur"
        }
        told = ", ".join(f"{_plain(key)} {value:.4g}" for key, value in last.items())
        lines.append(f"- last epoch: {told}")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Keep a text from being Markdown or HTML."""
    text = " ".join(text.split())
    for character in "\\`*_|<[":
        text = text.replace(character, f"\\{character}")
    return text
