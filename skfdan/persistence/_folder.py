"""Folders that appear complete or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from skfdan.persistence._format import CONFIG, FILES, MAX_CONFIG, SCHEMA

#: Seconds after which a folder that nobody has finished is taken as nobody's.
_ABANDONED = 3600


def _aside(folder: Path) -> Path:
    """Return where the old model is while a new one takes its place."""
    folder = Path(os.path.realpath(folder))
    return folder.with_name(f".{folder.name}.skfdan-old")


def find_model(folder: Path) -> Path:
    """Return the folder, or where a crash has left its old model."""
    if folder.is_dir():
        return folder
    if not os.path.lexists(folder) and _aside(folder).is_dir():
        return _aside(folder)
    raise FileNotFoundError(f"there is no folder {str(folder)!r}")


def free_for(folder: Path, overwrite: bool) -> None:
    """Refuse a place where something is that may not go."""
    there = folder if os.path.lexists(folder) else _aside(folder)
    if not os.path.lexists(there):
        return
    if not there.is_dir():
        raise FileExistsError(f"{str(folder)!r} is a file; a model is a folder.")
    held = {file.name for file in there.iterdir()}
    if not held:
        return
    if not overwrite:
        raise FileExistsError(
            f"{str(folder)!r} exists and is not empty; give another folder, or overwrite=True if "
            "it holds a model."
        )
    strange = held.difference(FILES)
    if strange or not _is_model(there):
        what = f"it holds {min(strange)!r}" if strange else f"its {CONFIG} describes none"
        raise FileExistsError(
            f"{str(folder)!r} is not only a skfdan model: {what}. Nothing of others is deleted; "
            "give another folder."
        )


def _is_model(folder: Path) -> bool:
    with contextlib.suppress(OSError), open(folder / CONFIG, "rb") as file:
        return f'"schema": "{SCHEMA}"'.encode() in file.read(MAX_CONFIG)
    return False


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a folder beside the one to be, which goes away if it does not become it."""
    folder = Path(os.path.realpath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.skfdan-new"):
        if time.time() - left.stat().st_mtime > _ABANDONED:
            _remove(left)  # by a process that was killed while it saved
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.skfdan-new")
    temporary.mkdir()
    try:
        yield temporary
    finally:
        _remove(temporary)


def put(temporary: Path, folder: Path) -> None:
    """Let a complete folder take its place; whenever that is interrupted, one is left to load."""
    folder = Path(os.path.realpath(folder))
    aside = _aside(folder)
    for file in (*temporary.iterdir(), temporary):
        _sync(file)
    if os.path.lexists(folder):
        _remove(aside)  # what an earlier crash left; its successor is there
        os.rename(folder, aside)
    try:
        os.rename(temporary, folder)
    except OSError:
        if aside.is_dir():
            with contextlib.suppress(OSError):
                os.rename(aside, folder)
        raise
    _sync(folder.parent)
    _remove(aside)


def _remove(folder: Path) -> None:
    """Remove a model's folder, if it is one and holds nothing else."""
    if folder.is_dir() and not folder.is_symlink():
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()


def _sync(path: Path) -> None:
    """Have a file or the names of a folder on the disk; a power cut may come."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
