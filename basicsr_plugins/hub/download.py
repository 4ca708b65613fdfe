"""One file over HTTPS: in parts where the connection breaks off, whole before it gets its name."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any, Callable, Optional
from urllib.parse import urlsplit

from basicsr_plugins import __version__
from basicsr_plugins.hub.drive import confirmed_address, direct_address, is_refusal

__all__ = ["UnfetchableError", "check_address", "download"]

#: Seconds before the second, third ... try that brings nothing new. After the last one the download gives up.
PAUSES: tuple[float, ...] = (1, 2, 4, 8)
#: Seconds without a byte.
TIMEOUT = 30
_CHUNK = 1 << 20
_PAGE = 1 << 20
_BUSY = (429, 500, 502, 503, 504)
_LOCAL = ("localhost", "127.0.0.1", "::1")
_WEB_PAGE = re.compile(rb"\s*<(!doctype|html|head|body|\?xml|error)", re.IGNORECASE)


class UnfetchableError(Exception):
    """Why a file does not come: the middle of a sentence. Never leaves this room."""


class _BrokenOffError(Exception):
    """The connection ended early; another try may bring the rest."""


def check_address(address: str) -> None:
    """Refuse whatever is no https; http is for this machine alone, where tests serve.

    Raises:
        UnfetchableError: Another scheme.
    """
    parts = urlsplit(address)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOCAL):
        raise UnfetchableError(f"{address} is no https address")


def download(
    address: str,
    target: Path,
    check: Callable[[Path], None],
    size: Optional[int] = None,
    show: Optional[Callable[..., Any]] = None,
) -> dict[str, Any]:
    """Fetch a file, going on with what an earlier try left, and return what the server said of it.

    Args:
        address: https; a page of a Google Drive file stands for that file.
        target: Gets its name when it is complete and passed ``check``. What is there before that stands in
            ``.incomplete`` beside it.
        check: Called with the complete file under another folder and the same name; raises where it is not what it
            should be, and the file is deleted then.
        size: Bytes, where they are known beforehand.
        show: ``tqdm`` or its like; None shows nothing.

    Raises:
        UnfetchableError: It does not come.
        OSError: It cannot be written.
    """
    part = _Part(target)
    part.path.parent.mkdir(parents=True, exist_ok=True)
    transfer = _Transfer(direct_address(address), part, size, show)
    transfer.run()
    try:
        held = part.held()
        if size not in (None, held):
            raise UnfetchableError(f"{held} bytes came, and the file has {size}")
        check(part.path)
    except UnfetchableError:
        part.discard()  # going on from it would only repeat this
        raise
    with part.path.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(part.path, target)
    part.discard()
    return transfer.said


@dataclass
class _Part:
    """What is there of a file, and of which version of it."""

    target: Path

    @property
    def path(self) -> Path:
        return self.target.parent / ".incomplete" / self.target.name

    @property
    def _note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def held(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def version(self, address: str) -> dict[str, Any]:
        """Return what the server said of the version that the part is of; empty where nothing proves it."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        known = isinstance(note, dict) and note.get("address") == address and (note.get("etag") or note.get("modified"))
        return note if known else {}

    def begin(self, version: dict[str, Any]) -> None:
        self.path.write_bytes(b"")
        self._note.write_text(json.dumps(version), encoding="utf-8")

    def discard(self) -> None:
        for path in (self.path, self._note):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


