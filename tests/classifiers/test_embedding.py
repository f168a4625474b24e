import warnings

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV, GroupKFold
from skorch.callbacks import Callback

from classifiers.small_clips import QUICK, make_clips
from skfdan import AudioHoldout, FDANClassifier, make_table, stack_modalities
from skfdan.classifiers import MISAClassifier, _embedding
from skfdan.classifiers._embedding import EmbeddingMixin
from skfdan.classifiers._paths import PathCells
from skfdan.classifiers._samples import ModalitySamples, array_samples
from skfdan.nn import make_backbone
from skfdan.preprocessing import FaceFrames, MelSpectrogram, _embedding_store
from skfdan.preprocessing._embedding_store import STORE, EmbeddingStore

FROZEN = QUICK | {"backbone_trainable": False, "max_epochs": 4, "dropout": 0.2}


class Seen:
    """Small backbones that count the images they embed."""

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


@pytest.fixture(autouse=True)
def _nothing_is_known():
    STORE.clear()
    _embedding_store._WARNED.clear()


def step_by_step(monkeypatch):
    """Let the frozen backbone run in every step, as if nothing were embedded."""
    monkeypatch.setattr(EmbeddingMixin, "_embedded", lambda self, samples, verbose=0: samples)


def fits(make, monkeypatch):
    """Fit with embeddings and without."""
    quick = make()
    step_by_step(monkeypatch)
    return quick, make()


@pytest.mark.parametrize(
    ("parameters", "estimator"),
    [
        ({}, FDANClassifier),
        ({"shared_backbone": True, "adaptation": "daan"}, FDANClassifier),
        ({"variant": "official"}, FDANClassifier),
        ({"early_stopping": True, "validation_fraction": 0.25}, FDANClassifier),
        ({"backbone_trainable": "block3"}, FDANClassifier),
        ({"backbone": "resnet18", "backbone_trainable": "layer4", "max_epochs": 2}, FDANClassifier),
        ({"modality_dropout": 0.3}, MISAClassifier),
    ],
)
def test_a_fit_equals_one_that_runs_the_backbone_in_every_step(parameters, estimator, monkeypatch):
    X_vis, X_aud, y = make_clips(24)
    settings = FROZEN | parameters
    known = estimator().get_params()
    settings = {k: v for k, v in settings.items() if k in known}
    quick, slow = fits(lambda: estimator(**settings).fit(X_vis, X_aud, y), monkeypatch)
    for (name, p), (_, q) in zip(
        quick.module_.state_dict().items(), slow.module_.state_dict().items(), strict=True
    ):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5, msg=name)
    X = make_table(visual=list(X_vis), audio=list(X_aud))
    np.testing.assert_allclose(quick.predict_proba(X), slow.predict_proba(X), atol=1e-5)


def test_only_what_comes_from_the_named_stage_on_is_trained():
    X_vis, X_aud, y = make_clips(16)
    clf = FDANClassifier(**FROZEN | {"backbone_trainable": "block3"})
    start = {}

    class Note(Callback):
        def on_train_begin(self, net, **kwargs):
            start.update({k: v.clone() for k, v in net.module_.state_dict().items()})

    clf.set_params(callbacks=[Note()]).fit(X_vis, X_aud, y)
    changed = {
        name for name, p in clf.module_.state_dict().items() if not torch.equal(p, start[name])
    }
    backbone = {n for n in start if n.startswith("backbones.audio.")}
    of_block3_on = {n for n in backbone if int(n.split(".")[2]) >= 8}
    assert changed & backbone == of_block3_on
    assert of_block3_on < backbone


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("layer9", "'block2', 'block3', 'block4', 'head'"),
        ("block1", "stages are"),
        (2, "first stage to be trained"),
    ],
)
def test_an_unknown_stage_is_refused(value, message):
    X_vis, X_aud, y = make_clips(16)
    with pytest.raises(ValueError, match=message):
        FDANClassifier(**FROZEN | {"backbone_trainable": value}).fit(X_vis, X_aud, y)


def search_table():
    X_vis, X_aud, y = make_clips(36)
    speakers = np.repeat(np.arange(6), 6)
    return stack_modalities(
        visual=(list(X_vis), y, speakers + 10), audio=(list(X_aud), y, speakers)
    )


def test_a_search_embeds_each_distinct_cell_once():
    table, y, groups = search_table()
    seen = Seen()
    search = GridSearchCV(
        FDANClassifier(**FROZEN | {"backbone": seen}),
        {"alpha": [1e-3, 1e-2], "weight_decay": [0.0, 1e-3]},
        cv=AudioHoldout(GroupKFold(3), visual="disjoint"),
        error_score="raise",
    )
    search.fit(table, y, groups=groups)
    assert len(search.cv_results_["params"]) == 4
    # 36 faces and 36 voices; a batch of one would count twice.
    assert seen.images == 72


