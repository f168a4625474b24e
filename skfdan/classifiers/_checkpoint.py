"""The state of a fit in files, from which another process can go on.

One file is replaced after every epoch. What no epoch changes, the weights of frozen backbones, lies
beside it in a second one, which is named by its content and written once.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import joblib
import numpy as np
import skorch
import torch
from sklearn.base import BaseEstimator
from skorch.callbacks import Callback, ParamMapper

from skfdan.classifiers._paths import PathCells
from skfdan.classifiers._samples import Samples
from skfdan.preprocessing._networks import content_digest
from skfdan.preprocessing.cache import NOT_WRITABLE, content_identity
from skfdan.utils.archive import ArchiveError, archive_digest, read_archive, write_archive
from skfdan.utils.identity import code_identity
from skfdan.utils.versions import Version

FILE = "checkpoint.safetensors"
_FROZEN = "checkpoint.frozen-{}.safetensors"
#: Of 1, the one file holds what is frozen, too.
_SCHEMAS = (1, 2)
#: Parameters that change where and how visibly a fit runs, not what it computes.
_INCIDENTAL = frozenset(
    {"verbose", "device", "callbacks", "checkpoint_dir", "n_jobs", "cache_dir", "timeout"}
)
#: Parameters of callbacks on which only what they print depends.
_PRINTED = frozenset({"sink", "verbose"})
#: How a callback says that the fit does not depend on it.
_WATCHING = " set only_watches = True in the class of a callback that changes nothing of the fit,"
#: Parameters that name a file or folder of pretrained weights.
_PLACES = frozenset({"weights", "model", "speech_model", "text_model"})


@dataclass
class Progress:
    """What a training has reached beside its weights; ``best_state`` lacks what is frozen."""

    best: float = -np.inf
    best_state: dict[str, torch.Tensor] | None = None
    best_kept: dict[str, np.ndarray] = field(default_factory=dict)
    waited: int = 0
    stopped: bool = False


class Checkpoint:
    """One fit's files in ``folder``, which nobody else may use meanwhile.

    Parameters
    ----------
    folder : path-like
        Where the files are; ``{fit}`` in it stands for a hash of parameters, data and
        contents, so that the candidates and folds of a search get folders of their
        own.
    identity : dict
        What the fit computes, see :func:`fit_identity`.
    contents : dict of str to str
        Digests of the pretrained weights that it starts from, see :func:`pretrained_contents`.
    """

    def __init__(
        self, folder: str | os.PathLike, identity: dict[str, Any], contents: dict[str, str]
    ):
        named = identity | ({"contents": contents} if contents else {})
        name = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = Path(os.fspath(folder).replace("{fit}", name)).expanduser()
        self.file = self.folder / FILE
        self.identity, self.contents = identity, contents
        self._found: tuple[dict, dict] | None = None
        #: The file of what is frozen, once it is known to be sound, and of what it was made.
        self._frozen: str | None = None
        self._version: Version | None = None

    def __enter__(self) -> Checkpoint:
        from filelock import FileLock, Timeout

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise FileExistsError(
                f"checkpoint_dir={str(self.folder)!r} is a file; give a folder."
            ) from None
        # The operating system frees the lock of a process that is killed.
        self._lock = FileLock(self.folder / ".lock")
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise RuntimeError(
                f"checkpoint_dir={str(self.folder)!r} is in use by another fit. Give each fit a "
                'folder of its own; in a search, "{fit}" in the name does that.'
            ) from None
        except OSError as error:
            # Where nobody can write, nobody need be kept away: a complete fit is returned.
            if error.errno not in NOT_WRITABLE or not self.file.exists():
                raise
        try:
            if self._lock.is_locked:
                for left in self.folder.glob(".checkpoint.*.tmp"):
                    left.unlink(missing_ok=True)  # by a process that was killed while it wrote
            if self.file.exists():
                self._found = self._read()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_) -> None:
        self._lock.release()

    def _read(self) -> tuple[dict, dict]:
        try:
            tensors, facts = read_archive(self.file)
            there, schema = facts.get("identity"), facts.get("schema")
        except ArchiveError as error:
            problem = str(error).rstrip(".")
            raise ArchiveError(f"{problem}. Delete it to train from the start.") from error
        if schema not in _SCHEMAS or not isinstance(there, dict):
            raise ArchiveError(
                f"{str(self.file)!r} has the schema {schema}, and this version of skfdan knows "
                f"{' and '.join(map(str, _SCHEMAS))}. Train on with the version that wrote it, or "
                "delete the file."
            )
        different = _differences(there, self.identity)
        # Not part of the identity: in a folder of its own, a fit goes on where the weights are no
        # longer there.
        before = facts.get("contents", {})
        self.contents = before | self.contents
        different += [
            f"what {name} names has another content now"
            for name, digest in self.contents.items()
            if before.get(name, digest) != digest
        ]
        if different:
            raise ValueError(
                f"checkpoint_dir={str(self.folder)!r} holds another fit: "
                f"{'; '.join(different[:5])}{'; ...' if len(different) > 5 else ''}. Fit with what "
                "was there to go on, give another folder, or delete this one to start anew."
            )
        if facts["versions"] != _versions():
            warnings.warn(
                f"The checkpoint was written with {facts['versions']}, and this is {_versions()}: "
                "the result may differ in the last digits.",
                UserWarning,
                stacklevel=4,
            )
        if facts.get("frozen") is not None:
            tensors |= self._read_frozen(facts["frozen"])
        return tensors, facts

    def _read_frozen(self, name: str) -> dict[str, torch.Tensor]:
        try:
            tensors, _ = read_archive(self.folder / name)
            if name != _frozen_name(tensors):
                raise ArchiveError(f"{str(self.folder / name)!r} is not what its name says")
        except (ArchiveError, FileNotFoundError) as error:
            problem = str(error).rstrip(".")
            raise ArchiveError(
                f"{problem}; {str(self.file)!r} needs it. Delete both to train from the start."
            ) from error
        self._frozen = name
        return tensors

    def start(self, rng: np.random.RandomState) -> np.random.RandomState:
        """Return the generator that the interrupted fit began with, or this one."""
        if self._found is not None:
            tensors, facts = self._found
            rng = _generator(tensors["start"], facts["start"])
        self._start = _generator_state(rng)
        return rng

    def encoder_layers(self) -> dict[str, Any] | None:
        """Return what the interrupted fit had read of pretrained encoders."""
        return None if self._found is None else self._found[1].get("encoder_layers")

    def restore(self, net: Any, batches: Any, schedule: Any) -> Progress:
        """Bring a fit that has just begun to where the interrupted one was."""
        if self._found is None:
            return Progress()
        tensors, facts = self._found
        self._found = None  # its memory is no longer needed
        net.module_.load_state_dict(_below(tensors, "module."))
        if net.criterion_ is not None:
            net.criterion_.load_state_dict(_below(tensors, "criterion."))
        _restore_optimizer(net.optimizer_, _below(tensors, "optimizer."), facts["optimizer"])
        if schedule is not None:
            schedule.load_state_dict(facts["schedule"])
        batches.restore({k: t.numpy() for k, t in _below(tensors, "batches.").items()})
        net.history_ = skorch.history.History(facts["history"])
        net._random_state.set_state(_generator(tensors["rng"], facts["rng"]).get_state())
        torch.set_rng_state(tensors["torch"])
        if "cuda" in tensors and net.device_.startswith("cuda"):
            torch.cuda.set_rng_state(tensors["cuda"], net.device_)
        best = _below(tensors, "best.")
        progress = facts["progress"]
        complete = progress["stopped"] or len(net.history_) >= net.max_epochs
        if complete and net.random_state is None:
            warnings.warn(
                f"checkpoint_dir={str(self.folder)!r} holds this fit, and it is returned: with "
                "random_state=None, nothing tells another one from it. Give a whole number as "
                "random_state, another for every fit, or another folder to train anew.",
                UserWarning,
                stacklevel=5,
            )
        return Progress(
            best=-np.inf if progress["best"] is None else progress["best"],
            best_state={k: t.to(net.device_) for k, t in best.items()} or None,
            best_kept={k: t.numpy() for k, t in _below(tensors, "kept.").items()},
            waited=progress["waited"],
            stopped=progress["stopped"],
        )

    def save(self, net: Any, batches: Any, schedule: Any, progress: Progress) -> None:
        """Put the state after an epoch in place of the last one."""
        optimizer_tensors, optimizer = _optimizer_state(net.optimizer_)
        rng, rng_facts = _generator_state(net._random_state)
        start, start_facts = self._start
        frozen = frozen_state(net.module_)
        parts = {
            "module.": {k: t for k, t in net.module_.state_dict().items() if k not in frozen},
            "criterion.": {} if net.criterion_ is None else net.criterion_.state_dict(),
            "optimizer.": optimizer_tensors,
            "best.": progress.best_state or {},
            "kept.": {k: torch.from_numpy(a) for k, a in progress.best_kept.items()},
            "batches.": {k: torch.from_numpy(a) for k, a in batches.state().items()},
        }
        tensors = {prefix + k: t for prefix, part in parts.items() for k, t in part.items()}
        tensors |= {"start": start, "rng": rng, "torch": torch.get_rng_state()}
        if net.device_.startswith("cuda"):
            tensors["cuda"] = torch.cuda.get_rng_state(net.device_)
        facts = {
            "schema": _SCHEMAS[-1],
            "identity": self.identity,
            "contents": self.contents,
            "versions": _versions(),
            "start": start_facts,
            "rng": rng_facts,
            "optimizer": optimizer,
            "schedule": None if schedule is None else _plain(schedule.state_dict()),
            "history": _plain(net.history_.to_list()),
            "encoder_layers": getattr(net, "encoder_layers_", {}),
            "progress": {
                "best": progress.best if np.isfinite(progress.best) else None,
                "waited": progress.waited,
                "stopped": progress.stopped,
            },
        }
        try:
            # First: what the state needs must be there when it is.
            facts["frozen"] = self._write_frozen(frozen)
            write_archive(self.file, tensors, facts)
            for other in self.folder.glob(_FROZEN.format("*")):
                if other.name != facts["frozen"]:
                    other.unlink(missing_ok=True)
        except OSError as error:
            raise OSError(
                error.errno,
                f"checkpoint_dir: the state after epoch {len(net.history_)} can't be written "
                f"({error.strerror or error}). Make room, or give another folder; the same fit "
                "goes on from the last state that is there",
                str(self.file),
            ) from error

    def _write_frozen(self, state: dict[str, torch.Tensor]) -> str | None:
        """Return the name of the file that holds what is frozen, if anything is."""
        if state and (self._version is None or not self._version.is_of(state.values())):
            tensors = {f"module.{name}": t for name, t in state.items()}
            name = _frozen_name(tensors)
            if name != self._frozen:
                write_archive(self.folder / name, tensors, {})
            self._frozen, self._version = name, Version(state.values())
        return self._frozen if state else None


def frozen_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return those weights and buffers of a network that its training leaves alone."""
    modules = getattr(module, "_frozen", ())  # of networks with backbones
    frozen = {id(t) for m in modules for t in m.state_dict(keep_vars=True).values()}
    state = module.state_dict(keep_vars=True)
    return {name: t for name, t in state.items() if id(t) in frozen}