@dataclass
class _Transfer:
    address: str
    part: _Part
    size: Optional[int]
    show: Optional[Callable[..., Any]]
    said: dict[str, Any] = field(default_factory=dict)
    bar: Any = None
    came: bool = False

    def __post_init__(self) -> None:
        self.asked = self.address  # what a part is of; the address that a page leads to is another one each time

    def run(self) -> None:
        opener = urllib.request.build_opener(_Redirects, urllib.request.HTTPCookieProcessor(CookieJar()))
        tries, most = 0, -1
        try:
            while True:
                try:
                    self._try(opener)
                    return
                except _BrokenOffError as error:
                    held = self.part.held()
                    tries = 0 if held > most >= 0 else tries
                    most = max(most, held)
                    if tries >= len(PAUSES):
                        raise UnfetchableError(
                            f"{error} (after {len(PAUSES) + 1} tries; another run goes on)"
                        ) from error
                    time.sleep(PAUSES[tries])
                    tries += 1
        finally:
            if self.bar is not None:
                self.bar.close()

    def _try(self, opener: Any, pages: int = 0) -> None:
        held, version = self.part.held(), self.part.version(self.asked)
        if not held or not version:
            held, version = 0, {}
        with self._opened(opener, held, version) as response:
            if response is None:  # all of it is here, or what is here is of no use
                return
            start = self._start(response, held, version)
            total = _total(response, start)
            blocks = self._blocks(response)
            first = next(blocks, b"")
            if start == 0:
                page = _page(response, first, blocks)
                if page is not None:
                    self._follow(opener, page, response.geturl(), pages)
                    return
                if self.size is not None and total not in (None, self.size):
                    raise UnfetchableError(f"the server offers {total} bytes, and the file has {self.size}")
            self._write(first, blocks, start, total, response)
        held = self.part.held()
        if total is not None and held < total:
            raise _BrokenOffError(f"the connection broke off after {held} of {total} bytes")
        if held == 0:
            raise UnfetchableError("the server sent an empty file")

    @contextlib.contextmanager
    def _opened(self, opener: Any, held: int, version: dict[str, Any]) -> Iterator[Any]:
        check_address(self.address)
        headers = {"User-Agent": f"basicsr_plugins/{__version__}", "Accept-Encoding": "identity"}
        if held:
            headers.update({"Range": f"bytes={held}-", "If-Range": version["etag"] or version["modified"]})
        try:
            response = opener.open(urllib.request.Request(self.address, headers=headers), timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            with error:
                self._answered(error, held)
            yield None
            return
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            text = f"the connection failed: {reason or type(error).__name__}"
            if self.came or isinstance(reason, (TimeoutError, ConnectionResetError)):
                raise _BrokenOffError(text) from error
            raise UnfetchableError(text) from error
        with response:
            yield response

    def _answered(self, error: urllib.error.HTTPError, held: int) -> None:
        """Say what an answer other than the file means; return where the whole file is here already."""
        if error.code == 416 and held:
            if error.headers.get("Content-Range", "").strip() == f"bytes */{held}":
                self.said = self.part.version(self.asked)
                return
            self.part.discard()
            raise _BrokenOffError("the file changed on the server")
        reason = str(error.reason).strip().partition("\n")[0].rstrip(".")
        text = f"the server answered {error.code} ({reason})"
        if error.code in _BUSY:
            raise _BrokenOffError(text) from error
        raise UnfetchableError(text) from error

    def _start(self, response: Any, held: int, version: dict[str, Any]) -> int:
        """Return where the answer begins: a server that knows no parts, or has another file by now, begins at 0."""
        if response.status != 206:
            return 0
        found = re.match(r"bytes (\d+)-\d*/(\d+|\*)", response.headers.get("Content-Range", ""))
        said = _version(response, self.asked)
        same = all(not said[key] or said[key] == version.get(key) for key in ("etag", "modified"))
        total = version.get("total")
        if not found or int(found.group(1)) != held or not same or found.group(2) not in ("*", str(total)):
            self.part.discard()
            raise _BrokenOffError("the file changed on the server")
        return held

    def _blocks(self, response: Any) -> Iterator[bytes]:
        while True:
            try:
                block = response.read(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _BrokenOffError(f"the connection broke off ({error or type(error).__name__})") from error
            if not block:
                return
            self.came = True
            yield block

    def _follow(self, opener: Any, page: str, address: str, pages: int) -> None:
        confirmed = confirmed_address(page, address)
        if confirmed is not None and pages == 0:
            self.address = confirmed
            self._try(opener, pages + 1)
            return
        if is_refusal(page):
            raise UnfetchableError("Google Drive gives the file to nobody today, because too many fetched it")
        title = re.search(r"<title[^>]*>(.*?)</title>", page, re.IGNORECASE | re.DOTALL)
        named = f" ({' '.join(title.group(1).split())[:80]!r})" if title else ""
        raise UnfetchableError(f"the server sent a web page{named} instead of the file")

    def _write(self, first: bytes, blocks: Iterator[bytes], start: int, total: Optional[int], response: Any) -> None:
        free = shutil.disk_usage(self.part.path.parent).free
        if total is not None and total - start > free:
            raise OSError(errno.ENOSPC, f"{total - start} bytes are still to come, and the disk has {free} left")
        if start == 0:
            self.said = {**_version(response, self.asked), "total": total}
            self.part.begin(self.said)
        else:
            self.said = self.part.version(self.asked)
        bar = self._shown(start, total)
        with self.part.path.open("ab") as file:
            for block in _chained(first, blocks):
                file.write(block)
                if bar is not None:
                    bar.update(len(block))

    def _shown(self, start: int, total: Optional[int]) -> Any:
        if self.show is None:
            return None
        if self.bar is None:
            self.bar = self.show(total=total, unit="B", unit_scale=True, desc=self.part.path.name, disable=None)
        self.bar.n, self.bar.total = start, total
        return self.bar


def _chained(first: bytes, blocks: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from blocks


def _version(response: Any, address: str) -> dict[str, Any]:
    etag = response.headers.get("ETag", "")
    weak = etag.startswith("W/")  # which does not promise the same bytes
    return {"address": address, "etag": "" if weak else etag, "modified": response.headers.get("Last-Modified", "")}


def _total(response: Any, start: int) -> Optional[int]:
    if response.status == 206:
        found = response.headers.get("Content-Range", "").rpartition("/")[2]
        return int(found) if found.isdigit() else None
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else None


def _page(response: Any, first: bytes, blocks: Iterator[bytes]) -> Optional[str]:
    """Return the web page where the answer is one."""
    if response.headers.get_content_type() != "text/html" and not _WEB_PAGE.match(first):
        return None
    page = first
    with contextlib.suppress(_BrokenOffError):
        for block in blocks:
            page += block
            if len(page) > _PAGE:
                break
    return page.decode("utf-8", errors="replace")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow a redirection to https alone."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
