"""The whole page: a server in a process of its own, and a browser that uploads files."""

import http.client
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
MISSING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="needs chromium, chromium-browser or google-chrome"),
    pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)}"),
]

# The command, with all it asks of the network written down.
SERVER = """
import json, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
log = open(os.environ["ASKED"], "a", buffering=1)
def hook(event, args):
    if event in ("socket.connect", "socket.sendto"):
        print(json.dumps([event, str(args[1][0])]), file=log)
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        print(json.dumps([event, str(args[0])]), file=log)
sys.addaudithook(hook)
from skfdan.cli import main
sys.exit(main(sys.argv[1:]))
"""


class Server:
    """`skfdan demo --model` as a process."""

    def __init__(self, model, folder: Path):
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self.asked = folder / "asked.jsonl"
        self.log = folder / "log.txt"
        # torch makes an empty folder of its own.
        own = {"TMPDIR": self.temporary, "TORCHINDUCTOR_CACHE_DIR": folder, "ASKED": self.asked}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVER, "demo", "--model", str(model), "--port", "0"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | {name: str(path) for name, path in own.items()},
                start_new_session=True,
            )
        late = threading.Timer(120, self.process.kill)
        late.start()
        line = self.process.stdout.readline()
        late.cancel()
        assert line.startswith("The page is at "), (line, self.log.read_text())
        self.url = line.split()[4]

    def files(self) -> list[Path]:
        return [path for path in self.temporary.rglob("*") if path.is_file()]

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            self.process.stdout.close()


@pytest.fixture
def server(model, tmp_path):
    server = Server(model, tmp_path)
    yield server
    if server.process.poll() is None:
        server.end()


@pytest.fixture
def page(server):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.requested = []
        browser.contexts[0].on("request", lambda request: page.requested.append(request.url))
        yield page
        browser.close()


def upload(page, file):
    """Give the page a file and wait for what it says about it."""
    page.set_input_files("#file input[type=file]", str(file))
    name = Path(file).name
    page.wait_for_function(
        "name => document.querySelector('#answer').innerText.includes(name)", arg=name
    )


def shown(page):
    """Return the emotion and the probabilities that are to be read on the page."""
    rows = page.locator("#answer tr").all_inner_texts()
    pairs = (re.fullmatch(r"(\w+)\s+([\d.]+) %", row.strip()).groups() for row in rows)
    return page.locator("#answer h2").inner_text().split()[0], dict(pairs)


def as_shown(line):
    numbers = {label: f"{100 * p:.1f}" for label, p in line["probabilities"].items()}
    return line["emotion"], numbers


def listening(port):
    """Return the local addresses at which something listens to a port, as Linux tells them."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    rows += [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    return {
        r[1].split(":")[0] for r in rows if r[3] == "0A" and int(r[1].split(":")[1], 16) == port
    }


# To another port, so that nothing leaves the machine should it not be refused.
REFUSED = """() => new Promise((done) => {
    document.addEventListener("securitypolicyviolation", (event) => done(event.blockedURI));
    fetch("http://127.0.0.1:9/").catch(() => setTimeout(done, 2000, "sent"));
})"""


def foreign_name(url):
    """Return the status of an answer to somebody who calls this machine by another name."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request("GET", "/", headers={"Host": "elsewhere.example"})
    try:
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.slow
def test_the_page(server, page, clips, predicted, tmp_path):
    wav, mp4 = clips["audio"][0], clips["visual"][1]
    if os.path.exists("/proc/net/tcp6"):
        assert listening(int(server.url.rsplit(":", 1)[1])) == {"0100007F"}

    page.goto(server.url)
    page.wait_for_selector("text=the answer appears here")
    assert page.locator("text=Recognises acted or labelled expressions, not feelings.").is_visible()
    assert page.locator("text=Runs on this machine only; nothing is kept.").is_visible()

    upload(page, wav)
    assert shown(page) == as_shown(predicted(wav))
    assert "voice only" in page.locator("#answer h2").inner_text()
    assert page.locator("#answer img:visible").count() == 1  # waveform and spectrogram
    assert len(server.files()) > 0

    # By keyboard to both, then another file.
    page.get_by_label("Both").focus()
    page.keyboard.press("Space")
    page.wait_for_selector("text=The file has no face; the model goes by the voice alone.")
    page.get_by_label("Clear").click()
    page.wait_for_selector("text=the answer appears here")
    upload(page, mp4)
    assert shown(page) == as_shown(predicted(mp4, "--modality", "fused"))
    assert "voice and face" in page.locator("#answer h2").inner_text()
    assert page.locator("#answer figure img:visible").count() == 3
    assert page.locator("#answer img:visible").count() == 4
    # Nothing but the latest clip is there.
    assert [file.name for file in server.files() if file.stat().st_size] == [Path(mp4).name]

    broken = tmp_path / "notes.wav"
    broken.write_text("These are words.\n" * 20)
    page.get_by_label("Clear").click()
    page.wait_for_selector("text=the answer appears here")
    upload(page, broken)
    alert = page.get_by_role("alert").inner_text()
    assert f"notes.wav: {predicted(broken)['error']}" in alert
    assert page.locator("#answer table").count() == 0

    # A narrow window needs no scrolling to the right.
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390

    # The page asks its own server alone, and the browser holds it to that.
    there = (server.url, "data:", "blob:")
    assert len(page.requested) > 10
    assert [url for url in page.requested if not url.startswith(there)] == []
    assert page.evaluate(REFUSED) == "http://127.0.0.1:9/"
    assert foreign_name(server.url) == 400

    assert server.end() == 0
    asked = [json.loads(line) for line in server.asked.read_text().splitlines()]
    assert ["socket.getaddrinfo", "127.0.0.1"] in asked  # so the log works
    assert [line for line in asked if line[1] != "127.0.0.1"] == []
    assert list(server.temporary.iterdir()) == []
    assert "Traceback" not in server.log.read_text()
