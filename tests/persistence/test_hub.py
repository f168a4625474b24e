"""push_to_hub and load_from_hub against a stub of the hub on this machine."""

import importlib
import importlib.util
import json
import os
import socket
import sys

import numpy as np
import pytest

import skfdan.persistence as persistence
from persistence import hub_stub
from persistence.hub_stub import READ, WRITE
from skfdan.classifiers import FDANClassifier
from skfdan.persistence import _hub

needs_hub = pytest.mark.skipif(
    importlib.util.find_spec("huggingface_hub") is None,
    reason='needs huggingface_hub: pip install "skfdan[hub]"',
)
FILES = {"config.json", "model.safetensors", "README.md"}
REPO = "ann/fdan"


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = np.repeat(["anger", "joy"], 12)
    return rng.normal(size=(24, 6)) + (y == "joy")[:, None], y


@pytest.fixture(scope="module")
def classifier(data):
    return FDANClassifier(bottleneck=8, max_epochs=2, random_state=0).fit(*data)


@pytest.fixture(scope="module")
def saved(classifier, tmp_path_factory):
    """The files of the classifier, as a repository would have them."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    persistence.save_pretrained(classifier, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def point_at(url, monkeypatch):
    """Do what the environment variable HF_ENDPOINT does, which is read at the first import."""
    hub = _hub._import_hub()
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(hub.constants, "ENDPOINT", url)
    monkeypatch.setattr(hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    download = importlib.import_module("huggingface_hub.file_download")  # has its own before 1.0
    monkeypatch.setattr(download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """No network, and no token, cache, proxy or offline mode of this machine takes part."""
    hub = _hub._import_hub()
    # Before 1.0, a session that was opened offline stays so for whoever comes next.
    forget = getattr(importlib.import_module("huggingface_hub.utils._http"), "reset_sessions", None)
    if forget is not None:
        forget()
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    importlib.import_module("huggingface_hub.utils.tqdm")  # keeps what it finds at its import
    monkeypatch.setattr(hub.constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between huggingface_hub's retries
    point_at(closed_port(), monkeypatch)
    return hub


@pytest.fixture
def stub(alone, monkeypatch):
    with hub_stub.serve() as server:
        point_at(server.url, monkeypatch)
        yield server


# The round trip


@needs_hub
def test_round_trip(stub, classifier, data, tmp_path):
    url = persistence.push_to_hub(classifier, REPO, token=WRITE)
    (commit,) = set(stub.repos[REPO].branches.values())
    assert url == f"{stub.url}/{REPO}/commit/{commit}"
    assert set(stub.files(REPO)) == FILES | {".gitattributes"}
    assert not stub.repos[REPO].private

    loaded = persistence.load_from_hub(REPO, cache_dir=tmp_path / "elsewhere")
    assert type(loaded) is FDANClassifier
    np.testing.assert_array_equal(loaded.predict_proba(data[0]), classifier.predict_proba(data[0]))
    assert (tmp_path / "elsewhere" / "models--ann--fdan").is_dir()
    assert not (tmp_path / "cache").exists()


@needs_hub
def test_push_asks_for_one_commit_with_the_card_and_the_message(stub, classifier):
    stub.add(REPO, {"notes.txt": b"mine"})
    persistence.push_to_hub(
        classifier, REPO, token=WRITE, commit_message="Second try", corpora="Corpus of the test."
    )
    (request,) = stub.asked("POST", "/commit/")
    header = json.loads(request.body.splitlines()[0])
    assert header["value"]["summary"] == "Second try"
    assert b"Corpus of the test." in stub.files(REPO)["README.md"]
    assert stub.files(REPO)["notes.txt"] == b"mine"


@needs_hub
def test_what_its_maker_says_is_read_as_of_a_folder(stub, classifier):
    from skfdan.cli._evaluate import _facts

    persistence.push_to_hub(
        classifier, REPO, token=WRITE, corpora="Corpus of the test.", protocol="none"
    )
    found = {"corpora": "Corpus of the test.", "protocol": "none", "scores": None}
    assert _facts(f"hf://{REPO}") == found


@needs_hub
def test_push_to_a_branch_creates_it_and_leaves_main(stub, classifier, saved):
    stub.add(REPO, {"notes.txt": b"mine"})
    persistence.push_to_hub(classifier, REPO, token=WRITE, revision="v2")
    assert set(stub.files(REPO)) == {"notes.txt"}
    assert set(stub.files(REPO, "v2")) >= FILES
    persistence.push_to_hub(classifier, REPO, token=WRITE, revision="v2")  # exists now
    persistence.load_from_hub(REPO, revision="v2")
    with pytest.raises(ValueError, match=r"ann/fdan was refused: it is no model of skfdan"):
        persistence.load_from_hub(REPO)


@needs_hub
def test_both_files_are_of_one_commit(stub, saved, data, classifier, monkeypatch):
    """A push between two downloads does not mix two models."""
    first = stub.add(REPO, saved)
    resolve = hub_stub._Handler.resolve

    def resolve_then_push(handler, parts):
        resolve(handler, parts)
        if parts[-1] == "config.json":
            stub.commit(REPO, "main", {"model.safetensors": b"newer"})

    monkeypatch.setattr(hub_stub._Handler, "resolve", resolve_then_push)
    loaded = persistence.load_from_hub(REPO)
    assert stub.files(REPO)["model.safetensors"] == b"newer"
    np.testing.assert_array_equal(loaded.predict_proba(data[0]), classifier.predict_proba(data[0]))
    assert {r.path.split("/")[3] for r in stub.requests if "safetensors" in r.path} == {first}


@needs_hub
def test_only_config_and_weights_are_asked_for(stub, saved):
    stub.add(REPO, {**saved, "pickle.pkl": b"evil", "code.py": b"evil", "x/config.json": b"{}"})
    persistence.load_from_hub(REPO, token=READ)
    asked = {request.path.split("/")[-1] for request in stub.requests}
    assert asked == {"config.json", "model.safetensors"}
    assert all(request.method in {"HEAD", "GET"} for request in stub.requests)


@needs_hub
def test_the_loaded_folder_has_real_files_and_parameters_pass_through(stub, saved, monkeypatch):
    """huggingface_hub's cache is made of symbolic links, which load_pretrained need not accept."""
    stub.add(REPO, saved)
    seen = {}

    def load(folder, params):
        seen.update(
            {path.name: (path.is_symlink(), path.read_bytes()) for path in folder.iterdir()}
        )
        return params

    monkeypatch.setattr(_hub, "load", load)
    assert persistence.load_from_hub(REPO, device="cpu") == {"device": "cpu"}
    assert seen == {name: (False, saved[name]) for name in ("config.json", "model.safetensors")}


