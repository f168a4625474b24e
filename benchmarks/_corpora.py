"""The rows of a benchmark: voices of one corpus, faces of it and of others."""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from skfdan.preprocessing._networks import content_digest
from skfdan.table import as_cells, is_missing, make_table, modality_columns

#: Table of voices, words and faces -> corpora that it can be run on, and what their loaders
#: are told: FDRL reports four classes of IEMOCAP, WavFusion six.
COMPANIONS: dict[str, dict[str, dict]] = {
    "fdrl": {"iemocap": {"label_map": 4}, "meld": {}},
    "wavfusion": {"iemocap": {"label_map": 6}, "meld": {}},
}
#: Columns of a companion's table beside the modalities.
DIALOGUES = ("dialogue", "speaker")
#: Corpora that can be named, and the loader of each in skfdan.datasets.
LOADERS = {
    "ravdess": "load_ravdess",
    "savee": "load_savee",
    "meld": "load_meld",
    "iemocap": "load_iemocap",
    "emodb": "load_emodb",
    "crema_d": "load_crema_d",
    "fer2013": "load_fer2013",
    "folder": "load_folder",
}
#: How they are printed.
TITLES = {
    "ravdess": "RAVDESS",
    "savee": "SAVEE",
    "meld": "MELD",
    "iemocap": "IEMOCAP",
    "emodb": "EmoDB",
    "crema_d": "CREMA-D",
    "fer2013": "FER2013",
    "folder": "folder",
}
VOICES = ("ravdess", "savee", "meld", "iemocap", "emodb", "crema_d", "folder")
#: Faces that are cropped already: no detector.
CROPPED = ("fer2013",)
#: The faces of the corpus whose voices are tested.
OWN = "own"


class Source(NamedTuple):
    """What to load; hashable, so that a process loads it once."""

    corpus: str
    root: str
    faces: tuple[tuple[str, str], ...] = ()
    face_size: int = 112
    cache: str | None = None
    #: The table of voices, words and faces whose rows are whole utterances; empty for FDAN's.
    companion: str = ""
    #: Frames of a face that a companion table reads.
    n_frames: int = 3


@dataclass
class Corpus:
    """One row a voice or a face picture; in companion tables, one row an utterance.

    These have columns for the dialogue and the speaker as well.

    ``table`` holds visual cells as arrays and audio cells as paths; ``origin``
    says for each row ``"audio"``, ``"own"`` or the name of a faces source, and
    ``parts`` its part of the corpus's official split, if there is one, or its session.
    """

    name: str
    table: pd.DataFrame
    y: np.ndarray
    groups: np.ndarray
    ids: np.ndarray
    origin: np.ndarray
    parts: np.ndarray
    notes: list[str] = field(default_factory=list)
    #: Whether ``groups`` says who speaks, or only tells the voices apart.
    speakers_known: bool = True

    @property
    def heard(self) -> np.ndarray:
        """Which rows are voices."""
        return self.origin == "audio"

    @property
    def classes(self) -> np.ndarray:
        """Emotions of the voices."""
        return np.unique(self.y[self.heard])

    @property
    def title(self) -> str:
        return TITLES[self.name]

    @property
    def modalities(self) -> set[str]:
        """What at least one row has."""
        return {m for m in modality_columns(self.table) if not self.table[m].isna().all()}

    def face_title(self, origin: str) -> str:
        """Whose faces, in print."""
        return self.title if origin == OWN else TITLES[origin]

    def doubled(self) -> list[np.ndarray]:
        """Return the rows of each recording that several voices hold, byte by byte."""
        voices = np.flatnonzero(self.heard)
        digests = [content_digest(Path(self.table["audio"].iloc[row])) for row in voices]
        _, which, counts = np.unique(digests, return_inverse=True, return_counts=True)
        return [voices[which == i] for i in np.flatnonzero(counts > 1)]

    def rows_with(self, faces: tuple[str, ...]) -> np.ndarray:
        """Which rows are voices, or faces of the named origins."""
        return self.heard | np.isin(self.origin, list(faces))

    def fingerprint(self, rows: np.ndarray) -> str:
        """Hash ids, labels, speakers and the content of what the rows hold."""
        digest = hashlib.sha256()
        for row in np.flatnonzero(rows):
            digest.update(f"{self.ids[row]}\t{self.y[row]}\t{self.groups[row]}".encode())
            visual, audio, *words = self.table.iloc[row]
            if audio is not None:
                digest.update(content_digest(Path(audio)).encode())
            if visual is not None:
                digest.update(np.ascontiguousarray(visual).data)
            digest.update("".join(words).encode())
        return digest.hexdigest()[:16]


