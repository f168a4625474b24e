import csv
import math
from pathlib import Path

import pytest

from skfdan.datasets import _published, load_published_results

CSV = Path(__file__).parents[2] / "benchmarks" / "published.csv"
KEY = ["paper", "table", "row", "task", "metric"]


@pytest.fixture(scope="module")
def results():
    return load_published_results()


def numbers(results, paper, table, row, task=None):
    chosen = results[
        (results["paper"] == paper) & (results["table"] == table) & (results["row"] == row)
    ]
    if task is not None:
        chosen = chosen[chosen["task"] == task]
    return dict(zip(chosen["metric"], chosen["value"], strict=True))


def fits(value, n):
    """Whether k/n in percent can be printed as value, rounded or cut after two digits."""
    return any(
        abs(printed - value) < 1e-6
        for k in range(n + 1)
        for printed in (round(100 * k / n, 2), math.floor(1e4 * k / n + 1e-9) / 100)
    )


# The publications' tables


def test_every_table_is_complete(results):
    counts = results.groupby(["paper", "table"]).size().to_dict()
    assert counts == {
        ("FDAN", 1): 9 * 3 - 1,  # GM-TCNet has no w-F1
        ("FDAN", 2): 7 * 3 + 3 * 2 + 1,  # CADF has its UAR alone
        ("FDAN", 3): 2 * 3,
        ("FDAN", 4): 2 * 3 * 2,
        ("WavFusion", 1): 9 * 2 - 3,
        ("WavFusion", 2): 6 * 2 - 1,
        ("WavFusion", 3): 6 * 2,
        ("WavFusion", 4): 2 * 2,
        ("WavFusion", 5): 5 * 2,
        ("WavFusion", 6): 5 * 2,
        ("FDRL", 1): 9 * 2 - 1,
        ("FDRL", 2): 7 * 2,
    }


@pytest.mark.parametrize(
    ("paper", "table", "row", "expected"),
    [
        ("FDAN", 1, "VGG-19", {"WAR": 67.70, "UAR": 66.41, "wF1": 67.71}),
        ("FDAN", 1, "ResNet-34", {"WAR": 69.79, "UAR": 70.33, "wF1": 70.01}),
        ("FDAN", 1, "INCA", {"WAR": 81.63, "UAR": 79.73, "wF1": 80.59}),
        ("FDAN", 1, "GM-TCNet", {"WAR": 84.79, "UAR": 83.33}),
        ("FDAN", 1, "TF-Mix", {"WAR": 86.23, "UAR": 84.71, "wF1": 84.85}),
        ("FDAN", 1, "Ours", {"WAR": 86.66, "UAR": 86.19, "wF1": 86.96}),
        ("FDAN", 2, "ResNet-18", {"WAR": 58.68, "UAR": 59.80, "wF1": 58.41}),
        ("FDAN", 2, "SMIN", {"WAR": 65.59, "wF1": 64.50}),
        ("FDAN", 2, "TRIN", {"WAR": 79.60, "UAR": 70.52}),
        ("FDAN", 2, "CADF", {"UAR": 72.30}),
        ("FDAN", 2, "MAP", {"WAR": 78.50, "UAR": 78.50, "wF1": 78.40}),
        ("FDAN", 2, "Ours", {"WAR": 81.16, "UAR": 75.91, "wF1": 80.72}),
        ("WavFusion", 1, "HiTrans", {"WF1": 64.5}),
        ("WavFusion", 1, "M2FNet", {"ACC": 69.69, "WF1": 69.86}),
        ("WavFusion", 1, "Ours", {"ACC": 70.53, "WF1": 70.60}),
        ("WavFusion", 2, "UniMSE", {"ACC": 65.09, "WF1": 65.51}),
        ("WavFusion", 2, "Ours", {"ACC": 66.93, "WF1": 66.10}),
        ("WavFusion", 3, "V", {"ACC": 29.88, "WF1": 26.31}),
        ("WavFusion", 3, "A+V", {"ACC": 66.33, "WF1": 64.14}),
        ("WavFusion", 4, "w/o LVC block", {"ACC": 69.90, "WF1": 69.84}),
        ("WavFusion", 5, "lambda = 10", {"ACC": 64.43, "WF1": 64.19}),
        ("WavFusion", 6, "concat 12+0", {"ACC": 66.67, "WF1": 66.78}),
        ("FDRL", 1, "BERT + Wav2vec2", {"UAR": 76.31}),
        ("FDRL", 1, "MISA", {"WAR": 76.18, "UAR": 75.73}),
        ("FDRL", 1, "Ours", {"WAR": 78.34, "UAR": 79.44}),
        ("FDRL", 2, "S5 w/o fine-grained disparity component", {"WAR": 76.69, "UAR": 78.01}),
    ],
)
def test_numbers_of_the_tables(results, paper, table, row, expected):
    assert numbers(results, paper, table, row) == expected


