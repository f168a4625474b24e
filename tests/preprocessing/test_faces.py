import importlib
import sys
import types
import warnings

import numpy as np
import pytest
from PIL import Image

from skfdan.preprocessing import FaceFrames, MediaError, faces
from skfdan.preprocessing.faces import _best_box, _import_opencv4, crop_square
from skfdan.preprocessing.media import read_frames


def one(transformer, cell):
    return transformer.transform([cell])[0, 0]


def box_of_bright(image):
    """A detector: the box of what is brighter than 200, if anything is."""
    rows, columns = np.nonzero(image.min(axis=2) > 200)
    if not len(rows):
        return None
    return columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1


def bright_square(left, top, side=20, height=60, width=80):
    image = np.zeros((height, width, 3), np.uint8)
    image[top : top + side, left : left + side] = 255
    return image


@pytest.mark.parametrize("n_frames", [1, 3, 4])
def test_shapes_of_all_kinds_of_cells(n_frames, tmp_path, write_video, moving_frames):
    frames = moving_frames(10)
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{i}.png")
    stack = np.stack(frames)
    faces = FaceFrames(n_frames=n_frames, size=16, detector=None)
    clips = [write_video("a.mp4", frames), folder, str(folder), stack]
    clips += [stack[..., :1], stack.transpose(0, 3, 1, 2), stack[:1]]
    for clip in clips:
        crops = one(faces, clip)
        assert crops.shape == (n_frames, 3, 16, 16)
        assert crops.dtype == np.uint8
        assert crops.flags.c_contiguous
    pictures = [folder / "3.png", frames[3], frames[3].transpose(2, 0, 1)]
    crops = [one(faces, picture) for picture in pictures]
    for crop in crops:
        assert crop.shape == (3, 16, 16)
        np.testing.assert_array_equal(crop, crops[0])
    grey = frames[3][..., 0]
    for picture in (grey, grey[..., None], grey[None]):
        np.testing.assert_array_equal(one(faces, picture), one(faces, np.dstack([grey] * 3)))


def test_frames_of_stack_folder_and_video_are_the_middles_of_equal_parts(tmp_path):
    stack = np.stack([np.full((8, 8, 3), i, np.uint8) for i in range(90)])
    for i, frame in enumerate(stack):
        Image.fromarray(frame).save(tmp_path / f"{i}.png")
    faces = FaceFrames(detector=None, size=4)
    for cell in (stack, tmp_path):
        assert one(faces, cell)[:, 0, 0, 0].tolist() == [15, 45, 75]


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (np.zeros((8, 8, 3)), "is no picture.*uint8"),
        (np.zeros((8, 8, 3), np.int64), "is no picture"),
        (np.zeros((3, 9, 3), np.uint8), "channels first or last"),
        (np.zeros((5, 3, 9, 3), np.uint8), "channels first or last"),
        (np.zeros((5, 9, 9), np.uint8), "no axis of 1 or 3 channels"),
        (np.zeros((9, 9, 4), np.uint8), "no axis of 1 or 3 channels"),
        (np.zeros((2, 2, 9, 9, 3), np.uint8), "not the shape of a picture"),
        (np.zeros(9, np.uint8), "not the shape of a picture"),
        (np.zeros((0, 9, 9, 3), np.uint8), "not the shape of a picture"),
        (np.zeros((0, 9), np.uint8), "not the shape of a picture"),
        ((1, 2), "is no picture"),
        (3.5, "is no picture"),
    ],
    ids=str,
)
def test_arrays_that_are_no_pictures(cell, words):
    with pytest.raises(MediaError, match=rf"row 1 \(.*{words}"):
        FaceFrames(detector=None).transform([None, cell])


def test_box_is_cropped_square_with_margin():
    image = bright_square(30, 20)
    tight = one(FaceFrames(detector=box_of_bright, margin=0, size=20), image)
    assert (tight == 255).all()
    wide = one(FaceFrames(detector=box_of_bright, margin=0.5, size=40), image)
    np.testing.assert_array_equal(wide, image[10:50, 20:60].transpose(2, 0, 1))
    # A box that is not square is widened along its shorter side.
    flat = one(FaceFrames(detector=lambda _: (30, 25, 20, 10), margin=0, size=20), image)
    np.testing.assert_array_equal(flat, tight)


def test_crop_beyond_the_border_repeats_the_border():
    image = np.arange(60 * 80, dtype=np.uint8).reshape(60, 80, 1).repeat(3, 2)
    for left, top in ((-10, -10), (70, 50), (-10, 50), (30, -15)):
        crop = crop_square(image, (left, top, 20, 20), size=20)
        padded = np.pad(image, ((30, 30), (30, 30), (0, 0)), mode="edge")
        expected = padded[top + 30 : top + 50, left + 30 : left + 50]
        np.testing.assert_array_equal(crop, expected.transpose(2, 0, 1))
    with pytest.raises(ValueError, match="outside the picture of 80 x 60"):
        crop_square(image, (100, 0, 20, 20), size=20)


