"""The command ``skfdan``."""

from bad_input.shared import Case
from skfdan.cli import main


class Exited(Exception):
    """A command ended with an exit code that is not 0, and these words."""


def _run(*arguments: str):
    def case(c: Case):
        capsys = c.request.getfixturevalue("capsys")
        capsys.readouterr()
        try:
            code = main([str(argument).replace("TMP", str(c.tmp)) for argument in arguments])
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        assert printed.out == ""
        # argparse prints its usage before the error.
        raise Exited(code, printed.err.strip().splitlines()[-1])

    return case


CASES = {
    "`skfdan train`": _run("train"),
    "`skfdan check` of a folder that is not there": _run("check", "TMP/none"),
    "`skfdan check` of an empty folder": _run("check", "TMP"),
    "`skfdan check --corpus iemocap`": _run("check", "TMP", "--corpus", "iemocap"),
    "`skfdan check --corpus ravdess` of another folder": _run(
        "check", "TMP", "--corpus", "ravdess"
    ),
    "`skfdan check --speaker-pattern` with no regular expression": _run(
        "check", "TMP", "--speaker-pattern", "(spk"
    ),
    "`skfdan check --jobs 0`": _run("check", "TMP", "--jobs", "0"),
    "`skfdan check --csv` into a folder that is not there": _run(
        "check", "TMP", "--csv", "TMP/none/out.csv"
    ),
}
