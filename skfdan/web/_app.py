"""The page as a web application. Gradio is given, so that this can be imported without it.

Annotations here are objects and no strings: Gradio looks for its own among them.
"""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

from skfdan.nn.fdan import FUSED
from skfdan.preprocessing._workers import _end_all
from skfdan.web import _page
from skfdan.web._clips import Clips, with_own_clips_only
from skfdan.web._reader import ClipReader

__all__ = ["MAX_BYTES", "make_app"]

#: Ten minutes of sound of CD quality have half of it, a minute of a telephone's video as much.
MAX_BYTES = 200 * 2**20
#: Seconds between two looks for forgotten clips, and those that a clip may stay.
_LOOK, _STAY = 300, 3600

_POLICY = "; ".join(
    [
        # The page asks this machine alone, whatever a library may have in mind.
        "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    ]
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


def make_app(gradio, reader: ClipReader, folder: Path, *, local: bool, hosts=()):
    """Return an ASGI application.

    Parameters
    ----------
    gradio : module
        Gradio.
    reader : ClipReader
        What predicts.
    folder : Path
        Where uploads go, as ``GRADIO_TEMP_DIR`` says too; it is emptied at the end.
    local : bool
        Whether only this machine is to be served.
    hosts : sequence of str
        Names and addresses of this machine that it is called by, beside the usual ones.
    """
    from fastapi import FastAPI

    clips = Clips(folder)

    async def clean():
        while True:
            await asyncio.sleep(_LOOK)
            await asyncio.to_thread(clips.remove_old, _STAY)

    @asynccontextmanager
    async def lifespan(_):
        cleaning = asyncio.create_task(clean())
        yield
        cleaning.cancel()
        # A file that takes long shall not hold up the end.
        await asyncio.to_thread(_end_all)
        await asyncio.to_thread(clips.remove_all)

    plain = {"docs_url": None, "redoc_url": None, "openapi_url": None}
    app = FastAPI(lifespan=lifespan, **plain)
    app = gradio.mount_gradio_app(
        app,
        _blocks(gradio, reader, clips, local),
        path="",
        app_kwargs=plain,
        footer_links=[],
        show_error=False,
        max_file_size=MAX_BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gradio.themes.Default(
            primary_hue="blue", font=["Arial", "sans-serif"], font_mono=["monospace"]
        ),
        css_paths=Path(__file__).with_name("style.css"),
    )
    if local:
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        # A foreign page whose name was made to mean this machine is not served.
        names = {"localhost", "127.0.0.1", "::1", *hosts}
        names |= {f"[{name}]" for name in names}
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=sorted(names))
    return _with_headers(with_own_clips_only(app, clips))


def _blocks(gradio, reader: ClipReader, clips: Clips, local: bool):
    """Return the page itself."""

    def forget(request: gradio.Request) -> None:
        clips.forget(request.session_hash)

    def show(path: str | None, modality: str) -> str:
        if path is None:
            return _page.EMPTY
        try:
            return _page.answer(reader.read(path, modality))
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            # Those that the commands say in one line; another is a defect.
            return _page.answer(_page.Clip(Path(path).name, str(error) or type(error).__name__))

    def taker(source: str):
        def take(path: str | None, modality: str, request: gradio.Request):
            clip = clips.find(path)
            clips.show(request.session_hash, source, clip)
            if path is not None and clip is None:
                return _page.answer(_page.Clip(Path(path).name, "it was not uploaded here")), None
            return show(path, modality), path

        return take

    choices = reader.choices
    known = {"audio", "visual"} if FUSED in choices else set(choices)
    with gradio.Blocks(title="skfdan demo", analytics_enabled=False) as blocks:
        gradio.HTML(_page.header(reader, local=local), apply_default_css=False)
        latest = gradio.State(None)
        sources = {}
        with gradio.Row():
            with gradio.Column(scale=2, min_width=300):
                with gradio.Tabs():
                    with gradio.Tab("File"):
                        sources["file"] = gradio.File(
                            label="Sound or video",
                            height=180,
                            elem_id="file",
                        )
                    if "audio" in known:
                        with gradio.Tab("Microphone"):
                            sources["microphone"] = gradio.Audio(
                                label="Record your voice",
                                sources=["microphone"],
                                type="filepath",
                                editable=False,
                                buttons=[],
                            )
                    if "visual" in known:
                        with gradio.Tab("Camera"):
                            sources["camera"] = gradio.Video(
                                label="Record your face and voice",
                                sources=["webcam"],
                                include_audio=True,
                                webcam_options=gradio.WebcamOptions(mirror=False),
                                buttons=[],
                            )
                modality = gradio.Radio(
                    [(_page.CHOICES[m], m) for m in choices],
                    value=reader.modality if reader.modality in choices else choices[0],
                    label="The model goes by",
                    visible=len(choices) > 1,
                    elem_id="modality",
                )
            with gradio.Column(scale=3, min_width=300):
                shown = gradio.HTML(
                    _page.EMPTY,
                    elem_id="answer",
                    apply_default_css=False,
                    # Screen readers tell what has changed.
                    js_on_load="element.setAttribute('aria-live', 'polite');",
                )
        events = {
            "concurrency_limit": 1,
            "concurrency_id": "clip",
            "api_visibility": "private",
            "trigger_mode": "always_last",
            "show_progress": "full",
            "show_progress_on": shown,
        }
        for name, source in sources.items():
            source.change(taker(name), [source, modality], [shown, latest], **events)
        modality.input(show, [latest, modality], shown, **events)
        blocks.unload(forget)
    # Where Gradio starts the server it sets this itself, and checks the files it is to read.
    blocks.has_launched = True
    return blocks


def _with_headers(app):
    """Add to every answer what browsers are to keep to."""

    async def wrapped(scope, receive, send):
        async def send_more(message):
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        await app(scope, receive, send_more if scope["type"] == "http" else send)

    return wrapped
