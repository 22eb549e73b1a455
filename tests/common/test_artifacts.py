import errno
from pathlib import Path

import pandas as pd
import pytest

from lesions.common.artifacts import atomic_write, write_csv, write_json
from lesions.common.errors import LesionsError


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
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_never_gives_way_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "there" / "deep").mkdir(parents=True)
    with pytest.raises(LesionsError, match="there: is a folder; a file is to be written"):
        write_csv(tmp_path / "there", pd.DataFrame({"a": [1]}))
    assert (tmp_path / "there" / "deep").is_dir()


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "cannot be written")],
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
