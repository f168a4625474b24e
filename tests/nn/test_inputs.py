import tracemalloc

import numpy as np
import pytest
import torch

from skfdan.nn import InputNorm, InputSpec
from skfdan.nn.inputs import image_spec, mean_and_std, resize

MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])


def test_bytes_are_scaled_and_normalised_with_imagenets_statistics():
    faces = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 6), dtype=np.uint8)
    out = InputNorm(InputSpec("image", uint8=True))(torch.from_numpy(faces))
    expected = (faces / 255 - MEAN[:, None, None]) / STD[:, None, None]
    assert out.dtype == torch.float32
    assert out.shape == (4, 3, 5, 6)
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-5)


def test_the_statistics_of_the_cells_do_not_touch_bytes():
    faces = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    plain = InputNorm(InputSpec("image", uint8=True))(faces)
    assert torch.equal(InputNorm(InputSpec("image", uint8=True, mean=9.0, std=3.0))(faces), plain)


def test_grey_bytes_become_three_channels_each_with_its_own_statistics():
    faces = torch.randint(0, 256, (2, 1, 4, 5), dtype=torch.uint8)
    out = InputNorm(InputSpec("image", uint8=True))(faces)
    expected = (faces.numpy() / 255 - MEAN[:, None, None]) / STD[:, None, None]
    assert out.shape == (2, 3, 4, 5)
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_floats_are_normalised_with_the_statistics_of_the_cells(dtype):
    mel = torch.randn(3, 1, 6, 7).mul(10).to(dtype)
    out = InputNorm(InputSpec("image", mean=-30.0, std=12.5))(mel)
    assert out.dtype == torch.float32
    assert out.shape == (3, 3, 6, 7)
    expected = (mel.double().numpy() + 30) / 12.5
    np.testing.assert_allclose(out.numpy(), np.repeat(expected, 3, axis=1), atol=1e-5)


def test_loudness_differences_between_clips_stay():
    mel = torch.randn(1, 1, 6, 7).repeat(2, 1, 1, 1)
    mel[1] += 5
    out = InputNorm(InputSpec("image", mean=2.5, std=2.0))(mel)
    torch.testing.assert_close(out[1] - out[0], torch.full((3, 6, 7), 2.5))


def test_float_images_of_three_channels_keep_them():
    images = torch.randn(2, 3, 4, 4)
    out = InputNorm(InputSpec("image", mean=1.0, std=2.0))(images)
    torch.testing.assert_close(out, (images - 1) / 2)


@pytest.mark.parametrize(
    ("spec", "cells"),
    [
        (InputSpec("image", uint8=True), torch.zeros(2, 3, 31, 17, dtype=torch.uint8)),
        (InputSpec("image"), torch.zeros(2, 1, 128, 61)),
    ],
)
def test_sizes(spec, cells):
    assert InputNorm(spec, size=24)(cells).shape == (2, 3, 24, 24)
    assert InputNorm(spec, size=None)(cells).shape == (2, 3, *cells.shape[-2:])


def test_resizing_keeps_flat_images_flat_and_normalises_all_the_same():
    flat = torch.full((1, 3, 40, 24), 51, dtype=torch.uint8)
    for size in (8, 32, 64):
        out = InputNorm(InputSpec("image", uint8=True), size)(flat)
        np.testing.assert_allclose(
            out.numpy(), np.broadcast_to(((0.2 - MEAN) / STD)[:, None, None], out.shape), atol=1e-5
        )


def test_images_of_the_right_size_are_not_touched():
    images = torch.randn(1, 3, 8, 8)
    assert resize(images, 8) is images


def test_shrinking_is_antialiased():
    """Halving weighs four neighbours 1, 3, 3, 1 over 8, a triangle twice as wide as a pixel."""
    rows = torch.randn(16, generator=torch.Generator().manual_seed(0))
    images = rows[None, None, :, None].expand(1, 1, 16, 16)
    out = resize(images, 8)[0, 0]
    for i in range(1, 7):
        expected = rows[2 * i - 1 : 2 * i + 3] @ torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        torch.testing.assert_close(out[i], expected.expand(8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_vectors(dtype):
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=5), rng.uniform(0.5, 2, 5)
    x = torch.from_numpy(rng.normal(size=(4, 5)) * 10).to(dtype)
    out = InputNorm(InputSpec("vector", n_features=5, mean=mean, std=std), size=224)(x)
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out.numpy(), (x.numpy() - mean) / std, rtol=1e-5, atol=1e-5)


