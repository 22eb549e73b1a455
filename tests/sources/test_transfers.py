"""Transfers against a server that behaves as the archives do, their faults included."""

import dataclasses
import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from helpers import DATASET, ROOT

from lesions.common.errors import LesionsError
from lesions.common.user_cache import CACHE_VARIABLE
from lesions.sources import transfers
from lesions.sources.catalogue import HAM10000, ISIC2018, Archive, RemoteFile
from lesions.sources.download import download

DATASET_FILE = str(ROOT / "datasets/ham10000.yaml")


class Server(ThreadingHTTPServer):
    """Dataverse in small: anonymous GET with ranges, a redirect, no HEAD, no library's name."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.break_at: list[int] = []  # bytes after which the next answers break off
        self.statuses: list[int] = []  # of the next answers
        self.body: bytes | None = None  # sent instead of every file
        self.pause = 0.0  # seconds before each answer
        self.rate: int | None = None  # bytes a second
        self.asked: list[str] = []  # the Range of each request
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.send_error(403)

    def do_GET(self) -> None:
        server = self.server
        agent = self.headers.get("User-Agent", "")
        if agent.startswith(("python-requests", "Python-urllib")):
            self.send_error(403)
            return
        if not self.path.startswith("/storage"):  # Dataverse sends its visitors on to a store
            self.send_response(303)
            self.send_header("Location", "/storage" + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        time.sleep(server.pause)
        asked = self.headers.get("Range", "")
        server.asked.append(asked)
        if server.statuses and (status := server.statuses.pop(0)) != 200:
            self.send_response(status)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = server.files[self.path.removeprefix("/storage")]
        data = data if server.body is None else server.body
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = server.break_at.pop(0) if server.break_at else len(data)
        step = 8192
        for place in range(start, end, step):
            piece = data[place : min(place + step, end)]
            self.wfile.write(piece)
            server.sent += len(piece)
            if server.rate:
                time.sleep(len(piece) / server.rate)
        self.close_connection = True

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever, args=(0.05,))
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


DATA = random.Random(0).randbytes(3_000_000)


@pytest.fixture
def archive(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """One file of 3 MB on the server; cache and waits of the test's own."""
    monkeypatch.setenv(transfers.ADDRESS_VARIABLE, server.url)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(transfers, "WAIT", 0.0)
    path = "/api/access/datafile/1?format=original"
    server.files[path] = DATA
    file = RemoteFile("photos.zip", path, hashlib.md5(DATA).hexdigest(), len(DATA))
    return dataclasses.replace(HAM10000, files=(file,))


def fetched(archive: Archive) -> bytes:
    return transfers.fetch(archive)["photos.zip"].read_bytes()


def refused(archive: Archive, cache: Path) -> str:
    """Fetch in vain: return the message, having seen that nothing wrong was kept."""
    with pytest.raises(LesionsError) as error:
        transfers.fetch(archive)
    assert not (cache / "photos.zip").exists()
    return str(error.value)


def test_whole_then_from_the_cache(
    archive: Archive, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetched(archive) == DATA
    printed = capsys.readouterr().out
    assert printed.count("CC BY-NC 4.0") == 1
    assert "doi:10.1038/sdata.2018.161" in printed
    server.files.clear()
    assert fetched(archive) == DATA
    assert len(server.asked) == 1


def test_two_downloads_at_a_time_do_not_share_a_partial_file(
    archive: Archive, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.rate = 6_000_000
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda: results.append(fetched(archive))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [DATA, DATA]
    assert len(server.asked) == 1  # the second has waited, and taken the file of the first
    assert "photos.zip: another process downloads it; waiting" in capsys.readouterr().out


@pytest.mark.parametrize("size", [len(DATA), None])
def test_broken_transfer_goes_on_from_there(
    archive: Archive, server: Server, size: int | None
) -> None:
    archive = dataclasses.replace(
        archive, files=(dataclasses.replace(archive.files[0], size=size),)
    )
    server.break_at = [1 << 20, 40 << 16]
    assert fetched(archive) == DATA
    assert server.asked == ["", f"bytes={1 << 20}-", f"bytes={40 << 16}-"]
    assert server.sent == len(DATA)


def test_server_without_ranges_starts_again(archive: Archive, server: Server) -> None:
    server.ranges = False
    server.break_at = [1_000_000]
    assert fetched(archive) == DATA
    assert server.sent == len(DATA) + 1_000_000


def test_what_an_earlier_run_left_is_used(archive: Archive, server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    part = tmp_path / "cache" / "photos.zip.part"
    part.write_bytes(DATA[:2_000_000])
    assert fetched(archive) == DATA
    assert server.sent == 1_000_000
    assert not part.exists()


@pytest.mark.parametrize("left", [b"x" * 1_000_000, b"x" * 3_000_000, b"x" * 3_000_001])
def test_wrong_bytes_left_by_an_earlier_run_are_given_up(
    archive: Archive, tmp_path: Path, left: bytes
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "photos.zip.part").write_bytes(left)
    assert fetched(archive) == DATA


def test_broken_again_and_again(archive: Archive, server: Server, tmp_path: Path) -> None:
    server.break_at = [1000] * 50
    message = refused(archive, tmp_path / "cache")
    assert len(server.asked) == transfers.TRIES
    assert "By hand: download http" in message
    assert str(tmp_path / "cache" / "photos.zip") in message


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (DATA[:-1] + b"!", "sent other bytes"),
        (DATA[:1_000_000], "sent other bytes"),
        (DATA + b"more", "sent other bytes"),
        (b"<!DOCTYPE html><p>busy</p>", "sent an HTML page"),
    ],
    ids=("changed", "short", "long", "HTML"),
)
def test_wrong_bytes_are_refused(
    archive: Archive, server: Server, tmp_path: Path, body: bytes, what: str
) -> None:
    server.body = body
    message = refused(archive, tmp_path / "cache")
    assert what in message
    assert archive.files[0].md5 in message
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".lock"]


