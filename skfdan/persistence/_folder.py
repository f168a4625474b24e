"""Folders that appear complete or not at all.

A folder that is there and empty is kept and filled, the config last, without which it is no
model: it may be where a disk is mounted, or where a shell stands.
"""

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
#: How the names of folders end that are being written.
_NEW = ".skfdan-new"


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
    if _is_empty(there):
        return
    held = {file.name for file in there.iterdir()}
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
    if _is_current(there):
        raise FileExistsError(
            f"{str(folder)!r} is the current folder, which can't be replaced by another; change "
            "to its parent, or give another folder."
        )


def check_place(folder: Path) -> None:
    """Find out whether a folder can be put there, and leave everything as it was."""
    place = Path(os.path.realpath(folder))
    lacking = [p for p in (place, *place.parents) if not os.path.lexists(p)]
    try:
        with new_folder(folder):
            pass
        if place.is_dir() and not _is_empty(place):
            # What is mounted, or in use, can't be renamed. A crash in between is one of those
            # that find_model knows.
            _remove(_aside(place))
            os.rename(place, _aside(place))
            os.rename(_aside(place), place)
    finally:
        for made in lacking:
            with contextlib.suppress(OSError):
                made.rmdir()


def _is_empty(folder: Path) -> bool:
    """Tell whether a folder is there that holds at most what killed processes have left."""
    if not folder.is_dir():
        return False
    begin = f".{Path(os.path.realpath(folder)).name}."
    return all(n.startswith(begin) and n.endswith(_NEW) for n in os.listdir(folder))


def _is_current(folder: Path) -> bool:
    with contextlib.suppress(OSError):  # the current folder may have been deleted
        return os.path.samefile(folder, os.curdir)
    return False


def _is_model(folder: Path) -> bool:
    with contextlib.suppress(OSError), open(folder / CONFIG, "rb") as file:
        return f'"schema": "{SCHEMA}"'.encode() in file.read(MAX_CONFIG)
    return False


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a folder beside the one to be, or in it if that is there and empty.

    It goes away if it does not become it.
    """
    folder = Path(os.path.realpath(folder))
    place = folder if _is_empty(folder) else folder.parent
    place.mkdir(parents=True, exist_ok=True)
    for left in place.glob(f".{glob.escape(folder.name)}.*{_NEW}"):
        if time.time() - left.stat().st_mtime > _ABANDONED:
            _remove(left)  # by a process that was killed while it saved
    temporary = place / f".{folder.name}.{secrets.token_hex(4)}{_NEW}"
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
    if temporary.parent == folder:
        _fill(temporary, folder)
    else:
        _replace(temporary, folder, aside)
    _remove(aside)


def _fill(temporary: Path, folder: Path) -> None:
    if not _is_empty(folder):
        raise FileExistsError(f"{str(folder)!r} is not empty any more; give another folder.")
    names = sorted((file.name for file in temporary.iterdir()), key=lambda name: name == CONFIG)
    try:
        for name in names:
            os.rename(temporary / name, folder / name)
    except BaseException:
        for name in names:
            (folder / name).unlink(missing_ok=True)
        raise
    _sync(folder)


def _replace(temporary: Path, folder: Path, aside: Path) -> None:
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
