"""Transfers: files from an archive to the user's cache, resumed where broken, verified always."""

import errno
import os
import shutil
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pooch
import requests

from lesions.catalogue import Archive, RemoteFile
from lesions.errors import LesionsError
from lesions.progress import progress

ADDRESS_VARIABLE = "DATAVERSE_URL"  # a mirror; the only address that need not be HTTPS
CACHE_VARIABLE = "LESIONS_CACHE"
# The default names of requests and urllib are answered 403.
HEADERS = {"User-Agent": "lesions/0.1 (HAM10000 pipeline)", "Accept-Encoding": "identity"}
TIMEOUT = (20, 60)  # seconds to connect, and between two pieces of a file
TRIES = 6  # in a row that gained less than GAIN
WAIT = 2.0  # seconds before the second try, doubled before each further one
CHUNK = 1 << 16  # bytes written at a time: the most that a broken connection loses
GAIN = 1 << 20  # bytes that make a try worth something


def fetch(archive: Archive) -> dict[str, Path]:
    """Bring an archive's files to the cache, if they are not there, and verify them.

    Args:
        archive: an entry of the catalogue, or a table of the caller's own.

    Returns:
        Name to file.

    Raises:
        LesionsError: a file cannot be had, is not the published one, or does not fit the disk.
    """
    cache = Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("lesions"))
    base = (os.environ.get(ADDRESS_VARIABLE) or archive.address).rstrip("/")
    print(f"{archive.title}\n  licence: {archive.licence}\n  cite: {archive.citation}")
    return {file.name: _fetch_file(file, base, cache) for file in archive.files}


def _fetch_file(file: RemoteFile, base: str, cache: Path) -> Path:
    """Take a file from the cache, or transfer it there; twice, if a resumed one came out wrong."""
    url = base + file.path
    if urlsplit(url).scheme != "https" and not os.environ.get(ADDRESS_VARIABLE):
        raise LesionsError(f"{url}: only https addresses are fetched from.")
    again = False
    while True:
        transfer = _Transfer(file, cache, url)
        try:
            found = pooch.retrieve(
                url, f"md5:{file.md5}", fname=file.name, path=cache, downloader=transfer
            )
            return Path(found)
        except ValueError as mismatch:
            if transfer.resumed and not again:  # perhaps its first part was of another file
                again = True
                continue
            what = "an HTML page" if transfer.html else "other bytes"
            raise LesionsError(
                f"{url}: {what} came instead of {file.name} (MD5 {file.md5} expected). Nothing "
                f"was kept. {_by_hand(file, url, cache)}"
            ) from mismatch
        except OSError as error:
            raise _explain(error, file, cache) from error


def _explain(error: OSError, file: RemoteFile, cache: Path) -> LesionsError:
    """Say what the disk refused."""
    if error.errno == errno.ENOSPC:
        size = f"{file.size:,} bytes" if file.size else "a file of unpublished size"
        return LesionsError(
            f"{cache / file.name}: the disk is full ({size} needed). Make room, or name another "
            f"folder by {CACHE_VARIABLE}; the transfer goes on where it stopped."
        )
    return LesionsError(
        f"{cache}: cannot be used as a cache ({error.strerror or error}). Make it writable, or "
        f"name another folder by {CACHE_VARIABLE}."
    )


def _by_hand(file: RemoteFile, url: str, cache: Path) -> str:
    return f"By hand: fetch {url} and put it at {cache / file.name}, then run again."


class _Transfer:
    """A downloader for pooch that keeps what has come, so that the next try goes on from it."""

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
                # A connection that brought a good piece before it broke is no failed try.
                failures = 1 if self._size() >= before + GAIN else failures + 1
                if failures >= TRIES or not _passing(error):
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
        """Ask for what is missing; take all again from a server without ranges."""
        have, size = self._size(), self.file.size
        if size is not None and have == size:  # killed after the last byte came
            self.resumed = True
            return
        headers = HEADERS | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(self.url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == 416:  # nothing left to send, or another file by now
                self.part.unlink()
                raise requests.ConnectionError(f"refused to go on from byte {have}")
            answer.raise_for_status()
            plain = any(urlsplit(step.url).scheme != "https" for step in (*answer.history, answer))
            if plain and not os.environ.get(ADDRESS_VARIABLE):
                raise LesionsError(f"{self.url}: led to {answer.url}, which is not https.")
            going_on = answer.status_code == 206
            self.resumed |= going_on
            self._receive(answer, have if going_on else 0)

    def _receive(self, answer: requests.Response, have: int) -> None:
        length = int(answer.headers.get("Content-Length") or 0)
        total = self.file.size or have + length
        with (
            self.part.open("ab" if have else "wb") as file,
            progress(total, "B", self.file.name) as bar,
        ):
            bar.update(have)
            for piece in answer.iter_content(CHUNK):
                file.write(piece)
                bar.update(len(piece))
                have += len(piece)
                if self.file.size is not None and have > self.file.size:
                    break  # more than there is: the checksum will tell
        if not length and have < total:  # else urllib3 has counted
            raise requests.exceptions.ChunkedEncodingError(f"broke off at byte {have}")


def _passing(error: requests.RequestException) -> bool:
    """Tell whether the same request may go through later."""
    answer = error.response
    return answer is None or answer.status_code == 429 or answer.status_code >= 500


def _retry_after(error: requests.RequestException) -> float:
    """Read how long the server asks to wait, up to two minutes."""
    value = error.response.headers.get("Retry-After", "") if error.response is not None else ""
    return min(120.0, float(value)) if value.isdigit() else 0.0


def _cause(error: requests.RequestException, url: str) -> str:
    """Say in one sentence what went wrong, each kind apart."""
    answer = error.response
    if answer is None:
        if isinstance(error, requests.Timeout):
            return f"{url}: no answer in time."
        if isinstance(error, requests.exceptions.ChunkedEncodingError):
            return f"{url}: the transfer broke off."
        return f"{url}: no connection ({str(error)[:200]})."
    meaning = {
        403: "the server forbids it; a proxy or a changed licence click-through may be why",
        404: "the file is not there any more; the archive may have been reorganised",
        429: "too many requests; the server wants a pause",
    }.get(answer.status_code, "the server failed" if answer.status_code >= 500 else "refused")
    return f"{url}: HTTP {answer.status_code}, {meaning}."
