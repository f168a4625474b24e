import csv
import io
import json

import numpy as np
import pytest

from skfdan import load_pretrained, make_table, save_pretrained
from skfdan.classifiers import GMTCNetClassifier
from skfdan.cli import _predictor, main
from skfdan.datasets import load_folder
from skfdan.preprocessing import MFCC, MelSpectrogram


@pytest.fixture
def clips(corpus):
    return load_folder(corpus).table


@pytest.fixture
def broken(tmp_path):
    file = tmp_path / "broken.wav"
    file.write_text("These are words.\n" * 20)
    return str(file)


def as_json(capsys):
    return json.loads(capsys.readouterr().out)


def test_text(model, clips, capsys):
    wav = clips["audio"][0]
    assert main(["predict", str(model), wav]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    expected = load_pretrained(model).predict_proba(make_table(audio=[wav]))[0]
    first, second = sorted(zip(expected, ("anger", "sadness"), strict=True), reverse=True)
    assert out == f"{wav}: {first[1]} ({first[1]} {first[0]:.3f}, {second[1]} {second[0]:.3f})\n"


@pytest.mark.parametrize("modality", ["audio", "visual", "fused"])
def test_json_of_each_modality(model, clips, modality, capsys):
    files = clips["visual"][:3].tolist()  # they hold the sound too
    assert main(["predict", str(model), *files, "--json", "--modality", modality]) == 0
    found = as_json(capsys)
    pipe = load_pretrained(model)
    pipe[-1].set_params(predict_modality=modality)
    expected = pipe.predict_proba(make_table(visual=files, audio=files))
    assert [line["file"] for line in found] == files
    assert [line["error"] for line in found] == [None] * 3
    for line, p in zip(found, expected, strict=True):
        assert list(line["probabilities"]) == ["anger", "sadness"]
        np.testing.assert_allclose(list(line["probabilities"].values()), p, rtol=1e-9)
        assert line["emotion"] == ["anger", "sadness"][p.argmax()]


def test_fused_takes_what_a_file_has(model, clips, capsys):
    wav, mp4 = clips["audio"][0], clips["visual"][0]
    assert main(["predict", str(model), wav, mp4, "--json", "--modality", "fused"]) == 0
    heard, both = as_json(capsys)
    assert main(["predict", str(model), wav, "--json"]) == 0
    (alone,) = as_json(capsys)
    assert heard["probabilities"] == pytest.approx(alone["probabilities"], rel=1e-9)
    assert both["probabilities"] != alone["probabilities"]


def test_a_broken_file_among_good_ones(model, clips, broken, capsys):
    good = clips["audio"][:2].tolist()
    files = [good[0], broken, "nowhere.wav", good[1]]
    assert main(["predict", str(model), *files]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == files
    assert "error: is not a media file" in lines[1]
    assert "error: cannot be read: no such file" in lines[2]
    assert "error" not in lines[0] + lines[3]
    assert main(["predict", str(model), *files, "--csv"]) == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["file"] for row in rows] == files
    assert [bool(row["error"]) for row in rows] == [False, True, True, False]
    assert rows[1]["emotion"] == rows[1]["p_anger"] == ""
    for row in (rows[0], rows[3]):
        p = {label: float(row[f"p_{label}"]) for label in ("anger", "sadness")}
        assert sum(p.values()) == pytest.approx(1, abs=1e-5)
        assert row["emotion"] == max(p, key=p.get)


def test_nothing_but_broken_files(model, broken, capsys):
    assert main(["predict", str(model), broken, "--json"]) == 1
    (line,) = as_json(capsys)
    assert line["emotion"] is line["probabilities"] is None
    assert "is not a media file" in line["error"]


def test_a_list_on_the_standard_input(model, clips, capsys, monkeypatch):
    monkeypatch.setattr(_predictor, "CHUNK", 2)
    files = clips["audio"][:5].tolist()
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{files[1]}\n\n" + "\n".join(files[2:])))
    assert main(["predict", str(model), files[0], "-", "--json"]) == 0
    found = as_json(capsys)
    assert [line["file"] for line in found] == files
    # What stands beside a file does not change it.
    assert main(["predict", str(model), files[3], "--json"]) == 0
    np.testing.assert_allclose(
        list(as_json(capsys)[0]["probabilities"].values()),
        list(found[3]["probabilities"].values()),
        rtol=1e-9,
    )
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert main(["predict", str(model), "-"]) == 2
    assert "list of files on the standard input is empty" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_itself(model, clips, broken, run):
    """A list through a pipe, with a name that is no text."""
    names = f"{clips['audio'][0]}\n{broken}\n".encode() + b"\xff.wav\n"
    done = run(
        "predict",
        model,
        "-",
        "--csv",
        input=names.decode(errors="surrogateescape"),
        errors="surrogateescape",
        encoding="utf-8",
    )
    assert done.returncode == 1
    assert done.stderr == ""
    first, *others = list(csv.DictReader(io.StringIO(done.stdout)))
    assert first["emotion"] in ("anger", "sadness")
    assert [row["emotion"] for row in others] == ["", ""]
    assert others[1]["file"].endswith("ff.wav")


def test_what_is_no_model(model, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    save_pretrained(MelSpectrogram(), tmp_path / "mel")
    for folder, said in (
        ("nowhere", "there is no folder 'nowhere'"),
        (tmp_path / "empty", "there is no config.json; it is no skfdan model"),
        (tmp_path / "mel", "holds a MelSpectrogram and no classifier at its end"),
    ):
        assert main(["predict", str(folder), "a.wav"]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("skfdan: error: ")
        assert said in err
        assert len(err.splitlines()) == 1


def test_a_model_of_python(clips, tmp_path, capsys):
    """A pipeline on one column, and a network that has no choice of modality."""
    from sklearn.pipeline import make_pipeline

    files = clips["audio"].tolist()
    y = ["b", "a"] * (len(files) // 2)
    mfcc = MFCC(duration=0.5, hop_length=256)
    net = GMTCNetClassifier(max_epochs=1, random_state=0, n_filters=4, verbose=0)
    pipe = make_pipeline(mfcc, net).fit(clips[["audio"]], y)
    save_pretrained(pipe, tmp_path / "model")
    assert main(["predict", str(tmp_path / "model"), files[0], "none.wav", "--json"]) == 1
    good, bad = as_json(capsys)
    expected = pipe.predict_proba(clips[["audio"]][:1])[0]
    np.testing.assert_allclose(list(good["probabilities"].values()), expected, rtol=1e-9)
    assert "no such file" in bad["error"]
    assert main(["predict", str(tmp_path / "model"), files[0], "--modality", "visual"]) == 2
    assert "a GMTCNetClassifier has no choice" in capsys.readouterr().err


def test_a_model_that_decodes_by_itself(clips, tmp_path, capsys):
    from skfdan import FDANClassifier

    clf = FDANClassifier(
        backbone="cnn",
        weights=None,
        input_size=16,
        max_epochs=1,
        random_state=0,
        verbose=0,
        audio_transformer=MelSpectrogram(n_mels=16, duration=0.5),
    )
    clf.fit(make_table(audio=clips["audio"]), ["b", "a"] * 12)
    clf.save_pretrained(tmp_path / "model")
    files = clips["audio"][:2].tolist()
    assert main(["predict", str(tmp_path / "model"), *files, "--json"]) == 0
    expected = clf.predict_proba(make_table(audio=files))
    found = [list(line["probabilities"].values()) for line in as_json(capsys)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def small(**params):
    from skfdan import FDANClassifier

    given = {"backbone": "cnn", "weights": None, "input_size": 16, "max_epochs": 1}
    return FDANClassifier(**given, random_state=0, verbose=0, **params)


def test_a_classifier_of_arrays_alone(clips, corpus, tmp_path, capsys):
    """Nothing tells what made them of files."""
    y = ["b", "a"] * 12
    spectra = MelSpectrogram(sample_rate=8000, n_mels=40, duration=0.5).fit_transform(
        clips[["audio"]]
    )[:, 0]
    for name, X in (
        ("pictures", np.stack(list(spectra))),
        ("vectors", np.eye(24)[:, :5]),
        ("table", make_table(audio=spectra)),
    ):
        small().fit(X, y).save_pretrained(tmp_path / name)
        for arguments in (
            ["predict", str(tmp_path / name), clips["audio"][0]],
            ["evaluate", str(tmp_path / name), str(corpus)],
            ["demo", "--model", str(tmp_path / name)],
        ):
            assert main(arguments) == 2
            out, err = capsys.readouterr()
            assert out == ""
            assert "holds a FDANClassifier alone, which was trained on arrays of audio or" in err
            assert "Save the pipeline with its transformer" in err
    clf = small().fit(make_table(audio=clips["audio"]), y)
    clf.save_pretrained(tmp_path / "paths")
    assert main(["predict", str(tmp_path / "paths"), clips["audio"][0], "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = list(json.loads(out)[0]["probabilities"].values())
    np.testing.assert_allclose(found, clf.predict_proba([clips["audio"][0]])[0], rtol=1e-9)


def test_half_a_clip_that_cannot_be_read_is_told(model, clips, tmp_path, capsys):
    import av

    silent, whole = tmp_path / "silent.mp4", clips["visual"][0]
    with av.open(whole) as source, av.open(str(silent), "w") as target:
        track = source.streams.video[0]
        copy = target.add_stream_from_template(track)
        for packet in source.demux(track):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    files = [whole, str(silent), clips["audio"][0]]
    assert main(["predict", str(model), *files, "--modality", "fused", "--json"]) == 1
    out, err = capsys.readouterr()
    assert [line["error"] for line in json.loads(out)] == [None] * 3
    (line,) = err.splitlines()
    begin = f"skfdan: warning: {silent}: the voice could not be read and is left out: "
    assert line.startswith(begin)
    assert len(line) > len(begin)
    assert main(["predict", str(model), *files, "--modality", "visual", "--json"]) == 1
    assert [bool(line["error"]) for line in as_json(capsys)] == [False, False, True]
    assert main(["predict", str(model), str(silent), "--modality", "visual"]) == 0
    assert capsys.readouterr().err == ""


def test_interrupted(model, clips, capsys, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(_predictor.Predictor, "files", interrupt)
    assert main(["predict", str(model), clips["audio"][0]]) == 130


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model"], "FILE"),
        (["model", "a.wav", "--csv", "--json"], "not allowed with"),
        (["model", "a.wav", "--modality", "smell"], "invalid choice"),
    ],
)
def test_wrong_usage(capsys, arguments, said):
    with pytest.raises(SystemExit) as stop:
        main(["predict", *arguments])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_real_clips(model, real_data, capsys):
    files = sorted(map(str, (real_data / "clips").glob("*.mp4")))
    files += sorted(map(str, (real_data / "ravdess" / "Actor_01").glob("*.flac")))[:2]
    if len(files) < 3:
        pytest.skip("SKFDAN_DATA has no clips")
    assert main(["predict", str(model), *files, "--json"]) == 0
    assert [line["error"] for line in as_json(capsys)] == [None] * len(files)


def test_every_reader_of_sound_is_of_voices():
    from skfdan.cli._predictor import _modality
    from skfdan.preprocessing import MFCC, FaceFrames, MelSpectrogram, Wav2Vec2Embedding

    for transformer in (MelSpectrogram(), MFCC(), Wav2Vec2Embedding()):
        assert _modality(transformer) == "audio"
    assert _modality(FaceFrames()) == "visual"