def parse_faces(text: str) -> tuple[str, str]:
    """Read ``corpus:path``."""
    name, colon, path = text.partition(":")
    if not colon or not path or name not in LOADERS:
        raise ValueError(
            f"--faces {text!r} is not of the form CORPUS:PATH with CORPUS one of "
            f"{', '.join(LOADERS)}; for example fer2013:fer2013.csv."
        )
    return name, path


def check_companion(tables: list[str], corpus: str, faces: list[str]) -> str:
    """Return the table of voices, words and faces that is asked for, or an empty string."""
    asked = [table for table in tables if table in COMPANIONS]
    if not asked:
        return ""
    if len(tables) > 1:
        raise ValueError(
            f"--table {asked[0]} has rows and classes of its own; run it without other tables."
        )
    known = COMPANIONS[asked[0]]
    if corpus not in known:
        raise ValueError(
            f"--table {asked[0]} needs a corpus with words: {' or '.join(known)}, not {corpus}."
        )
    if faces:
        raise ValueError(f"--table {asked[0]} reads whole utterances; it takes no --faces.")
    return asked[0]


def check_source(corpus: str, root: str | None, faces: list[str]) -> tuple[tuple[str, str], ...]:
    """Check what the command line names; return the faces sources."""
    if corpus not in VOICES:
        raise ValueError(f"--corpus {corpus!r} is unknown; choose one of {', '.join(VOICES)}.")
    if root is None:
        raise ValueError(f"--root is missing: the folder into which {corpus} was unpacked.")
    sources = tuple(map(parse_faces, faces))
    names = [name for name, _ in sources]
    if len(set(names)) < len(names):
        raise ValueError(f"--faces names {names} hold one corpus twice; give each once.")
    for option, path in [("--root", root), *(("--faces", path) for _, path in sources)]:
        if not Path(path).expanduser().exists():
            raise FileNotFoundError(f"{option} {path!r} does not exist.")
    return sources


@functools.lru_cache(maxsize=2)
def load(source: Source) -> Corpus:
    """Load voices and faces, and bring their emotions in line."""
    from skfdan import datasets

    if source.companion:
        return _utterances(source)
    bunch = getattr(datasets, LOADERS[source.corpus])(source.root)
    voices = _audio(source.corpus, bunch)
    if not len(voices["ids"]):
        raise ValueError(f"--corpus {source.corpus}: {source.root!r} holds no voice.")
    parts = [_visual(OWN, source.corpus, bunch, source)]
    for name, path in source.faces:
        other = getattr(datasets, LOADERS[name])(path)
        part = _visual(name, name, other, source)
        if not len(part["ids"]):
            raise ValueError(f"--faces {name}:{path} holds no picture and no video.")
        # Only where names meet, since cells are named by the groups too.
        if not _same_people(name, path, source) and np.isin(part["groups"], voices["groups"]).any():
            part["groups"] = np.array([f"{name}:{group}" for group in part["groups"]])
        parts.append(part)

    classes, notes = set(voices["y"]), []
    for part in parts:
        if len(part["ids"]):
            classes &= set(part["y"])
    if len(classes) < 2:
        raise ValueError(
            f"Voices and faces have fewer than two emotions in common: {sorted(classes)}."
        )
    parts.append(voices)
    for part in parts:
        kept = np.isin(part["y"], sorted(classes))
        for emotion in sorted(set(part["y"][~kept])):
            where = "voices" if part is voices else f"faces ({part['origin'][0]})"
            n = int((part["y"] == emotion).sum())
            notes.append(
                f"{n} {where} of the emotion {str(emotion)!r} are left out: "
                "only emotions that all voices and faces have are kept."
            )
        for key in part:
            part[key] = part[key][kept]
    whole = {key: np.concatenate([part[key] for part in parts]) for key in voices}
    table = make_table(visual=whole.pop("visual"), audio=whole.pop("audio"))
    return Corpus(source.corpus, table, notes=notes, speakers_known=bunch.speakers_known, **whole)


def _same_people(name: str, path: str, source: Source) -> bool:
    """Tell whether faces are of the voices' corpus; people of others only share names."""
    if name != source.corpus:
        return False
    # Any corpus may be in a folder.
    places = {Path(place).expanduser().resolve() for place in (path, source.root)}
    return name != "folder" or len(places) == 1


