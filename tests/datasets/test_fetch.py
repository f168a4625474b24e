"""The download, against a server on this machine that knows byte ranges."""

import hashlib
import io
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from skfdan.datasets import _fetch, fetch_ravdess, load_ravdess

AUDIO = "Audio_Speech_Actors_01-24.zip"


def make_zip(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


class Record:
    """A record with files; it remembers requests and can be told to misbehave."""

    def __init__(self):
        self.files = {}
        self.checksums = {}
        self.ranges = True
        self.tells_length = True
        self.stop_after = None
        self.requests = []

    def add(self, name, content):
        self.files[name] = content
        self.checksums[name] = "md5:" + hashlib.md5(content, usedforsecurity=False).hexdigest()

    def to_json(self):
        files = [
            {"key": name, "size": len(content), "checksum": self.checksums[name]}
            for name, content in self.files.items()
        ]
        return json.dumps({"files": files}).encode()

    @property
    def downloads(self):
        """Range headers of the requests for files."""
        return [byte_range for path, byte_range in self.requests if path != "/record"]


@pytest.fixture
def record(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    record = Record()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            byte_range = self.headers.get("Range")
            record.requests.append((self.path, byte_range))
            if self.path == "/record":
                body, status = record.to_json(), 200
            else:
                name = self.path.removeprefix("/record/files/").removesuffix("/content")
                if name not in record.files:
                    self.send_error(404)
                    return
                body, status = record.files[name], 200
            total = len(body)
            start = 0
            if byte_range and record.ranges:
                start, status = int(byte_range.removeprefix("bytes=").rstrip("-")), 206
                body = body[start:]
            self.send_response(status)
            if record.tells_length:
                self.send_header("Content-Length", str(len(body)))
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            self.end_headers()
            if record.stop_after is not None and self.path != "/record":
                body = body[: record.stop_after]
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    record.url = f"http://127.0.0.1:{server.server_address[1]}/record"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield record
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def audio(record):
    """The archive of the sound files, with three and a half mebibytes of sound."""
    noise = np.random.default_rng(0).bytes(7 * 2**19)
    record.add(AUDIO, make_zip({"Actor_01/03-01-05-01-01-01-01.wav": noise}))
    return noise


def left_over(home):
    """Files of the download folder, but for the lock."""
    return sorted(p.name for p in (home / "ravdess-downloads").iterdir() if p.name != "lock")


def test_download(record, audio, tmp_path):
    folder = fetch_ravdess(tmp_path, base_url=record.url)
    assert folder == tmp_path / "ravdess"
    data = load_ravdess(folder)
    assert data.target.tolist() == ["anger"]
    assert data.report.empty
    with open(data.table["audio"][0], "rb") as stream:
        assert stream.read() == audio
    assert record.downloads == [None]
    assert left_over(tmp_path) == []


def test_what_is_there_needs_no_server(record, audio, tmp_path):
    fetch_ravdess(tmp_path, base_url=record.url)
    n = len(record.requests)
    assert fetch_ravdess(tmp_path, base_url=record.url) == tmp_path / "ravdess"
    assert len(record.requests) == n


def test_interrupted_download_is_resumed(record, audio, tmp_path):
    record.stop_after = 5 * 2**19
    with pytest.raises(ConnectionError, match=r"stopped after 2,097,152 of 3,6.*again to continue"):
        fetch_ravdess(tmp_path, base_url=record.url)
    assert left_over(tmp_path) == [f"{AUDIO}.part"]
    assert list((tmp_path / "ravdess").iterdir()) == []
    record.stop_after = None
    data = load_ravdess(fetch_ravdess(tmp_path, base_url=record.url))
    assert record.downloads == [None, "bytes=2097152-"]
    with open(data.table["audio"][0], "rb") as stream:
        assert stream.read() == audio
    assert left_over(tmp_path) == []


def test_interruption_without_a_stated_length(record, audio, tmp_path):
    record.stop_after, record.tells_length = 5 * 2**19, False
    with pytest.raises(ConnectionError, match=r"2,621,440 of .*closed the connection early"):
        fetch_ravdess(tmp_path, base_url=record.url)
    record.stop_after = None
    assert len(load_ravdess(fetch_ravdess(tmp_path, base_url=record.url)).table) == 1
    assert record.downloads == [None, "bytes=2621440-"]


def test_server_without_ranges_starts_anew(record, audio, tmp_path):
    record.stop_after = 5 * 2**19
    with pytest.raises(ConnectionError):
        fetch_ravdess(tmp_path, base_url=record.url)
    record.stop_after, record.ranges = None, False
    assert len(load_ravdess(fetch_ravdess(tmp_path, base_url=record.url)).table) == 1
    assert record.downloads[-1] == "bytes=2097152-"


@pytest.mark.parametrize("extra", [0, 1])
def test_part_as_long_as_the_file_or_longer(record, audio, tmp_path, extra):
    part = tmp_path / "ravdess-downloads" / f"{AUDIO}.part"
    part.parent.mkdir()
    part.write_bytes(record.files[AUDIO] + b"x" * extra)
    assert len(load_ravdess(fetch_ravdess(tmp_path, base_url=record.url)).table) == 1
    assert record.downloads == [None] * extra


def test_wrong_checksum_leaves_nothing(record, audio, tmp_path):
    right = record.checksums[AUDIO]
    record.checksums[AUDIO] = "md5:" + "0" * 32
    with pytest.raises(ValueError, match=r"does not have the checksum md5:0{32}.*again"):
        fetch_ravdess(tmp_path, base_url=record.url)
    assert left_over(tmp_path) == []
    assert list((tmp_path / "ravdess").iterdir()) == []
    record.checksums[AUDIO] = right
    assert len(load_ravdess(fetch_ravdess(tmp_path, base_url=record.url)).table) == 1


def test_corrupt_part_does_not_survive(record, audio, tmp_path):
    part = tmp_path / "ravdess-downloads" / f"{AUDIO}.part"
    part.parent.mkdir()
    part.write_bytes(b"x" * 1000)
    with pytest.raises(ValueError, match="checksum"):
        fetch_ravdess(tmp_path, base_url=record.url)
    assert left_over(tmp_path) == []
    assert len(load_ravdess(fetch_ravdess(tmp_path, base_url=record.url)).table) == 1


@pytest.mark.parametrize("member", ["../evil.wav", "a/../../evil.wav", "/evil.wav", "..\\evil.wav"])
def test_unsafe_archive_is_refused(record, tmp_path, member):
    record.add(AUDIO, make_zip({"Actor_01/03-01-05-01-01-01-01.wav": b"", member: b"x"}))
    with pytest.raises(ValueError, match="outside of its folder"):
        fetch_ravdess(tmp_path / "home", base_url=record.url)
    assert list((tmp_path / "home" / "ravdess").iterdir()) == []
    assert not list(tmp_path.rglob("evil*"))


def test_archive_that_is_none(record, tmp_path):
    record.add(AUDIO, b"<html>Too many requests</html>")
    with pytest.raises(ValueError, match="is no zip archive"):
        fetch_ravdess(tmp_path, base_url=record.url)


def test_interrupted_unpacking_is_done_again(record, audio, tmp_path, monkeypatch):
    def stop(self, path):
        (path / "stale").mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extractall", stop)
        with pytest.raises(KeyboardInterrupt):
            fetch_ravdess(tmp_path, base_url=record.url)
    assert list((tmp_path / "ravdess").iterdir()) == []
    assert len(load_ravdess(fetch_ravdess(tmp_path, base_url=record.url)).table) == 1
    assert not list(tmp_path.rglob("stale"))
    assert record.downloads == [None]


def test_parts(record, audio, tmp_path):
    for i in range(1, 25):
        content = {f"Actor_{i:02d}/01-01-05-01-01-01-{i:02d}.mp4": b""}
        record.add(f"Video_Speech_Actor_{i:02d}.zip", make_zip(content))
    data = load_ravdess(
        fetch_ravdess(tmp_path, parts=["speech-audio", "speech-video"], base_url=record.url)
    )
    assert len(set(data.groups)) == 24
    assert data.table.notna().all(axis=1).sum() == 24
    assert data.table["audio"][0].endswith(".wav")


def test_names_of_archives():
    assert _fetch.RAVDESS_PARTS["speech-audio"] == [AUDIO]
    assert len(_fetch.RAVDESS_PARTS["song-video"]) == 23
    assert "Video_Song_Actor_18.zip" not in _fetch.RAVDESS_PARTS["song-video"]


@pytest.mark.parametrize("parts", [["speech"], "video", []])
def test_unknown_part(tmp_path, parts):
    with pytest.raises(ValueError, match=r"choose of \['speech-audio'"):
        fetch_ravdess(tmp_path, parts=parts)


def test_record_without_the_file(record, tmp_path):
    record.add("other.zip", b"")
    with pytest.raises(ValueError, match=rf"lists no {AUDIO}; it has \['other.zip'\]"):
        fetch_ravdess(tmp_path, base_url=record.url)


def test_server_that_is_away(record, tmp_path):
    with pytest.raises(ConnectionError, match=r"cannot be read.*by hand"):
        fetch_ravdess(tmp_path, base_url=record.url + "/files/nothing")


def test_answer_that_is_no_record(record, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "to_json", lambda: b"[]")
    with pytest.raises(ValueError, match="does not answer with a list of files"):
        fetch_ravdess(tmp_path, base_url=record.url)


def test_progress_can_be_silent(record, audio, tmp_path, capsys):
    fetch_ravdess(tmp_path, base_url=record.url, progress=False)
    assert "MiB" not in capsys.readouterr().err


def test_default_home_is_the_cache_folder(record, audio, tmp_path, monkeypatch):
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / name)
    assert fetch_ravdess(base_url=record.url) == tmp_path / "skfdan" / "ravdess"
