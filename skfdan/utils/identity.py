"""What tells functions, classes and objects of users apart, in this process and the next."""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
import types
import weakref
from contextlib import suppress
from typing import Any

import joblib


def code_identity(*values: Any) -> str | None:
    """Name what functions, classes and objects do, as far as their own code tells.

    A function counts by its name, source text, defaults and the values it has taken from where
    it was made; a class by its name and, unless it is of an installed package, its functions; an
    object by its class and attributes. What other functions do that are called is not seen.

    Parameters
    ----------
    *values : object
        Functions, classes, modules of torch, arrays, numbers, containers of these.

    Returns
    -------
    str or None
        64 hexadecimal digits, the same in any process; None if there is something whose content
        can't be told.

    Examples
    --------
    >>> from functools import partial
    >>> code_identity(partial(sum, start=1)) == code_identity(partial(sum, start=2))
    False
    """
    try:
        return hashlib.sha256(repr(_parts(values, ())).encode()).hexdigest()
    except _NamelessError:
        return None


#: Types of class attributes that count, beside functions.
_PLAIN = (bool, int, float, str, bytes, tuple, list, dict, set, frozenset)


class _NamelessError(Exception):
    """Something can't be told from others of its kind."""


def _parts(value: Any, within: tuple[int, ...]) -> Any:
    """Return text, numbers and tuples that tell a value from others."""
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return repr(value)
    if id(value) in within:  # a function that calls itself, a method that calls super()
        return "itself"
    within = (*within, id(value))

    def parts(*values: Any) -> list:
        return [_parts(v, within) for v in values]

    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, functools.partial):
        return [name, *parts(value.func, value.args, value.keywords)]
    if isinstance(value, types.FunctionType):
        taken = value.__defaults__, value.__kwdefaults__, _enclosed(value)
        return [value.__module__, value.__qualname__, _source(value), *parts(*taken)]
    if isinstance(value, types.MethodType):
        return [name, *parts(value.__func__, value.__self__)]
    if isinstance(value, (staticmethod, classmethod, property)):
        functions = [getattr(value, f, None) for f in ("__func__", "fget", "fset")]
        return [name, *parts(*functions)]
    if isinstance(value, types.BuiltinFunctionType):
        return [value.__module__, value.__qualname__]
    if isinstance(value, type):
        return [_class_parts(c, within) for c in value.__mro__]
    if isinstance(value, (list, tuple)):
        return [name, *parts(*value)]
    if isinstance(value, (set, frozenset)):
        return [name, *sorted(map(repr, parts(*value)))]
    if isinstance(value, dict):
        return [name, *sorted(map(repr, (parts(*item) for item in value.items())))]
    if isinstance(value, weakref.ref):
        return name
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.nn.Parameter):
        return name  # such as an LSTM's list of them
    if torch is not None and isinstance(value, torch.Tensor):
        array = value.detach().cpu()
        array = array.float() if array.dtype == torch.bfloat16 else array
        return [name, str(value.dtype), joblib.hash(array.contiguous().numpy())]
    if torch is not None and isinstance(value, torch.nn.Module):
        return [*parts(kind), *_module_parts(value, within)]
    try:
        return [*parts(kind), joblib.hash(value)]
    except Exception as error:  # pickling raises whatever it likes
        if _is_installed(kind.__module__) or not hasattr(value, "__dict__"):
            raise _NamelessError from error
        return [*parts(kind), *parts(vars(value))]  # of a class within a function


def _enclosed(function: types.FunctionType) -> list:
    values = []
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # there is nothing in it yet
            values.append(cell.cell_contents)
    return values


def _source(function: types.FunctionType) -> Any:
    code = function.__code__
    # A line may hold several lambdas. And from Python 3.13 on, the source of `python -c` is taken
    # for that of whatever was made of a string.
    if function.__name__ != "<lambda>" and code.co_filename not in ("<string>", "<stdin>"):
        try:
            return inspect.getsource(code)
        except (OSError, TypeError):  # typed in at a prompt
            pass
    return _code_parts(code)


def _code_parts(code: types.CodeType) -> list:
    constants = [
        _code_parts(c) if isinstance(c, types.CodeType) else _parts(c, ()) for c in code.co_consts
    ]
    return [code.co_code.hex(), code.co_names, code.co_varnames, constants]


def _class_parts(kind: type, within: tuple[int, ...]) -> list:
    name = f"{kind.__module__}.{kind.__qualname__}"
    if id(kind) in within[:-1] or _is_installed(kind.__module__):
        return [name]
    own = {
        key: value
        for key, value in vars(kind).items()
        if isinstance(value, (types.FunctionType, staticmethod, classmethod, property))
        or (isinstance(value, _PLAIN) and not key.startswith("__"))
    }
    return [name, _parts(own, (*within, id(kind)))]


def _is_installed(module: str) -> bool:
    package = module.partition(".")[0]
    if package == "skfdan" or package in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


def _module_parts(module: Any, within: tuple[int, ...]) -> list:
    """Tell a network of torch from others, but for its parameters and buffers."""
    plain = {"training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"}
    own = {k: v for k, v in vars(module).items() if k not in plain}
    # Hooks are numbered on from those of other networks.
    hooks = {k: v for k, v in own.items() if "hooks" in k and isinstance(v, dict)}
    own |= {k: [*v.values()] for k, v in hooks.items()}
    children = [(n, _parts(child, within)) for n, child in module.named_children()]
    return [module.extra_repr(), _parts(own, within), children]