@pytest.mark.parametrize(
    ("table", "row", "task", "expected"),
    [
        (3, "FDAN", "SAVEE{S_v,M_v,S_a}", {"WAR": 87.50, "UAR": 87.14, "wF1": 87.70}),
        (3, "FDAN", "MELD{S_v,M_v,M_a}", {"WAR": 81.78, "UAR": 78.31, "wF1": 81.01}),
        (4, "FDAN1", "SAVEE{S_v,S_a}", {"WAR": 83.33, "UAR": 82.91}),
        (4, "FDAN2", "SAVEE{S_v,S_a}", {"WAR": 79.63, "UAR": 79.25}),
        (4, "FDAN1", "MELD{M_v,M_a}", {"WAR": 75.01, "UAR": 74.90}),
        (4, "FDAN2", "MELD{M_v,M_a}", {"WAR": 64.80, "UAR": 64.33}),
    ],
)
def test_numbers_of_fdan_on_several_corpora(results, table, row, task, expected):
    assert numbers(results, "FDAN", table, row, task) == expected


def test_what_is_printed_twice_is_the_same(results):
    for table, corpus in ((1, "SAVEE"), (2, "MELD")):
        ours = numbers(load_published_results("FDAN", table), "FDAN", table, "Ours")
        again = numbers(load_published_results("FDAN", 4, corpus), "FDAN", 4, "FDAN")
        assert again == {m: ours[m] for m in ("WAR", "UAR")}
    ours = numbers(results, "WavFusion", 1, "Ours")
    for table, row in ((3, "A+V+T"), (4, "w/ LVC block"), (5, "lambda = 1"), (6, "Attention 9+3")):
        assert numbers(results, "WavFusion", table, row) == ours
    assert numbers(results, "FDRL", 2, "S0 FDRL") == numbers(results, "FDRL", 1, "Ours")


def test_differences_that_the_texts_state(results):
    def gain(paper, metric, one, other):
        values = [numbers(results, paper, *where)[metric] for where in (one, other)]
        return round(values[0] - values[1], 2)

    ours, lvc = (1, "Ours"), (4, "w/o LVC block")
    assert gain("WavFusion", "ACC", ours, (1, "M2FNet")) == 0.84
    assert gain("WavFusion", "WF1", ours, (1, "M2FNet")) == 0.74
    assert gain("WavFusion", "ACC", (2, "Ours"), (2, "HAAN-ERC")) == 0.43
    assert gain("WavFusion", "WF1", (2, "Ours"), (2, "HAAN-ERC")) == 0.44
    assert gain("WavFusion", "ACC", ours, lvc) == 0.63
    assert gain("WavFusion", "WF1", ours, lvc) == 0.76
    assert gain("WavFusion", "ACC", ours, (5, "lambda = 0")) == 2.64
    assert gain("WavFusion", "WF1", ours, (5, "lambda = 0")) == 2.94
    glob, local = (2, "S2 w/o Global discriminator"), (2, "S3 w/o Local discriminator")
    assert gain("FDRL", "WAR", ours, glob) == 0.95
    assert gain("FDRL", "UAR", ours, glob) == 1.18
    assert gain("FDRL", "WAR", ours, local) == 0.83
    assert gain("FDRL", "UAR", ours, local) == 1.00


# Columns


def test_a_number_is_there_once(results):
    assert not results.duplicated(KEY).any()


def test_values_are_percentages(results):
    assert results["value"].between(20, 90).all()
    assert results["table"].dtype.kind == "i"
    assert results["value"].dtype.kind == "f"


def test_metrics_are_those_of_the_publication(results):
    metrics = {p: set(part["metric"]) for p, part in results.groupby("paper")}
    assert metrics == {
        "FDAN": {"WAR", "UAR", "wF1"},
        "WavFusion": {"ACC", "WF1"},
        "FDRL": {"WAR", "UAR"},
    }


def test_only_our_name_may_be_empty(results):
    texts = results.drop(columns=["value", "table", "skfdan"])
    assert (texts != "").all(axis=None)
    assert not results.isna().any(axis=None)


def test_what_is_available_bears_our_name(results):
    known = results["available"]
    assert (known.isin(["yes", "not yet"]) | known.str.startswith("no: ")).all()
    assert ((known == "yes") == (results["skfdan"] != "")).all()
    for system in ("SMIN", "TRIN", "CADF", "MAP", "DialogueTRM"):
        assert known[results["row"] == system].str.startswith("no: ").all()
    assert set(results["skfdan"]) - {""} == {
        *("FDANClassifier", "FDAN1", "FDAN2", "INCA", "GM-TCNet", "TF-Mix", "MISA"),
        *("FDRLClassifier", "WavFusionClassifier", "CoAttentionClassifier", "SDTClassifier"),
        *("vgg16", "vgg19", "resnet18", "resnet34", "resnet50"),
    }


def test_a_source_is_own_or_quoted(results):
    source = results["source"]
    assert ((source == "own run") | source.str.match(r"quoted: .+ \d{4}$")).all()
    own = results[results["row"].isin(["Ours", "FDAN", "FDAN1", "FDAN2", "ResNet-34"])]
    assert (own["source"] == "own run").all()


# Caveats


