import numpy as np
import pytest

from skfdan.datasets import load_fer2013


def touch(root, *names):
    for path in (root / name for name in names):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


CLASSES = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]


def images(n):
    return np.random.default_rng(0).integers(0, 256, (n, 48, 48), dtype=np.uint8)


def write_csv(path, pixels, labels, usage, header="emotion,pixels,Usage"):
    rows = [f"{e},{p},{u}" for e, p, u in zip(labels, pixels, usage, strict=True)]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def as_text(image):
    return " ".join(map(str, image.ravel()))


def write_npz(path, n=3, **changes):
    arrays = {
        "images": images(n),
        "labels": np.arange(n, dtype=np.int8),
        "classes": CLASSES,
        "split": ["Training", "PublicTest", "PrivateTest"][:n],
        **changes,
    }
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def test_csv(tmp_path):
    faces = images(8)
    faces[7] = faces[0]
    usage = ["Training"] * 5 + ["PublicTest", "PrivateTest", "PublicTest"]
    path = write_csv(tmp_path / "fer2013.csv", map(as_text, faces), [0, 1, 2, 3, 4, 5, 6, 6], usage)
    data = load_fer2013(path)
    assert data.target.tolist() == [
        "anger",
        "disgust",
        "fear",
        "happiness",
        "sadness",
        "surprise",
        "neutral",
        "neutral",
    ]
    assert data.table["visual"][0].dtype == np.uint8
    assert np.array_equal(np.stack(data.table["visual"].tolist()), faces)
    assert data.table["audio"].tolist() == [None] * 8
    assert data.frame["split"].tolist() == ["train"] * 5 + [
        "public_test",
        "private_test",
        "public_test",
    ]
    assert len(set(data.groups)) == 8
    assert "not known" in data.DESCR
    assert data.frame["duplicate_of"].tolist() == [None] * 7 + ["00000"]
    assert load_fer2013(tmp_path).frame.equals(data.frame)


def test_csv_of_the_other_column_order(tmp_path):
    path = tmp_path / "icml_face_data.csv"
    path.write_text(f"emotion, Usage, pixels\n3,Training,{as_text(images(1)[0])}\n")
    assert load_fer2013(path).target.tolist() == ["happiness"]


@pytest.mark.parametrize(
    "pixels",
    ["1 2 3", " ".join(["0"] * 2303 + ["256"]), " ".join(["0"] * 2303 + ["x"]), "", " 0" * 2305],
)
def test_csv_bad_pixels_name_the_row(tmp_path, pixels):
    good = as_text(images(1)[0])
    path = write_csv(tmp_path / "fer2013.csv", [good, pixels], [0, 1], ["Training"] * 2)
    with pytest.raises(ValueError, match=r"data row 2 of .*2304 whole numbers of 0 to 255"):
        load_fer2013(path)


@pytest.mark.parametrize("label", ["7", "-1", "x", "", "1.5"])
def test_csv_label_out_of_range(tmp_path, label):
    pixels = [as_text(images(1)[0])] * 2
    path = write_csv(tmp_path / "fer2013.csv", pixels, ["0", label], ["Training"] * 2)
    with pytest.raises(ValueError, match=r"data row 2 of .*no label in 0 to 6"):
        load_fer2013(path)


def test_csv_unknown_part(tmp_path):
    pixels = [as_text(images(1)[0])] * 2
    path = write_csv(tmp_path / "fer2013.csv", pixels, [0, 0], ["Training", "Holiday"])
    with pytest.raises(ValueError, match=r"data row 2 of .*belongs to no part"):
        load_fer2013(path)


def test_csv_column_missing(tmp_path):
    path = write_csv(tmp_path / "a.csv", ["0"], [0], ["x"], header="emotion,pixel,Usage")
    with pytest.raises(ValueError, match=r"lacks the column\(s\) \['pixels'\]; it has \['emotion'"):
        load_fer2013(path)


