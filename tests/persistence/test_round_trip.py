"""What is loaded does what was saved."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.validation import check_is_fitted

from persistence import small_models as small
from skfdan import FDANClassifier, make_table
from skfdan.classifiers import MISAClassifier, TFMixClassifier
from skfdan.persistence import load_pretrained, save_pretrained
from skfdan.persistence._known import LEARNED
from skfdan.preprocessing import DecodeLimits, FaceFrames, MelSpectrogram


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def plain(params):
    """Parameters in which estimators count by their own parameters."""
    return {k: repr(v) for k, v in params.items()}


@pytest.mark.parametrize("name", small.CLASSIFIERS)
def test_a_classifier_comes_back(name, tmp_path):
    clf, X = small.CLASSIFIERS[name]()
    loaded = type(clf).from_pretrained(clf.save_pretrained(tmp_path / "model"))
    assert type(loaded) is type(clf)
    check_is_fitted(loaded)
    assert plain(loaded.get_params()) == plain(clf.get_params())
    assert same_weights(loaded.module_, clf.module_)
    assert [p.requires_grad for p in loaded.module_.parameters()] == [
        p.requires_grad for p in clf.module_.parameters()
    ]
    for method in ("predict_proba", "predict", "decision_function", "transform"):
        np.testing.assert_array_equal(getattr(loaded, method)(X), getattr(clf, method)(X))
    assert loaded.classes_.dtype == clf.classes_.dtype
    assert [dict(row) for row in loaded.history_] == [dict(row) for row in clf.history_]
    for attribute in clf._state_attributes:
        assert (attribute in vars(loaded)) == (attribute in vars(clf))
    assert clone(loaded).fit(X, small.Y).predict(X).shape == (len(X),)


@pytest.mark.parametrize("name", ["fdan", "shared", "daan", "misa", "tfmix", "gmtcnet"])
def test_training_goes_on_as_it_would_have_with_a_new_optimiser(name, tmp_path):
    clf, X = small.CLASSIFIERS[name]()
    if isinstance(clf.class_weight, str):
        clf.class_weight = None
    loaded = load_pretrained(save_pretrained(clf, tmp_path / "model"))
    if clf.criterion_ is not None:
        assert same_weights(loaded.criterion_, clf.criterion_)
    clf._initialize_optimizer()
    clf._random_state = np.random.RandomState(clf.random_state)
    clf.partial_fit(X, small.Y)
    loaded.partial_fit(X, small.Y)
    assert len(loaded.history_) == len(clf.history_) == 3
    assert same_weights(loaded.module_, clf.module_)
    np.testing.assert_array_equal(loaded.class_count_, clf.class_count_)
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))


@pytest.mark.parametrize("name", small.PIPELINES)
@pytest.mark.filterwarnings("ignore:Features .* are constant")
def test_a_pipeline_comes_back(name, tmp_path):
    pipeline, X = small.PIPELINES[name]()
    loaded = load_pretrained(save_pretrained(pipeline, tmp_path / "model"))
    check_is_fitted(loaded)
    assert plain(loaded.get_params()) == plain(pipeline.get_params())
    np.testing.assert_array_equal(loaded.predict_proba(X), pipeline.predict_proba(X))
    for step, own in zip(loaded[:-1], pipeline[:-1], strict=True):
        np.testing.assert_array_equal(step.get_feature_names_out(), own.get_feature_names_out())
        assert step.n_features_in_ == own.n_features_in_
    prepared, own = loaded[:-1].transform(X), pipeline[:-1].transform(X)
    assert type(prepared) is type(own)
    clone(loaded).fit(X, small.Y)


GAPS = np.where(np.random.default_rng(0).random((16, 3)) < 0.3, np.nan, small.MATRIX[:, :3])
EMPTY = np.column_stack([GAPS.astype(float), np.full(16, np.nan)])
COUNTS = np.array([[1, 2], [1, -1], [4, 2]])
NUMBERS = np.array([[np.int64(1), 2.5], [np.int64(1), None], [None, np.float32(3)]], dtype=object)
WORDS = np.array([["a", "b"], ["a", None], ["c", "b"]], dtype=object)


@pytest.mark.parametrize(
    ("step", "X"),
    [
        *((StandardScaler(), X) for X in (GAPS, EMPTY)),
        (MinMaxScaler(), EMPTY),
        *((SimpleImputer(strategy=s), EMPTY) for s in ("mean", "median", "most_frequent")),
        (SimpleImputer(keep_empty_features=True), EMPTY),
        (SimpleImputer(strategy="constant", fill_value=0.1), EMPTY),
        (SimpleImputer(strategy="constant", fill_value=0.1), EMPTY.astype(np.float32)),
        (SimpleImputer(strategy="constant", missing_values=-1), COUNTS),
        (SimpleImputer(strategy="most_frequent", missing_values=None), WORDS),
        (SimpleImputer(strategy="most_frequent", missing_values=None), NUMBERS),
    ],
)
@pytest.mark.filterwarnings(
    # Of a column without any value.
    "ignore:All-NaN slice encountered:RuntimeWarning",
    "ignore:invalid value encountered in divide:RuntimeWarning",
    "ignore:Skipping features without any",
    "ignore:Currently, when:FutureWarning",  # of scikit-learn 1.7
)
def test_a_step_of_scikit_learn_that_has_seen_gaps_comes_back(step, X, tmp_path):
    step = clone(step).fit(X)
    loaded = load_pretrained(save_pretrained(step, tmp_path / "model"))
    for name in LEARNED[type(step)]:
        found, own = (np.asarray(getattr(of, name)).ravel().tolist() for of in (loaded, step))
        own = [v.item() if isinstance(v, np.generic) else v for v in own]  # of NumPy among objects
        assert repr(found) == repr(own)  # NaN among objects equals nothing
    for given in (X, X.astype(float)) if X.dtype.kind == "f" else (X,):
        expected = step.transform(given)
        np.testing.assert_array_equal(loaded.transform(given), expected, strict=True)


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide:RuntimeWarning")
def test_a_pipeline_over_gaps_predicts_the_same(tmp_path):
    pipeline = make_pipeline(
        StandardScaler(), SimpleImputer(keep_empty_features=True), small.fdan(max_epochs=1)
    )
    pipeline.fit(EMPTY, small.Y)
    loaded = load_pretrained(save_pretrained(pipeline, tmp_path / "model"))
    np.testing.assert_array_equal(loaded.predict_proba(EMPTY), pipeline.predict_proba(EMPTY))


@pytest.mark.parametrize("name", ["weights", "device", "callbacks", "cache_dir", "random_state"])
def test_columns_may_be_named_as_parameters_are(name, tmp_path):
    columns = ColumnTransformer([(name, StandardScaler(), [0, 1]), ("rest", "passthrough", [2])])
    pipeline = make_pipeline(columns, small.fdan(max_epochs=1)).fit(small.MATRIX, small.Y)
    loaded = load_pretrained(save_pretrained(pipeline, tmp_path / "model"))
    X = small.MATRIX
    np.testing.assert_array_equal(loaded.predict_proba(X), pipeline.predict_proba(X))


def test_the_columns_are_checked_as_before(tmp_path):
    pipeline, X = small.PIPELINES["table"]()
    loaded = load_pretrained(save_pretrained(pipeline, tmp_path / "model"))
    with pytest.raises(ValueError, match="columns are missing"):
        loaded.predict(X[["audio"]])
    np.testing.assert_array_equal(loaded[0].feature_names_in_, ["visual", "audio"])
    assert loaded[0].named_transformers_["audio"].feature_names_in_.tolist() == ["audio"]


@pytest.mark.slow
def test_another_process_predicts_the_same(tmp_path):
    pipeline, X = small.PIPELINES["table"]()
    save_pretrained(pipeline, tmp_path / "model")
    X.to_pickle(tmp_path / "X.pkl")
    code = (
        "import numpy as np, pandas as pd\n"
        "from skfdan.persistence import load_pretrained\n"
        "np.save('p.npy', load_pretrained('model').predict_proba(pd.read_pickle('X.pkl')))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=300)
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), pipeline.predict_proba(X))


@pytest.mark.parametrize(
    "labels",
    [
        np.array([3, 1, 7, 5]),
        np.array([0.5, 1.5, -1.0, 2.0], dtype=np.float32).astype(np.int8),
        np.array([1.0, 2.0, 3.0, 4.0]),
        np.array([True, False, True, False]),
        np.array(["joy", "Wut", "悲しみ", "peur"], dtype="<U12"),
        np.array(["joy", "anger", "../fear", "a|b`c"], dtype=object),
    ],
    ids=lambda labels: str(labels.dtype),
)
def test_labels_of_every_type(labels, tmp_path):
    y = labels[np.arange(16) % 4]
    clf = small.fdan(max_epochs=1).fit(small.MATRIX, y)
    loaded = load_pretrained(clf.save_pretrained(tmp_path / "model"))
    assert loaded.classes_.dtype == clf.classes_.dtype
    assert loaded.predict(small.MATRIX).tolist() == clf.predict(small.MATRIX).tolist()


def test_parameters_of_every_kind(tmp_path):
    params = {
        "alpha": np.float32(0.1),
        "batch_size": np.int64(4),
        "class_weight": {1: 2.0, 3: 0.5},
        "visual": np.array([0, 1]),
        "audio": slice(2, None),
        "optimizer": torch.optim.AdamW,
        "optimizer_params": {"betas": (0.8, 0.9), "amsgrad": True},
        "audio_transformer": MelSpectrogram(limits=DecodeLimits(max_seconds=float("inf"))),
        "device": torch.device("cpu"),
        "random_state": np.random.RandomState(0),
        "callbacks": [],
    }
    y = np.arange(16) % 2 * 2 + 1
    clf = small.fdan(**params).fit(small.MATRIX, y)
    loaded = load_pretrained(clf.save_pretrained(tmp_path / "model"))
    changed = {"device": "cpu", "random_state": None, "callbacks": None}
    for name, value in (params | changed).items():
        own = getattr(loaded, name)
        assert repr(own) == repr(value)
        assert type(own) is type(value)
    loaded.partial_fit(small.MATRIX, y)  # the optimiser waits for this
    assert isinstance(loaded.optimizer_, torch.optim.AdamW)
    assert loaded.optimizer_.param_groups[0]["betas"] == (0.8, 0.9)


def test_names_of_columns(tmp_path):
    names = [f"f{i}" for i in range(10)]
    X = make_table(audio=small.SOUND).assign(**dict(zip(names, small.MATRIX.T, strict=True)))[names]
    clf = small.fdan(max_epochs=1, visual=names[:4], audio=names[4:]).fit(X, small.Y)
    loaded = load_pretrained(clf.save_pretrained(tmp_path / "model"))
    assert loaded.feature_names_in_.tolist() == names
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(X.rename(columns={"f3": "g3"}))


def test_parameters_in_the_place_of_the_stored_ones(tmp_path):
    pipeline, _ = small.PIPELINES["table"]()
    save_pretrained(pipeline, tmp_path / "model")
    name = "columntransformer__audio__n_jobs"
    loaded = load_pretrained(tmp_path / "model", **{name: 2}, fdanclassifier__inference="bypass")
    assert loaded.get_params()[name] == 2
    assert loaded[-1].inference == "bypass"
    with pytest.raises(TypeError, match="no parameter 'fdanclassifier__alfa'"):
        load_pretrained(tmp_path / "model", fdanclassifier__alfa=1)


def test_a_model_of_the_hub_has_an_address(tmp_path, monkeypatch):
    """The hub itself is in test_hub."""
    import skfdan.persistence as persistence

    clf, _ = small.CLASSIFIERS["gmtcnet"]()
    asked = []

    def load(repo_id, **settings):
        asked.append((repo_id, settings))
        return clf

    monkeypatch.setattr(persistence, "load_from_hub", load)
    assert type(clf).from_pretrained("hf://ann/model", revision="v1") is clf
    assert asked == [("ann/model", {"revision": "v1"})]
    with pytest.raises(persistence.ModelError, match="holds a GMTCNetClassifier and no FDAN"):
        FDANClassifier.from_pretrained("hf://ann/model")
    monkeypatch.setattr(persistence, "push_to_hub", lambda *args, **kwargs: (args, kwargs))
    assert clf.push_to_hub("ann/model", token="t") == ((clf, "ann/model"), {"token": "t"})


class Widths(torch.nn.Module):
    """A backbone of one's own, with a tensor that no state dict has."""

    def __init__(self):
        super().__init__()
        self.flat = torch.nn.Linear(3, 6)
        self.register_buffer("hidden", torch.full((6,), 2.0), persistent=False)

    def forward(self, x):
        return self.flat(x.mean((2, 3))) * self.hidden


def make_widths():
    return Widths(), 6


def test_a_backbone_of_ones_own_is_asked_for(tmp_path):
    clf = small.fdan(backbone=make_widths).fit(small.TABLE, small.Y)
    folder = clf.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"folder, backbone=\.\.\. \(it was make_widths\)"):
        FDANClassifier.from_pretrained(folder)
    loaded = FDANClassifier.from_pretrained(folder, backbone=make_widths)
    assert loaded.backbone is make_widths
    np.testing.assert_array_equal(loaded.predict_proba(small.TABLE), clf.predict_proba(small.TABLE))


def middle(image):
    return (4, 4, 8, 8)


def test_a_detector_of_ones_own_is_asked_for(tmp_path):
    faces = FaceFrames(detector=middle, size=16, verbose=0)
    pipeline = make_pipeline(faces, small.fdan(predict_modality="visual"))
    pipeline.fit(list(small.FACES), small.Y)
    folder = save_pretrained(pipeline, tmp_path / "model")
    with pytest.raises(ValueError, match=r"folder, faceframes__detector=\.\.\. \(it was middle\)"):
        load_pretrained(folder)
    loaded = load_pretrained(folder, faceframes__detector=middle)
    X = list(small.FACES)
    np.testing.assert_array_equal(loaded.predict_proba(X), pipeline.predict_proba(X))


