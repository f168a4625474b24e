"""Pretrained networks of others: where their files lie, what is in them, and loading them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

__all__ = [
    "Network",
    "NetworkError",
    "content_digest",
    "find_bundle",
    "find_folder",
    "is_bundle",
]

_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
_TOKENIZER = ("tokenizer*", "vocab*", "merges.txt", "spiece.model", "sentencepiece*")
_PROCESSOR = ("preprocessor_config.json", "processor_config.json")
_SMALL = ("config.json", *_PROCESSOR, "special_tokens_map.json", *_TOKENIZER)
_SHARDS = "*.index.json"

# Of one or two models many transformers are made (of folds, of candidates), and each may take
# a gigabyte.
_KEPT = 2


class NetworkError(ValueError):
    """A network cannot be loaded or used, whatever the cells."""


class Network(NamedTuple):
    """A network that is loaded when it is first needed.

    Attributes
    ----------
    load : callable
        Place and device to what computes; equal for all networks of a kind.
    place : str
        The folder, or the name of the bundle.
    digest : str
        Hash of the content of its files.
    device : str
        Where it computes.
    """

    load: Callable[[str, str], Any]
    place: str
    digest: str
    device: str

    def get(self) -> Any:
        """Return what computes, loaded once in a process."""
        with _LOADING:
            return _loaded(*self)


_LOADING = threading.Lock()


@functools.lru_cache(maxsize=_KEPT)
def _loaded(load: Callable, place: str, digest: str, device: str) -> Any:
    return load(place, device)


def import_transformers(owner: str) -> Any:
    """Import the package transformers, or say how to get it."""
    # It imports huggingface_hub, which reads this once; someone who has set it has decided.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            f'{owner} needs transformers for this model: pip install "skfdan[transformers]".'
        ) from error
    return transformers


# ------------------------------------------------------------- torchaudio's bundles


def is_bundle(name: Any) -> bool:
    """Tell whether torchaudio has a pipeline of that name that is a wav2vec 2.0."""
    return isinstance(name, str) and name in _bundles()


def _bundles() -> dict[str, Any]:
    from torchaudio import pipelines

    kind = pipelines.Wav2Vec2Bundle
    return {name: bundle for name, bundle in vars(pipelines).items() if isinstance(bundle, kind)}


def find_bundle(owner: str, name: str) -> str:
    """Return the hash of a bundle's file, which is downloaded if it is not there."""
    import torch

    path = _bundles()[name]._path
    url = (
        path
        if path.startswith("https")
        else f"https://download.pytorch.org/torchaudio/models/{path}"
    )
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if not file.is_file():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), progress=False)
        except Exception as error:
            raise RuntimeError(
                f"{owner}: the weights of model={name!r} are not there and could not be "
                f"downloaded ({error}). Download {url} on a machine that is online and put "
                f"{file.name} into the folder {file.parent}, or name a folder with a model in "
                "the format of transformers."
            ) from error
    # The name stands for what the file does not hold: sizes, and how sound is normalised.
    return f"{name} {_file_digest(file)}"


def load_bundle(name: str) -> torch.nn.Module:
    """Load the model of a bundle whose file is there, without a head for words."""
    try:
        # Tensors alone: what a file says is not executed.
        model = _bundles()[name].get_model(
            dl_kwargs={"weights_only": True, "map_location": "cpu", "progress": False}
        )
    except Exception as error:
        raise NetworkError(
            f"The weights of {name} in torch's download cache could not be read ({error}); "
            "delete the file, and download it again."
        ) from error
    getattr(model, "model", model).aux = None
    return model.eval().requires_grad_(False)


# -------------------------------------------------- folders as transformers writes them


