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
#: How often its size a store is asked for before what was not among that counts as out of use.
_AGE = 4
#: Classes that have warned, and of what.
_WARNED: set[tuple[type, str]] = set()
#: What is computed, with the version of the code.
_KIND = "embedding/2"


class EmbeddingStore:
    """Arrays by network and key, of which those give way that the next pass needs least.

    Cells are gone through in the same order again and again. Of more than fit in, that used longest
    ago is then always what is asked for next, and giving it up would leave nothing to be found. So
    the network used longest ago gives way first, and of the network in use only what nobody has
    asked for in long; without such, a new entry is refused.

    Parameters
    ----------
    limit : int
        Bytes to keep.
    """

    def __init__(self, limit: int):
        self.limit = limit
        #: How many entries found no place, or lost theirs to others.
        self.lost = 0
        # Entries with the bytes that had been asked for when each was last used.
        self._networks: OrderedDict[str, OrderedDict[str, tuple[int, np.ndarray]]] = OrderedDict()
        self._bytes = self._asked = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return sum(map(len, self._networks.values()))

    def get(self, network: str, key: str) -> np.ndarray | None:
        """Return an entry, or None."""
        with self._lock:
            if key not in self._networks.get(network, ()):
                return None
            _, value = self._networks[network].pop(key)
            self._use(network, key, value)
            return value

    def put(self, network: str, key: str, value: np.ndarray) -> None:
        """Keep an entry, if there is room for it."""
        with self._lock:
            self._networks.setdefault(network, OrderedDict())
            self._networks.move_to_end(network)
            _, old = self._networks[network].pop(key, (0, None))
            self._bytes -= 0 if old is None else old.nbytes
            room = value.nbytes <= self.limit
            while room and self._bytes + value.nbytes > self.limit:
                room = self._give_up_one(network)
            if room:
                self._bytes += value.nbytes
                self._use(network, key, value)
            else:
                self._asked += value.nbytes
                self.lost += 1

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._networks.clear()
            self._bytes = 0

    def _use(self, network: str, key: str, value: np.ndarray) -> None:
        self._asked += value.nbytes
        self._networks[network][key] = self._asked, value
        self._networks.move_to_end(network)

    def _give_up_one(self, network: str) -> bool:
        """Take out the entry that is needed least, if that is not one in use."""
        oldest, entries = next((n, e) for n, e in self._networks.items() if e)
        key, (used, value) = next(iter(entries.items()))
        if oldest == network and self._asked - used <= _AGE * self.limit:
            return False
        del entries[key]
        if not entries:
            del self._networks[oldest]
        self._bytes -= value.nbytes
        self.lost += 1
        return True


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

    network = _name(context)
    keys = [cache_key(_KIND, context, cell) for cell in cells]
    found: dict[str, np.ndarray] = {}
    new: list[str] = []
    for key in dict.fromkeys(keys):
        value = STORE.get(network, key)
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
        STORE.put(network, key, found[key])
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


def _name(context: dict[str, Any]) -> str:
    """Name the network, and all else that a context holds."""
    return hashlib.sha256(repr(sorted(context.items())).encode()).hexdigest()[:16]


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
    lock = FileLock(folder / f".{_name(context)}.lock")
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
