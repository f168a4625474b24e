"""One fit in several processes, each with a GPU and a share of every batch."""

from __future__ import annotations

import os
import sys
import warnings

import numpy as np
import torch
from skorch.callbacks import Callback

from skfdan.classifiers._batches import Batch, EpochMeans, JointBatch

__all__ = ["SharedBatches"]


class SharedBatches(Callback):
    """Divides the batches of a fit between the processes that were started together.

    For a script that ``torchrun`` or ``accelerate launch`` starts in several processes, in
    each of which the same ``fit`` is called on the same data. Every process draws the same
    batches, keeps its share of the samples, and the gradients are averaged before each
    step. So all processes have the same weights throughout, and what is fitted works
    afterwards in each of them alone. In a process that was started alone it does nothing.

    Notes
    -----
    A network whose loss is a mean over samples becomes that of one process with the same
    ``batch_size``, up to rounding and to batches that can't be divided evenly. LMMD, other
    adaptation losses, cross-attention over the batch and batch normalisation see the share of
    their process alone, as with a batch size that is as much smaller: raise ``batch_size`` as
    many times as there are processes to keep what they see. At the end of an epoch the means
    and deviations of batch normalisation are averaged, and so are the losses in ``history_``, so
    that callbacks that decide by them decide alike in all processes; the records of single batches
    are of the share of the own process. Wherever it stands in ``callbacks``, it acts before the
    others.

    Each process holds all data, and decodes path cells of all of a batch; with a
    ``cache_dir`` that they share, each file is decoded once. Frozen backbones are run by each
    process over all cells.

    Not together with ``early_stopping`` or ``checkpoint_dir``, nor for classifiers that read
    the modalities of a row together (:class:`~skfdan.MISAClassifier`). Tested with two
    processes on a CPU, never on GPUs.

    Raises
    ------
    ValueError
        From ``fit``, if the classifier can't be trained so.
    RuntimeError
        From ``fit``, if the processes have come to different weights or numbers of epochs: another
        callback has decided by what only one of them sees.

    Examples
    --------
    In a script for ``torchrun --nproc-per-node 2 script.py``, ``device`` is
    ``f"cuda:{os.environ['LOCAL_RANK']}"``. Started alone, it trains as ever:

    >>> import numpy as np
    >>> from skfdan import FDANClassifier
    >>> from skfdan.classifiers.distributed import SharedBatches
    >>> X, y = np.eye(8), np.array([0, 1] * 4)
    >>> clf = FDANClassifier(max_epochs=1, random_state=0, device="cpu", verbose=0,
    ...                      callbacks=[SharedBatches()])
    >>> clf.fit(X, y).predict(X).shape
    (8,)
    """

    #: For checkpoints, which only fits in one process have: there it does nothing.
    only_watches = True

    def on_train_begin(self, net, **kwargs):
        """Find the other processes, and begin with the weights of the first."""
        self.rank_, self.world_ = _place()
        if self.world_ == 1:
            _warn_if_meant_to_be_more()
            return
        _check(net)
        if not torch.distributed.is_initialized():
            # Left open: later fits use it too, and the end of the process closes it.
            cuda = net.device_.startswith("cuda")
            torch.distributed.init_process_group(
                "nccl" if cuda else "gloo", rank=self.rank_, world_size=self.world_
            )
        for tensor in _state(net):
            # Torch counts the changes by copy_, but not those by broadcast or to t.data: what was
            # made of the weights before would not be made anew.
            received = tensor.clone()
            torch.distributed.broadcast(received, 0)
            tensor.copy_(received)
        _arrange(net, self)

    def on_epoch_begin(self, net, **kwargs):
        """Notice processes that are no longer alike."""
        if self.world_ > 1:
            _compare(net, goes_on=True)

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        """Keep the share of this process."""
        if self.world_ == 1 or not training:
            return
        cells, labels = batch
        _keep(cells, labels, self.rank_, self.world_)

    def on_grad_computed(self, net, named_parameters, **kwargs):
        """Average the gradients."""
        if self.world_ == 1:
            return
        parameters = [p for group in net.optimizer_.param_groups for p in group["params"]]
        # One process may have no gradient where another has one: its share lacks a label.
        known = torch.tensor([p.grad is not None for p in parameters], device=net.device_).int()
        torch.distributed.all_reduce(known)
        parameters = [p for p, k in zip(parameters, known.tolist(), strict=True) if k]
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        _average([p.grad for p in parameters], self.world_)

    def on_epoch_end(self, net, **kwargs):
        """Average what batch normalisation has seen, and the losses."""
        if self.world_ > 1:
            _average([b for b in net.module_.buffers() if b.is_floating_point()], self.world_)
            _average_losses(net)


class _Last(Callback):
    """Stands behind all others, which may restore other weights at the end."""

    def on_train_end(self, net, **kwargs):
        # A fit that fails must not wait for the others.
        if sys.exc_info()[0] is None:
            _compare(net, goes_on=False)


def _arrange(net, shared: SharedBatches) -> None:
    """Put it before what decides by losses, which are those of all processes then."""
    own = [pair for pair in net.callbacks_ if pair[1] is shared]
    rest = [pair for pair in net.callbacks_ if not isinstance(pair[1], (SharedBatches, _Last))]
    first = next((i for i, (_, c) in enumerate(rest, 1) if isinstance(c, EpochMeans)), 0)
    net.callbacks_ = [*rest[:first], *own, *rest[first:], ("last", _Last())]