def test_wrong_bytes_that_also_break_off_are_asked_for_twice(
    archive: Archive, server: Server, tmp_path: Path
) -> None:
    server.body = bytes(len(DATA))
    server.break_at = [1 << 20, len(DATA)] * 4
    assert "sent other bytes" in refused(archive, tmp_path / "cache")
    assert len(server.asked) == 4


@pytest.mark.parametrize(("status", "why"), [(403, "forbids"), (404, "does not exist any more")])
def test_final_refusals_are_not_asked_again(
    archive: Archive, server: Server, tmp_path: Path, status: int, why: str
) -> None:
    server.statuses = [status]
    message = refused(archive, tmp_path / "cache")
    assert f"HTTP {status}" in message
    assert why in message
    assert len(server.asked) == 1


@pytest.mark.parametrize(("status", "why"), [(429, "asks to wait"), (503, "the server failed")])
def test_passing_refusals_are_waited_out(
    archive: Archive,
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    status: int,
    why: str,
) -> None:
    server.statuses = [status, status, 200]
    assert fetched(archive) == DATA
    assert f"HTTP {status}, " in (printed := capsys.readouterr().out)
    assert why in printed
    server.statuses = [status] * 50
    (tmp_path / "cache" / "photos.zip").unlink()
    assert f"HTTP {status}" in refused(archive, tmp_path / "cache")


def test_waits_grow(archive: Archive, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(transfers, "WAIT", 2.0)
    monkeypatch.setattr(time, "sleep", waits.append)
    server.pause = 0
    server.statuses = [503, 503, 503]
    fetched(archive)
    assert [wait for wait in waits if wait >= 2] == [2, 4, 8]


def test_silent_server(
    archive: Archive, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "TIMEOUT", (1, 0.05))
    server.pause = 0.5
    assert "no answer in time" in refused(archive, tmp_path / "cache")


def test_full_disk(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transfers._Transfer, "_receive", full)
    message = refused(archive, tmp_path / "cache")
    assert "photos.zip: the disk is full (3,000,000 bytes needed)" in message


def test_cache_that_is_no_folder(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(LesionsError, match=r"cache: cannot be used as a cache.*LESIONS_CACHE"):
        transfers.fetch(archive)


def test_only_https(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(transfers.ADDRESS_VARIABLE)
    with pytest.raises(LesionsError, match="only https"):
        transfers.fetch(dataclasses.replace(archive, address="http://127.0.0.1:1"))
    for known in (HAM10000, ISIC2018):
        assert urlsplit(known.address).scheme == "https"


@pytest.mark.slow
def test_killed_anywhere_and_run_again(
    server: Server, tmp_path: Path, raw: Path, archive: Archive
) -> None:
    """Ten kills during transfer and unpacking; then the same bytes as undisturbed."""
    photos = sorted((raw / "images").iterdir())
    files = [RemoteFile("HAM10000_metadata.csv", "/m", "", None)]
    server.files["/m"] = (raw / "metadata.csv").read_bytes()
    for part in (1, 2):
        path = tmp_path / f"part_{part}.zip"
        with zipfile.ZipFile(path, "w") as file:
            for photo in photos[part - 1 :: 2]:
                file.write(photo, photo.name)
        server.files[f"/{part}"] = path.read_bytes()
        files.append(RemoteFile(f"HAM10000_images_part_{part}.zip", f"/{part}", "", None))
    files = [
        dataclasses.replace(
            file,
            md5=hashlib.md5(server.files[file.path]).hexdigest(),
            size=len(server.files[file.path]),
        )
        for file in files
    ]
    table = dataclasses.replace(HAM10000, files=tuple(files), photos=28, lesions=28, counts=None)
    program = textwrap.dedent(
        f"""
        from pathlib import Path
        from lesions.common.artifacts import atomic_write
        from lesions.sources.catalogue import Archive, RemoteFile
        from lesions.dataset.description import load_description
        from lesions.sources.download import download
        with atomic_write(Path("data/raw/images"), folder=True) as images:
            download("dataverse", 0, 1600, load_description({DATASET_FILE!r}), images, {table!r})
        """
    )
    work = tmp_path / "work"
    work.mkdir()
    server.rate = 3_000_000
    chance = random.Random(1)
    for _ in range(10):
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=work,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(timeout=chance.uniform(1.0, 3.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        whole = work / "data" / "raw" / "images"
        assert not whole.exists() or len(list(whole.glob("*.jpg"))) == 28
    server.rate = None
    download("dataverse", 0, 1600, DATASET, _new(tmp_path / "undisturbed"), table)
    subprocess.run(
        [sys.executable, "-c", program],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    for path in (tmp_path / "undisturbed").rglob("*.*"):
        other = work / "data" / "raw" / "images" / path.relative_to(tmp_path / "undisturbed")
        assert other.read_bytes() == path.read_bytes()


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder
