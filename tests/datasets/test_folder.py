import av
import numpy as np
import pytest
from PIL import Image

from skfdan.datasets import _base, load_folder
from skfdan.preprocessing import FaceFrames, MelSpectrogram


def touch(root, *names):
    for path in (root / name for name in names):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_emotion_folders(tmp_path):
    touch(tmp_path, "Happy/a.wav", "sad/x/b.mp4", "contempt/c.png", "sad/d.mp4", "sad/d.wav")
    touch(tmp_path, "sad/notes.txt", "stray.wav", "sad/._b.wav")
    data = load_folder(tmp_path)
    assert data.frame["clip"].tolist() == ["Happy/a", "contempt/c", "sad/d", "sad/x/b"]
    assert data.target.tolist() == ["happiness", "contempt", "sadness", "sadness"]
    cells = [[p and p.removeprefix(str(tmp_path)) for p in row] for row in data.table.to_numpy()]
    assert [[c and c.replace("\\", "/") for c in row] for row in cells] == [
        [None, "/Happy/a.wav"],
        ["/contempt/c.png", None],
        ["/sad/d.mp4", "/sad/d.wav"],
        ["/sad/x/b.mp4", "/sad/x/b.mp4"],
    ]
    assert data.groups.tolist() == data.frame["clip"].tolist()
    assert "not given" in data.DESCR
    assert "contempt, happiness, sadness" in data.DESCR
    assert len(data.report) == 3
    assert data.report["stage"].eq("name").all()


def test_emotions_are_those_found(tmp_path):
    touch(tmp_path, "happy/a.wav", "sad/b.wav")
    assert load_folder(tmp_path, emotions={"sadness": "negative"}).target.tolist() == [
        "happiness",
        "negative",
    ]
    with pytest.raises(ValueError, match=r"\['anger'\] are not in mine.*'happiness', 'sadness'"):
        load_folder(tmp_path, emotions=["anger"], corpus="mine")


def test_speaker_pattern(tmp_path):
    touch(tmp_path, "happy/ann/1.wav", "sad/ann/1.wav", "sad/bob/1.wav", "sad/1.wav")
    data = load_folder(tmp_path, speaker_pattern=r"/(\w+)/")
    assert data.groups.tolist() == ["ann", "ann", "bob"]
    assert "finds no speaker" in data.report["reason"][0]
    assert "speakers, as given" in data.DESCR
    whole = load_folder(tmp_path, speaker_pattern="ann|bob")
    assert whole.groups.tolist() == ["ann", "ann", "bob"]


def test_one_clip_in_two_sound_files(tmp_path):
    touch(tmp_path, "happy/a.wav", "happy/a.flac")
    with pytest.raises(ValueError, match="'happy/a' is there twice"):
        load_folder(tmp_path)


def write_sound(path, codec, rate):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono", bit_rate=64000)
        noise = np.random.default_rng(0).integers(-9999, 9999, (1, rate), np.int16)
        frame = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
        frame.sample_rate = rate
        for part in (frame, None):
            container.mux(stream.encode(part))


@pytest.mark.parametrize(
    ("suffix", "codec"),
    {
        ".aac": "aac",
        ".aiff": "pcm_s16be",
        ".aif": "pcm_s16be",
        ".au": "pcm_s16be",
        ".m4a": "aac",
        ".oga": "libopus",
        ".opus": "libopus",
        ".wma": "wmav2",
    }.items(),
)
def test_sound_by_suffix(tmp_path, suffix, codec):
    file = touch(tmp_path, f"anger/a{suffix.upper()}") / f"anger/a{suffix.upper()}"
    write_sound(file, codec, 48000)
    data = load_folder(tmp_path)
    assert data.table.to_numpy().tolist() == [[None, str(file)]]
    assert MelSpectrogram(duration=None).transform(data.table[["audio"]])[0, 0].shape[1] > 50