def test_statistics_are_buffers_that_a_state_dict_carries():
    spec = InputSpec("vector", n_features=3, mean=np.arange(3.0), std=np.full(3, 2.0))
    norm = InputNorm(spec)
    assert not list(norm.parameters())
    fresh = InputNorm(InputSpec("vector", n_features=3, mean=np.zeros(3), std=np.ones(3)))
    fresh.load_state_dict(norm.state_dict())
    x = torch.randn(2, 3)
    assert torch.equal(fresh(x), norm(x))


def test_the_cells_are_left_alone():
    cells = torch.ones(1, 1, 4, 4)
    InputNorm(InputSpec("image", mean=3.0, std=2.0))(cells)
    assert torch.equal(cells, torch.ones(1, 1, 4, 4))


def test_bytes_may_come_scaled_already():
    faces = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    norm = InputNorm(InputSpec("image", uint8=True))
    assert torch.equal(norm(faces.float() / 255), norm(faces))


@pytest.mark.parametrize("unit", [1e30, 1.0, 1e-11, 1e-13, 1e-30])
@pytest.mark.parametrize("coarse", [False, True])
def test_the_unit_of_floats_does_not_matter(unit, coarse):
    cells = np.random.default_rng(0).normal(3.0, 2.0, size=(5, 1, 6, 7))
    plain, other = image_spec(cells, coarse), image_spec(unit * cells, coarse)
    if not coarse:
        np.testing.assert_allclose([other.mean, other.std], [unit * plain.mean, unit * plain.std])
    normed = InputNorm(other)(torch.from_numpy(unit * cells))
    assert 0.8 < float(normed.std()) < 1.2
    assert abs(float(normed.mean())) < 0.15


@pytest.mark.parametrize("constant", [0.0, 0.1, -7e8, 1e-42])
def test_values_that_are_all_the_same_are_divided_by_one(constant):
    values = np.full((1000, 2), np.float32(constant), dtype=np.float64)
    mean, std = mean_and_std(values)
    np.testing.assert_allclose(mean, values[0], rtol=1e-12)
    assert std.tolist() == [1.0, 1.0]
    assert image_spec(values.astype(np.float32)).std == 1.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_statistics_are_those_of_numpy_and_take_no_copy(dtype):
    values = (40 + 3 * np.random.default_rng(0).normal(size=(50_000, 37))).astype(dtype)
    whole = values.astype(np.float64)
    expected = whole.mean(0), whole.std(0)
    tracemalloc.start()
    found = mean_and_std(values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(found, expected)
    assert peak < whole.nbytes / 2


@pytest.mark.parametrize("value", [1.0, 1e6, 1e-30])
def test_the_smallest_step_of_float32_is_a_difference(value):
    values = np.full((1000, 1), value, dtype=np.float32)
    values[::2] = np.nextafter(np.float32(value), np.float32(np.inf))
    _, std = mean_and_std(values.astype(np.float64))
    assert std[0] == pytest.approx(np.spacing(np.float32(value)) / 2)


@pytest.mark.parametrize("n", [3, 10, 1000])
@pytest.mark.parametrize("value", [0.1, 1e6 / 3, -7e-9])
def test_a_constant_feature_has_no_spread_but_for_rounding(n, value):
    mean, std = mean_and_std(np.full((n, 2), value))
    np.testing.assert_array_equal(std, 1.0)
    norm = InputNorm(InputSpec("vector", False, 2, mean, std))
    moved = norm(torch.full((1, 2), np.float32(value).item()) + 1)
    assert moved.abs().max() <= 2  # and not 1e16


def test_a_spread_below_single_precision_is_none():
    values = np.array([[0.0], [1e-46]])
    norm = InputNorm(InputSpec("vector", False, 1, *mean_and_std(values)))
    assert torch.isfinite(norm(torch.tensor([[1.0]]))).all()