def _utterances(source: Source) -> Corpus:
    """Load utterances whole: voice, words and, where they are read, faces in one row."""
    from skfdan import datasets
    from skfdan.table import is_blank

    options = COMPANIONS[source.companion][source.corpus]
    bunch = getattr(datasets, LOADERS[source.corpus])(source.root, **options)
    table, frame = bunch.table, bunch.frame
    whole = np.array(
        [
            not (is_missing(audio) or is_blank(text))
            for audio, text in zip(table["audio"], table["text"], strict=True)
        ],
        dtype=bool,
    )
    rows = np.flatnonzero(whole)
    if not len(rows):
        raise ValueError(f"--corpus {source.corpus}: {source.root!r} holds no voice with words.")
    notes = []
    if len(rows) < len(whole):
        notes.append(f"{len(whole) - len(rows)} utterances without voice or words are left out.")
    faces = [None] * len(rows)
    if source.companion == "wavfusion":
        faces = _face_sequences(table["visual"].iloc[rows], source)
    column = "session" if source.corpus == "iemocap" else "split"
    frame = frame.iloc[rows]
    utterances = make_table(
        visual=faces, audio=as_cells(table["audio"])[rows], text=as_cells(table["text"])[rows]
    )
    # MELD's numbers start anew in each part.
    utterances["dialogue"] = (
        frame[column].astype(str) + " " + frame["dialogue"].astype(str)
    ).to_numpy()
    utterances["speaker"] = frame["speaker"].to_numpy()
    return Corpus(
        source.corpus,
        utterances,
        y=np.asarray(bunch.target)[rows].astype(str),
        groups=np.asarray(bunch.groups)[rows].astype(str),
        ids=np.array([f"{source.corpus}/{clip}" for clip in frame["clip"]]),
        origin=np.array(["audio"] * len(rows)),
        parts=frame[column].to_numpy().astype(str),
        notes=notes,
        speakers_known=bunch.speakers_known,
    )


def _face_sequences(cells: pd.Series, source: Source) -> np.ndarray:
    """Return the faces of every clip, of shape (frames, 3, H, W), or None without video."""
    from skfdan.preprocessing import FaceFrames

    cells = as_cells(cells)
    if all(cell is None for cell in cells):
        return cells
    return FaceFrames(
        n_frames=source.n_frames,
        size=source.face_size,
        on_no_face="center",
        cache_dir=source.cache,
    ).fit_transform(pd.DataFrame({"visual": cells}))[:, 0]


def _audio(corpus: str, bunch) -> dict[str, np.ndarray]:
    heard = [i for i, cell in enumerate(bunch.table["audio"]) if not is_missing(cell)]
    cells = [bunch.table["audio"].iloc[i] for i in heard]
    return _part(corpus, bunch, "audio", heard, [None] * len(heard), cells)


def _visual(origin: str, corpus: str, bunch, source: Source) -> dict[str, np.ndarray]:
    """Every frame of every face is a row."""
    from skfdan.preprocessing import FaceFrames

    cells = as_cells(bunch.table["visual"])
    if all(cell is None for cell in cells):
        return _part(corpus, bunch, origin, [], [], [])
    faces = FaceFrames(
        n_frames=3,
        size=source.face_size,
        on_no_face="center",
        detector=None if corpus in CROPPED else "lbp",
        # Arrays are in memory already: keeping crops of them would only fill the disk.
        cache_dir=source.cache if any(isinstance(c, (str, os.PathLike)) for c in cells) else None,
    ).fit_transform(pd.DataFrame({"visual": cells}))[:, 0]
    rows, pictures, numbers = [], [], []
    for row, cell in enumerate(faces):
        frames = [] if cell is None else list(cell) if cell.ndim == 4 else [cell]
        rows += [row] * len(frames)
        pictures += frames
        numbers += range(1, len(frames) + 1)
    part = _part(corpus, bunch, origin, rows, pictures, [None] * len(rows))
    part["ids"] = np.array(
        [f"{i}/v{k}" for i, k in zip(part["ids"], numbers, strict=True)], dtype=str
    )
    return part


def _part(corpus, bunch, origin, rows, visual, audio) -> dict[str, np.ndarray]:
    kind = "audio" if origin == "audio" else "visual"
    clips = bunch.frame["clip"].to_numpy()[rows]
    # FER2013's parts are of a contest of faces, and no voice of ours is in them.
    official = "split" in bunch.frame and corpus != "fer2013"
    parts = bunch.frame["split"].to_numpy()[rows] if official else [""] * len(rows)
    return {
        "visual": as_cells(visual),
        "audio": as_cells(audio),
        "y": np.asarray(bunch.target)[rows].astype(str),
        "groups": np.asarray(bunch.groups)[rows].astype(str),
        "ids": np.array([f"{kind}/{corpus}/{clip}" for clip in clips], dtype=str),
        "origin": np.array([origin] * len(rows), dtype=str),
        "parts": np.array([str(p) for p in parts], dtype=str),
    }