def _average_losses(net) -> None:
    """Put the means over the samples of all processes into the record of an epoch."""
    epoch = net.history_[-1]
    # Of a share of one sample there is no spread, and all must send the same.
    names = sorted({*epoch["batches"][0]} - {"train_batch_size", "feature_std"})
    n = sum(batch["train_batch_size"] for batch in epoch["batches"])
    sums = torch.tensor([n, *(n * epoch[name] for name in names)], dtype=torch.float64)
    sums = sums.to(net.device_)
    torch.distributed.all_reduce(sums)
    total, *sums = sums.tolist()
    for name, value in zip(names, sums, strict=True):
        net.history_.record(name, value / total)


def _compare(net, goes_on: bool) -> None:
    """Raise unless all processes go on, or end, with the same weights."""
    total = torch.zeros((), dtype=torch.int64, device=net.device_)
    for tensor in _state(net):
        # As whole numbers, whose sum is the same in whatever order they are added.
        numbers = tensor.contiguous().reshape(-1).view(torch.uint8)
        numbers = numbers if len(numbers) % 4 else numbers.view(torch.int32)
        total += numbers.sum(dtype=torch.int64)
    own = torch.stack([total, torch.full_like(total, int(goes_on))])
    highest = torch.cat([own, -own])
    torch.distributed.all_reduce(highest, torch.distributed.ReduceOp.MAX)
    weights, going, *lowest = highest.tolist()
    if (-lowest[0], -lowest[1]) == (weights, going):
        return
    what = "have come to different weights"
    if -lowest[1] != going:
        what = "do not end after the same epoch"
    raise RuntimeError(
        f"SharedBatches: the processes {what}. A callback has decided by what only one process "
        "sees; leave it out, or let it decide by the losses that history_ has of whole epochs."
    )


#: Where a process finds its number and how many there are: torchrun and what starts processes
#: as it does set the first, Open MPI and MPICH the others.
_RANK = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
_WORLD = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def _place() -> tuple[int, int]:
    """Return the number of this process, from 0, and how many there are."""
    found = (
        [os.environ[name] for name in names if name in os.environ] for names in (_RANK, _WORLD)
    )
    rank, world = (int(values[0]) if values else None for values in found)
    return rank or 0, world or 1


def _warn_if_meant_to_be_more() -> None:
    # Accelerate sets both where more than one process was asked for, and starts one all the same.
    if "ACCELERATE_USE_CPU" in os.environ and "MASTER_PORT" in os.environ:
        warnings.warn(
            "SharedBatches: this process is alone and trains on whole batches. `accelerate launch "
            "--cpu` starts several processes only by MPI (--mpirun_hostfile); `torchrun "
            "--nproc-per-node 2` and `accelerate launch --multi_gpu` need none, on a CPU too.",
            UserWarning,
            stacklevel=2,
        )


def _check(net) -> None:
    problem = None
    if net.early_stopping or net.checkpoint_dir is not None:
        problem = "early_stopping and checkpoint_dir are not possible"
    elif not isinstance(net.random_state, (int, np.integer)):
        problem = f"random_state={net.random_state!r} must be a whole number, the same in all"
    elif net.device_.startswith("cuda") and net.device_ != (
        own := f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    ):
        problem = f"device={net.device!r} must be {own!r} in this one"
    if problem is not None:
        raise ValueError(f"SharedBatches, in several processes: {problem}.")


def _keep(batch: Batch, labels: dict[str, torch.Tensor], rank: int, world: int) -> None:
    """Make of a batch the share of one process."""
    if isinstance(batch, JointBatch):
        raise ValueError("SharedBatches can't divide rows whose modalities are read together.")
    samples, picks = batch.origin
    few = min(len(picked) for picked in picks.values())
    if few < world:
        raise ValueError(
            f"SharedBatches: a batch has {few} samples of a modality, too few for {world} "
            "processes. Raise batch_size, or start fewer."
        )
    shares = {m: _share(len(picked), rank, world) for m, picked in picks.items()}
    for m, share in shares.items():
        batch.cells[m] = batch.cells[m][share]
        labels[m] = labels[m][share]
    batch.origin = samples, {m: picked[shares[m]] for m, picked in picks.items()}
    batch.n = len(range(batch.n)[_share(batch.n, rank, world)])


def _share(n: int, rank: int, world: int) -> slice:
    """Return which of n samples are one process's: neighbours, a copy of which is one piece."""
    return slice(n * rank // world, n * (rank + 1) // world)


def _state(net) -> list[torch.Tensor]:
    modules = [m for m in (net.module_, net.criterion_) if m is not None]
    return [t.detach() for module in modules for t in (*module.parameters(), *module.buffers())]


def _average(tensors: list[torch.Tensor], world: int) -> None:
    """Put the mean over all processes in the place of each; in one message."""
    if not tensors:
        return
    flat = torch.cat([t.detach().reshape(-1) for t in tensors])
    torch.distributed.all_reduce(flat)
    parts = (flat / world).split([t.numel() for t in tensors])
    with torch.no_grad():
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))