def test_the_same_cell_in_many_rows_is_embedded_once():
    X_vis, X_aud, y = make_clips(16)
    seen = Seen()
    table = make_table(
        visual=[X_vis[i % 4] for i in range(16)], audio=[X_aud[i] for i in range(16)]
    )
    FDANClassifier(**FROZEN | {"backbone": seen}).fit(table, y)
    assert seen.images == 4 + 16


def test_a_changed_cell_is_embedded_anew():
    X_vis, X_aud, y = make_clips(16)
    clf = FDANClassifier(**FROZEN).fit(X_vis, X_aud, y)
    cells = X_aud[:3].copy()
    before = clf.transform(cells)
    cells += 1.0
    after = clf.transform(cells)
    STORE.clear()
    assert not np.allclose(before, after)
    np.testing.assert_array_equal(after, clf.transform(cells))


def test_changed_weights_are_noticed():
    X_vis, X_aud, y = make_clips(16)
    clf = FDANClassifier(**FROZEN).fit(X_vis, X_aud, y)
    before = clf.transform(X_aud)
    with torch.no_grad():
        next(clf.module_.backbones["audio"].parameters()).mul_(2.0)
    after = clf.transform(X_aud)
    assert not np.allclose(before, after)


@pytest.mark.parametrize("trainable", [False, "block3"])
def test_a_folder_keeps_them_for_other_processes(trainable, tmp_path):
    X_vis, X_aud, y = make_clips(16)
    seen = Seen()
    parameters = FROZEN | {"backbone": seen, "cache_dir": tmp_path / "kept", "max_epochs": 1}
    if trainable:
        parameters |= {"backbone": "cnn", "backbone_trainable": trainable}
    first = FDANClassifier(**parameters).fit(X_vis, X_aud, y)
    STORE.clear()  # as in another process
    seen.images = 0
    calls = []
    original = EmbeddingMixin._compute_embeddings
    try:
        EmbeddingMixin._compute_embeddings = lambda *a: calls.append(a) or original(*a)
        second = FDANClassifier(**parameters).fit(X_vis, X_aud, y)
    finally:
        EmbeddingMixin._compute_embeddings = original
    assert calls == []
    assert trainable or seen.images == 0
    np.testing.assert_array_equal(first.predict_proba(X_aud), second.predict_proba(X_aud))
    FDANClassifier(**parameters | {"input_size": 24}).fit(X_vis, X_aud, y)
    assert trainable or seen.images == 32


def test_a_damaged_entry_is_computed_anew(tmp_path):
    X_vis, X_aud, y = make_clips(16)
    parameters = FROZEN | {"cache_dir": tmp_path, "max_epochs": 1}
    first = FDANClassifier(**parameters).fit(X_vis, X_aud, y)
    entries = sorted(tmp_path.glob("*/*.npy"))
    assert len(entries) == 32
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:-50])
    STORE.clear()
    second = FDANClassifier(**parameters).fit(X_vis, X_aud, y)
    np.testing.assert_array_equal(first.predict_proba(X_aud), second.predict_proba(X_aud))


def test_embeddings_beyond_the_bound_are_not_kept(monkeypatch):
    """What is too much is known after the first part; no more of it is computed."""
    X_vis, X_aud, y = make_clips(16)
    expected = FDANClassifier(**FROZEN).fit(X_vis, X_aud, y).predict_proba(X_aud)
    STORE.clear()
    monkeypatch.setattr(_embedding, "CHUNK", 4)
    monkeypatch.setattr(_embedding, "CALL_BYTES", 16 * 512 - 1)
    computed = []
    original = EmbeddingMixin._compute_embeddings
    monkeypatch.setattr(
        EmbeddingMixin,
        "_compute_embeddings",
        lambda self, m, s, chosen: computed.append(len(chosen)) or original(self, m, s, chosen),
    )
    with pytest.warns(UserWarning, match=r"visual cells take .* runs in every step") as told:
        clf = FDANClassifier(**FROZEN).fit(X_vis, X_aud, y)
    assert [w.filename for w in told] == [__file__]
    assert computed == [4, 4]
    np.testing.assert_allclose(clf.predict_proba(X_aud), expected, atol=1e-5)
    FDANClassifier(**FROZEN).fit(X_vis, X_aud, y)  # which warns no more


class Frames:
    """A decoder of invented files, each of as many frames as its number says."""

    def __init__(self, n_frames):
        self.n_frames = n_frames

    def decode(self, paths, rows):
        sizes = [(self.n_frames[row], 3, 16, 16) for row in rows]
        made = zip(rows, sizes, strict=True)
        return [np.random.default_rng(r).integers(0, 99, s, np.uint8) for r, s in made], ()


