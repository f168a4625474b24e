import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks, get_tags
from skorch.callbacks import Callback
from torch.nn.functional import interpolate

from skfdan import FDANClassifier, make_table, save_pretrained
from skfdan.nn import make_backbone
from skfdan.preprocessing import BackboneEmbedding
from skfdan.preprocessing._embedding_store import _WARNED, STORE
from skfdan.table import SKIP, as_cells

SMALL = {"backbone": "cnn", "weights": None, "input_size": 16, "random_state": 0}
CHECKED = BackboneEmbedding(**SMALL)


@pytest.fixture(autouse=True)
def _nothing_is_known():
    STORE.clear()
    _WARNED.clear()


class Seen:
    """Small backbones, all alike, that count the images they embed."""

    def __init__(self):
        self.images = 0

    def __call__(self):
        torch.manual_seed(0)
        network, n = make_backbone("cnn", None)
        network.register_forward_hook(self._count)
        return network, n

    def _count(self, module, inputs, output):
        self.images += len(inputs[0])

    def __deepcopy__(self, memo):  # clones of a search count together
        return self


def make_faces(n=6, seed=0, size=20):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, size, size), dtype=np.uint8)


def make_sounds(n=6, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, 12, 30)) * 15 - 40).astype(np.float32)


def stacked(vectors):
    return np.stack(vectors[:, 0])


# ------------------------------------------------------------------- scikit-learn


def checks_without_a_matrix():
    # Most checks need a matrix of numbers, and scikit-learn says that it leaves them out.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)
        return list(estimator_checks.estimator_checks_generator(CHECKED))


@pytest.mark.parametrize(
    ("estimator", "check"), checks_without_a_matrix(), ids=estimator_checks._get_check_estimator_ids
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_valid_tag_types,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
        estimator_checks.check_mixin_order,
        estimator_checks.check_set_output_transform,
    ],
    ids=lambda check: check.__name__,
)
def test_scikit_learn_checks_that_need_no_matrix(check):
    check("BackboneEmbedding", clone(CHECKED))


def test_fit_changes_nothing_but_what_it_learns():
    frame = pd.DataFrame({"visual": as_cells(make_faces())}, index=[7, 5, 3, 1, 9, 8])
    before = make_faces()
    embed = BackboneEmbedding(**SMALL)
    parameters = embed.get_params()
    with pytest.raises(NotFittedError):
        embed.transform(frame)
    state = torch.random.get_rng_state()
    assert embed.fit(frame, y=np.arange(6)) is embed
    assert torch.equal(torch.random.get_rng_state(), state)
    assert embed.get_params() == parameters
    assert vars(embed).keys() - parameters.keys() == {
        "encoder_",
        "n_features_in_",
        "feature_names_in_",
    }
    assert get_tags(embed).requires_fit
    assert embed.get_feature_names_out().tolist() == ["visual"]
    vectors = embed.transform(frame)
    assert vectors.shape == (6, 1)
    assert vectors.dtype == object
    np.testing.assert_array_equal(np.stack(frame["visual"]), before)
    again = clone(embed).fit_transform(frame)
    np.testing.assert_array_equal(stacked(again), stacked(vectors))
    framed = embed.set_output(transform="pandas").transform(frame)
    assert framed.columns.tolist() == ["visual"]
    assert framed.index.tolist() == [7, 5, 3, 1, 9, 8]
    np.testing.assert_array_equal(np.stack(framed["visual"]), stacked(vectors))


def test_a_pickle_gives_the_same():
    embed = BackboneEmbedding(**SMALL).fit(list(make_sounds()))
    expected = stacked(embed.transform(list(make_sounds())))
    STORE.clear()
    loaded = pickle.loads(pickle.dumps(embed))
    found = stacked(loaded.transform(list(make_sounds())))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert loaded.encoder_ is not embed.encoder_


