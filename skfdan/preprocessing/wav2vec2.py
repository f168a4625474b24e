"""What pretrained wav2vec 2.0 networks make of sound."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..table import SKIP
from ._base import Recipe, check_numbers
from ._failures import describe_cell
from ._networks import (
    Network,
    NetworkError,
    find_bundle,
    find_folder,
    import_transformers,
    is_bundle,
    load_bundle,
    load_transformers,
)
from .media import MediaError
from .mel import SoundTransformer

if TYPE_CHECKING:
    import torch

__all__ = ["Wav2Vec2Embedding"]

#: What all wav2vec 2.0 networks were trained on, in Hz.
_RATE = 16000


class Wav2Vec2Embedding(SoundTransformer):
    """Features that a pretrained wav2vec 2.0 network makes of sound.

    Each cell of a column becomes the hidden states of a wav2vec 2.0 [1]_, one vector for
    every 20 ms, or their mean. The network is frozen. Nothing is learned from the data: a
    row's result depends on that row alone, and ``transform`` works without ``fit``.

    Parameters
    ----------
    model : str or path-like, default="WAV2VEC2_BASE"
        Name of a bundle of ``torchaudio.pipelines`` ("WAV2VEC2_BASE", "HUBERT_BASE",
        "WAVLM_BASE_PLUS", "WAV2VEC2_XLSR53", ...), whose file is taken from torch's
        download cache or from the network; or a folder with a model of the package
        transformers: config.json, model.safetensors or pytorch_model.bin, and
        preprocessor_config.json or processor_config.json.
    layer : int or None, default=None
        Which transformer layer's output: 1 is the first, -1 the last. The last, or None,
        is the output of the network.
    output : {"sequence", "mean"}, default="sequence"
        An array of shape (frames, d), or its mean over all frames, of shape (d,), which
        :class:`~skfdan.classifiers.MISAClassifier` needs.
    device : str, default="auto"
        ``"auto"`` takes a GPU if there is one; ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    n_jobs : int or None, default=None
        Files decoded at the same time; None is 1 unless ``joblib.parallel_config`` says
        otherwise, -1 is one a processor. The network takes one clip at a time.
    cache_dir : path-like or None, default=None
        Folder in which results are kept, per file, and found again by any process as long
        as file, parameters, content of the model's files and kind of device are the same.
    on_error : {"raise", "missing", "skip"}, default="raise"
        What to do about a cell that cannot be used; see :class:`MelSpectrogram`.
    timeout : float, "auto" or None, default="auto"
        Seconds that the decoding of one file may take; see :class:`MelSpectrogram`. The
        network computes in this process, without a limit.
    limits : DecodeLimits or None, default=None
        Bounds on what is decoded from one file; None is ``DecodeLimits()``.
    verbose : int, default=1
        0 shows no progress bar; others show one in a terminal or notebook.

    Attributes
    ----------
    n_features_in_ : int
        Columns of X at ``fit``, which is 1.
    feature_names_in_ : ndarray of shape (1,)
        Column name of X at ``fit``; only if it is a string.
    input_is_cells_ : bool
        Whether X at ``fit`` was a column of cells, which is True.
    report_ : DataFrame with the columns row, file, stage and reason
        Cells of the last transform that could not be used.

    See Also
    --------
    MelSpectrogram : Spectrograms; its notes say what a cell may be.
    TextEmbedding : The same of words.

    Notes
    -----
    A cell is a path of a sound or video file, a waveform (1-D array at 16 kHz; floats of
    full scale 1, or integers of the full scale of their type), a tuple
    ``(samples, rate)``, or missing; a missing cell gives None. Sound is mixed down to one
    channel and resampled to 16 kHz. It must last 25 ms, the reach of one frame (400
    samples; other networks, other reaches).

    Where the model wants it, a clip is brought to mean 0 and variance 1: bundles know, and
    of a folder ``do_normalize`` in processor_config.json or preprocessor_config.json tells
    (True if the file does not say, False without such a file). torchaudio's WAV2VEC2_BASE
    does not, and the preprocessor_config.json published with the same weights for
    transformers does, so the two differ.

    Clips go through the network one by one. The networks of the size "base" normalise over
    time and were trained without a mask, so that a clip padded to a batch's length would not
    give what it gives alone.

    ``save_pretrained`` stores a step of this kind by the name or folder of its model, without
    the weights.

    ``pip install "skfdan[transformers]"`` installs what models in folders need.

    References
    ----------
    .. [1] Baevski, A. et al. (2020). wav2vec 2.0: A framework for self-supervised learning
       of speech representations. Advances in Neural Information Processing Systems 33.

    Examples
    --------
    Nothing is loaded before there is a cell:

    >>> from skfdan.preprocessing import Wav2Vec2Embedding
    >>> embed = Wav2Vec2Embedding(model="WAV2VEC2_BASE", layer=9, output="mean")
    >>> embed.fit(["a.wav", None]).get_feature_names_out().tolist()
    ['x0']
    """

    def __init__(
        self,
        *,
        model="WAV2VEC2_BASE",
        layer=None,
        output="sequence",
        device="auto",
        n_jobs=None,
        cache_dir=None,
        on_error="raise",
        timeout="auto",
        limits=None,
        verbose=1,
    ):
        self.model = model
        self.layer = layer
        self.output = output
        self.device = device
        self.n_jobs = n_jobs
        self.cache_dir = cache_dir
        self.on_error = on_error
        self.timeout = timeout
        self.limits = limits
        self.verbose = verbose

    def transform(self, X):
        """Send each cell through the network, or find what it made of it before.

        Parameters
        ----------
        X : {DataFrame, Series, array-like} of shape (n, 1) or (n,)
            One column of cells.

        Returns
        -------
        ndarray of shape (n, 1), dtype object
            Arrays, float32 of shape (frames, d) or (d,); None where a cell is missing,
            SKIP where it is :data:`skfdan.table.SKIP`. With
            ``set_output(transform="pandas")`` a DataFrame of one column.

        Raises
        ------
        FileNotFoundError
            If a path leads nowhere (names it and the row), or there is no such folder of
            a model.
        ImportError
            If the model is a folder and transformers is not installed.
        RuntimeError
            If a bundle's weights are not there and cannot be downloaded; names the file,
            its address and the folder it belongs into.
        ValueError
            If the model cannot be loaded or used, or a cell cannot (a ``MediaError``, which
            names it and the row).
        """
        return super().transform(X)

    def _check_parameters(self) -> None:
        name = type(self).__name__
        check_numbers(self, "layer", whole=True, optional=True)
        if not isinstance(self.model, (str, os.PathLike)):
            raise ValueError(
                f"{name}: model must be a folder or the name of a bundle; got {self.model!r}."
            )
        if self.layer == 0:
            raise ValueError(f"{name}: layer=0: layers are counted from 1, and from -1 backwards.")
        if not isinstance(self.output, str) or self.output not in ("sequence", "mean"):
            raise ValueError(f"{name}: output must be 'sequence' or 'mean'; got {self.output!r}.")

    def _run(self, cells: np.ndarray, training: bool) -> Iterable:
        # Without a cell nothing is asked for that may not be there.
        there = any(cell is not None and cell is not SKIP for cell in cells)
        return super()._run(cells, training) if there else ()

    def _recipe(self, training: bool) -> Recipe:
        network = self._network()
        parameters = {
            "model": network.digest,
            "layer": self.layer,
            "output": self.output,
            "device": network.device.partition(":")[0],
        }
        return Recipe(
            "wav2vec2/1",
            parameters,
            lambda cell: self._encode(network, self._samples(cell, _RATE), cell),
            lambda features, cell, draw: features,
        )

    def _decoder(self, recipe: Recipe, cells: np.ndarray, rows: list[int]) -> Any:
        # Worker processes decode, and know nothing of the network.
        reading = recipe._replace(load=lambda cell: self._samples(cell, _RATE))
        decode = super()._decoder(reading, cells, rows)
        if decode is None:
            return None
        network = self._network()
        return lambda path: self._encode(network, decode(path), path)

    def _warm_up(self) -> None:
        import av  # noqa: F401
        import soundfile  # noqa: F401
        import soxr  # noqa: F401

    def _network(self) -> Network:
        from skfdan.utils.device import resolve_device

        return speech_network(type(self).__name__, self.model, resolve_device(self.device))

    def _encode(self, network: Network, samples: np.ndarray, cell: Any) -> np.ndarray:
        speech = network.get()
        if len(samples) < speech.reach:
            raise MediaError(
                describe_cell(cell),
                f"is too short: it has {len(samples)} samples at {_RATE:,} Hz, and the network "
                f"needs {speech.reach}",
            )
        frames = speech(samples, self.layer)
        if self.output == "mean":
            return frames.mean(axis=0, dtype=np.float64).astype(np.float32)
        return frames


def speech_network(owner: str, model: str | os.PathLike, device: str) -> Network:
    """Return the network of that name or folder; ``owner`` is who asks, for messages."""
    if is_bundle(model) and not Path(model).is_dir():
        return Network(_load_bundle, model, find_bundle(owner, model), device)
    name_alone = isinstance(model, str) and model.isidentifier() and model.isupper()
    if name_alone and not Path(model).is_dir():
        raise ValueError(
            f"{owner}: model={model!r} is no wav2vec 2.0 of torchaudio.pipelines and no "
            "folder; bundles are called WAV2VEC2_BASE, HUBERT_BASE, WAVLM_BASE, ..."
        )
    import_transformers(owner)
    return Network(_load_folder, *find_folder(owner, model, tokenizer=False, hub=False), device)


class _Speech:
    """A network on a device: samples at 16 kHz to hidden states."""

    def __init__(self, model: torch.nn.Module, device: str, n_layers: int, windows: list) -> None:
        self.model, self.device, self.n_layers = model.to(device), device, n_layers
        self.reach = 1
        for width, step in reversed(windows):
            self.reach = (self.reach - 1) * step + width
        self._lock = threading.Lock()

    def __call__(self, samples: np.ndarray, layer: int | None) -> np.ndarray:
        """Return (frames, d), float32."""
        import torch

        n = self.n_layers
        layer = n if layer is None else layer
        if not 1 <= abs(layer) <= n:
            raise NetworkError(f"layer={layer} is not there: the network has {n} layers.")
        layer = layer if layer > 0 else n + 1 + layer
        # One at a time, on all processors and in the memory for one.
        with self._lock, torch.inference_mode():
            x = torch.from_numpy(np.array(samples[None], np.float32)).to(self.device)
            frames = self._run(x, layer)[0].float().cpu().numpy()
        return frames


class _BundleSpeech(_Speech):
    def _run(self, x: torch.Tensor, layer: int) -> torch.Tensor:
        if layer == self.n_layers:
            return self.model(x)[0]
        return self.model.extract_features(x, num_layers=layer)[0][-1]


class _FolderSpeech(_Speech):
    normalize = False

    def _run(self, x: torch.Tensor, layer: int) -> torch.Tensor:
        if self.normalize:
            # Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm of transformers.
            x = (x - x.mean()) / (x.var(correction=0) + 1e-7).sqrt()
        if layer == self.n_layers:
            return self.model(x).last_hidden_state
        return self.model(x, output_hidden_states=True).hidden_states[layer]


def _load_bundle(name: str, device: str) -> _Speech:
    model = load_bundle(name)
    inner = getattr(model, "model", model)
    windows = [(c.kernel_size, c.stride) for c in inner.feature_extractor.conv_layers]
    return _BundleSpeech(model, device, len(inner.encoder.transformer.layers), windows)


def _load_folder(folder: str, device: str) -> _Speech:
    model = load_transformers(folder)
    config = model.config
    if model.main_input_name != "input_values" or not hasattr(config, "conv_kernel"):
        raise NetworkError(
            f"The model in {folder!r} is a {config.model_type}, not a network of waveforms such as "
            "wav2vec2, hubert or wavlm."
        )
    windows = list(zip(config.conv_kernel, config.conv_stride, strict=True))
    speech = _FolderSpeech(model, device, config.num_hidden_layers, windows)
    found = _sound_settings(Path(folder))
    if found is not None:
        speech.normalize = bool(found.get("do_normalize", True))
        rate = found.get("sampling_rate", _RATE)
        if rate != _RATE:
            raise NetworkError(
                f"The model in {folder!r} takes sound at {rate} Hz; only {_RATE} Hz are known here."
            )
    return speech


def _sound_settings(folder: Path) -> dict | None:
    """Return what a folder says of the sound its network takes, looked up as transformers does."""
    processor, own = folder / "processor_config.json", folder / "preprocessor_config.json"
    # From version 5 on, a processor's settings stand in one file.
    if processor.is_file():
        found = json.loads(processor.read_text(encoding="utf-8")).get("feature_extractor")
        if found is not None:
            return found
    return json.loads(own.read_text(encoding="utf-8")) if own.is_file() else None
