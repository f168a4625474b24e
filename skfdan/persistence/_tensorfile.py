"""Reading a safetensors file into memory of its own size, once its header makes sense.

The format is a length (8 bytes, little-endian), a header of that length in JSON, and the bytes
of the tensors without a gap. safetensors' own reader maps the file and copies from the map,
which takes twice the memory; writing is left to it.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import torch

from skfdan.persistence._format import ModelError, check_keys, open_file, parse

#: A tensor takes about 100 bytes of it.
_MAX_HEADER = 2**20
_CHUNK = 2**16
_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class TensorFile:
    """The tensors of a file, each to be taken once.

    Parameters
    ----------
    path : Path
        The file.
    size : int
        Its bytes.
    sha256 : str
        Its checksum.

    Raises
    ------
    ModelError
        If it is another file, or none that could be read.
    """

    def __init__(self, path: Path, size: int, sha256: str):
        self._name = path.name
        self._file = open_file(path)
        try:
            found = self._file.seek(0, 2)
            if found != size:
                raise ModelError(f"{path.name} has {found} bytes instead of {size!r:.30}")
            self._file.seek(0)
            if hashlib.file_digest(self._file, "sha256").hexdigest() != sha256:
                raise ModelError(f"{path.name} was altered or damaged: its checksum does not match")
            self._entries = self._read_header(size)
        except BaseException:
            self._file.close()
            raise
        self._left = set(self._entries)

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *error) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._entries)

    def _read_header(self, size: int) -> dict[str, tuple[torch.dtype, tuple[int, ...], int]]:
        self._file.seek(0)
        length = int.from_bytes(self._file.read(8), "little")
        if not 2 <= length <= min(_MAX_HEADER, size - 8):
            raise ModelError(f"{self._name} announces a header of {length} bytes")
        header = parse(self._file.read(length), f"the header of {self._name}")
        header.pop("__metadata__", None)
        entries, spans = {}, []
        for name, entry in header.items():
            where = f"{self._name}: {name!r:.100}"
            check_keys(entry, ("dtype", "shape", "data_offsets"), where)
            dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
            if not isinstance(dtype, str) or dtype not in _TYPES:
                raise ModelError(f"{where} has the type {dtype!r:.60}")
            if not _are_sizes(shape) or len(shape) > 8:
                raise ModelError(f"{where} has the shape {shape!r:.60}")
            if not _are_sizes(offsets) or len(offsets) != 2:
                raise ModelError(f"{where} lies at {offsets!r:.60}")
            if offsets[1] - offsets[0] != math.prod(shape) * _TYPES[dtype].itemsize:
                raise ModelError(f"{where} takes other bytes than its shape {shape} needs")
            entries[name] = _TYPES[dtype], tuple(shape), 8 + length + offsets[0]
            spans.append(offsets)
        end = 0
        for start, stop in sorted(spans):
            if start != end:
                raise ModelError(f"{self._name}: its tensors overlap or leave gaps")
            end = stop
        if 8 + length + end != size:
            raise ModelError(f"{self._name}: its tensors do not fill the file")
        return entries

    def names(self, prefix: str) -> set[str]:
        """Return the names that begin so, of tensors not taken yet."""
        return {name for name in self._left if name.startswith(prefix)}

    def describe(self, name: str) -> tuple[torch.dtype, tuple[int, ...]]:
        """Return type and shape of a tensor."""
        if name not in self._left:
            raise ModelError(f"{self._name} has no tensor {name!r:.100}")
        return self._entries[name][:2]

    def take(self, name: str, finite: bool = True) -> torch.Tensor:
        """Return a tensor in memory of its own."""
        dtype, shape = self.describe(name)
        self._left.remove(name)
        boolean = dtype is torch.bool
        tensor = torch.empty(shape, dtype=torch.uint8 if boolean else dtype)
        if tensor.numel():
            self._file.seek(self._entries[name][2])
            view = memoryview(tensor.reshape(-1).view(torch.uint8).numpy())
            if self._file.readinto(view) != len(view):
                raise ModelError(f"{self._name} changed while it was read")
        # By parts, because the answer for a whole tensor takes as much memory as the tensor.
        parts = tensor.reshape(-1).split(_CHUNK)
        checked = finite and dtype.is_floating_point
        if checked and not all(bool(torch.isfinite(part).all()) for part in parts):
            raise ModelError(f"{self._name}: {name!r:.100} holds NaN or infinite values")
        if boolean:
            if not all(bool((part <= 1).all()) for part in parts):
                raise ModelError(f"{self._name}: {name!r:.100} holds no truth values")
            tensor = tensor.view(torch.bool)
        return tensor

    def check_empty(self) -> None:
        """Refuse a file of which something was not asked for."""
        if self._left:
            raise ModelError(f"{self._name} has the unknown tensor {min(self._left)!r:.100}")


def _are_sizes(values) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**62 for v in values)
