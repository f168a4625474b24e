"""The clips that visitors have uploaded: which files are theirs, and how long they stay."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

__all__ = ["MAX_REQUEST", "Clips", "with_own_clips_only"]

#: What the page sends beside uploads is a few hundred bytes.
MAX_REQUEST = 2**20
#: The one request whose body is a clip and names none.
_UPLOAD = "/gradio_api/upload"


class Clips:
    """The folder of uploads.

    Gradio names an upload by its content: the same clip of two visitors is one file, which
    goes when nobody shows it nor waits for it any more.

    Parameters
    ----------
    folder : Path
        Where they lie.
    """

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        self._lock = threading.Lock()
        # By visitor: the clip that is shown of each source, and the clips that wait their turn.
        # An upload of the same clip makes the file anew, which its times tell.
        self._shown: dict[str, dict[str, tuple[Path, int]]] = {}
        self._waiting: dict[str, dict[Path, int]] = {}

    def find(self, path: object) -> Path | None:
        """Return an upload's file; None for every other file, for addresses and nonsense."""
        if not isinstance(path, str):
            return None
        try:
            given = Path(path)
            found = given.resolve()
        except (OSError, ValueError, RuntimeError):  # such as a zero byte, or links in a circle
            return None
        inside = found.is_relative_to(self.folder) and found != self.folder
        return found if given.is_absolute() and inside else None

    def expect(self, visitor: str, clip: Path) -> None:
        """Keep a clip that a visitor has asked about, until its turn comes."""
        made = _made(clip)
        if made is not None:
            with self._lock:
                self._waiting.setdefault(visitor, {})[clip] = made

    def show(self, visitor: str, source: str, clip: Path | None) -> None:
        """Put a clip in the place of the one that a visitor has shown before, which may go."""
        with self._lock:
            made = self._waiting.get(visitor, {}).pop(clip, None)
            before = self._shown.setdefault(visitor, {}).pop(source, None)
            if clip is not None:
                self._shown[visitor][source] = clip, _made(clip) if made is None else made
            if before is not None:
                self._drop(*before)

    def forget(self, visitor: str) -> None:
        """Let everything of a visitor go."""
        with self._lock:
            clips = [
                *self._shown.pop(visitor, {}).values(),
                *self._waiting.pop(visitor, {}).items(),
            ]
            for clip in clips:
                self._drop(*clip)

    def _drop(self, clip: Path, made: int | None) -> None:
        used = any(clip == c for clips in self._shown.values() for c, _ in clips.values())
        used = used or any(clip in clips for clips in self._waiting.values())
        # Made anew: somebody has just uploaded the same, and will ask about it.
        if not used and _made(clip) == made:
            clip.unlink(missing_ok=True)

    def remove_old(self, age: float) -> None:
        """Remove what has lain there for so many seconds, such as uploads that broke off."""
        limit = time.time() - age
        with self._lock:
            for file in self.folder.rglob("*"):
                try:
                    if not file.is_dir() and file.lstat().st_mtime < limit:
                        file.unlink()
                except OSError:  # somebody else has removed it
                    continue
            for visitor, clips in list(self._waiting.items()):
                # Not all that was asked for is ever answered.
                self._waiting[visitor] = {c: made for c, made in clips.items() if c.exists()}
                if not self._waiting[visitor]:
                    del self._waiting[visitor]

    def remove_all(self) -> None:
        """Empty the folder."""
        for entry in self.folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def _made(clip: Path) -> int | None:
    try:
        return clip.stat().st_mtime_ns
    except OSError:
        return None


def with_own_clips_only(app, clips: Clips):
    """Refuse requests that name other files than uploads.

    Gradio reads, and of a web address downloads, whatever file a request names, unless it has
    started the server itself. Here no such request reaches it.
    """

    async def wrapped(scope, receive, send):
        asks = scope["type"] == "http" and scope["method"] not in ("GET", "HEAD")
        if not asks or scope["path"] == _UPLOAD:
            await app(scope, receive, send)
            return
        body, more = b"", True
        while more and len(body) <= MAX_REQUEST:
            message = await receive()
            if message["type"] != "http.request":  # whoever asked is gone
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if more or len(body) > MAX_REQUEST:
            await _answer(send, 413, "This request is too long.")
            return
        try:
            request, named = _read(body)
        except (ValueError, RecursionError):
            await _answer(send, 400, "This request is not JSON.")
            return
        found = [clips.find(path) for path in named]
        if None in found:
            await _answer(send, 403, "This request names a file that was not uploaded here.")
            return
        visitor = request.get("session_hash") if isinstance(request, dict) else None
        if isinstance(visitor, str):
            for clip in found:
                clips.expect(visitor, clip)
        bodies = [{"type": "http.request", "body": body, "more_body": False}]

        async def again():
            return bodies.pop() if bodies else await receive()

        await app(scope, again, send)

    return wrapped


def _read(body: bytes) -> tuple[object, list]:
    """Return what a request says, and every path in it, however deep and however often."""
    named = []

    def collect(pairs):
        named.extend(value for key, value in pairs if key == "path")
        return dict(pairs)

    return json.loads(body or b"null", object_pairs_hook=collect), named


async def _answer(send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