def find_folder(
    owner: str, model: str | os.PathLike, *, tokenizer: bool, hub: bool
) -> tuple[str, str]:
    """Return the folder of a model and the hash of what is in it.

    Parameters
    ----------
    owner : str
        Who asks, for messages.
    model : str or path-like
        The folder, or a name on the Hugging Face hub.
    tokenizer : bool
        Whether files of a tokenizer belong to it.
    hub : bool
        Whether names on the hub are known here.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        if not hub or isinstance(model, os.PathLike) or folder.is_absolute() or model[:1] in ".~":
            raise FileNotFoundError(
                f"{owner}: model={str(model)!r}: there is no such folder. {_remedy(tokenizer)}"
            )
        folder = _from_hub(owner, model, tokenizer)
    lacking = _lacking(folder, tokenizer)
    if lacking:
        raise FileNotFoundError(
            f"{owner}: the folder {str(folder)!r} lacks {' and '.join(lacking)}. "
            f"{_remedy(tokenizer)}"
        )
    return str(folder.resolve()), content_digest(folder)


def _remedy(tokenizer: bool) -> str:
    more = "preprocessor_config.json or processor_config.json"
    if tokenizer:
        more = "its tokenizer (tokenizer.json, or vocab.txt, or vocab.json and merges.txt)"
    return (
        f"Give a folder with config.json, model.safetensors or pytorch_model.bin, and {more}, as "
        "save_pretrained of transformers writes it."
    )


def _lacking(folder: Path, tokenizer: bool) -> list[str]:
    wanted = {
        "config.json": ("config.json",),
        "model.safetensors (or pytorch_model.bin)": _WEIGHTS,
    }
    if tokenizer:
        wanted["a tokenizer's files"] = (
            "tokenizer.json",
            "vocab.txt",
            "vocab.json",
            *_TOKENIZER[3:],
        )
    return [
        what
        for what, patterns in wanted.items()
        if not any(path.is_file() for pattern in patterns for path in folder.glob(pattern))
    ]


def _files(folder: Path) -> list[Path]:
    """Return the files on which the results depend, by name."""
    safe, pickled = (sorted(folder.glob(pattern)) for pattern in _WEIGHTS)
    small = {path for pattern in (*_SMALL, _SHARDS) for path in folder.glob(pattern)}
    return sorted(path for path in {*small, *(safe or pickled)} if path.is_file())


def _from_hub(owner: str, name: str, tokenizer: bool) -> Path:
    """Return the folder of a model in the hub's cache, downloaded if it is not there."""
    import_transformers(owner)  # which brings the hub's client
    import huggingface_hub

    def snapshot(weights: str, **where: bool) -> Path:
        patterns = [*_SMALL, weights, _SHARDS]
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns, **where))

    with contextlib.suppress(Exception):  # not in the cache
        folder = snapshot(_WEIGHTS[0], local_files_only=True)
        if not _lacking(folder, tokenizer):
            return folder
    try:
        with _quiet_hub():
            folder = snapshot(_WEIGHTS[0])
            return snapshot(_WEIGHTS[1]) if _lacking(folder, tokenizer) else folder
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        raise RuntimeError(
            f"{owner}: model={name!r} is no folder, and could not be loaded from the Hugging Face "
            f"hub ({type(error).__name__}: {reason[0]}). Run this once with a network, after which "
            f"it is found in the hub's cache; or do without: {_remedy(tokenizer)}"
        ) from error


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    from huggingface_hub import utils

    before = utils.are_progress_bars_disabled()
    utils.disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            utils.enable_progress_bars()


def load_transformers(folder: str) -> torch.nn.Module:
    """Load a model that transformers knows from a folder; none of its weights may be random."""
    transformers = import_transformers("The model")
    try:
        with _quiet(transformers):
            model, info = transformers.AutoModel.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, output_loading_info=True
            )
    except Exception as error:
        raise NetworkError(f"The model in {folder!r} could not be loaded: {error}") from error
    # The first is not computed here, the second for training only.
    drawn = [
        name
        for name in info["missing_keys"]
        if not name.startswith("pooler.") and not name.endswith("masked_spec_embed")
    ]
    if drawn:
        raise NetworkError(
            f"The weights in {folder!r} do not fit its config.json: {len(drawn)} are missing, such "
            f"as {min(drawn)!r}."
        )
    # Some are stored in half precision, and newer versions leave them in it.
    return model.float().eval().requires_grad_(False)


def load_tokenizer(folder: str) -> Any:
    """Load the tokenizer that lies beside a model."""
    transformers = import_transformers("The model")
    try:
        with _quiet(transformers):
            return transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:
        raise NetworkError(f"The tokenizer in {folder!r} could not be loaded: {error}") from error


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Hold back what transformers prints when it loads: a bar, and weights it has no use for."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


# ------------------------------------------------------------------------- contents


def content_digest(place: Path) -> str:
    """Return the hash of a file, or of what is in the folder of a model."""
    if place.is_file():
        return _file_digest(place)
    digest = hashlib.sha256()
    for file in _files(place):
        digest.update(f"{file.name} {_file_digest(file)} ".encode())
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    status = path.stat()
    return _digest_of(str(path.resolve()), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=2**16)
def _digest_of(path: str, size: int, changed: int) -> str:
    # Of half a gigabyte it takes a second, so each state of a file is hashed once in a process.
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
