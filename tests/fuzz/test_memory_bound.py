"""Memory must not grow with the rows of a table of files; ``memory_bound.py`` does 20,000."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="measures memory as Unix does")

from memory_bound import measure, write_corpus

# 1200 more rows would be 90 MB of spectrograms and faces, if they were kept.
GROWTH_MB = 40


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path):
    write_corpus(tmp_path)
    # In processes of their own: what a first fit has left would be in the way of a second.
    with ThreadPoolExecutor(2) as both:
        few, many = both.map(lambda n: measure(n, folder=tmp_path), (300, 1500))
    assert many["rows"] == 1500
    assert many["self_mb"] - few["self_mb"] < GROWTH_MB
    assert few["self_mb"] > few["before_mb"] > 50  # something was measured
    assert many["accuracy"] > 0.5


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("workers", [False, True])
def test_the_script_keeps_its_limit(workers):
    script = Path(__file__).with_name("memory_bound.py")
    done = subprocess.run(
        [sys.executable, str(script), "--rows", "2500", *["--workers"] * workers],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is kept" in done.stdout
    tight = subprocess.run(
        [sys.executable, str(script), "--rows", "100", "--limit-gb", "0.1"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert tight.returncode == 1
    assert "EXCEEDED" in tight.stdout
