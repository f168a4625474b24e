"""A corpus of good, damaged, lying and hostile media files, the same for the same seed.

    python tests/fuzz/mutated_media.py FOLDER --count 2000 --seed 0

writes it, with ``manifest.csv``: file, kind, group (good, mutant or special), source (the good
file it was made from, or itself), for_audio and for_visual (what it may hold), expected ("good":
its result is that of the source; "bad": must be reported; "either": a bit may flip where it does
not matter).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from media_sources import Source, make_sources
from media_specials import SPECIALS

HEADER = 64
ODD_NAMES = (
    "with space{}", "über 漢字 🙂{}", "-i{}", "a%03d{}", "a:b{}", "[x]*?{}", "quote's\"{}",
    "new\nline{}", "http:a{}", "concat:a|b{}", "#hash{}", "no ending", "UPPER{}.WAV", "..a{}",
)  # fmt: skip


def flip(data: bytearray, rng: np.random.Generator, n: int, end: int) -> None:
    for place in rng.integers(0, end, n):
        data[place] ^= 1 << int(rng.integers(8))


def _block(data: bytearray, rng: np.random.Generator) -> slice:
    length = min(len(data), int(2 ** rng.uniform(0, 12)))
    start = int(rng.integers(0, len(data) - length + 1))
    return slice(start, start + length)


def _truncate(data, rng):
    del data[int(rng.integers(1, len(data))) :]


def _zero(data, rng):
    where = _block(data, rng)
    data[where] = bytes(where.stop - where.start)


def _duplicate(data, rng):
    where = _block(data, rng)
    data[where.stop : where.stop] = data[where]


def _delete(data, rng):
    del data[_block(data, rng)]


def _insert(data, rng):
    place = int(rng.integers(0, len(data) + 1))
    data[place:place] = rng.bytes(int(2 ** rng.uniform(0, 12)))


def _magic(data, rng):
    starts = (b"RIFF\0\0\0\0WAVE", b"fLaC", b"OggS", b"\x89PNG", b"\xff\xd8\xff", b"\xff\xfb",
              b"ID3\4", b"\0\0\0\x20ftyp", b"\x1aE\xdf\xa3", b"RIFF\0\0\0\0AVI ", b"GIF89a",
              b"#EXTM3U\n", bytes(12), rng.bytes(12))  # fmt: skip
    start = starts[int(rng.integers(len(starts)))]
    data[: len(start)] = start


def _extreme(data, rng):
    """Write a number that ends a range over 2, 4 or 8 bytes, mostly in the header."""
    width = int(rng.choice([2, 4, 8]))
    end = len(data) - width if rng.random() < 0.3 else min(512, len(data) - width)
    start = int(rng.integers(0, max(end, 1)))
    top = 2 ** (8 * width)
    value = (0, 1, top - 1, top // 2, top // 2 - 1)[int(rng.integers(5))]
    data[start : start + width] = value.to_bytes(width, "little" if rng.random() < 0.5 else "big")


#: What is done to the bytes of a good file.
MUTATIONS = {
    "1 bit in header": lambda data, rng: flip(data, rng, 1, min(HEADER, len(data))),
    "10 bits in header": lambda data, rng: flip(data, rng, 10, min(HEADER, len(data))),
    "1 bit": lambda data, rng: flip(data, rng, 1, len(data)),
    "10 bits": lambda data, rng: flip(data, rng, 10, len(data)),
    "1 % of bytes": lambda data, rng: flip(data, rng, len(data) // 100 + 1, len(data)),
    "cut short": _truncate,
    "zeros": _zero,
    "block twice": _duplicate,
    "block gone": _delete,
    "bytes between": _insert,
    "wrong magic": _magic,
    "extreme number": _extreme,
}


def _mutant(folder: Path, i: int, source: Source, kind: str, rng) -> Path:
    path = folder / f"{i:05d}{source.path.suffix}"
    if source.path.is_dir():
        # One picture of a folder is hit; which frames are read decides what that means.
        shutil.copytree(source.path, path)
        victim = sorted(path.iterdir())[int(rng.integers(len(list(path.iterdir()))))]
    else:
        shutil.copyfile(source.path, path)
        victim = path
    data = bytearray(victim.read_bytes())
    MUTATIONS[kind](data, rng)
    victim.write_bytes(data)
    return path


def _untouched(folder: Path, i: int, source: Source, sources: dict, rng) -> tuple[Path, str]:
    ending, kind = source.path.suffix, "good"
    if not source.path.is_dir() and rng.random() < 0.3:
        ending, kind = str(rng.choice(sorted({s.path.suffix for s in sources.values()}))), "ending"
    name = f"{i:05d}{ending}"
    if rng.random() < 0.3:
        kind += ", name"
        name = f"{i:05d} {ODD_NAMES[int(rng.integers(len(ODD_NAMES)))].format(ending)}"
    path = folder / name
    (shutil.copytree if source.path.is_dir() else shutil.copyfile)(source.path, path)
    return path, kind


def make_corpus(folder: Path, count: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Write the files into a new folder and return the manifest.

    A fifth is good. Specials (``media_specials``) fill up to two fifths, each once; the rest
    are mutations of good files.
    """
    folder = Path(folder).absolute()
    sources = make_sources(folder / "sources")
    files = folder / "files"
    files.mkdir()
    order = np.random.default_rng([seed, count])
    specials = [str(k) for k in order.permutation(sorted(SPECIALS))][: 2 * count // 5]
    kinds = ["good"] * round(count / 5) + [f"special: {k}" for k in specials]
    names, mutations = list(sources), list(MUTATIONS)
    kinds += [mutations[j % len(mutations)] for j in range(count - len(kinds))]
    rows = []
    for i, kind in enumerate(order.permutation(np.array(kinds, dtype=object))):
        rng = np.random.default_rng([seed, i])
        source = sources[names[int(rng.integers(len(names)))]]
        if kind == "good":
            path, kind = _untouched(files, i, source, sources, rng)
            row = (path, kind, "good", source.path, source.audio, source.visual, "good")
        elif kind.startswith("special: "):
            kind = kind.removeprefix("special: ")
            special = SPECIALS[kind]
            path = files / f"{i:05d}{special.ending}"
            special.make(path, sources)
            row = (path, kind, "special", path, special.audio, special.visual, special.expected)
        else:
            path = _mutant(files, i, source, kind, rng)
            row = (path, kind, "mutant", source.path, source.audio, source.visual, "either")
        rows.append(row)
    columns = ["file", "kind", "group", "source", "for_audio", "for_visual", "expected"]
    manifest = pd.DataFrame(rows, columns=columns)
    manifest[["file", "source"]] = manifest[["file", "source"]].map(str)
    manifest.to_csv(folder / "manifest.csv", index=False)
    return manifest


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write a corpus of mutated media files.")
    parser.add_argument("folder", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    manifest = make_corpus(options.folder, options.count, options.seed)
    print(manifest.groupby("expected").size().to_string())


if __name__ == "__main__":
    main()
