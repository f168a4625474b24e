"""Where the page is served, to whom, and for how long."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

__all__ = ["serve"]

#: Gradio's own, which people know.
PORT = 7860
#: Seconds for what is under way at the end; an open page keeps a connection for ever.
_PATIENCE = 1


def serve(model, *, host="127.0.0.1", port=None, modality=None):
    """Serve a page that tells the emotion in clips, until Ctrl-C.

    A visitor records or drops a clip and sees the probability of every emotion, waveform
    and Mel spectrogram, the faces that the model looks at, and which of voice and face it
    went by. The numbers are those of ``skfdan predict``.

    Nothing leaves the machine: neither server nor page ask for anything elsewhere, and the
    page's content security policy forbids it. Clips lie in a temporary folder until they
    are replaced or the page is closed, for about an hour at most; the folder is removed at
    the end. No other file is read, whatever a request names. A clip may have 200 MB, its
    decoding may take 60 s, and :class:`skfdan.preprocessing.DecodeLimits` apply. One clip is
    predicted at a time.

    Parameters
    ----------
    model : path-like
        Folder of a model that ``save_pretrained`` or ``skfdan train`` has saved, or
        ``hf://user/model`` on the Hugging Face Hub.
    host : str, default="127.0.0.1"
        Name or address to listen at. The default can be reached from this machine alone.
        With any other, everybody who reaches it can use the page, as there is no
        password; a warning says so.
    port : int or None, default=None
        Port, 0 for any that is free; None is 7860, or any if that is taken.
    modality : {"audio", "visual", "fused"} or None, default=None
        What the page starts with; None is what the model was saved with. Visitors may
        choose another where the model can.

    Raises
    ------
    ImportError
        Without Gradio or matplotlib.
    FileNotFoundError
        If there is no such folder.
    ModelError
        If it holds no model of skfdan, or one that is no network classifier.
    OSError
        If it is not possible to listen at that host and port.
    ValueError
        If the model can't predict from `modality`.

    Notes
    -----
    The address is printed to the standard output once the page can be opened. At Ctrl-C or
    SIGTERM the function returns. It has to be called from the main thread. Browsers allow
    microphone and camera for pages of the same machine, or with https.

    Examples
    --------
    >>> from skfdan.web import serve
    >>> serve("model")  # doctest: +SKIP
    The page is at http://127.0.0.1:7860 (Ctrl-C ends it)
    """
    from skfdan.web._reader import ClipReader

    # First: what is wrong with a model is said before anything is started.
    reader = ClipReader(model, modality)
    with (
        TemporaryDirectory(prefix="skfdan-demo-", ignore_cleanup_errors=True) as folder,
        _environment(folder),
        _listen(host, port) as listener,
    ):
        _import("matplotlib")
        gradio, uvicorn = _import("gradio"), _import("uvicorn")
        from skfdan.web._app import make_app

        address, port = listener.getsockname()[:2]
        local = ipaddress.ip_address(address).is_loopback
        app = make_app(gradio, reader, Path(folder), local=local, hosts=(host, address))
        if not local:
            warnings.warn(
                f"anybody who reaches {host} on port {port} can use this page: it has no password.",
                UserWarning,
                stacklevel=2,
            )
        config = uvicorn.Config(
            app,
            log_level="critical",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_PATIENCE,
        )
        shown = f"[{host}]" if ":" in host else host
        print(f"The page is at http://{shown}:{port} (Ctrl-C ends it)", flush=True)
        server = uvicorn.Server(config)
        with _ended_by_signals(server):
            server.run(sockets=[listener])


@contextmanager
def _environment(folder: str) -> Iterator[None]:
    """Tell Gradio where uploads go, and to be silent, as long as the page is there."""
    wanted = {
        "GRADIO_TEMP_DIR": folder,
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_RUN_HISTORY": "False",  # from 6.24 on, browsers would keep answers
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _listen(host: str, port: int | None) -> socket.socket:
    """Open the socket here, so that a port that is taken is told in one line."""
    wanted = PORT if port is None else port
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, wanted, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
        try:
            if os.name == "posix":  # elsewhere it would share the port with others
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(address)
            except OSError:
                if port is not None:
                    raise
                listener.bind((address[0], 0, *address[2:]))
            listener.listen(128)
        except BaseException:
            listener.close()
            raise
        return listener
    except (OSError, UnicodeError) as error:  # of a name that is none
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"can't listen at {host!r} on port {wanted}: {reason}.") from error


def _import(name: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f'the page of skfdan demo --model needs {name}: pip install "skfdan[web]".'
        ) from error


@contextmanager
def _ended_by_signals(server) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the server, and nothing else.

    uvicorn stops at either, then sends the signal again to whoever handled it before.
    """

    def end(number, frame) -> None:
        server.should_exit = True

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
