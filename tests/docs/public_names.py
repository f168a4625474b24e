"""Every public name of the package, read from the code."""

import importlib
import importlib.util
import inspect
import pkgutil
from pathlib import Path

import skfdan

DOCS = Path(__file__).parents[2] / "docs"


def load_script(path: Path):
    """Import a file that belongs to no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


shows = load_script(DOCS / "_ext" / "reference.py").shows


def public_names() -> dict[str, object]:
    """Objects by their shortest path, such as ``skfdan.make_table``."""
    found = {}
    seen = set()
    for room in ["skfdan", *_rooms()]:
        module = importlib.import_module(room)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if (name, id(value)) not in seen:
                seen.add((name, id(value)))
                found[f"{room}.{name}"] = value
    return found


def shown_members(cls: type) -> dict[str, object]:
    """Methods and properties that the page of a class shows; a property's function."""
    found = {}
    for name in dir(cls):
        member = inspect.getattr_static(cls, name)
        member = member if isinstance(member, property) else getattr(cls, name)
        if shows(name, member):
            found[name] = getattr(member, "fget", member)
    return found


def public_callables() -> dict[str, object]:
    """Classes, functions, and what the pages of classes show and this package wrote."""
    found = {}
    for name, value in public_names().items():
        if not callable(value):
            continue
        found[name] = value
        if inspect.isclass(value):
            for member, function in shown_members(value).items():
                if function.__module__.startswith("skfdan."):
                    found[f"{name}.{member}"] = function
    return found


def _rooms() -> list[str]:
    infos = pkgutil.iter_modules(skfdan.__path__, "skfdan.")
    return sorted(info.name for info in infos if not info.name.startswith("skfdan._"))