# Who may do what


@needs_hub
def test_private_repository(stub, classifier, data):
    persistence.push_to_hub(classifier, REPO, token=WRITE, private=True)
    assert stub.repos[REPO].private
    assert {request.token for request in stub.requests} == {WRITE}
    stub.requests.clear()
    persistence.load_from_hub(REPO, token=READ)
    assert {request.token for request in stub.requests} == {READ}


@needs_hub
def test_a_private_repository_is_not_there_for_strangers(stub, saved):
    stub.add(REPO, saved, private=True)
    with pytest.raises(FileNotFoundError, match=r"no repository ann/fdan .* give token=") as caught:
        persistence.load_from_hub(REPO)
    assert stub.url in str(caught.value)


@needs_hub
def test_private_is_not_uploaded_to_a_public_repository(stub, classifier):
    stub.add(REPO, {})
    with pytest.raises(ValueError, match="is public, but private=True was given; nothing was"):
        persistence.push_to_hub(classifier, REPO, token=WRITE, private=True)
    assert stub.files(REPO) == {}
    assert not stub.asked("POST", "preupload")


@needs_hub
@pytest.mark.parametrize(("token", "status"), [(READ, 403), ("hf_nobody", 401)])
def test_push_with_a_token_that_may_not_write(stub, classifier, token, status):
    with pytest.raises(
        PermissionError, match=rf"refused access to ann/fdan \({status}\)"
    ) as caught:
        persistence.push_to_hub(classifier, REPO, token=token)
    assert token not in str(caught.value)
    assert not stub.repos


@needs_hub
def test_load_with_an_invalid_token(stub, saved):
    stub.add(REPO, saved)
    with pytest.raises(PermissionError, match=r"\(401\): the token is invalid"):
        persistence.load_from_hub(REPO, token="hf_nobody")


@needs_hub
def test_push_without_a_token_asks_for_a_login_before_anything_else(stub):
    with pytest.raises(PermissionError, match=r"hf auth login.*HF_TOKEN.*token="):
        persistence.push_to_hub(FDANClassifier(), REPO)
    assert not stub.requests


@needs_hub
def test_the_saved_token_is_used(stub, alone, classifier, tmp_path, monkeypatch):
    (tmp_path / "token").write_text(WRITE)
    monkeypatch.setattr(alone.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    persistence.push_to_hub(classifier, REPO)
    assert {request.token for request in stub.requests} == {WRITE}


# What is refused


@needs_hub
@pytest.mark.parametrize(
    "repo_id",
    ["model", "a/b/c", "/home/ann/model", "./model", "ann/", "../x", "ann/x..y", "ann/a@v1", None],
)
def test_bad_repo_id(stub, classifier, repo_id):
    for call in (
        lambda: persistence.push_to_hub(classifier, repo_id, token=WRITE),
        lambda: persistence.load_from_hub(repo_id),
    ):
        with pytest.raises(ValueError, match="of the form 'user/model', got") as caught:
            call()
        assert repr(repo_id) in str(caught.value)
    assert not stub.requests


@needs_hub
def test_an_unfitted_classifier_leaves_no_repository(stub):
    with pytest.raises(Exception, match="fit"):
        persistence.push_to_hub(FDANClassifier(), REPO, token=WRITE)
    assert not stub.requests


@needs_hub
def test_no_such_repository_or_revision(stub, saved, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no repository ann/fdan"):
        persistence.load_from_hub(REPO)
    stub.add(REPO, saved)
    with pytest.raises(FileNotFoundError, match="ann/fdan has no branch, tag or commit 'v9'"):
        persistence.load_from_hub(REPO, revision="v9")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "best").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"load_pretrained\('models/best'\)"):
        persistence.load_from_hub("models/best", token=READ)


