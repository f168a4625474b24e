import os
import unicodedata

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from skfdan.datasets import _base, check_corpus, load_folder
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


def test_sphere_is_sound(tmp_path):
    file = touch(tmp_path, "anger/a.SPH") / "anger/a.SPH"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16000)
    soundfile.write(file, noise, 16000, format="NIST", subtype="PCM_16")
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


def test_a_blank_cell_is_missing_and_no_folder_of_faces(tmp_path):
    touch(tmp_path, "a.wav", "b.wav", "face.png")
    path = written(tmp_path, "visual,audio,emotion\n ,a.wav,joy\nface.png, ,fear\n \t,b.wav,joy\n")
    data = load_folder(path)
    assert data.table.notna().to_numpy().tolist() == [[False, True], [True, False], [False, True]]


def test_a_folder_is_no_sound(tmp_path):
    touch(tmp_path, "frames/1.png")
    with pytest.raises(ValueError, match="names the folder 'frames' as its audio"):
        load_folder(written(tmp_path, "audio,emotion\nframes,joy\n"))
    data = load_folder(written(tmp_path, "visual,emotion\nframes,joy\n"))
    assert data.table["visual"].tolist() == [str(tmp_path / "frames")]


@pytest.mark.parametrize(
    ("names", "pass_on"),
    [
        (("dev/happy/a.wav", "train/sad/b.wav"), "dev"),
        (("spk1/happy/a.wav", "spk2/sad/b.wav"), "spk1"),
        (("MyCorpus/happy/a.wav", "MyCorpus/sad/b.wav"), "MyCorpus"),
        (("MyCorpus/dev/happy/a.wav", "MyCorpus/train/sad/b.wav"), "MyCorpus/dev"),
    ],
)
def test_emotions_that_are_not_the_first_folders(tmp_path, names, pass_on):
    touch(tmp_path, *names)
    with pytest.raises(ValueError, match="none of which is an emotion, but 'happy'") as error:
        load_folder(tmp_path)
    assert f"pass {str(tmp_path / pass_on)!r}" in str(error.value)
    assert load_folder(tmp_path / pass_on).target.tolist()[0] == "happiness"


def test_classes_of_other_names_are_kept(tmp_path):
    touch(tmp_path, "stress/ann/a.wav", "flow/bob/b.wav")
    assert load_folder(tmp_path).target.tolist() == ["flow", "stress"]
    # One known emotion is enough to tell that the level is right.
    touch(tmp_path, "sad/calm/c.wav")
    assert load_folder(tmp_path).target.tolist() == ["flow", "sadness", "stress"]


def test_one_class_that_is_no_emotion(tmp_path):
    touch(tmp_path, "clips/a.wav", "clips/b.wav")
    with pytest.warns(UserWarning, match="of one class, 'clips'.*Sort them into") as told:
        load_folder(tmp_path)
    assert told[0].filename == __file__
    touch(tmp_path, "list.csv")
    with pytest.warns(UserWarning, match=r"If '.*list\.csv' lists them, pass it"):
        load_folder(tmp_path)


@pytest.mark.parametrize("head", ["Emotion,AUDIO, Speaker ", "EMOTION,Audio,speaker"])
def test_case_of_a_header_does_not_count(tmp_path, head):
    data = load_folder(written(tmp_path, f"{head},Age\njoy,a.wav,ann,30\nfear,b.wav,ann,30\n"))
    assert data.groups.tolist() == ["ann", "ann"]
    assert data.speakers_known
    assert "Age" in data.frame


def test_headers_that_become_one(tmp_path):
    path = written(tmp_path, "emotion,audio,speaker,Speaker\njoy,a.wav,ann,bob\n")
    with pytest.raises(ValueError, match="several columns 'speaker'"):
        load_folder(path)


@pytest.mark.parametrize("name", ["Speaker_ID", "actor", "Subject", "participant id", "spk"])
def test_a_column_that_may_be_of_speakers(tmp_path, name):
    touch(tmp_path, "a.wav", "b.wav")
    path = written(tmp_path, f"emotion,audio,{name}\njoy,a.wav,ann\nfear,b.wav,ann\n")
    with pytest.warns(UserWarning, match=f"If its column {name!r} tells who speaks") as told:
        assert not load_folder(path).speakers_known
    assert len(told) == 1
    assert told[0].filename == __file__
    load_folder(path, speaker_pattern=r"(\w)\.wav")  # without a warning


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (("joy,,a.mp4", "joy,sub/../a.mp4,"), "the file .* data rows 2 and 1"),
        (("joy,,a.mp4", "joy,,sub/../a.mp4"), "the audio file 'sub/../a.mp4' .* rows 1 and 2"),
        (("joy,a.mp4,", "joy,link.mp4,"), "the visual file 'link.mp4' in the data rows 1 and 2"),
    ],
)
def test_one_recording_in_two_rows(tmp_path, rows, said):
    touch(tmp_path, "a.mp4", "sub/b.mp4")
    os.symlink(tmp_path / "a.mp4", tmp_path / "link.mp4")
    path = written(tmp_path, "\n".join(["emotion,visual,audio", *rows]) + "\n")
    with pytest.raises(ValueError, match=said):
        load_folder(path)


def test_one_video_may_be_face_and_voice_of_its_row(tmp_path):
    touch(tmp_path, "a.mp4")
    data = load_folder(written(tmp_path, "emotion,visual,audio\njoy,a.mp4,./a.mp4\n"))
    assert data.table.notna().all(axis=None)


def test_two_speakers_in_one_row(tmp_path):
    touch(tmp_path, "ann_1.wav", "bob_1.mp4")
    path = written(tmp_path, "emotion,audio,visual\njoy,ann_1.wav,bob_1.mp4\n")
    with pytest.raises(ValueError, match="speakers 'bob' and 'ann' in the files of data row 1 of"):
        load_folder(path, speaker_pattern="(ann|bob)_")


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
def test_accents_in_either_form_are_one(tmp_path, on_disk):
    zoe, name = (unicodedata.normalize(form, "Zo\u00eb") for form in ("NFC", "NFD"))
    file = unicodedata.normalize(on_disk, f"{zoe}.wav")
    touch(tmp_path, f"clips/{file}", "clips/b.wav", "clips/c.wav")
    text = "audio,emotion,speaker\n"
    other = name if on_disk == "NFC" else zoe
    text += f"clips\\{other}.wav,tr{chr(0xE4)}ge,{zoe}\nclips/b.wav,tra{chr(0x308)}ge,{name}\n"
    (tmp_path / "m.csv").write_text(text, encoding="utf-8")
    data = load_folder(tmp_path / "m.csv")
    assert data.table["audio"].tolist()[0] == str(tmp_path / "clips" / file)
    assert data.groups.tolist() == [zoe, zoe]
    assert len(set(data.target)) == 1


def test_accents_of_folders_are_composed(tmp_path):
    touch(tmp_path, f"tra{chr(0x308)}ge/Zoe{chr(0x308)}_1.mp4", f"tr{chr(0xE4)}ge/Zo\u00eb_2.wav")
    touch(tmp_path, "joy/a_1.wav")
    data = load_folder(tmp_path, speaker_pattern=r"/([^/_]+)_")
    assert data.target.tolist() == ["happiness", "tr\u00e4ge", "tr\u00e4ge"]
    assert data.groups.tolist() == ["a", "Zo\u00eb", "Zo\u00eb"]


@pytest.mark.parametrize(
    "text",
    [
        "emotion;audio;speaker\njoy;a.wav;ann\nfear;b.wav;ann\n",
        "sep=;\nemotion;audio;speaker\njoy;a.wav;ann\nfear;b.wav;ann\n",
        '"sep=;"\r\nemotion;audio;speaker\r\njoy;a.wav;ann\r\nfear;b.wav;ann\r\n',
        "emotion\taudio\tspeaker\njoy\ta.wav\tann\nfear\tb.wav\tann\n",
        "sep=\t\nemotion\taudio\tspeaker\njoy\ta.wav\tann\nfear\tb.wav\tann\n",
        "\ufeff\nemotion,audio,speaker\njoy,a.wav,ann\n,,\n , ,\nfear,b.wav,ann\n,,\n",
    ],
    ids=["semicolons", "told", "quoted", "tabs", "tabs told", "empty rows"],
)
def test_manifests_of_spreadsheets(tmp_path, text):
    touch(tmp_path, "a.wav", "b.wav")
    (tmp_path / "m.csv").write_bytes(text.encode())
    data = load_folder(tmp_path / "m.csv")
    assert data.target.tolist() == ["happiness", "fear"]
    assert data.groups.tolist() == ["ann", "ann"]
    assert data.report.empty


def test_a_header_of_two_separators(tmp_path):
    path = written(tmp_path, "emotion;audio,speaker\njoy;a.wav,ann\n")
    with pytest.raises(ValueError, match="must separate all names by one mark"):
        load_folder(path)


def test_a_folder_of_a_manifest_names_it(tmp_path):
    path = written(tmp_path, "emotion,audio\njoy,a.wav\n")
    with pytest.raises(FileNotFoundError, match=r"pass it: load_folder\('.*m\.csv'\)"):
        load_folder(path.parent)


def test_links_that_lead_nowhere(tmp_path):
    touch(tmp_path, "joy/a.wav", "fear/b.wav")
    os.symlink(tmp_path / "gone.wav", tmp_path / "joy/c.wav")
    data = load_folder(tmp_path)
    assert data.frame["clip"].tolist() == ["fear/b", "joy/a"]
    assert data.report["stage"].tolist() == ["open"]
    assert "git annex get" in data.report["reason"][0]
    data = load_folder(written(tmp_path, "emotion,audio\njoy,joy/a.wav\nfear,joy/c.wav\n"))
    assert "git annex get" in data.report["reason"][0]


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    touch(tmp_path, "joy/a.wav", "fear/b.wav")
    scan = os.scandir

    def refuse(folder, name="fear"):
        if os.path.basename(folder) == name:
            raise PermissionError(13, "Permission denied", os.fspath(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    data = load_folder(tmp_path)
    assert data.report.to_numpy().tolist() == [
        [str(tmp_path / "fear"), "open", "is a folder that can't be read: Permission denied"]
    ]
    problems = check_corpus(data, timeout=None, verbose=0).problems
    assert (str(tmp_path / "fear"), "broken", "error") in list(
        problems[["file", "kind", "severity"]].itertuples(index=False, name=None)
    )
    monkeypatch.setattr(os, "scandir", lambda folder: refuse(folder, tmp_path.name))
    with pytest.raises(PermissionError, match="Permission denied; mend its rights"):
        load_folder(tmp_path)
