"""What `skfdan train` holds out."""

import numpy as np
import pandas as pd
import pytest
from sklearn.utils import Bunch

from skfdan import make_table, unpair
from skfdan.cli._holdout import hold_out
from skfdan.model_selection import make_protocol

EMOTIONS = ("anger", "fear", "joy")


def clips(n=60, n_speakers=5, visual=True, audio=True, speakers=True):
    names = [f"{i:02d}" for i in range(n)]
    return Bunch(
        table=make_table(
            visual=[f"{name}.mp4" for name in names] if visual else None,
            audio=[f"{name}.wav" for name in names] if audio else [None] * n,
        ),
        target=np.array([EMOTIONS[i % 3] for i in range(n)]),
        groups=np.array([f"s{i // 3 % n_speakers}" for i in range(n)] if speakers else names),
        speakers_known=speakers,
    )


def stems(cells):
    return {cell.split(".")[0] for cell in cells if not pd.isna(cell)}


@pytest.mark.parametrize("seed", range(5))
def test_disjoint_leaves_nothing_of_a_test_speaker_in_the_training(seed):
    data = clips()
    split = hold_out(data, None, 0.4, seed)
    assert len(split.speakers) == 2
    speaker = dict(zip(sorted(stems(data.table["audio"])), data.groups, strict=True))
    trained = stems(split.table["audio"]) | stems(split.table["visual"])
    assert {speaker[s] for s in trained}.isdisjoint(split.speakers)
    assert {speaker[s] for s in stems(split.test["audio"])} == set(split.speakers)
    assert len(trained) + len(split.test) == 60
    assert split.test["visual"].isna().all()
    assert split.y_test.tolist() == data.target[split.rows].tolist()
    label = dict(zip(sorted(speaker), data.target, strict=True))
    assert split.y.tolist() == [label[c.split(".")[0]] for c in split.table["audio"]]
    assert split.description.startswith("disjoint: the 24 voices of 2 of 5 speakers")
    assert split.lead == "audio"


def test_another_seed_draws_other_speakers():
    drawn = {tuple(hold_out(clips(), "disjoint", 0.2, seed).speakers) for seed in range(8)}
    assert len(drawn) > 1
    again = hold_out(clips(), "disjoint", 0.2, 3)
    assert again.speakers == hold_out(clips(), "disjoint", 0.2, 3).speakers


def test_paper_is_the_named_protocol():
    data = clips()
    split = hold_out(data, "paper", 0.2, 7)
    table, y, groups = unpair(data.table, data.target, data.groups)
    protocol = make_protocol("paper", n_splits=1, random_state=7)
    train, test = next(protocol.split(table, y, groups))
    assert set(split.test["audio"]) == set(table["audio"].iloc[test])
    assert stems(split.table["audio"]) == stems(table["audio"].iloc[train])
    assert set(split.table["visual"]) == set(table["visual"].iloc[train].dropna())
    assert len(split.table) == 60
    assert split.speakers == []


def test_paper_of_voices_alone():
    split = hold_out(clips(visual=False), "paper", 0.2, 0)
    assert len(split.table) == 48
    assert stems(split.table["audio"]).isdisjoint(stems(split.test["audio"]))


def test_clips_where_speakers_are_unknown():
    split = hold_out(clips(speakers=False), None, 0.2, 0)
    assert len(split.test) == 12
    assert sorted(np.unique(split.y_test, return_counts=True)[1]) == [4, 4, 4]
    trained = stems(split.table["audio"]) | stems(split.table["visual"])
    assert trained.isdisjoint(stems(split.test["audio"]))
    assert "not speaker-independent" in split.description
    with pytest.raises(ValueError, match="needs speakers, and they are unknown"):
        hold_out(clips(speakers=False), "disjoint", 0.2, 0)


def test_other_peoples_faces_all_train():
    voices, faces = clips(visual=False), clips(n=9, n_speakers=3, audio=False)
    data = Bunch(
        table=pd.concat([voices.table, faces.table], ignore_index=True),
        target=np.concatenate([voices.target, faces.target]),
        groups=np.concatenate([voices.groups, [f"other{g}" for g in faces.groups]]),
        speakers_known=True,
    )
    split = hold_out(data, None, 0.2, 0)
    assert len(split.speakers) == 1
    assert split.speakers[0].startswith("s")
    assert split.table["visual"].notna().sum() == 9
    assert "1 of 5 speakers" in split.description


def test_faces_alone():
    split = hold_out(clips(audio=False), None, 0.2, 0)
    assert split.lead == "visual"
    assert split.test["visual"].notna().all()
    assert "the 12 faces of 1 of 5 speakers" in split.description
    with pytest.raises(ValueError, match="tests voices, and the corpus has none"):
        hold_out(clips(audio=False), "paper", 0.2, 0)


def test_none_trains_all():
    split = hold_out(clips(), "none", 0.2, 0)
    assert len(split.table) == 60
    assert len(split.test) == 0


@pytest.mark.parametrize(
    ("data", "protocol", "share", "said"),
    [
        (clips(n_speakers=1), None, 0.2, "one speaker alone"),
        (clips(n=4, speakers=False), None, 0.5, "one of the clips alone .* 'fear'"),
        (clips(), "paper", 0.01, "is 1: too few or too many for 3 emotions"),
        (clips(), "paper", 0.99, "is 60: too few or too many for 3 emotions"),
        (clips(n=1, speakers=False), "none", 0.2, "one emotion alone, 'anger'"),
    ],
)
def test_what_cannot_be_divided(data, protocol, share, said):
    with pytest.raises(ValueError, match=said):
        hold_out(data, protocol, share, 0)


def test_an_emotion_of_one_speaker_alone():
    data = clips()
    data.target[data.groups == "s0"] = "envy"
    seeds = [s for s in range(9) if _speakers_without_s0(data, s) is None]
    assert seeds
    with pytest.raises(ValueError, match="Nothing of the emotion 'envy' would train"):
        hold_out(data, None, 0.2, seeds[0])


def _speakers_without_s0(data, seed):
    plain = clips()
    speakers = hold_out(plain, None, 0.2, seed).speakers
    return None if "s0" in speakers else speakers
