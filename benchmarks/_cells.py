"""Units of work: one method on one fold with one seed, finished once and for all.

A finished cell is a JSON file that bears the hash of everything its result depends
on, so an interrupted run goes on where it stopped, tables share cells, and a change
of any parameter makes another cell.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _corpora
import _methods
import numpy as np
from _corpora import DIALOGUES, Corpus, Source
from _methods import METHODS
from _setting import Setting

from skfdan.classifiers._checkpoint import pretrained_contents
from skfdan.metrics import SCORES
from skfdan.table import as_cells, make_table

#: Raised when the same specification begins to mean another result.
CELL_FORMAT = 1
#: Parameters on which no result depends.
_IRRELEVANT = ("verbose", "n_jobs", "cache_dir", "device", "memory", "random_state")
#: Pictures of each emotion whose features are kept for the figure.
_PICTURES_PER_CLASS = 40


@dataclass(eq=False)
class Cell:
    """One fit and its evaluations.

    ``train`` and ``test`` are row positions in the corpus; ``spec`` is all that
    the result depends on, and ``key`` its hash.
    """

    method: str
    overrides: dict[str, Any]
    setting: Setting
    source: Source
    protocol: str
    fold: int
    seed: int
    role: str
    train: np.ndarray
    test: np.ndarray
    spec: dict[str, Any] = field(repr=False)

    @functools.cached_property
    def key(self) -> str:
        text = json.dumps(self.spec, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    def path(self, out: Path) -> Path:
        return Path(out) / "cells" / f"{self.key}.json"

    def __str__(self) -> str:
        chosen = "".join(f" {k}={v}" for k, v in self.overrides.items())
        role = "" if self.role == "test" else f" ({self.role})"
        return f"{self.method}{chosen}{role}, {self.protocol}, fold {self.fold}, seed {self.seed}"


def make_cell(
    corpus: Corpus,
    source: Source,
    setting: Setting,
    method: str,
    faces: tuple[str, ...],
    train: np.ndarray,
    test: np.ndarray,
    *,
    protocol: str,
    fold: int,
    seed: int,
    role: str = "test",
    overrides: dict[str, Any] | None = None,
) -> Cell:
    """Describe a cell; the training rows are limited to what the method may see."""
    how = METHODS[method]
    overrides = overrides or {}
    seen = corpus.rows_with(faces if how.faces else ())
    train = train[seen[train]]
    model = _estimator(method, setting, overrides, seed, None)
    spec = {
        "format": CELL_FORMAT,
        "corpus": source.corpus,
        "data": _fingerprint(source, corpus, faces if how.faces else ()),
        "faces": list(faces) if how.faces else [],
        "face_size": source.face_size if how.faces else None,
        "protocol": protocol,
        "fold": fold,
        "seed": seed,
        "role": role,
        "train": hash_ids(corpus.ids[train]),
        "test": hash_ids(corpus.ids[test]),
        "estimator": describe(model),
        "front_end": _describe_front_end(how, source, setting),
        **_contents(model, how, source, setting),
        "variants": {name: _plain(p) for name, p in how.variants.items()},
        "hide_labels": how.hide_labels,
    }
    return Cell(method, overrides, setting, source, protocol, fold, seed, role, train, test, spec)


def _front_ends(how, source: Source, setting: Setting) -> dict[str, Any]:
    """Return the transformer of each modality; of the voices alone, without its name."""
    if how.modalities:
        arguments = (source.companion, setting, None)
        return {m: _methods.embedding(how.front_end, m, *arguments) for m in how.modalities}
    transformer = _methods.front_end(how.front_end, setting, None)
    return {} if transformer is None else {"": transformer}


def _describe_front_end(how, source: Source, setting: Setting) -> dict[str, Any] | None:
    described = {m: describe(t) for m, t in _front_ends(how, source, setting).items()}
    return described if how.modalities else described.get("")


def _contents(model, how, source: Source, setting: Setting) -> dict[str, Any]:
    """Say what the files and folders of weights hold that are named by their paths."""
    readers = {"estimator": model, **_front_ends(how, source, setting)}
    found = {name: pretrained_contents(reader) for name, reader in readers.items()}
    found = {name: digests for name, digests in found.items() if digests}
    return {"contents": found} if found else {}


@functools.lru_cache(maxsize=16)
def _fingerprint_of(source: Source, faces: tuple[str, ...]) -> str:
    corpus = _corpora.load(source)
    return corpus.fingerprint(corpus.rows_with(faces))


def _fingerprint(source, corpus, faces) -> str:
    return _fingerprint_of(source, tuple(faces))


def hash_ids(ids: Iterable[str]) -> str:
    """Hash names of rows, whatever their order."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]


