import io
import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, f1_score, recall_score

from skfdan import load_pretrained, make_table
from skfdan.cli import main
from skfdan.cli._scores import by_group, confusion
from skfdan.datasets import load_folder


@pytest.fixture(scope="module")
def expected(corpus, model):
    data = load_folder(corpus)
    predicted = load_pretrained(model).predict(make_table(audio=data.table["audio"]))
    return data.target, predicted, data.groups


def test_text(corpus, model, expected, capsys):
    assert main(["evaluate", str(model), str(corpus)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    y, predicted, speakers = expected
    war = (y == predicted).mean()
    recalls = recall_score(y, predicted, average=None)
    wf1 = f1_score(y, predicted, average="weighted")
    assert f"WAR {war:.3f}  UAR {recalls.mean():.3f}  wF1 {wf1:.3f}  (chance UAR 0.500)" in out
    counts = confusion_matrix(y, predicted)
    table = [line.split() for line in out.splitlines()]
    for label, row, recall in zip(("anger", "sadness"), counts, recalls, strict=True):
        assert [label, *map(str, row), f"{recall:.3f}"] in table
    each = [(y == predicted)[speakers == s].mean() for s in sorted(set(speakers))]
    assert f"over 4 groups: WAR {np.mean(each):.3f} ± {np.std(each):.3f}" in out
    assert "18 voices and 18 faces of 3 speakers trained" in out
    assert "does not keep which" in out


def test_json(corpus, model, expected, capsys):
    assert main(["evaluate", str(model), str(corpus), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    y, predicted, speakers = expected
    assert found["clips"] == 24
    assert found["unreadable"] == 0
    assert found["WAR"] == (y == predicted).mean()
    assert found["confusion"]["anger"]["sadness"] == ((y == "anger") & (predicted != y)).sum()
    assert found["recall"]["sadness"] == (predicted[y == "sadness"] == "sadness").mean()
    assert sorted(found["groups"]) == sorted(set(speakers))
    assert found["groups"]["speaker01"]["clips"] == (speakers == "speaker01").sum()
    assert found["tested_by_its_maker"].startswith("disjoint")


def test_csv_by_another_column(corpus, model, expected, capsys):
    assert main(["evaluate", str(model), str(corpus), "--csv", "--groups", "odd"]) == 0
    found = pd.read_csv(io.StringIO(capsys.readouterr().out)).set_index("odd")
    y, predicted, _ = expected
    assert found.index.tolist() == ["(all)", "(none)", "a", "b"]
    assert found.loc["(all)", "clips"] == 24
    assert found.loc["(all)", "WAR"] == pytest.approx((y == predicted).mean())
    of = np.arange(24) % 3 == 1
    assert found.loc["b", "WAR"] == pytest.approx((y == predicted)[of].mean())
    anger = of & (y == "anger")
    assert found.loc["b", "recall_anger"] == pytest.approx((predicted[anger] == "anger").mean())


@pytest.mark.parametrize("column", ["WAR", "clips", "recall_anger"])
def test_a_group_that_is_called_as_a_score(corpus, model, tmp_path, capsys, column):
    frame = pd.read_csv(corpus)[["audio", "emotion"]].assign(**{column: ["a", "b"] * 12})
    frame["audio"] = [str(corpus.parent / name) for name in frame["audio"]]
    frame.to_csv(tmp_path / "clips.csv", index=False)
    arguments = ["evaluate", str(model), str(tmp_path / "clips.csv"), "--groups", column]
    assert main([*arguments, "--csv"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"--groups {column}: the csv table has a column of that name of its own" in err
    assert main([*arguments, "--json"]) == 0
    assert sorted(json.loads(capsys.readouterr().out)["groups"]) == ["a", "b"]


def test_faces(corpus, model, capsys):
    assert main(["evaluate", str(model), str(corpus), "--json", "--modality", "visual"]) == 0
    found = json.loads(capsys.readouterr().out)
    data = load_folder(corpus)
    pipe = load_pretrained(model)
    pipe[-1].set_params(predict_modality="visual")
    predicted = pipe.predict(make_table(visual=data.table["visual"]))
    assert found["WAR"] == (predicted == data.target).mean()


def test_unknown_emotions_broken_files_and_no_speakers(corpus, model, tmp_path, capsys):
    frame = pd.read_csv(corpus)[["audio", "emotion"]]
    frame["audio"] = [str(corpus.parent / name) for name in frame["audio"]]
    (tmp_path / "broken.wav").touch()
    frame.loc[0, "audio"] = "broken.wav"
    frame.loc[1:3, "emotion"] = "envy"
    frame.to_csv(tmp_path / "clips.csv", index=False)
    assert main(["evaluate", str(model), str(tmp_path / "clips.csv"), "--json"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["clips"] == 21
    assert found["unreadable"] == 1
    assert found["groups"] is None
    assert "the model does not know 'envy': 3 clips left out" in err
    assert "broken.wav: is empty (0 bytes)" in err
    assert "1 clip could not be read" in err
    assert "speakers are unknown" in err
    # The denominator stays, and the clip has the most frequent emotion of the training.
    clf = load_pretrained(model)[-1]
    guess = clf.classes_[clf.class_count_.argmax()]
    assert sum(found["confusion"]["anger"].values()) == (frame["emotion"] == "anger").sum()
    good = frame.iloc[4:]
    right = load_pretrained(model).predict(make_table(audio=good["audio"])) == good["emotion"]
    assert found["WAR"] == pytest.approx((right.sum() + (guess == frame["emotion"][0])) / 21)


def test_half_a_clip_that_cannot_be_read_is_told(corpus, model, tmp_path, capsys):
    frame = pd.read_csv(corpus)[["visual", "audio", "emotion"]]
    for column in ("visual", "audio"):
        frame[column] = [str(corpus.parent / name) for name in frame[column]]
    (tmp_path / "broken.wav").write_text("no picture")
    frame.loc[0, "visual"] = "broken.wav"
    frame.to_csv(tmp_path / "clips.csv", index=False)
    arguments = ["evaluate", str(model), str(tmp_path / "clips.csv"), "--json"]
    assert main([*arguments, "--modality", "fused"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["clips"] == 24
    assert json.loads(out)["unreadable"] == 1
    assert err.count("broken.wav") == 1
    assert "of 1 clip only the voice or only the face could be read" in err
    assert main([*arguments, "--modality", "audio"]) == 0


def test_what_cannot_run(corpus, model, tmp_path, capsys):
    frame = pd.read_csv(corpus)[["audio", "emotion"]].assign(emotion="envy")
    frame["audio"] = [str(corpus.parent / name) for name in frame["audio"]]
    frame.to_csv(tmp_path / "envy.csv", index=False)
    for arguments, said in (
        ([model, tmp_path / "envy.csv"], "Nothing can be scored"),
        ([model, corpus, "--groups", "zodiac"], "--groups zodiac: the corpus has the columns"),
        ([model, "nowhere"], "does not exist"),
        (["nowhere", corpus], "there is no folder 'nowhere'"),
        ([model, corpus, "--corpus", "savee"], "SAVEE"),
    ):
        assert main(["evaluate", *map(str, arguments)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert said in err.splitlines()[-1]
        assert "Traceback" not in err


def test_an_emotion_without_a_clip_has_no_recall():
    y = np.array(["a", "a", "c"])
    table = confusion(y, np.array(["a", "b", "b"]), ["a", "b", "c"])
    assert table.index.tolist() == ["a", "c"]
    assert table.loc["a"].tolist() == [1, 1, 0, 0.5]
    assert table.loc["c"].tolist() == [0, 1, 0, 0]


def test_a_groups_uar_is_over_its_emotions():
    y = np.array(["a", "b", "a", "a"])
    parts = by_group(y, np.array(["a", "a", "a", "a"]), np.array(["x", "x", "y", "y"]))
    assert parts["UAR"].to_dict() == {"x": 0.5, "y": 1.0}
    assert parts["clips"].to_dict() == {"x": 2, "y": 2}
