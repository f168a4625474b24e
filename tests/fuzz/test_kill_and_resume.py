"""Some of the kills of ``kill_and_resume.py``; its command line does more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

SCRIPT = Path(__file__).with_name("kill_and_resume.py")


def kill(*arguments):
    # A process of its own: it forks, which the threads of a test session forbid.
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
        env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | dict(os.environ),
    )


def rows(done):
    """Return the kills and the verdict of each activity."""
    lines = done.stdout.splitlines()[1:]
    return {line[:10].strip(): (int(line[10:16]), line[28:]) for line in lines}


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.long)])
def test_nothing_is_lost(kills):
    done = kill("--kills", str(kills), "--seed", "2", "--every-step")
    assert done.returncode == 0, done.stdout + done.stderr
    found = rows(done)
    assert sum(found[name][0] for name in ("fit", "cache", "save")) == kills
    assert found["fit steps"][0] > 8
    assert found["save steps"][0] > 10
    assert all(verdict.startswith("nothing lost") for _, verdict in found.values())


# What the script must notice: each is put into its process before it starts. The folder is
# gone for so long that no run of nine kills misses it, however fast the disk.
SPOILT = {
    "fit": """
from skfdan.classifiers import _checkpoint
_checkpoint.Checkpoint._read = lambda self: None
""",
    "save": """
import shutil, time, skfdan.persistence._model as model
def put(temporary, folder):
    shutil.rmtree(folder, ignore_errors=True)
    time.sleep(0.2)
    shutil.copytree(temporary, folder)
model.put = put
""",
}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("activity", SPOILT)
def test_losses_are_noticed(activity):
    code = f"""
import sys
{SPOILT[activity]}
sys.path.insert(0, {str(SCRIPT.parent)!r})
import kill_and_resume as script
script.ACTIVITIES = {{{activity!r}: script.ACTIVITIES[{activity!r}]}}
sys.exit(script.main(["--kills", "30", "--seed", "0"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "VIOLATION" in done.stdout
