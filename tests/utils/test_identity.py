import functools
import linecache
import subprocess
import sys

import numpy as np
import pytest
import torch

from skfdan.utils.identity import code_identity

ON_A_LINE = [lambda x: x + 1, lambda x: x + 2]


def scaled(k):
    def wrapper(x):
        return k * x

    return wrapper


def wrapped(k):
    @functools.wraps(scaled)
    def wrapper(x):
        return k * x

    return wrapper


def defaulted(k):
    def function(x, power=k):
        return x**power

    return function


def recursive(n):
    return recursive(n - 1) if n else 0


class Scaled:
    unit = 1

    def __init__(self, k):
        super().__init__()
        self.k = k

    def __call__(self, x):
        return self.k * x


class Net(torch.nn.Module):
    def __init__(self, k, width=2):
        super().__init__()
        self.k = k
        self.layer = torch.nn.LSTM(width, 2)

    def forward(self, x):
        return self.k * x


def shifted(module, inputs, output):
    return output + 1


def hooked(hook):
    network = torch.nn.Linear(2, 2)
    if hook is not None:
        network.register_forward_hook(hook)
    return network


PAIRS = {
    "lambdas on a line": lambda k: ON_A_LINE[k],
    "closures": scaled,
    "wrapped functions": wrapped,
    "defaults": defaulted,
    "partials": lambda k: functools.partial(recursive, k),
    "keywords": lambda k: functools.partial(recursive, n=k),
    "methods": lambda k: Scaled(k).__call__,
    "objects": Scaled,
    "class attributes": lambda k: type("Sized", (), {"sizes": [k]})(),
    "networks": Net,
    "widths": lambda k: Net(0, width=k + 1),
    "heads, which no repr shows": lambda k: torch.nn.MultiheadAttention(4, k + 1),
    "hooks": lambda k: hooked([None, shifted][k]),
    "tensors": lambda k: functools.partial(sum, torch.full((2,), k)),
    "arrays": lambda k: {"a": np.full(2, k)},
}


@pytest.mark.parametrize("case", PAIRS)
def test_what_differs_has_other_names_and_what_does_not_has_not(case):
    first, again, other = (code_identity(PAIRS[case](k)) for k in (0, 0, 1))
    assert None not in (first, other)
    assert first == again
    assert first != other


@pytest.mark.parametrize(("old", "new"), [("8, 8", "32, 32"), ("return 0", "return -1")])
@pytest.mark.parametrize("by_command", [False, True])
def test_functions_and_classes_without_source(old, new, by_command, monkeypatch):
    if by_command:  # as in a process that `python -c` has started, from Python 3.13 on
        lines = ["pass\n"] * 9
        monkeypatch.setitem(linecache.cache, "<string>", (9, None, lines, "<string>"))
    text = "def f(x):\n    return 0, 0, 8, 8\nclass A:\n    def g(self):\n        return 0, 0, 8, 8"
    names = []
    for code in (text, text, text.replace(old, new)):
        scope = {"__name__": "typed"}
        exec(code, scope)
        names.append([code_identity(scope["f"]), code_identity(scope["A"])])
    assert names[0] == names[1]
    assert all(a != b for a, b in zip(names[0], names[2], strict=True))


def test_parameters_do_not_count_as_they_are_hashed_elsewhere():
    assert code_identity(torch.nn.Linear(2, 2)) == code_identity(torch.nn.Linear(2, 2))


@pytest.mark.slow
def test_names_last(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\nSHAPES = frozenset('abcdefgh')\nclass Net(torch.nn.Module):\n"
        "    def forward(self, x):\n        return x if x in {'a', 'b', 'c', 'd'} else None\n"
    )
    code = (
        "import mine; from skfdan.utils.identity import code_identity as c; "
        "print(c(mine.Net(), mine.Net, mine.Net.forward, {'a': mine.SHAPES}))"
    )
    run = [sys.executable, "-c", code]
    found = {subprocess.check_output(run, text=True, cwd=tmp_path) for _ in range(2)}
    assert len(found) == 1
    assert "None" not in found


def test_what_cannot_be_told_has_no_name():
    assert code_identity(open) is not None
    assert code_identity(functools.partial(recursive, (i for i in range(3)))) is None
