"""Transfers: files from an archive to the user's cache, resumed if interrupted, verified."""

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pooch
import requests
from filelock import FileLock, Timeout

from lesions.common.errors import LesionsError
from lesions.common.progress import progress
from lesions.common.user_cache import CACHE_VARIABLE, user_cache
from lesions.sources.catalogue import Archive, RemoteFile

ADDRESS_VARIABLE = "DATAVERSE_URL"  # a mirror; the only address that need not be HTTPS
# The server answers 403 to the default user agents of requests and urllib.
HEADERS = {"User-Agent": "lesions/0.1 (HAM10000 pipeline)", "Accept-Encoding": "identity"}
TIMEOUT = (20, 60)  # seconds to connect, and between two parts of a file
TRIES = 6  # in a row that each bring less than PROGRESS
WAIT = 2.0  # seconds before the second try, doubled before each further one
CHUNK = 1 << 16  # bytes written at a time: the most that a lost connection costs
PROGRESS = 1 << 20  # bytes
LARGEST = 4 << 30  # bytes of a file whose size is not published


def fetch(archive: Archive) -> dict[str, Path]:
    """Download an archive's files to the cache, unless they are there, and verify them.

    Args:
        archive: an entry of the catalogue, or a test's own table.

    Returns:
        A dict from name to file.

    Raises:
        LesionsError: a file cannot be downloaded, is not the published one, or the disk is full.
    """
    cache = user_cache()
    base = (os.environ.get(ADDRESS_VARIABLE) or archive.address).rstrip("/")
    print(f"{archive.title}\n  licence: {archive.licence}\n  cite: {archive.citation}")
    return {file.name: _fetch_file(file, base, cache) for file in archive.files}


def _fetch_file(file: RemoteFile, base: str, cache: Path) -> Path:
    """Take a file from the cache, or download it."""
    url = base + file.path
    if urlsplit(url).scheme != "https" and not os.environ.get(ADDRESS_VARIABLE):
        raise LesionsError(f"{url}: only https addresses are allowed.")
    if (there := cache / file.name).is_file() and pooch.file_hash(there, "md5") == file.md5:
        return there
    try:
        with _only_one(cache / f"{file.name}.lock"):
            return _download(file, url, cache)
    except OSError as error:
        raise _explain(error, file, cache) from error


@contextlib.contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Wait for other processes that download the same file: they would share its partial file."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        print(f"{lock.with_suffix('')}: another process downloads it; waiting for that", flush=True)
        held.acquire()
    try:
        yield
    finally:
        held.release()


def _download(file: RemoteFile, url: str, cache: Path) -> Path:
    """Download a file; once more if a resumed download is wrong."""
    retried = False
    while True:
        transfer = _Transfer(file, cache, url)
        try:
            found = pooch.retrieve(
                url, f"md5:{file.md5}", fname=file.name, path=cache, downloader=transfer
            )
            return Path(found)
        except ValueError as mismatch:
            if transfer.resumed and not retried:  # its first part may be of another file
                retried = True
                continue
            what = "an HTML page" if transfer.html else "other bytes"
            raise LesionsError(
                f"{url}: sent {what} instead of {file.name} (MD5 {file.md5}). Nothing "
                f"was kept. {_by_hand(file, url, cache)}"
            ) from mismatch


def _explain(error: OSError, file: RemoteFile, cache: Path) -> LesionsError:
    """Say what is wrong with the disk."""
    if error.errno == errno.ENOSPC:
        size = f"{file.size:,} bytes" if file.size else "a file of unpublished size"
        return LesionsError(
            f"{cache / file.name}: the disk is full ({size} needed). Make room, or name another "
            f"folder in {CACHE_VARIABLE}; the transfer will resume where it stopped."
        )
    return LesionsError(
        f"{cache}: cannot be used as a cache ({error.strerror or error}). Make it writable, or "
        f"name another folder in {CACHE_VARIABLE}."
    )


def _by_hand(file: RemoteFile, url: str, cache: Path) -> str:
    return f"By hand: download {url} and put it at {cache / file.name}, then run again."