def test_npz(tmp_path):
    path = write_npz(tmp_path / "fer.npz")
    data = load_fer2013(path)
    assert data.target.tolist() == ["anger", "disgust", "fear"]
    assert data.frame["split"].tolist() == ["train", "public_test", "private_test"]
    assert data.frame["clip"].tolist() == ["00000", "00001", "00002"]
    assert np.array_equal(np.stack(data.table["visual"].tolist()), images(3))
    assert load_fer2013(tmp_path, emotions=["fear"]).groups.tolist() == ["fer2013-00002"]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"images": images(0), "labels": [], "split": []}, "holds no image"),
        ({"split": None}, r"lacks the array\(s\) \['split'\]; it has \['classes'"),
        ({"labels": [0, 1, 7]}, "data row 3 of .*no label in 0 to 6"),
        ({"labels": [0, 1]}, r"uint8 of shape \(3, 48, 48\); it must be"),
        ({"images": np.zeros((3, 48, 48))}, "is float64 of shape"),
        ({"images": np.zeros((3, 64, 64), np.uint8)}, r"of shape \(3, 64, 64\)"),
        ({"classes": ["angry", "bliss", "fear"]}, r"has \['bliss'\]"),
        ({"split": ["Training", "Training", "?"]}, "data row 3 of .*belongs to no part"),
    ],
)
def test_npz_defects(tmp_path, changes, match):
    with pytest.raises(ValueError, match=match):
        load_fer2013(write_npz(tmp_path / "fer.npz", **changes))


@pytest.mark.parametrize("damage", ["other", "short", "empty"])
def test_npz_that_is_none(tmp_path, damage):
    path = write_npz(tmp_path / "fer.npz")
    content = path.read_bytes()
    path.write_bytes({"other": b"<html>404</html>", "short": content[:200], "empty": b""}[damage])
    with pytest.raises(ValueError, match=r"fer\.npz' is no npz file, or is damaged"):
        load_fer2013(path)


def test_image_folders(tmp_path):
    touch(tmp_path, *(f"train/{c}/1.jpg" for c in CLASSES), "test/happy/PublicTest_1.png")
    touch(tmp_path, "train/bliss/1.jpg", "train/happy/notes.txt")
    data = load_fer2013(tmp_path)
    assert data.frame["clip"].tolist()[0] == "test/happy/PublicTest_1"
    assert data.target.tolist()[:2] == ["happiness", "anger"]
    assert data.frame["split"].tolist() == ["test"] + ["train"] * 7
    assert data.table["visual"][0] == str(tmp_path / "test/happy/PublicTest_1.png")
    assert len(set(data.groups)) == 8
    assert len(data.report) == 2
    assert load_fer2013(tmp_path / "train").frame["split"].eq("train").all()


def test_nothing_and_too_much(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_fer2013(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="FER2013 image folders"):
        load_fer2013(tmp_path)
    touch(tmp_path, "a.txt", "a.csv", "b.npz")
    with pytest.raises(ValueError, match=r"several files, \['a.csv', 'b.npz'\]"):
        load_fer2013(tmp_path)
    with pytest.raises(ValueError, match="neither a csv nor an npz"):
        load_fer2013(tmp_path / "a.txt")


def test_files_of_macos_are_no_data(tmp_path):
    write_npz(tmp_path / "fer.npz")
    touch(tmp_path, "._fer.npz", "._notes.csv")
    assert len(load_fer2013(tmp_path).table) == 3


@pytest.mark.parametrize("names", [["list.csv"], ["list.csv", "sample_submission.csv"]])
def test_a_csv_file_beside_a_tree_of_images(tmp_path, names):
    touch(tmp_path, "train/happy/1.jpg", "test/sad/2.jpg")
    for name in names:
        (tmp_path / name).write_text("file,emotion\n1.jpg,happy\n")
    assert load_fer2013(tmp_path).frame["split"].tolist() == ["test", "train"]
    # That of the corpus is preferred.
    write_csv(tmp_path / "fer2013.csv", [as_text(images(1)[0])], [0], ["Training"])
    assert load_fer2013(tmp_path).frame["clip"].tolist() == ["00000"]


def test_one_part_of_the_tree(tmp_path, monkeypatch):
    touch(tmp_path, "Test/happy/1.jpg", "Test/happy/._1.jpg")
    monkeypatch.chdir(tmp_path / "Test")
    data = load_fer2013(".")
    assert data.frame["split"].tolist() == ["test"]
    assert data.frame["clip"].tolist() == ["happy/1"]


def test_real_corpus(real_data):
    data = load_fer2013(real_data / "fer2013")
    assert len(data.table) == len(set(data.groups)) == 10017
    assert data.frame["split"].value_counts().to_dict() == {"train": 6428, "public_test": 3589}
    assert data.frame["emotion"].value_counts()["happiness"] == 1895
    first = data.table["visual"][0]
    assert first.shape == (48, 48)
    assert first.dtype == np.uint8
    assert data.frame["duplicate_of"].notna().sum() == 246
