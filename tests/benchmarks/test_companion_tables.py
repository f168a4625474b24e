"""The tables of voice, words and faces, through the runner's real code path.

On a release of IEMOCAP and a copy of MELD as toys in the official layouts, with networks
of random weights in folders.
"""

import json

import numpy as np
import pytest
import soundfile
from small_corpora import make_clips, make_meld
from test_benchmark_run import cells_of, run, table_of

from skfdan.classifiers import FDRLClassifier, SDTClassifier, WavFusionClassifier
from skfdan.datasets import load_published_results

pytest.importorskip("transformers")

SIZE = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "i", "say", "well", "hello", "."]
LABELS = ("ang", "hap", "exc", "sad", "neu", "fru")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Arguments that name a speech model of five layers and a text model, both tiny."""
    import torch
    from transformers import BertConfig, BertModel, Wav2Vec2Config, Wav2Vec2Model

    torch.manual_seed(0)
    speech, text = (tmp_path_factory.mktemp(name) for name in ("speech", "text"))
    convolutions = {"conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (10, 8)}
    config = Wav2Vec2Config(
        num_hidden_layers=5,
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        **convolutions,
        **SIZE,
    )
    Wav2Vec2Model(config).eval().save_pretrained(speech)
    config = BertConfig(
        vocab_size=len(WORDS), max_position_embeddings=12, num_hidden_layers=1, **SIZE
    )
    BertModel(config).eval().save_pretrained(text)
    (text / "vocab.txt").write_text("\n".join(WORDS))
    return ["--speech-model", str(speech), "--text-model", str(text)]


@pytest.fixture(scope="module")
def iemocap(tmp_path_factory):
    """Three sessions, in each every label by both speakers."""
    root = tmp_path_factory.mktemp("corpus") / "IEMOCAP_full_release"
    for session in (1, 2, 3):
        dialogue = f"Ses0{session}F_impro01"
        labels, transcripts = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n", ""
        folder = root / f"Session{session}"
        sounds = folder / "sentences" / "wav" / dialogue
        sounds.mkdir(parents=True)
        for i in range(2 * len(LABELS)):
            clip, start = f"{dialogue}_{'FM'[i % 2]}{i // 2:03d}", 5.0 * i
            label = LABELS[i // 2]
            labels += f"[{start:.4f} - {start + 1:.4f}]\t{clip}\t{label}\t[2.5, 3.0, 1.5]\n"
            transcripts += f"{clip} [{start:08.4f}-{start + 1:08.4f}]: I say {label}.\n"
            noise = np.random.default_rng([session, i]).normal(0, 0.1, 2000)
            soundfile.write(sounds / f"{clip}.wav", noise, 16000)
        for kind, content in (("EmoEvaluation", labels), ("transcriptions", transcripts)):
            (folder / "dialog" / kind).mkdir(parents=True)
            (folder / "dialog" / kind / f"{dialogue}.txt").write_text(content)
    return root


@pytest.fixture(scope="module")
def meld(tmp_path_factory):
    root = tmp_path_factory.mktemp("meld")
    return make_meld(make_clips(root / "clips"), root / "meld")


def command(root, corpus, table, out, models, *more):
    return [
        *("--corpus", corpus, "--root", str(root), "--out", str(out), "--table", table),
        *("--quick", "--epochs", "1", "--folds", "2", "--seeds", "1", *models, *more),
    ]


def test_fdrl_beside_its_published_numbers(iemocap, models, tmp_path, monkeypatch, capsys):
    arguments = command(iemocap, "iemocap", "fdrl", tmp_path, models)
    fits, fit = [], FDRLClassifier.fit

    def interrupted(self, X, y, **options):
        fits.append(self.ablation)
        if len(fits) == 2:
            raise KeyboardInterrupt
        return fit(self, X, y, **options)

    monkeypatch.setattr(FDRLClassifier, "fit", interrupted)
    assert run.main(arguments) == 130
    before = cells_of(tmp_path)
    assert 0 < len(before) < 18
    assert not (tmp_path / "table_fdrl.md").exists()
    assert run.main(arguments) == 0
    cells = cells_of(tmp_path)
    assert all(cells[key] == cell for key, cell in before.items())
    # Nine rows, two of three sessions, one seed; what was finished is not fitted again.
    assert len(cells) == 9 * 2
    assert len(fits) == 1 + 7 * 2

    rows = table_of(tmp_path, "fdrl")
    assert [r for r in rows if r.startswith("FDRL")] == [
        "FDRL",
        *(f"FDRL S{i}" for i in range(1, 7)),
    ]
    ours = ["MISA, voice and words", "co-attention", *(r for r in rows if r.startswith("FDRL"))]
    assert {rows[name]["sessions n"] for name in ours} == {"2"}
    assert rows["FDRL"]["published IEMOCAP WAR"] == "78.34"
    assert rows["FDRL S5"]["published IEMOCAP UAR"] == "78.01"
    assert rows["MISA, voice and words"]["published IEMOCAP WAR"] == "76.18"
    assert rows["co-attention"]["published IEMOCAP UAR"] == "76.31"
    assert "no code" in rows["SMCN"]["not run"]
    text = (tmp_path / "table_fdrl.md").read_text(encoding="utf-8")
    for said in (
        "30 utterances with voice and words of 6 speakers; no faces read; 4 emotions",
        "session 2, 3 in turn",
        "Nothing was selected on test rows",
        "Seeds per fold: 1",
        f"text {models[-1]}",
        "mu is computed from losses",
        "published on IEMOCAP: WAR / UAR / wF1",
    ):
        assert said in text
    assert "finished already" in capsys.readouterr().out

    for cell in cells.values():
        session = cell["cell"]["fold"] + 2
        assert {i.split("/")[1][:5] for i in cell["ids"]} == {f"Ses0{session}"}
        front_end = cell["cell"]["front_end"]
        assert front_end["audio"]["model"] == models[1]
        mean = cell["method"] != "co-attention"
        assert front_end["text"]["output"] == ("mean" if mean else "sequence")


def test_wavfusion_on_voice_and_words(iemocap, models, tmp_path):
    arguments = command(iemocap, "iemocap", "wavfusion", tmp_path, models, "--folds", "1")
    assert run.main(arguments) == 0
    rows = table_of(tmp_path, "wavfusion")
    n = {name: row["sessions n"] for name, row in rows.items() if name.startswith("WavFusion")}
    assert [name for name, runs in n.items() if runs == "1"] == [
        *("WavFusion, voice", "WavFusion, words", "WavFusion, voice and words")
    ]
    # IEMOCAP's loader has no faces, and the report says so beside the published number.
    assert "IEMOCAP has no visual here" in rows["WavFusion"]["not run"]
    assert rows["WavFusion"]["published IEMOCAP WAR"] == "70.53"
    assert rows["WavFusion, no LVC"]["published IEMOCAP wF1"] == "69.84"
    assert rows["WavFusion, concatenated"]["published IEMOCAP WAR"] == "66.67"
    assert not any("MELD" in column for column in rows["WavFusion"])
    assert "6 emotions" in (tmp_path / "table_wavfusion.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_wavfusion_on_the_official_split_of_meld(meld, models, tmp_path, monkeypatch):
    seen, fit = [], WavFusionClassifier.fit

    def watched(self, X, y):
        seen.append((self.speech_model, {m: X[m].iloc[0] for m in X if X[m].notna().any()}))
        return fit(self, X, y)

    monkeypatch.setattr(WavFusionClassifier, "fit", watched)
    told, fit_sdt = [], SDTClassifier.fit

    def told_what(self, X, y):
        told.append(X[["dialogue", "speaker"]])
        return fit_sdt(self, X, y)

    monkeypatch.setattr(SDTClassifier, "fit", told_what)
    names = ("WavFusion", "WavFusion, voice and faces", "WavFusion, concatenated", "SDT")
    arguments = ("--face-model", "resnet18", "--input-size", "32", "--estimators", *names)
    assert run.main(command(meld, "meld", "wavfusion", tmp_path, models, *arguments)) == 0
    rows = table_of(tmp_path, "wavfusion")
    assert {rows[name]["meld-official n"] for name in names} == {"1"}
    assert rows["WavFusion"]["published MELD WAR"] == "66.93"
    assert rows["WavFusion"]["published IEMOCAP WAR"] == "70.53"
    assert rows["WavFusion, concatenated"]["published MELD WAR"] == ""
    read = {frozenset(cells): cells for _, cells in seen}
    assert {frozenset(c) for c in read} == {
        frozenset({"audio", "text", "visual"}),
        frozenset({"audio", "visual"}),
    }
    assert next(iter(read.values()))["visual"].shape == (3, 512)
    assert [model for model, _ in seen] == [models[1], models[1], None]
    layers = {
        c["method"]: c["cell"]["front_end"]["audio"]["layer"] for c in cells_of(tmp_path).values()
    }
    # Three of its own layers stand for the last three, or none.
    assert layers == {names[0]: -4, names[1]: -4, names[2]: -1, "SDT": -1}
    # MELD numbers the dialogues of each part from 0.
    assert set(told[0]["dialogue"].str.split().str[0]) == {"train", "dev"}
    assert told[0]["speaker"].str.startswith("meld-").all()
    assert rows["SDT"]["fidelity"] == "exact"
    assert rows["SDT"]["published source"] == ""
    tested = {tuple(c["ids"]) for c in cells_of(tmp_path).values()}
    split = json.loads((tmp_path / "splits" / "meld-official.json").read_text())["folds"][0]
    assert {tuple(sorted(ids)) for ids in tested} == {tuple(sorted(split["test"]))}


def test_published_rows_are_ours_or_explained():
    """What the tables name exists, and what is called available has a row."""
    from _methods import ROWS

    for paper, table in (("FDRL", "fdrl"), ("WavFusion", "wavfusion")):
        published = load_published_results(paper)
        # SDT's number is in a table of FDAN.
        named = {r.published for r in ROWS if table in r.tables} - {"SDT"}
        printed = {paper if row == "Ours" else row for row in published["row"]}
        assert named <= printed
        available = published[published["available"] == "yes"]["row"]
        twice = {"Ours", "S0 FDRL", "A+V+T", "w/ LVC block", "lambda = 1", "Attention 9+3"}
        assert set(available) - named <= twice


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--table", "4"], "run it without other tables"),
        (["--corpus", "savee"], "needs a corpus with words: iemocap or meld, not savee"),
        (["--faces", "fer2013:x.csv"], "takes no --faces"),
        (["--protocol", "paper"], "choose from sessions, meld-official, disjoint"),
        (["--protocol", "meld-official"], "it needs --corpus meld"),
    ],
)
def test_refused(iemocap, models, tmp_path, more, message, capsys):
    assert run.main(command(iemocap, "iemocap", "fdrl", tmp_path, models, *more)) == 2
    assert message in capsys.readouterr().err


def test_another_table_needs_another_folder(iemocap, models, tmp_path, capsys):
    (tmp_path / "run.json").write_text(json.dumps({"corpus": "iemocap, table wavfusion"}))
    assert run.main(command(iemocap, "iemocap", "fdrl", tmp_path, models)) == 2
    assert "holds results on iemocap, table wavfusion" in capsys.readouterr().err