class _Transfer:
    """A downloader for pooch that keeps a partial file, so that the next try resumes it."""

    def __init__(self, file: RemoteFile, cache: Path, url: str) -> None:
        self.file, self.cache, self.url = file, cache, url
        self.part = cache / f"{file.name}.part"
        self.resumed = False
        self.html = False

    def __call__(self, url: str, output: str, _: Any) -> None:
        """Transfer `url` to `output`, which pooch verifies and moves into place."""
        failures = 0
        while True:
            before = self._size()
            try:
                self._continue()
                break
            except requests.RequestException as error:
                # A connection that made progress before it was lost is not a failed try.
                failures = 1 if self._size() >= before + PROGRESS else failures + 1
                if failures >= TRIES or not _temporary(error):
                    raise LesionsError(
                        f"{_cause(error, url)} {_by_hand(self.file, url, self.cache)}"
                    ) from None
                wait = max(WAIT * 2 ** (failures - 1), _retry_after(error))
                print(f"{_cause(error, url)} Next try in {wait:.0f} s.")
                time.sleep(wait)
        with self.part.open("rb") as file:
            self.html = file.read(64).lstrip().lower().startswith((b"<!doctype", b"<html"))
        shutil.move(self.part, output)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _continue(self) -> None:
        """Request the missing bytes; a server without ranges sends all again."""
        have, size = self._size(), self.file.size
        if size is not None and have == size:  # killed after the last byte
            self.resumed = True
            return
        headers = HEADERS | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(self.url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == 416:  # nothing left to send, or the file has changed
                if not have:
                    answer.raise_for_status()
                self.part.unlink()
                raise requests.ConnectionError(f"refused to resume at byte {have}")
            answer.raise_for_status()
            plain = any(urlsplit(step.url).scheme != "https" for step in (*answer.history, answer))
            if plain and not os.environ.get(ADDRESS_VARIABLE):
                raise LesionsError(f"{self.url}: redirects to {answer.url}, which is not https.")
            resuming = answer.status_code == 206
            self.resumed |= resuming
            self._receive(answer, have if resuming else 0)

    def _receive(self, answer: requests.Response, have: int) -> None:
        length = int(answer.headers.get("Content-Length") or 0)
        total = self.file.size or have + length
        with (
            self.part.open("ab" if have else "wb") as file,
            progress(total, "B", self.file.name) as bar,
        ):
            bar.update(have)
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
                have += len(chunk)
                if have > (self.file.size or LARGEST):
                    break  # too many: the checksum will not match
        if not length and have < total:  # with a length, urllib3 checks it
            raise requests.exceptions.ChunkedEncodingError(f"interrupted at byte {have}")


def _temporary(error: requests.RequestException) -> bool:
    """Say whether the same request may succeed later."""
    answer = error.response
    final = (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)
    if isinstance(error, (*final, requests.TooManyRedirects)):
        return False
    return answer is None or answer.status_code == 429 or answer.status_code >= 500


def _retry_after(error: requests.RequestException) -> float:
    """Read how long the server asks to wait, at most two minutes."""
    value = error.response.headers.get("Retry-After", "") if error.response is not None else ""
    return min(120.0, float(value)) if value.isdigit() else 0.0


def _cause(error: requests.RequestException, url: str) -> str:
    """Explain a failed request in one sentence."""
    answer = error.response
    if answer is None:
        if isinstance(error, requests.Timeout):
            return f"{url}: no answer in time."
        if isinstance(error, requests.exceptions.ChunkedEncodingError):
            return f"{url}: the transfer was interrupted."
        if isinstance(error, requests.exceptions.InvalidSchema):
            return f"{url}: redirects to an address that is not https ({str(error)[:200]})."
        return f"{url}: no connection ({str(error)[:200]})."
    meaning = {
        403: "the server forbids it; a proxy, or a licence to accept first, may be the reason",
        404: "the file does not exist any more; the archive may have been reorganised",
        429: "too many requests; the server asks to wait",
    }.get(answer.status_code, "the server failed" if answer.status_code >= 500 else "refused")
    return f"{url}: HTTP {answer.status_code}, {meaning}."