@pytest.mark.parametrize(
    ("suffix", "codec"),
    {
        ".m4v": "mpeg4",
        ".mpg": "mpeg1video",
        ".mpeg": "mpeg2video",
        ".wmv": "wmv2",
        ".3gp": "mpeg4",
    }.items(),
)
def test_video_by_suffix(tmp_path, suffix, codec):
    file = touch(tmp_path, f"anger/a{suffix}") / f"anger/a{suffix}"
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        frames = [
            av.VideoFrame.from_ndarray(np.full((48, 64, 3), 9 * i, np.uint8)) for i in range(9)
        ]
        for frame in (*frames, None):
            container.mux(stream.encode(frame))
    data = load_folder(tmp_path)
    assert data.table.to_numpy().tolist() == [[str(file)] * 2]
    faces = FaceFrames(detector=None, size=8).transform(data.table[["visual"]])
    assert faces[0, 0].shape == (3, 3, 8, 8)


@pytest.mark.parametrize("suffix", sorted(_base.IMAGE_SUFFIXES))
def test_picture_by_suffix(tmp_path, suffix):
    file = touch(tmp_path, f"anger/a{suffix}") / f"anger/a{suffix}"
    Image.new("L" if suffix == ".pgm" else "RGB", (20, 16)).save(file)
    data = load_folder(tmp_path)
    assert data.table.to_numpy().tolist() == [[str(file), None]]
    faces = FaceFrames(detector=None, size=8).transform(data.table[["visual"]])
    assert faces[0, 0].shape == (3, 8, 8)


def test_corpora_of_a_manifest(tmp_path):
    touch(tmp_path, "1.wav", "2.wav")
    (tmp_path / "m.csv").write_text("audio,emotion,corpus\n1.wav,sad, emodb\n2.wav,joy, \n")
    assert load_folder(tmp_path / "m.csv", corpus="mine").frame["corpus"].tolist() == [
        "emodb",
        "mine",
    ]


def test_manifest(tmp_path):
    touch(tmp_path, "v/1.mp4", "v/2.mp4", "a/1.wav", "a/3.wav")
    manifest = tmp_path / "clips.csv"
    manifest.write_text(
        "visual,audio,emotion,speaker,clip,split,age\n"
        "v/1.mp4,a/1.wav,happy,ann,c1,train,30\n"
        f"{tmp_path}/v/2.mp4,,Contempt,bob,c2,test,\n"
        ",a/3.wav,sad,bob,c3,test,40\n"
    )
    data = load_folder(manifest, corpus="mine")
    assert data.target.tolist() == ["happiness", "Contempt", "sadness"]
    assert data.groups.tolist() == ["ann", "bob", "bob"]
    assert data.table.to_numpy().tolist() == [
        [str(tmp_path / "v/1.mp4"), str(tmp_path / "a/1.wav")],
        [str(tmp_path / "v/2.mp4"), None],
        [None, str(tmp_path / "a/3.wav")],
    ]
    columns = ["clip", "corpus", "speaker", "emotion", "split", "age"]
    assert data.frame.columns.tolist() == columns
    assert data.frame["corpus"].tolist() == ["mine"] * 3
    assert "speakers, as given" in data.DESCR


def test_manifest_with_one_modality_and_no_speakers(tmp_path):
    touch(tmp_path, "1.wav", "2.wav")
    (tmp_path / "m.csv").write_text("audio,emotion\n2.wav,sad\n1.wav,joy\n", encoding="utf-8-sig")
    data = load_folder(tmp_path / "m.csv")
    assert data.target.tolist() == ["sadness", "happiness"]
    assert data.table["visual"].tolist() == [None, None]
    assert data.groups.tolist() == ["00000", "00001"]
    assert "not given" in data.DESCR