def test_what_belongs_to_a_machine_stays_there(tmp_path):
    mel = MelSpectrogram(sample_rate=2000, n_fft=64, n_mels=8, cache_dir=tmp_path / "c", verbose=0)
    pipeline = make_pipeline(mel, small.fdan(checkpoint_dir=str(tmp_path / "d")))
    pipeline.fit(small.waves(), small.Y)
    folder = save_pretrained(pipeline, tmp_path / "model")
    for file in folder.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes()
    loaded = load_pretrained(folder)
    assert loaded[0].cache_dir is loaded[1].checkpoint_dir is None


def test_a_file_of_weights_is_not_stored(tmp_path):
    clf, _ = small.CLASSIFIERS["matrix"]()
    clf.weights = "somewhere/resnet.pth"
    with pytest.warns(UserWarning, match="is a file of this machine"):
        folder = clf.save_pretrained(tmp_path / "model")
    assert FDANClassifier.from_pretrained(folder).weights is None
    clf.weights = "DEFAULT"
    clf.save_pretrained(folder, overwrite=True)
    assert FDANClassifier.from_pretrained(folder).weights == "DEFAULT"


def test_nothing_is_downloaded(tmp_path, monkeypatch):
    clf = small.fdan(backbone="resnet18").fit(small.TABLE[:8], small.Y[:8])
    clf.weights = "DEFAULT"

    def refuse(*args, **kwargs):
        raise AssertionError("no weights are needed")

    monkeypatch.setattr("skfdan.nn.backbones._load", refuse)
    loaded = load_pretrained(clf.save_pretrained(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.predict_proba(small.TABLE), clf.predict_proba(small.TABLE))


def test_loading_leaves_the_generators_alone(tmp_path):
    clf, _ = small.CLASSIFIERS["fdan"]()
    clf.save_pretrained(tmp_path / "model")
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    load_pretrained(tmp_path / "model")
    assert torch.equal(torch.rand(3), expected)


def test_transformers_learn_nothing_and_need_no_fit(tmp_path):
    mel = load_pretrained(save_pretrained(MelSpectrogram(n_mels=8), tmp_path / "mel"))
    assert repr(mel) == "MelSpectrogram(n_mels=8)"
    assert not hasattr(mel, "n_features_in_")


@pytest.mark.parametrize(
    "estimator",
    [
        FDANClassifier(),
        make_pipeline(MelSpectrogram(), TFMixClassifier()),
        small.prepare(),
        make_pipeline(small.prepare(), MISAClassifier()),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_what_is_not_fitted_is_not_saved(estimator, tmp_path):
    with pytest.raises(NotFittedError):
        save_pretrained(estimator, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_gpu_is_not_needed_to_load(tmp_path, monkeypatch):
    clf, X = small.CLASSIFIERS["fdan"]()
    clf.device = "cuda"
    clf.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    loaded = load_pretrained(tmp_path / "model")
    assert loaded.device == "auto"
    assert loaded.predict(X).shape == (16,)
    assert load_pretrained(tmp_path / "model", device="cpu").device == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_from_a_gpu_and_back(tmp_path):
    clf = small.fdan(device="cuda").fit(small.TABLE, small.Y)
    folder = clf.save_pretrained(tmp_path / "model")
    loaded = load_pretrained(folder)
    assert loaded.device == "cuda"
    X = small.TABLE
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    loaded.partial_fit(X, small.Y)
    on_cpu = load_pretrained(folder, device="cpu")
    np.testing.assert_allclose(on_cpu.predict_proba(X), clf.predict_proba(X), atol=1e-3)
