import pytest

from skfdan.datasets import load_emodb


def touch(root, *names):
    for path in (root / name for name in names):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_letters_and_speakers(tmp_path):
    touch(tmp_path, *(f"wav/08b03{e}b.wav" for e in "WLEAFTN"), "wav/03a01Fa.wav")
    data = load_emodb(tmp_path)
    assert dict(zip(data.frame["clip"].str[5], data.target, strict=True)) == {
        "W": "anger",
        "L": "boredom",
        "E": "disgust",
        "A": "fear",
        "F": "happiness",
        "T": "sadness",
        "N": "neutral",
    }
    first = data.frame.loc[0].to_dict()
    assert first["clip"] == "03a01Fa"
    assert first["speaker"] == "emodb-03"
    assert first["sex"] == "male"
    assert first["text"] == "Der Lappen liegt auf dem Eisschrank."
    assert first["repetition"] == "a"
    assert data.frame["sex"].tolist()[1:] == ["female"] * 7
    assert data.table["visual"].isna().all()


@pytest.mark.parametrize(
    "bad",
    [
        "03a01Xa.wav",
        "03a01fa.wav",
        "07a01Fa.wav",
        "17a01Fa.wav",
        "03a03Fa.wav",
        "03c01Fa.wav",
        "03a01Fa.lab",
        "03a01Fab.wav",
    ],
)
def test_names_off_the_scheme(tmp_path, bad):
    touch(tmp_path, "03a02Na.wav", bad)
    data = load_emodb(tmp_path)
    assert data.target.tolist() == ["neutral"]
    assert data.report["file"].tolist() == [str(tmp_path / bad)]