@pytest.mark.parametrize("n_frames", [[3] * 10, [1, 1, 1, 1, 2, 2, 5, 6, 7, 4], [9, 8, *[1] * 8]])
def test_files_of_several_frames_in_several_parts(n_frames, clips, monkeypatch):
    clf = FDANClassifier(**FROZEN | {"max_epochs": 1}).fit(*clips)
    rows = np.arange(10)
    files = np.array([f"{i}.mp4" for i in rows])
    cells = PathCells(files, rows, Frames(np.array(n_frames)), lambda cell, row: cell)
    samples = ModalitySamples(cells, rows)
    whole = clf._embedded_modality("visual", samples, 0)
    monkeypatch.setattr(_embedding, "CHUNK", 2)
    parts = clf._embedded_modality("visual", samples, 0)
    assert parts.rows.tolist() == whole.rows.tolist() == np.repeat(rows, n_frames).tolist()
    np.testing.assert_array_equal(parts.files, files[parts.rows])
    for i, n in enumerate(n_frames):
        alone = clf._embedded_modality("visual", samples.select(np.array([i])), 0)
        np.testing.assert_array_equal(parts.cells[parts.rows == i], alone.cells)
        assert len(alone) == n
    # Whatever the first files have, the others may have one frame each.
    for bound, kept in ((sum(n_frames), True), (sum(n_frames) - 1, False)):
        monkeypatch.setattr(_embedding, "CALL_BYTES", bound * 512)
        again = clf._embedded_modality("visual", samples, 0)
        assert (again is not samples) == kept
        if kept:
            np.testing.assert_array_equal(again.cells, parts.cells)


def test_a_store_that_is_too_small_serves_what_it_holds(monkeypatch):
    X, _, y = make_clips(40)
    monkeypatch.setattr(STORE, "limit", 36 * 512)
    seen = Seen()
    parameters = FROZEN | {"backbone": seen, "max_epochs": 1, "predict_modality": "visual"}
    with pytest.warns(UserWarning, match=r"FDANClassifier: the .* Set cache_dir= to keep") as told:
        FDANClassifier(**parameters).fit(X, y)
    assert [w.filename for w in told] == [__file__]
    counts = []
    for _ in range(3):
        seen.images = 0
        FDANClassifier(**parameters).fit(X, y)
        counts.append(seen.images)
    assert counts == [4, 4, 4]


def test_files_keep_what_the_store_cannot(monkeypatch, tmp_path):
    X, _, y = make_clips(20)
    monkeypatch.setattr(STORE, "limit", 10 * 512)
    seen = Seen()
    parameters = {"backbone": seen, "predict_modality": "visual", "cache_dir": tmp_path}
    for _ in range(2):
        FDANClassifier(**FROZEN | parameters | {"max_epochs": 1}).fit(X, y)  # without a warning
    assert seen.images == 20


def test_maps_of_several_sizes_are_refused_as_the_cells_are():
    X_vis, X_aud, y = make_clips(16)
    cells = [cell[:, : 8 + 4 * (i % 2)] for i, cell in enumerate(X_aud)]
    parameters = FROZEN | {"input_size": None, "backbone_trainable": "block3"}
    with pytest.raises(ValueError, match="set input_size"):
        FDANClassifier(**parameters).fit(make_table(visual=list(X_vis), audio=cells), y)


def test_files_are_decoded_once_and_every_frame_counts(tmp_path, monkeypatch):
    from skfdan.datasets import make_emotion_clips

    clips = make_emotion_clips(12, 3, root=tmp_path / "clips", random_state=0, duration=0.6)
    decoded = []
    original = MelSpectrogram._recipe

    def recipe(self, training):
        found = original(self, training)
        return found._replace(load=lambda cell: decoded.append(cell) or found.load(cell))

    monkeypatch.setattr(MelSpectrogram, "_recipe", recipe)
    parameters = FROZEN | {
        "input_size": 32,
        "audio_transformer": MelSpectrogram(duration=0.5, n_mels=32, timeout=None, n_jobs=1),
        "visual_transformer": FaceFrames(
            n_frames=3, size=32, detector=None, timeout=None, n_jobs=1
        ),
    }
    seen = Seen()
    clf = FDANClassifier(**parameters | {"backbone": seen}).fit(clips.table, clips.target)
    # Some are read beforehand, for the mean and deviation of the network's input.
    assert len(decoded) <= 2 * 12 + 1
    assert seen.images == 12 + 3 * 12
    assert clf.predict(clips.table).shape == (12,)


