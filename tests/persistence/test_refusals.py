"""What is refused, when saving and when loading, and how that is said."""

import hashlib
import json
import pickle

import numpy as np
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from persistence import small_models as small
from skfdan import FDANClassifier, make_table
from skfdan.classifiers import TFMixClassifier
from skfdan.persistence import ModelError, _format, load_pretrained, save_pretrained
from skfdan.preprocessing import MelSpectrogram


@pytest.fixture(scope="module")
def fitted():
    return small.fdan(max_epochs=1).fit(small.MATRIX, small.Y)


@pytest.fixture
def model(fitted, tmp_path):
    return fitted.save_pretrained(tmp_path / "model")


def edit(folder, change):
    """Change a config and compute its check sum anew."""
    config = json.loads((folder / "config.json").read_text())
    change(config)

    def dump(value):
        return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()

    unsigned = {k: v for k, v in config.items() if k != "sha256"}
    config["sha256"] = hashlib.sha256(dump(unsigned)).hexdigest()
    (folder / "config.json").write_bytes(dump(config))


# ---------------------------------------------------------------------- saving


class Mine(FDANClassifier):
    pass


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (LogisticRegression(), "LogisticRegression can't be saved without pickle.*FDANClassifier"),
        (
            make_pipeline(FunctionTransformer(), small.fdan(max_epochs=1)),
            "The step 'functiontransformer' is FunctionTransformer, which",
        ),
        (
            make_pipeline(
                ColumnTransformer([("a", FunctionTransformer(), slice(0, 10))]),
                small.fdan(max_epochs=1),
            ),
            "The step 'columntransformer__a' is FunctionTransformer, which",
        ),
        (
            GridSearchCV(small.fdan(), {"max_epochs": [1]}, cv=2),
            "GridSearchCV is a search; save its best_estimator_",
        ),
        (Mine(**small.FDAN), "no subclasses"),
    ],
    ids=["stranger", "step", "column", "search", "subclass"],
)
def test_what_only_pickle_could_store(estimator, message, tmp_path):
    estimator.fit(small.MATRIX, small.Y)
    with pytest.raises(TypeError, match=message):
        save_pretrained(estimator, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_parameters_that_only_pickle_could_store(fitted, tmp_path):
    clf = small.fdan(max_epochs=1, optimizer_params={"foreach": False}).fit(small.MATRIX, small.Y)
    clf.optimizer_params = {"foreach": object()}
    with pytest.raises(TypeError, match=r"FDANClassifier\(optimizer_params=...\) is a object"):
        clf.save_pretrained(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    clf = small.fdan(max_epochs=1).fit(small.MATRIX, small.Y)
    clf.bottleneck = 9  # not that of the network
    with pytest.raises(ValueError, match="could not be loaded: the tensor"):
        clf.save_pretrained(tmp_path / "model")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- loading


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder.*nowhere"):
        load_pretrained(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"there is no config\.json; it is no skfdan model"):
        load_pretrained(tmp_path)


def test_a_model_of_another_class(model):
    with pytest.raises(ModelError, match="holds a FDANClassifier and no TFMixClassifier"):
        TFMixClassifier.from_pretrained(model)


def test_a_pipeline_is_no_classifier(tmp_path):
    save_pretrained(MelSpectrogram(), tmp_path / "mel")
    with pytest.raises(ModelError, match="holds a MelSpectrogram and no FDANClassifier"):
        FDANClassifier.from_pretrained(tmp_path / "mel")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_every_flipped_bit_is_noticed(name, model):
    raw = (model / name).read_bytes()
    # All of the structure, and some of the weights.
    places = range(len(raw)) if name == "config.json" else range(0, len(raw), len(raw) // 50)
    for place in places[:: max(1, len(places) // 200)]:
        changed = bytearray(raw)
        changed[place] ^= 1 << place % 8
        (model / name).write_bytes(changed)
        with pytest.raises(ModelError):
            load_pretrained(model)
    (model / name).write_bytes(raw)
    load_pretrained(model)


def test_white_space_counts(model):
    text = (model / "config.json").read_text()
    (model / "config.json").write_text(text.replace(": ", ":  ", 1))
    with pytest.raises(ModelError, match=r"config.json was altered or damaged"):
        load_pretrained(model)


def test_a_later_format_says_what_to_install(model):
    edit(model, lambda config: config.update(version=7, skfdan="3.1.0", news=True))
    with pytest.raises(ModelError, match=r'version 7 of the format.*pip install "skfdan>=3.1.0"'):
        load_pretrained(model)


def test_an_older_format_is_read(model, monkeypatch):
    def upgrade(config):
        params = dict(config["model"]["params"])
        params["dropout"] = params.pop("drop")
        return config | {"model": config["model"] | {"params": params}}

    def age(config):
        params = config["model"]["params"]
        params["drop"] = params.pop("dropout")

    edit(model, age)
    with pytest.raises(ModelError, match="lacks 'dropout'"):
        load_pretrained(model)
    monkeypatch.setattr(_format, "VERSION", _format.VERSION + 1)
    monkeypatch.setitem(_format.UPGRADES, _format.VERSION - 1, upgrade)
    assert load_pretrained(model).dropout == 0.0


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "pytorch_model.bin"])
def test_a_planted_pickle_never_runs(name, model, tmp_path):
    bomb = Bomb(str(tmp_path / "ran"))
    (model / name).write_bytes(pickle.dumps(bomb))
    if name == "pytorch_model.bin":
        load_pretrained(model)  # a file that is not looked at
    else:
        with pytest.raises(ModelError):
            load_pretrained(model)
        torch.save(bomb, model / name)
        with pytest.raises(ModelError):
            load_pretrained(model)
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(bomb)).close()
    assert (tmp_path / "ran").exists()  # it would have


def params(config):
    return config["model"]["params"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: params(c).update(bottleneck=2**40), "overflowed"),
        (lambda c: params(c).update(bottleneck=2**20), "these parameters make it"),
        (lambda c: params(c).update(ffn_dim=2**40), "these parameters make it"),
        (lambda c: params(c).update(n_layers=10**9), "larger network than is stored"),
        (lambda c: params(c).update(input_size=10**6), "input_size=1000000"),
        (lambda c: params(c).update(lr="0.1"), r"lr='0.1'"),
        (lambda c: params(c).update(weights="../x.pth"), r"weights='../x.pth'"),
        (lambda c: params(c).update(checkpoint_dir="/home"), "checkpoint_dir='/home'"),
        (lambda c: params(c).update(device="meta"), "device='meta'"),
        (lambda c: params(c).update(optimizer={"@optimizer": "Optimizer"}), "no value"),
        (lambda c: params(c).update(optimizer={"@optimizer": "lr_scheduler"}), "no value"),
        (lambda c: params(c).update(inference="eval"), "inference='eval' is unknown"),
        (lambda c: params(c).update(predictor=1), "has the unknown 'predictor'"),
        (lambda c: params(c).pop("alpha"), "lacks 'alpha'"),
        (lambda c: c["model"].update({"class": "os.system"}), "asks for 'os.system'"),
        (lambda c: c["model"].update({"class": ["a"]}), "no class that can be stored"),
        (lambda c: c["model"].update(output="html"), "output 'html'"),
        (lambda c: c["weights"].update(size=3), "instead of 3"),
        (lambda c: c["weights"].update(sha256="0"), "model.safetensors was altered"),
        (lambda c: c["facts"].update(scores={}), "scores lacks 'rows'"),
        (
            lambda c: c["model"]["state"]["classes"]["@array"]["values"].reverse(),
            "not labels in sorted order",
        ),
        (lambda c: c["model"]["state"]["classes"]["@array"]["values"].pop(), "class_count_"),
        (
            lambda c: c["model"]["state"]["attributes"].update(n_features_in_={"@absent": True}),
            "n_features_in_",
        ),
    ],
)
def test_a_stranger_who_knows_how_to_compute_check_sums(change, message, model):
    edit(model, change)
    with pytest.raises(ModelError, match=message) as refusal:
        load_pretrained(model)
    assert str(refusal.value).startswith(repr(str(model)))


