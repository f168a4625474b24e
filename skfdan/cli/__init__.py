"""The command ``skfdan``. What a command needs is imported when it runs."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence

from skfdan.cli import _check, _demo, _evaluate, _predict, _train
from skfdan.cli._shared import INTERRUPTED, USAGE, tell

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Results go to the standard output, everything else to the standard error.

    Parameters
    ----------
    argv : sequence of str or None, default=None
        Arguments without the program's name; None takes those of the process.

    Returns
    -------
    int
        Exit code: 0 if all is well, 1 if a check found errors or a file could not be
        predicted, 2 if the command could not run, 130 after Ctrl-C.

    Raises
    ------
    SystemExit
        By argparse: 0 after ``--help`` and ``--version``, 2 for arguments it does not know.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     main(["check", folder])
    2
    """
    arguments = _parser().parse_args(argv)
    with warnings.catch_warnings():
        _tell_warnings()
        try:
            return arguments.run(arguments)
        except KeyboardInterrupt:
            return _interrupted()
        except (OSError, ValueError, RuntimeError, ImportError, MemoryError) as error:
            if isinstance(error.__cause__, KeyboardInterrupt):
                # While a class was made; so it comes up to Python 3.11.
                return _interrupted()
            # What is wrong with files, options, models, devices and downloads. Anything else
            # is a defect of this package, and a traceback helps to mend it.
            words = " ".join([str(error) or type(error).__name__, *getattr(error, "__notes__", [])])
            tell(f"skfdan: error: {words}")
            return USAGE


def _parser() -> argparse.ArgumentParser:
    from skfdan import __version__

    parser = argparse.ArgumentParser(
        prog="skfdan", description="Speech emotion recognition from voice and face."
    )
    parser.add_argument("--version", action="version", version=f"skfdan {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (_demo, _check, _train, _predict, _evaluate):
        command.add(commands)
    return parser


def _interrupted() -> int:
    tell("\nskfdan: interrupted")
    return INTERRUPTED


def _tell_warnings() -> None:
    """Say warnings that are for users in one line, without the place in the code."""
    others = warnings.showwarning

    def show(message, category, filename, lineno, file=None, line=None):
        if issubclass(category, UserWarning):
            tell(f"skfdan: warning: {message}")
        else:
            others(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    warnings.filterwarnings("default", category=UserWarning)
