"""Damaged and hostile media files go through the transformers and do no harm."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from media_specials import SPECIALS
from mutated_media import MUTATIONS, make_corpus

HERE = Path(__file__).parent


def content_of(path):
    path = Path(path)
    if path.is_symlink():
        return str(path.readlink())
    if path.is_dir():
        return {p.name: content_of(p) for p in path.iterdir()}
    return path.read_bytes() if path.is_file() else None


def test_the_same_seed_gives_the_same_files(tmp_path):
    first, again = (make_corpus(tmp_path / name, 60, seed=3) for name in "ab")
    other = make_corpus(tmp_path / "c", 60, seed=4)
    names = [Path(file).name for file in first["file"]]
    assert names == [Path(file).name for file in again["file"]]
    assert names != [Path(file).name for file in other["file"]]
    links = first["file"].map(lambda file: Path(file).is_symlink())
    for file, twin in zip(first["file"][~links], again["file"][~links], strict=True):
        assert content_of(file) == content_of(twin)


@pytest.mark.slow
@pytest.mark.long
def test_a_corpus_has_good_files_among_mutants_and_specials(tmp_path):
    manifest = make_corpus(tmp_path / "corpus", 500, seed=0)
    assert len(manifest) == 500
    assert manifest["file"].is_unique
    shares = manifest["group"].value_counts()
    assert shares["good"] == 100
    assert shares["special"] == len(SPECIALS)
    assert set(manifest["kind"][manifest["group"] == "mutant"]) == set(MUTATIONS)
    # Scattered: no long run of one group.
    runs = (manifest["group"] != manifest["group"].shift()).cumsum().value_counts()
    assert runs.max() < 20
    same = [
        content_of(file) == content_of(source)
        for file, source in manifest[["file", "source"]].itertuples(index=False)
    ]
    share = manifest.assign(same=same).groupby("group")["same"].mean()
    assert share["good"] == 1
    assert share["mutant"] < 0.05
    on_disk = pd.read_csv(tmp_path / "corpus" / "manifest.csv")
    assert on_disk["file"].tolist() == manifest["file"].tolist()


def run(count, *options):
    """Run the script in a process of its own, which a decoder may bring down."""
    command = [sys.executable, str(HERE / "media_run.py"), "--count", str(count), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_a_few_mutated_files_do_no_harm():
    told = run(60)
    assert "60 files" in told
    assert "0 violations" in told


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("seed", ["1", "2"])
def test_many_mutated_files_do_no_harm(seed):
    assert "0 violations" in run(600, "--seed", seed)
