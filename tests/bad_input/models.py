"""Saved models, and the hub."""

import importlib
import json
import sys
from contextlib import contextmanager

import pytest
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from bad_input.shared import Case, fdan
from skfdan import load_pretrained, save_pretrained
from skfdan.classifiers import MISAClassifier
from skfdan.nn import make_backbone
from skfdan.persistence import load_from_hub, push_to_hub
from skfdan.persistence._hub import _import_hub
from skfdan.preprocessing import BackboneEmbedding


def own_backbone():
    """Return a network of the user."""
    return make_backbone("cnn", None)


def _spoilt(c: Case, name: str, spoil) -> None:
    folder = c.copy_of_model()
    file = folder / name
    file.write_bytes(spoil(file.read_bytes()))
    load_pretrained(folder)


def _resealed(c: Case, change) -> None:
    """Load a model whose description was changed, with a checksum that fits."""
    from skfdan.persistence._format import seal

    folder = c.copy_of_model()
    config = json.loads((folder / "config.json").read_bytes())
    config.pop("sha256", None)
    change(config)
    (folder / "config.json").write_bytes(seal(config))
    load_pretrained(folder)


def _flip(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


def _pickle_inside(config: dict) -> None:
    config["model"]["class"] = "os.system"


def _newer(config: dict) -> None:
    config |= {"version": 99, "skfdan": "9.0"}


def _other_shape(config: dict) -> None:
    config["model"]["params"]["bottleneck"] = 16


def _with_function(c: Case):
    clf = fdan(backbone=own_backbone, weights=None).fit(c.table, c.y)
    load_pretrained(save_pretrained(clf, c.tmp / "own"))


def _file_of_weights(c: Case):
    clf = c.fitted("vectors", weights="pretrained.pt")
    save_pretrained(clf, c.tmp / "model")


def _embedding_step(c: Case):
    embed = BackboneEmbedding(backbone="cnn", weights=None, input_size=8, verbose=0)
    pipe = make_pipeline(embed, fdan()).fit(c.voices[["audio"]], c.y)
    save_pretrained(pipe, c.tmp / "pipeline")


def _stranger(c: Case):
    folder = c.copy_of_model()
    (folder / "thesis.tex").write_text("years of work")
    save_pretrained(c.fitted("vectors"), folder, overwrite=True)


def _no_package(c: Case):
    c.monkeypatch.setitem(sys.modules, "huggingface_hub", None)


def _hub(c: Case):
    """Return huggingface_hub, or skip; nothing of this machine's settings takes part."""
    pytest.importorskip("huggingface_hub")
    hub = _import_hub()
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        c.monkeypatch.delenv(name, raising=False)
    c.monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    c.monkeypatch.setattr(hub.constants, "HF_TOKEN_PATH", str(c.tmp / "no-token"))
    c.monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(c.tmp / "cache"))
    c.monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    importlib.import_module("huggingface_hub.utils.tqdm")  # keeps what it finds at its import
    c.monkeypatch.setattr(hub.constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    return hub


def _point_at(c: Case, url: str) -> None:
    hub = _hub(c)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    c.monkeypatch.setattr(hub.constants, "ENDPOINT", url)
    c.monkeypatch.setattr(hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    download = importlib.import_module("huggingface_hub.file_download")  # has its own before 1.0
    c.monkeypatch.setattr(download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)


@contextmanager
def _stub(c: Case):
    from persistence.hub_stub import serve

    with serve() as hub:
        _point_at(c, hub.url)
        hub.add("ann/empty", {"README.md": b"nothing"})
        yield hub


def _on_hub(do):
    def case(c: Case):
        with _stub(c):
            do(c)

    return case


def _unreachable(c: Case):
    c.monkeypatch.setattr(_hub(c).constants, "HF_HUB_OFFLINE", True)
    load_from_hub("ann/fdan")


def _no_push_package(c: Case):
    _no_package(c)
    push_to_hub(c.fitted("vectors"), "ann/fdan")


def _no_load_package(c: Case):
    _no_package(c)
    load_from_hub("ann/fdan")


def _no_token(c: Case):
    _hub(c)
    push_to_hub(c.fitted("vectors"), "ann/fdan")


def _bad_id(c: Case):
    _hub(c)
    load_from_hub("fdan")


CASES = {
    "`save_pretrained` of a classifier that is not fitted": lambda c: save_pretrained(
        fdan(), c.tmp / "m"
    ),
    "`save_pretrained` into a folder that is not empty": lambda c: save_pretrained(
        c.fitted("vectors"), c.copy_of_model()
    ),
    "`save_pretrained(overwrite=True)` into a folder with other files": _stranger,
    "`save_pretrained` of a pipeline with a step that can't be stored": lambda c: save_pretrained(
        make_pipeline(SVC()).fit(c.X, c.y), c.tmp / "m"
    ),
    "`save_pretrained` of a pipeline with `BackboneEmbedding`": _embedding_step,
    "`save_pretrained` with `y_true` and `y_pred` of different lengths": lambda c: save_pretrained(
        c.fitted("vectors"), c.tmp / "m", y_true=c.y, y_pred=c.y[:3]
    ),
    "`save_pretrained` of a classifier whose `weights` is a file": _file_of_weights,
    "`load_pretrained` of a folder that is not there": lambda c: load_pretrained(c.tmp / "m"),
    "`load_pretrained` of a folder that holds no model": lambda c: load_pretrained(c.tmp),
    "`load_pretrained` of a model with changed weights": lambda c: _spoilt(
        c, "model.safetensors", _flip
    ),
    "`load_pretrained` of a model with a changed description": lambda c: _spoilt(
        c, "config.json", lambda content: content.replace(b"anger", b"Anger")
    ),
    "`load_pretrained` of a model of a newer format": lambda c: _resealed(c, _newer),
    "`load_pretrained` of a model that asks for other code": lambda c: _resealed(c, _pickle_inside),
    "`load_pretrained` of a model whose parameters do not fit its weights": lambda c: _resealed(
        c, _other_shape
    ),
    "`load_pretrained` of a model with a function of its user": _with_function,
    "`load_pretrained` with a parameter that the model does not have": lambda c: load_pretrained(
        c.model, rate=1
    ),
    "`MISAClassifier.from_pretrained` of another classifier's model": lambda c: (
        MISAClassifier.from_pretrained(c.model)
    ),
    "`push_to_hub` without huggingface_hub": _no_push_package,
    "`load_from_hub` without huggingface_hub": _no_load_package,
    "`push_to_hub` without a token": _no_token,
    "`push_to_hub` with a token that may not write": _on_hub(
        lambda c: push_to_hub(c.fitted("vectors"), "ann/fdan", token="hf_read")
    ),
    "`load_from_hub` with an impossible name": _bad_id,
    "`load_from_hub` without a connection": _unreachable,
    "`load_from_hub` of a repository that is not there": _on_hub(
        lambda c: load_from_hub("ann/none")
    ),
    "`load_from_hub` of a revision that is not there": _on_hub(
        lambda c: load_from_hub("ann/empty", revision="v9")
    ),
    "`load_from_hub` of a repository that holds no model": _on_hub(
        lambda c: load_from_hub("ann/empty")
    ),
}