def _frozen_name(tensors: Mapping[str, torch.Tensor]) -> str:
    return _FROZEN.format(archive_digest(tensors, {})[:16])


def fit_identity(
    estimator: BaseEstimator, samples: Samples, y: np.ndarray, groups: Any
) -> dict[str, Any]:
    """Say what a fit computes: its parameters, and a hash of each part of the data."""
    data = {m: _hash_samples(samples[m]) for m in sorted(samples)}
    data["labels"] = _hash_values(y)
    if groups is not None:
        data["groups"] = _hash_values(np.asarray(groups))
    parameters = {
        # Of an estimator, the parameters stand beside it.
        name: type(value).__name__ if isinstance(value, BaseEstimator) else _text(value)
        for name, value in estimator.get_params(deep=True).items()
        if name.rsplit("__", 1)[-1] not in _INCIDENTAL
    }
    if callbacks := _computing(estimator.callbacks):
        parameters["callbacks"] = f"[{', '.join(callbacks)}]"
    return {"classifier": type(estimator).__name__, "parameters": parameters, "data": data}


def _computing(callbacks: list | None) -> list[str]:
    """Say what those callbacks do on which a fit may depend."""
    found = []
    for entry in callbacks or []:
        callback = entry[1] if isinstance(entry, (list, tuple)) else entry
        if callback is None:
            continue
        kind = callback if isinstance(callback, type) else type(callback)
        if kind.__module__ == "skorch.callbacks.logging" or getattr(kind, "only_watches", False):
            continue
        given = "" if isinstance(callback, type) else _arguments(callback)
        name = f"{kind.__module__}.{kind.__qualname__}"
        # Of the code of skorch's own the name tells enough.
        code = "" if name.startswith("skorch.") else f" ({_code(kind, name, _WATCHING)})"
        found.append(f"{name}{code}({given})")
    return found