def test_manifest_files_that_do_not_exist(tmp_path):
    touch(tmp_path, "1.mp4")
    (tmp_path / "m.csv").write_text("visual,audio,emotion\n1.mp4,1.wav,sad\n2.mp4,,sad\n,,sad\n")
    data = load_folder(tmp_path / "m.csv")
    assert data.table.to_numpy().tolist() == [[str(tmp_path / "1.mp4"), None]]
    assert data.report["stage"].eq("media").all()
    assert data.report["file"].tolist() == [
        str(tmp_path / "2.mp4"),
        str(tmp_path / "1.wav"),
        str(tmp_path / "m.csv"),
        str(tmp_path / "m.csv"),
    ]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("audio,label\n1.wav,sad\n", r"lacks the column\(s\) \['emotion'\]; it has \['audio'"),
        ("file,emotion\n1.wav,sad\n", r"lacks both columns.*it has \['file', 'emotion'\]"),
        ("audio,emotion\n1.wav,sad\n2.wav,\n", "data row 2 of .* has no emotion"),
        ("audio,emotion,speaker\n1.wav,sad,\n", "data row 1 of .* has no speaker"),
        ("audio,emotion\n1.wav,sad\n./1.wav,joy\n", "data rows 1 and 2.*both sides"),
    ],
)
def test_manifest_defects(tmp_path, text, match):
    touch(tmp_path, "1.wav", "2.wav")
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ValueError, match=match):
        load_folder(tmp_path / "m.csv")


def test_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_folder(tmp_path / "nowhere")
    touch(tmp_path, "a.txt")
    with pytest.raises(FileNotFoundError, match=r"emotion folders.*a\.txt"):
        load_folder(tmp_path)
    with pytest.raises(NotADirectoryError, match="is a file"):
        load_folder(tmp_path / "a.txt")
    (tmp_path / "m.csv").write_text("audio,emotion\nnone.wav,sad\n")
    with pytest.raises(FileNotFoundError, match=r"no file that .*m\.csv.*none\.wav"):
        load_folder(tmp_path / "m.csv")


def manifest(tmp_path, *lines):
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).touch()
    path = tmp_path / "list.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_manifest_with_transcripts(tmp_path):
    path = manifest(
        tmp_path,
        "audio,emotion,text",
        'a.wav,joy,"Well, hello"',
        "b.wav,anger, ",
        ",joy,Words alone",
        ",joy,",
        "gone.wav,joy,Its file is gone",
    )
    data = load_folder(path)
    assert data.table["text"].tolist() == ["Well, hello", None, "Words alone"]
    assert data.table["audio"].tolist() == [str(tmp_path / "a.wav"), str(tmp_path / "b.wav"), None]
    assert data.frame["text"].tolist()[0] == "Well, hello"
    assert data.report["reason"].str.contains("is left out").sum() == 2
    assert "'text' of the manifest holds transcripts" in data.DESCR


def test_column_of_transcripts_of_another_name(tmp_path):
    path = manifest(tmp_path, "audio,emotion,words", "a.wav,joy,Hello", "b.wav,anger,No")
    assert list(load_folder(path).table.columns) == ["visual", "audio"]
    data = load_folder(path, text="words")
    assert data.table["text"].tolist() == data.frame["words"].tolist() == ["Hello", "No"]
    with pytest.raises(ValueError, match=r"lacks the column 'said', which text= names; it has"):
        load_folder(path, text="said")


def test_transcripts_may_stay_out_of_the_table(tmp_path):
    path = manifest(tmp_path, "audio,emotion,text", "a.wav,joy,Hello", ",joy,Words alone")
    data = load_folder(path, text=None)
    assert list(data.table.columns) == ["visual", "audio"]
    assert data.frame["text"].tolist() == ["Hello"]


def test_manifest_of_words_alone(tmp_path):
    data = load_folder(manifest(tmp_path, "emotion,text", "joy,Hello", "anger,No"))
    assert data.table["text"].tolist() == ["Hello", "No"]
    assert data.table[["visual", "audio"]].isna().all(axis=None)


def test_the_first_group_that_holds_something_is_the_speaker(tmp_path):
    touch(tmp_path, "anger/spk1_a.wav", "anger/actor7_b.wav", "sad/actor8_c.wav", "sad/_d.wav")
    data = load_folder(tmp_path, speaker_pattern=r"(spk\d+)_|(actor\d+)_|()_")
    assert sorted(data.groups) == ["actor7", "actor8", "spk1"]
    assert data.report["reason"].str.contains("finds no speaker").sum() == 1


def written(tmp_path, text):
    touch(tmp_path, "a.wav", "b.wav")
    (tmp_path / "m.csv").write_text(text)
    return tmp_path / "m.csv"


