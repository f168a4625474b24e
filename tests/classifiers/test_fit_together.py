import numpy as np
import pytest
import torch
from sklearn.base import clone

from classifiers.small_clips import QUICK, make_clips
from skfdan import FDANClassifier, stack_modalities
from skfdan.classifiers import MISAClassifier
from skfdan.classifiers._stacked import NotStackable, fit_together, obstacle
from skfdan.classifiers._training import DivergenceError
from skfdan.preprocessing import FaceFrames, MelSpectrogram

SMALL = {
    "bottleneck": 8,
    "max_epochs": 4,
    "batch_size": 8,
    "lr": 0.02,
    "momentum": 0.9,
    "random_state": 0,
    "verbose": 0,
}
#: What the candidates of most tests differ in.
DIFFERENT = [
    {"alpha": 1e-3, "weight_decay": 1e-3},
    {"alpha": 1.0, "lr": 0.005},
    {"alpha": 0, "momentum": 0.5, "lr_schedule": "constant"},
]


def vectors(n_audio=21, n_visual=30):
    """Unpaired vectors of two lengths, whose classes differ in the mean."""
    rng = np.random.default_rng(0)
    parts = {}
    for m, n, d in (("visual", n_visual, 7), ("audio", n_audio, 5)):
        y = np.arange(n) % 3
        cells = (rng.normal(size=(n, d)) + 2 * np.eye(3, d)[y]).astype(np.float32)
        parts[m] = list(cells), y, np.arange(n)
    return stack_modalities(**parts)[:2]


def fits(candidates, X, y, **parameters):
    """Fit candidates together and one at a time."""
    base = FDANClassifier(**SMALL | parameters)
    together = [clone(base).set_params(**c) for c in candidates]
    errors = fit_together(together, X, y)
    alone = [clone(c) for c in together]
    for c, error in zip(alone, errors, strict=True):
        if error is None:
            c.fit(X, y)
    return together, alone, errors


def assert_same_fits(together, alone, X, steps=1e-4):
    for c, expected in zip(together, alone, strict=True):
        assert set(vars(c)) == set(vars(expected))
        for (name, p), q in zip(
            c.module_.state_dict().items(), expected.module_.state_dict().values(), strict=True
        ):
            scale = q.abs().max().item() or 1.0
            torch.testing.assert_close(p, q, rtol=0, atol=steps * scale, msg=name)
        for p, q in zip(c.module_.parameters(), expected.module_.parameters(), strict=True):
            state, other = c.optimizer_.state.get(p, {}), expected.optimizer_.state.get(q, {})
            assert state.keys() == other.keys()
            for key, value in other.items():
                torch.testing.assert_close(state[key], value, rtol=1e-3, atol=1e-4)
        (group,), (other,) = c.optimizer_.param_groups, expected.optimizer_.param_groups
        own = {k: v for k, v in group.items() if k != "params"}
        assert own == {k: other[k] for k in own}
        assert c.reference_bank_.keys() == expected.reference_bank_.keys()
        for m, bank in expected.reference_bank_.items():
            np.testing.assert_allclose(c.reference_bank_[m], bank, atol=1e-4)
        for row, other in zip(c.history_, expected.history_, strict=True):
            assert row.keys() == other.keys()
            own = {k: v for k, v in row.items() if k not in ("dur", "batches")}
            assert own == pytest.approx({k: other[k] for k in own}, rel=1e-4, abs=1e-5)
        np.testing.assert_array_equal(c.class_count_, expected.class_count_)
        np.testing.assert_array_equal(c.predict(X), expected.predict(X))
        np.testing.assert_allclose(c.predict_proba(X), expected.predict_proba(X), atol=1e-4)
        # What the fits draw from then on.
        assert c._random_state.randint(2**31) == expected._random_state.randint(2**31)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"n_layers": 0, "lmmd_normalize": True},
        {"n_layers": 2, "n_heads": 2, "ramp": "dsan"},
        {"dropout": 0.3, "ffn_dim": 5},
        {"class_weight": "balanced", "adaptation": "mmd"},
        {"adaptation": None, "batch_size": 4},
    ],
)
def test_fits_are_those_of_one_at_a_time(parameters):
    X, y = vectors()
    together, alone, errors = fits(DIFFERENT, X, y, **parameters)
    assert errors == [None] * 3
    assert_same_fits(together, alone, X[30:])


def test_whatever_may_differ():
    X, y = vectors()
    candidates = [
        {"optimizer": torch.optim.Adam, "lr": 1e-3},
        {"optimizer": torch.optim.AdamW, "lr": 1e-3, "optimizer_params": {"betas": (0.5, 0.9)}},
        {"optimizer_params": {"nesterov": True}, "bank_size": 6},
        {"ramp": "dsan", "inference": "bypass"},
    ]
    together, alone, errors = fits(candidates, X, y)
    assert errors == [None] * 4
    assert_same_fits(together, alone, X[30:], steps=1e-3)  # Adam divides by small numbers