def describe(estimator) -> dict[str, Any]:
    """Name an estimator's class and every parameter that its results depend on."""
    kind = type(estimator)
    params = estimator.get_params(deep=True)
    return {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        **{
            name: _plain(value)
            for name, value in sorted(params.items())
            if name.rpartition("__")[2] not in _IRRELEVANT
        },
    }


def _plain(value: Any) -> Any:
    """Put a parameter into words that are the same in every session."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    name = value if isinstance(value, type) or hasattr(value, "__qualname__") else type(value)
    return f"{name.__module__}.{name.__qualname__}"


def _estimator(method: str, setting: Setting, overrides, seed: int, cache: str | None):
    model = METHODS[method].build(setting, cache).set_params(**overrides)
    seeds = [n for n in model.get_params() if n.rpartition("__")[2] == "random_state"]
    return model.set_params(**dict.fromkeys(seeds, seed))


# ---------------------------------------------------------------- running


@functools.lru_cache(maxsize=4)
def _prepared(source: Source, name: str, setting: Setting) -> np.ndarray:
    """Turn every voice into the cells of a front end, once a process."""
    corpus = _corpora.load(source)
    cells = corpus.table["audio"].to_numpy()
    transformer = _methods.front_end(name, setting, source.cache)
    if transformer is None:
        return cells
    out = as_cells([None] * len(cells))
    out[corpus.heard] = transformer.fit_transform(corpus.table.loc[corpus.heard, ["audio"]])[:, 0]
    return out


#: Sequences of a corpus take gigabytes: those of one row at a time, voice, words and faces.
@functools.lru_cache(maxsize=3)
def _embedded(source: Source, name: str, modality: str, setting: Setting) -> np.ndarray:
    """Turn one modality of every utterance into embeddings, once a process."""
    corpus = _corpora.load(source)
    transformer = _methods.embedding(name, modality, source.companion, setting, source.cache)
    return transformer.fit_transform(corpus.table[[modality]])[:, 0]


def _table(cell: Cell, corpus: Corpus):
    """Return the modality table that a method is given."""
    how = METHODS[cell.method]
    if how.modalities:
        table = make_table(
            **{m: _embedded(cell.source, how.front_end, m, cell.setting) for m in how.modalities}
        )
        return table.join(corpus.table[list(DIALOGUES)]) if how.dialogues else table
    audio = _prepared(cell.source, how.front_end, cell.setting)
    return make_table(visual=corpus.table["visual"], audio=audio)


def run_cell(cell: Cell, out: Path) -> dict[str, Any]:
    """Fit, predict, score and write one cell."""
    how = METHODS[cell.method]
    corpus = _corpora.load(cell.source)
    table = _table(cell, corpus)
    X, X_test = table.iloc[cell.train], table.iloc[cell.test]
    y, y_test = corpus.y[cell.train], corpus.y[cell.test]
    if how.hide_labels:
        y = y.astype(object)
        y[corpus.heard[cell.train]] = None
    model = _estimator(cell.method, cell.setting, cell.overrides, cell.seed, cell.source.cache)
    options = {}
    if how.speakers and cell.protocol == "disjoint":
        options[how.speakers] = corpus.groups[cell.train]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        began = time.perf_counter()
        model.fit(X, y, **options)
        fitting = time.perf_counter() - began
        _check_complete(model)
        began = time.perf_counter()
        predictions = {
            name: model.set_params(**variant).predict(X_test).tolist()
            for name, variant in how.variants.items()
        }
        predicting = time.perf_counter() - began
    if how.features and cell.role == "test" and cell.fold == cell.seed == 0:
        _save_features(model, corpus, table, cell, cell.path(out).with_suffix(".npz"))

    heard = corpus.heard[cell.train]
    record = {
        "cell": cell.spec,
        "name": str(cell),
        "method": cell.method,
        "overrides": cell.overrides,
        "n_voices": int(heard.sum()),
        "n_faces": int((~heard).sum()),
        "ids": corpus.ids[cell.test].tolist(),
        "y_true": y_test.tolist(),
        "y_pred": predictions,
        "scores": {
            name: {metric: score(y_test, predicted) for metric, score in SCORES.items()}
            for name, predicted in predictions.items()
        },
        "warnings": sorted({f"{w.category.__name__}: {w.message}" for w in caught}),
        "fit_s": round(fitting, 3),
        "predict_s": round(predicting, 3),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": versions(),
        "machine": machine(),
    }
    write_json(cell.path(out), record)
    return record


def _check_complete(model) -> None:
    """Notice training that Ctrl-C ended early, between two epochs."""
    last = model[-1] if hasattr(model, "__getitem__") else model
    history = getattr(last, "history_", None)
    if history is None or getattr(last, "early_stopping", False):
        return
    if len(history) < getattr(last, "max_epochs", 0):
        raise KeyboardInterrupt


def _save_features(model, corpus: Corpus, table, cell: Cell, path: Path) -> None:
    """Keep features of the test voices and of some training faces."""
    rng = np.random.RandomState(0)
    faces = cell.train[~corpus.heard[cell.train]]
    some = [
        rng.permutation(faces[corpus.y[faces] == c])[:_PICTURES_PER_CLASS] for c in corpus.classes
    ]
    rows = {"audio": cell.test, "visual": np.concatenate(some)}
    parts = {}
    for modality, chosen in rows.items():
        model.set_params(predict_modality=modality, inference="bank")
        parts[modality] = model.transform(table.iloc[chosen])
        parts[f"y_{modality}"] = corpus.y[chosen]
    model.set_params(predict_modality="audio")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}-{path.name}")
    np.savez_compressed(part, **parts)
    os.replace(part, path)


def write_json(path: Path, content: Any) -> None:
    """Write under another name first: what bears the right name is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}-{path.name}")
    part.write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")
    os.replace(part, path)


