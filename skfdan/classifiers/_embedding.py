"""Embeddings in the place of cells, where a classifier's backbone is frozen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from skfdan.classifiers._samples import ModalitySamples, Samples
from skfdan.nn.encoders import EncoderMixin
from skfdan.nn.inputs import InputNorm
from skfdan.preprocessing._embedding_store import (
    embed_distinct,
    embedding_context,
    one_at_a_time,
    run_backbone,
)
from skfdan.preprocessing.cache import FileCache
from skfdan.utils.progress import progress_bar
from skfdan.utils.threads import all_threads, one_thread

#: Embeddings of one call that take more bytes are not made; the backbone runs in every step
#: then.
CALL_BYTES = 4 * 2**30


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
        return {m: self._embedded_modality(m, s, verbose) for m, s in samples.items()}

    def _embedded_modality(self, modality: str, samples: ModalitySamples, verbose: int):
        if samples.embedded or samples.kind == "vector":
            return samples
        net = self.module_
        training = net.training
        cache = None if self.cache_dir is None else FileCache(self.cache_dir)
        context = embedding_context(net, modality, self.device_)
        try:
            with one_at_a_time(self.cache_dir, context):
                values, rows, files = [], [], []
                for part in _parts(samples, verbose):
                    values += embed_distinct(
                        part.cells,
                        context,
                        lambda chosen, part=part: self._compute_embeddings(modality, part, chosen),
                        cache,
                        self.batch_size,
                    )
                    rows.append(part.rows)
                    files.append(part.files)
                    shapes = {v.shape for v in values}  # several: maps of cells of several sizes
                    if sum(v.nbytes for v in values) > CALL_BYTES or len(shapes) > 1:
                        return samples
        finally:
            net.train(training)
        files = None if files[0] is None else np.concatenate(files)
        return ModalitySamples(np.stack(values), np.concatenate(rows), embedded=True, files=files)

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


def _parts(samples: ModalitySamples, verbose: int, size: int = 256) -> Iterator[ModalitySamples]:
    """Yield the samples some hundred at a time; files are decoded, all their frames."""
    parts = np.array_split(np.arange(len(samples)), max(1, -(-len(samples) // size)))
    for part in progress_bar(
        parts, total=len(parts), desc="embedding", unit="chunk", verbose=verbose
    ):
        if samples.on_disk:
            yield samples.decoded(part)
        else:
            yield samples.select(part)
