"""`skfdan demo --model` as far as no browser is needed, and without Gradio."""

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from skfdan.cli import main
from skfdan.web import _server, serve


@pytest.fixture
def served(monkeypatch):
    """Put something in the place of Gradio and uvicorn; return what was to be served."""
    seen = SimpleNamespace(sockets=[], local=None, folder=None, app=None)

    def make_app(gradio, reader, folder, *, local, hosts):
        seen.reader, seen.folder, seen.local, seen.hosts = reader, folder, local, hosts
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        assert os.environ["GRADIO_RUN_HISTORY"] == "False"
        return "app"

    class Server:
        def __init__(self, config):
            seen.app, seen.config = config

        def run(self, sockets):
            for listener in sockets:
                seen.sockets.append(listener.getsockname())
                socket.create_connection(listener.getsockname()[:2], timeout=5).close()

    uvicorn = SimpleNamespace(Config=lambda app, **settings: (app, settings), Server=Server)
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "uvicorn", uvicorn)
    monkeypatch.setitem(sys.modules, "skfdan.web._app", SimpleNamespace(make_app=make_app))
    return seen


def test_only_this_machine_by_default(served, model, capsys):
    before = dict(os.environ)
    assert main(["demo", "--model", str(model), "--port", "0"]) == 0
    ((address, port),) = served.sockets
    assert address == "127.0.0.1"
    assert served.local is True
    assert served.app == "app"
    out, err = capsys.readouterr()
    assert out == f"The page is at http://127.0.0.1:{port} (Ctrl-C ends it)\n"
    assert err == ""
    assert served.reader.modality == "audio"
    assert not served.folder.exists()
    assert dict(os.environ) == before
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_another_host_is_warned_of(served, model, capsys):
    arguments = ["demo", "--model", str(model), "--port", "0"]
    assert main([*arguments, "--host", "0.0.0.0", "--modality", "fused"]) == 0
    ((address, port),) = served.sockets
    assert address == "0.0.0.0"
    assert served.local is False
    assert served.reader.modality == "fused"
    assert capsys.readouterr().err == (
        f"skfdan: warning: anybody who reaches 0.0.0.0 on port {port} can use this page: it has "
        "no password.\n"
    )
    assert main([*arguments, "--host", "localhost"]) == 0
    assert served.local is True
    assert capsys.readouterr().err == ""


def test_ports(served, model, monkeypatch, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        assert main(["demo", "--model", str(model), "--port", str(taken)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"skfdan: error: can't listen at '127.0.0.1' on port {taken}: ")
        # The usual one may be taken; any will do.
        monkeypatch.setattr(_server, "PORT", taken)
        serve(model)
    assert served.sockets[0][1] not in (0, taken)


def test_a_host_that_is_none(model, capsys):
    for host in ("no such name", "192.0.2.1"):  # an address of nobody
        assert main(["demo", "--model", str(model), "--host", host, "--port", "0"]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"skfdan: error: can't listen at '{host}' on port 0: ")
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize("missing", ["gradio", "uvicorn", "matplotlib"])
def test_what_is_not_installed(model, monkeypatch, capsys, missing):
    for name in ("gradio", "uvicorn"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["demo", "--model", str(model), "--port", "0"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"skfdan: error: the page of skfdan demo --model needs {missing}: pip install "
        '"skfdan[web]".\n'
    )


def test_a_bad_model_is_told_before_anything_else(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    (tmp_path / "empty").mkdir()
    for folder, said in (
        ("nowhere", "there is no folder 'nowhere'"),
        (tmp_path / "empty", "there is no config.json; it is no skfdan model"),
    ):
        assert main(["demo", "--model", str(folder)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("skfdan: error: ")
        assert said in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "7860"], "--port is for the page; give --model too."),
        (["--host", "0.0.0.0"], "--host is for the page; give --model too."),
        (["--modality", "fused"], "--modality is for the page; give --model too."),
        (["--model", "m", "--out", "d"], "--out is for the toy; the page of --model keeps nothing"),
    ],
)
def test_arguments_that_do_not_go_together(capsys, arguments, said):
    assert main(["demo", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"skfdan: error: {said}")


@pytest.mark.parametrize("port", ["http", "-1", "65536"])
def test_a_port_that_is_none(capsys, port):
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--model", "model", "--port", port])
    assert stop.value.code == 2
    assert "is not a whole number from 0 to 65535" in capsys.readouterr().err


def test_the_import_is_light():
    code = "import sys, skfdan.web; print({'gradio', 'uvicorn', 'torch'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert (done.stdout, done.stderr) == ("set()\n", "")
