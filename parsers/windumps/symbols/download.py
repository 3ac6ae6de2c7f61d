"""Downloads from a symbol server: bounded in time and size, retried, written in one step.

Written on urllib: a symbol server is asked for one file at a time, and a library would add nothing
but a dependency. Its timeouts are for single waits, so a server that gives a byte now and then holds it for
hours, in a name's look-up, the encryption, the headers or the body. Hence a thread asks, and who waits for
it looks at the clock.
"""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from queue import Empty, Full, Queue
from typing import IO

from windumps.files import (
    DiskRoom,
    free_room,
    put_in_place,
    remove_leftovers,
    temporary_beside,
    written,
)
from windumps.symbols.errors import (
    DownloadError,
    NotOnServerError,
    UnreachableServerError,
)

# Some servers answer only to what calls itself so.
USER_AGENT = "Microsoft-Symbol-Server/10.0.0.0 (windumps)"
CHUNK_BYTES = 1 << 18
_WAITING_CHUNKS = 8
_RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)

Progress = Callable[[str, int, "int | None"], None]
"""Called with the URL, the bytes received so far, and their total where the server says it."""


@dataclass(frozen=True)
class Limits:
    """How long and how much.

    Attributes:
        timeout_seconds: For the answer to begin (connecting, redirects and headers together), and for
            each wait for data.
        total_seconds: For one file, all tries together.
        all_seconds: For all files of a `Downloader`; time between them does not count.
        bytes_per_second: A file that comes slower is given up after three waits of `timeout_seconds`.
        max_bytes: Of one file.
        attempts: Tries, the first included.
        backoff_seconds: Wait before the second try; each further one waits twice as long.
    """

    timeout_seconds: float = 20.0
    total_seconds: float = 1800.0
    all_seconds: float = 3600.0
    bytes_per_second: int = 1 << 10
    max_bytes: int = 8 << 30
    attempts: int = 3
    backoff_seconds: float = 1.0


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects (with urllib's limits), but not away from the web or from encryption."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """See urllib; None makes it an error."""
        fp.close()  # or all of the page that comes with it would be read, however long it is
        allowed = ("https:",) if req.full_url.lower().startswith("https:") else ("http:", "https:")
        if not newurl.lower().startswith(allowed):
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Retry(Exception):  # noqa: N818  # never seen outside
    """A trouble that may pass."""


class _Request(threading.Thread):
    """Asks for one file, in a thread that nobody has to wait for.

    Attributes:
        parts: The answer's headers, its body in chunks and b"" at the end; or what went wrong, last.
    """

    def __init__(self, url: str, timeout: float) -> None:
        super().__init__(name=f"download {url}", daemon=True)
        self.parts: Queue[HTTPMessage | bytes | DownloadError | _Retry] = Queue(_WAITING_CHUNKS)
        self._url = url
        self._timeout = timeout
        self._is_over = False
        self.start()

    def drop(self) -> None:
        """Lets the thread end as soon as it comes to itself."""
        self._is_over = True

    def run(self) -> None:
        """See `threading.Thread`."""
        url = self._url
        try:
            request = urllib.request.Request(url, headers={"User-Agent": USER_AGENT})  # noqa: S310
            opener = urllib.request.build_opener(_WebOnly())
            with opener.open(request, timeout=self._timeout) as response:
                self._put(response.headers)
                while chunk := response.read1(CHUNK_BYTES):
                    self._put(chunk)
                    if self._is_over:
                        return
            self._put(b"")
        except urllib.error.HTTPError as error:
            error.close()
            self._put(_refusal(url, error.code, str(error.reason)))
        except urllib.error.URLError as error:
            self._put(_Retry(f"the server cannot be reached ({error.reason})"))
        except TimeoutError:
            self._put(_Retry(f"no data for {self._timeout:g} s"))
        except (HTTPException, OSError) as error:
            self._put(_Retry(f"the connection broke ({type(error).__name__})"))
        except ValueError as error:  # what urllib and http.client say of what they refuse
            self._put(DownloadError(f"{url}: {error}"))

    def _put(self, part: HTTPMessage | bytes | DownloadError | _Retry) -> None:
        while not self._is_over:
            try:
                return self.parts.put(part, timeout=1)
            except Full:
                continue
        return None


def _refusal(url: str, status: int, reason: str) -> DownloadError | _Retry:
    if status in _RETRIED_STATUS:
        return _Retry(f"the server answers {status}")
    if status in (404, 410):
        return NotOnServerError(f"{url}: not on the server")
    if status in (401, 403):
        return DownloadError(f"{url}: the server refuses ({status})")
    return DownloadError(f"{url}: the server answers {status} {' '.join(reason.split())}")


@dataclass
class Downloader:
    """Fetches files.

    Attributes:
        limits: See `Limits`.
        progress: See `Progress`; None for silence.
        sleep: Waits between tries; tests give another.
        spent_seconds: How long all files took so far.
    """

    limits: Limits = field(default_factory=Limits)
    progress: Progress | None = None
    sleep: Callable[[float], None] = time.sleep
    spent_seconds: float = 0.0

    def fetch(self, url: str, target: Path, accept: Callable[[Path], None]) -> None:
        """Downloads a file and puts it in its place only when it is whole and accepted.

        Args:
            url: http or https.
            target: Where it goes; its folder is made.
            accept: Looks at the downloaded temporary file and raises when it is not what was wanted.

        Raises:
            NotOnServerError: the server has no such file.
            UnreachableServerError: it gave no whole answer in several tries, or none in time.
            DownloadError: anything else that went wrong with the network or the server.
            OSError: the target's folder cannot be written to.
        """
        left = self.limits.all_seconds - self.spent_seconds
        if left <= 0:
            raise UnreachableServerError(f"{url}: not asked, {self._used_up()}")
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target)
        started = time.monotonic()
        deadline = started + min(self.limits.total_seconds, left)
        with temporary_beside(target) as (file, temporary):
            try:
                self._retry(url, file, target.parent, deadline)
            finally:
                self.spent_seconds += time.monotonic() - started
            written(file)
            accept(temporary)
            put_in_place(file, temporary, target)

    def _used_up(self) -> str:
        return f"the {self.limits.all_seconds:g} s for all downloads are used up"

    def _retry(self, url: str, file: IO[bytes], folder: Path, deadline: float) -> None:
        wait = self.limits.backoff_seconds
        for attempt in range(1, self.limits.attempts + 1):
            file.seek(0)
            file.truncate()
            request = _Request(url, self.limits.timeout_seconds)
            try:
                return self._receive(url, request, file, folder, deadline)
            except _Retry as error:
                if attempt == self.limits.attempts or time.monotonic() + wait > deadline:
                    tries = "1 try" if attempt == 1 else f"{attempt} tries"
                    raise UnreachableServerError(f"{url}: {error} ({tries})") from error
            finally:
                request.drop()
            self.sleep(wait)
            wait *= 2
        return None

    def _receive(
        self, url: str, request: _Request, file: IO[bytes], folder: Path, deadline: float
    ) -> None:
        started = time.monotonic()
        headers = self._next(url, request, deadline)
        limit = self.limits.max_bytes
        length = headers.get("Content-Length", "") if isinstance(headers, HTTPMessage) else ""
        total = int(length) if length.isdecimal() and len(length) < 20 else None
        if total is not None and total > limit:
            raise DownloadError(f"{url}: {total} bytes are more than the limit of {limit}")
        if total is not None and total > (free := free_room(folder)):
            raise _no_room(url, folder, free, total)
        encoding = "identity"
        if isinstance(headers, HTTPMessage):
            encoding = headers.get("Content-Encoding", encoding).lower()
        if encoding not in ("identity", "gzip"):
            raise DownloadError(f"{url}: the server sends {encoding}, which was not asked for")
        unpacker = zlib.decompressobj(31) if encoding == "gzip" else None
        room = DiskRoom(folder)
        received = kept = 0
        while isinstance(chunk := self._next(url, request, deadline), bytes) and chunk:
            received += len(chunk)
            while chunk:
                data, chunk = _unpack(unpacker, chunk)
                kept += len(data)
                if max(received, kept) > limit:
                    raise DownloadError(f"{url}: more than the limit of {limit} bytes")
                if not room.has(len(data)):
                    raise _no_room(url, folder, room.free, None)
                file.write(data)
            if self.progress is not None:
                self.progress(url, received, total)
            self._check_pace(url, received, time.monotonic() - started)
        if total is not None and received != total:
            raise _Retry(f"the server sent {received} of {total} bytes")
        if unpacker is not None:
            file.write(unpacker.flush())
            if not unpacker.eof:
                raise _Retry("the compressed answer is cut")

    def _next(self, url: str, request: _Request, deadline: float) -> HTTPMessage | bytes:
        """The next part of an answer, if it comes in time."""
        left = deadline - time.monotonic()
        try:
            part = request.parts.get(timeout=max(min(self.limits.timeout_seconds, left), 0.001))
        except Empty:
            part = _Retry(f"no data for {self.limits.timeout_seconds:g} s")
        if time.monotonic() > deadline:
            if self.limits.all_seconds - self.spent_seconds < self.limits.total_seconds:
                raise UnreachableServerError(f"{url}: not done, {self._used_up()}")
            raise UnreachableServerError(f"{url}: not done after {self.limits.total_seconds:g} s")
        if isinstance(part, (DownloadError, _Retry)):
            raise part
        return part

    def _check_pace(self, url: str, received: int, seconds: float) -> None:
        slowest = self.limits.bytes_per_second
        if seconds > 3 * self.limits.timeout_seconds and received < slowest * seconds:
            raise UnreachableServerError(
                f"{url}: {received} bytes in {seconds:.0f} s, slower than {slowest} bytes a second"
            )


def _no_room(url: str, folder: Path, free: int, total: int | None) -> DownloadError:
    what = f"its {total >> 20} MiB need" if total is not None else "it needs"
    return DownloadError(f"{url}: {what} more than the {free >> 20} MiB free in {folder}")


def _unpack(unpacker: zlib._Decompress | None, chunk: bytes) -> tuple[bytes, bytes]:
    """A bounded piece of what a chunk holds, and the rest of the chunk."""
    if unpacker is None:
        return chunk, b""
    try:
        return unpacker.decompress(chunk, CHUNK_BYTES), unpacker.unconsumed_tail
    except zlib.error as error:
        raise _Retry("the compressed answer is damaged") from error
