"""What a frozen backbone makes of cells: computed once, kept, and found again by any fit."""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skfdan.utils.identity import code_identity
from skfdan.utils.versions import Version

from .cache import NOT_WRITABLE, FileCache, cache_key

# torch takes seconds to import, and who decodes files needs none.
if TYPE_CHECKING:
    import torch
    from sklearn.base import BaseEstimator

    from skfdan.nn.encoders import EncoderMixin

#: Bytes of embeddings that a process keeps for the fits to come.
STORE_BYTES = 2**30
#: What none of so many passes has used gives way. A fold of a search has up to three, a fit and
#: predictions of its test and training rows.
_PASSES = 4
#: Classes that have warned, and of what.
_WARNED: set[tuple[type, str]] = set()
#: What is computed, with the version of the code.
_KIND = "embedding/2"


class EmbeddingStore:
    """Arrays by key, of which those that no late pass has asked for give way.

    A pass goes through the cells of one call, and the passes of a search go through the same ones
    again and again, in the same order. Of more than fit in, what was used longest ago is then
    always what is asked for next, and giving it up would leave nothing to be found. So what the
    last passes have used stays, and a new entry for which there is no room is refused.

    Parameters
    ----------
    limit : int
        Bytes that all entries may take together.
    """

    def __init__(self, limit: int):
        self.limit = limit
        #: How many entries found no place, or lost theirs to others.
        self.lost = 0
        # Each with the pass that used it last, in the order of their use.
        self._entries: OrderedDict[str, tuple[int, np.ndarray]] = OrderedDict()
        self._bytes = self._pass = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def begin(self) -> int:
        """Begin a pass, and return how many entries were lost before it."""
        with self._lock:
            self._pass += 1
            return self.lost

    def get(self, key: str) -> np.ndarray | None:
        """Return an entry, or None."""
        with self._lock:
            if key not in self._entries:
                return None
            _, value = self._entries.pop(key)
            self._entries[key] = self._pass, value
            return value

    def put(self, key: str, value: np.ndarray) -> None:
        """Keep an entry, if there is room for it."""
        with self._lock:
            _, old = self._entries.pop(key, (0, None))
            self._bytes -= 0 if old is None else old.nbytes
            while self._bytes + value.nbytes > self.limit:
                oldest = next(iter(self._entries), None)
                if oldest is None or self._pass - self._entries[oldest][0] < _PASSES:
                    self.lost += 1
                    return
                self._bytes -= self._entries.pop(oldest)[1].nbytes
                self.lost += 1
            self._bytes += value.nbytes
            self._entries[key] = self._pass, value

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0


STORE = EmbeddingStore(STORE_BYTES)


def embed_distinct(
    cells: Sequence[np.ndarray],
    context: dict[str, Any],
    compute: Callable[[np.ndarray], np.ndarray],
    cache: FileCache | None,
    batch_size: int,
) -> list[np.ndarray]:
    """Return the embedding of every cell, each distinct one computed once.

    Parameters
    ----------
    cells : sequence of n ndarrays
        Cells.
    context : dict
        From :func:`embedding_context`.
    compute : callable
        Takes positions of cells, integers of shape (k,), and returns their embeddings,
        an array (k, ...).
    cache : FileCache or None
        Where they are found, and kept, beside the memory of this process.
    batch_size : int
        Most cells to compute at a time.

    Returns
    -------
    list of n ndarrays
        The embeddings; they belong to the store, and must not be changed.
    """
    import torch

    keys = [cache_key(_KIND, context, cell) for cell in cells]
    found: dict[str, np.ndarray] = {}
    new: list[str] = []
    for key in dict.fromkeys(keys):
        value = STORE.get(key)
        if value is None:
            new.append(key)
            if cache is not None:
                value = cache.find(key)[1]
        if value is not None:
            found[key] = value
    first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in found}
    # Cells of other sizes in a batch would be resized in another way, and a cell's last
    # digits tell what it stood beside.
    groups: dict[tuple[int, ...], list[int]] = {}
    for i in sorted(first.values()):
        groups.setdefault(cells[i].shape, []).append(i)
    size = batch_size
    for missing in groups.values():
        while missing:
            chosen = np.array(missing[:size])
            try:
                block = compute(chosen)
            except torch.OutOfMemoryError:
                if len(chosen) == 1:
                    raise
                size = len(chosen) // 2
                torch.cuda.empty_cache()
                continue
            for i, value in zip(chosen, block, strict=True):
                value = value.copy()  # not a view that keeps the whole block alive
                found[keys[i]] = value
                if cache is not None:
                    cache.fetch(keys[i], lambda value=value: value)
            missing = missing[len(chosen) :]
    for key in new:
        STORE.put(key, found[key])
    return [found[key] for key in keys]