def test_one_modality_alone():
    X, y = vectors()
    X, y = np.stack(list(X["audio"][30:])), y[30:]
    together, alone, errors = fits(DIFFERENT, X, y, n_layers=2)
    assert errors == [None] * 3
    assert_same_fits(together, alone, X)


def test_voices_without_labels():
    X, y = vectors()
    y = y.astype(object)
    y[30::2] = None
    together, alone, errors = fits(DIFFERENT, X, y, adaptation="mmd", class_weight={0: 2.0})
    assert errors == [None] * 3
    assert_same_fits(together, alone, X[30:])


def test_frozen_backbones_are_shared():
    X_vis, X_aud, y = make_clips(16)
    X, y, _ = stack_modalities(visual=(list(X_vis), y, y), audio=(list(X_aud), y, y))
    parameters = QUICK | {"max_epochs": 2, "backbone_trainable": False}
    together, alone, errors = fits(DIFFERENT, X, y, **parameters)
    assert errors == [None] * 3
    assert_same_fits(together, alone, X[16:])
    assert len({id(c.module_.backbones["audio"]) for c in together}) == 1


def test_frames_of_files(tmp_path):
    from skfdan.datasets import make_emotion_clips

    clips = make_emotion_clips(7, 3, root=tmp_path, random_state=0, duration=0.6)
    parameters = QUICK | {
        "max_epochs": 2,
        "backbone_trainable": False,
        "input_size": 32,
        "audio_transformer": MelSpectrogram(duration=0.5, n_mels=32, timeout=None, n_jobs=1),
        "visual_transformer": FaceFrames(
            n_frames=2, size=32, detector=None, timeout=None, n_jobs=1
        ),
    }
    together, alone, errors = fits(DIFFERENT[:2], clips.table, clips.target, **parameters)
    assert errors == [None] * 2
    assert_same_fits(together, alone, clips.table)


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_candidate_that_fails_spoils_no_other(bad):
    X, y = vectors()
    for wrong in (
        {"lr": 1e20},
        {"alpha": -1.0},
        {"optimizer_params": {"nesterov": True, "dampening": 0.5}},
    ):
        candidates = [*DIFFERENT[:2]]
        candidates.insert(bad, wrong)
        together, alone, errors = fits(candidates, X, y)
        error = errors.pop(bad)
        assert errors == [None] * 2
        failed, clone_of_it = together.pop(bad), alone.pop(bad)
        with pytest.raises(type(error)) as ordinary:
            clone_of_it.fit(X, y)
        # Up to the file, row, epoch and batch.
        assert str(error) == str(ordinary.value)
        assert not failed.__sklearn_is_fitted__()
        assert_same_fits(together, alone, X[30:])


def test_all_may_fail():
    X, y = vectors()
    _, _, errors = fits([{"lr": 1e20}, {"lr": 1e25}], X, y)
    assert [type(e) for e in errors] == [DivergenceError] * 2
    _, _, errors = fits([{}, {}], X, [0] * len(y))
    assert all("at least two classes" in str(e) for e in errors)


def test_weights_that_overflow_in_the_last_step_are_noticed():
    # The loss of the only batch is fine; what its step leaves is not.
    X, y = vectors(8, 8)
    parameters = {"max_epochs": 1, "weight_decay": 1e30, "lr": 1e30}
    _, _, (error, fine) = fits([parameters, {"max_epochs": 1}], X, y)
    assert fine is None
    with pytest.raises(DivergenceError, match="after epoch 1 the weights") as ordinary:
        FDANClassifier(**SMALL | parameters).fit(X, y)
    assert str(error) == str(ordinary.value)


def test_backbones_to_be_trained_are_refused():
    X_vis, X_aud, y = make_clips(16)
    X, y, _ = stack_modalities(visual=(list(X_vis), y, y), audio=(list(X_aud), y, y))
    for trainable in (True, "block3"):
        clf = FDANClassifier(**QUICK | {"backbone_trainable": trainable})
        with pytest.raises(NotStackable, match="would be trained"):
            fit_together([clf, clone(clf)], X, y)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"variant": "official"}, "variant='official'"),
        ({"adaptation": "coral"}, "adaptation='coral'"),
        ({"random_state": None}, "random_state=None"),
        ({"optimizer": torch.optim.RMSprop}, "optimizer=RMSprop"),
        ({"early_stopping": True}, "early_stopping"),
        ({"callbacks": [("none", None)]}, "callbacks"),
        ({"checkpoint_dir": "somewhere"}, "checkpoint_dir"),
        ({"shared_bottleneck": True}, "shared_bottleneck"),
    ],
)
def test_what_no_stack_can_do(parameters, reason):
    clf = FDANClassifier(**SMALL)
    assert obstacle(clf) is None
    assert reason in obstacle(clf.set_params(**parameters))


def test_no_other_classifier_is_stacked():
    class Own(FDANClassifier):
        """May do anything."""

    assert "MISAClassifier" in obstacle(MISAClassifier(random_state=0))
    assert "Own" in obstacle(Own(random_state=0))


def test_the_threads_and_the_generator_stay_as_they_were():
    X, y = vectors()
    before = torch.get_num_threads()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    fits(DIFFERENT[:2], X, y, dropout=0.2)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == before