@needs_hub
@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_repository_that_lacks_a_file(stub, saved, missing):
    stub.add(REPO, {name: content for name, content in saved.items() if name != missing})
    with pytest.raises(
        ValueError, match=r"^ann/fdan .*was refused: .* as it lacks config\.json or"
    ):
        persistence.load_from_hub(REPO)


@needs_hub
@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.json", b'{"model_type": "bert"}', "does not describe a skfdan model"),
        ("config.json", b"not JSON", "damaged"),
        ("model.safetensors", b"\x80\x04K\x01.", "model.safetensors"),
    ],
)
def test_foreign_content_is_refused_with_the_name_of_the_repository(
    stub, saved, name, content, reason
):
    commit = stub.add(REPO, {**saved, name: content})
    prefix = rf"^ann/fdan \(commit {commit[:12]}\) was refused: .*{reason}"
    with pytest.raises(persistence.ModelError, match=prefix) as caught:
        persistence.load_from_hub(REPO)
    assert "skfdan-" not in str(caught.value)  # the temporary folder
    # Weights are not fetched for a config that is refused anyway.
    assert bool(stub.asked("GET", "model.safetensors")) is (name != "config.json")


@needs_hub
def test_an_unknown_parameter(stub, saved):
    stub.add(REPO, saved)
    with pytest.raises(TypeError, match="ann--fdan' has no parameter 'devise'"):
        persistence.load_from_hub(REPO, devise="cpu")


# Without the hub


@needs_hub
def test_no_network_names_the_cache_and_the_local_way(alone, tmp_path, classifier):
    with pytest.raises(ConnectionError, match=r"load_pretrained\(folder\)") as caught:
        persistence.load_from_hub(REPO, cache_dir=tmp_path / "mine")
    assert f"is not in the cache {tmp_path / 'mine'}" in str(caught.value)
    with pytest.raises(ConnectionError, match="cannot be reached"):
        persistence.push_to_hub(classifier, REPO, token=WRITE)


@needs_hub
def test_a_client_that_has_been_closed(alone, monkeypatch, tmp_path):
    """How huggingface_hub 1.3 fails without a network."""

    def fail(*args, **kwargs):
        raise RuntimeError(message)

    monkeypatch.setattr(alone.HfApi, "hf_hub_download", fail)
    message = "Cannot send a request, as the client has been closed."
    with pytest.raises(ConnectionError, match=r"cannot be reached.*load_pretrained\(folder\)"):
        persistence.load_from_hub(REPO)
    message = "something else"
    with pytest.raises(RuntimeError, match="something else"):
        persistence.load_from_hub(REPO)


@needs_hub
def test_offline_mode(alone, monkeypatch, tmp_path):
    monkeypatch.setattr(alone.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=rf"cache {tmp_path / 'cache'}"):
        persistence.load_from_hub(REPO)


@needs_hub
def test_the_cache_serves_when_the_hub_is_gone(stub, saved, monkeypatch, classifier, data):
    stub.add(REPO, saved)
    persistence.load_from_hub(REPO)
    asked = len(stub.requests)
    point_at(closed_port(), monkeypatch)
    loaded = persistence.load_from_hub(REPO)
    assert len(stub.requests) == asked
    np.testing.assert_array_equal(loaded.predict(data[0]), classifier.predict(data[0]))


@needs_hub
def test_a_failing_hub(stub, classifier):
    stub.failure = 500
    with pytest.raises(ConnectionError, match="failed with status 500"):
        persistence.push_to_hub(classifier, REPO, token=WRITE)
    with pytest.raises(ConnectionError, match=r"did not answer as expected.*500"):
        persistence.load_from_hub(REPO)


@needs_hub
def test_telemetry_is_off_unless_somebody_decided(monkeypatch):
    for decided, then in ((None, "1"), ("0", "0")):
        monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY", raising=False)
        if decided:
            monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", decided)
        _hub._import_hub()
        assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == then


@needs_hub
def test_requests_say_skfdan_and_carry_no_telemetry(stub, saved):
    if os.environ["HF_HUB_DISABLE_TELEMETRY"] != "1":
        pytest.skip("HF_HUB_DISABLE_TELEMETRY is set to something else")
    stub.add(REPO, saved)
    persistence.load_from_hub(REPO)
    agents = {request.agent for request in stub.requests}
    assert all(agent.startswith("skfdan/") for agent in agents)
    assert not any("torch" in agent or "agent/" in agent for agent in agents)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (persistence.load_from_hub, lambda repo: persistence.push_to_hub(None, repo)):
        with pytest.raises(ImportError, match=r'pip install "skfdan\[hub\]"'):
            call(REPO)


def test_the_package_is_not_imported_before_it_is_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # importing it fails now
    spec = importlib.util.spec_from_file_location("skfdan.persistence._hub_again", _hub.__file__)
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    with pytest.raises(ImportError, match="skfdan"):
        module._import_hub()
