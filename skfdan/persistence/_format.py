"""The two files that make a model: how they are written, and how they are mistrusted."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from skfdan.utils.archive import ArchiveError

SCHEMA = "skfdan-model"
#: Raised whenever older skfdan could not read, or would misread, what is written; a parameter
#: or attribute that comes or goes does so too, with an entry in ``UPGRADES``.
VERSION = 2


def _without_read_files(value: Any) -> Any:
    """Say of every classifier that it is not known whether it learned from files."""
    if isinstance(value, list):
        return [_without_read_files(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    upgraded = {name: _without_read_files(inner) for name, inner in value.items()}
    return upgraded | ({"_read_files": {"@absent": True}} if "_specs" in value else {})


#: What makes a config of version n one of version n + 1.
UPGRADES: dict[int, Callable[[dict], dict]] = {1: _without_read_files}

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FILES = (CONFIG, WEIGHTS, CARD)

#: Python needs some twenty times the bytes of JSON text to hold it: these two bounds keep that
#: to about 30 MiB, whatever a file says.
MAX_CONFIG = 2 * 2**20
MAX_VALUES = 50_000
MAX_DEPTH = 32

_KEYS = ("schema", "version", "skfdan", "libraries", "model", "facts", "weights", "sha256")
_RELEASE = re.compile(r"\d+(\.\d+)*([a-z.+]+\d*[a-z0-9.]*)?", re.ASCII)


class ModelError(ArchiveError):
    """A model folder that can't be trusted or understood; the message names it and says why.

    Examples
    --------
    >>> issubclass(ModelError, ValueError)
    True
    """


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading; no link, which leads elsewhere, and no pipe, which hangs."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        if path.is_symlink():
            raise ModelError(f"{path.name} is a symbolic link; copy the file itself here")
        handle = os.open(path, flags | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise ModelError(
            f"there is no {path.name}; it is no skfdan model, or not all of it"
        ) from None
    except OSError as error:
        raise ModelError(f"{path.name} can't be opened: {error}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ModelError(f"{path.name} is no regular file")
    return os.fdopen(handle, "rb")


def dump(config: dict) -> bytes:
    """Return the one form that a config has as bytes."""
    text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def seal(config: dict) -> bytes:
    """Return a config as bytes, with its own checksum in it."""
    config = {k: v for k, v in config.items() if k != "sha256"}
    raw = dump(config | {"sha256": hashlib.sha256(dump(config)).hexdigest()})
    problem = _size_problem(raw)
    if problem:
        raise ValueError(f"The model can't be saved: its {CONFIG} would have {problem}.")
    return raw


def _size_problem(raw: bytes) -> str | None:
    if len(raw) > MAX_CONFIG:
        return f"more than {MAX_CONFIG} bytes"
    if sum(map(raw.count, (b",", b"[", b"{"))) > MAX_VALUES:
        return f"more than {MAX_VALUES} values"
    return None


def parse(raw: bytes, what: str) -> dict:
    """Return the JSON object that some bytes hold."""

    def refuse(constant: str):
        raise ValueError(f"{constant} is no JSON")

    try:
        value = json.loads(raw.decode(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{what} is damaged: {error!s:.200}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{what} holds no JSON object")
    return value


def read_config(path: Path) -> dict[str, Any]:
    """Return the config of a model folder, if it is exactly what was written."""
    with open_file(path) as file:
        raw = file.read(MAX_CONFIG + 1)
    problem = _size_problem(raw)
    if problem:
        raise ModelError(f"{path.name} has {problem}, which no skfdan model has")
    config = parse(raw, path.name)
    if config.get("schema") != SCHEMA:
        raise ModelError(f"{path.name} does not describe a skfdan model")
    version = config.get("version")
    if type(version) is not int or version < 1:
        raise ModelError(f"{path.name} names no version of its format")
    writer = config.get("skfdan")
    if not isinstance(writer, str) or not _RELEASE.fullmatch(writer) or len(writer) > 40:
        raise ModelError(f"{path.name} does not say which skfdan wrote it")
    if version > VERSION:
        raise ModelError(
            f"it was written by skfdan {writer} in version {version} of the format, and this "
            f'skfdan reads up to version {VERSION}: pip install "skfdan>={writer}"'
        )
    try:
        _check_depth(config)
        unsigned = {k: v for k, v in config.items() if k != "sha256"}
        # The bytes are compared too: a flipped space or a doubled key changes no value.
        if hashlib.sha256(dump(unsigned)).hexdigest() != config.get("sha256") or raw != dump(
            config
        ):
            raise ModelError(f"{path.name} was altered or damaged: its checksum does not match")
    except (ValueError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path.name} is damaged: {error!s:.200}") from error
    for older in range(version, VERSION):
        config = UPGRADES[older](config)
    check_keys(config, _KEYS, path.name)
    return config


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise ModelError(f"its {CONFIG} is nested deeper than {MAX_DEPTH} levels")


def check_keys(value: Any, keys, where: str) -> None:
    """Refuse anything but a dict of exactly these keys."""
    if not isinstance(value, dict):
        raise ModelError(f"{where} holds {value!r:.60} where an object should be")
    missing, unknown = [k for k in keys if k not in value], [k for k in value if k not in keys]
    if missing or unknown:
        what = f"lacks {missing[0]!r}" if missing else f"has the unknown {unknown[0]!r:.60}"
        raise ModelError(f"{where} {what}")
