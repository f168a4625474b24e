"""Embeddings in the place of cells, where a classifier's backbone is frozen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from skfdan.classifiers._paths import CHUNK
from skfdan.classifiers._samples import ModalitySamples, Samples
from skfdan.nn.encoders import EncoderMixin
from skfdan.nn.inputs import InputNorm
from skfdan.preprocessing._embedding_store import (
    STORE,
    embed_distinct,
    embedding_context,
    gibibytes,
    one_at_a_time,
    run_backbone,
    warn_of_full_store,
    warn_once,
)
from skfdan.preprocessing.cache import FileCache
from skfdan.utils.progress import progress_bar
from skfdan.utils.threads import all_threads, one_thread

#: Embeddings of one call that take more bytes are not made; the backbone runs in every step
#: then.
CALL_BYTES = 4 * 2**30
#: From a warning up to the call of fit.
_LEVEL = 6


class EmbeddingMixin:
    """Puts embeddings in the place of cells where a backbone is frozen."""

    def _embedded(self, samples: Samples, verbose: int = 0) -> Samples:
        """Return the samples with their cells through the frozen part of the backbones.

        Samples of vectors, those that are embedded already, and those whose embeddings
        would need too much memory are returned as they are.
        """
        net = self.module_
        if not isinstance(net, EncoderMixin) or net.backbone_trainable is True:
            return samples
        training, lost = net.training, STORE.begin()
        embedded = {}
        for modality, s in samples.items():
            embedded[modality] = self._embedded_modality(modality, s, verbose)
        if training:  # what is predicted once is not asked for again
            n_bytes = sum(s.cells.nbytes for s in embedded.values() if s.embedded)
            warn_of_full_store(self, n_bytes, lost, stacklevel=_LEVEL)
        return embedded

    def _embedded_modality(self, modality: str, samples: ModalitySamples, verbose: int):
        if samples.embedded or samples.kind == "vector":
            return samples
        net = self.module_
        training = net.training
        cache = None if self.cache_dir is None else FileCache(self.cache_dir)
        context = embedding_context(net, modality, self.device_)
        block, filled, done = None, 0, 0
        rows, files = [], []
        try:
            with one_at_a_time(self.cache_dir, context):
                for n, part in _parts(samples, verbose):
                    values = embed_distinct(
                        part.cells,
                        context,
                        lambda chosen, part=part: self._compute_embeddings(modality, part, chosen),
                        cache,
                        self.batch_size,
                    )
                    shape = values[0].shape if block is None else block.shape[1:]
                    if any(v.shape != shape for v in values):  # maps of cells of several sizes
                        return samples
                    done += n
                    so_far, n_bytes = filled + len(values), values[0].nbytes
                    # Files have one frame or more.
                    least = so_far + len(samples) - done
                    if least * n_bytes > CALL_BYTES:
                        if training:
                            self._warn_of_size(modality, least * n_bytes)
                        return samples
                    # As many a file as so far are to be expected.
                    expected = -(-so_far * len(samples) // done)
                    block = _with_room(block, filled, values, min(expected, CALL_BYTES // n_bytes))
                    block[filled : filled + len(values)] = values
                    filled += len(values)
                    rows.append(part.rows)
                    files.append(part.files)
        finally:
            net.train(training)
        files = None if files[0] is None else np.concatenate(files)
        return ModalitySamples(block[:filled], np.concatenate(rows), embedded=True, files=files)

    def _warn_of_size(self, modality: str, n_bytes: int) -> None:
        vectors = self.module_.backbone_trainable is False
        less = "fewer frames of a clip" if vectors else "backbone_trainable=False, or fewer frames,"
        warn_once(
            self,
            "size",
            f"the embeddings of the {modality} cells take at least {gibibytes(n_bytes)}, and no "
            f"more than {gibibytes(CALL_BYTES)} are held, so the frozen part of the backbone runs "
            f"in every step of the training. Use {less}, or BackboneEmbedding before the "
            "classifier, which makes one vector of each clip.",
            stacklevel=_LEVEL + 2,
        )

    @property
    def _network_size(self) -> int | None:
        """What ``input_size`` was when the network was built; it may have been set since."""
        for norm in getattr(self.module_, "inputs", {}).values():
            if isinstance(norm, InputNorm):
                return norm.size
        return self.input_size

    def _compute_embeddings(self, modality: str, samples: ModalitySamples, chosen: np.ndarray):
        x = samples.batch(chosen, self._network_size)
        return run_backbone(self.module_, modality, x, self.device_, self._embedding_threads())

    def _embedding_threads(self):
        return one_thread() if self.backbone in (None, "cnn") else all_threads()


def _with_room(block: np.ndarray | None, filled: int, values: list, total: int) -> np.ndarray:
    """Return a block with room for more values after those that fill it."""
    shape, dtype = values[0].shape, values[0].dtype
    if block is None:
        return np.empty((total, *shape), dtype)
    if len(block) >= filled + len(values):
        return block
    # More than expected, so that not every part needs a copy.
    larger = np.empty((total + total // 8, *shape), dtype)
    larger[:filled] = block[:filled]
    return larger


def _parts(samples: ModalitySamples, verbose: int) -> Iterator[tuple[int, ModalitySamples]]:
    """Yield some hundred samples at a time, and how many; of files that is all their frames."""
    parts = np.array_split(np.arange(len(samples)), max(1, -(-len(samples) // CHUNK)))
    for part in progress_bar(
        parts, total=len(parts), desc="embedding", unit="chunk", verbose=verbose
    ):
        yield len(part), samples.decoded(part) if samples.on_disk else samples.select(part)
