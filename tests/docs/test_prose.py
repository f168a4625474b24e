"""Every code block of the prose does what the page says.

Blocks of a page run in order in one namespace, in an empty folder, with warnings as errors.
A ``text`` block right after a ``python`` block is what it prints: ``...`` stands for anything, and
numbers with a point may differ by 0.15, as networks round otherwise on other machines.
A comment right before a block changes that:

``<!-- not run: reason -->``
    The block needs what is not here. The names it takes from skfdan must exist, and its calls
    of them must fit their signatures.
``<!-- raises -->``, ``<!-- warns -->``
    The block ends with an error, or gives warnings; the text block shows them first.

Commands of ``skfdan`` in ``sh`` blocks are parsed, and not run.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib
import inspect
import io
import re
import shlex
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from skfdan.cli import _parser

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "docs/comparison.md",
    "docs/faq.md",
    "docs/responsible_use.md",
    *sorted(
        path.relative_to(ROOT).as_posix()
        for folder in ("user_guide", "how_to")
        for path in (ROOT / "docs" / folder).glob("*.md")
    ),
]
#: Pages that take more than some seconds.
SLOW = {
    f"docs/user_guide/{name}.md"
    for name in ("command_line", "modality_table", "protocols", "words")
}
ROOMS = (
    *("skfdan", "skfdan.classifiers", "skfdan.datasets", "skfdan.feature_selection"),
    *("skfdan.inspection", "skfdan.metrics", "skfdan.model_selection", "skfdan.nn"),
    *("skfdan.persistence", "skfdan.preprocessing", "skfdan.table"),
)
BLOCK = re.compile(
    r"(?:^<!-- *(?P<mark>.*?) *-->\n\s*)?^```(?P<kind>\w+)\n(?P<code>.*?)^```$"
    r"(?:\s*^```text\n(?P<text>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
CHECKER = doctest.OutputChecker()
NUMBER = re.compile(r"\d+\.\d+(?![\d.]*\w)")


@dataclass
class Block:
    """A code block; ``line`` is that of its first line, counted from 0."""

    kind: str
    code: str
    line: int
    mark: str = ""
    reason: str = ""
    expected: str | None = None


def blocks_of(text: str) -> list[Block]:
    found = []
    for match in BLOCK.finditer(text):
        mark, _, reason = (match["mark"] or "").partition(":")
        line = text.count("\n", 0, match.start("code"))
        found.append(Block(match["kind"], match["code"], line, mark, reason.strip(), match["text"]))
    return found


def read(page: str) -> list[Block]:
    return blocks_of((ROOT / page).read_text(encoding="utf-8"))


# ------------------------------------------------------------------ blocks that run


def run(block: Block, namespace: dict[str, Any], page: str = "page") -> str:
    """Return what a block prints, after its warnings and before its error, if it is to have any."""
    # Empty lines before it: a traceback names the line of the page.
    source = "\n" * block.line + block.code
    code = compile(source, str(ROOT / page), "exec", dont_inherit=True)
    printed, error = io.StringIO(), ""
    with warnings.catch_warnings(record=block.mark == "warns") as warned:
        warnings.simplefilter("always" if block.mark == "warns" else "error")
        with contextlib.redirect_stdout(printed):
            try:
                exec(code, namespace)
            except Exception as raised:
                if block.mark != "raises":
                    raise
                error = f"{type(raised).__name__}: {raised}"
    told = [f"{w.category.__name__}: {w.message}\n" for w in warned or ()]
    assert not (block.mark == "raises" and not error), "no error was raised"
    assert not (block.mark == "warns" and not told), "no warning was given"
    return "".join(told) + printed.getvalue() + error


def same(expected: str, got: str) -> bool:
    """Tell whether this is what a page shows."""
    pairs = list(zip(NUMBER.findall(expected), NUMBER.findall(got), strict=False))
    if all(abs(float(a) - float(b)) <= 0.15 for a, b in pairs) and "..." not in expected:
        numbers = iter([a for a, _ in pairs])
        got = NUMBER.sub(lambda found: next(numbers, found[0]), got)
    return CHECKER.check_output(expected, got, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)


def check_text(block: Block, got: str) -> None:
    if block.expected is None:
        assert block.mark not in ("raises", "warns"), "the page does not show what comes"
        assert not got.strip(), f"the page does not show that it prints {got!r}"
        return
    assert same(block.expected, got), f"the page shows\n{block.expected}\nand it prints\n{got}"


# ------------------------------------------------------------------ blocks that do not


class Names(ast.NodeVisitor):
    """Checks what a block takes from skfdan, and how it calls it.

    ``known`` maps names of the block to functions, classes and modules of skfdan; ``made`` to
    the class of what is held there.
    """

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.made: dict[str, type] = {}
        self.calls = 0
        for room in ROOMS:
            module = importlib.import_module(room)
            self.known |= {n: getattr(module, n) for n in getattr(module, "__all__", ())}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if (node.module or "").split(".")[0] == "skfdan":
            module = importlib.import_module(node.module)
            for name in node.names:
                self.known[name.asname or name.name] = getattr(module, name.name)

    def visit_Import(self, node: ast.Import) -> None:
        for name in node.names:
            if name.name.split(".")[0] == "skfdan":
                module = importlib.import_module(name.name)
                top = importlib.import_module("skfdan")
                self.known[name.asname or "skfdan"] = module if name.asname else top

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        owner = self.class_of(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.made.pop(target.id, None)
                if owner is not None:
                    self.made[target.id] = owner

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        function = self.resolve(node.func)
        if not callable(function):
            return
        starred = any(isinstance(a, ast.Starred) for a in node.args)
        if starred or any(keyword.arg is None for keyword in node.keywords):
            return
        bound = isinstance(node.func, ast.Attribute) and self.class_of(node.func.value) is not None
        args = [None] * (len(node.args) + (bound and inspect.isfunction(function)))
        try:
            inspect.signature(function).bind(*args, **{k.arg: None for k in node.keywords})
        except TypeError as error:
            raise AssertionError(f"{ast.unparse(node)}: {error}") from None
        self.calls += 1

    def resolve(self, node: ast.expr) -> Any:
        """Return the function, class or module that an expression names, or None."""
        if isinstance(node, ast.Name):
            return None if node.id in self.made else self.known.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self.class_of(node.value) or self.resolve(node.value)
            if owner is None:
                return None
            # What an object has beside its class has stands in the docstring.
            told = re.search(rf"\b{node.attr}\b", owner.__doc__ or "")
            assert hasattr(owner, node.attr) or told, f"there is no {ast.unparse(node)}"
            found = getattr(owner, node.attr, None)
            return found if callable(found) or inspect.ismodule(found) else None
        return None

    def class_of(self, node: ast.expr) -> type | None:
        """Return the class of what an expression makes, as far as it is one of skfdan."""
        if isinstance(node, ast.Name):
            return self.made.get(node.id)
        if not isinstance(node, ast.Call):
            return None
        function = self.resolve(node.func)
        if inspect.isclass(function):
            return function
        if isinstance(node.func, ast.Attribute):
            if node.func.attr in ("fit", "partial_fit", "set_params"):
                return self.class_of(node.func.value)
            if inspect.ismethod(function):  # a constructor by another name
                return function.__self__
        return None


# ------------------------------------------------------------------ commands


def commands_of(code: str) -> list[list[str]]:
    """Return the arguments of every skfdan command in a shell script."""
    found = []
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|>;&")
        lexer.wordchars += ":=,@+{}$"
        command: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|>;&"):
                if command and Path(command[0]).name == "skfdan":
                    found.append(command[1:])
                command = []
            else:
                command.append(word)
    return found


def is_command(arguments: list[str]) -> bool:
    """Tell whether the program takes these arguments."""
    try:
        _parser().parse_args(arguments)
    except SystemExit as stopped:
        return not stopped.code
    return True


# ------------------------------------------------------------------ tests


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    yield
    from matplotlib import pyplot as plt

    plt.close("all")


@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=[pytest.mark.slow] if p in SLOW else []) for p in PAGES]
)
def test_code_does_what_the_page_says(page):
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in read(page):
        if block.kind == "python" and block.mark != "not run":
            try:
                check_text(block, run(block, namespace, page))
            except Exception as error:
                error.add_note(f"in {page}, line {block.line + 1}")
                raise


@pytest.mark.parametrize("page", PAGES)
def test_marks_have_reasons_and_name_what_exists(page):
    names = Names()
    for block in read(page):
        assert block.mark in ("", "not run", "raises", "warns"), (page, block.line, block.mark)
        assert bool(block.reason) == (block.mark == "not run"), (page, block.line)
        if block.kind == "python":
            # What runs is read too: a later block may use what it has made.
            names.visit(ast.parse(block.code))


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_those_of_the_program(page, capsys):
    for block in read(page):
        for arguments in commands_of(block.code) if block.kind == "sh" else ():
            assert is_command(arguments), (shlex.join(arguments), capsys.readouterr().err)


# ------------------------------------------------------------------ what these tests would notice

PAGE = """
```python
x = {code}
print(x)
```