def test_import_needs_no_torch():
    code = (
        "import sys; from skfdan.preprocessing import BackboneEmbedding; BackboneEmbedding();"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------ numbers


@pytest.fixture(scope="module")
def resnet_weights(tmp_path_factory):
    torch.manual_seed(1)
    network, _ = make_backbone("resnet18", None)
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pt"
    torch.save(network.state_dict(), path)
    return path


def by_hand(network, images):
    with torch.inference_mode():
        return network.eval()(images).numpy()


def test_faces_equal_the_backbone_applied_by_hand(resnet_weights):
    faces = make_faces(4, size=32)
    embed = BackboneEmbedding(
        backbone="resnet18", weights=resnet_weights, input_size=32, batch_size=3
    )
    found = stacked(embed.fit_transform(list(faces)))
    x = torch.tensor(faces / 255.0)
    x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    network, d = make_backbone("resnet18", resnet_weights)
    assert found.shape == (4, d)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(network, x.float()), rtol=1e-4, atol=1e-5)
    assert found.std(0).max() > 0.01


def test_spectrograms_equal_the_backbone_applied_by_hand():
    sounds = make_sounds()
    found = stacked(BackboneEmbedding(**SMALL | {"backbone": Seen()}).fit_transform(list(sounds)))
    # The statistics of fit, with the deviation at a power of the fourth root of 2.
    exponent = min(range(-40, 41), key=lambda k: abs(k - 4 * np.log2(sounds.std(dtype=float))))
    std = 2 ** (exponent / 4)
    mean = min(np.arange(-400, 400) * std / 4, key=lambda m: abs(m - sounds.mean(dtype=float)))
    x = interpolate(
        torch.tensor(sounds)[:, None], (16, 16), mode="bilinear", antialias=True
    ).repeat(1, 3, 1, 1)
    network, _ = Seen()()
    expected = by_hand(network, ((x - mean) / std).float())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert found.std(0).max() > 1e-3
    # With an axis of one channel they are the same.
    other = BackboneEmbedding(**SMALL | {"backbone": Seen()}).fit_transform(list(sounds[:, None]))
    np.testing.assert_array_equal(stacked(other), found)