@pytest.mark.parametrize("end", ["", ","])
def test_rows_that_end_in_a_comma(tmp_path, end):
    rows = "".join(f"{row}{end}\n" for row in ("1,anger,ann,a.wav", "2,sad,bob,b.wav"))
    data = load_folder(written(tmp_path, "clip,emotion,speaker,audio\n" + rows))
    assert data.target.tolist() == ["anger", "sadness"]
    assert data.groups.tolist() == ["ann", "bob"]
    assert data.table["audio"].notna().all()


def test_more_fields_than_names(tmp_path):
    path = written(tmp_path, "emotion,audio\nanger,a.wav,ann\nsad,b.wav,bob\n")
    with pytest.raises(ValueError, match=r"m\.csv' have more fields than its header has names"):
        load_folder(path)


def test_spaces_make_no_other_speaker(tmp_path):
    path = written(tmp_path, "emotion,audio,speaker\nanger,a.wav,Ada\n sad,b.wav,Ada \n")
    data = load_folder(path)
    assert data.groups.tolist() == ["Ada", "Ada"]
    assert data.target.tolist() == ["anger", "sadness"]


@pytest.mark.parametrize("column", ["emotion", "speaker"])
def test_a_blank_field_is_none(tmp_path, column):
    fields = {"emotion": "anger", "speaker": "ann", column: " "}
    row = f"{fields['emotion']},b.wav,{fields['speaker']}"
    path = written(tmp_path, f"emotion,audio,speaker\nsad,a.wav,bob\n{row}\n")
    with pytest.raises(ValueError, match=f"data row 2 of .* has no {column}"):
        load_folder(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("emotion,emotion ,audio\nanger,sad,a.wav\n", "several columns 'emotion'"),
        ("emotion,emotion,audio\nanger,sad,a.wav\n", "several columns 'emotion'"),
        ("emotion,audio,speaker\n", "has a header but no data row"),
    ],
)
def test_manifests_that_cannot_be_read(tmp_path, text, said):
    with pytest.raises(ValueError, match=said):
        load_folder(written(tmp_path, text))


def test_speaker_pattern_of_a_written(tmp_path):
    touch(tmp_path, "ann_1.wav", "bob_1.mp4")
    path = written(tmp_path, "emotion,audio,visual\nanger,ann_1.wav,\nsad,,bob_1.mp4\n")
    assert load_folder(path, speaker_pattern=r"(\w+)_").groups.tolist() == ["ann", "bob"]
    with pytest.raises(ValueError, match="finds no speaker in the files of data row 2 of"):
        load_folder(path, speaker_pattern="ann")
    named = written(tmp_path, "emotion,audio,speaker\nanger,a.wav,ann\n")
    with pytest.raises(ValueError, match="has a column 'speaker'"):
        load_folder(named, speaker_pattern=r"(\w+)_")


def test_a_clip_that_is_there_twice_is_refused(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.wav").touch()
    manifest = tmp_path / "m.csv"
    manifest.write_text("clip,audio,emotion\nx,a.wav,anger\ny,b.wav,joy\nx,c.wav,joy\n")
    with pytest.raises(ValueError, match="clip 'x' in the data rows 1 and 3"):
        load_folder(manifest)
    manifest.write_text(
        "corpus,clip,audio,emotion\n1,x,a.wav,anger\n2,x,b.wav,joy\n2,x,c.wav,joy\n"
    )
    with pytest.raises(ValueError, match="clip 'x' in the data rows 2 and 3"):
        load_folder(manifest)
    # Corpora have names of their own.
    manifest.write_text("corpus,clip,audio,emotion\n1,x,a.wav,anger\n2,x,b.wav,joy\n")
    assert load_folder(manifest).frame["clip"].tolist() == ["x", "x"]


def test_spaces_around_a_path_belong_to_it_where_it_has_them(tmp_path):
    for name in ("a.wav", " b.wav"):
        (tmp_path / name).touch()
    manifest = tmp_path / "m.csv"
    manifest.write_text("audio,emotion\n a.wav ,anger\n b.wav,joy\n")
    data = load_folder(manifest)
    assert data.table["audio"].tolist() == [str(tmp_path / n) for n in ("a.wav", " b.wav")]
    assert not data.speakers_known