def read_cell(cell: Cell, out: Path) -> dict[str, Any] | None:
    """Return the record of a finished cell, or None."""
    try:
        return json.loads(cell.path(out).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _attempt(cell: Cell, out: Path) -> tuple[Cell, dict | None, str]:
    """Run a cell; one method's failure must not end the others."""
    try:
        return cell, run_cell(cell, out), ""
    except Exception as error:
        return cell, None, f"{type(error).__name__}: {error}"


def run_cells(
    cells: Iterable[Cell], out: Path, n_jobs: int, report: Callable[[str], None] = print
) -> dict[str, str]:
    """Run what is not finished; return the problem of each cell that failed."""
    unique = {cell.key: cell for cell in cells}
    todo = [cell for cell in unique.values() if not cell.path(out).exists()]
    if len(todo) < len(unique):
        report(f"{len(unique) - len(todo)} of {len(unique)} cells are finished already.")
    failed = {}
    with _progress(len(todo)) as bar:
        for n, (cell, record, problem) in enumerate(_results(todo, out, n_jobs, bar), start=1):
            if problem:
                failed[cell.key] = problem
                line = f"[{n}/{len(todo)}] {cell}: FAILED, {problem}"
            else:
                best = " ".join(
                    f"{name} UAR {scores['UAR']:.3f}".strip()
                    for name, scores in record["scores"].items()
                )
                line = f"[{n}/{len(todo)}] {cell}: {best} ({record['fit_s']:.0f} s)"
            if bar.disable or problem:
                report(line)
            bar.update()
    return failed


def _results(todo: list[Cell], out: Path, n_jobs: int, bar) -> Iterator:
    if n_jobs == 1:
        for cell in todo:
            bar.set_description(str(cell))
            yield _attempt(cell, out)
        return
    from joblib import Parallel, delayed

    bar.set_description(f"{n_jobs} processes")
    jobs = Parallel(n_jobs=n_jobs, return_as="generator_unordered", pre_dispatch=n_jobs)
    yield from jobs(delayed(_attempt)(cell, out) for cell in todo)


def _progress(total: int):
    from tqdm import tqdm

    return tqdm(total=total, unit="cell", disable=not sys.stderr.isatty() or total == 0)


# ---------------------------------------------------------------- surroundings


def versions() -> dict[str, str]:
    """Versions of what computes."""
    import importlib.metadata

    import skfdan

    names = ("torch", "torchvision", "scikit-learn", "numpy", "scipy")
    found = {name: importlib.metadata.version(name) for name in names}
    return {
        "skfdan": skfdan.__version__,
        "sources": sources_digest(),
        "python": platform.python_version(),
        **found,
    }


@functools.cache
def sources_digest() -> str:
    """Hash the modules of skfdan, which are in no cell's key."""
    import skfdan

    root = Path(skfdan.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f"{file.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()[:12]


@functools.cache
def machine() -> str:
    """Describe processor, cores and GPU."""
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace") if info.exists() else ""
    first = [x.split(":", 1) for x in lines.partition("\n\n")[0].splitlines() if ":" in x]
    known = {key.strip(): value.strip() for key, value in first}
    name = known.get("model name") or platform.processor() or platform.machine()
    # One name is given to processors that round in other ways, which training enlarges.
    kind = [f"{key} {known[key]}" for key in ("cpu family", "model") if key in known]
    kind.append(torch.backends.cpu.get_cpu_capability())
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{platform.system()}, {name} ({', '.join(kind)}), {os.cpu_count()} cores, {gpu}"
