"""What a running page does with requests that no browser of a visitor would send, and with clips
that several visitors have."""

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="needs gradio"),
]

# A look for forgotten clips every second; they may stay for so many.
SERVER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import skfdan.web._reader, skfdan.web._app as app
app._LOOK, app._STAY = 1, float(sys.argv.pop(1))
if sys.argv.pop(1) != "True":
    app.with_own_clips_only = lambda app, clips: app
from skfdan.cli import main
sys.exit(main(sys.argv[1:]))
"""


class Server:
    """`skfdan demo --model` as a process."""

    def __init__(self, model, folder: Path, *, stay=3600.0, host=None, guarded=True):
        self.folder, self.log = folder, folder / "log.txt"
        given = [] if host is None else ["--host", host]
        demo = ["demo", "--model", str(model), "--port", "0", *given]
        own = {"TMPDIR": str(folder), "TORCHINDUCTOR_CACHE_DIR": str(folder / "torch")}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVER, str(stay), str(guarded), *demo],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | own,
                start_new_session=True,
            )
        late = threading.Timer(120, self.process.kill)
        late.start()
        line = self.process.stdout.readline()
        late.cancel()
        assert line.startswith("The page is at "), (line, self.log.read_text())
        self.url = line.split()[4]
        self.visitors = []

    def visitor(self) -> "Visitor":
        self.visitors.append(Visitor(self.url))
        return self.visitors[-1]

    def files(self) -> list[str]:
        """Return the names of the uploads that are there."""
        found = self.folder.glob("skfdan-demo-*/**/*")
        return sorted(f.name for f in found if f.is_file() and f.stat().st_size)

    def end(self) -> None:
        for visitor in self.visitors:
            visitor.client.close()
        self.process.send_signal(signal.SIGINT)
        try:
            assert self.process.wait(60) == 0
        finally:
            self.process.kill()
            self.process.stdout.close()


class Visitor:
    """Somebody who sends what the page's script sends, or something else."""

    def __init__(self, url):
        import httpx

        self.client = httpx.Client(base_url=url, timeout=60)
        self.session = uuid.uuid4().hex
        config = self.client.get("/config").json()
        kinds = {component["id"]: component["type"] for component in config["components"]}
        self.events = {
            (kinds[part], event): dependency["id"]
            for dependency in config["dependencies"]
            for part, event in dependency["targets"]
            if part is not None
        }

    def upload(self, file, name=None) -> str:
        with open(file, "rb") as content:
            files = {"files": (name or Path(file).name, content)}
            (path,) = self.client.post("/gradio_api/upload", files=files).json()
        return path

    def ask(self, cell, kind="file", **more):
        """Ask about a clip; return the answer to the request."""
        request = {"data": [cell, "audio"], "session_hash": self.session, **more}
        request.setdefault("fn_index", self.events[kind, "change"])
        return self.client.post("/gradio_api/queue/join", json=request)

    def wait(self) -> str:
        """Return what the page shows in the end."""
        where = f"/gradio_api/queue/data?session_hash={self.session}"
        with self.client.stream("GET", where) as lines:
            for line in lines.iter_lines():
                if "process_completed" in line:
                    output = json.loads(line.removeprefix("data:"))["output"]
                    return re.sub(r"<[^>]*>|\s+", " ", str(output.get("data", [output])[0]))

    def show(self, path, kind="file") -> str:
        answer = self.ask(None if path is None else cell(path), kind)
        assert answer.status_code == 200, answer.text
        return self.wait()