def test_reduction_is_antialiased():
    stripes = np.zeros((200, 200, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = crop_square(stripes, (0, 0, 200, 200), size=20)
    assert crop.min() > 100
    assert crop.max() < 155


def test_largest_and_most_central_face_wins():
    image = np.zeros((100, 200, 3), np.uint8)
    small_central, large_central = (90, 40, 20, 20), (60, 10, 80, 80)
    same_size_at_border = (0, 0, 22, 22)
    assert _best_box(np.array([small_central, large_central]), image) == large_central
    assert _best_box([same_size_at_border, small_central], image) == small_central
    assert _best_box(None, image) is None
    assert _best_box(np.empty((0, 4)), image) is None
    assert _best_box(small_central, image) == small_central
    for wrong in ((1, 2, 3), [(1, 2, 0, 5)], np.zeros((2, 2, 4))):
        with pytest.raises(ValueError, match=r"must return \(x, y, width, height\)"):
            _best_box(wrong, image)


def test_frame_without_a_face_takes_the_nearest_box():
    black = np.zeros((60, 80, 3), np.uint8)
    clip = np.stack([bright_square(0, 0), black, black, bright_square(50, 30)])
    clip[1, 0:20, 0:20] = 100  # too dark to be found
    clip[2, 30:50, 50:70] = 100
    crops = one(FaceFrames(n_frames=4, detector=box_of_bright, margin=0, size=20), clip)
    assert [int(crop.mean()) for crop in crops] == [255, 100, 100, 255]


def test_detector_sees_only_the_frames_that_are_used(write_video, moving_frames):
    seen = []

    def detector(image):
        seen.append(image)
        return 0, 0, 10, 10

    path = write_video("a.mp4", moving_frames(30))
    one(FaceFrames(detector=detector), path)
    assert len(seen) == 3
    for image, frame in zip(seen, read_frames(path, indices=[5, 15, 25]), strict=True):
        np.testing.assert_array_equal(image, frame)


def test_no_face(write_video, moving_frames):
    path = write_video("a.mp4", moving_frames(3))
    cells = [bright_square(30, 20), path, None, np.zeros((60, 80, 3), np.uint8)]
    faces = FaceFrames(detector=box_of_bright, size=20)
    with pytest.warns(UserWarning, match=r"no face was found in 2 of 4 rows") as caught:
        crops = faces.transform(cells)[:, 0]
    assert len(caught) == 1
    message = str(caught[0].message)
    assert f"row 1 ({path})" in message
    assert "row 3 (array of shape (60, 80, 3), uint8)" in message
    assert [crop is None for crop in crops] == [False, True, True, True]

    with pytest.raises(MediaError, match=r"row 1 \(.*a\.mp4\): no face was found"):
        faces.set_params(on_no_face="raise").transform(cells)

    centred = faces.set_params(on_no_face="center").transform(cells)[:, 0]
    plain = FaceFrames(detector=None, size=20).transform(cells)[:, 0]
    np.testing.assert_array_equal(centred[0], crops[0])
    for row in (1, 3):
        np.testing.assert_array_equal(centred[row], plain[row])


def test_many_clips_without_a_face_are_counted():
    cells = [np.zeros((60, 80, 3), np.uint8)] * 5
    with pytest.warns(UserWarning, match=r"5 of 5 rows.*row 2 \(.*\) and 2 more"):
        FaceFrames(detector=box_of_bright).transform(cells)


def overlap(box, other):
    """Intersection over union of two boxes (x, y, width, height)."""
    (x, y, w, h), (u, v, k, m) = box, other
    shared = max(0, min(x + w, u + k) - max(x, u)) * max(0, min(y + h, v + m) - max(y, v))
    return shared / (w * h + k * m - shared)


# Where the face of the photograph is.
FACE = np.array([174, 70, 102, 102])


@pytest.mark.parametrize("scale", [0.5, 1, 2, 4])
def test_default_detector_finds_a_face_at_several_sizes(scale, face):
    picture = np.asarray(Image.fromarray(face).resize((int(512 * scale),) * 2))
    assert overlap(FaceFrames()._find(picture), FACE * scale) > 0.6


@pytest.mark.parametrize(
    ("side", "windows"),
    [(2048, [(320, 64)]), (1024, [(320, 64), (320, 40)]), (512, [(320, 64), (320, 40), (640, 40)])],
)
def test_smaller_faces_are_looked_for_only_where_there_are_no_larger(
    side, windows, face, monkeypatch
):
    asked, boxes_of = [], faces._lbp_boxes

    def spy(grey, min_size):
        asked.append((max(grey.shape), min_size))
        return boxes_of(grey, min_size)

    monkeypatch.setattr(faces, "_lbp_boxes", spy)
    scene = np.full((720, 1280, 3), 90, np.uint8)
    corner = np.asarray(Image.fromarray(face).resize((side, side)))[:720, :1280]
    scene[: len(corner), : corner.shape[1]] = corner
    assert FaceFrames()._find(scene) is not None
    assert asked == windows


def test_small_picture_is_searched_once(monkeypatch):
    asked = []
    monkeypatch.setattr(faces, "_lbp_boxes", lambda grey, min_size: asked.append(min_size) or [])
    assert FaceFrames()._find(np.zeros((48, 48, 3), np.uint8)) is None
    assert asked == [24]


def test_small_face_is_found_in_the_last_round(face):
    scene = np.full((720, 1280, 3), 90, np.uint8)
    scene[100:356, 700:956] = np.asarray(Image.fromarray(face).resize((256, 256)))
    # 51 of 1,280 pixels are too small; twice that is not.
    with pytest.warns(UserWarning, match="no face"):
        assert one(FaceFrames(), scene) is None
    scene[100:612, 700:1212] = face
    assert overlap(FaceFrames()._find(scene), FACE + np.array([700, 100, 0, 0])) > 0.6


def test_threads_find_the_same_faces(face):
    rng = np.random.default_rng(0)
    cells = [np.roll(face, int(s), axis=1) for s in rng.integers(-150, 150, 8)]
    alone = FaceFrames(size=32).transform(cells)[:, 0]
    together = FaceFrames(size=32, n_jobs=4).transform(cells)[:, 0]
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)


def test_haar_without_opencv_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r'pip install "skfdan\[opencv\]"'):
        FaceFrames(detector="haar").fit([None])
    newer = types.ModuleType("cv2")
    newer.__version__ = "5.0.0"
    monkeypatch.setitem(sys.modules, "cv2", newer)
    with pytest.raises(ImportError, match=r"OpenCV 5\.0\.0 is here, which has no Haar"):
        FaceFrames(detector="haar").transform([None])


