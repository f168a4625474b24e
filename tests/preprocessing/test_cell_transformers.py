import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import SkipTestWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks, get_tags
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from skfdan import table
from skfdan.preprocessing import MFCC, FaceFrames, MelSpectrogram


@parametrize_with_checks(
    [
        MelSpectrogram(),
        MFCC(),
        MelSpectrogram(duration=None, trim=30.0, n_mels=8, crop="random", random_state=0),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def checks_of_face_frames():
    # Most checks need a matrix of numbers, and scikit-learn says that it leaves
    # them out; the tests below stand for those that make sense for cells.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)
        return list(estimator_checks_generator(FaceFrames()))


@pytest.mark.parametrize(
    ("estimator", "check"), checks_of_face_frames(), ids=estimator_checks._get_check_estimator_ids
)
def test_scikit_learn_checks_of_face_frames(estimator, check):
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
def test_face_frames_passes_the_checks_that_need_no_matrix(check):
    check("FaceFrames", FaceFrames())


def cells_for(transformer):
    rng = np.random.default_rng(0)
    if isinstance(transformer, FaceFrames):
        return [rng.integers(0, 255, (24, 32, 3)).astype(np.uint8) for _ in range(3)]
    return [rng.standard_normal(4000).astype(np.float32) for _ in range(3)]


ALL = [
    MelSpectrogram(duration=0.5, n_mels=16),
    MFCC(duration=0.5, n_mfcc=8),
    FaceFrames(detector=None, size=16),
]


@pytest.fixture(params=ALL, ids=lambda t: type(t).__name__)
def transformer(request):
    return clone(request.param)


def same(results, expected):
    assert len(results) == len(expected)
    for a, b in zip(results, expected, strict=True):
        if b is None:
            assert a is None
        else:
            np.testing.assert_array_equal(a, b)


def test_every_container_of_cells_gives_the_same(transformer, tmp_path):
    cells = [*cells_for(transformer), None]
    expected = transformer.transform(cells)
    assert expected.shape == (4, 1)
    assert expected.dtype == object
    column = table.as_cells(cells)
    containers = [
        tuple(cells),
        [[cell] for cell in cells],
        column,
        column[:, None],
        pd.Series(column, name="cells"),
        pd.DataFrame({"cells": pd.Series(column)}),
    ]
    for container in containers:
        result = transformer.transform(container)
        assert isinstance(result, np.ndarray)
        assert result.shape == (4, 1)
        same(result[:, 0], expected[:, 0])


@pytest.mark.parametrize(
    "missing",
    [
        [None, None],
        [np.nan, None],
        [pd.NA, np.nan],
        np.array([[None], [None]], dtype=object),
        pd.DataFrame({"audio": [np.nan, np.nan]}),
        pd.DataFrame({"audio": [None, None]}, dtype=object),
        pd.Series([pd.NA, pd.NA], dtype="string"),
    ],
    ids=lambda m: f"{type(m).__name__}",
)
def test_missing_cells_stay_missing(missing, transformer):
    result = transformer.fit_transform(missing)
    assert result.shape == (2, 1)
    assert result.dtype == object
    assert [cell is None for cell in result[:, 0]] == [True, True]


def test_paths_in_a_column_of_strings(write_wav, write_video, moving_frames, sweep):
    wav, video = write_wav("a.wav", sweep(0.2)), write_video("a.mp4", moving_frames(3))
    for transformer, path in ((MelSpectrogram(), wav), (FaceFrames(detector=None), video)):
        expected = transformer.transform([path])[0, 0]
        for column in (
            np.array([str(path)]),
            np.array([[str(path)]]),
            pd.DataFrame({"a": [str(path), None]}, dtype="str"),
            pd.Series([str(path), None], dtype="string"),
            [[str(path)]],
        ):
            np.testing.assert_array_equal(transformer.transform(column)[0, 0], expected)


def test_fit_returns_self_learns_only_the_form_and_changes_nothing(transformer):
    cells = cells_for(transformer)
    frame = pd.DataFrame({"audio": table.as_cells(cells)})
    parameters = transformer.get_params()
    copies = [cell.copy() for cell in cells]
    assert transformer.fit(frame, y=[0, 1, 2]) is transformer
    assert transformer.n_features_in_ == 1
    assert transformer.feature_names_in_.tolist() == ["audio"]
    assert transformer.get_feature_names_out().tolist() == ["audio"]
    assert transformer.get_feature_names_out(["audio"]).tolist() == ["audio"]
    with pytest.raises(ValueError, match="input_features is not equal"):
        transformer.get_feature_names_out(["other"])
    state = dict(vars(transformer))
    result = transformer.transform(frame)
    assert vars(transformer).keys() == state.keys() | {"report_"}
    assert transformer.get_params() == parameters
    same(cells, copies)
    same(transformer.fit_transform(frame, [0, 1, 2])[:, 0], result[:, 0])
    same(clone(transformer).transform(frame)[:, 0], result[:, 0])
    same(pickle.loads(pickle.dumps(transformer)).transform(frame)[:, 0], result[:, 0])


def test_transform_without_fit_leaves_nothing_but_the_report(transformer):
    frame = pd.DataFrame({"audio": table.as_cells(cells_for(transformer))})
    transformer.transform(frame)
    assert vars(transformer).keys() == transformer.get_params().keys() | {"report_"}
    assert not get_tags(transformer).requires_fit


def test_columns_have_to_be_those_of_fit(transformer):
    column = table.as_cells(cells_for(transformer))
    transformer.fit(pd.DataFrame({"audio": column}))
    with pytest.raises(ValueError, match="feature names should match"):
        transformer.transform(pd.DataFrame({"voice": column}))
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        transformer.transform(column)


def test_several_columns_are_refused(transformer):
    name = type(transformer).__name__
    two = table.make_table(audio=["a.wav", None], visual=[None, "a.mp4"])
    message = rf"{name} takes one column.*got 2 columns.*ColumnTransformer"
    for X in (two, two.to_numpy(), two.to_numpy().tolist()):
        for method in (transformer.fit, transformer.transform, transformer.fit_transform):
            with pytest.raises(ValueError, match=message):
                method(X)


def test_what_is_no_column_is_refused(transformer):
    with pytest.raises(ValueError, match=r"'a\.wav' is a single path; give a list"):
        transformer.fit("a.wav")
    with pytest.raises(ValueError, match="0 sample"):
        transformer.fit([])
    with pytest.raises(ValueError, match="0 sample"):
        transformer.fit(pd.DataFrame({"audio": []}, dtype=object))
    for numbers in (np.zeros(5), [0.5, 1.5]):
        with pytest.raises(ValueError, match="Reshape your data"):
            transformer.fit(numbers)


def test_face_frames_takes_no_matrix_but_a_stack():
    faces = FaceFrames(detector=None, size=8)
    for matrix in (np.zeros((4, 5)), pd.DataFrame({"a": [1.0], "b": [2.0]}), np.zeros((4, 5, 3))):
        with pytest.raises(ValueError, match=r"one column of cells.*not numbers"):
            faces.fit(matrix)
    stack = np.random.default_rng(0).integers(0, 255, (4, 3, 10, 12)).astype(np.uint8)
    same(faces.transform(stack)[:, 0], faces.transform(list(stack))[:, 0])


def test_cells_and_matrix_do_not_mix():
    mel = MelSpectrogram(n_mels=8).fit(np.zeros((2, 400)))
    with pytest.raises(ValueError, match="1 features, but MelSpectrogram is expecting 400"):
        mel.transform([None])
    mel.fit([None])
    with pytest.raises(ValueError, match="400 features, but MelSpectrogram is expecting 1"):
        mel.transform(np.zeros((2, 400)))


def test_pandas_output_has_the_name_and_the_index(transformer):
    cells = [*cells_for(transformer), None]
    frame = pd.DataFrame({"audio": table.as_cells(cells)}, index=[7, 5, 3, 1])
    expected = transformer.fit_transform(frame)
    transformer.set_output(transform="pandas")
    for result in (transformer.fit_transform(frame), transformer.transform(frame)):
        assert isinstance(result, pd.DataFrame)
        assert result.columns.tolist() == ["audio"]
        assert result.index.tolist() == [7, 5, 3, 1]
        assert result["audio"].dtype == object
        same(result["audio"].tolist(), expected[:, 0])


def test_pandas_output_of_a_matrix():
    mel = MelSpectrogram(n_mels=4).set_output(transform="pandas")
    frame = pd.DataFrame(np.ones((2, 600)), columns=[f"s{i}" for i in range(600)])
    result = mel.fit_transform(frame)
    assert result.shape == (2, 12)
    assert result.columns[:4].tolist() == [
        "mel0_frame0",
        "mel0_frame1",
        "mel0_frame2",
        "mel1_frame0",
    ]


@pytest.mark.parametrize("output", ["default", "pandas"])
def test_column_transformer_in_a_pipeline(output):
    faces, sounds = cells_for(ALL[2]), cells_for(ALL[0])
    rows = table.make_table(visual=[faces[0], None, faces[2]], audio=[None, *sounds[1:]])
    columns = ColumnTransformer(
        [("visual", clone(ALL[2]), ["visual"]), ("audio", clone(ALL[0]), ["audio"])],
        verbose_feature_names_out=False,
    )
    pipe = make_pipeline(columns, FunctionTransformer()).set_output(transform=output)
    pipe.fit(rows)
    result = clone(pipe).fit_transform(rows)
    again = pickle.loads(pickle.dumps(pipe)).transform(rows)
    for out in (result, again):
        assert out.shape == (3, 2)
        if output == "pandas":
            assert out.columns.tolist() == ["visual", "audio"]
            out = out.to_numpy()
        assert out.dtype == object
        same(out[:, 0], [ALL[2].transform([faces[0]])[0, 0], None, ALL[2].transform(faces)[2, 0]])
        same(out[1:, 1], ALL[0].transform(sounds[1:])[:, 0])
        assert out[0, 1] is None
    # At prediction a table without faces still has the column.
    heard = pipe.transform(table.make_table(audio=sounds))
    assert np.asarray(heard)[:, 0].tolist() == [None] * 3


def test_threads_give_the_same(transformer):
    cells = [*cells_for(transformer), None] * 3
    expected = transformer.transform(cells)[:, 0]
    same(transformer.set_params(n_jobs=3).transform(cells)[:, 0], expected)


def test_unexpected_error_of_a_detector_names_the_row():
    def broken(image):
        raise ZeroDivisionError("broken")

    with pytest.raises(ZeroDivisionError) as caught:
        FaceFrames(detector=broken).transform([None, np.zeros((9, 9, 3), np.uint8)])
    assert "row 1 (array of shape (9, 9, 3), uint8)" in caught.value.__notes__[0]


def test_import_is_light_and_librosa_is_not_needed(write_wav, sweep):
    path = write_wav("a.wav", sweep(0.2, 22050), 22050)
    heavy = ["av", "cv2", "filelock", "PIL", "scipy.signal", "skimage", "soundfile", "soxr"]
    heavy += ["torchaudio", "torchvision"]
    code = (
        "import sys\n"
        "sys.modules['librosa'] = sys.modules['numba'] = None\n"
        "from skfdan.preprocessing import MFCC, MelSpectrogram\n"
        f"loaded = [m for m in {heavy} if m in sys.modules]\n"
        "assert not loaded, loaded\n"
        f"MelSpectrogram().transform([{str(path)!r}]), MFCC().transform([{str(path)!r}])"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
