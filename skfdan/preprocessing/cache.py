"""A cache of one file per decoded clip, shared by processes.

``Pipeline(memory=)`` caches ``fit_transform`` only: a grid search would still
decode every test clip at every grid point. Here the unit is the single clip:
an entry is found again by what the clip is and by the parameters that shape
the result, whatever fold or process asks for it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["FileCache", "cache_key", "content_identity"]

#: Numbers of the errors of a folder that may be read alone.
NOT_WRITABLE = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
#: Bytes at either end of a file by which a copy of equal size and time is told from another.
_END = 16 * 1024
_DIGEST_BYTES = hashlib.sha256().digest_size


def content_identity(cell: Any) -> list[str]:
    """Say what a cell holds without decoding it.

    Parameters
    ----------
    cell : path, array or tuple of arrays and numbers
        A cell of a modality table.

    Returns
    -------
    list of str
        For a file: resolved path, size, time of last change and a hash of its first
        and last 16 KiB, since programs that copy files may keep size and time. For a
        folder: the same of every file directly in it. For an array: a hash of type,
        shape and bytes.

    Raises
    ------
    FileNotFoundError
        If the path leads nowhere.
    TypeError
        If an array holds Python objects, whose bytes are addresses.

    Examples
    --------
    >>> content_identity(np.zeros(3)) == content_identity(np.zeros(3))
    True
    >>> content_identity(np.zeros(3)) == content_identity(np.zeros((3, 1)))
    False
    """
    if isinstance(cell, (str, os.PathLike)):
        path = Path(cell).resolve()
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "no such file or folder", str(cell))
        if path.is_dir():
            with os.scandir(path) as entries:
                files = sorted(entry.name for entry in entries if entry.is_file())
            return [str(path), *(":".join([name, *_file_identity(path / name)]) for name in files)]
        return [str(path), *_file_identity(path)]
    if isinstance(cell, tuple):
        return [part for element in cell for part in content_identity(element)]
    array = np.asarray(cell)
    if array.dtype.hasobject:
        raise TypeError(f"cannot hash an array of Python objects (shape {array.shape})")
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return [array.dtype.str, str(array.shape), digest]


def _file_identity(path: Path) -> list[str]:
    """Return size, time of last change and a hash of both ends (0.1 ms)."""
    status, ends = path.stat(), b""
    # To open a pipe may wait for ever; what can't be read is for the decoder to tell.
    if stat.S_ISREG(status.st_mode):
        with contextlib.suppress(OSError), open(path, "rb", buffering=0) as file:
            ends = file.read(_END)
            file.seek(max(len(ends), status.st_size - _END))
            ends += file.read(_END)
    return [str(status.st_size), str(status.st_mtime_ns), hashlib.sha256(ends).hexdigest()]


def cache_key(kind: str, parameters: Mapping[str, Any], cell: Any) -> str:
    """Name the cache entry of one cell under one set of parameters.

    Parameters
    ----------
    kind : str
        What is computed, with the version of the code that computes it.
    parameters : mapping of str to JSON values
        The parameters on which the result depends, and no others.
    cell : path, array or tuple
        The cell; see :func:`content_identity`.

    Returns
    -------
    str
        64 hexadecimal digits.

    Examples
    --------
    >>> key = cache_key("mel/1", {"n_mels": 64}, np.zeros(3))
    >>> key == cache_key("mel/1", {"n_mels": 128}, np.zeros(3))
    False
    """
    # Grids are often numpy ranges: np.int64(64) and 64 name the same entry.
    text = json.dumps(
        [kind, parameters, content_identity(cell)], sort_keys=True, default=lambda v: v.item()
    )
    return hashlib.sha256(text.encode()).hexdigest()


class FileCache:
    """Arrays under a folder, one file each, in 256 sub-folders.

    Entries are ``.npy`` files followed by the SHA-256 of their bytes, put in
    place by one atomic rename. An entry that is cut short or altered does not
    match its hash and is computed anew. Each sub-folder has one lock: whoever
    holds it may compute and write there, so that two processes which start on
    the same cold cache share the work and compute nothing twice. The operating
    system frees the lock of a process that dies.

    Parameters
    ----------
    folder : path-like
        Where entries are kept; made if it does not exist.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = FileCache(folder)
    ...     key = cache_key("squares/1", {}, np.arange(3))
    ...     done, squares = cache.fetch(key, lambda: np.arange(3) ** 2)
    ...     again = cache.fetch(key, None)  # found: nothing to compute
    >>> done, squares, again
    (True, array([0, 1, 4]), (True, array([0, 1, 4])))
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder).expanduser()

    def find(self, key: str) -> tuple[bool, np.ndarray | None]:
        """Return whether there is a sound entry, and the entry.

        Parameters
        ----------
        key : str
            Name of the entry, from :func:`cache_key`.

        Returns
        -------
        found : bool
            Whether it is there.
        value : ndarray or None
            The entry.
        """
        return _read(self.folder / key[:2] / f"{key[2:]}.npy")

    def fetch(
        self, key: str, compute: Callable[[], np.ndarray | None], *, wait: bool = True
    ) -> tuple[bool, np.ndarray | None]:
        """Return an entry, computing it if it is not there.

        Parameters
        ----------
        key : str
            Name of the entry, from :func:`cache_key`.
        compute : callable
            Called without arguments if the entry is absent or damaged; returns
            an array that is not empty, or None for a result that is missing
            (no face found), which is remembered too.
        wait : bool, default=True
            Whether to wait while another process works in the same sub-folder.

        Returns
        -------
        done : bool
            False only if ``wait=False`` and another process is at work; come
            back later.
        value : ndarray or None
            The entry.
        """
        from filelock import FileLock, Timeout

        entry = self.folder / key[:2] / f"{key[2:]}.npy"
        found, value = _read(entry)
        if found:
            return True, value
        entry.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(entry.parent / ".lock")
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            return False, None
        try:
            found, value = _read(entry)  # written while this process waited
            if not found:
                value = compute()
                _write(entry, value)
        finally:
            lock.release()
        return True, value


def _read(entry: Path) -> tuple[bool, np.ndarray | None]:
    """Read an entry; (False, None) if it is absent or not what was written."""
    try:
        content = entry.read_bytes()
    except FileNotFoundError:
        return False, None
    payload, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        return False, None
    value = np.lib.format.read_array(io.BytesIO(payload), allow_pickle=False)
    return True, (None if value.size == 0 else value)


def _write(entry: Path, value: np.ndarray | None) -> None:
    """Put an entry in place at once; the caller holds the lock of its folder."""
    buffer = io.BytesIO()
    missing = np.empty(0, np.uint8)
    np.lib.format.write_array(buffer, missing if value is None else value, allow_pickle=False)
    payload = buffer.getvalue()
    # The lock allows one writer, so one name will do: what a crash leaves
    # behind, the next writer overwrites.
    temporary = entry.parent / ".tmp"
    try:
        temporary.write_bytes(payload + hashlib.sha256(payload).digest())
        os.replace(temporary, entry)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(
            error.errno,
            f"cache_dir: an entry can't be written ({error.strerror or error}). Make room, or "
            "give a folder elsewhere",
            str(entry),
        ) from error