def test_haar(face):
    if importlib.util.find_spec("cv2") is None:
        pytest.skip("needs OpenCV 4 (the extra opencv)")
    _import_opencv4()
    for scale in (1, 3):
        picture = np.asarray(Image.fromarray(face).resize((512 * scale,) * 2))
        assert overlap(FaceFrames(detector="haar")._find(picture), FACE * scale) > 0.6
    assert one(FaceFrames(detector="haar"), face).shape == (3, 112, 112)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"n_frames": 0}, "n_frames=0"),
        ({"size": 0}, "size=0"),
        ({"margin": -0.5}, "margin=-0.5"),
        ({"on_no_face": "skip"}, "on_no_face"),
        ({"detector": "mtcnn"}, "detector"),
    ],
    ids=str,
)
def test_impossible_parameters(parameters, words):
    for method in ("fit", "transform"):
        with pytest.raises(ValueError, match=words):
            getattr(FaceFrames(**parameters), method)([None])


@pytest.mark.slow
def test_real_clips(real_data):
    """Every clip has a face, in about the same place of all three frames."""
    clips = sorted((real_data / "clips").glob("*.mp4"))
    assert len(clips) == 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crops = FaceFrames(n_frames=3, margin=0).fit_transform(clips)[:, 0]
    for path, crop in zip(clips, crops, strict=True):
        assert crop.shape == (3, 3, 112, 112)
        # Skin is redder than the green cloth behind; a wrong box would show cloth.
        red, green = crop[:, 0].astype(int), crop[:, 1].astype(int)
        assert (red > green)[:, 28:84, 28:84].mean() > 0.9, path.name
        for frame, image in zip(crop, read_frames(path, 3), strict=True):
            centre = crop_square(image, (660, 330, 570, 570), size=112)
            assert np.corrcoef(frame.ravel(), centre.ravel())[0, 1] > 0.3, path.name


def test_the_longer_side_of_a_box_makes_the_square():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    for box in ((30, 10, 20, 40), (20, 20, 40, 20)):  # upright and lying; centre (40, 30)
        whole = image[10:50, 20:60].transpose(2, 0, 1)
        np.testing.assert_array_equal(crop_square(image, box, size=40), whole)


def test_the_centre_in_place_of_a_face_has_no_margin():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    faces = FaceFrames(
        detector=lambda image: None, on_no_face="center", margin=0.25, size=40, verbose=0
    )
    got = faces.transform([image])[0, 0]
    np.testing.assert_array_equal(got, image[:, 10:50].transpose(2, 0, 1))