def _arguments(callback: Callback) -> str:
    if isinstance(callback, ParamMapper):
        # It puts others in the place of its parameters when it is first used.
        callback = copy.deepcopy(callback)
        callback.initialize()
    given = sorted(callback.get_params(deep=False).items())
    return ", ".join(f"{name}={_text(value)}" for name, value in given if name not in _PRINTED)


def pretrained_contents(estimator: BaseEstimator) -> dict[str, str]:
    """Return digests of the weights of others that a fit starts from, as far as they are here."""
    found = {}
    for name, value in estimator.get_params(deep=True).items():
        if name.rsplit("__", 1)[-1] in _PLACES and isinstance(value, (str, os.PathLike)):
            place = Path(value).expanduser()
            if place.exists():
                found[name] = content_digest(place)
    return found


def _differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    if there["classifier"] != here["classifier"]:
        return [f"it is a {there['classifier']}, not a {here['classifier']}"]
    old, new = there["parameters"], here["parameters"]
    found = [
        f"{name} was {old.get(name, 'not there')}, now {new.get(name, 'not there')}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    if old.get("callbacks") != new.get("callbacks"):
        found.append("a callback counts unless its class has only_watches = True")
    old, new = there["data"], here["data"]
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            word = name if name in ("labels", "groups") else f"{name} cells"
            found.append(f"it was trained on other {word}")
    return found


def _text(value: Any) -> str:
    """Put a parameter into words that are the same in every process."""
    if isinstance(value, np.generic):
        value = value.item()  # grids are often NumPy ranges
    if isinstance(value, (list, tuple)):
        texts = ", ".join(map(_text, value))
        return f"[{texts}]" if isinstance(value, list) else f"({texts})"
    if isinstance(value, dict):
        texts = sorted(f"{_text(k)}: {_text(v)}" for k, v in value.items())
        return f"{{{', '.join(texts)}}}"
    if isinstance(value, BaseEstimator):
        given = sorted(value.get_params(deep=False).items())
        texts = [f"{name}={_text(v)}" for name, v in given if name not in _INCIDENTAL]
        return f"{type(value).__name__}({', '.join(texts)})"
    if isinstance(value, np.random.RandomState):
        # The state before the fit draws from it, which says all that follows.
        return f"RandomState ({joblib.hash(value.get_state())[:16]})"
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if value is None or isinstance(value, (bool, int, float, str, bytes, slice, PurePath)):
        return repr(value)
    kind = type(value)
    owner = value if callable(value) else kind
    name = f"{owner.__module__}.{getattr(owner, '__qualname__', kind.__qualname__)}"
    return f"{name} ({_code(value, name)})"


def _code(value: Any, name: str, more: str = "") -> str:
    code = code_identity(value)
    if code is None:
        raise ValueError(
            f"checkpoint_dir: nothing tells {name} from another such function or object in the "
            f"next session. Give one that is defined at the top of a module,{more} or no "
            "checkpoint_dir."
        )
    return code[:16]


def _hash_samples(samples: Any) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(samples.rows).tobytes())
    if isinstance(samples.cells, PathCells):
        for path in samples.cells.paths:
            try:
                identity = content_identity(path)
            except OSError:
                identity = [str(path)]  # an error that names the row comes when it is read
            digest.update("\0".join(identity).encode(errors="surrogateescape"))
    else:
        for cell in samples.cells:
            digest.update(f"{cell.dtype}{cell.shape}".encode())
            digest.update(np.ascontiguousarray(cell).data)
    return digest.hexdigest()