@pytest.mark.parametrize(("frames", "pool"), [("mean", np.mean), ("max", np.max)])
def test_frames_become_one_vector(frames, pool):
    faces = make_faces(7)
    embed = BackboneEmbedding(**SMALL | {"frames": frames}).fit(list(faces))
    single = stacked(embed.transform(list(faces)))
    clips = embed.transform([faces[:3], faces[3], faces[3:]])[:, 0]
    for clip, part in zip(clips, (single[:3], single[3:4], single[3:]), strict=True):
        assert clip.shape == (128,)
        assert clip.dtype == np.float32
        np.testing.assert_allclose(clip, pool(part, axis=0), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(clips[1], single[3])


def test_missing_cells_stay_missing_and_skip_stays_skip():
    faces = make_faces(2)
    embed = BackboneEmbedding(**SMALL)
    out = embed.fit_transform([None, faces[0], SKIP, np.nan, faces[1]])[:, 0]
    assert out[0] is None
    assert out[3] is None
    assert out[2] is SKIP
    np.testing.assert_array_equal(out[4], embed.transform([faces[1]])[0, 0])


def test_a_column_without_a_cell():
    embed = BackboneEmbedding(**SMALL).fit([None, SKIP])
    assert embed.encoder_ is None
    assert embed.transform([SKIP, None])[:, 0].tolist() == [SKIP, None]
    assert pickle.loads(pickle.dumps(embed)).encoder_ is None
    with pytest.raises(ValueError, match="row 1 holds a cell, but fit was given missing cells"):
        embed.transform([None, make_faces(1)[0]])


def test_cells_of_several_sizes_each_in_a_batch_of_its_like():
    rng = np.random.default_rng(0)
    # Resized on the way to a common batch, a cell would not be what it is alone.
    sounds = [rng.normal(size=(20, n)).astype(np.float32) for n in (30, 25, 30, 41, 30)]
    shapes = []

    def backbone():
        network, d = Seen()()
        network.register_forward_hook(lambda m, args, out: shapes.append(tuple(args[0].shape)))
        return network, d

    embed = BackboneEmbedding(backbone=backbone, input_size=None, batch_size=4)
    found = stacked(embed.fit_transform(sounds))
    # Once more for the lone ones: see skfdan.nn.backbones.embed.
    assert shapes == [(3, 3, 20, 30), (2, 3, 20, 25), (2, 3, 20, 41)]
    network, norm = Seen()()[0], embed.encoder_.inputs["cells"]
    for sound, vector in zip(sounds, found, strict=True):
        x = (sound - norm.mean.item()) / norm.std.item()
        expected = by_hand(network, torch.tensor(x).expand(1, 3, -1, -1))
        np.testing.assert_allclose(vector, expected[0], rtol=1e-4, atol=1e-6)


def test_random_weights_follow_the_seed():
    faces = list(make_faces(2))

    def vectors(seed):
        return stacked(BackboneEmbedding(**SMALL | {"random_state": seed}).fit_transform(faces))

    np.testing.assert_array_equal(vectors(0), vectors(0))
    assert not np.allclose(vectors(0), vectors(1))
    assert not np.allclose(vectors(None), vectors(None))


def test_bfloat16_is_nearly_the_same():
    faces = list(make_faces())
    exact, low = (
        stacked(BackboneEmbedding(**SMALL | {"precision": p}).fit_transform(faces))
        for p in ("float32", "bfloat16")
    )
    assert low.dtype == np.float32
    assert 0 < np.abs(exact - low).max() < 0.03 * np.abs(exact).max()


# ------------------------------------------------------------------------- nothing twice


@pytest.fixture
def clips():
    rng = np.random.default_rng(0)
    y = np.arange(24) % 2
    faces = make_faces(24)
    faces[y == 1, :, :10] //= 4
    sounds = make_sounds(24) + rng.normal(size=24)[:, None, None].astype(np.float32)
    return faces, sounds, y


def columns(**parameters):
    return ColumnTransformer(
        [(m, BackboneEmbedding(**SMALL | parameters), [m]) for m in ("visual", "audio")],
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")


HEAD = {"bottleneck": 16, "max_epochs": 2, "lr": 0.1, "random_state": 0, "batch_size": 8}


def test_a_search_embeds_each_distinct_cell_once(clips):
    faces, sounds, y = clips
    # Two rows share a face; three frames are a clip.
    visual = [*faces[:23], faces[0]]
    visual[5] = np.stack([faces[5], faces[23], faces[6]])
    table = make_table(visual=visual, audio=sounds)
    seen = Seen()
    search = GridSearchCV(
        make_pipeline(columns(backbone=seen), FDANClassifier(**HEAD)),
        {"fdanclassifier__weight_decay": [0.0, 1e-3]},
        cv=KFold(3, shuffle=True, random_state=0),
        error_score="raise",
    )
    search.fit(table, y)
    # All faces are among the frames: 24 faces and 24 voices. A batch of one counts twice.
    assert seen.images == 48
    assert search.predict(table).shape == (24,)
    assert seen.images == 48


class Extreme(torch.nn.Module):
    """A network of a user, which says nothing of what tells it from its sister."""

    def __init__(self, which):
        super().__init__()
        self.which = which
        self.register_buffer("shift", torch.zeros(1), persistent=False)

    def forward(self, x):
        return getattr(x, self.which)((2, 3)) + self.shift


@pytest.mark.parametrize("cached", [False, True])
def test_networks_that_differ_in_an_attribute_are_two(cached, tmp_path):
    faces = make_faces(4) // 2 + np.array([0, 30, 60, 90], np.uint8)[:, None, None, None]
    found = {}
    for which in ("amin", "amax", "amin"):
        embed = BackboneEmbedding(
            backbone=lambda which=which: (Extreme(which), 3),
            weights=None,
            input_size=None,
            cache_dir=tmp_path if cached else None,
            verbose=0,
        )
        vectors = np.stack(embed.fit_transform(list(faces))[:, 0])
        expected = getattr(np, which)(faces[:, 0], (1, 2))
        # The inputs are normalised, which keeps the order.
        assert np.corrcoef(vectors[:, 0], expected)[0, 1] > 0.99
        found.setdefault(which, vectors)
        np.testing.assert_array_equal(found[which], vectors)
    assert (found["amin"] < found["amax"]).all()
    if cached:
        assert len(list(tmp_path.rglob("*.npy"))) == 2 * len(faces)


def test_buffers_that_are_not_saved_count():
    def shifted(by):
        network = Extreme("amax")
        network.shift += by
        return network, 3

    settings = {"weights": None, "input_size": None, "verbose": 0}
    faces = list(make_faces(2))
    found = [
        stacked(
            BackboneEmbedding(backbone=lambda by=by: shifted(by), **settings).fit_transform(faces)
        )
        for by in (0, 1)
    ]
    np.testing.assert_allclose(found[1] - found[0], 1, rtol=1e-5)


def test_a_network_that_cannot_be_told_from_others_is_found_by_nobody(clips):
    class Counting(Extreme):
        seen = 0

        def forward(self, x):
            type(self).seen += len(x)
            return super().forward(x)

    class Source:
        def __init__(self):
            self.numbers = (i for i in range(3))  # which no pickle takes

        def __deepcopy__(self, memo):
            return self

    def make():
        network = Counting("amax")
        network.source = Source()
        return network, 3

    embed = BackboneEmbedding(backbone=make, weights=None, input_size=16, verbose=0)
    for n in (1, 2):
        embed.fit(list(clips[0][:4])).transform(list(clips[0][:4]))
        seen = Counting.seen
        embed.transform(list(clips[0][:4]))
        assert Counting.seen == seen >= 4 * n


def test_a_folder_keeps_them_for_other_processes(clips, tmp_path):
    faces, _, _ = clips
    seen = Seen()
    embed = BackboneEmbedding(**SMALL | {"backbone": seen, "cache_dir": tmp_path / "kept"})
    first = stacked(embed.fit_transform(list(faces)))
    assert seen.images == 24
    STORE.clear()  # as in another process
    np.testing.assert_array_equal(stacked(clone(embed).fit_transform(list(faces))), first)
    assert seen.images == 24
    STORE.clear()
    clone(embed).set_params(input_size=24).fit_transform(list(faces))
    assert seen.images == 48


def test_a_store_that_is_too_small_warns_once(clips, tmp_path, monkeypatch):
    faces, _, _ = clips
    monkeypatch.setattr(STORE, "limit", 20 * 512)
    embed = BackboneEmbedding(**SMALL)
    clone(embed).set_params(cache_dir=tmp_path).fit_transform(list(faces))
    with pytest.warns(UserWarning, match=r"^BackboneEmbedding: .* Set cache_dir= to keep all"):
        first = embed.fit_transform(list(faces))
    np.testing.assert_array_equal(stacked(embed.transform(list(faces))), stacked(first))


def test_what_is_returned_may_be_changed(clips):
    faces, _, _ = clips
    embed = BackboneEmbedding(**SMALL).fit(list(faces))
    expected = stacked(embed.transform(list(faces)))
    embed.transform(list(faces))[0, 0][:] = -1
    np.testing.assert_array_equal(stacked(embed.transform(list(faces))), expected)


class SameStart(Callback):
    """Notes the weights above the backbones, or gives a network those that were noted."""

    def __init__(self, noted, *, note):
        self.noted, self.note = noted, note

    def on_train_begin(self, net, **kwargs):
        head = {
            name: value
            for name, value in net.module_.state_dict().items()
            if not name.startswith(("backbones.", "inputs."))
        }
        if self.note:
            self.noted |= {name: value.clone() for name, value in head.items()}
            return
        for name, value in head.items():
            value.copy_(self.noted[name])
        for norm in net.module_.inputs.values():  # vectors are standardised
            norm.mean.zero_()
            norm.std.fill_(1.0)


def test_a_classifier_on_vectors_is_one_with_a_frozen_backbone(clips, resnet_weights):
    faces, sounds, y = clips
    table = make_table(visual=faces, audio=sounds)
    given = {"backbone": "resnet18", "weights": resnet_weights, "input_size": 32}
    noted = {}
    frozen = FDANClassifier(
        **HEAD, **given, backbone_trainable=False, callbacks=[SameStart(noted, note=True)]
    ).fit(table, y)
    assert {name.split(".")[0] for name in noted} == {"bottlenecks", "layers", "classifier"}
    computed = len(STORE)
    pipe = make_pipeline(
        columns(**given), FDANClassifier(**HEAD, callbacks=[SameStart(noted, note=False)])
    ).fit(table, y)
    # The vectors are those that the classifier has made.
    assert len(STORE) == computed == 48
    np.testing.assert_allclose(pipe.predict_proba(table), frozen.predict_proba(table), atol=1e-6)
    assert np.ptp(frozen.predict_proba(table)[:, 0]) > 0.01


def test_one_column_goes_straight_to_a_classifier(clips):
    _, sounds, y = clips
    pipe = make_pipeline(BackboneEmbedding(**SMALL), FDANClassifier(**HEAD))
    table = make_table(audio=sounds)
    assert pipe.fit(table[["audio"]], y).predict(table[["audio"]]).shape == (24,)


# ------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("cells", "error", "message"),
    [
        (["a.wav"], ValueError, r"row 0 \(a\.wav\) is a path\. Put FaceFrames\(\) or MelSpectro"),
        ([None, {"a": 1}], TypeError, "row 1 .*holds no numbers"),
        ([None, np.array([["a"]])], TypeError, "row 1 .*holds no numbers"),
        ([np.zeros(9)], ValueError, "row 0 .*one-dimensional"),
        ([np.zeros((3, 0, 4), np.uint8)], ValueError, "is empty"),
        ([np.zeros((9, 8, 3), np.uint8)], ValueError, r"wrong shape.*channels are last"),
        ([np.zeros((2, 9, 8, 3), np.uint8)], ValueError, r"wrong shape.*channels are last"),
        ([np.zeros((2, 9, 8))], ValueError, r"wrong shape.*\(n_mels, T\)\.$"),
        ([np.zeros((2, 1, 9, 8))], ValueError, "several samples of floats"),
        ([np.zeros((9, 8)), np.full((9, 8), np.inf)], ValueError, "row 1 .*NaN or infinite"),
        ([np.full((9, 8), 1e300)], ValueError, "NaN or infinite"),
        (
            [None, np.zeros((9, 8)), np.zeros((3, 9, 8), np.uint8)],
            ValueError,
            "row 2 holds bytes, but row 1 floats",
        ),
        (np.zeros((4, 5)), ValueError, "one column of cells.*not numbers"),
        (make_table(audio=[None]), ValueError, "got 2 columns"),
    ],
)
def test_what_is_no_cell(cells, error, message):
    with pytest.raises(error, match=message):
        BackboneEmbedding(**SMALL).fit(cells)


def test_cells_of_another_kind_than_at_fit():
    embed = BackboneEmbedding(**SMALL).fit(list(make_faces()))
    with pytest.raises(ValueError, match="row 1 holds floats, but fit was given bytes"):
        embed.transform([None, make_sounds()[0]])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"frames": "first"}, "frames must be 'mean' or 'max'; got 'first'"),
        ({"precision": "float16"}, "precision must be 'float32' or 'bfloat16'"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"batch_size": 2.5}, "batch_size=2.5 must be a whole number"),
        ({"input_size": 0}, "input_size=0 must be at least 1"),
        ({"device": "gpu"}, "device='gpu' is unknown"),
        ({"backbone": "lenet"}, "backbone='lenet' is unknown; choose one of resnet18"),
    ],
)
def test_parameters_out_of_range(parameters, message):
    with pytest.raises(ValueError, match=message):
        BackboneEmbedding(**SMALL | parameters).fit(list(make_faces(1)))


def test_a_backbone_that_gives_no_vectors():
    embed = BackboneEmbedding(
        **SMALL | {"backbone": lambda: (torch.nn.Conv2d(3, 4, 3, stride=4), 4)}
    )
    with pytest.raises(ValueError, match=r"Conv2d gives \(2, 4, 4, 4\) for 2 images"):
        embed.fit_transform(list(make_faces(2)))


def test_it_is_not_saved_without_its_weights(clips, tmp_path):
    _, sounds, y = clips
    table = make_table(audio=sounds)
    prepare = ColumnTransformer([("voice", BackboneEmbedding(**SMALL), ["audio"])])
    pipe = make_pipeline(prepare, FDANClassifier(**HEAD | {"max_epochs": 1})).fit(table, y)
    with pytest.raises(
        TypeError,
        match=r"'columntransformer__voice' is BackboneEmbedding.*backbone_trainable=False",
    ):
        save_pretrained(pipe, tmp_path / "model")
    assert not list(tmp_path.iterdir())
    with pytest.raises(TypeError, match=r"^BackboneEmbedding can't be saved"):
        save_pretrained(prepare.named_transformers_["voice"], tmp_path / "model")
