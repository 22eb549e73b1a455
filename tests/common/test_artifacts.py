import errno
import os
from pathlib import Path

import pandas as pd
import pytest

from lesions.common.artifacts import (
    atomic_write,
    check_file,
    check_folder,
    note_file,
    write_csv,
    write_json,
)
from lesions.common.errors import LesionsError
from lesions.common.user_cache import user_cache


@pytest.mark.parametrize("folder", [False, True])
def test_the_old_one_stays_until_the_new_one_is_whole(tmp_path: Path, folder: bool) -> None:
    path = tmp_path / "there"

    def write(text: str, fail: bool) -> None:
        with atomic_write(path, folder) as partial:
            (partial / "file" if folder else partial).write_text(text)
            if fail:
                raise KeyboardInterrupt

    def read() -> str:
        return (path / "file" if folder else path).read_text()

    with pytest.raises(KeyboardInterrupt):
        write("first", fail=True)
    assert list(tmp_path.iterdir()) == []
    write("second", fail=False)
    with pytest.raises(KeyboardInterrupt):
        write("third", fail=True)
    assert read() == "second"
    write("fourth", fail=False)
    assert read() == "fourth"
    assert [one.name for one in tmp_path.iterdir()] == ["there"]


def test_a_folder_never_gives_way_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "there" / "deep").mkdir(parents=True)
    with pytest.raises(LesionsError, match=r"there: is a folder\. Give the name"):
        write_csv(tmp_path / "there", pd.DataFrame({"a": [1]}))
    assert (tmp_path / "there" / "deep").is_dir()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EFBIG, "a limit was reached after 0 MB of it"),
        (errno.EDQUOT, "a limit was reached after 0 MB of it"),
        (errno.EROFS, "cannot be written"),
    ],
)
def test_a_disk_that_refuses_is_explained(tmp_path: Path, number: int, words: str) -> None:
    def write() -> None:
        with atomic_write(tmp_path / "there") as partial:
            partial.write_text("half")
            raise OSError(number, "refused")

    with pytest.raises(LesionsError, match=rf"there: {words}"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_of_the_user_is_never_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "mine.jpg").write_text("precious")

    def write() -> None:
        with atomic_write(folder, folder=True) as partial:
            (partial / "ours.csv").write_text("a")

    with pytest.raises(LesionsError, match=r"raw: has 1 files .*deep/mine\.jpg for one"):
        write()
    assert (folder / "deep" / "mine.jpg").read_text() == "precious"
    (folder / "deep" / "mine.jpg").unlink()
    write()
    assert (folder / "files.txt").read_text().endswith(" ours.csv\n")
    write()  # what this project has written may be replaced
    (folder / "ours.csv").write_text("edited")
    with pytest.raises(LesionsError, match=r"ours\.csv for one"):
        write()
    (folder / "ours.csv").write_text("a")
    (folder / "notes.txt").write_text("precious")
    with pytest.raises(LesionsError, match=r"notes\.txt for one"):
        write()
    (folder / "notes.txt").unlink()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(LesionsError, match="raw/link for one"):
        write()


@pytest.mark.parametrize("folder", [False, True])
def test_what_is_moved_into_place_is_on_the_disk_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    """A power cut after the move must not find an empty file."""
    calls: list[str] = []
    replace = Path.replace

    def moved(path: Path, target: Path) -> Path:
        calls.append("move")
        return replace(path, target)

    monkeypatch.setattr("os.fsync", lambda _: calls.append("flush"))
    monkeypatch.setattr("os.sync", lambda: calls.append("flush"))
    monkeypatch.setattr(Path, "replace", moved)
    with atomic_write(tmp_path / "there", folder) as partial:
        (partial / "file" if folder else partial).write_text("a")
    assert calls == ["flush", "move"]


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    write_json(tmp_path / "link", {})
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "link").is_symlink()


def test_a_list_of_files_that_is_the_users_own_protects_them_too(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "mine.jpg").write_text("precious")
    (folder / "files.txt").write_bytes(b"mine.jpg\n\xff")
    with pytest.raises(LesionsError, match=r"mine\.jpg for one"):
        check_folder(folder)
    (folder / "mine.jpg").unlink()
    with pytest.raises(LesionsError, match=r"files\.txt for one"):
        check_folder(folder)


def test_devices_and_a_users_partial_file_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.csv.partial").mkdir()
    (tmp_path / "a.csv.partial" / "mine").write_text("precious")
    write_json(tmp_path / "a.csv", {})
    assert (tmp_path / "a.csv.partial" / "mine").read_text() == "precious"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LesionsError, match="is a device or pipe"):
        write_json(tmp_path / "pipe", {})


def test_a_file_is_replaced_only_if_it_is_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    check_file(file)
    file.write_text("a,b\n")
    with pytest.raises(LesionsError, match=r"out\.csv: exists, and is not a file that this"):
        check_file(file)
    note_file(file)
    check_file(file)
    file.write_text("a,b\nmine\n")
    with pytest.raises(LesionsError, match="or was changed since"):
        check_file(file)
    with pytest.raises(LesionsError, match="is one of the files that are read"):
        check_file(tmp_path / "new.csv", [tmp_path / "deep/../new.csv"])
    with pytest.raises(LesionsError, match="is a folder"):
        check_file(tmp_path)


def test_a_cache_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LESIONS_CACHE", str(tmp_path / "file"))
    note_file(tmp_path / "file")
    assert "will not be replaced by another run" in capsys.readouterr().err


def test_the_cache_may_be_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LESIONS_CACHE", "~/x")
    assert user_cache() == Path.home() / "x"


def test_what_file_managers_leave_does_not_protect_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "raw"

    def write() -> None:
        with atomic_write(folder, folder=True) as partial:
            (partial / "ours.csv").write_text("a")

    write()
    for name in (".DS_Store", "Thumbs.db", "._ours.csv"):
        (folder / name).write_bytes(b"1")
    write()
    assert sorted(path.name for path in folder.iterdir()) == ["files.txt", "ours.csv"]


def test_line_ends_are_the_same_on_every_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.linesep", "\r\n")
    write_json(tmp_path / "a.json", {"x": 1})
    assert b"\r" not in (tmp_path / "a.json").read_bytes()