def _hash_values(values: np.ndarray) -> str:
    text = json.dumps(values.tolist(), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _versions() -> dict[str, str]:
    return {"torch": torch.__version__, "numpy": np.__version__}


def _generator_state(rng: np.random.RandomState) -> tuple[torch.Tensor, list]:
    _, keys, position, has_gauss, gauss = rng.get_state()
    return torch.from_numpy(keys.astype(np.int64)), [int(position), int(has_gauss), float(gauss)]


def _generator(keys: torch.Tensor, facts: list) -> np.random.RandomState:
    rng = np.random.RandomState()
    rng.set_state(("MT19937", keys.numpy().astype(np.uint32), *facts))
    return rng


def _optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict]:
    state = optimizer.state_dict()
    tensors, numbers = {}, {}
    for index, values in state["state"].items():
        for name, value in values.items():
            key = f"{index}.{name}"
            (tensors if torch.is_tensor(value) else numbers)[key] = value
    return tensors, {"numbers": numbers, "param_groups": _plain(state["param_groups"])}


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor], facts: dict
) -> None:
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**facts["numbers"], **tensors}.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    groups = []
    for saved, own in zip(facts["param_groups"], optimizer.param_groups, strict=True):
        # JSON knows no tuples, and Adam's betas are one.
        groups.append(
            {k: tuple(v) if isinstance(own.get(k), tuple) else v for k, v in saved.items()}
        )
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _plain(value: Any) -> Any:
    """Return what JSON can hold of a state dict, or of what callbacks record."""

    def default(v):
        return v.tolist() if hasattr(v, "tolist") else str(v)

    return json.loads(json.dumps(value, default=default))


def _below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
