"""Tensors and plain facts in one file that is checked when it is read.

A safetensors file holds the tensors; its header holds the facts as JSON and a
SHA-256 of everything. Nothing in it can be executed, and reading takes twice the
file's bytes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

__all__ = ["ArchiveError", "archive_digest", "read_archive", "replacing", "write_archive"]


class ArchiveError(ValueError):
    """A file that is not what was written; the message names it.

    Examples
    --------
    >>> issubclass(ArchiveError, ValueError)
    True
    """


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a name to write to; what was written takes the place of ``path`` at once.

    After a crash, the file is either what it was or what it was to become.

    Parameters
    ----------
    path : path-like
        The file; its folder must exist.

    Yields
    ------
    Path
        A file of the same folder, to be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(f"{folder}/a.txt") as temporary:
    ...         _ = temporary.write_text("done")
    ...     Path(folder, "a.txt").read_text()
    'done'
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        # On the disk before the name points to it: a power cut must not leave an empty file.
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_archive(
    path: str | os.PathLike, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]
) -> str:
    """Write tensors and facts to one file, which appears complete or not at all.

    Parameters
    ----------
    path : path-like
        The file; its folder must exist.
    tensors : mapping of str to Tensor
        Tensors, on any device.
    facts : mapping
        What JSON can hold.

    Returns
    -------
    str
        What :func:`archive_digest` says.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     digest = write_archive(f"{folder}/a", {"w": torch.ones(2)}, {"epoch": 3})
    ...     read_archive(f"{folder}/a")
    ({'w': tensor([1., 1.])}, {'epoch': 3})
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # Clones: safetensors refuses two names for one memory, which shared layers have.
    held = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    text = json.dumps(facts, sort_keys=True)
    digest = _digest(held, text)
    with replacing(path) as temporary:
        try:
            save_file(held, temporary, metadata={"facts": text, "sha256": digest})
        except SafetensorError as error:  # of the disk: what is to be written is sound
            number = _errno(error)
            raise OSError(number, os.strerror(number), str(path)) from error
    return digest


def archive_digest(tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> str:
    """Return what tells the content of one archive from that of another.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Tensors, on any device.
    facts : mapping
        What JSON can hold.

    Returns
    -------
    str
        SHA-256 of names, types, shapes and bytes of the tensors and of the facts.

    Examples
    --------
    >>> ones = archive_digest({"w": torch.ones(2)}, {})
    >>> ones == archive_digest({"w": torch.zeros(2)}, {})
    False
    """
    held = {name: t.detach().cpu() for name, t in tensors.items()}
    return _digest(held, json.dumps(facts, sort_keys=True))


def read_archive(path: str | os.PathLike) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read a file of :func:`write_archive`, if it is exactly what was written.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    tensors : dict of str to Tensor
        The tensors, on the CPU.
    facts : dict
        The facts.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ArchiveError
        If the file is cut short, altered or of another kind.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    try:
        # Read at once: another version may take the place of the file at any moment.
        content = path.read_bytes()
        tensors = load(content)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ArchiveError(f"{str(path)!r} is damaged or no safetensors file: {error}") from error
    if not {"facts", "sha256"} <= metadata.keys():
        raise ArchiveError(f"{str(path)!r} is a safetensors file, but none that skfdan wrote.")
    if _digest(tensors, metadata["facts"]) != metadata["sha256"]:
        raise ArchiveError(
            f"{str(path)!r} was altered or damaged after it was written: its checksum does not "
            "match."
        )
    try:
        facts = json.loads(metadata["facts"])
    except (json.JSONDecodeError, RecursionError) as error:
        raise ArchiveError(f"{str(path)!r} holds facts that are no JSON: {error}") from error
    if not isinstance(facts, dict):
        raise ArchiveError(f"{str(path)!r} holds a {type(facts).__name__} where facts should be.")
    return tensors, facts


def _errno(error: Exception) -> int:
    """Return the number of the operating system's error that safetensors tells in words."""
    found = re.search(r"os error (\d+)", str(error))
    return int(found[1]) if found else errno.EIO


def _digest(tensors: Mapping[str, torch.Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        t = tensors[name]
        digest.update(f"\0{name}\0{t.dtype}\0{tuple(t.shape)}\0".encode())
        if t.numel():  # without elements it may have strides that can't be viewed as bytes
            # As bytes: NumPy knows no bfloat16.
            digest.update(t.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
