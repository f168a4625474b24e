import json
import os

import numpy as np
import pytest
import soundfile
import torch

from skfdan import load_pretrained, make_table
from skfdan.classifiers import FDANClassifier
from skfdan.cli import main
from skfdan.datasets import load_folder
from skfdan.metrics import uar_score


def same(one, other):
    """Whether two models have the same weights, bit by bit."""
    states = [load_pretrained(folder)[-1].module_.state_dict() for folder in (one, other)]
    return all(torch.equal(*pair) for pair in zip(*(s.values() for s in states), strict=True))


def facts(folder):
    return json.loads((folder / "config.json").read_text())["facts"]


def test_the_model_that_was_tested_is_saved(corpus, fast, tmp_path, capsys):
    out = tmp_path / "new" / "model"
    assert main(["train", str(corpus), "--out", str(out), *fast]) == 0
    printed, err = capsys.readouterr()
    assert err == ""
    assert printed.startswith("24 clips of 4 speakers and 2 emotions: 24 voices, 24 faces\n")
    assert "protocol disjoint: the 6 voices of 1 of 4 speakers" in printed
    held = printed.split("held out: ")[1].split("\n")[0]

    data = load_folder(corpus)
    test = data.groups == held
    assert test.sum() == 6
    loaded = load_pretrained(out)
    predicted = loaded.predict(make_table(audio=data.table["audio"][test]))
    found = facts(out)
    assert found["scores"]["UAR"] == uar_score(data.target[test], predicted)
    assert found["scores"]["rows"] == 6
    assert f"UAR {found['scores']['UAR']:.3f}" in printed
    assert found["protocol"].startswith("disjoint: the 6 voices of 1 of 4 speakers")
    assert found["corpora"].startswith("`clips.csv`: 24 clips of 4 speakers")
    assert "18 voices and 18 faces of 3 speakers trained" in found["corpora"]
    # Speakers may be people.
    assert held not in (out / "README.md").read_text()
    assert loaded[-1].get_params()["max_epochs"] == 3
    assert loaded[-1].class_count_.sum() == 18


def test_a_seed_repeats_everything(corpus, fast, model, tmp_path, capsys):
    for name, seed in (("same", "0"), ("other", "1")):
        out = tmp_path / name
        arguments = ["train", str(corpus), "--out", str(out), "--seed", seed, *fast]
        assert main([*arguments, "--cache", str(tmp_path / "cache")]) == 0
    assert same(tmp_path / "same", model)
    assert not same(tmp_path / "other", model)


def test_protocols_and_options(corpus, fast, tmp_path, capsys):
    out = tmp_path / "model"
    arguments = ["train", str(corpus), "--out", str(out), *fast, "--epochs", "1", "--lr", "0.002"]
    assert main([*arguments, "--alpha", "0.5", "--protocol", "none"]) == 0
    assert "tested nothing" in capsys.readouterr().out
    assert facts(out)["scores"] is None
    assert facts(out)["protocol"] == "none: every clip trained, nothing was tested."
    clf = load_pretrained(out)[-1]
    assert clf.class_count_.sum() == 24
    assert (clf.max_epochs, clf.lr, clf.alpha) == (1, 0.002, 0.5)

    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert "is not empty; give another folder, or --overwrite" in err
    assert main([*arguments, "--overwrite", "--protocol", "paper", "--holdout", "0.25"]) == 0
    assert facts(out)["scores"]["rows"] == 6
    assert facts(out)["protocol"].startswith("paper: 6 of 24 voices")


def test_voices_without_speakers(tmp_path, fast, capsys):
    random = np.random.default_rng(0)
    for emotion in ("happy", "sad"):
        (tmp_path / "clips" / emotion).mkdir(parents=True)
        for i in range(5):
            file = tmp_path / "clips" / emotion / f"ann_{i}.wav"
            soundfile.write(file, random.uniform(-0.1, 0.1, 8000), 16000)
    (tmp_path / "clips" / "note.txt").touch()
    arguments = ["train", str(tmp_path / "clips"), "--out", str(tmp_path / "model"), *fast]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert "10 clips of unknown speakers and 2 emotions: 10 voices, 0 faces" in out
    assert "the speakers are unknown" in out
    assert "not speaker-independent" in facts(tmp_path / "model")["protocol"]
    assert err == "1 entry left out; `skfdan check` lists them\n"
    wav = str(tmp_path / "clips" / "happy" / "ann_0.wav")
    assert main(["predict", str(tmp_path / "model"), wav]) == 0
    assert main(["predict", str(tmp_path / "model"), wav, "--modality", "fused"]) == 2
    assert "has learned from audio cells alone" in capsys.readouterr().err
    # One speaker alone.
    assert main([*arguments, "--overwrite", "--speaker-pattern", "ann"]) == 2
    assert "one speaker alone" in capsys.readouterr().err


