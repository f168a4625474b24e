"""Download of corpora that may be downloaded without an agreement."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path

from ..utils.progress import progress_bar

#: The public record of RAVDESS, in the form that lists its files and checksums.
RAVDESS_RECORD = "https://zenodo.org/api/records/1188976"

_ACTORS = range(1, 25)
#: Archives of each part. Actor 18 did not sing.
RAVDESS_PARTS = {
    "speech-audio": ["Audio_Speech_Actors_01-24.zip"],
    "song-audio": ["Audio_Song_Actors_01-24.zip"],
    "speech-video": [f"Video_Speech_Actor_{i:02d}.zip" for i in _ACTORS],
    "song-video": [f"Video_Song_Actor_{i:02d}.zip" for i in _ACTORS if i != 18],
}

_CHUNK = 2**20
_TIMEOUT = 60


class ResumingDownloader:
    """A downloader for pooch that continues where an earlier one stopped.

    Parameters
    ----------
    part : Path
        Where the bytes are collected; the file survives an interruption.
    size : int
        Size of the whole file in bytes.
    progress : bool, default=True
        Whether to show a progress bar.
    """

    def __init__(self, part: Path, size: int, progress: bool = True) -> None:
        self.part = part
        self.size = size
        self.progress = progress

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Download ``url`` to ``output_file``, as pooch calls it."""
        import requests

        try:
            self._download(url)
        except (requests.RequestException, OSError) as error:
            raise ConnectionError(
                f"The download of {url} stopped after {self._done():,} of {self.size:,} bytes: "
                f"{error}. What has arrived is kept; call the function again to continue."
            ) from error
        os.replace(self.part, output_file)

    def _done(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _download(self, url: str) -> None:
        import requests

        if self._done() > self.size:
            self.part.unlink()
        start = self._done()
        if start == self.size:
            return
        # Without "identity" a server may compress, and ranges would count other bytes.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            response.raise_for_status()
            # A server that does not know ranges answers 200 and sends the whole file.
            resumed = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            if not (start and response.status_code == 206 and resumed):
                start = 0
            chunks = progress_bar(
                response.iter_content(_CHUNK),
                total=-(-(self.size - start) // _CHUNK),
                desc=self.part.stem,
                unit="MiB",
                verbose=int(self.progress),
            )
            with open(self.part, "ab" if start else "wb") as stream:
                for chunk in chunks:
                    stream.write(chunk)
        if self._done() < self.size:
            raise OSError("the server closed the connection early")


def _list_files(record: str) -> dict[str, dict]:
    """Return the files of a record: name -> {"size": bytes, "checksum": "md5:..."}."""
    import requests

    try:
        response = requests.get(record, timeout=_TIMEOUT)
        response.raise_for_status()
        return {file["key"]: file for file in response.json()["files"]}
    except requests.RequestException as error:
        raise ConnectionError(
            f"The record {record}, which lists the files and their checksums, cannot be read: "
            f"{error}. Check the connection, or download the archives by hand, unpack them into "
            "one folder and pass that folder to load_ravdess."
        ) from error
    except (KeyError, TypeError) as error:
        raise ValueError(f"{record} does not answer with a list of files.") from error


def _unzip(archive: Path, folder: Path) -> None:
    """Unpack an archive so that the folder is there completely or not at all."""
    unfinished = archive.with_suffix("")
    shutil.rmtree(unfinished, ignore_errors=True)
    with zipfile.ZipFile(archive) as stream:
        for name in stream.namelist():
            path = Path(name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or ":" in name:
                raise ValueError(
                    f"{archive} holds {name!r}, which would be written outside of its folder. "
                    "Nothing was unpacked."
                )
        stream.extractall(unfinished)
    os.replace(unfinished, folder)


def fetch_ravdess(
    data_home: str | os.PathLike | None = None,
    *,
    parts: Iterable[str] = ("speech-audio",),
    base_url: str = RAVDESS_RECORD,
    progress: bool = True,
) -> Path:
    """Download RAVDESS from its public record and unpack it.

    The checksums are those that the record publishes. A download that is interrupted
    continues with the next call; archives that are already unpacked are not fetched again.

    Parameters
    ----------
    data_home : path-like or None, default=None
        Folder for corpora; None is the user's cache folder, ``pooch.os_cache("skfdan")``.
    parts : iterable of {"speech-audio", "song-audio", "speech-video", "song-video"}, \
            default=("speech-audio",)
        What to download. Sound takes about 0.2 GB a part, video about 0.5 GB an actor.
    base_url : str, default="https://zenodo.org/api/records/1188976"
        Address of the record, or of a mirror that answers in the same way: the record's
        JSON at ``base_url`` and a file at ``base_url/files/NAME/content``.
    progress : bool, default=True
        Whether to show a progress bar, on a terminal or in a notebook.

    Returns
    -------
    Path
        The folder to pass to :func:`load_ravdess`, ``data_home/ravdess``.

    Raises
    ------
    ConnectionError
        If the server cannot be reached or a download is interrupted.
    ValueError
        If a part is unknown, or a file does not have its checksum or is no safe archive.

    References
    ----------
    S. R. Livingstone and F. A. Russo, "The Ryerson Audio-Visual Database of Emotional
    Speech and Song (RAVDESS)", PLoS ONE 13(5): e0196391, 2018. Licence: CC BY-NC-SA 4.0.

    Examples
    --------
    >>> from skfdan.datasets import fetch_ravdess, load_ravdess
    >>> data = load_ravdess(fetch_ravdess())  # doctest: +SKIP
    """
    import pooch
    from filelock import FileLock

    parts = [parts] if isinstance(parts, str) else list(parts)
    unknown = [part for part in parts if part not in RAVDESS_PARTS]
    if unknown or not parts:
        raise ValueError(f"parts={unknown} are not known; choose of {list(RAVDESS_PARTS)}.")
    home = Path(pooch.os_cache("skfdan") if data_home is None else data_home).expanduser()
    folder = home / "ravdess"
    # Archives and unfinished files stay out of the folder that load_ravdess reads.
    downloads = home / "ravdess-downloads"
    folder.mkdir(parents=True, exist_ok=True)
    downloads.mkdir(exist_ok=True)
    with FileLock(downloads / "lock"):
        names = [name for part in parts for name in RAVDESS_PARTS[part]]
        missing = [name for name in names if not (folder / Path(name).stem).exists()]
        files = _list_files(base_url) if missing else {}
        for name in missing:
            if name not in files:
                raise ValueError(f"{base_url} lists no {name}; it has {sorted(files)}.")
            _fetch_archive(name, files[name], base_url, downloads, folder, progress)
    return folder


def _fetch_archive(
    name: str, file: dict, base_url: str, downloads: Path, folder: Path, progress: bool
) -> None:
    import pooch

    url = f"{base_url.rstrip('/')}/files/{name}/content"
    archive = downloads / name
    try:
        pooch.retrieve(
            url,
            known_hash=file["checksum"],
            fname=name,
            path=downloads,
            downloader=ResumingDownloader(
                downloads / f"{name}.part", size=file["size"], progress=progress
            ),
        )
    except ValueError as error:
        raise ValueError(
            f"{name} from {url} does not have the checksum {file['checksum']} that the record "
            "publishes. The file is deleted; call fetch_ravdess again to download it anew."
        ) from error
    try:
        _unzip(archive, folder / Path(name).stem)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{archive} is no zip archive: {error}. Delete it and try again."
        ) from error
    archive.unlink()