def rewrite(model, change):
    """Change tensors and config together."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    config = json.loads((model / "config.json").read_text())
    change(tensors, config["model"]["state"].get("history"))
    save_file(tensors, model / "model.safetensors")
    raw = (model / "model.safetensors").read_bytes()
    weights = {"sha256": hashlib.sha256(raw).hexdigest(), "size": len(raw)}
    edit(model, lambda c: c.update(model=config["model"], weights=weights))


@pytest.mark.parametrize(
    ("learned", "message"),
    [
        (torch.full((2,), float("inf"), dtype=torch.float64), "mean_ .* holds infinite values"),
        (torch.zeros(3, dtype=torch.float64), r"mean_ .* has the shape \(3,\)"),
        (torch.zeros(2, dtype=torch.bool), "mean_ .* has the type bool"),
    ],
)
def test_what_a_scaler_cannot_have_learned(learned, message, tmp_path):
    scaler = StandardScaler().fit(small.MATRIX[:, :2])
    folder = save_pretrained(scaler, tmp_path / "model")
    rewrite(folder, lambda tensors, _: tensors.update(mean_=learned))
    with pytest.raises(ModelError, match=message):
        load_pretrained(folder)


@pytest.mark.parametrize("dtype", ["<U9", "os.system", 3])
def test_types_that_no_scaler_is_fitted_on(dtype, tmp_path):
    folder = save_pretrained(StandardScaler().fit(small.MATRIX[:, :2]), tmp_path / "model")
    edit(folder, lambda c: c["model"]["state"].update(dtype=dtype))
    with pytest.raises(ModelError, match="was fitted on the type"):
        load_pretrained(folder)


def test_columns_that_nothing_was_learned_of_cost_no_time(tmp_path, monkeypatch):
    imputer = SimpleImputer(strategy="most_frequent").fit(small.MATRIX[:, :2])
    folder = save_pretrained(imputer, tmp_path / "model")
    edit(folder, lambda c: c["model"]["state"].update(n_features_in=2**20))
    monkeypatch.setattr(SimpleImputer, "fit", None)
    with pytest.raises(ModelError, match=r"statistics_ .* has the shape \(2,\)"):
        load_pretrained(folder)


def test_objects_may_be_infinite_numbers_too(tmp_path):
    words = np.array([["a", "b"], ["a", None]], dtype=object)
    imputer = SimpleImputer(strategy="most_frequent", missing_values=None).fit(words)
    folder = save_pretrained(imputer, tmp_path / "model")
    learned = {"dtype": "|O", "values": [{"@float": "inf"}, "b"]}
    edit(folder, lambda c: c["model"]["state"]["statistics_"].update({"@array": learned}))
    with pytest.raises(ModelError, match=r"statistics_ .* holds infinite values"):
        load_pretrained(folder)


def test_a_network_with_nan_is_refused(model):
    rewrite(model, lambda tensors, _: tensors["module.classifier.bias"].fill_(float("nan")))
    with pytest.raises(ModelError, match=r"'module\.classifier\.bias' holds NaN"):
        load_pretrained(model)


def test_epochs_that_the_file_does_not_have(model):
    def announce(tensors, history):
        for key in history["columns"]:
            history["columns"][key] = False
            tensors[f"history.{key}.epochs"] = torch.tensor([0])
        history["epochs"] = 4_000_000

    rewrite(model, announce)
    with pytest.raises(ModelError, match="announces 4000000 epochs"):
        load_pretrained(model)


def test_epochs_without_numbers(model):
    def announce(tensors, history):
        history["columns"]["epoch"] = False
        tensors["history.epoch.epochs"] = torch.tensor([0])
        history["epochs"] = 9

    rewrite(model, announce)
    with pytest.raises(ModelError, match="announces 9 epochs"):
        load_pretrained(model)


def test_what_takes_much_is_refused_before_it_is_made(tmp_path, monkeypatch):
    columns = ColumnTransformer(
        [
            ("one", MelSpectrogram(duration=0.5), ["audio"]),
            ("two", MelSpectrogram(duration=0.5), ["audio"]),
        ]
    )
    columns.fit(make_table(audio=[None]))
    folder = save_pretrained(columns, tmp_path / "model")

    def filters(config, **changes):
        config["model"]["params"]["transformers"][0][1]["params"].update(changes)

    for n_fft, n_mels in ((2**20, 8192), (2**14, 129)):
        edit(folder, lambda c, a=n_fft, b=n_mels: filters(c, n_fft=a, n_mels=b))
        with pytest.raises(ModelError, match=rf"n_fft={n_fft}, n_mels={n_mels}"):
            load_pretrained(folder)
    edit(folder, lambda c: filters(c, n_fft=2048, n_mels=128, n_jobs=10**6))
    with pytest.raises(ModelError, match=r"MelSpectrogram\(n_jobs=1000000\)"):
        load_pretrained(folder)
    edit(folder, lambda c: filters(c, n_jobs=None))
    for value in (10**6, "3", True):
        edit(folder, lambda c, value=value: params(c).update(n_jobs=value))
        with pytest.raises(ModelError, match=r"ColumnTransformer\(n_jobs="):
            load_pretrained(folder)

    # One that is possible is kept, but nothing is started for it.
    edit(folder, lambda c: params(c).update(n_jobs=2))
    fits, own = [], ColumnTransformer.fit_transform

    def fit_transform(self, *args, **kwargs):
        fits.append(self.n_jobs)
        return own(self, *args, **kwargs)

    monkeypatch.setattr(ColumnTransformer, "fit_transform", fit_transform)
    assert load_pretrained(folder).n_jobs == 2
    assert fits == [None]


def test_layers_stop_when_they_are_more_than_the_file_has_tensors(model, monkeypatch):
    monkeypatch.setattr("skfdan.persistence._network.check_attributes", lambda *args: None)
    edit(model, lambda config: params(config).update(n_layers=10**9))
    with pytest.raises(ModelError, match="larger network than is stored"):
        load_pretrained(model)


def test_a_missing_row_of_weights_is_noticed_before_they_are_used(model, fitted):
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    del tensors["module.classifier.bias"]
    save_file(tensors, model / "model.safetensors")
    raw = (model / "model.safetensors").read_bytes()
    sums = {"sha256": hashlib.sha256(raw).hexdigest(), "size": len(raw)}
    edit(model, lambda config: config["weights"].update(sums))
    with pytest.raises(ModelError, match=r"no tensor 'module\.classifier\.bias'"):
        load_pretrained(model)


def test_the_file_is_ordinary_safetensors(model, fitted):
    from safetensors.torch import load_file

    tensors = load_file(model / "model.safetensors")
    own = fitted.module_.classifier.weight.detach()
    assert np.array_equal(tensors["module.classifier.weight"].numpy(), own.numpy())