def test_numbers_off_the_grid_of_savee_s_test_set_are_marked(results):
    """6 classes of 12 test utterances and one of 24 make 96, and the UAR a multiple of 1/168."""
    savee = results[(results["corpus"] == "SAVEE") & (results["source"] == "own run")]
    war, uar = (savee[savee["metric"] == m] for m in ("WAR", "UAR"))
    off = war[[not fits(value, 96) for value in war["value"]]]
    assert set(zip(off["table"], off["row"], strict=True)) == {
        (1, "Ours"),
        (4, "FDAN"),
        (4, "FDAN2"),
    }
    for _, line in war.iterrows():
        assert ("fits no k/96" in line["caveat"]) == (not fits(line["value"], 96)), line["row"]
    assert fits(86.66, 480)
    assert not fits(79.63, 480)
    assert len(uar) == 5 + 1 + 1 + 3
    assert not any(fits(v, 168) for v in uar["value"])
    assert uar["caveat"].str.contains("no multiple of 1/168").all()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("row == 'GM-TCNet'", ["INCA", "84.79/83.38", "83.88/86.02", "73.57/75.83", "test fold"]),
        ("row == 'INCA'", ["origin is unknown", "before cross-validation"]),
        ("row == 'TF-Mix'", ["no code", "in style only"]),
        ("row == 'MAP'", ["78.40 < 80.72", "micro F1"]),
        ("row == 'CADF'", ["not vision"]),
        ("row == 'SDT'", ["best F1 on the test data", "official"]),
        ("paper == 'FDAN' and corpus == 'MELD' and source == 'own run'", ["random split"]),
        ("paper == 'FDAN' and source == 'own run'", ["epoch of highest accuracy on the test"]),
        ("metric == 'wF1' and source == 'own run'", ["never computes w-F1"]),
        ("row in ['Ours', 'FDAN'] and paper == 'FDAN'", ["cross-attention"]),
        ("row == 'FDAN2'", ["not explained"]),
        ("paper == 'WavFusion' and corpus == 'IEMOCAP' and source == 'own run'", ["five-fold"]),
        ("paper == 'WavFusion' and table == 1", ["UniMSE", "70.56/70.66"]),
        ("paper == 'WavFusion' and table == 2", ["M2FNet", "67.85/66.71"]),
        ("paper == 'WavFusion' and table < 3 and row != 'Ours'", ["conversation context"]),
        ("paper == 'FDRL' and source == 'own run'", ["error rates", "[0, 1]"]),
        ("row == 'MISA'", ["sentiment"]),
        ("row == 'BERT + FBK'", ["speech alone"]),
    ],
)
def test_known_problems_are_named(results, query, words):
    chosen = results.query(query)
    assert len(chosen)
    for word in words:
        assert chosen["caveat"].str.contains(word, regex=False).all(), word


def test_rows_of_another_protocol_than_their_table(results):
    quoted = results.query("paper == 'FDAN' and source != 'own run'")
    assert not quoted["split"].str.startswith("random, 8/10").any()
    own = results.query("paper == 'FDAN' and source == 'own run'")
    assert own["split"].str.startswith("random, 8/10").all()


# The file and the loader


def test_the_file_is_plain_csv():
    raw = CSV.read_bytes()
    assert b"\r" not in raw
    assert raw.endswith(b"\n")
    lines = list(csv.reader(raw.decode("ascii").splitlines()))
    assert {len(line) for line in lines} == {13}
    assert len(lines) == len(load_published_results()) + 1


def test_parts(results):
    part = load_published_results("FDAN", table=4, corpus="MELD")
    assert part["row"].tolist() == ["FDAN1", "FDAN1", "FDAN2", "FDAN2", "FDAN", "FDAN"]
    assert part.index.tolist() == list(range(6))
    assert set(load_published_results(corpus="SAVEE")["paper"]) == {"FDAN"}
    assert len(load_published_results(table=1)) == 26 + 15 + 17


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"paper": "fdan"}, r"no paper='fdan'.*\['FDAN', 'WavFusion', 'FDRL'\]"),
        ({"paper": "FDRL", "table": 3}, r"no table=3 .*known are \[1, 2\]"),
        ({"paper": "FDRL", "corpus": "MELD"}, r"no corpus='MELD' .*known are \['IEMOCAP'\]"),
    ],
)
def test_what_is_not_there(wanted, message):
    with pytest.raises(ValueError, match=message):
        load_published_results(**wanted)


def test_the_file_beside_the_loader_comes_first(tmp_path, monkeypatch):
    """As in an installed package, which has no folder of benchmarks."""
    head, first = CSV.read_text().splitlines()[:2]
    beside = tmp_path / "published.csv"
    beside.write_text(f"{head}\n{first}\n")
    monkeypatch.setattr(_published, "_PLACES", (beside, CSV))
    assert len(load_published_results()) == 1
    monkeypatch.setattr(_published, "_PLACES", (tmp_path / "none.csv", CSV))
    assert len(load_published_results()) == 165
    monkeypatch.setattr(_published, "_PLACES", (tmp_path / "none.csv",))
    with pytest.raises(FileNotFoundError, match=r"none\.csv.*install skfdan anew"):
        load_published_results()
