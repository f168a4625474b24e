"""Models on the Hugging Face Hub: upload what ``save_pretrained`` wrote, load it again.

Only this module knows huggingface_hub, which is an optional dependency and is imported at the
first call. Everything that decides what a file means, and everything that refuses one, is in
``load_pretrained``: a model from the hub is trusted exactly as much as a model from a folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any

import requests

from skfdan.persistence._card import check_facts
from skfdan.persistence._format import CONFIG, WEIGHTS, ModelError, read_config
from skfdan.persistence._model import load, save_pretrained

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from sklearn.base import BaseEstimator


def push_to_hub(
    estimator: BaseEstimator,
    repo_id: str,
    *,
    token: str | None = None,
    private: bool = False,
    revision: str | None = None,
    commit_message: str | None = None,
    **card,
) -> str:
    """Upload a fitted classifier or pipeline to the Hugging Face Hub, in one commit.

    The three files that :func:`skfdan.save_pretrained` writes are uploaded. The repository is
    created where there is none; other files which it has stay as they are.

    Parameters
    ----------
    estimator : estimator
        What :func:`skfdan.save_pretrained` saves.
    repo_id : str
        ``"user/model"`` or ``"organisation/model"``.
    token : str, optional
        Access token with the right to write. By default the one that ``hf auth login`` saved,
        or the environment variable ``HF_TOKEN``.
    private : bool, default=False
        Whether a repository that is created can be seen by its owner only. With True, an
        existing repository that is public is refused before anything is uploaded.
    revision : str, optional
        Branch to commit to, created where it does not exist. By default ``main``.
    commit_message : str, optional
        By default the estimator's name and skfdan's version.
    **card
        For the model card, handed to :func:`skfdan.save_pretrained`: ``corpora``, ``protocol``,
        ``y_true``, ``y_pred``.

    Returns
    -------
    str
        Address of the commit.

    Raises
    ------
    ImportError
        Without huggingface_hub.
    ValueError
        If ``repo_id`` is not of the form "user/model", or the repository is public although
        ``private=True`` is given. :func:`skfdan.save_pretrained` has errors of its own; nothing
        is created then.
    PermissionError
        Without a token, or if the hub refuses it.
    ConnectionError
        If the hub cannot be reached or fails.

    Examples
    --------
    >>> from skfdan.persistence import push_to_hub
    >>> push_to_hub(clf, "ann/fdan", private=True)  # doctest: +SKIP
    'https://huggingface.co/ann/fdan/commit/...'
    """
    from skfdan import __version__

    hub = _import_hub()
    _check_repo_id(hub, repo_id)
    if not (token if isinstance(token, str) else hub.get_token()):
        raise PermissionError(
            "Uploading needs a token with the right to write: log in with `hf auth login`, set "
            "the environment variable HF_TOKEN, or give token=."
        )
    if commit_message is None:
        commit_message = f"{type(estimator).__name__} saved by skfdan {__version__}"
    api = _api(hub, token)
    with TemporaryDirectory(prefix="skfdan-") as scratch:
        # Saved first: an estimator that cannot be saved leaves no empty repository behind.
        folder = save_pretrained(estimator, Path(scratch, "model"), **card)
        with _readable_errors(hub, api, repo_id, revision):
            api.create_repo(repo_id, private=private, exist_ok=True)
            # The hub leaves an existing repository as visible as it is.
            if private and not api.model_info(repo_id).private:
                raise ValueError(
                    f"{repo_id} exists and is public, but private=True was given; nothing was "
                    "uploaded. Make it private in its settings, or choose another name."
                )
            if revision is not None:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                revision=revision,
                commit_message=commit_message,
            )
    return commit.commit_url


def load_from_hub(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    **params,
) -> BaseEstimator:
    """Load a model that :func:`push_to_hub` uploaded to the Hugging Face Hub.

    Only config.json and model.safetensors are asked for, both of the same commit, and nothing
    is executed. They are kept in huggingface_hub's cache, from which the model is also loaded
    when the hub cannot be reached.

    Parameters
    ----------
    repo_id : str
        ``"user/model"`` or ``"organisation/model"``.
    revision : str, optional
        Branch, tag or commit. A branch can change: give the full hash of the commit where the
        very same model is wanted again. By default ``main``.
    token : str, optional
        Access token for a private repository. By default the one that ``hf auth login`` saved.
    cache_dir : str or path, optional
        Where the files are kept; by default huggingface_hub's cache.
    **params
        Handed to :func:`skfdan.load_pretrained`.

    Returns
    -------
    estimator
        The fitted classifier or pipeline.

    Raises
    ------
    ImportError
        Without huggingface_hub.
    ValueError
        If ``repo_id`` is not of the form "user/model".
    ModelError
        If the repository holds no model of skfdan that :func:`skfdan.load_pretrained` accepts.
    FileNotFoundError
        If there is no such repository or revision, or it is private and the token does not open
        it.
    PermissionError
        If the hub refuses the token.
    ConnectionError
        If the hub cannot be reached or fails, and the cache does not have the files.

    Examples
    --------
    >>> from skfdan.persistence import load_from_hub
    >>> clf = load_from_hub("ann/fdan", revision="v1.0")  # doctest: +SKIP
    """
    hub = _import_hub()
    _check_repo_id(hub, repo_id)
    api = _api(hub, token)
    commit = ""
    with TemporaryDirectory(prefix="skfdan-") as scratch:
        # Copied because the cache holds symbolic links, which a model folder must not have, and
        # because another process may be cleaning the cache.
        folder = Path(scratch, repo_id.replace("/", "--"))
        folder.mkdir()
        try:
            with _readable_errors(hub, api, repo_id, revision, cache_dir):
                path = api.hf_hub_download(repo_id, CONFIG, revision=revision, cache_dir=cache_dir)
                # The cache is .../snapshots/COMMIT/config.json. A branch may have moved since.
                commit = Path(path).parent.name
                shutil.copyfile(path, folder / CONFIG)
                # Foreign weights may be large: they are not fetched only to be refused.
                read_config(folder / CONFIG)
                path = api.hf_hub_download(repo_id, WEIGHTS, revision=commit, cache_dir=cache_dir)
                shutil.copyfile(path, folder / WEIGHTS)
            return load(folder, params)
        except ModelError as error:
            # load() puts the name of the temporary folder around the reason
            reason = error.__cause__ if isinstance(error.__cause__, ModelError) else error
            what = f"{repo_id} (commit {commit[:12]})" if commit else repo_id
            raise ModelError(f"{what} was refused: {reason}.") from error


def load_facts(repo_id: str) -> dict[str, Any]:
    """Return what the maker of a model on the hub says about it; it is in the cache once loaded."""
    hub = _import_hub()
    _check_repo_id(hub, repo_id)
    api = _api(hub, None)
    with TemporaryDirectory(prefix="skfdan-") as scratch:
        copy = Path(scratch, CONFIG)
        with _readable_errors(hub, api, repo_id, None):
            shutil.copyfile(api.hf_hub_download(repo_id, CONFIG), copy)
        facts = read_config(copy)["facts"]
    check_facts(facts)
    return facts


def _import_hub() -> ModuleType:
    # Has an effect only before the first import; someone who has set it has decided.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise ImportError(
            'The Hugging Face Hub needs huggingface_hub: pip install "skfdan[hub]". A model in a '
            "local folder is loaded by load_pretrained(folder) without it."
        ) from error
    return huggingface_hub


def _api(hub: ModuleType, token: str | None) -> HfApi:
    from skfdan import __version__

    return hub.HfApi(token=token, library_name="skfdan", library_version=__version__)


def _check_repo_id(hub: ModuleType, repo_id: str) -> None:
    """Refuse anything but "user/model" before it becomes a request."""
    problem = ""
    if not isinstance(repo_id, str) or repo_id.count("/") != 1:
        problem = "it must name the owner and the model, with one slash"
    else:
        try:
            hub.utils.validate_repo_id(repo_id)
        except ValueError as error:
            problem = str(error).rstrip(".")
    if problem:
        raise ValueError(
            f"repo_id must be of the form 'user/model', got {repo_id!r}: {problem}. "
            "A local folder is loaded by load_pretrained(folder); a branch, tag or commit is "
            "given as revision=."
        )


@contextmanager
def _readable_errors(
    hub: ModuleType,
    api: HfApi,
    repo_id: str,
    revision: str | None,
    cache_dir: str | os.PathLike | None = None,
) -> Iterator[None]:
    """Turn huggingface_hub's errors into built-in ones that say what to do."""
    errors = hub.errors
    # What the HTTP library raises below huggingface_hub: requests before 1.0, then others, of
    # which HfHubHTTPError inherits; OfflineModeIsEnabled is a ConnectionError.
    transport = (ConnectionError, requests.RequestException, errors.HfHubHTTPError.__mro__[1])
    cache = cache_dir or hub.constants.HF_HUB_CACHE
    offline = (
        f"and {repo_id} is not in the cache {cache}. Offline, use a cache that has it "
        "(cache_dir=), or load a copied folder: load_pretrained(folder)."
    )
    # The order matters: the classes inherit from each other.
    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        raise ConnectionError(
            f"The hub at {api.endpoint} did not answer as expected ({error.__cause__ or error}), "
            f"{offline}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"{repo_id} has no branch, tag or commit {revision!r} on {api.endpoint}."
        ) from error
    except errors.RepositoryNotFoundError as error:
        hint = ""
        if Path(repo_id).is_dir():
            hint = f" The local folder of this name is loaded by load_pretrained({repo_id!r})."
        raise FileNotFoundError(
            f"There is no repository {repo_id} on {api.endpoint} that this token opens. Check "
            "the name; for a private or gated one log in with `hf auth login` or give token=."
            + hint
        ) from error
    except errors.EntryNotFoundError as error:
        raise ModelError(f"it is no model of skfdan, as it lacks {CONFIG} or {WEIGHTS}") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise PermissionError(
                f"The hub at {api.endpoint} refused access to {repo_id} ({status}): the token is "
                "invalid or lacks the right. Log in with `hf auth login` or give token=."
            ) from error
        raise ConnectionError(
            f"The hub at {api.endpoint} failed with status {status}: {error}"
        ) from error
    except transport as error:
        raise ConnectionError(f"The hub at {api.endpoint} cannot be reached: {error}") from error
    except RuntimeError as error:
        # Some versions of huggingface_hub (1.3) close their HTTP client when it finds no network,
        # and ask it once more.
        if "client has been closed" not in str(error):
            raise
        raise ConnectionError(f"The hub at {api.endpoint} cannot be reached, {offline}") from error
