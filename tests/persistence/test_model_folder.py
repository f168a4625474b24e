"""A folder holds the old model or the new one, whenever the saving stops."""

import os
import shutil

import pytest

from persistence import small_models as small
from skfdan.persistence import ModelError, _folder, load_pretrained, save_pretrained


@pytest.fixture(scope="module")
def models():
    return [small.fdan(max_epochs=n).fit(small.MATRIX, small.Y) for n in (1, 2)]


def test_nothing_else_is_left(models, tmp_path):
    old, new = models
    folder = tmp_path / "a" / "b" / "model"
    assert old.save_pretrained(str(folder)) == folder
    assert new.save_pretrained(folder, overwrite=True) == folder
    assert os.listdir(folder.parent) == ["model"]
    assert sorted(os.listdir(folder)) == ["README.md", "config.json", "model.safetensors"]
    assert len(load_pretrained(folder).history_) == 2


def test_permissions_are_the_usual_ones(models, tmp_path):
    (tmp_path / "usual").mkdir()
    folder = models[0].save_pretrained(tmp_path / "model")
    assert folder.stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_empty_folder_will_do(models, tmp_path, overwrite):
    (tmp_path / "model").mkdir()
    models[0].save_pretrained(tmp_path / "model", overwrite=overwrite)
    assert len(load_pretrained(tmp_path / "model").history_) == 1


def test_an_empty_folder_is_filled_and_stays(models, tmp_path, monkeypatch):
    """It may be where a disk is mounted, or where a shell stands."""
    folder = tmp_path / "model"
    folder.mkdir()
    monkeypatch.chdir(folder)
    number = folder.stat().st_ino
    models[0].save_pretrained(".")
    assert folder.stat().st_ino == number
    assert os.listdir(tmp_path) == ["model"]
    assert sorted(os.listdir()) == ["README.md", "config.json", "model.safetensors"]
    assert len(load_pretrained(".").history_) == 1
    with pytest.raises(FileExistsError, match=r"'\.' is the current folder"):
        models[1].save_pretrained(".", overwrite=True)
    monkeypatch.chdir(tmp_path)
    models[1].save_pretrained(folder, overwrite=True)
    assert len(load_pretrained(folder).history_) == 2


def test_a_crash_while_an_empty_folder_is_filled_leaves_no_half_model(
    models, tmp_path, monkeypatch
):
    folder = tmp_path / "model"
    folder.mkdir()
    with monkeypatch.context() as patch:
        calls = count_steps(patch)
        models[0].save_pretrained(folder)
        n_steps = len(calls)
    whole = 0
    for stop_at in range(n_steps):
        shutil.rmtree(folder)
        folder.mkdir()
        with monkeypatch.context() as patch:
            count_steps(patch, stop_at)
            with pytest.raises(Crash):
                models[0].save_pretrained(folder)
        if (folder / "config.json").exists():
            whole += 1
            assert len(load_pretrained(folder).history_) == 1
        else:
            with pytest.raises(ModelError, match=r"there is no config\.json"):
                load_pretrained(folder)
    assert 0 < whole < n_steps


