import shlex

import pytest

from skfdan.cli import _demo, main


@pytest.mark.slow
def test_demo(tmp_path, capsys):
    out = tmp_path / "my demo"
    # As the command runs it, with fewer clips and epochs.
    for _ in range(2):
        assert _demo.toy(out, clips=56, epochs=2) == 0
        printed, err = capsys.readouterr()
        assert err == ""
        assert "56 synthetic clips of 8 speakers" in printed
        assert "held out: speaker" in printed
        speaker = printed.split("held out: ")[1].split(",")[0]
        assert f"_{speaker}.wav: " in printed
    commands = [line.strip() for line in printed.splitlines() if line.startswith("  skfdan ")]
    assert [shlex.split(line)[1] for line in commands] == [
        *("predict", "evaluate", "check", "demo", "train")
    ]
    for line in commands[:3]:
        assert main(shlex.split(line)[1:]) == 0


def test_a_folder_that_is_taken(tmp_path, capsys):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").touch()
    assert main(["demo", "--out", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "it holds 'mine.txt'" in err
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
