"""A fitted network classifier as JSON and tensors, and back."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from skfdan.persistence._checks import check_attributes, check_classes
from skfdan.persistence._format import ModelError, check_keys
from skfdan.persistence._state import (
    Tensors,
    decode_history,
    decode_state,
    encode_history,
    encode_state,
)
from skfdan.persistence._tensorfile import TensorFile
from skfdan.persistence._values import decode, encode

_ABSENT = {"@absent": True}
_PARTS = ("module", "criterion")


def encode_network(clf, prefix: str, tensors: Tensors) -> dict:
    """Return the state of a fitted classifier; its tensors get names that begin so."""
    for part in _PARTS:
        network = getattr(clf, f"{part}_")
        held = {} if network is None else _own_tensors(network)
        tensors |= {f"{prefix}{part}.{name}": t for name, t in held.items()}
    attributes = {}
    for name in clf._state_attributes:
        if name in vars(clf):
            attributes[name] = encode_state(vars(clf)[name], f"{prefix}state.{name}", tensors)
        else:
            attributes[name] = _ABSENT
    return {
        "classes": encode(clf.classes_),
        "attributes": attributes,
        "history": encode_history(clf.history_, f"{prefix}history", tensors),
    }


def decode_network(clf, state: Any, prefix: str, file: TensorFile, trusted: bool) -> None:
    """Make a classifier what it was; ``trusted`` says that its parameters hold the user's code."""
    check_keys(state, ("classes", "attributes", "history"), f"the state of {type(clf).__name__}")
    check_keys(state["attributes"], clf._state_attributes, f"the state of {type(clf).__name__}")
    classes = decode(state["classes"])
    check_classes(classes)
    clf.classes_inferred_ = classes
    absent = {name for name, value in state["attributes"].items() if value == _ABSENT}
    attributes = {
        name: decode_state(value, f"{prefix}state.{name}", file)
        for name, value in state["attributes"].items()
        if name not in absent
    }
    check_attributes(clf, attributes, absent)
    vars(clf).update(attributes)
    networks = _build(clf, "meta", len(file))
    names = [{} if network is None else _own_tensors(network) for network in networks]
    for part, expected in zip(_PARTS, names, strict=True):
        _compare(expected, f"{prefix}{part}.", file)
    read = [
        {name: file.take(f"{prefix}{part}.{name}") for name in expected}
        for part, expected in zip(_PARTS, names, strict=True)
    ]
    for network, held in zip(networks, read, strict=True):
        if network is not None:
            _fill(network, held)
    left = [name for network in networks if network for name in _still_meta(network)]
    if left and trusted:
        # The user's own backbone may hold tensors that no state dict has.
        networks = _build(clf, "cpu", len(file))
        for network, held in zip(networks, read, strict=True):
            if network is not None:
                _fill(network, held)
    elif left:
        raise ModelError(f"the network's {left[0]!r} is not among what is stored")
    # Building resets what a fit finds out later.
    vars(clf).update(attributes)
    clf._assemble(*networks, decode_history(state["history"], f"{prefix}history", file))


def _build(clf, device: str, n_tensors: int) -> tuple[nn.Module, nn.Module | None]:
    """Build the network and the criterion; on "meta" they take no memory."""
    had_weights = "weights" in vars(clf)
    weights = vars(clf).get("weights")
    if had_weights:
        clf.weights = None  # what would be downloaded would be overwritten
    try:
        with (
            torch.random.fork_rng(devices=[]),
            _at_most(2 * n_tensors + 64),
            warnings.catch_warnings(),
            torch.device(device),
        ):
            warnings.simplefilter("ignore")
            return clf._make_module(), clf._make_criterion()
    finally:
        if had_weights:
            clf.weights = weights


@contextmanager
def _at_most(n: int) -> Iterator[None]:
    """Stop a network that would get more parameters than its file can have tensors."""
    thread, count = threading.get_ident(), 0

    def hook(module, name, parameter):
        nonlocal count
        count += threading.get_ident() == thread
        if count > n:
            raise ModelError("its parameters describe a larger network than is stored")

    handle = register_module_parameter_registration_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _own_tensors(network: nn.Module) -> Tensors:
    """Return parameters and buffers, those that modules share just once."""
    held = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    stored = network.state_dict().keys()
    return {name: tensor for name, tensor in held.items() if name in stored}


def _compare(expected: Tensors, prefix: str, file: TensorFile) -> None:
    extra = file.names(prefix) - {prefix + name for name in expected}
    if extra:
        raise ModelError(f"the network of these parameters has no tensor {min(extra)!r:.100}")
    for name, tensor in expected.items():
        dtype, shape = file.describe(prefix + name)
        if (dtype, shape) != (tensor.dtype, tuple(tensor.shape)):
            raise ModelError(
                f"the tensor {prefix + name!r} is {dtype} of shape {shape}, but these parameters "
                f"make it {tensor.dtype} of shape {tuple(tensor.shape)}"
            )


def _fill(network: nn.Module, held: Tensors) -> None:
    """Put tensors in the place of a network's own; what was shared stays shared."""
    names = {id(tensor): name for name, tensor in _own_tensors(network).items()}
    made: dict[str, torch.Tensor] = {}
    for module in network.modules():
        own = {**module._parameters, **module._buffers}
        for key, tensor in own.items():
            name = names.get(id(tensor))
            if name is None:
                continue
            if name not in made:
                made[name] = held[name]
                if isinstance(tensor, nn.Parameter):
                    made[name] = nn.Parameter(held[name], requires_grad=tensor.requires_grad)
            # Not _parameters[key]: an LSTM keeps a list of its own, which this updates.
            setattr(module, key, made[name])


def _still_meta(network: nn.Module) -> list[str]:
    held = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return [name for name, tensor in held.items() if tensor.is_meta]