def cell(path, **more):
    """Return a clip as the page's script names it."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


@pytest.fixture
def start(model, tmp_path):
    servers = []

    def call(**settings):
        folder = tmp_path / str(len(servers))
        folder.mkdir()
        servers.append(Server(model, folder, **settings))
        return servers[-1]

    yield call
    for server in servers:
        server.end()


@pytest.fixture
def other_clip(tmp_path):
    file = tmp_path / "other.wav"
    soundfile.write(file, np.random.default_rng(0).uniform(-0.1, 0.1, 8000), 16000)
    return file


def test_no_file_of_the_machine_is_read(start, clips, tmp_path):
    server = start()
    secret = tmp_path / "secret.wav"
    secret.write_bytes(Path(clips["audio"][0]).read_bytes())
    visitor = server.visitor()
    own = visitor.upload(clips["audio"][0])
    folder = Path(own).parent.parent
    (folder / "link.wav").symlink_to(secret)
    nowhere = [
        str(secret),
        "/dev/zero",
        "/etc/passwd",
        os.path.relpath(secret),
        f"{folder}/../../secret.wav",
        f"{folder}/link.wav",
        str(folder),
        f"{own}/../../link.wav",
        "http://127.0.0.1:9/a.wav",
        "https://127.0.0.1:9/a.wav",
        "file:///etc/passwd",
        f"{own}\0",
        "",
        None,
        7,
        [own],
    ]
    streamed = {"is_stream": True}
    for kind in ("file", "audio", "video"):
        for path in nowhere:
            for more in ({}, streamed):
                answer = visitor.ask(cell(path, **more), kind)
                assert answer.status_code == 403, (kind, path)
                assert answer.text == "This request names a file that was not uploaded here."
    # However deep, and twice under one name.
    for content in (
        '{"data": [[{"path": "/etc/passwd"}]]}',
        '{"data": [{"path": "/etc/passwd", "path": null}]}',
        f'{{"data": [{{"path": {json.dumps(own)}, "path": "/etc/passwd"}}]}}',
        '{"p\\u0061th": "/etc/passwd"}',
    ):
        for where in ("queue/join", "run/predict", "api/take", "call/take", "stream/x", "reset"):
            for kind in ("application/json", "text/plain"):
                answer = visitor.client.post(
                    f"/gradio_api/{where}", content=content, headers={"content-type": kind}
                )
                assert answer.status_code == 403, (where, content)
    for content, status in ((b"{", 400), (b"\xff", 400), (b"[" * 10**5, 400), (b" " * 2**21, 413)):
        assert visitor.client.post("/gradio_api/queue/join", content=content).status_code == status
    with secret.open("rb") as file:
        answer = visitor.client.post("/gradio_api/process_recording", files={"file": file})
    assert answer.status_code == 400
    # A path alone is no clip.
    assert visitor.ask(str(secret)).status_code == 200
    assert "can't be read" not in (said := visitor.wait())
    assert "secret" not in said
    assert server.files() == sorted([Path(own).name, secret.name.replace("secret", "link")])
    assert "anger" in visitor.show(own)


@pytest.mark.long
def test_the_page_itself_checks_too(start, tmp_path):
    """What would be read of a request that got through."""
    server = start(guarded=False)
    visitor = server.visitor()
    secret = tmp_path / "secret.wav"
    secret.write_text("password")
    for more in ({}, {"is_stream": True}):
        assert visitor.ask(cell(str(secret), **more)).status_code == 200
        assert "error" in visitor.wait()
    assert server.files() == []


@pytest.mark.long
def test_the_same_clip_of_two_visitors(start, clips, other_clip):
    server = start()
    wav = clips["audio"][0]
    name = Path(wav).name
    ann, ben, third = (server.visitor() for _ in range(3))
    path = ann.upload(wav)
    assert "voice only" in ann.show(path)
    # Ben's turn has not come yet when Ann's clip goes.
    busy = third.upload(other_clip)
    assert third.ask(cell(busy)).status_code == 200
    assert ben.upload(wav) == path
    assert ben.ask(cell(path)).status_code == 200
    assert "the answer appears here" in ann.show(None)
    assert "voice only" in ben.wait()
    assert name in server.files()
    ben.show(None)
    assert name not in server.files()
    # Nor has he asked.
    assert "voice only" in ann.show(ann.upload(wav))
    ben.upload(wav)
    ann.show(None)
    assert "voice only" in ben.show(path)
    ben.show(None)
    assert server.files() == [other_clip.name]


@pytest.mark.long
def test_what_nobody_follows_up_goes(start, clips):
    server = start(stay=2.0)
    visitor = server.visitor()
    path = visitor.upload(clips["audio"][0])
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as broken_off:
        broken_off.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 99999999\r\n\r\n"
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="me.wav"\r\n\r\n'
            + b"RIFF my voice"
            * 10**5
        )
        time.sleep(0.5)
    assert len(server.files()) == 2
    end = time.monotonic() + 30
    while server.files() and time.monotonic() < end:
        time.sleep(0.2)
    assert server.files() == []
    assert "the clip is no longer there; choose or record it again" in visitor.show(path)


@pytest.mark.long
@pytest.mark.parametrize("host", ["127.0.1.1", "::1", "localhost"])
def test_the_address_it_listens_at_is_answered(start, host):
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
    except OSError as error:
        pytest.skip(str(error))
    server = start(host=host)
    client = server.visitor().client
    assert client.get("/").status_code == 200
    strange = client.get("/", headers={"Host": "elsewhere.example"})
    assert strange.status_code == 400