def test_bfloat16_is_nearly_the_same():
    X_vis, X_aud, y = make_clips(24)
    exact, low = (
        FDANClassifier(**FROZEN | {"precision": p, "max_epochs": 1}).fit(X_vis, X_aud, y)
        for p in ("float32", "bfloat16")
    )
    cells = array_samples(X_aud, "audio", "X")
    z, z_low = (c._embedded({"audio": cells})["audio"].cells for c in (exact, low))
    assert z_low.dtype == np.float32
    error = np.abs(z - z_low).max() / np.abs(z).max()
    assert 0 < error < 0.03


def test_training_in_bfloat16_learns_too():
    X_vis, X_aud, y = make_clips(40)
    clf = FDANClassifier(**QUICK | {"precision": "bfloat16"}).fit(X_vis, X_aud, y)
    assert clf.score(make_clips(40, seed=1)[1], y) > 0.9


def ask(store, names):
    """Go through cells once, and return how many of them are found."""
    store.begin()
    found = [name for name in names if store.get(name) is not None]
    for name in names:
        if name not in found:
            store.put(name, np.zeros(10))
    assert sum(value.nbytes for _, value in store._entries.values()) == store._bytes
    assert store._bytes <= store.limit
    return len(found)


def test_a_full_store_keeps_what_the_next_pass_asks_for():
    store = EmbeddingStore(limit=9 * 80)
    cells = "abcdefghij"
    assert [ask(store, cells) for _ in range(30)] == [0] + [9] * 29
    assert len(store) == 9
    # Folds of a search: most cells train, the others are predicted.
    assert [ask(store, part) for part in ("abcdefgh", "ij") * 9] == [8, 1] * 9
    store.put(cells[0], np.zeros(1000))  # more than there is room for
    assert len(store) == 8


def test_what_the_last_passes_did_not_use_gives_way():
    store = EmbeddingStore(limit=4 * 80)
    ask(store, "abcd")
    assert [ask(store, "wx") for _ in range(6)] == [0] * 4 + [2] * 2
    assert len(store) == 4
    for i in range(12):  # of unequal size
        store.begin()
        store.put(str(i), np.zeros(30))


def test_two_modalities_share_a_store_that_is_too_small(monkeypatch):
    X_vis, X_aud, y = make_clips(40)
    monkeypatch.setattr(STORE, "limit", 60 * 512)  # of 80
    seen = Seen()
    counts = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it is told once a process
        for _ in range(3):
            seen.images = 0
            FDANClassifier(**FROZEN | {"backbone": seen, "max_epochs": 1}).fit(X_vis, X_aud, y)
            counts.append(seen.images)
    assert counts == [80, 20, 20]


def test_folds_agree_on_coarse_statistics():
    rng = np.random.default_rng(0)
    cells = (-40 + 17 * rng.normal(size=(200, 1, 16, 12))).astype(np.float32)
    specs = [
        array_samples(cells[fold], "audio", "X").spec(coarse=True)
        for fold in np.array_split(rng.permutation(200), 4)
    ]
    assert {(float(s.mean), float(s.std)) for s in specs} == {
        (float(specs[0].mean), float(specs[0].std))
    }
    assert abs(specs[0].mean + 40) <= 17 / 8 + 1
    assert specs[0].std * 1.01 >= 17 / 2**0.125
    assert specs[0].std <= 17 * 2**0.125 * 1.01


def test_the_head_trains_on_one_thread_and_the_backbone_runs_on_all(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    threads = {}

    def note(where):
        threads.setdefault(where, set()).add(torch.get_num_threads())

    original = EmbeddingMixin._compute_embeddings

    def compute(self, *args):
        with self._embedding_threads():
            note("backbone")
        return original(self, *args)

    class Watch(Callback):
        def on_batch_begin(self, net, **kwargs):
            note("head")

    monkeypatch.setattr(EmbeddingMixin, "_compute_embeddings", compute)
    try:
        X_vis, X_aud, y = make_clips(16)
        parameters = FROZEN | {"backbone": "resnet18", "max_epochs": 1, "callbacks": [Watch()]}
        FDANClassifier(**parameters).fit(X_vis, X_aud, y)
        assert threads == {"backbone": {2}, "head": {1}}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("value", [False, True])
def test_numpy_booleans_are_booleans(value, clips):
    X_vis, X_aud, y = clips
    found = []
    for trainable in (value, np.bool_(value)):
        clf = FDANClassifier(**FROZEN | {"backbone_trainable": trainable, "max_epochs": 2})
        found.append(clf.fit(X_vis, X_aud, y).predict_proba(X_aud))
    np.testing.assert_array_equal(*found)
