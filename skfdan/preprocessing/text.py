"""What pretrained language models make of transcripts."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np

from ..table import SKIP
from ..utils.progress import progress_bar
from ._base import check_numbers
from ._column import OneColumn
from ._embedding_store import STORE, embed_distinct, one_at_a_time, warn_of_full_store
from ._failures import describe_cell
from ._networks import (
    Network,
    NetworkError,
    find_folder,
    import_transformers,
    load_tokenizer,
    load_transformers,
)
from .cache import FileCache

__all__ = ["TextEmbedding"]

#: Texts from one step of the progress bar to the next.
_CHUNK = 256
#: Models whose first positions stand for padding, so that there are fewer for words.
_OFFSET = ("roberta", "camembert", "mpnet", "longformer", "data2vec")


class TextEmbedding(OneColumn):
    """Features that a pretrained language model makes of transcripts.

    Each cell of a column, the words of a clip, becomes the hidden states of a model such
    as BERT [1]_ or RoBERTa [2]_: one vector for each token, their mean, or the vector of
    the first token. The model is frozen. Nothing is learned from the data: a row's result
    depends on that row alone, and ``transform`` works without ``fit``.

    Parameters
    ----------
    model : str or path-like, default="bert-base-uncased"
        A folder with a model of the package transformers (config.json, model.safetensors
        or pytorch_model.bin, and the tokenizer's files), or the name of one on the Hugging
        Face hub, which is taken from the hub's cache or from the network. Code that lies
        beside a model is not executed.
    layer : int or None, default=None
        Which transformer layer's output: 1 is the first, -1 the last. The last, or None,
        is the output of the model.
    output : {"sequence", "mean", "cls"}, default="sequence"
        An array of shape (tokens, d), its mean over the tokens, of shape (d,), or the
        vector of the first token, of shape (d,).
    max_length : int or None, default=None
        Most tokens of a text, those that the model adds included; what is beyond is cut
        off. None is as many as the model takes, and a warning names texts that are longer.
    batch_size : int, default=32
        Texts that go through the model at a time. On a GPU it is halved where the memory
        does not suffice.
    cache_dir : path-like or None, default=None
        Folder in which results are kept, per text, and found again by any process as long
        as tokens, parameters, content of the model's files and kind of device are the same.
    device : str, default="auto"
        ``"auto"`` takes a GPU if there is one; ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    verbose : int, default=1
        0 shows no progress bar; others show one in a terminal or notebook.

    Attributes
    ----------
    n_features_in_ : int
        Columns of X at ``fit``, which is 1.
    feature_names_in_ : ndarray of shape (1,)
        Column name of X at ``fit``; only if it is a string.

    See Also
    --------
    Wav2Vec2Embedding : The same of sound.

    Notes
    -----
    A cell is a str, which is the words themselves and never a path, or missing. A text
    without a character other than blanks is missing too. A missing cell gives None, and
    :data:`skfdan.table.SKIP` stays what it is.

    The tokens include those that the model adds, such as [CLS] and [SEP]: they are rows of
    a "sequence", and count for the "mean". Only texts of the same number of tokens share
    a batch, so nothing is padded, and a text gives what it gives alone.

    ``pip install "skfdan[transformers]"`` installs what it needs.

    References
    ----------
    .. [1] Devlin, J. et al. (2019). BERT: Pre-training of deep bidirectional transformers
       for language understanding. Proc. NAACL-HLT.
    .. [2] Liu, Y. et al. (2019). RoBERTa: A robustly optimized BERT pretraining approach.
       arXiv:1907.11692.

    Examples
    --------
    Nothing is loaded before there is a text:

    >>> from skfdan.preprocessing import TextEmbedding
    >>> embed = TextEmbedding(model="roberta-base", output="mean")
    >>> embed.fit_transform([None, "  "]).tolist()
    [[None], [None]]
    """

    _accepts = "texts"
    _usual = "text"

    def __init__(
        self,
        *,
        model="bert-base-uncased",
        layer=None,
        output="sequence",
        max_length=None,
        batch_size=32,
        cache_dir=None,
        device="auto",
        verbose=1,
    ):
        self.model = model
        self.layer = layer
        self.output = output
        self.max_length = max_length
        self.batch_size = batch_size
        self.cache_dir = cache_dir
        self.device = device
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags

    def fit(self, X, y=None):
        """Check the parameters and remember the form of X; nothing is loaded.

        Parameters
        ----------
        X : {DataFrame, Series, array-like} of shape (n, 1) or (n,)
            One column of cells.
        y : None
            Ignored.

        Returns
        -------
        self : object
            The transformer.
        """
        self._check_parameters()
        self._read(X, reset=True)
        return self

    def transform(self, X):
        """Send each text through the model, or find what it made of it before.

        Parameters
        ----------
        X : {DataFrame, Series, array-like} of shape (n, 1) or (n,)
            One column of cells.

        Returns
        -------
        ndarray of shape (n, 1), dtype object
            Arrays, float32 of shape (tokens, d) or (d,); None where a cell is missing or
            blank, SKIP where it is :data:`skfdan.table.SKIP`. With
            ``set_output(transform="pandas")`` a DataFrame of one column.

        Raises
        ------
        FileNotFoundError
            If there is no such folder, or it lacks files.
        ImportError
            If transformers is not installed.
        RuntimeError
            If a model of the hub is not in its cache and cannot be downloaded.
        TypeError
            If a cell is no text; names the row.
        ValueError
            If a cell holds bytes that are no text, or a parameter or the model can't be used.
        """
        self._check_parameters()
        cells, _ = self._read(X, reset=False)
        out = np.empty((len(cells), 1), dtype=object)
        out[[cell is SKIP for cell in cells]] = SKIP
        rows = [i for i, cell in enumerate(cells) if _is_text(cell, i)]
        if rows:
            for row, value in zip(rows, self._embed([cells[i] for i in rows], rows), strict=True):
                out[row, 0] = value.copy()  # what is kept must not be changed
        return out

    def _check_parameters(self) -> None:
        name = type(self).__name__
        check_numbers(self, "batch_size", whole=True)
        check_numbers(self, "max_length", "layer", whole=True, optional=True)
        for parameter, least in (("batch_size", 1), ("max_length", 3)):
            value = getattr(self, parameter)
            if value is not None and value < least:
                raise ValueError(f"{name}: {parameter}={value!r} must be at least {least}.")
        if self.layer == 0:
            raise ValueError(f"{name}: layer=0: layers are counted from 1, and from -1 backwards.")
        if not isinstance(self.output, str) or self.output not in ("sequence", "mean", "cls"):
            raise ValueError(
                f"{name}: output must be 'sequence', 'mean' or 'cls'; got {self.output!r}."
            )
        if not isinstance(self.model, (str, os.PathLike)):
            raise ValueError(f"{name}: model must be a folder or a name; got {self.model!r}.")

    def _embed(self, texts: list[str], rows: list[int]) -> list[np.ndarray]:
        from skfdan.utils.device import resolve_device

        name, device = type(self).__name__, resolve_device(self.device)
        network = text_network(name, self.model, device)
        tools = network._replace(load=_load_tokenizer, device="cpu").get()
        tokens = self._tokens(tools, texts, rows)
        context = {"text": network.digest, "output": self.output}
        context["device"] = device.partition(":")[0]
        if self.layer is not None:  # without, what is kept already is found
            context["layer"] = self.layer
        cache = None if self.cache_dir is None else FileCache(self.cache_dir)
        chunks = [tokens[i : i + _CHUNK] for i in range(0, len(tokens), _CHUNK)]
        values, lost = [], STORE.begin()
        with one_at_a_time(self.cache_dir, context):
            for chunk in progress_bar(
                chunks, total=len(chunks), desc=name, unit="chunk", verbose=self.verbose
            ):
                values += embed_distinct(
                    chunk,
                    context,
                    lambda chosen, chunk=chunk: self._compute(
                        network, np.stack([chunk[i] for i in chosen])
                    ),
                    cache,
                    self.batch_size,
                )
        warn_of_full_store(self, sum(v.nbytes for v in values), lost, stacklevel=4)
        return values

    def _tokens(self, tools: tuple, texts: list[str], rows: list[int]) -> list[np.ndarray]:
        """Return the numbers of each text's tokens."""
        tokenizer, limit = tools
        most = limit if self.max_length is None else self.max_length
        if limit is not None and most > limit:
            raise ValueError(
                f"{type(self).__name__}: max_length={most}: the model takes {limit} tokens at most."
            )
        cut = {} if most is None else {"truncation": True, "max_length": most}
        found = [np.array(tokenizer(text, **cut)["input_ids"], np.int64) for text in texts]
        if self.max_length is None and most is not None:
            full = [i for i, ids in enumerate(found) if len(ids) == most]
            long = [
                rows[i] for i in full if len(tokenizer(texts[i], verbose=False)["input_ids"]) > most
            ]
            if long:
                named = ", ".join(map(str, long[:3])) + (", ..." if len(long) > 3 else "")
                warnings.warn(
                    f"{type(self).__name__}: {len(long)} of {len(texts)} texts have more than the "
                    f"{most} tokens that the model takes, and were cut off (row {named}). "
                    "max_length= does so without this warning.",
                    UserWarning,
                    stacklevel=5,  # the caller of transform, beyond scikit-learn's wrapper
                )
        return found

    def _compute(self, network: Network, ids: np.ndarray) -> np.ndarray:
        import torch

        model = network.get()
        with torch.inference_mode():
            x = torch.from_numpy(ids).to(network.device)
            given = {"input_ids": x, "attention_mask": torch.ones_like(x)}
            n = model.config.num_hidden_layers
            layer = n if self.layer is None else self.layer
            if not 1 <= abs(layer) <= n:
                raise NetworkError(f"layer={layer} is not there: the model has {n} layers.")
            layer = layer if layer > 0 else n + 1 + layer
            if layer == n:
                states = model(**given).last_hidden_state
            else:
                states = model(**given, output_hidden_states=True).hidden_states[layer]
            states = states.float().cpu().numpy()
        if self.output == "cls":
            return states[:, 0]
        if self.output == "mean":
            return states.mean(axis=1, dtype=np.float64).astype(np.float32)
        return states


def _is_text(cell: Any, row: int) -> bool:
    """Tell whether a cell has words; refuse what is no text."""
    if cell is None or cell is SKIP:
        return False
    if not isinstance(cell, str):
        raise TypeError(
            f"TextEmbedding: row {row} ({describe_cell(cell)}) is no text; a cell is a str, the "
            "words themselves."
        )
    try:
        cell.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"TextEmbedding: row {row} holds {cell[error.start]!r}, a byte that is no text, as "
            'errors="surrogateescape" reads it; read the file in the encoding that it has.'
        ) from None
    return bool(cell.strip())


def text_network(owner: str, model: str | os.PathLike, device: str) -> Network:
    """Return the model of that name or folder; ``owner`` is who asks, for messages."""
    import_transformers(owner)
    return Network(_load_model, *find_folder(owner, model, tokenizer=True, hub=True), device)


def _load_model(folder: str, device: str) -> Any:
    model = load_transformers(folder)
    if model.main_input_name != "input_ids" or model.config.is_encoder_decoder:
        raise NetworkError(
            f"The model in {folder!r} is a {model.config.model_type}, not an encoder of text such "
            "as bert or roberta."
        )
    return model.to(device)


def _load_tokenizer(folder: str, device: str) -> tuple[Any, int | None]:
    """Return the tokenizer, and how many tokens the model takes."""
    config = import_transformers("TextEmbedding").AutoConfig.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    tokenizer = load_tokenizer(folder)
    limits = [tokenizer.model_max_length]
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and positions > 0:
        padded = any(name in config.model_type for name in _OFFSET)
        limits.append(positions - (config.pad_token_id + 1 if padded else 0))
    # A tokenizer that knows no limit says 1e30.
    limit = int(min(limits))
    return tokenizer, limit if limit < 1e9 else None