def warn_once(owner: object, what: str, message: str, stacklevel: int) -> None:
    """Warn of something the first time that an object of this class comes upon it."""
    if (type(owner), what) not in _WARNED:
        _WARNED.add((type(owner), what))
        message = f"{type(owner).__name__}: {message}"
        warnings.warn(message, UserWarning, stacklevel=stacklevel + 1)


def warn_of_full_store(owner: BaseEstimator, n_bytes: int, lost: int, stacklevel: int) -> None:
    """Warn where embeddings of so many bytes can't all be found again.

    ``lost`` is what the store had lost before them.
    """
    if n_bytes <= STORE.limit or STORE.lost == lost or owner.cache_dir is not None:
        return
    where = "" if "cache_dir" in owner.get_params(deep=False) else " of BackboneEmbedding before it"
    warn_once(
        owner,
        "full",
        f"the embeddings take {gibibytes(n_bytes)}, and this process keeps "
        f"{gibibytes(STORE.limit)} of them for the fits to come, each of which computes the others "
        f"anew. Set cache_dir={where} to keep all in files.",
        stacklevel + 1,
    )


def gibibytes(n: int) -> str:
    """Write bytes in GiB."""
    return f"{n / 2**30:.2g} GiB"


def run_backbone(
    net: EncoderMixin,
    modality: str,
    x: torch.Tensor,
    device: str,
    threads: AbstractContextManager,
) -> np.ndarray:
    """Send a batch of cells through what is frozen of a backbone, on a device."""
    import torch

    net.to(device).eval()
    with torch.inference_mode(), threads:
        return net.frozen_features(modality, x.to(device)).values.float().cpu().numpy()


def embedding_context(net: EncoderMixin, modality: str, device: str) -> dict[str, Any]:
    """Return all that an embedding depends on beside the cell."""
    import torch

    norm = net.inputs[modality]
    trained_from = net.backbone_trainable or None
    return {
        "weights": _weights_digest(net.backbone_of(modality), trained_from),
        "stop": trained_from,
        "precision": net.precision,
        "size": norm.size,
        "mean": norm.mean.flatten().tolist(),
        "std": norm.std.flatten().tolist(),
        "device": torch.device(device).type,
    }


_DIGESTS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _weights_digest(backbone: torch.nn.Module, trained_from: str | None) -> str:
    """Hash the architecture and weights of what is frozen.

    Hashing a ResNet-34 takes as long as embedding a face, so the result is kept
    until torch counts another change of the weights. Of a network that is not this package's,
    the code counts too, and what it does not save.
    """
    own = type(backbone).__module__.startswith("skfdan.")
    state = backbone.state_dict(keep_vars=True)
    if not own:
        state |= dict(backbone.named_buffers())
    if trained_from is not None:
        stages = backbone.stages
        frozen = {
            id(t)
            for stage in stages[: stages.index(trained_from)]
            for module in backbone.stage_modules(stage)
            for t in module.state_dict(keep_vars=True).values()
        }
        state = {name: t for name, t in state.items() if id(t) in frozen}
    known = _DIGESTS.get(backbone)
    if known is not None and known[0] == trained_from and known[1].is_of(state.values()):
        return known[2]
    # What can't be told from others is found again by nobody.
    code = repr(backbone) if own else code_identity(backbone) or uuid.uuid4().hex
    digest = hashlib.sha256(code.encode())
    for name, tensor in state.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    _DIGESTS[backbone] = trained_from, Version(state.values()), digest.hexdigest()
    return digest.hexdigest()


@contextmanager
def one_at_a_time(folder: str | os.PathLike | None, context: dict[str, Any]) -> Iterator[None]:
    """Hold a lock: two processes that start on a cold folder must not both do the work."""
    if folder is None:
        yield
        return
    from filelock import FileLock

    folder = Path(folder).expanduser()
    name = hashlib.sha256(repr(sorted(context.items())).encode()).hexdigest()[:16]
    lock = FileLock(folder / f".{name}.lock")
    try:
        os.makedirs(folder, exist_ok=True)
        lock.acquire()
    except OSError as error:
        # What is in it serves all the same; if something is missing, writing it will fail.
        if error.errno not in NOT_WRITABLE or not folder.is_dir():
            raise
    try:
        yield
    finally:
        lock.release()