def test_a_broken_file_ends_it_before_the_training(corpus, fast, tmp_path, capsys, monkeypatch):
    held = load_folder(corpus).groups
    manifest = tmp_path / "clips.csv"
    lines = ["audio,emotion,speaker"]
    for i in range(8):
        file = tmp_path / f"{i}.wav"
        # All files of the speaker that is held out with this seed are broken.
        lines.append(f"{file.name},{('happy', 'sad')[i % 2]},{held[i % 4]}")
        file.touch()
    manifest.write_text("\n".join(lines))

    def fail(*args, **kwargs):
        raise AssertionError("trained")

    monkeypatch.setattr(FDANClassifier, "fit", fail)
    assert main(["train", str(manifest), "--out", str(tmp_path / "model"), *fast]) == 2
    assert "is empty (0 bytes)" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_broken_files_count_as_missing(corpus, fast, tmp_path, capsys):
    clips = tmp_path / "corpus"
    clips.mkdir()
    (clips / "clips").symlink_to(corpus.parent / "clips")
    text = corpus.read_text()
    (clips / "broken.wav").touch()
    name = next(line.split(",")[4] for line in text.splitlines() if "speaker00" in line)
    (clips / "clips.csv").write_text(text.replace(name, "broken.wav"))
    out = tmp_path / "model"
    arguments = ["train", str(clips / "clips.csv"), "--out", str(out), *fast]
    assert main([*arguments, "--on-error", "missing"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("skfdan: warning: MelSpectrogram: 1 of ")
    assert "broken.wav): is empty (0 bytes)" in err
    assert main([*arguments, "--overwrite"]) == 2


def test_interrupted_and_gone_on(corpus, fast, tmp_path, capsys, monkeypatch, model):
    out = tmp_path / "model"
    arguments = ["train", str(corpus), "--out", str(out), *fast]
    arguments += ["--checkpoint", str(tmp_path / "state")]
    run_epoch, epochs = FDANClassifier._run_epoch, []

    def interrupted(self, *args):
        if len(epochs) == 2:
            raise KeyboardInterrupt
        epochs.append(self)
        run_epoch(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(FDANClassifier, "_run_epoch", interrupted)
        assert main(arguments) == 130
    assert "skfdan: interrupted" in capsys.readouterr().err
    assert not out.exists()

    def counted(self, *args):
        epochs.append(self)
        run_epoch(self, *args)

    monkeypatch.setattr(FDANClassifier, "_run_epoch", counted)
    assert main(arguments) == 0
    assert len(epochs) == 3
    assert same(out, model)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--holdout", "1"], "not a number between 0 and 1"),
        (["--cache", ""], "'' is no folder"),
        (["--checkpoint", __file__], "is no folder, nor the name of a new one"),
        (["--holdout", "x"], "not a number between 0 and 1"),
        (["--epochs", "0"], "whole number above 0"),
        (["--seed", "-1"], "--seed"),
        (["--protocol", "loso"], "invalid choice"),
    ],
)
def test_wrong_usage(corpus, tmp_path, capsys, arguments, said):
    with pytest.raises(SystemExit) as stop:
        main(["train", str(corpus), "--out", str(tmp_path / "model"), *arguments])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lr", "-1"], "lr=-1.0: it must be a number, at least 0"),
        (["--device", "tpu"], "device='tpu'"),
        (["--corpus", "ravdess"], "RAVDESS"),
    ],
)
def test_what_cannot_run(corpus, fast, tmp_path, capsys, arguments, said):
    """Told before a single file is decoded."""
    out = tmp_path / "model"
    assert main(["train", str(corpus), "--out", str(out), *fast, *arguments]) == 2
    printed, err = capsys.readouterr()
    assert printed == ""
    assert err.startswith("skfdan: error: ")
    assert said in err


def test_a_file_in_the_place_of_the_model(corpus, tmp_path, capsys):
    (tmp_path / "model").write_text("mine")
    assert main(["train", str(corpus), "--out", str(tmp_path / "model"), "--overwrite"]) == 2
    assert "is a file; a model is a folder" in capsys.readouterr().err
    assert (tmp_path / "model").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "new", "--cache", "new"], "--cache 'new' is in --out 'new', which will hold"),
        (["--out", "new", "--checkpoint", "new/a/b"], "--checkpoint 'new/a/b' is in --out 'new'"),
        (["--out", "link/x", "--cache", "real/x/c"], "--cache 'real/x/c' is in --out 'link/x'"),
        (["--out", "file/model"], "--out 'file/model': no model can be saved there: "),
        (["--out", "n" * 300], "no model can be saved there: File name too long"),
        (["--out", "/proc/model"], "--out '/proc/model': no model can be saved there: "),
        (["--out", ".", "--overwrite"], "--out '.' is the current folder, which can't be replaced"),
    ],
)
def test_where_no_model_can_be_saved(
    corpus, fast, model, tmp_path, monkeypatch, capsys, arguments, said
):
    """Told before a single file is decoded, and nothing is left behind."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    if "." in arguments:
        for file in model.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    else:
        (folder / "file").touch()
        (folder / "real").mkdir()
        (folder / "link").symlink_to("real")
    before = sorted(folder.rglob("*"))
    assert main(["train", str(corpus), *fast, *arguments]) == 2
    printed, err = capsys.readouterr()
    assert printed == ""
    assert err.startswith("skfdan: error: --")
    assert said in err
    assert sorted(folder.rglob("*")) == before


def test_the_folder_one_stands_in(corpus, fast, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(corpus), "--out", ".", *fast]) == 0
    assert sorted(os.listdir()) == ["README.md", "config.json", "model.safetensors"]