```text
{text}
```
"""


@pytest.mark.parametrize(
    ("code", "text", "fits"),
    [
        ("1 + 1", "2", True),
        ("1 + 1", "3", False),
        ("'UAR 0.512 of 4'", "UAR 0.55 of 4", True),
        ("'UAR 0.512 of 4'", "UAR 0.75 of 4", False),
        ("'UAR 0.512 of 4'", "UAR 0.512 of 5", False),
        ("'a\\n\\nb'", "a\n\nb", True),
        ("'a long line'", "a ... line", True),
        ("''", "something", False),
    ],
)
def test_outputs_are_compared(code, text, fits):
    (block,) = blocks_of(PAGE.format(code=code, text=text))
    with contextlib.nullcontext() if fits else pytest.raises(AssertionError, match="it prints"):
        check_text(block, run(block, {}))


@pytest.mark.parametrize(
    ("mark", "code", "error"),
    [
        ("", "print(1)", "does not show that it prints"),
        ("", "1 / 0", "division by zero"),
        ("", "import warnings; warnings.warn('beware', stacklevel=1)", "beware"),
        ("raises", "x = 1", "no error was raised"),
        ("warns", "x = 1", "no warning was given"),
        ("raises", "1 / 0", "does not show what comes"),
    ],
)
def test_what_a_page_does_not_show_is_noticed(mark, code, error):
    (block,) = blocks_of(f"<!-- {mark} -->\n```python\n{code}\n```\n")
    with pytest.raises(Exception, match=error):
        check_text(block, run(block, {}))


@pytest.mark.parametrize(
    "code",
    [
        "from skfdan import FDRNClassifier",
        "import skfdan.netz",
        "FDANClassifier(alfa=1)",
        "FDANClassifier().fit(table, y, speakers=who)",
        "clf = FDANClassifier()\nclf.predict(table, y)",
        "clf = FDANClassifier.dsan().fit(table, y)\nclf.safe_pretrained('model')",
        "import skfdan as s\ns.unpair(table)",
        "make_protocol('paper', splits=3)",
        "ConfusionMatricesDisplay.from_prediction(y, predictions)",
    ],
)
def test_wrong_names_and_arguments_are_noticed(code):
    with pytest.raises((ImportError, AttributeError, AssertionError)):
        Names().visit(ast.parse(code))


def test_calls_of_the_package_are_found():
    names = Names()
    names.visit(ast.parse("clf = FDANClassifier().fit(table, y)\nclf.predict(make_table(audio=a))"))
    assert names.calls == 4


def test_commands_are_found_in_scripts():
    script = 'find c -name "*.wav" | skfdan predict model - --csv > e.csv\n# skfdan no\nls skfdan\n'
    script += ".venv/bin/skfdan train clips \\\n    --out m  # quick\n"
    assert commands_of(script) == [
        ["predict", "model", "-", "--csv"],
        ["train", "clips", "--out", "m"],
    ]
    assert not is_command(["train", "clips", "--outt", "m"])
