import os
import stat

import pytest

from tailorbird.data.storage import atomic_folder, cache_folder, write_atomic
from tailorbird.errors import InputError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_cache_is_in_tailorbird_home_if_that_is_set(tmp_path, monkeypatch):
    monkeypatch.setenv("TAILORBIRD_HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home"
    assert cache_folder().is_dir()


def test_the_cache_is_in_the_users_cache_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("TAILORBIRD_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tailorbird"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "tailorbird"


def test_a_file_is_written_with_its_folders_and_replaced_whole(tmp_path):
    path = tmp_path / "a" / "b" / "file.bin"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["file.bin"]


def test_a_file_that_cannot_be_put_in_place_leaves_the_old_state(tmp_path, monkeypatch):
    path = tmp_path / "file.bin"
    write_atomic(path, b"old")

    def full(_handle):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file.bin"]


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
def test_a_written_file_has_the_permissions_of_any_other(tmp_path):
    write_atomic(tmp_path / "ours", b"")
    (tmp_path / "any").write_bytes(b"")
    ours, usual = ((tmp_path / name).stat().st_mode for name in ("ours", "any"))
    assert stat.S_IMODE(ours) == stat.S_IMODE(usual)


def test_a_folder_appears_only_when_it_is_complete(tmp_path):
    with atomic_folder(tmp_path / "models" / "mine") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "part").write_text("x")
        assert not (tmp_path / "models" / "mine").exists()
    assert (tmp_path / "models" / "mine" / "inner" / "part").read_text() == "x"
    assert names(tmp_path / "models") == ["mine"]


def test_a_folder_whose_writing_fails_vanishes(tmp_path):
    with pytest.raises(IsADirectoryError), atomic_folder(tmp_path / "mine") as folder:
        folder.write_text("x")
    assert names(tmp_path) == []


def test_a_folder_that_exists_is_replaced_only_on_request(tmp_path):
    with atomic_folder(tmp_path / "mine") as folder:
        (folder / "old").write_text("x")
    with (
        pytest.raises(InputError, match=r"mine already exists\. Choose another name"),
        atomic_folder(tmp_path / "mine"),
    ):
        pass
    with atomic_folder(tmp_path / "mine", replace=True) as folder:
        (folder / "new").write_text("x")
    assert names(tmp_path / "mine") == ["new"]
    assert names(tmp_path) == ["mine"]


def test_a_replacement_that_fails_leaves_the_old_folder(tmp_path):
    with atomic_folder(tmp_path / "mine") as folder:
        (folder / "old").write_text("x")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "mine", replace=True):
        raise RuntimeError
    assert names(tmp_path / "mine") == ["old"]
    assert names(tmp_path) == ["mine"]