def test_a_filling_that_fails_takes_back_what_it_gave(models, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    own = os.rename

    def rename(source, target):
        if str(source).endswith("config.json"):
            raise OSError("no")
        own(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(_folder.os, "rename", rename)
        with pytest.raises(OSError, match="no"):
            models[0].save_pretrained(tmp_path / "model")
    assert os.listdir(tmp_path / "model") == []
    models[0].save_pretrained(tmp_path / "model")


def test_a_place_is_tried_without_a_trace(models, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    models[0].save_pretrained(tmp_path / "model")
    before = sorted(tmp_path.rglob("*"))
    for name in ("a/b/model", "empty", "model"):
        _folder.check_place(tmp_path / name)
        assert sorted(tmp_path.rglob("*")) == before
    for name in ("file/model", "file/a/model", "a/" + "b" * 300):
        with pytest.raises(OSError, match=r"file|long"):
            _folder.check_place(tmp_path / name)
        assert sorted(tmp_path.rglob("*")) == before

    def busy(source, target):
        raise OSError(16, "Device or resource busy")

    # As of a folder on which a disk is mounted.
    monkeypatch.setattr(_folder.os, "rename", busy)
    with pytest.raises(OSError, match="busy"):
        _folder.check_place(tmp_path / "model")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_model_is_replaced_only_if_that_is_meant(models, tmp_path):
    models[0].save_pretrained(tmp_path / "model")
    with pytest.raises(FileExistsError, match="not empty; give another folder, or overwrite=True"):
        models[1].save_pretrained(tmp_path / "model")
    assert len(load_pretrained(tmp_path / "model").history_) == 1


@pytest.mark.parametrize("files", [{"notes.txt": "mine"}, {"config.json": '{"other": "model"}'}])
def test_the_files_of_others_stay(models, tmp_path, files):
    folder = tmp_path / "model"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(FileExistsError, match="not only a skfdan model"):
        models[0].save_pretrained(folder, overwrite=True)
    assert {f.name: f.read_text() for f in folder.iterdir()} == files
    shutil.rmtree(folder)
    models[0].save_pretrained(folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"it holds 'notes\.txt'"):
        models[1].save_pretrained(folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_file_is_no_folder(models, tmp_path):
    (tmp_path / "model").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file"):
        models[0].save_pretrained(tmp_path / "model", overwrite=True)


class Crash(BaseException):
    """The machine stops."""


STEPS = ["mkdir", "rename", "fsync", "unlink", "rmdir"]


def count_steps(monkeypatch, stop_at=None):
    """Count the calls that change the file system; from ``stop_at`` on, nothing works."""
    calls = []

    def wrap(name):
        own = getattr(os, name)

        def step(*args, **kwargs):
            calls.append(name)
            if stop_at is not None and len(calls) > stop_at:
                raise Crash
            return own(*args, **kwargs)

        return step

    for name in STEPS:
        monkeypatch.setattr(_folder.os, name, wrap(name))
    return calls


def test_after_a_crash_at_any_step_one_model_is_whole(models, tmp_path, monkeypatch):
    old, new = models
    folder = tmp_path / "model"
    old.save_pretrained(folder)
    with monkeypatch.context() as patch:
        calls = count_steps(patch)
        save_pretrained(new, folder, overwrite=True)
        n_steps = len(calls)
    assert n_steps > 8
    found = []
    for stop_at in range(n_steps):
        shutil.rmtree(tmp_path)
        old.save_pretrained(folder)
        with monkeypatch.context() as patch:
            count_steps(patch, stop_at)
            with pytest.raises(Crash):
                save_pretrained(new, folder, overwrite=True)
        found.append(len(load_pretrained(folder).history_))
        # And the next saving puts all in order, whatever was left.
        with pytest.raises(FileExistsError):
            new.save_pretrained(folder)
        new.save_pretrained(folder, overwrite=True)
        assert len(load_pretrained(folder).history_) == 2
        assert not (tmp_path / ".model.skfdan-old").exists()
    assert found == sorted(found)
    assert {*found} == {1, 2}


def test_a_rename_that_fails_leaves_the_old_model(models, tmp_path, monkeypatch):
    old, new = models
    folder = tmp_path / "model"
    old.save_pretrained(folder)
    own = os.rename

    def rename(source, target):
        if str(source).endswith(".skfdan-new"):
            raise PermissionError("no")
        own(source, target)

    monkeypatch.setattr(_folder.os, "rename", rename)
    with pytest.raises(PermissionError):
        new.save_pretrained(folder, overwrite=True)
    assert os.listdir(tmp_path) == ["model"]
    assert len(load_pretrained(folder).history_) == 1


def test_through_a_link_the_folder_itself_is_replaced(models, tmp_path):
    old, new = models
    old.save_pretrained(tmp_path / "v1")
    (tmp_path / "latest").symlink_to("v1")
    new.save_pretrained(tmp_path / "latest", overwrite=True)
    assert (tmp_path / "latest").is_symlink()
    assert len(load_pretrained(tmp_path / "v1").history_) == 2


def test_what_a_killed_save_left_goes_with_a_later_one(models, tmp_path):
    old, fresh, other = (
        tmp_path / name
        for name in (".model.1.skfdan-new", ".model.2.skfdan-new", ".others.3.skfdan-new")
    )
    for folder in (old, fresh, other):
        folder.mkdir()
        (folder / "model.safetensors").touch()
    for folder in (old, other):
        os.utime(folder, (0, 0))
    models[0].save_pretrained(tmp_path / "model")
    assert not old.exists()
    assert fresh.exists()  # perhaps of a process that is still at it
    assert other.exists()
